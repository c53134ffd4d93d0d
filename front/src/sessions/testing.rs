//! Both sides of the shared memory in one process, for tests: the test plays the supervisor.

use std::os::fd::AsFd;
use std::sync::Arc;

use shm_proto::layout::BeatLayout;
use shm_proto::memory;
use shm_proto::verdicts::{Identity, ResetPolicy, SessionState, SessionVerdict};
use shm_proto::{
    BeatSegment, Capacity, Generation, Nanos, Owner, SessionId, TripId, VerdictSegment, VerdictView,
};

use super::Rules;
use crate::link::Attachment;

impl Rules {
    /// Rules under which nothing ends that a test does not end: a patient supervisor, no limits.
    pub fn relaxed() -> Self {
        let text = include_str!("../../../lanyard.example.toml");
        let config = config::Config::parse(std::path::Path::new("lanyard.example.toml"), text).unwrap();
        Self { patience: 60_000_000_000, ..Self::of(&config) }
    }
}

/// The supervisor's side.
pub struct Watcher {
    /// What it publishes.
    pub verdicts: VerdictSegment,
    /// What the front got.
    pub attachment: Arc<Attachment>,
}

impl Watcher {
    /// A supervisor with room for so many sessions, which is never seen to be late unless a test says so.
    pub fn with_room(sessions: u16) -> Self {
        let capacity = Capacity::new(sessions, 4).unwrap();
        let memfd = memory::create("beats", BeatLayout::new(capacity).words()).unwrap();
        let beats = BeatSegment::map(memfd.as_fd(), capacity, Generation(1)).unwrap();
        let identity = Identity { config_hash: 1, pid: 1, started: Nanos::now(), policy: ResetPolicy::Auto };
        let (verdicts, memfd) = VerdictSegment::create(capacity, &identity, &["left"], &["can0"]).unwrap();
        let view = VerdictView::map(memfd.as_fd(), capacity).unwrap();
        verdicts.beat(1, Nanos::NEVER);
        Self { verdicts, attachment: Attachment::new(beats, view) }
    }

    /// Publishes a verdict on a session.
    pub fn says(&self, id: SessionId, owner: Owner, state: SessionState) {
        let verdict = SessionVerdict {
            session: id,
            incarnation: owner.incarnation,
            state,
            deadline: Nanos::ZERO,
            last_beat: Nanos::ZERO,
            trip: TripId::NONE,
            beats: 1,
            window: 0,
        };
        self.verdicts.session(owner.slot, &verdict);
    }
}
