//! Motor drives as pure data.
//!
//! What lives here: for each drive family, the frames that stop, enable and move a motor, the
//! decoding of the drive's feedback, and what counts as proof that the motor stands still. Everything
//! is built once at start-up ([`registry::build`]); encoding and decoding afterwards neither allocate
//! nor fail by panicking.
//!
//! What must never live here: I/O, time, threads, `unsafe`, the standard library beyond `alloc` (which only building
//! uses), or anything that waits.
//!
//! To add a family: one file beside [`odrive`] with one `pub const FAMILY`, one line in
//! [`registry::FAMILIES`], one table of vectors in `tests/`.
#![forbid(unsafe_code)]
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod agilex;
mod canopen;
pub mod cia402;
pub mod cubemars_mit;
pub mod cubemars_servo;
pub mod cyphal;
pub mod damiao;
pub mod dji;
pub mod drive;
pub mod dronecan;
pub mod enable;
pub mod feedback;
pub mod frame;
pub mod frames;
mod half;
pub mod marker;
mod math;
pub mod meaning;
mod mit;
pub mod moteus;
pub mod odrive;
pub mod registry;
pub mod rev_spark;
pub mod rmd;
pub mod roboteq;
pub mod robstride;
pub mod settings;
#[cfg(feature = "socketcan")]
pub mod socket;
pub mod stop;
pub mod tinymovr;
pub mod unattended;
pub mod units;
pub mod vesc;
pub mod watchdog;

pub use drive::{Drive, Heartbeat, PollWhen, Protocol, Setpoint, Slot, SpeedLoop, VelocityError};
pub use enable::{EnableProgramme, EnableStep, Until};
pub use feedback::{Fault, Observation, Output, Power, Refusal};
pub use frame::{ArbitrationId, Format, Frame, FrameList};
pub use meaning::{Demand, Heard, Meaning, Role, Told};
pub use settings::{Settings, SettingsError, Value};
pub use stop::{AfterStop, PowerProof, Proof, Stage, StageKind, Standstill, StopProgramme};
pub use units::{Amperes, Revolutions, RevolutionsPerSecond};
pub use watchdog::{Feeds, Watchdog, WatchdogReading, WatchdogSet};
