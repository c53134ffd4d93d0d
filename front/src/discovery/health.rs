//! grpc.health.v1: the front serves while somebody watches, who would stop the motors.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shm_proto::Nanos;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::link::Link;
use crate::proto;

/// How often a client that watches is looked after. A status is for people and load balancers: no stop waits for it.
const LOOK: Duration = Duration::from_millis(250);

/// Whether the supervisor is there.
#[derive(Clone, Debug)]
pub struct Watched {
    link: Arc<Link>,
    patience: Duration,
}

impl Watched {
    /// By this link; a supervisor that has been silent for longer than `patience` is gone.
    pub const fn new(link: Arc<Link>, patience: Duration) -> Self {
        Self { link, patience }
    }

    fn status(&self) -> ServingStatus {
        let watched = self.link.current().is_some_and(|attachment| {
            let (_, last) = attachment.verdicts.beat();
            u128::from(Nanos::now().since(last)) <= self.patience.as_nanos()
        });
        if watched { ServingStatus::Serving } else { ServingStatus::NotServing }
    }

    fn status_of(&self, service: &str) -> ServingStatus {
        if is_known(service) { self.status() } else { ServingStatus::ServiceUnknown }
    }
}

/// Whether it is one of ours; the empty name is the server as a whole.
fn is_known(service: &str) -> bool {
    use proto::base::base_service_server as base;
    use proto::lanyard::lanyard_service_server as lanyard;
    use proto::motor::motor_service_server as motor;
    use proto::robot::robot_service_server as robot;
    ["", robot::SERVICE_NAME, motor::SERVICE_NAME, base::SERVICE_NAME, lanyard::SERVICE_NAME]
        .contains(&service)
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Watched {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status_of(&service) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found(format!("there is no service {service:?} here; reflection lists them")))
            }
            status => Ok(Response::new(answer(status))),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let watched = self.clone();
        let (news, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = None;
            loop {
                tokio::select! {
                    _ = looks.tick() => {}
                    // The client has gone.
                    () = news.closed() => return,
                }
                let status = watched.status_of(&service);
                if last.replace(status) != Some(status) && news.send(Ok(answer(status))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;
    use tokio_stream::StreamExt;
    use tonic::Code;

    use super::*;
    use crate::sessions::testing::Watcher;

    fn request(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    #[tokio::test]
    async fn it_serves_while_somebody_watches() {
        let watcher = Watcher::with_room(1);
        let link = Link::to(Arc::clone(&watcher.attachment));
        let patience = Duration::from_secs(60);
        let health = Watched::new(Arc::clone(&link), patience);
        let check = async |service: &str| {
            let answer = health.check(request(service)).await;
            answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
        };
        for service in ["", "viam.robot.v1.RobotService", "lanyard.v1.LanyardService"] {
            assert_eq!(check(service).await, Ok(ServingStatus::Serving), "{service}");
        }
        assert_eq!(check("viam.robot.v1.Other").await, Err(Code::NotFound));

        // Silent for longer than it may be.
        watcher.verdicts.beat(2, Nanos(Nanos::now().0.saturating_sub(61_000_000_000)));
        assert_eq!(check("").await, Ok(ServingStatus::NotServing));
        watcher.verdicts.beat(3, Nanos::now());
        assert_eq!(check("").await, Ok(ServingStatus::Serving));
        link.set(None);
        assert_eq!(check("").await, Ok(ServingStatus::NotServing));
    }

    #[tokio::test]
    async fn who_watches_is_told_of_every_change() {
        let watcher = Watcher::with_room(1);
        let link = Link::to(Arc::clone(&watcher.attachment));
        let health = Watched::new(Arc::clone(&link), Duration::from_secs(60));
        let mut news = health.watch(request("")).await.unwrap().into_inner();
        let mut unknown = health.watch(request("x")).await.unwrap().into_inner();
        let mut next = async || {
            let next = timeout(Duration::from_secs(20), news.next()).await.unwrap();
            next.unwrap().unwrap().status()
        };
        assert_eq!(next().await, ServingStatus::Serving);
        link.set(None);
        assert_eq!(next().await, ServingStatus::NotServing);
        assert_eq!(unknown.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    }
}
