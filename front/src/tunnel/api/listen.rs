//! Where a listener is to be: `listenHost`.
//!
//! hoprd takes the parts that it can read and fills in the others from its configuration; of what it cannot read at all it says
//! nothing, and listens somewhere. Here that is refused: who asks for a place means it.

use std::net::{IpAddr, SocketAddr};

/// The place that is meant by `requested`: an address with a port, an address, `:port`, or nothing.
///
/// # Errors
///
/// When it is none of them.
pub fn place(requested: Option<&str>, default: SocketAddr) -> Result<SocketAddr, String> {
    let requested = requested.unwrap_or_default();
    if let Ok(whole) = requested.parse::<SocketAddr>() {
        return Ok(whole);
    }
    if let Ok(ip) = requested.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, default.port()));
    }
    match requested.strip_prefix(':').unwrap_or(requested) {
        "" => Ok(default),
        port if requested.starts_with(':') && port.bytes().all(|digit| digit.is_ascii_digit()) => {
            let port = port.parse().map_err(|_| format!("listenHost: there is no port {port}"))?;
            Ok(SocketAddr::new(default.ip(), port))
        }
        _ => Err(format!(
            "listenHost: {requested:?} is no place to listen at; give an address and a port like \
             \"127.0.0.1:10000\" or \"[::1]:10000\", only one of both (\"127.0.0.1\", \":10000\"), or nothing"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_comes_from_the_configuration() {
        let default = "10.0.0.1:7".parse().unwrap();
        for (requested, expected) in [
            (None, "10.0.0.1:7"),
            (Some(""), "10.0.0.1:7"),
            (Some(":"), "10.0.0.1:7"),
            (Some("127.0.0.1:10000"), "127.0.0.1:10000"),
            (Some("127.0.0.1:0"), "127.0.0.1:0"),
            (Some("127.0.0.1"), "127.0.0.1:7"),
            (Some("0.0.0.0"), "0.0.0.0:7"),
            (Some(":10000"), "10.0.0.1:10000"),
            (Some(":0"), "10.0.0.1:0"),
            (Some("::1"), "[::1]:7"),
            (Some("[::1]:10002"), "[::1]:10002"),
            (Some("::"), "[::]:7"),
            (Some("::ffff:127.0.0.1"), "[::ffff:127.0.0.1]:7"),
        ] {
            assert_eq!(place(requested, default), Ok(expected.parse().unwrap()), "{requested:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let default = "127.0.0.1:0".parse().unwrap();
        for requested in [
            "garbage",
            "localhost:1234",
            "localhost",
            "[::1]",
            "127.0.0.1:",
            "127.0.0.1:70000",
            ":70000",
            ":-1",
            ":+1",
            ": 1",
            "10000",
            "127.0.0.1 ",
            " ",
            "127.1:1",
            "0x7f000001",
            "127.0.0.1:1/..",
            "::1:65536:",
            "\0",
        ] {
            let refused = place(Some(requested), default).unwrap_err();
            assert!(refused.starts_with("listenHost: "), "{requested}: {refused}");
        }
    }
}
