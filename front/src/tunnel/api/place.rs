//! Which listener a URL means: `{protocol}/{ip}/{port}`.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use super::refusal::{Kind, Refusal};
use crate::tunnel::Protocol;

/// The parts of a URL that its route names, without percent signs.
pub struct Segments(RawPathParams);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        params.map(Self).map_err(|rejection| invalid(&rejection.body_text()))
    }
}

fn invalid(what: &str) -> Refusal {
    Refusal::new(Kind::InvalidInput, format!("Invalid URL: {what}"))
}

impl Segments {
    /// The one of that name.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// `tcp` or `udp`, in small letters, as lists and requests have it.
    ///
    /// # Errors
    ///
    /// 400 for anything else.
    pub fn protocol(&self) -> Result<Protocol, Refusal> {
        let text = self.get("protocol");
        let unknown = || invalid(&format!("unknown variant `{text}`, expected `tcp` or `udp`"));
        [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.name() == text).ok_or_else(unknown)
    }

    /// A listener's address. Whoever closes one may write the protocol in any case.
    ///
    /// # Errors
    ///
    /// 400 when it is none.
    pub fn place(&self) -> Result<Place, Refusal> {
        let (protocol, ip, port) = (self.get("protocol"), self.get("ip"), self.get("port"));
        let known = [Protocol::Tcp, Protocol::Udp].into_iter();
        let protocol = known.clone().find(|known| known.name().eq_ignore_ascii_case(protocol));
        let protocol =
            protocol.ok_or_else(|| invalid("Matching variant not found, expected `tcp` or `udp`"))?;
        let digits = port.bytes().all(|digit| digit.is_ascii_digit());
        let cannot = || invalid(&format!("Cannot parse `port` with value `{port:?}` to a `u16`"));
        let port = port.parse().ok().filter(|_| digits).ok_or_else(cannot)?;
        let ip = ip.parse().map_err(|_| invalid(&format!("{ip:?} is no IP address")))?;
        Ok(Place { protocol, ip, port })
    }
}

/// Where a listener is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its address.
    pub ip: IpAddr,
    /// Its port; 0: all of that address.
    pub port: u16,
}
