//! What Lanyard offers beyond the protocols of others: ending a session at once, the operator's stop and its reset, and
//! the status in words.
//!
//! What must never live here: who may do it (that is asked at the gate, by the method's name), or a decision: stops
//! and resets are the supervisor's.

mod orders;
mod status;

use std::sync::Arc;

use config::Config;
use shm_proto::TripId;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::link::Link;
use crate::proto::lanyard::lanyard_service_server::{LanyardService, LanyardServiceServer};
use crate::proto::lanyard::{
    EmergencyStopRequest, EmergencyStopResponse, EndSessionRequest, EndSessionResponse, GetStatusRequest,
    GetStatusResponse, ResetRequest, ResetResponse,
};
use crate::sessions::{SessionError, Sessions};
pub use orders::Orders;

/// Largest request: an id.
const MOST_REQUEST_BYTES: usize = 4 * 1024;

/// The service.
#[derive(Clone)]
pub struct Lanyard {
    config: Arc<Config>,
    link: Arc<Link>,
    sessions: Arc<Sessions>,
    orders: Arc<Orders>,
}

impl Lanyard {
    /// The service of this robot.
    #[must_use]
    pub fn new(config: Arc<Config>, link: Arc<Link>, sessions: Arc<Sessions>, orders: Arc<Orders>) -> Self {
        Self { config, link, sessions, orders }
    }

    /// Adds it to the services of a gRPC server.
    pub fn serve(self, routes: &mut RoutesBuilder) {
        routes.add_service(LanyardServiceServer::new(self).max_decoding_message_size(MOST_REQUEST_BYTES));
    }
}

#[tonic::async_trait]
impl LanyardService for Lanyard {
    async fn end_session(
        &self,
        request: Request<EndSessionRequest>,
    ) -> Result<Response<EndSessionResponse>, Status> {
        let entity = Caller::of(request.extensions())?.entity.clone();
        let id = request.into_inner().id;
        let id = uuid::Uuid::try_parse(&id)
            .map_err(|error| Status::invalid_argument(format!("the session id is not a UUID: {error}")))?;
        match self.sessions.close(&entity, shm_proto::SessionId(id.as_u128())) {
            Ok(()) => Ok(Response::new(EndSessionResponse {})),
            Err(SessionError::Expired) => {
                Err(Status::not_found(format!("you have no session {id}: it is over, or was never yours")))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn emergency_stop(
        &self,
        _: Request<EmergencyStopRequest>,
    ) -> Result<Response<EmergencyStopResponse>, Status> {
        let trip = self.orders.stop_everything().await?;
        Ok(Response::new(EmergencyStopResponse { trip: trip.0 }))
    }

    async fn reset(&self, request: Request<ResetRequest>) -> Result<Response<ResetResponse>, Status> {
        let trip = TripId(request.into_inner().trip);
        if trip == TripId::NONE {
            return Err(Status::invalid_argument(
                "which trip? A blind reset could clear one that nobody has looked at; GetStatus has the ids",
            ));
        }
        // A trip is there for a person who has looked at the robot. The network, and a front that was taken over, have not.
        Err(Status::failed_precondition(format!(
            "trip {trip} was not reset: nothing is reset over the network. Look at the robot, then type there: \
             lanyard reset {trip}"
        )))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let patience = self.config.supervisor.front_window;
        Ok(Response::new(match self.link.current() {
            Some(attachment) => status::of(&self.config, &attachment.verdicts, patience),
            None => status::unwatched(&self.config),
        }))
    }
}
