//! What other computers could do: every port of the front, and what its traffic is protected by.

use core::fmt;
use std::net::SocketAddr;

use crate::reader::{Problems, Reader};
use crate::{Config, Front};

/// What the front does where others than this computer could call it unprotected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// It does not start, or closes the connection.
    Refused,
    /// `insecure = true`: it serves them, and says so.
    Insecure,
}

/// Whether clients have to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logins {
    /// There is a key.
    Required,
    /// There is none.
    None,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// gRPC, over TLS if there is a certificate.
    Grpc,
    /// Kinova's Kortex. Its clients know no TLS.
    Kortex,
    /// hoprd's session API, over TLS if there is a certificate.
    Tunnels,
    /// What was opened over it: nobody says there who they are.
    Links,
}

/// A port on which the front serves clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// What is spoken there.
    pub service: Service,
    /// The key of the configuration that names it.
    pub key: &'static str,
    /// Where it is.
    pub address: SocketAddr,
    /// What becomes of other computers there that nothing protects from.
    pub exposure: Exposure,
}

impl fmt::Display for Port {
    /// As it stands in the file: `[front] listen = "127.0.0.1:8080"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self.service {
            Service::Grpc => "[front]",
            Service::Kortex => "[kortex]",
            Service::Tunnels | Service::Links => "[tunnel]",
        };
        match self.service {
            Service::Links => write!(f, "{table} {} has \"{}\"", self.key, self.address.ip()),
            Service::Grpc | Service::Kortex | Service::Tunnels => {
                write!(f, "{table} {} = \"{}\"", self.key, self.address)
            }
        }
    }
}

/// What other computers could do to a front that listens to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Danger {
    /// Drive the robot.
    Anybody(Service),
    /// Listen to a login, and then drive the robot.
    PlainText(Service),
}

impl Danger {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Anybody(Service::Grpc) => {
                "Make a key (`lanyard keys add`) and give a certificate, or listen on 127.0.0.1; insecure = true \
                 serves everybody all the same"
            }
            Self::PlainText(Service::Grpc) => {
                "Give a certificate and its private_key, or listen on 127.0.0.1; insecure = true serves other \
                 computers in plain text all the same"
            }
            Self::Anybody(Service::Tunnels) => {
                "Make a key (`lanyard keys add`) and give a certificate, or listen on 127.0.0.1; insecure = true in \
                 [tunnel] serves everybody all the same"
            }
            Self::PlainText(Service::Tunnels) => {
                "Give a certificate and its private_key, or listen on 127.0.0.1; insecure = true in [tunnel] serves \
                 other computers in plain text all the same"
            }
            Self::Anybody(Service::Links) | Self::PlainText(Service::Links) => {
                "Keep listen_hosts to 127.0.0.1 and let others come through a tunnel of their own (`ssh -L`, WireGuard); \
                 insecure = true in [tunnel] lets listeners be open to other computers all the same"
            }
            Self::Anybody(Service::Kortex) => {
                "Listen on 127.0.0.1; insecure = true in [kortex] serves everybody all the same, so make keys first \
                 (`lanyard keys add NAME --role operate --password`)"
            }
            Self::PlainText(Service::Kortex) => {
                "Listen on 127.0.0.1 and let others come through a tunnel (`ssh -L`); insecure = true in [kortex] serves \
                 other computers in plain text all the same"
            }
        }
    }
}

impl fmt::Display for Danger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anybody(Service::Links) | Self::PlainText(Service::Links) => {
                "whoever reaches a listener there, or sends under its client's address, can drive the robot: nobody logs in \
                 to a link"
            }
            Self::Anybody(_) => "whoever reaches this address can drive the robot, because there is no key",
            Self::PlainText(Service::Grpc | Service::Tunnels) => {
                "keys go over the network in plain text, because there is no certificate"
            }
            Self::PlainText(Service::Kortex) => {
                "passwords go over the network in plain text, because Kortex has no TLS"
            }
        })
    }
}

/// Takes `insecure`.
pub fn exposure(table: &mut Reader<'_>, problems: &mut Problems) -> Exposure {
    match table.flag(problems, "insecure") {
        Some(true) => Exposure::Insecure,
        Some(false) | None => Exposure::Refused,
    }
}

impl Config {
    /// Every port on which the front serves clients.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        let Front { listen: address, access, .. } = &self.front;
        let (address, exposure) = (*address, access.exposure);
        let front = Port { service: Service::Grpc, key: "listen", address, exposure };
        let kortex = self.kortex.iter().flat_map(|kortex| {
            let exposure = kortex.exposure;
            let port = move |(key, address)| Port { service: Service::Kortex, key, address, exposure };
            kortex.addresses().map(port)
        });
        let tunnel = self.tunnel.iter().flat_map(|tunnel| {
            let exposure = tunnel.exposure;
            let port = move |service, key, address| Port { service, key, address, exposure };
            let hosts = tunnel.listen_hosts.iter();
            let links =
                hosts.map(move |host| port(Service::Links, "listen_hosts", SocketAddr::new(*host, 0)));
            core::iter::once(port(Service::Tunnels, "listen", tunnel.listen)).chain(links)
        });
        core::iter::once(front).chain(kortex).chain(tunnel)
    }

    /// What other computers could do over one of its ports, whether that is meant so or not.
    #[must_use]
    pub fn danger(&self, port: &Port, logins: Logins) -> Option<Danger> {
        match (logins, port.service, &self.front.access.tls) {
            _ if port.address.ip().to_canonical().is_loopback() => None,
            (_, Service::Links, _) => Some(Danger::Anybody(Service::Links)),
            (Logins::None, service, _) => Some(Danger::Anybody(service)),
            (Logins::Required, Service::Grpc | Service::Tunnels, Some(_)) => None,
            (Logins::Required, service, _) => Some(Danger::PlainText(service)),
        }
    }
}
