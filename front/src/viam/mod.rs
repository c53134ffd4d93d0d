//! Viam's robot, motor and base services, for unchanged Viam clients.
//!
//! What lives here: the translation between Viam's gRPC and this robot's sessions and motion, with
//! Viam's own rules and error words where its clients depend on them.
//!
//! What must never live here: CAN, shared memory, or a rule on sessions that other protocols share.

pub mod association;
mod base;
mod kinematics;
pub mod metadata;
mod motor;
mod operations;
pub mod refusal;
pub mod resources;
mod robot;
mod signaling;

use std::sync::Arc;

use config::Config;
use tonic::service::RoutesBuilder;

use crate::link::Link;
use crate::motion::Motion;
use crate::proto;
use crate::sessions::Sessions;
pub use operations::{AsOperations, Operations};
use proto::base::base_service_server::BaseServiceServer;
use proto::motor::motor_service_server::MotorServiceServer;
use proto::robot::robot_service_server::RobotServiceServer;
use proto::signaling::signaling_service_server::SignalingServiceServer;

/// Largest request: a name, some numbers and a free-form part that nobody reads.
const MOST_REQUEST_BYTES: usize = 256 * 1024;

/// What the services have in common.
#[derive(Clone)]
pub struct Robot {
    /// The configuration.
    pub config: Arc<Config>,
    /// The link to the supervisor, for status.
    pub link: Arc<Link>,
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// The motors.
    pub motion: Arc<Motion>,
    operations: Arc<Operations>,
}

impl Robot {
    /// A robot that can be served; `operations` are the calls under way.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        link: Arc<Link>,
        sessions: Arc<Sessions>,
        motion: Arc<Motion>,
        operations: Arc<Operations>,
    ) -> Self {
        Self { config, link, sessions, motion, operations }
    }

    /// Adds Viam's services to those of a gRPC server.
    pub fn serve(self, routes: &mut RoutesBuilder) {
        let limit = MOST_REQUEST_BYTES;
        routes
            .add_service(RobotServiceServer::new(self.clone()).max_decoding_message_size(limit))
            .add_service(MotorServiceServer::new(self.clone()).max_decoding_message_size(limit))
            .add_service(BaseServiceServer::new(self).max_decoding_message_size(limit))
            .add_service(SignalingServiceServer::new(signaling::NoWebRtc).max_decoding_message_size(limit));
    }
}
