//! What was commanded last is what happens: sequences of commands that a client sends without waiting for answers, and
//! the set-point that the simulated drive has at the end.
//!
//! `patterns` are the sequences; `trial` plays one on a robot and judges it. The tests play each once or a few times,
//! `cargo xtask order` as often as is asked for.

pub mod patterns;
pub mod trial;

pub use patterns::{Command, Pattern, Start, Way};
pub use trial::{Bench, Verdict};
