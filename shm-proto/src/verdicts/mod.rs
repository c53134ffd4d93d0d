//! The verdict segment: what the supervisor has decided, for everybody to read.
//!
//! The supervisor maps it read-write and seals it at once, so that everybody else can only map it
//! read-only. Words are published one by one; what belongs together and must not be mixed (an event)
//! is a seqlock record.
//!
//! | file | its one idea |
//! |---|---|
//! | `words` | phases, states, reasons and their numbers |
//! | `places` | where each word lies |
//! | `event`, `entries` | what is published |
//! | `writer`, `view` | the two sides |
//! | `remains` | what the next supervisor finds of one that is gone |

mod entries;
mod event;
mod places;
#[cfg(not(loom))]
mod remains;
#[cfg(test)]
mod tests;
mod view;
mod words;
mod writer;

pub use entries::{BusVerdict, MotorVerdict, PastEvidence, SessionVerdict};
pub use event::{EVENT_BODY, Event, MotorSet};
pub use places::{BUS_WORDS, EVENT_WORDS, EVENTS, MOST_BUSES, MOTOR_WORDS, NAME_BYTES, SESSION_WORDS};
#[cfg(not(loom))]
pub use remains::{LeftMotor, Remains};
pub use view::VerdictView;
pub use words::{
    BusHealth, Counter, Degraded, EventKind, Keeping, MotorState, Phase, Predecessor, Reason, ResetPolicy,
    SessionState,
};
pub use writer::{Identity, ToldMotor, VerdictSegment};
