//! The deadline of a command on its way to the upstream: what waits here is refused by it, and a move is taken back.
//!
//! A server enforces it for what it has begun, if at all.

use std::time::Duration;

use shm_proto::Nanos;
use tokio::time::sleep;
use tonic::Status;

/// Returns when a deadline has passed, with what the call is answered; never without one.
pub async fn passed(deadline: Option<Nanos>) -> Status {
    let Some(moment) = deadline else { return std::future::pending().await };
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
