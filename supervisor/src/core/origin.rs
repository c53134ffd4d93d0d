//! Where a received frame came from, and whom its sender can speak for.
//!
//! Every program of the computer may send on a CAN interface, and the kernel delivers what it sends to all others. A drive
//! is never such a program, nor is the interface itself: what they say comes without a sender on this computer.

use shm_proto::Nanos;
use shm_proto::verdicts::EventKind;

use super::{Bus, Core};

/// Where a received frame came from, as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The wire, or the interface's own driver: nobody on this computer has sent it.
    Wire,
    /// Another program of this computer.
    Local,
    /// A job of this computer's kernel, which some supervisor has armed: ours, or another one's, dead or alive.
    Job,
}

/// Where the drives of a bus are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drives {
    /// On the wire.
    OnTheWire,
    /// On this computer: simulated ones. Their frames cannot be told from those of any other program.
    Local,
}

impl Bus {
    /// Whether its drives, and what commands them, cannot be told from other programs.
    pub(super) const fn has_local_drives(&self) -> bool {
        match self.drives {
            Drives::Local => true,
            Drives::OnTheWire => false,
        }
    }

    /// Whether a frame of that origin can be the word of a drive, or of the interface.
    pub(super) const fn believes(&self, origin: Origin) -> bool {
        match (origin, self.drives) {
            (Origin::Wire, _) | (Origin::Local | Origin::Job, Drives::Local) => true,
            (Origin::Local | Origin::Job, Drives::OnTheWire) => false,
        }
    }
}

impl Core {
    /// The drives of a bus are programs of this computer: what any program says in their name counts.
    pub fn drives_are_local(&mut self, bus: usize) {
        if let Some(state) = self.buses.get_mut(bus) {
            state.drives = Drives::Local;
        }
    }

    /// Counts a frame in which a program of this computer speaks for a drive or for the interface. The first one of each
    /// bus is told: mostly it is a simulated drive whose owner wonders why nothing is granted.
    pub(super) fn disbelieve(&mut self, bus: usize, now: Nanos) {
        let Some(state) = self.buses.get_mut(bus) else { return };
        let is_first = state.verdict.disbelieved == 0;
        state.verdict.disbelieved += 1;
        state.verdict.disbelieved_at = now;
        if is_first {
            self.publish_bus(bus);
            let event = self.event_of_bus(EventKind::Disbelieved, bus, now);
            self.verdicts.event(&event);
        }
    }
}
