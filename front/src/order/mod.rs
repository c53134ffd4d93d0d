//! The order in which commands and stops came in, the same for every protocol.
//!
//! A client that sends "go, stop" means "stop", whichever of the two is handled first. So every request gets a number when
//! it is read from its socket, and whatever decides between two requests compares these numbers and not the moments at
//! which their tasks ran.
//!
//! What must never live here: what a command does, a wait, or a number that is taken later than at the socket.
//!
//! | file | its one idea |
//! |---|---|
//! | [`arrival`] | the number and the moment of one arrival |
//! | [`origin`] | when a request arrived, and from which party |
//! | [`ahead`] | stops that were not looked at yet |
//! | [`intake`] | HTTP requests get theirs where a connection's requests come in |

mod ahead;
mod arrival;
mod intake;
mod origin;

pub use ahead::{Ahead, StopAhead};
pub use arrival::Arrival;
pub use intake::{Stamp, stamped};
pub use origin::{Origin, Sender};
