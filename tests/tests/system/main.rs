//! Lanyard on a whole machine: Debian boots under a PREEMPT_RT kernel with the package installed and the target
//! enabled, as on a robot. The supervisor is on `can0`; the simulated drive and the witness are on `can1`, the other
//! end of the emulated wire. The tests run as root in that machine, started by its systemd.
//!
//! Run it with `cargo xtask test --only system`; it runs nowhere else, because it ends services, fills the disk and
//! takes interfaces away. The tests share the machine and take turns, in the order of their names: each begins with
//! a robot that is armed and stands still, and leaves one behind. `first` is the first boot; the machine is then reset by
//! its hardware watchdog, and `second` looks at what is left. Everything is slow here and late at times: order is asserted,
//! and bounds that say why. What a rig shows as well does not belong here.

mod client;
mod first;
mod machine;
mod scene;
mod second;
