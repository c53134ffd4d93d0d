//! How much is read from each bus: no more than a real bus carries; and since when what is read may have been waiting.
//!
//! A virtual bus, or a broken adapter, can bring frames without end. Each costs time, and a motion frame for a stopped motor
//! costs an answer. The thread would never sleep, and its fuse (RLIMIT_RTTIME) would end it. So a bus that brought too many
//! is left unread for a while. What is lost by that is feedback, whose absence stops what is driven. While the flood lasts the bus is
//! never seen empty, so no word on it counts as fresh, and no stop is proven by it.

use shm_proto::Nanos;
use shm_proto::verdicts::MOST_BUSES;

use crate::core::Arrival;

/// Over what time frames are counted, nanoseconds: the default tick.
const SPAN: u64 = 5_000_000;
/// Frames of one bus within [`SPAN`]. A bus of 1 Mbit/s carries about 20 of the shortest ones in a millisecond; CAN FD
/// carries no more, because their arbitration is no faster.
const MOST_FRAMES: u32 = 128;

/// What becomes of a bus after one more frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It is read on.
    GoesOn,
    /// It is left unread, until [`Intake::resume`] names it.
    Ends,
}

/// One bus.
#[derive(Clone, Copy, Debug)]
struct Count {
    since: Nanos,
    frames: u32,
}

/// The frames of all buses.
#[derive(Clone, Copy, Debug)]
pub struct Intake {
    counts: [Count; MOST_BUSES],
    /// By when everything that had come was read.
    emptied: [Nanos; MOST_BUSES],
}

impl Intake {
    /// Nothing was read yet.
    pub const NOTHING_READ: Self = Self {
        counts: [Count { since: Nanos::ZERO, frames: 0 }; MOST_BUSES],
        emptied: [Nanos::ZERO; MOST_BUSES],
    };

    /// The bus had nothing more to read, and was asked at that moment or later.
    pub fn note_empty(&mut self, bus: usize, asked: Nanos) {
        if let Some(emptied) = self.emptied.get_mut(bus) {
            *emptied = asked;
        }
    }

    /// When a frame of that bus arrived which is read now.
    #[must_use]
    pub fn arrival(&self, bus: usize, now: Nanos) -> Arrival {
        Arrival { earliest: self.emptied.get(bus).copied().unwrap_or(Nanos::ZERO), now }
    }

    /// Counts a frame of that bus.
    pub fn add(&mut self, bus: usize, now: Nanos) -> Reading {
        let Some(count) = self.counts.get_mut(bus) else { return Reading::GoesOn };
        if now.since(count.since) >= SPAN {
            *count = Count { since: now, frames: 0 };
        }
        count.frames = count.frames.saturating_add(1);
        if count.frames < MOST_FRAMES { Reading::GoesOn } else { Reading::Ends }
    }

    /// Whether that bus is read, and not left unread for a while.
    #[must_use]
    pub fn is_read(&self, bus: usize) -> bool {
        self.counts.get(bus).is_some_and(|count| count.frames < MOST_FRAMES)
    }

    /// Whether that bus was left unread, and is to be read again from now on.
    pub fn resume(&mut self, bus: usize, now: Nanos) -> bool {
        let Some(count) = self.counts.get_mut(bus) else { return false };
        let is_over = count.frames >= MOST_FRAMES && now.since(count.since) >= SPAN;
        if is_over {
            *count = Count { since: now, frames: 0 };
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Fails if a real bus under full load is left unread.
    #[test]
    fn a_full_bus_of_the_fastest_kind_is_read_whole() {
        let mut intake = Intake::NOTHING_READ;
        let start = Nanos(1_000 * MS);
        for frame in 0..100_000 {
            // 21 in a millisecond.
            assert_eq!(intake.add(0, start.after(frame * MS / 21)), Reading::GoesOn, "frame {frame}");
        }
    }

    /// Fails if a flood is read for ever, if it is never read again, or if it costs the other bus.
    #[test]
    fn a_flood_is_left_unread_until_its_span_is_over() {
        let mut intake = Intake::NOTHING_READ;
        let now = Nanos(1_000 * MS);
        let read = (1..1_000).find(|_| intake.add(0, now) == Reading::Ends);
        assert_eq!(read, Some(128));
        assert_eq!(intake.add(1, now), Reading::GoesOn);
        assert!(!intake.resume(0, now.after(SPAN - 1)));
        assert!(intake.resume(0, now.after(SPAN)) && !intake.resume(0, now.after(SPAN)), "once");
        assert!(!intake.resume(1, now.after(SPAN)), "it was never left unread");
        assert_eq!(intake.add(0, now.after(SPAN)), Reading::GoesOn);
    }

    /// Fails if what waited while the loop hung counts as fresh, or one bus as read because another was.
    #[test]
    fn what_waited_is_as_old_as_the_last_look_at_its_bus() {
        let mut intake = Intake::NOTHING_READ;
        let (asked, now) = (Nanos(1_000 * MS), Nanos(4_000 * MS));
        intake.note_empty(0, asked);
        assert_eq!(intake.arrival(0, now), Arrival { earliest: asked, now });
        assert_eq!(intake.arrival(1, now), Arrival { earliest: Nanos::ZERO, now }, "it was never empty");
        assert_eq!(intake.arrival(MOST_BUSES, now), Arrival { earliest: Nanos::ZERO, now }, "there is none");
    }
}
