//! Lanyard's supervisor: the process that stops the motors.
//!
//! What lives here: [`core`], the pure state machine that decides; [`runtime`], the real-time thread
//! that feeds it; [`service`], the housekeeping beside it; [`last_words`], the stops of a panic;
//! [`kernel_stop`], the stops of a supervisor that hangs or is killed, with [`bcm`], [`holder`], [`rearm`] and [`keeper`];
//! [`latches`], what waits for a reset, on disk; [`recording`], what the core was given, for who asks for it; `sys`, the
//! few system calls.
//!
//! What must never live here: a network stack, an async runtime, a logging framework, or anything the
//! real-time thread could wait for.

pub mod allocator;
pub mod bcm;
pub mod bus;
pub mod core;
pub mod doors;
pub mod estop;
mod handoff;
pub mod hardware_watchdog;
pub mod holder;
pub mod inheritance;
pub mod intake;
pub mod keeper;
pub mod kernel_frame;
pub mod kernel_stop;
pub mod last_words;
pub mod latches;
pub mod log;
pub mod meter;
pub mod netlink;
pub mod notify;
pub mod privileges;
pub mod queue;
pub mod realtime;
pub mod rearm;
pub mod recording;
pub mod runtime;
pub mod service;
pub mod start;
pub mod sys;
mod syscalls;
pub mod wakeups;
