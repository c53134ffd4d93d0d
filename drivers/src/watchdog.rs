//! A drive's own watchdog on whoever commands it: the last layer, which stops the motor when this whole
//! computer is gone.

use alloc::string::String;
use core::time::Duration;

use crate::frame::FrameList;

/// What is known of it.
#[derive(Clone, Debug)]
pub struct Watchdog {
    /// Who sets it.
    pub set: WatchdogSet,
    /// Frames that ask for it, one at a time, the next when the last was answered; empty where the protocol
    /// cannot tell. Only sent while nobody drives the motor.
    pub ask: FrameList,
    /// What to do in the drive, in its own words: the parameter, the command, or the tool.
    pub advice: String,
}

/// Who sets a drive's watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogSet {
    /// Lanyard, whenever it enables the drive or along with every command.
    ByLanyard(Duration),
    /// Somebody, once, in the drive; Lanyard cannot or should not.
    ByHand,
    /// Nobody: the configuration has switched it off.
    Off,
    /// Nobody can: none is known to exist.
    Missing,
}

/// Whether a frame keeps a drive's own watchdog content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feeds {
    /// It does, or no source says that it does not.
    Yes,
    /// It does not.
    No,
}

/// What a drive says of its watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogReading {
    /// It is off.
    Off,
    /// It stops the motor after this long without a word.
    On(Duration),
}
