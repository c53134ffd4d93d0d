//! Viam's login: `proto.rpc.v1.AuthService/Authenticate`, with the status codes and words of Viam's own server.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Access, Rejection};
use crate::proto::rpc::auth_service_server::AuthService;
use crate::proto::rpc::{AuthenticateRequest, AuthenticateResponse};
use crate::transport::Connection;

/// The one kind of credentials there is.
const API_KEY: &str = "api-key";

/// Lets clients log in.
#[derive(Clone, Debug)]
pub struct Login {
    access: Arc<Access>,
}

impl Login {
    /// The path of its one method.
    pub const PATH: &str = "/proto.rpc.v1.AuthService/Authenticate";

    /// Logins with these keys.
    #[must_use]
    pub const fn new(access: Arc<Access>) -> Self {
        Self { access }
    }
}

#[tonic::async_trait]
impl AuthService for Login {
    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        if request.metadata().contains_key("authorization") {
            return Err(Status::invalid_argument("already authenticated; cannot re-authenticate"));
        }
        let from = request.extensions().get::<Arc<Connection>>();
        let from = from.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connection| connection.remote.ip());
        let AuthenticateRequest { entity, credentials } = request.into_inner();
        let Some(credentials) = credentials else {
            return Err(Status::invalid_argument("credentials required"));
        };
        if credentials.r#type != API_KEY {
            let what = format!("do not know how to handle credential type {:?}", credentials.r#type);
            return Err(Status::invalid_argument(what));
        }
        match self.access.log_in(&entity, &credentials.payload, from) {
            Ok(access_token) => Ok(Response::new(AuthenticateResponse { access_token })),
            Err(Rejection::Wrong) => {
                Err(Status::permission_denied("failed to authenticate: invalid credentials"))
            }
            Err(Rejection::NoRandomness) => {
                Err(Status::internal("this computer has no random numbers to make a token of"))
            }
            Err(Rejection::Later(wait)) => Err(Status::resource_exhausted(format!(
                "too many failed logins; try again in {} s",
                wait.as_secs() + 1
            ))),
            Err(Rejection::Busy(wait)) => Err(Status::resource_exhausted(format!(
                "too many logins at once; try again in {} s",
                wait.as_secs()
            ))),
        }
    }
}
