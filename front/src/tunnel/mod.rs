//! Tunnels: links of TCP and UDP into the robot, for programs that know nothing of sessions. A link to a target with motors
//! is watched: when its client falls silent, the link is cut and the motors behind it are stopped.
//!
//! What lives here: listeners, and the links that come in over them. What must never live here: a
//! CAN frame of our own, a target that is not in the configuration, or bytes that wait to be sent later.
//!
//! | file | its one idea |
//! |---|---|
//! | [`request`] | what is asked for, and what there is, in the API's words |
//! | [`targets`] | what can be reached, and nothing else |
//! | [`listeners`] | every listener, from its request to its end |
//! | [`facts`] | what is known of one |
//! | [`drive`] | a session for as long as a link drives |
//! | [`tcp`], [`udp`] | bytes and datagrams on their way |
//! | [`buffer`] | where they lie meanwhile |
//! | [`reader`], [`content`] | what a client's bytes mean |
//! | [`socketcand`], [`cannelloni`] | in which protocol |

mod buffer;
mod cannelloni;
mod content;
mod drive;
mod facts;
mod listeners;
mod reader;
mod request;
mod socketcand;
mod targets;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use drive::Means;
pub use listeners::Tunnels;
pub use request::{Listed, OpenError, Protocol, Request, State, Stats, Wish};
