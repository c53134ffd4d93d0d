//! The deadline of a command on its way to the upstream: what waits here is refused by it, and a move is taken back.
//!
//! A server enforces it for what it has begun, if at all.

use std::time::Duration;

use http::HeaderMap;
use shm_proto::Nanos;
use tokio::time::sleep;
use tonic::Status;

/// A moment after which a call's client does not wait for it any more, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Nanos>);

impl Deadline {
    /// The deadline of a call that began to arrive at `began`. A `grpc-timeout` that is none sets none.
    #[must_use]
    pub fn of(headers: &HeaderMap, began: Nanos) -> Self {
        let timeout = crate::deadline::timeout(headers);
        Self(timeout.map(|timeout| began.after(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))))
    }

    /// Returns when it has passed, with what the call is answered.
    pub async fn passed(self) -> Status {
        let Some(moment) = self.0 else { return std::future::pending().await };
        loop {
            match moment.since(Nanos::now()) {
                0 => break,
                // The clock here goes on while the machine sleeps, the timer's does not.
                left => sleep(Duration::from_nanos(left)).await,
            }
        }
        Status::deadline_exceeded(
            "the deadline of this call (grpc-timeout) has passed; what it moved was taken back",
        )
    }
}
