//! An operator's stop: through the supervisor's FIFO, or over its socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::Config;
use shm_proto::estop;
use shm_proto::handover::{self, Error};
use shm_proto::{MotorIndex, TripId};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tracing::{error, warn};

use crate::link::Link;
use crate::motion::Motion;

/// How long the supervisor may take to show a stop: its real-time thread needs a pass, a loaded machine a hundred times that.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// The way to the supervisor. One stop at a time: it takes the supervisor milliseconds, and however many are asked for, they
/// share one connection at the front's own door.
pub struct Orders {
    socket: PathBuf,
    fifo: PathBuf,
    link: Arc<Link>,
    motors: Vec<MotorIndex>,
    motion: Arc<Motion>,
    stopping: Semaphore,
}

impl Orders {
    /// To the supervisor of this configuration.
    pub fn new(config: &Config, link: Arc<Link>, motion: Arc<Motion>) -> Self {
        Self {
            socket: config.supervisor.front_socket.clone(),
            fifo: config.supervisor.estop.clone(),
            link,
            motors: (0..).map(MotorIndex).take(config.motors.len()).collect(),
            motion,
            stopping: Semaphore::new(1),
        }
    }

    /// Stops every motor and keeps it stopped.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE when the supervisor was not reached; then the front has sent the stops itself, for what that is
    /// worth.
    pub async fn stop_everything(&self) -> Result<TripId, Status> {
        match self.press().await {
            Ok(trip) => {
                warn!("a client stopped every motor: trip {trip}");
                Ok(trip)
            }
            Err(why) => {
                error!("a client asked for an emergency stop, and the supervisor was not reached: {why}");
                let front = match self.motion.halt(&self.motors).await {
                    Ok(()) => "the front sent every motor its stop, but nobody checks it and nothing keeps them stopped"
                        .to_owned(),
                    Err(error) => format!("the front's own stops failed, too: {error}"),
                };
                Err(Status::unavailable(format!("use the red button: {why}; {front}")))
            }
        }
    }

    /// Presses stop and waits until the supervisor shows it. Where it cannot be pressed, the stop goes over the socket.
    async fn press(&self) -> Result<TripId, String> {
        let turn = self.stopping.acquire().await;
        let since = match estop::press(&self.fifo) {
            Ok(since) => since,
            Err(why) => {
                drop(turn);
                let fifo = self.fifo.display();
                warn!("stop cannot be pressed at {fifo} and goes over the supervisor's socket: {why}");
                return self.stop_over_socket().await.map_err(|why| why.to_string());
            }
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let shown = self.link.current().and_then(|attached| attached.verdicts.stopped_since(since));
            match shown {
                Some(trip) => return Ok(trip),
                None if Instant::now() >= until => {
                    return Err("stop was pressed, and the supervisor does not show it".to_owned());
                }
                None => sleep(PAUSE).await,
            }
        }
    }

    async fn stop_over_socket(&self) -> Result<TripId, Error> {
        // Nobody ever closes it; without a turn the order is given all the same.
        let _turn = self.stopping.acquire().await;
        let socket = self.socket.clone();
        // It waits for the answer, some seconds if the supervisor hangs: not on a thread that beats.
        let stop = move || handover::estop(&socket);
        tokio::task::spawn_blocking(stop).await.unwrap_or(Err(Error::Unexpected))
    }
}
