//! Calls that are about sessions: who opens one, what it may do, who else has one.

use std::sync::Arc;

use keys::Role;

use super::super::channel::{Channel, Transport};
use super::super::control::Arbitration;
use super::super::frame::{Frame, Header, SessionNumber};
use super::super::refusal::{Refusal, Sub};
use super::super::roster::{Gone, Leaving, Listed};
use super::{Answer, Call, Desk, Outcome, message};
use crate::access::{Caller, Rejection};
use crate::proto::kortex::{
    AccessControlOptions, Connection, Connection3, ConnectionList, ConnectionList3, ConnectionType,
    CreateSessionInfo, TemporaryRoleRequest, UserPermission, UserProfileHandle, UserRole,
};

/// Longest user name or password that is looked at.
const LONGEST_CREDENTIAL: usize = 256;

impl Desk {
    pub(super) fn create(self: &Arc<Self>, channel: &Arc<Channel>, frame: &Frame) -> Result<Answer, Refusal> {
        let header = frame.header;
        let info: CreateSessionInfo = message(frame)?;
        if info.username.len() > LONGEST_CREDENTIAL || info.password.len() > LONGEST_CREDENTIAL {
            let text = format!("user name and password have at most {LONGEST_CREDENTIAL} bytes");
            return Err(Refusal::protocol(Sub::InvalidParam, text));
        }
        if !self.access.is_required() && self.base.is_none() {
            return self.created(channel, Caller::anonymous(), &info, header).map(Answer::Now);
        }
        let (desk, channel) = (Arc::clone(self), Arc::clone(channel));
        Self::later(header, async move {
            let caller = if desk.access.is_required() {
                desk.log_in(&channel, &info.username, &info.password).await?
            } else {
                Caller::anonymous()
            };
            let created = desk.created(&channel, caller, &info, header)?;
            desk.open_behind(&channel, created.header.session, &info).await?;
            Ok(created)
        })
    }

    /// Opens a session's other half at the base behind, if there is one; without it there is none here either.
    async fn open_behind(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        session: SessionNumber,
        info: &CreateSessionInfo,
    ) -> Result<(), Refusal> {
        let Some(base) = &self.base else { return Ok(()) };
        let desk = Arc::downgrade(self);
        let lost = move || {
            if let Some(desk) = desk.upgrade() {
                desk.roster.stop(session);
            }
        };
        let opened = base.open(channel, session, info, lost).await;
        // It may have ended meanwhile, or its connection.
        let lives = self.roster.beat(channel, session);
        if opened.is_err() || lives.is_err() {
            let gone = self.roster.close(channel, session).ok().flatten();
            self.gone(&[gone.unwrap_or(Gone { session, leaving: Leaving::Nothing })]);
        }
        opened.and(lives.map(drop))
    }

    fn created(
        &self,
        channel: &Channel,
        caller: Caller,
        info: &CreateSessionInfo,
        header: Header,
    ) -> Outcome {
        let session = self.roster.open(channel, caller, info, &header)?;
        if channel.has_left() {
            // While its password was looked at; nobody else would close it.
            self.left(channel);
            return Err(Refusal::no_session());
        }
        channel.connection.note_call(http::Version::HTTP_11);
        self.tell_sessions();
        Ok(Frame::answer(&header, session, &()))
    }

    async fn log_in(&self, channel: &Channel, user: &str, password: &str) -> Result<Caller, Refusal> {
        let (access, connection) = (Arc::clone(&self.access), Arc::clone(&channel.connection));
        let (user, password) = (user.to_owned(), password.to_owned());
        // A password is hashed for a hundred milliseconds: not on a thread that beats.
        let checked = tokio::task::spawn_blocking(move || access.password(&user, &password, &connection));
        Ok(checked.await.unwrap_or(Err(Rejection::Wrong))?)
    }

    pub(super) fn connections(&self, call: &Call<'_>) -> Answer {
        let listed = self.roster.list();
        match call.channel.transport {
            Transport::Tcp | Transport::Udp => {
                let connection = |listed: Listed| Connection {
                    user_handle: Some(handle(&listed)),
                    connection_information: from(&listed),
                    connection_identifier: listed.session.0.into(),
                };
                call.now(&ConnectionList { connection: listed.into_iter().map(connection).collect() })
            }
            Transport::Mqtt => {
                let connection = |listed: Listed| Connection3 {
                    user_handle: Some(handle(&listed)),
                    connection_information: from(&listed),
                    is_local: listed.peer.remote.is_some_and(|remote| remote.ip().is_loopback()),
                    session_identifier: listed.session.0.into(),
                    connection_inactivity_timeout: u32::try_from(listed.window.0 / 1_000_000).unwrap_or(0),
                    roles: roles(&listed),
                    connection_type: ConnectionType::MqttTcp.into(),
                    is_webapp: false,
                    username: listed.user.clone(),
                };
                let user_connections: Vec<_> = listed.into_iter().map(connection).collect();
                let connection = user_connections.clone();
                call.now(&ConnectionList3 { connection, user_connections })
            }
        }
    }

    /// More rights: those of a user of that name, for who knows the password.
    pub(super) fn promote(self: &Arc<Self>, call: &Call<'_>) -> Result<Answer, Refusal> {
        call.needs(Role::Operate)?;
        let asked: TemporaryRoleRequest = message(call.frame)?;
        let TemporaryRoleRequest { role_identifier: name, password } = asked;
        if name.is_empty() || name.len() > LONGEST_CREDENTIAL || password.len() > LONGEST_CREDENTIAL {
            let text =
                format!("a role has a name, and name and password have at most {LONGEST_CREDENTIAL} bytes");
            return Err(Refusal::protocol(Sub::InvalidParam, text));
        }
        let (desk, channel) = (Arc::clone(self), Arc::clone(call.channel));
        let session = call.standing().session;
        call.later(async move {
            let user = name.to_lowercase();
            let role = match (desk.access.is_required(), user.as_str()) {
                // Who may operate already loses nothing by saying so.
                (false, _) | (true, "operator" | "operate") => Role::Operate,
                (true, _) => desk.log_in(&channel, &user, &password).await?.role,
            };
            desk.roster.promote(&channel, session, name, role)?;
            desk.tell_sessions();
            Ok(())
        })
    }

    pub(super) fn set_access_control(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        call.needs(Role::Administer)?;
        let asked: AccessControlOptions = message(call.frame)?;
        if asked.bypass_remote_access {
            let text = "bypass_remote_access is not served: who may do what is said by the keys";
            return Err(Refusal::protocol(Sub::InvalidParam, text));
        }
        let single = asked.single_source_control;
        self.arm.control.arbitrate(if single { Arbitration::SingleSource } else { Arbitration::Open });
        Ok(call.done())
    }
}

/// Kinova's permissions for reading, changing and deleting, as far as a role has them.
fn handle(listed: &Listed) -> UserProfileHandle {
    let permission = match listed.role {
        Role::Observe => 1,
        Role::Operate => 3,
        Role::Administer => 7,
    };
    UserProfileHandle { identifier: listed.session.0.into(), permission }
}

pub(super) fn roles(listed: &Listed) -> Vec<UserRole> {
    let permissions: &[UserPermission] = match listed.role {
        Role::Observe => &[UserPermission::ReadOnly],
        Role::Operate => &[UserPermission::ReadOnly, UserPermission::Operate],
        Role::Administer => &[UserPermission::ReadOnly, UserPermission::Operate, UserPermission::Configure],
    };
    let permissions: Vec<i32> = permissions.iter().map(|permission| (*permission).into()).collect();
    let own = UserRole { identifier: listed.role.to_string(), permissions };
    let temporary =
        listed.temporary.clone().map(|identifier| UserRole { identifier, permissions: Vec::new() });
    [own].into_iter().chain(temporary).collect()
}

fn from(listed: &Listed) -> String {
    listed.peer.remote.map_or_else(String::new, |remote| remote.to_string())
}
