//! `[upstream]`: the server behind Lanyard, and which motors stand behind its resources.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::reader::{Problems, Reader, Span};
use crate::sessions::{RESOURCE_KEYS, choice, rules_of_resource};
use crate::{Base, ResourceRules};

/// How long a Stop on the server may take before it is tried again, and the bounds of what may be asked for:
/// below, no server answers in time; above, a robot is stopped by hand long before.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
const STOP_TIMEOUT_BOUNDS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// How long the server may be silent. A server in Python is silent whenever its interpreter is busy.
const WINDOW: Duration = Duration::from_secs(1);
const WINDOW_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

const KEYS: [&str; 10] = [
    "address",
    "viam_sid",
    "window",
    "on_loss",
    "stop_timeout",
    "certificate_authority",
    "server_name",
    "key_id",
    "key_file",
    "resources",
];

/// `[upstream]`.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// `address`.
    pub address: Address,
    /// `viam_sid`: what becomes of session ids on their way to the server.
    pub viam_sid: ViamSid,
    /// `window`: how long the server may be silent before it counts as hung.
    pub window: Duration,
    /// `on_loss`: what becomes of the sessions that used its resources when it is lost.
    pub on_loss: OnLoss,
    /// `stop_timeout`: how long one call of a resource's Stop may take.
    pub stop_timeout: Duration,
    /// `key_id`, `key_file`: whom the front logs in as; `None`: clients log in themselves.
    pub login: Option<Login>,
    /// `[upstream.resources]`, in the order of their names.
    pub resources: Vec<UpstreamResource>,
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `http://host:port`: HTTP/2 without TLS.
    Plain(HostPort),
    /// `https://host:port`.
    Tls(HostPort, Trust),
    /// `unix:/path`.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(host) => write!(f, "http://{}:{}", host.host, host.port),
            Self::Tls(host, _) => write!(f, "https://{}:{}", host.host, host.port),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; an IPv6 address in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Whether it is sure to be this computer. What a name stands for is not known.
    #[must_use]
    pub fn is_here(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        self.host == "localhost" || address.parse().is_ok_and(is_loopback)
    }
}

impl Address {
    /// Whether it is sure to be this computer.
    #[must_use]
    pub fn is_here(&self) -> bool {
        match self {
            Self::Plain(host) | Self::Tls(host, _) => host.is_here(),
            Self::Unix(_) => true,
        }
    }
}

/// Which certificate the server must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// `certificate_authority`: a PEM file with those who may have signed it; `None`: the system's.
    pub authority: Option<PathBuf>,
    /// `server_name`: the name it must be for; the host unless given.
    pub server_name: String,
}

/// What becomes of `viam-sid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViamSid {
    /// It is taken off: a server that does not know the session must not refuse the call.
    Strip,
    /// It is left as it is.
    Keep,
}

/// What becomes of sessions when the server is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// Those that used its resources are ended, and what they drive is stopped.
    Stop,
    /// Nothing; their clients may go on.
    Ignore,
}

/// Whom the front logs in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// `key_id`.
    pub key_id: String,
    /// `key_file`: a file with nothing but the key's secret.
    pub key_file: PathBuf,
}

/// One line of `[upstream.resources]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamResource {
    /// A name as clients use it, or with its kind (`arm/arm1`) where two kinds have the same.
    pub name: String,
    /// `motors`: the motors that the server drives for it, by place in [`crate::Config::motors`].
    pub motors: Vec<usize>,
    /// What whoever uses it must keep to.
    pub rules: ResourceRules,
}

impl Upstream {
    /// What the configuration says about a resource of a kind (`arm`) and a name, if it says anything.
    #[must_use]
    pub fn resource(&self, kind: &str, name: &str) -> Option<&UpstreamResource> {
        let whole = |key: &str| key.split_once('/').is_some_and(|(k, n)| k == kind && n == name);
        self.resources
            .iter()
            .find(|resource| whole(&resource.name))
            .or_else(|| self.resources.iter().find(|resource| resource.name == name))
    }

    /// Whether the server drives that motor.
    #[must_use]
    pub fn drives(&self, motor: usize) -> bool {
        self.resources.iter().any(|resource| resource.motors.contains(&motor))
    }
}

/// Reads `[upstream]`, if there is one. `motors` are the names of the motors; `own` is where the front listens.
pub fn upstream(
    root: &mut Reader<'_>,
    problems: &mut Problems,
    motors: &[String],
    own: std::net::SocketAddr,
) -> Option<(Upstream, Span)> {
    let title = "[upstream]";
    let mut table = root.table(problems, "upstream", title)?;
    let span = table.span();
    let wanted = "\"http://127.0.0.1:8081\", \"https://host:port\" or \"unix:/path\"";
    let (place, text) = table.required_text(problems, "address", wanted);
    let authority = table.text(problems, "certificate_authority");
    let server_name = table.text(problems, "server_name");
    let address = match parse_address(&text) {
        Some(parsed) => with_trust(problems, parsed, authority, server_name),
        None => {
            if !text.is_empty() {
                let what = format!("\"address\" must be {wanted}, not \"{text}\"");
                problems.note(place.clone(), format!("{title}: {what}"));
            }
            Address::Unix(PathBuf::new())
        }
    };
    if let Address::Plain(host) | Address::Tls(host, _) = &address
        && is_own(host, own)
    {
        let what =
            format!("\"address\" is where the front itself listens ({own}); give the server another port");
        problems.note(place, format!("{title}: {what}"));
    }
    let words = [("strip", ViamSid::Strip), ("keep", ViamSid::Keep)];
    let viam_sid = choice(&mut table, problems, "viam_sid", &words, ViamSid::Strip);
    let words = [("stop", OnLoss::Stop), ("ignore", OnLoss::Ignore)];
    let on_loss = choice(&mut table, problems, "on_loss", &words, OnLoss::Stop);
    let window = table.duration(problems, "window", WINDOW_BOUNDS.0..=WINDOW_BOUNDS.1, WINDOW);
    let bounds = STOP_TIMEOUT_BOUNDS.0..=STOP_TIMEOUT_BOUNDS.1;
    let stop_timeout = table.duration(problems, "stop_timeout", bounds, STOP_TIMEOUT);
    let login = login(&mut table, problems);
    let resources = resources(&mut table, problems, motors);
    table.finish(problems, &KEYS);
    Some((Upstream { address, viam_sid, window, on_loss, stop_timeout, login, resources }, span))
}

/// A motor that the server drives cannot be in a base that the front drives.
pub fn bases_are_apart(
    problems: &mut Problems,
    upstream: &Upstream,
    span: &Span,
    bases: &[Base],
    motors: &[String],
) {
    for base in bases {
        for place in base.left.iter().chain(&base.right).filter(|place| upstream.drives(**place)) {
            let motor = motors.get(*place).map_or("", String::as_str);
            let what = format!(
                "motor \"{motor}\" is driven by the server behind, but base \"{}\" is to drive it, too; take the \
                 [[base]] out, or the motor out of [upstream.resources]",
                base.name
            );
            problems.note(span.clone(), format!("[upstream]: {what}"));
        }
    }
}

/// An address without what only TLS needs.
fn parse_address(text: &str) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return path.starts_with('/').then(|| Address::Unix(PathBuf::from(path)));
    }
    let (tls, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://")?),
    };
    let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let known = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = known.then(|| HostPort { host: host.to_owned(), port })?;
    if tls {
        let server_name = bracketed.unwrap_or(&host.host).to_owned();
        Some(Address::Tls(host, Trust { authority: None, server_name }))
    } else {
        Some(Address::Plain(host))
    }
}

fn with_trust(
    problems: &mut Problems,
    address: Address,
    authority: Option<(Span, String)>,
    server_name: Option<(Span, String)>,
) -> Address {
    match address {
        Address::Tls(host, trust) => {
            let authority = authority.map(|(_, path)| PathBuf::from(path));
            let server_name = server_name.map_or(trust.server_name, |(_, name)| name);
            Address::Tls(host, Trust { authority, server_name })
        }
        other => {
            for (key, given) in [("certificate_authority", authority), ("server_name", server_name)] {
                if let Some((span, _)) = given {
                    let what = "means something only with an address that begins with https://";
                    problems.note(span, format!("[upstream]: \"{key}\" {what}"));
                }
            }
            other
        }
    }
}

/// Whether that is the front's own port on this machine.
fn is_own(host: &HostPort, own: std::net::SocketAddr) -> bool {
    let same = host.host.trim_matches(['[', ']']).parse().is_ok_and(|host: std::net::IpAddr| {
        host == own.ip() || (own.ip().is_unspecified() && host.is_loopback())
    });
    let local = host.host == "localhost" && (own.ip().is_loopback() || own.ip().is_unspecified());
    host.port == own.port() && (same || local)
}

fn login(table: &mut Reader<'_>, problems: &mut Problems) -> Option<Login> {
    match (table.text(problems, "key_id"), table.text(problems, "key_file")) {
        (Some((_, key_id)), Some((_, file))) => Some(Login { key_id, key_file: PathBuf::from(file) }),
        (None, None) => None,
        (Some((span, _)), None) => {
            problems.note(span, "[upstream]: \"key_id\" needs \"key_file\", a file with the key's secret");
            None
        }
        (None, Some((span, _))) => {
            problems.note(span, "[upstream]: \"key_file\" needs \"key_id\", the id of the key in it");
            None
        }
    }
}

fn resources(table: &mut Reader<'_>, problems: &mut Problems, motors: &[String]) -> Vec<UpstreamResource> {
    let title = "[upstream.resources]";
    let Some(mut map) = table.table(problems, "resources", title) else { return Vec::new() };
    let mut resources = Vec::new();
    for (name, span) in map.places() {
        if name.is_empty() || name.starts_with('/') || name.ends_with('/') {
            let what = format!("\"{name}\" is no name of a resource; give one like arm1 or \"arm/arm1\"");
            problems.note(span, format!("{title}: {what}"));
            map.skip(&name);
            continue;
        }
        resources.push(resource(&mut map, problems, name, motors));
    }
    resources
}

/// `base1 = ["left", "right"]` or `arm1 = { motors = ["j1"], window = "500ms" }`.
fn resource(
    map: &mut Reader<'_>,
    problems: &mut Problems,
    name: String,
    motors: &[String],
) -> UpstreamResource {
    let title = format!("[upstream.resources] \"{name}\"");
    let nothing = ResourceRules::default();
    if map.is_list(&name) {
        let listed = map.texts(problems, &name).unwrap_or_default();
        let motors = places(problems, &title, listed, motors);
        return UpstreamResource { name, motors, rules: nothing };
    }
    let Some(mut table) = map.table(problems, &name, &title) else {
        return UpstreamResource { name, motors: Vec::new(), rules: nothing };
    };
    let listed = table.texts(problems, "motors").unwrap_or_default();
    let motors = places(problems, &title, listed, motors);
    let rules = rules_of_resource(&mut table, problems);
    table.finish(problems, &[&["motors"][..], &RESOURCE_KEYS].concat());
    UpstreamResource { name, motors, rules }
}

fn places(
    problems: &mut Problems,
    title: &str,
    listed: Vec<(Span, String)>,
    motors: &[String],
) -> Vec<usize> {
    let mut seen = HashSet::new();
    let mut places = Vec::new();
    for (span, motor) in listed {
        match motors.iter().position(|known| *known == motor) {
            None => {
                let what =
                    format!("motor \"{motor}\" is not configured; known motors: {}", motors.join(", "));
                problems.note(span, format!("{title}: {what}"));
            }
            Some(place) if !seen.insert(place) => {
                problems.note(span, format!("{title}: motor \"{motor}\" is named twice"));
            }
            Some(place) => places.push(place),
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::{Address, HostPort, Trust, parse_address};
    use std::path::PathBuf;

    fn host(host: &str, port: u16) -> HostPort {
        HostPort { host: host.to_owned(), port }
    }

    #[test]
    fn addresses_are_told_apart() {
        let trust = |name: &str| Trust { authority: None, server_name: name.to_owned() };
        for (text, address) in [
            ("http://127.0.0.1:8081", Address::Plain(host("127.0.0.1", 8081))),
            ("http://[::1]:8081/", Address::Plain(host("[::1]", 8081))),
            ("https://robot.example:443", Address::Tls(host("robot.example", 443), trust("robot.example"))),
            ("https://[::1]:443", Address::Tls(host("[::1]", 443), trust("::1"))),
            ("unix:/run/viam.sock", Address::Unix(PathBuf::from("/run/viam.sock"))),
            ("unix:///run/viam.sock", Address::Unix(PathBuf::from("/run/viam.sock"))),
        ] {
            assert_eq!(parse_address(text), Some(address), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:8081",
            "http://127.0.0.1",
            "http://:80",
            "http://host:0",
            "http://host:99999",
            "http://user@host:80",
            "http://host:80/path",
            "http://::1:80",
            "unix:relative",
            "unix:",
            "ftp://host:21",
        ] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }
}
