//! Why a session could not be opened or used.

/// What stands between a client and the motors. Each protocol has its own words for these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No such session, another owner's, or one that is over: deliberately one answer.
    #[error("the session is unknown or over; start a new one")]
    Expired,
    /// Every slot is taken.
    #[error("too many concurrent sessions")]
    TooMany,
    /// One entity has as many as it may.
    #[error("too many concurrent sessions of this key; the configuration allows {0} (max_sessions_per_key)")]
    TooManyOfYours(usize),
    /// Another session has it and keeps it.
    #[error(
        "{resource} is held by another session{from}; it can be taken when that session has ended \
         (takeover = \"exclusive\" in [front])"
    )]
    Held {
        /// The resource.
        resource: String,
        /// Where the other session comes from, in words.
        from: String,
    },
    /// A lease ran out while its client kept something moving.
    #[error(
        "the lease of this client ran out ({0}), and what it drove was stopped; send Stop first, then drive again"
    )]
    LeaseRanOut(String),
    /// The lease has just ended, and what that means is being noted.
    #[error("the lease of this client has just ended; give the command again")]
    LeaseEnds,
    /// The client has sent Stop since, but this command is too close behind the answer to be meant.
    #[error(
        "this command came too soon after the Stop that followed a lease that ran out; give it again in {} ms \
         (stop_hold in [front])",
        .0.as_millis().max(1)
    )]
    TooSoonAfterStop(std::time::Duration),
    /// There is nobody who would stop the motors.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl SessionError {
    /// No attachment.
    pub const NO_SUPERVISOR: Self = Self::Unavailable(
        "the supervisor is not running, so nobody could stop the motors; \
         nothing moves until lanyard-supervisor is back",
    );
    /// An attachment, but no sign of life.
    pub const SUPERVISOR_SILENT: Self = Self::Unavailable(
        "the supervisor does not respond, so nobody could stop the motors; \
         see `lanyard status` and the log of lanyard-supervisor",
    );
}
