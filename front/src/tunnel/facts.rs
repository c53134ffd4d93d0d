//! What is known of a listener: counted where it happens, read by whoever asks.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use shm_proto::Nanos;

use super::request::{State, Stats};

/// What changes seldom.
#[derive(Debug)]
struct Course {
    state: State,
    why: Option<String>,
    links: BTreeSet<u128>,
    ended: Option<Nanos>,
}

/// The facts of one listener.
#[derive(Debug)]
pub struct Facts {
    created: SystemTime,
    opened: Nanos,
    /// Nanoseconds; 0: never.
    last: AtomicU64,
    to_target: AtomicU64,
    to_client: AtomicU64,
    links: AtomicU64,
    trips: AtomicU64,
    refused: AtomicU64,
    course: Mutex<Course>,
}

impl Facts {
    /// Those of a listener that has just been opened.
    #[must_use]
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let course = Course { state: State::Waiting, why: None, links: BTreeSet::new(), ended: None };
        Self {
            created: SystemTime::now(),
            opened: Nanos::now(),
            last: zero(),
            to_target: zero(),
            to_client: zero(),
            links: zero(),
            trips: zero(),
            refused: zero(),
            course: Mutex::new(course),
        }
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has come from a client.
    pub fn note_heard(&self, now: Nanos) {
        self.last.store(now.0, Ordering::Relaxed);
    }

    /// Bytes have gone on to the target.
    pub fn note_to_target(&self, bytes: usize) {
        self.to_target.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes have gone on to a client.
    pub fn note_to_client(&self, bytes: usize) {
        self.to_client.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A link has begun.
    pub fn note_link(&self, number: u128) {
        self.links.fetch_add(1, Ordering::Relaxed);
        self.course().links.insert(number);
    }

    /// A link is over.
    pub fn note_left(&self, number: u128) {
        self.course().links.remove(&number);
    }

    /// Something was not let through. Whether the reason is another than the last one.
    pub fn note_refused(&self, why: Option<&str>) -> bool {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let Some(why) = why else { return false };
        let mut course = self.course();
        if course.why.as_deref() == Some(why) {
            return false;
        }
        course.why = Some(why.to_owned());
        true
    }

    /// So many frames were not let through. Whether the reason is another than the last one.
    pub fn note_refused_frames(&self, frames: u64, why: &str) -> bool {
        self.refused.fetch_add(frames.saturating_sub(1), Ordering::Relaxed);
        self.note_refused(Some(why))
    }

    /// A link drives.
    pub fn note_driving(&self) {
        self.course().state = State::Active;
    }

    /// The link that drove does so no more, by its own end.
    pub fn note_rest(&self) {
        let mut course = self.course();
        if course.state == State::Active {
            course.state = State::Waiting;
        }
    }

    /// The link that drove was cut.
    pub fn note_trip(&self, why: &str) {
        self.trips.fetch_add(1, Ordering::Relaxed);
        let mut course = self.course();
        course.why = Some(why.to_owned());
        course.state = State::Expired;
    }

    /// The listener is closed.
    pub fn note_closed(&self, why: &str) {
        let mut course = self.course();
        if course.ended.is_some() {
            return;
        }
        course.ended = Some(Nanos::now());
        if course.state != State::Expired {
            course.state = State::Closed;
            course.why = Some(why.to_owned());
        }
    }

    /// Its links at present.
    #[must_use]
    pub fn links(&self) -> Vec<u128> {
        self.course().links.iter().copied().collect()
    }

    /// Everything, for a listener of that kind.
    #[must_use]
    pub fn stats(&self, listed: &super::request::Listed) -> Stats {
        let course = self.course();
        let end = course.ended.unwrap_or_else(Nanos::now);
        let last = Nanos(self.last.load(Ordering::Relaxed));
        let since = |from: Nanos| Duration::from_nanos(end.since(from));
        let heard = (last != Nanos::ZERO).then_some(last);
        Stats {
            protocol: listed.protocol,
            wish: listed.wish.clone(),
            address: listed.address,
            created: self.created,
            last_activity: heard.map(|last| self.created + Duration::from_nanos(last.since(self.opened))),
            uptime: since(self.opened),
            idle: since(heard.unwrap_or(self.opened)),
            state: course.state,
            why: course.why.clone(),
            to_target: self.to_target.load(Ordering::Relaxed),
            to_client: self.to_client.load(Ordering::Relaxed),
            links: self.links.load(Ordering::Relaxed),
            clients: course.links.len(),
            trips: self.trips.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}
