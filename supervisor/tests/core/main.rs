//! The core's decisions, one rule per test. Each test names in its message what would be wrong.
//!
//! What lives here: a file for each kind of rule, and [`support`], the core with a front beside it. What must never: a
//! test that sleeps or measures time.
#![allow(clippy::missing_docs_in_private_items, reason = "tests")]

mod asking;
mod bounds;
mod deaf;
mod fates;
mod freshness;
mod idle;
mod inheritance;
mod latches;
mod looks;
mod operator;
mod origin;
mod plausibility;
mod record;
mod rest;
mod sessions;
mod span;
mod stops;
mod support;
mod together;
mod windows;

use shm_proto::MotorIndex;
use shm_proto::verdicts::MotorState;
use support::Bench;

const SET_VELOCITY_MODE: &str = "06B#0200000001000000";
const ZERO_VELOCITY: &str = "06D#0000000000000000";
const TO_IDLE: &str = "067#0100000000000000";

fn state(bench: &Bench, motor: MotorIndex) -> MotorState {
    bench.view.motor(motor).expect("the motor exists").state
}
