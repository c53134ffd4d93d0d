//! A library that is preloaded into Debian's user-mode Linux 6.1, which processors with AMX need.
//!
//! What lives here: [`mod@ptrace`], the call with which user-mode Linux writes the registers of a guest's process.
//! It does nothing else, and nothing of Lanyard is linked with it. Elsewhere than on x86-64 Linux it is empty.

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod ptrace;
