//! Viam's robot service: sessions, the list of parts, status, and the stop of everything.

use std::sync::Arc;
use std::time::Duration;

use shm_proto::verdicts::MotorState;
use shm_proto::{MotorIndex, SessionId, Window};
use tonic::{Request, Response, Status};

use super::association::Monitored;
use super::operations::OperationId;
use super::proto::common::ResourceName;
use super::proto::robot::robot_service_server::RobotService;
use super::proto::robot::{
    BlockForOperationRequest, BlockForOperationResponse, CancelOperationRequest, CancelOperationResponse,
    ConfigStatus, GetCloudMetadataRequest, GetCloudMetadataResponse, GetMachineStatusRequest,
    GetMachineStatusResponse, GetOperationsRequest, GetOperationsResponse, GetSessionsRequest,
    GetSessionsResponse, GetVersionRequest, GetVersionResponse, PeerConnectionInfo, PeerConnectionType,
    ResourceNamesRequest, ResourceNamesResponse, ResourceRpcSubtype, ResourceRpcSubtypesRequest,
    ResourceRpcSubtypesResponse, ResourceStatus, SendSessionHeartbeatRequest, SendSessionHeartbeatResponse,
    Session, StartSessionRequest, StartSessionResponse, StopAllRequest, StopAllResponse,
    get_machine_status_response, resource_status,
};
use super::refusal::because;
use super::{Robot, association, metadata, resources};
use crate::access::Caller;
use crate::motion::Notes;
use crate::order::Origin;
use crate::sessions::{Listed, Opened, Peer, SessionError, Stopped};
use crate::transport::Connection;

/// Version of Viam's interface whose names and numbers are served.
const API_VERSION: &str = "v0.1.601";

impl Robot {
    /// Who calls.
    fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
        Caller::of(request.extensions())
    }

    /// Checks the session of a call that moves something; to be asked first.
    pub(super) fn monitored<T>(&self, request: &Request<T>) -> Result<Monitored, Status> {
        association::monitored(&self.sessions, request.extensions(), request.metadata().as_ref())
    }

    fn names(&self) -> impl Iterator<Item = ResourceName> {
        let motors = resources::native(&self.config)
            .map(|(_, motor)| resources::resource(resources::MOTOR, &motor.name));
        let bases = self.config.bases.iter().map(|base| resources::resource(resources::BASE, &base.name));
        motors.chain(bases)
    }

    /// What keeps a motor from being used, if anything.
    fn ailment(&self, motor: MotorIndex) -> Option<String> {
        let Some(attachment) = self.link.current() else {
            return Some(SessionError::NO_SUPERVISOR.to_string());
        };
        let verdict = attachment.verdicts.motor(motor)?;
        if verdict.fault != 0 {
            return Some(format!("the drive reports fault {:#x}", verdict.fault));
        }
        (verdict.state == MotorState::Unverified)
            .then(|| "it was told to stop and has not been proven to stand still".to_owned())
    }

    fn statuses(&self) -> Vec<ResourceStatus> {
        use resource_status::State;
        let status = |subtype, name: &str, ailment: Option<String>| ResourceStatus {
            name: Some(resources::resource(subtype, name)),
            state: if ailment.is_none() { State::Ready } else { State::Unhealthy }.into(),
            last_updated: None,
            revision: self.revision(),
            error: ailment.unwrap_or_default(),
        };
        let motors = resources::native(&self.config)
            .map(|(index, motor)| status(resources::MOTOR, &motor.name, self.ailment(index)));
        let bases = self.config.bases.iter().map(|base| {
            let ailing = |(index, motor): (MotorIndex, &config::Motor)| {
                let used = base.left.iter().chain(&base.right).any(|place| *place == usize::from(index.0));
                let ailment = self.ailment(index).filter(|_| used)?;
                Some(format!("motor \"{}\": {ailment}", motor.name))
            };
            status(resources::BASE, &base.name, resources::motors(&self.config).find_map(ailing))
        });
        motors.chain(bases).collect()
    }

    fn revision(&self) -> String {
        format!("{:016x}", self.config.hash)
    }
}

fn started(opened: Opened) -> Response<StartSessionResponse> {
    let window = Duration::from_nanos(opened.window.0);
    Response::new(StartSessionResponse {
        id: opened.id.to_string(),
        // A window has at most 60 s, so this cannot fail; an absent one would be refused by clients.
        heartbeat_window: window.try_into().ok(),
    })
}

fn listed(session: Listed) -> Session {
    let peer = PeerConnectionInfo {
        r#type: PeerConnectionType::Grpc.into(),
        remote_address: session.peer.remote.map(|address| address.to_string()),
        local_address: session.peer.local.map(|address| address.to_string()),
    };
    Session { id: session.id.to_string(), peer_connection_info: Some(peer) }
}

#[tonic::async_trait]
impl RobotService for Robot {
    async fn start_session(
        &self,
        request: Request<StartSessionRequest>,
    ) -> Result<Response<StartSessionResponse>, Status> {
        let caller = Self::caller(&request)?.clone();
        let connection = request.extensions().get::<Arc<Connection>>();
        let peer = connection.map_or_else(Peer::default, |connection| Peer {
            remote: Some(connection.remote),
            local: Some(connection.local),
        });
        let resume = request.into_inner().resume;
        if !resume.is_empty() {
            let id: SessionId = metadata::parse(&resume)?;
            if let Some(resumed) = self.sessions.resume(&caller.entity, id)? {
                return Ok(started(resumed));
            }
        }
        let window = self.config.front.heartbeat_window;
        let window = caller.window.map_or(window, |own| own.min(window)).as_nanos();
        let window = Window(u64::try_from(window).unwrap_or(u64::MAX));
        Ok(started(self.sessions.open(&caller.entity, peer, window)?))
    }

    async fn send_session_heartbeat(
        &self,
        request: Request<SendSessionHeartbeatRequest>,
    ) -> Result<Response<SendSessionHeartbeatResponse>, Status> {
        let entity = Self::caller(&request)?.entity.clone();
        let id = metadata::parse(&request.into_inner().id)?;
        let beaten = self.sessions.beat(&entity, id);
        beaten.map_err(|error| because(error.into(), self.sessions.why(&entity, id)))?;
        Ok(Response::new(SendSessionHeartbeatResponse {}))
    }

    async fn get_sessions(
        &self,
        _: Request<GetSessionsRequest>,
    ) -> Result<Response<GetSessionsResponse>, Status> {
        let sessions = self.sessions.list().into_iter().map(listed).collect();
        Ok(Response::new(GetSessionsResponse { sessions }))
    }

    async fn stop_all(&self, request: Request<StopAllRequest>) -> Result<Response<StopAllResponse>, Status> {
        let origin = Origin::of(request.extensions())?;
        let motors: Vec<_> = resources::motors(&self.config).map(|(index, _)| index).collect();
        self.motion.stop(&origin, &motors, Notes::StopAndDriveFault).await?;
        self.sessions.rest_all_before(origin.complete().at());
        self.sessions.note_stop(&origin, Stopped::Everything);
        Ok(Response::new(StopAllResponse {}))
    }

    async fn resource_names(
        &self,
        _: Request<ResourceNamesRequest>,
    ) -> Result<Response<ResourceNamesResponse>, Status> {
        Ok(Response::new(ResourceNamesResponse { resources: self.names().collect() }))
    }

    async fn resource_rpc_subtypes(
        &self,
        _: Request<ResourceRpcSubtypesRequest>,
    ) -> Result<Response<ResourceRpcSubtypesResponse>, Status> {
        let kinds = [
            (resources::MOTOR, "viam.component.motor.v1.MotorService"),
            (resources::BASE, "viam.component.base.v1.BaseService"),
        ];
        let subtype = |(subtype, service): (&str, &str)| ResourceRpcSubtype {
            subtype: Some(resources::resource(subtype, "")),
            proto_service: service.to_owned(),
        };
        let resource_rpc_subtypes = kinds.into_iter().map(subtype).collect();
        Ok(Response::new(ResourceRpcSubtypesResponse { resource_rpc_subtypes }))
    }

    async fn get_operations(
        &self,
        request: Request<GetOperationsRequest>,
    ) -> Result<Response<GetOperationsResponse>, Status> {
        let asking = request.extensions().get::<OperationId>().copied();
        Ok(Response::new(GetOperationsResponse { operations: self.operations.list(asking) }))
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<CancelOperationResponse>, Status> {
        self.operations.cancel(&request.into_inner().id)?;
        Ok(Response::new(CancelOperationResponse {}))
    }

    async fn block_for_operation(
        &self,
        request: Request<BlockForOperationRequest>,
    ) -> Result<Response<BlockForOperationResponse>, Status> {
        self.operations.ended(&request.into_inner().id).await?;
        Ok(Response::new(BlockForOperationResponse {}))
    }

    async fn get_machine_status(
        &self,
        _: Request<GetMachineStatusRequest>,
    ) -> Result<Response<GetMachineStatusResponse>, Status> {
        Ok(Response::new(GetMachineStatusResponse {
            resources: self.statuses(),
            config: Some(ConfigStatus { revision: self.revision(), last_updated: None }),
            state: get_machine_status_response::State::Running.into(),
        }))
    }

    async fn get_version(
        &self,
        _: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        Ok(Response::new(GetVersionResponse {
            platform: "lanyard".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: API_VERSION.to_owned(),
        }))
    }

    async fn get_cloud_metadata(
        &self,
        _: Request<GetCloudMetadataRequest>,
    ) -> Result<Response<GetCloudMetadataResponse>, Status> {
        Err(Status::unknown("cloud metadata not available: this robot belongs to no cloud account"))
    }
}
