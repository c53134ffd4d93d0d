//! The first boot: everything that happens to a robot but the reset of the whole machine.

mod boot;
mod client;
mod config;
mod hang;
mod hotplug;
mod kill;
mod restart;
mod scarcity;
mod upgrade;
