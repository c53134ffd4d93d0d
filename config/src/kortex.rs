//! `[kortex]`: clients that speak Kinova's Kortex, and the arm they find.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::exposure::exposure;
use crate::reader::{Problems, Reader, Span};
use crate::sessions::{RESOURCE_KEYS, rules_of_resource};
use crate::{Base, Exposure, LONGEST_WINDOW, ResourceRules, SHORTEST_WINDOW};

/// The ports that Kinova's clients connect to unless told otherwise.
pub const TCP_PORT: u16 = 10_000;
/// For UDP.
pub const UDP_PORT: u16 = 10_001;
/// For MQTT.
pub const MQTT_PORT: u16 = 1_883;

/// A client that names no connection_inactivity_timeout: what Kinova's own examples name.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// A client that names no session_inactivity_timeout: what Kinova's own examples name.
const SESSION_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest session_inactivity_timeout: the motors do not wait for it, a place in the list does.
pub const LONGEST_SESSION_TIMEOUT: Duration = Duration::from_hours(24);
/// How long the arm stays with a session that commands nothing: as Kinova's own arms have it (Gen3 User Guide, p. 127).
const CONTROL_GRACE: Duration = Duration::from_millis(7_500);
/// Connections at once: an arm has a few.
const MOST_CONNECTIONS: i64 = 64;
/// Joints of one arm: a Gen3 has seven.
const MOST_JOINTS: usize = 32;

/// How long the base behind may take for a Stop, and for being connected to: what its own clients give a keep-alive, times
/// four.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
const STOP_TIMEOUT_BOUNDS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));

const KEYS: [&str; 11] = [
    "tcp",
    "udp",
    "mqtt",
    "connection_timeout",
    "session_timeout",
    "control_grace",
    "temporary_role_lifetime",
    "insecure",
    "max_connections",
    "joint",
    "upstream",
];

/// `[kortex]`.
#[derive(Clone, Debug)]
pub struct Kortex {
    /// `tcp`: where clients of generation 2 connect.
    pub tcp: Option<SocketAddr>,
    /// `udp`: where clients of both send datagrams.
    pub udp: Option<SocketAddr>,
    /// `mqtt`: where clients of generation 3 connect.
    pub mqtt: Option<SocketAddr>,
    /// `connection_timeout`: for clients that name none. Silent for so long, what they drive is stopped.
    pub connection_timeout: Duration,
    /// `session_timeout`: for clients that name none. Silent for so long, their session is closed.
    pub session_timeout: Duration,
    /// `control_grace`: how long the arm stays with a session that commands nothing.
    pub control_grace: Duration,
    /// `temporary_role_lifetime`: how long a temporary role lasts, if not until its session ends.
    pub temporary_role_lifetime: Option<Duration>,
    /// `insecure`: what becomes of other computers, whose traffic nothing protects.
    pub exposure: Exposure,
    /// `max_connections`: on each of the ports.
    pub max_connections: usize,
    /// What whoever drives the arm must keep to.
    pub rules: ResourceRules,
    /// `[[kortex.joint]]`, in order: the first is joint 0. Empty where the base behind has the arm.
    pub joints: Vec<Joint>,
    /// `[kortex.upstream]`: a real base behind, if there is one.
    pub upstream: Option<KortexUpstream>,
}

/// `[kortex.upstream]`: a real base, for what is not served here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KortexUpstream {
    /// `tcp`: where it takes connections, for clients over TCP.
    pub tcp: Option<SocketAddr>,
    /// `udp`: where it takes datagrams, for clients over UDP.
    pub udp: Option<SocketAddr>,
    /// `mqtt`: where it takes connections of generation 3, for clients over MQTT.
    pub mqtt: Option<SocketAddr>,
    /// `user`, `password_file`: whom Lanyard logs in as there; `None`: as each client did here.
    pub login: Option<KortexLogin>,
    /// `motors`: the motors on CAN that the base drives, by place in [`crate::Config::motors`].
    pub motors: Vec<usize>,
    /// `stop_timeout`: how long one Stop may take there before it is sent again.
    pub stop_timeout: Duration,
}

impl KortexUpstream {
    /// Whether it is sure to be this computer: a stand-in. A real base is a computer of its own.
    #[must_use]
    pub fn is_here(&self) -> bool {
        let addresses = [self.tcp, self.udp, self.mqtt];
        addresses.into_iter().flatten().all(|address| address.ip().to_canonical().is_loopback())
    }
}

/// Whom Lanyard logs in as at a real base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KortexLogin {
    /// `user`.
    pub user: String,
    /// `password_file`: a file with nothing but the password.
    pub password_file: PathBuf,
}

/// One `[[kortex.joint]]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Joint {
    /// `motor`: its place in [`crate::Config::motors`].
    pub motor: usize,
    /// `gear_ratio`: revolutions of the motor for one of the joint.
    pub gear_ratio: f64,
}

impl Kortex {
    /// What the arm's use is noted under.
    pub const ARM: &str = "kortex/arm";

    /// Every address that is listened on.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        [("tcp", self.tcp), ("udp", self.udp), ("mqtt", self.mqtt)]
            .into_iter()
            .filter_map(|(key, address)| Some((key, address?)))
    }
}

/// Reads `[kortex]`, if there is one. `motors` are the names of the motors; `is_native`: whether the front drives one;
/// `own`: where the front listens for gRPC.
pub fn kortex(
    root: &mut Reader<'_>,
    problems: &mut Problems,
    motors: &[String],
    bases: &[Base],
    is_native: impl Fn(usize) -> bool,
    own: SocketAddr,
) -> Option<Kortex> {
    let title = "[kortex]";
    let mut table = root.table(problems, "kortex", title)?;
    let span = table.span();
    let spans = ["tcp", "mqtt"].map(|key| table.span_of(key));
    let is_port = |(key, _): &(String, Span)| ["tcp", "udp", "mqtt"].contains(&key.as_str());
    let has_ports = table.places().iter().any(is_port);
    let [tcp, udp, mqtt] = [("tcp", TCP_PORT), ("udp", UDP_PORT), ("mqtt", MQTT_PORT)]
        .map(|(key, port)| address(&mut table, problems, key, port));
    if !has_ports {
        let what = "give at least one of \"tcp\", \"udp\" (generation 2) and \"mqtt\" (generation 3), like \
                    tcp = \"127.0.0.1\"";
        problems.note(span.clone(), format!("{title}: nobody could connect; {what}"));
    }
    ports_are_apart(problems, own, [tcp, mqtt], spans);
    let window = SHORTEST_WINDOW..=LONGEST_WINDOW;
    let connection_timeout = table.duration(problems, "connection_timeout", window, CONNECTION_TIMEOUT);
    let session = SHORTEST_WINDOW..=LONGEST_SESSION_TIMEOUT;
    let session_timeout = table.duration(problems, "session_timeout", session, SESSION_TIMEOUT);
    // None at all: whoever commands last has the arm.
    let grace = Duration::ZERO..=Duration::from_mins(1);
    let control_grace = table.duration(problems, "control_grace", grace, CONTROL_GRACE);
    let role = Duration::from_secs(1)..=LONGEST_SESSION_TIMEOUT;
    let temporary_role_lifetime = table.duration_if_given(problems, "temporary_role_lifetime", role);
    let exposure = exposure(&mut table, problems);
    let max_connections = table.integer(problems, "max_connections", 1..=4_096).unwrap_or(MOST_CONNECTIONS);
    let rules = rules_of_resource(&mut table, problems);
    let mut joints = Vec::new();
    let mut seen = HashSet::new();
    let tables = table.tables(problems, "joint");
    let count = tables.len();
    for (place, mut table) in tables.into_iter().enumerate() {
        table.title = format!("[[kortex.joint]] {place}");
        if let Some(joint) = joint(&mut table, problems, motors, &mut seen, &is_native) {
            joints.push(joint);
        }
        table.finish(problems, &["motor", "gear_ratio"]);
    }
    let upstream = upstream(&mut table, problems, motors, bases, &mut seen);
    if count == 0 && upstream.is_none() {
        problems.note(
            span,
            format!(
                "{title}: the arm has no joints; give one [[kortex.joint]] with its motor for each, or \
                     [kortex.upstream] with a base that has them"
            ),
        );
    } else if count > MOST_JOINTS {
        let what = format!("an arm has at most {MOST_JOINTS} joints, not {count}");
        problems.note(span, format!("{title}: {what}"));
    }
    table.finish(problems, &[&KEYS[..], &RESOURCE_KEYS].concat());
    Some(Kortex {
        tcp,
        udp,
        mqtt,
        connection_timeout,
        session_timeout,
        control_grace,
        temporary_role_lifetime,
        exposure,
        max_connections: usize::try_from(max_connections).unwrap_or_default(),
        rules,
        joints,
        upstream,
    })
}

/// Reads `[kortex.upstream]`, if there is one. `seen` are the motors of joints.
fn upstream(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    motors: &[String],
    bases: &[Base],
    seen: &mut HashSet<usize>,
) -> Option<KortexUpstream> {
    let title = "[kortex.upstream]";
    let mut table = table.table(problems, "upstream", title)?;
    let [tcp, udp, mqtt] = [("tcp", TCP_PORT), ("udp", UDP_PORT), ("mqtt", MQTT_PORT)]
        .map(|(key, port)| address(&mut table, problems, key, port));
    if tcp.is_none() && udp.is_none() && mqtt.is_none() {
        let what = "give at least one of \"tcp\", \"udp\" and \"mqtt\", like tcp = \"192.168.1.10\"";
        problems.note(table.span(), format!("{title}: where is the base? {what}"));
    }
    let login = match (table.text(problems, "user"), table.text(problems, "password_file")) {
        (Some((_, user)), Some((_, file))) => Some(KortexLogin { user, password_file: file.into() }),
        (None, None) => None,
        (Some((span, _)), None) | (None, Some((span, _))) => {
            problems.note(
                span,
                format!("{title}: \"user\" and \"password_file\" belong together; give both or none"),
            );
            None
        }
    };
    let mut places = Vec::new();
    for (span, motor) in table.texts(problems, "motors").unwrap_or_default() {
        let what = match motors.iter().position(|known| *known == motor) {
            None => format!("is not configured; known motors: {}", motors.join(", ")),
            Some(place) if !seen.insert(place) => {
                "is named twice, or is a joint that Lanyard drives itself".to_owned()
            }
            Some(place)
                if bases.iter().any(|base| base.left.contains(&place) || base.right.contains(&place)) =>
            {
                "is driven by Lanyard as part of a [[base]]; take it out of one of both".to_owned()
            }
            Some(place) => {
                places.push(place);
                continue;
            }
        };
        problems.note(span, format!("{title}: motor \"{motor}\" {what}"));
    }
    let bounds = STOP_TIMEOUT_BOUNDS.0..=STOP_TIMEOUT_BOUNDS.1;
    let stop_timeout = table.duration(problems, "stop_timeout", bounds, STOP_TIMEOUT);
    table.finish(problems, &["tcp", "udp", "mqtt", "user", "password_file", "motors", "stop_timeout"]);
    Some(KortexUpstream { tcp, udp, mqtt, login, motors: places, stop_timeout })
}

/// `"127.0.0.1"` or `"127.0.0.1:10000"`.
fn address(table: &mut Reader<'_>, problems: &mut Problems, key: &str, port: u16) -> Option<SocketAddr> {
    let (span, text) = table.text(problems, key)?;
    let address = text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port)));
    if address.is_none() {
        let what = format!(
            "must be an address like \"127.0.0.1\" (port {port}) or \"127.0.0.1:{port}\", not \"{text}\""
        );
        problems.note(span, format!("{}: \"{key}\" {what}", table.title));
    }
    address
}

/// Two services cannot listen on one port of TCP. UDP has ports of its own.
fn ports_are_apart(
    problems: &mut Problems,
    own: SocketAddr,
    [tcp, mqtt]: [Option<SocketAddr>; 2],
    [tcp_span, mqtt_span]: [Span; 2],
) {
    let taken = [("tcp", tcp, tcp_span, "the front itself listens", Some(own))];
    let also = [
        ("mqtt", mqtt, mqtt_span.clone(), "the front itself listens", Some(own)),
        ("mqtt", mqtt, mqtt_span, "\"tcp\" listens", tcp),
    ];
    for (key, address, span, who, other) in taken.into_iter().chain(also) {
        if let Some((address, other)) = address.zip(other).filter(|(one, other)| clash(*one, *other)) {
            let what = format!("\"{key}\" = \"{address}\" is where {who} ({other}); give it another port");
            problems.note(span, format!("[kortex]: {what}"));
        }
    }
}

/// Whether one address cannot be had beside the other: every network includes each.
pub fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let meets = ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified();
    // Port 0 is whichever is free.
    meets && one.port() == other.port() && one.port() != 0
}

fn joint(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    motors: &[String],
    seen: &mut HashSet<usize>,
    is_native: impl Fn(usize) -> bool,
) -> Option<Joint> {
    let (span, motor) = table.required_text(problems, "motor", "the name of a motor");
    let gear_ratio = table.number(problems, "gear_ratio", 0.001..=100_000.0).unwrap_or(1.0);
    let place = motors.iter().position(|known| *known == motor);
    let wrong = match place {
        None if motor.is_empty() => return None,
        None => format!("motor \"{motor}\" is not configured; known motors: {}", motors.join(", ")),
        Some(place) if !seen.insert(place) => format!("motor \"{motor}\" is a joint already"),
        Some(place) if !is_native(place) => {
            format!("motor \"{motor}\" is driven by the server behind; take it out of [upstream.resources]")
        }
        Some(motor) => return Some(Joint { motor, gear_ratio }),
    };
    problems.note(span, format!("{}: {wrong}", table.title));
    None
}
