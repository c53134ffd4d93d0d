//! Where viam-server listens now, where Lanyard will listen instead, and where viam-server should move.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What viam-server binds when its configuration does not say.
pub const DEFAULT_BIND: &str = "localhost:8080";

/// The two addresses after the change.
#[derive(Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Lanyard's, which is the one that clients know; `None`: a name that only a person can resolve.
    pub listen: Option<SocketAddr>,
    /// viam-server's: the next port, for this computer only.
    pub upstream: SocketAddr,
}

/// From a Go listen address: a host, which may be missing, and a port.
///
/// # Errors
///
/// In words, when it is none.
pub fn of(bind: &str) -> Result<Addresses, String> {
    let wrong = || format!("bind_address must be like \":8080\" or \"localhost:8080\", not {bind:?}");
    let (host, port) = bind.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if port == 0 {
        return Err("bind_address has port 0, any free one: give viam-server the port that its clients use"
            .to_owned());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let ip = match (host, bare) {
        // Go listens on both IPv4 and IPv6 then. IPv4 is what exists everywhere.
        ("", _) => Some(IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        ("localhost", _) => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
        (_, Some(bare)) => Some(bare.parse().map_err(|_| wrong())?),
        (host, None) if host.contains(':') => return Err(wrong()),
        (host, None) => host.parse().ok(),
    };
    let next = if port == u16::MAX { port - 1 } else { port + 1 };
    Ok(Addresses {
        listen: ip.map(|ip| SocketAddr::new(ip, port)),
        upstream: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), next),
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn lanyard_takes_the_address_and_viam_server_the_next_port() {
        for (bind, listen, upstream) in [
            ("localhost:8080", Some("127.0.0.1:8080"), "127.0.0.1:8081"),
            (":8080", Some("0.0.0.0:8080"), "127.0.0.1:8081"),
            ("192.168.1.7:9000", Some("192.168.1.7:9000"), "127.0.0.1:9001"),
            ("[::1]:65535", Some("[::1]:65535"), "127.0.0.1:65534"),
            ("robot.lan:80", None, "127.0.0.1:81"),
        ] {
            let addresses = of(bind).unwrap();
            assert_eq!(addresses.listen.map(|listen| listen.to_string()).as_deref(), listen, "{bind}");
            assert_eq!(addresses.upstream.to_string(), upstream, "{bind}");
        }
        for wrong in ["", "8080", "localhost", ":x", ":99999", ":0", "::1:80", "[x]:80"] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
