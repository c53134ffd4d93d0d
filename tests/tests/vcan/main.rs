//! Lanyard as a whole on a real (virtual) CAN bus: the programs as they are installed, simulated drives, and
//! clients that run the unmodified Viam SDK.
//!
//! All tests use `vcan0`, so they run one at a time (`--test-threads=1`). Frames are judged by a witness of
//! its own at the far end of the wire, with time stamps of the kernel and a reading of the protocols that shares nothing
//! with the code under test. Each test says what would make it fail.

mod access;
mod bus;
mod clients;
mod doors;
mod drives;
mod estop;
mod families;
mod front;
mod hardening;
mod hostile;
mod impostor;
mod inheritance;
mod intent;
mod kernel_stages;
mod kernel_stop;
mod kills;
mod kortex;
mod kortex3;
mod kortex_client;
mod kortex_order;
mod kortex_upstream;
mod latches;
mod leases;
mod operator;
mod order;
mod origin;
mod proxies;
mod pushed;
mod raw;
mod rdk;
mod realtime;
mod recording;
mod reflection;
mod scene;
mod sessions;
mod signs;
mod start;
mod supervisor;
mod tunnel;
mod tunnel_api;
mod tunnel_client;
mod tunnel_frames;
mod tunnel_links;
mod tunnel_udp;
mod typescript;
mod upstream;
mod upstream_order;
#[cfg(target_arch = "x86_64")]
mod vectors;
mod witness;
