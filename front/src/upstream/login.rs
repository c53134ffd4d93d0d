//! The front as a client of the upstream that has to say who it is.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Status;

use super::ask::ask;
use super::lane::Lane;
use crate::proto::rpc::{AuthenticateRequest, AuthenticateResponse, Credentials};

const AUTHENTICATE: &str = "/proto.rpc.v1.AuthService/Authenticate";
/// How long a login may take: a key is looked up, perhaps in a cloud.
const WITHIN: Duration = Duration::from_secs(5);
/// Pause after a login that failed: the calls that come meanwhile get its reason, and the upstream some rest.
const PAUSE: Duration = Duration::from_secs(1);

/// Logs in when a token is needed and there is none.
pub struct Login {
    key: config::Login,
    state: Mutex<State>,
}

#[derive(Clone)]
enum State {
    Out,
    In(HeaderValue),
    Failed(Instant, Status),
}

impl Login {
    /// Not logged in yet.
    #[must_use]
    pub fn new(key: config::Login) -> Self {
        Self { key, state: Mutex::new(State::Out) }
    }

    /// What calls have as `authorization`.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE, with the reason, when the front cannot log in.
    pub async fn token(&self, lane: &Lane) -> Result<HeaderValue, Status> {
        let mut state = self.state.lock().await;
        match &*state {
            State::In(token) => return Ok(token.clone()),
            State::Failed(when, why) if when.elapsed() < PAUSE => return Err(why.clone()),
            State::Out | State::Failed(..) => {}
        }
        match self.log_in(lane).await {
            Ok(token) => {
                *state = State::In(token.clone());
                Ok(token)
            }
            Err(why) => {
                let told = Status::unavailable(format!(
                    "the front cannot log in to the upstream {} as \"{}\": {}",
                    lane.route.shown,
                    self.key.key_id,
                    why.message()
                ));
                tracing::warn!("{}", told.message());
                *state = State::Failed(Instant::now(), told.clone());
                Err(told)
            }
        }
    }

    /// A token was refused: the next call logs in anew, unless that has happened meanwhile.
    pub async fn refused(&self, token: &HeaderValue) {
        let mut state = self.state.lock().await;
        if matches!(&*state, State::In(present) if present == token) {
            *state = State::Out;
        }
    }

    async fn log_in(&self, lane: &Lane) -> Result<HeaderValue, Status> {
        use prost::Message as _;
        let file = &self.key.key_file;
        let secret = tokio::fs::read_to_string(file)
            .await
            .map_err(|error| Status::internal(format!("cannot read {}: {error}", file.display())))?;
        let request = AuthenticateRequest {
            entity: self.key.key_id.clone(),
            credentials: Some(Credentials {
                r#type: "api-key".to_owned(),
                payload: secret.trim().to_owned(),
            }),
        };
        let answer = ask(lane, AUTHENTICATE, HeaderMap::new(), &request.encode_to_vec(), WITHIN).await?;
        let answer = AuthenticateResponse::decode(answer)
            .map_err(|error| Status::internal(format!("its answer is no token: {error}")))?;
        let mut token = HeaderValue::try_from(format!("Bearer {}", answer.access_token))
            .map_err(|_| Status::internal("its token is no text"))?;
        token.set_sensitive(true);
        Ok(token)
    }
}
