//! The doors: Unix sockets at which other processes meet the supervisor.
//!
//! There are three, because three kinds of people come, and none may be in the way of another. The *front* attaches at its
//! own. Programs that *look* get the verdicts at the second. *Operators* reset trips at the third. A stop is taken at every
//! one. Each door has its own group, its own thread, its own places and its own queues to the real-time thread.
//!
//! The kernel decides at a door's path which user comes in (`listener`): inside a user namespace (PrivateUsers=) the
//! supervisor sees neither the users nor the groups of its peers.
//!
//! What must never live here: words to systemd's watchdog, or anything else that must not be late. A peer can keep a
//! door's thread waiting: the kernel closes a descriptor that came with a packet in that thread, and a socket that lingers
//! takes its time.

pub mod door;
mod fronts;
pub mod listener;

use std::path::Path;

use config::Config;

/// The kind of process that comes through a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// The front.
    Front,
    /// A program that looks.
    Looker,
    /// An operator.
    Operator,
}

impl Visitor {
    /// Every kind there is.
    pub const ALL: [Self; 3] = [Self::Looker, Self::Front, Self::Operator];

    /// The path of the door's socket.
    #[must_use]
    pub fn path(self, config: &Config) -> &Path {
        match self {
            Self::Front => &config.supervisor.front_socket,
            Self::Looker => &config.supervisor.socket,
            Self::Operator => &config.supervisor.operator_socket,
        }
    }

    /// The key of that path in `[supervisor]`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Front => "front_socket",
            Self::Looker => "socket",
            Self::Operator => "operator_socket",
        }
    }

    /// The group that comes in, if it has one of its own; else it is the supervisor's.
    #[must_use]
    pub fn group(self, config: &Config) -> Option<&str> {
        match self {
            Self::Front => Some(&config.supervisor.front_group),
            Self::Looker => None,
            Self::Operator => Some(&config.supervisor.operator_group),
        }
    }

    /// The name of the door's thread, and of its socket in systemd's store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Front => "door-front",
            // What it was called when it was the only one: an upgrade finds it again.
            Self::Looker => "handover",
            Self::Operator => "door-operator",
        }
    }
}
