//! CANopen network management: the state of the node and its watch over the master's heartbeat.

use std::time::Duration;

use crate::sim::Time;

/// What the node takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nmt {
    /// About to send its boot-up message.
    Initialising,
    /// SDO, emergency and heartbeat, no PDO.
    PreOperational,
    /// Everything.
    Operational,
    /// Heartbeat only.
    Stopped,
}

impl Nmt {
    /// The value in a heartbeat.
    pub fn wire(self) -> u8 {
        match self {
            Self::Initialising => 0x00,
            Self::PreOperational => 0x7F,
            Self::Operational => 0x05,
            Self::Stopped => 0x04,
        }
    }

    /// The name in status reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initialising => "initialising",
            Self::PreOperational => "pre-operational",
            Self::Operational => "operational",
            Self::Stopped => "stopped",
        }
    }

    /// Whether SDO and emergency messages are allowed.
    pub fn has_sdo(self) -> bool {
        matches!(self, Self::PreOperational | Self::Operational)
    }
}

/// Object 1016:1: the drive's own watchdog on another node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Consumer {
    /// The object: bits 16..23 node, bits 0..15 time in ms.
    pub raw: u32,
    heard: Option<Time>,
    lost: bool,
}

impl Consumer {
    /// A watch that begins with the first heartbeat.
    pub fn new(raw: u32) -> Self {
        Self { raw, ..Self::default() }
    }

    fn timeout(&self) -> Option<Duration> {
        let [low, high, node, _] = self.raw.to_le_bytes();
        let millis = u16::from_le_bytes([low, high]);
        (node != 0 && millis != 0).then(|| Duration::from_millis(millis.into()))
    }

    /// The identifier it waits for.
    pub fn id(&self) -> Option<u32> {
        self.timeout().map(|_| 0x700 | ((self.raw >> 16) & 0x7F))
    }

    /// The heartbeat came; true if it had been missing.
    pub fn heard(&mut self, now: Time) -> bool {
        self.heard = Some(now);
        std::mem::take(&mut self.lost)
    }

    /// When the heartbeat will be missing, if it is watched now.
    pub fn deadline(&self) -> Option<Time> {
        Some(self.heard?.saturating_add(self.timeout()?))
    }

    /// True once when the heartbeat goes missing; the watch then begins anew with the next heartbeat.
    pub fn expired(&mut self, now: Time) -> bool {
        let expired = self.deadline().is_some_and(|deadline| now > deadline);
        if expired {
            self.heard = None;
            self.lost = true;
        }
        expired
    }

    /// Whether the heartbeat is missing.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// The name in status reports.
    pub fn name(&self) -> &'static str {
        match (self.timeout(), self.heard, self.lost) {
            (None, ..) => "off",
            (_, _, true) => "lost",
            (_, None, _) => "waiting",
            (_, Some(_), _) => "alive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watch_begins_with_the_first_heartbeat() {
        let ms = Time::from_millis;
        let mut consumer = Consumer::new(0x007F_00FA);
        assert_eq!(consumer.id(), Some(0x77F));
        assert!(!consumer.expired(ms(10_000)) && consumer.name() == "waiting");
        assert!(!consumer.heard(ms(10_000)));
        assert!(!consumer.expired(ms(10_250)));
        assert!(consumer.expired(ms(10_251)) && consumer.is_lost());
        assert!(!consumer.expired(ms(20_000)), "reported once");
        assert!(consumer.heard(ms(20_000)) && !consumer.is_lost());
        assert_eq!(consumer.deadline(), Some(ms(20_250)));
    }
}
