//! WebRTC: there is none, and clients that ask first are told so at once.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::proto::signaling::signaling_service_server::SignalingService;
use super::proto::signaling::{
    CallRequest, CallResponse, CallUpdateRequest, CallUpdateResponse, OptionalWebRtcConfigRequest,
    OptionalWebRtcConfigResponse,
};

/// Answers every question with UNIMPLEMENTED, upon which clients go on with plain gRPC.
#[derive(Clone, Copy, Debug)]
pub struct NoWebRtc;

fn none<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this server has no WebRTC; use gRPC on the same address"))
}

#[tonic::async_trait]
impl SignalingService for NoWebRtc {
    type CallStream = Pin<Box<dyn Stream<Item = Result<CallResponse, Status>> + Send>>;

    async fn call(&self, _: Request<CallRequest>) -> Result<Response<Self::CallStream>, Status> {
        none()
    }

    async fn call_update(
        &self,
        _: Request<CallUpdateRequest>,
    ) -> Result<Response<CallUpdateResponse>, Status> {
        none()
    }

    async fn optional_web_rtc_config(
        &self,
        _: Request<OptionalWebRtcConfigRequest>,
    ) -> Result<Response<OptionalWebRtcConfigResponse>, Status> {
        none()
    }
}
