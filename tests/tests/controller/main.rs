//! Lanyard on a CAN controller with a driver, a transmit queue, and an echo that means something: QEMU's
//! kvaser_pci under a PREEMPT_RT kernel. The supervisor is on `can0`, the simulated drives and the witness
//! are on `can1`, and every frame between them crosses the emulated wire.
//!
//! Run it with `cargo xtask test --only controller`. The tests share the interfaces and take turns
//! (`--test-threads=1`). What a vcan shows as well does not belong here: this machine is slow to start.

mod adapter;
mod chain;
mod interface;
mod overtaking;
mod player;
mod scene;
mod stalled;
mod tells;
mod watchdog;
