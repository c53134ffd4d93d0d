//! Which web pages may call the front: `origins` of `[front]`.

use std::net::IpAddr;

use crate::reader::{Problems, Reader};

/// The key of `[front]` that is read here.
pub const KEY: &str = "origins";

/// The pages that may call, by their origin: scheme, host and port, as browsers send them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Those that this computer itself serves.
    Localhost,
    /// These, and no others.
    Listed(Vec<String>),
    /// Any page that anybody opens anywhere.
    Any,
}

impl Origins {
    /// Whether pages of that origin may call.
    #[must_use]
    pub fn allow(&self, origin: &str) -> bool {
        match self {
            Self::Localhost => parts(origin).is_some_and(|(_, host, _)| is_this_computer(host)),
            Self::Listed(listed) => listed.iter().any(|known| known == origin),
            Self::Any => true,
        }
    }
}

/// Names that browsers resolve to the computer they run on, whatever any name server says (RFC 6761).
fn is_this_computer(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let loopback = |ip: IpAddr| ip.is_loopback();
    host == "localhost" || host.ends_with(".localhost") || address.parse().is_ok_and(loopback)
}

/// Scheme, host and port of an origin as browsers write it; `None` for anything else.
fn parts(origin: &str) -> Option<(&str, &str, Option<u16>)> {
    let (scheme, rest) = origin.split_once("://")?;
    let end = if rest.starts_with('[') { rest.find(']')? + 1 } else { rest.find(':').unwrap_or(rest.len()) };
    let (host, port) = rest.split_at(end);
    let port = match port {
        "" => None,
        port => Some(port.strip_prefix(':')?.parse().ok()?),
    };
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    (fits && matches!(scheme, "http" | "https")).then_some((scheme, host, port))
}

/// What keeps a text from ever being what a browser sends.
fn mistake(origin: &str) -> Option<&'static str> {
    match parts(origin) {
        None => Some(
            "must be like \"https://panel.example\" or \"http://10.0.0.5:3000\", in small letters and without a path",
        ),
        Some(("https", _, Some(443)) | ("http", _, Some(80))) => {
            Some("has the port that its scheme has anyway, which browsers leave out; leave it out, too")
        }
        Some(_) => None,
    }
}

pub(crate) fn origins(table: &mut Reader<'_>, problems: &mut Problems) -> Origins {
    let title = table.title.clone();
    let Some(listed) = table.texts(problems, KEY) else { return Origins::Localhost };
    if listed.iter().any(|(_, origin)| origin == "*") {
        if let [_, (span, _), ..] = listed.as_slice() {
            problems.note(
                span.clone(),
                format!("{title}: \"{KEY}\": \"*\" is every page; name no others beside it"),
            );
        }
        return Origins::Any;
    }
    for (span, origin) in &listed {
        if let Some(what) = mistake(origin) {
            problems.note(span.clone(), format!("{title}: \"{KEY}\": \"{origin}\" {what}"));
        }
    }
    Origins::Listed(listed.into_iter().map(|(_, origin)| origin).collect())
}

#[cfg(test)]
mod tests {
    use super::Origins;

    #[test]
    fn only_pages_of_this_computer_unless_others_are_named() {
        let local = Origins::Localhost;
        for origin in [
            "http://localhost",
            "https://localhost:3000",
            "http://panel.localhost:8000",
            "http://127.0.0.1:5173",
            "http://127.1.2.3",
            "http://[::1]:80",
        ] {
            assert!(local.allow(origin), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://",
            "https://evil.example",
            "http://localhost.evil.example",
            "http://evil-localhost",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "http://localhost:80@evil.example",
            "http://localhost:3000/x",
            "http://[::1].evil.example",
            "file://localhost",
            "http://0.0.0.0:80",
            "http://192.168.0.1",
        ] {
            assert!(!local.allow(origin), "{origin}");
        }
    }

    #[test]
    fn a_list_is_exact() {
        let listed = Origins::Listed(vec!["https://panel.example".to_owned()]);
        assert!(listed.allow("https://panel.example"));
        for origin in [
            "http://panel.example",
            "https://panel.example:8443",
            "https://x.panel.example",
            "http://localhost",
        ] {
            assert!(!listed.allow(origin), "{origin}");
        }
        assert!(Origins::Any.allow("null"));
    }
}
