//! The robot of the measurements: ODrive axes on one bus, node n being motor n.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use config::Config;
use drivers::{ArbitrationId, Frame};

/// The bits of an identifier that are the command; those above are the node.
const COMMAND_BITS: u16 = 5;
/// ODrive's heartbeat and encoder estimates.
const HEARTBEAT: u16 = 0x001;
const ENCODER: u16 = 0x009;
/// Readings of speed 0 that prove a standstill, with one to spare.
const READINGS: usize = 4;

/// What differs between measurements.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// The interface of its bus. Where nothing is sent to it, `lo`: housekeeping looks whether it is up.
    pub interface: &'a str,
    /// Room for sessions.
    pub sessions: u16,
    /// Motors, at most 64: ODrive has no more nodes.
    pub motors: u16,
    /// The hand-over socket.
    pub socket: &'a Path,
    /// Where the front listens.
    pub listen: &'a str,
}

impl Shape<'_> {
    /// The configuration as a file's content. What is not said has its default, but that a harness which the
    /// load keeps waiting must not look like a dead front, a silent drive or a late loop, and that one round of
    /// stops is over long before the next.
    ///
    /// # Errors
    /// Never, but in writing to a string.
    pub fn text(&self) -> Result<String> {
        let Self { interface, sessions, motors, socket, listen } = *self;
        let mut text = format!(
            "[supervisor]\nsocket = \"{}\"\nstate = \"{}\"\ncpu = {}\npriority = {}\nmax_sessions = {sessions}\n\
             front_window = \"5s\"\nstage_timeout = \"10s\"\nmax_lateness = \"900ms\"\nkernel_stop = \"1s\"\nstop_repeat = \"200ms\"\nreset = \"auto\"\n\
             [front]\nlisten = \"{listen}\"\nheartbeat_window = \"10s\"\n\
             [[bus]]\nname = \"bus\"\ninterface = \"{interface}\"\nlocal_drives = true\n",
            socket.display(),
            socket.with_extension("state").display(),
            super::realtime::last_cpu(),
            super::realtime::PRIORITY,
        );
        for node in 0..motors {
            write!(
                text,
                "[[motor]]\nname = \"m{node}\"\nbus = \"bus\"\ndriver = \"odrive\"\nnode = {node}\n\
                 firmware = \"0.6\"\nafter_stop = \"hold\"\nmax_rpm = 300\n"
            )?;
        }
        Ok(text)
    }

    /// The configuration.
    ///
    /// # Errors
    /// It is not accepted.
    pub fn config(&self) -> Result<Config> {
        Ok(Config::parse(Path::new("bench.toml"), &self.text()?)?)
    }
}

/// The motor a frame of ours is for.
pub fn motor_of(frame: &Frame) -> Option<usize> {
    match frame.id() {
        ArbitrationId::Standard(id) => Some(usize::from(id >> COMMAND_BITS)),
        ArbitrationId::Extended(_) => None,
    }
}

/// What a drive sends that holds and stands still, as often as a proof needs it.
pub fn at_rest(motor: u16) -> [Frame; 1 + READINGS] {
    let closed_loop = [0, 0, 0, 0, 8, 0, 0, 0];
    let frame = |command, payload: &[u8]| {
        Frame::classic(ArbitrationId::standard(motor << COMMAND_BITS | command), payload)
    };
    let encoder = frame(ENCODER, &[0; 8]);
    let mut frames = [encoder; 1 + READINGS];
    frames[0] = frame(HEARTBEAT, &closed_loop);
    frames
}
