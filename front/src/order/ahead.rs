//! Stops that have come in over a connection and were not looked at yet.
//!
//! Each request has a task of its own, and the one of a later request may run first. What is native compares numbers and
//! is done. What goes on to a server behind cannot be undone by a number: a command waits here until the stops
//! before it were looked at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::arrival::Arrival;

/// Methods that stop something.
const STOPS: [&str; 2] = ["/Stop", "/StopAll"];

/// The stops of one connection that were not looked at yet.
#[derive(Debug, Default)]
pub struct Ahead {
    stops: Mutex<Vec<Arrival>>,
    looked_at: Notify,
}

/// One of them, part of its request's extensions; when it is dropped, nobody will look at it any more.
#[derive(Debug)]
pub struct StopAhead {
    ahead: Arc<Ahead>,
    arrival: Arrival,
}

impl Ahead {
    fn stops(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request that stops something; `None` for every other one. To be called in the task of the connection.
    pub fn note(self: &Arc<Self>, path: &str, arrival: Arrival) -> Option<Arc<StopAhead>> {
        if !STOPS.iter().any(|method| path.ends_with(method)) {
            return None;
        }
        self.stops().push(arrival);
        Some(Arc::new(StopAhead { ahead: Arc::clone(self), arrival }))
    }

    /// Returns when every stop that arrived before was looked at.
    pub async fn none_before(&self, arrival: Arrival) {
        loop {
            let mut looked_at = std::pin::pin!(self.looked_at.notified());
            looked_at.as_mut().enable();
            if !self.stops().iter().any(|stop| stop.is_before(arrival)) {
                return;
            }
            looked_at.await;
        }
    }
}

impl StopAhead {
    /// It was looked at: what it stops knows of it.
    pub fn looked_at(&self) {
        self.ahead.stops().retain(|stop| *stop != self.arrival);
        self.ahead.looked_at.notify_waiters();
    }
}

impl Drop for StopAhead {
    fn drop(&mut self) {
        self.looked_at();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use shm_proto::Nanos;
    use tokio::time::timeout;

    use super::{Ahead, Arrival};

    #[tokio::test]
    async fn a_command_waits_for_the_stops_before_it_only() {
        let ahead = Arc::<Ahead>::default();
        let number = |number| Arrival::of(number, Nanos::ZERO);
        let waits =
            async |number| timeout(Duration::from_millis(20), ahead.none_before(number)).await.is_err();
        assert!(ahead.note("/viam.component.motor.v1.MotorService/SetPower", number(1)).is_none());
        let stop = ahead.note("/viam.component.motor.v1.MotorService/Stop", number(2)).unwrap();
        let all = ahead.note("/viam.robot.v1.RobotService/StopAll", number(3)).unwrap();
        assert!(!waits(number(1)).await);
        assert!(waits(number(4)).await);
        stop.looked_at();
        assert!(waits(number(4)).await);
        assert!(!waits(number(3)).await);
        drop(all);
        assert!(!waits(number(4)).await);
    }
}
