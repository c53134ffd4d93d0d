//! Everything that the core is given, and everything that it answers, in one file; and the same core played again from it.
//!
//! For the rig, and for reports of faults: `--record` is never on by default. The core decides by nothing but its inputs, so
//! that one program plays what another has recorded and must come to the same frames and the same verdicts.
//!
//! What lives here: [`Input`], every call of the core as a value; [`Entry`], a few words that pass from the real-time thread
//! to the file; [`Recorded`], buses that write down what passes; [`Writer`], the thread for the file; [`Header`], what the
//! core began with; [`replay`]. What must never live here: anything that a supervisor without `--record` executes.
//!
//! **The front's memory** is an input as well, and changes at any moment. While a recording is made the core reads a copy of
//! it, which is brought up to date right before each pass that may look at it (`shm_proto::copy`); each word that changes
//! is written down. So a recorded supervisor sees beats as of the beginning of its pass.
//!
//! **A recording is whole or broken.** The real-time thread waits for nobody: when the queue to the file is full, or the disk
//! refuses, the recording ends there, says so, and is played no more.

mod entry;
mod header;
mod input;
mod recorded;
mod replay;
mod writer;

pub use entry::{Damaged, Entry, Kind};
pub use header::Header;
pub use input::Input;
pub use recorded::{QUEUE_ENTRIES, Recorded, Tape};
pub use replay::{End, Replayed, replay};
pub use writer::{Finish, Writer};
