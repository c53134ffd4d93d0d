//! `[tunnel]`: links of TCP and UDP into the robot that are cut, and their motors stopped, when the operator's side falls
//! silent; opened over the session API of hoprd.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use drivers::ArbitrationId;

use crate::exposure::exposure;
use crate::reader::{Problems, Reader, Span};
use crate::sessions::choice;
use crate::{Bus, Exposure, HostPort, LONGEST_WINDOW, Motor, ResourceRules, SHORTEST_WINDOW};

/// Where hoprd itself listens unless told otherwise.
pub const PORT: u16 = 3_001;

/// Listeners and connections unless told otherwise, and at most: a robot has a few; each costs descriptors.
const LISTENERS: (i64, RangeInclusive<i64>) = (64, 1..=1_000);
const CONNECTIONS: (i64, RangeInclusive<i64>) = (256, 1..=10_000);
/// Lowest port of a listener. Below are those that a computer's own services have.
pub const LOWEST_PORT: u16 = 1_024;
/// How long a target may take to be connected to: it is on the robot. hoprd's own clients give up after 4 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

const KEYS: [&str; 9] = [
    "listen",
    "default_listen_host",
    "listen_hosts",
    "ports",
    "clients",
    "max_listeners",
    "max_connections",
    "insecure",
    "target",
];
const TARGET_KEYS: [&str; 19] = [
    "name",
    "protocol",
    "address",
    "aliases",
    "service",
    "robot",
    "speaks",
    "bus",
    "cyclic",
    "motors",
    "also",
    "window",
    "require_progress",
    "beat",
    "min_rate",
    "after_expiry",
    "relock",
    "source",
    "connect_timeout",
];

/// `[tunnel]`.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// `listen`: where the session API is.
    pub listen: SocketAddr,
    /// `default_listen_host`: what a listener binds where its request leaves that out.
    pub default_listen_host: SocketAddr,
    /// `listen_hosts`: addresses that listeners may bind.
    pub listen_hosts: Vec<IpAddr>,
    /// `ports`: where listeners that name no port get one; `None`: the kernel's choice.
    pub ports: Option<RangeInclusive<u16>>,
    /// `clients`: who may send to a listener.
    pub clients: TunnelClients,
    /// `max_listeners`: listeners at once.
    pub max_listeners: usize,
    /// `max_connections`: clients of all listeners at once.
    pub max_connections: usize,
    /// `insecure`: what becomes of other computers, whose traffic nothing protects.
    pub exposure: Exposure,
    /// `[[tunnel.target]]`: what can be reached, and nothing else.
    pub targets: Vec<TunnelTarget>,
}

/// Who may send to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelClients {
    /// The address that asked for it.
    Creator,
    /// Whoever reaches it.
    Anybody,
}

/// What a listener and its target speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl TunnelProtocol {
    /// As it stands in a configuration and in a URL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One `[[tunnel.target]]`.
#[derive(Clone, Debug)]
pub struct TunnelTarget {
    /// `name`.
    pub name: String,
    /// `protocol`.
    pub protocol: TunnelProtocol,
    /// `address`: where it is.
    pub address: HostPort,
    /// `aliases`: what else clients may call it, as text.
    pub aliases: Vec<String>,
    /// `service`: its number as a named target.
    pub service: Option<u32>,
    /// `robot`: the destination it belongs to; `None`: all that have no targets of their own.
    pub robot: Option<String>,
    /// `speaks`: what it understands, as far as Lanyard has to know.
    pub speaks: Speaks,
    /// `motors`: what whoever reaches it can move, by place in [`crate::Config::motors`].
    pub motors: Vec<usize>,
    /// The bus that these motors are on, by place in [`crate::Config::buses`], where the target speaks of CAN frames.
    pub motors_bus: Option<usize>,
    /// `also`: identifiers of frames that pass besides those for its motors.
    pub also: Vec<ArbitrationId>,
    /// `window`: silent for so long, a link that drives is cut and its motors are stopped.
    pub window: Duration,
    /// `beat`: what of a client's counts as a sign of life.
    pub beat: BeatOf,
    /// `min_rate`: signs of life that there must be in each second.
    pub min_rate: Option<u32>,
    /// What whoever drives through it must keep to.
    pub rules: ResourceRules,
    /// `after_expiry`: what becomes of the listener when a link was cut for silence.
    pub after_expiry: AfterExpiry,
    /// `relock`: after so much silence another address may take a listener of UDP.
    pub relock: Option<Duration>,
    /// `source`: from where datagrams go to the target.
    pub source: Option<SocketAddr>,
    /// `connect_timeout`: how long it may take to be connected to.
    pub connect_timeout: Duration,
}

/// What a target understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Bytes.
    Plain,
    /// CAN frames as socketcand has them.
    Socketcand {
        /// `bus`: the only one that may be opened; with motors, the interface of theirs unless given.
        bus: Option<String>,
        /// `cyclic`: jobs that go on without their client.
        cyclic: Cyclic,
    },
    /// CAN frames as cannelloni has them: version 2 of its datagrams over UDP, version 1 of its stream over TCP.
    Cannelloni,
}

/// Whether a client may have the target send by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cyclic {
    /// It gets an error instead.
    Refused,
    /// It may; the jobs end with the link.
    Allowed,
}

/// What counts as a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeatOf {
    /// Whatever a client sends to the target, unless it is listed in `also`.
    Bytes,
    /// What commands one of the target's motors: stops and cleared faults, too.
    Commands,
    /// What drives one of the target's motors: a set-point, 0 included, or an enabling frame.
    Motion,
}

/// What becomes of a listener when a link was cut for silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterExpiry {
    /// It is gone; its client sees that in the list and asks for another one.
    Close,
    /// It stays, and a client may come again.
    Wait,
}

impl TunnelTarget {
    /// What its use is noted under.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("tunnel/{}", self.name)
    }

    /// Whether a link to it is supervised.
    #[must_use]
    pub fn is_supervised(&self) -> bool {
        !self.motors.is_empty()
    }
}

/// Reads `[tunnel]`, if there is one, and where each target has its `motors`. `motors` are the names of the motors; `taken`:
/// where the front listens otherwise.
pub fn tunnel(
    root: &mut Reader<'_>,
    problems: &mut Problems,
    motors: &[String],
    taken: &[SocketAddr],
) -> Option<(Tunnel, Vec<Span>)> {
    let title = "[tunnel]";
    let mut table = root.table(problems, "tunnel", title)?;
    let span = table.span();
    let listen_span = table.span_of("listen");
    let listen = address(&mut table, problems, "listen", PORT)
        .unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT));
    if let Some(other) = taken.iter().find(|other| crate::kortex::clash(listen, **other)) {
        let what = format!("\"listen\" = \"{listen}\" is where the front listens already ({other})");
        problems.note(listen_span, format!("{title}: {what}; give it another port"));
    }
    let exposure = exposure(&mut table, problems);
    let default_listen_host = address(&mut table, problems, "default_listen_host", 0)
        .unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    let listen_hosts = listen_hosts(&mut table, problems, default_listen_host.ip());
    let ports = ports(&mut table, problems);
    let clients = [("creator", TunnelClients::Creator), ("anybody", TunnelClients::Anybody)];
    let clients = choice(&mut table, problems, "clients", &clients, TunnelClients::Creator);
    let mut many = |key, (default, range): (i64, RangeInclusive<i64>)| {
        let many = table.integer(problems, key, range).unwrap_or(default);
        usize::try_from(many).unwrap_or_default()
    };
    let max_listeners = many("max_listeners", LISTENERS);
    let max_connections = many("max_connections", CONNECTIONS);
    let tables = table.tables(problems, "target");
    if tables.is_empty() {
        let what =
            "nothing can be reached; give one [[tunnel.target]] for each program that clients may talk to";
        problems.note(span, format!("{title}: {what}"));
    }
    let mut seen = Seen::default();
    let targets = tables.into_iter().filter_map(|table| target(table, problems, motors, &mut seen));
    let (targets, spans) = targets.unzip();
    table.finish(problems, &KEYS);
    let tunnel = Tunnel {
        listen,
        default_listen_host,
        listen_hosts,
        ports,
        clients,
        max_listeners,
        max_connections,
        exposure,
        targets,
    };
    Some((tunnel, spans))
}

/// Finds the bus that each target's motors are on, once every motor is known. A link of CAN frames leads to one bus: on
/// several, one frame would mean several things.
pub fn find_buses(
    problems: &mut Problems,
    (tunnel, spans): &mut (Tunnel, Vec<Span>),
    motors: &[Motor],
    buses: &[Bus],
) {
    for (target, span) in tunnel.targets.iter_mut().zip(spans) {
        let opened = match &target.speaks {
            Speaks::Plain => continue,
            Speaks::Socketcand { bus, .. } => bus.as_deref(),
            Speaks::Cannelloni => None,
        };
        let reached: Vec<Vec<usize>> =
            target.motors.iter().filter_map(|place| Some(motors.get(*place)?.buses().collect())).collect();
        let Some(first) = reached.first() else { continue };
        let common = || first.iter().copied().filter(|bus| reached.iter().all(|buses| buses.contains(bus)));
        let interface = |bus: usize| buses.get(bus).map(|bus| bus.interface.as_str());
        let named = common().find(|bus| interface(*bus) == opened);
        target.motors_bus = named.or_else(|| common().next());
        let Some(bus) = target.motors_bus else {
            let what =
                "has motors of several buses, and a link of CAN frames leads to one; give each bus a target";
            problems.note(span.clone(), format!("target \"{}\": \"motors\" {what}", target.name));
            continue;
        };
        if let Speaks::Socketcand { bus: opened, .. } = &mut target.speaks {
            let theirs = || interface(bus).unwrap_or_default().to_owned();
            opened.get_or_insert_with(theirs);
        }
    }
}

/// `"127.0.0.1"` or `"127.0.0.1:3001"`.
fn address(table: &mut Reader<'_>, problems: &mut Problems, key: &str, port: u16) -> Option<SocketAddr> {
    let (span, text) = table.text(problems, key)?;
    let address = text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port)));
    if address.is_none() {
        let what = format!("must be an address like \"127.0.0.1\" or \"127.0.0.1:{port}\", not \"{text}\"");
        problems.note(span, format!("{}: \"{key}\" {what}", table.title));
    }
    address
}

fn listen_hosts(table: &mut Reader<'_>, problems: &mut Problems, default: IpAddr) -> Vec<IpAddr> {
    let Some(given) = table.texts(problems, "listen_hosts") else {
        let mut hosts = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if !hosts.contains(&default) {
            hosts.push(default);
        }
        return hosts;
    };
    let mut hosts = Vec::new();
    for (span, text) in given {
        match text.parse() {
            Ok(host) => hosts.push(host),
            Err(_) => {
                let what = format!("must be addresses of this computer like \"127.0.0.1\", not \"{text}\"");
                problems.note(span, format!("{}: \"listen_hosts\" {what}", table.title));
            }
        }
    }
    if !hosts.contains(&default) {
        let what = format!("has not \"{default}\", which default_listen_host names; add it, or name another");
        problems.note(table.span(), format!("{}: \"listen_hosts\" {what}", table.title));
    }
    hosts
}

/// `"10100-10199"`.
fn ports(table: &mut Reader<'_>, problems: &mut Problems) -> Option<RangeInclusive<u16>> {
    let (span, text) = table.text(problems, "ports")?;
    let ends = text.split_once('-').and_then(|(low, high)| {
        let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        (LOWEST_PORT <= low && low <= high).then_some(low..=high)
    });
    if ends.is_none() {
        let what = format!("must be a range like \"10100-10199\", from {LOWEST_PORT} up, not \"{text}\"");
        problems.note(span, format!("{}: \"ports\" {what}", table.title));
    }
    ends
}

/// What targets must not have twice.
#[derive(Debug, Default)]
struct Seen {
    names: HashSet<String>,
    /// By what clients call them, and for whom.
    calls: HashSet<(TunnelProtocol, Option<String>, String)>,
}

fn target(
    mut table: Reader<'_>,
    problems: &mut Problems,
    motors: &[String],
    seen: &mut Seen,
) -> Option<(TunnelTarget, Span)> {
    table.title = "[[tunnel.target]]".to_owned();
    let (name_span, name) = table.required_text(problems, "name", "what it is called in logs");
    if !name.is_empty() {
        table.title = format!("target \"{name}\"");
    }
    if !seen.names.insert(name.clone()) {
        problems.note(name_span, format!("{}: there are two of that name", table.title));
    }
    let (protocol_span, protocol) = table.required_text(problems, "protocol", "\"tcp\" or \"udp\"");
    let protocol = match protocol.as_str() {
        "tcp" => Some(TunnelProtocol::Tcp),
        "udp" => Some(TunnelProtocol::Udp),
        "" => None,
        other => {
            let what = format!("\"protocol\" must be tcp or udp, not \"{other}\"");
            problems.note(protocol_span, format!("{}: {what}", table.title));
            None
        }
    };
    let (address_span, text) =
        table.required_text(problems, "address", "where it is, like \"127.0.0.1:29536\"");
    let address = host_port(&text);
    if address.is_none() && !text.is_empty() {
        let what = format!("must be a host and a port like \"127.0.0.1:29536\", not \"{text}\"");
        problems.note(address_span.clone(), format!("{}: \"address\" {what}", table.title));
    }
    let aliases = table.texts(problems, "aliases").unwrap_or_default();
    let service_span = table.span_of("service");
    let service = table.integer(problems, "service", 0..=i64::from(u32::MAX));
    let service = service.and_then(|number| u32::try_from(number).ok());
    let robot = robot(&mut table, problems);
    let calls = aliases.iter().cloned().chain(service.map(|number| (service_span, format!("#{number}"))));
    for (span, call) in calls.chain([(address_span, text)]) {
        let Some(protocol) = protocol.filter(|_| !call.is_empty()) else { continue };
        if !seen.calls.insert((protocol, robot.clone(), call.clone())) {
            let what = format!("another {} target is called \"{call}\" already", protocol.name());
            problems.note(span, format!("{}: {what}", table.title));
        }
    }
    let speaks = speaks(&mut table, problems, protocol);
    let motors_span = table.span_of("motors");
    let motors = behind(&mut table, problems, motors);
    let also = also(&mut table, problems, &motors, &speaks);
    let supervision = supervision(&mut table, problems, &motors, &speaks);
    let for_udp = datagrams(&mut table, problems, protocol, address.as_ref());
    let waits = supervision.after_expiry == AfterExpiry::Wait && !motors.is_empty();
    if waits && protocol == Some(TunnelProtocol::Udp) && for_udp.relock.is_none() {
        let what = "after_expiry = \"wait\" needs \"relock\" over UDP: after how much silence datagrams are those of a new \
                    link, and not the rest of the old one";
        problems.note(table.span(), format!("{}: {what}", table.title));
    }
    let timeout = Duration::from_millis(50)..=Duration::from_secs(30);
    let connect_timeout = table.duration(problems, "connect_timeout", timeout, CONNECT_TIMEOUT);
    table.finish(problems, &TARGET_KEYS);
    let target = TunnelTarget {
        name,
        protocol: protocol?,
        address: address?,
        aliases: aliases.into_iter().map(|(_, alias)| alias).collect(),
        service,
        robot,
        speaks,
        motors,
        motors_bus: None,
        also,
        window: supervision.window,
        beat: supervision.beat,
        min_rate: supervision.min_rate,
        rules: supervision.rules,
        after_expiry: supervision.after_expiry,
        relock: for_udp.relock,
        source: for_udp.source,
        connect_timeout,
    };
    Some((target, motors_span))
}

/// `host:port`; an IPv6 address in brackets.
fn host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_good = match bracketed {
        Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    is_good.then(|| HostPort { host: host.to_owned(), port })
}

/// A destination: hoprd's peer ids and addresses. That they are well-formed is seen to where requests are read.
fn robot(table: &mut Reader<'_>, problems: &mut Problems) -> Option<String> {
    let (span, text) = table.text(problems, "robot")?;
    if !text.chars().all(|c| c.is_ascii_alphanumeric()) {
        let what = "must be a destination as clients name it: a peer id like \"12D3Koo...\", or \"0x...\"";
        problems.note(span, format!("{}: \"robot\" {what}", table.title));
    }
    Some(text)
}

fn speaks(table: &mut Reader<'_>, problems: &mut Problems, protocol: Option<TunnelProtocol>) -> Speaks {
    let (speaks_span, bus_span, cyclic_span) =
        (table.span_of("speaks"), table.span_of("bus"), table.span_of("cyclic"));
    let bus = table.text(problems, "bus").map(|(_, bus)| bus);
    let has_cyclic = table.places().iter().any(|(key, _)| key == "cyclic");
    let cyclic = [("refuse", Cyclic::Refused), ("allow", Cyclic::Allowed)];
    let cyclic = choice(table, problems, "cyclic", &cyclic, Cyclic::Refused);
    let words = [("plain", 0), ("socketcand", 1), ("cannelloni", 2)];
    let kind = choice(table, problems, "speaks", &words, 0);
    if kind != 1 {
        for (key, span, given) in [("bus", bus_span, bus.is_some()), ("cyclic", cyclic_span, has_cyclic)] {
            if given {
                let what = format!("\"{key}\" means something only with speaks = \"socketcand\"");
                problems.note(span, format!("{}: {what}", table.title));
            }
        }
    }
    match (kind, protocol) {
        (1, Some(TunnelProtocol::Udp)) => {
            let what = "socketcand is spoken over TCP; give protocol = \"tcp\"";
            problems.note(speaks_span, format!("{}: {what}", table.title));
            Speaks::Plain
        }
        (1, _) => Speaks::Socketcand { bus, cyclic },
        (2, _) => Speaks::Cannelloni,
        _ => Speaks::Plain,
    }
}

fn behind(table: &mut Reader<'_>, problems: &mut Problems, motors: &[String]) -> Vec<usize> {
    let mut places = Vec::new();
    for (span, motor) in table.texts(problems, "motors").unwrap_or_default() {
        let what = match motors.iter().position(|known| *known == motor) {
            None => format!("is not configured; known motors: {}", motors.join(", ")),
            Some(place) if places.contains(&place) => "is named twice".to_owned(),
            Some(place) => {
                places.push(place);
                continue;
            }
        };
        problems.note(span, format!("{}: motor \"{motor}\" {what}", table.title));
    }
    places
}

/// Identifiers as `candump` prints them: three digits, or eight for one of the extended form.
fn also(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    motors: &[usize],
    speaks: &Speaks,
) -> Vec<ArbitrationId> {
    let span = table.span_of("also");
    let Some(given) = table.texts(problems, "also") else { return Vec::new() };
    if motors.is_empty() || *speaks == Speaks::Plain {
        let what = "means something only with \"motors\" and speaks = \"socketcand\" or \"cannelloni\": elsewhere frames \
                    are not told apart";
        problems.note(span, format!("{}: \"also\" {what}", table.title));
    }
    let mut ids = Vec::new();
    for (span, text) in given {
        match identifier(&text) {
            Some(id) => ids.push(id),
            None => {
                let what = format!(
                    "must be identifiers of three digits up to 7FF, or of eight up to 1FFFFFFF, like \"7A0\", not \"{text}\""
                );
                problems.note(span, format!("{}: \"also\" {what}", table.title));
            }
        }
    }
    ids
}

fn identifier(text: &str) -> Option<ArbitrationId> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u32::from_str_radix(text, 16).ok().filter(|_| digits)?;
    let id = match text.len() {
        3 => ArbitrationId::standard(u16::try_from(number).ok()?),
        8 => ArbitrationId::extended(number),
        _ => return None,
    };
    // One that does not fit loses its upper bits.
    (id.to_string() == text.to_ascii_uppercase()).then_some(id)
}

/// What a link to a target with motors must keep to.
struct Supervision {
    window: Duration,
    beat: BeatOf,
    min_rate: Option<u32>,
    rules: ResourceRules,
    after_expiry: AfterExpiry,
}

fn supervision(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    motors: &[usize],
    speaks: &Speaks,
) -> Supervision {
    const FOR_MOTORS: [&str; 5] = ["window", "require_progress", "beat", "min_rate", "after_expiry"];
    let given: Vec<(String, Span)> =
        table.places().into_iter().filter(|(key, _)| FOR_MOTORS.contains(&key.as_str())).collect();
    if motors.is_empty() {
        for (key, span) in &given {
            let what =
                format!("\"{key}\" means something only with \"motors\": nothing is supervised without them");
            problems.note(span.clone(), format!("{}: {what}", table.title));
        }
    } else if !given.iter().any(|(key, _)| key == "window") {
        let what = "\"window\" is missing; give how long its client may be silent before the motors are stopped, \
                    like \"300ms\"";
        problems.note(table.span(), format!("{}: {what}", table.title));
    }
    let windows = SHORTEST_WINDOW..=LONGEST_WINDOW;
    let window = table.duration(problems, "window", windows.clone(), SHORTEST_WINDOW);
    let progress = table.duration_if_given(problems, "require_progress", windows);
    let is_given = |wanted: &str| given.iter().any(|(key, _)| key == wanted);
    let beat = beat(table, problems, speaks, !motors.is_empty() && !is_given("beat"));
    // More than a thousand reads a second is no sign of life but a stream.
    let min_rate = table.integer(problems, "min_rate", 1..=1_000).and_then(|rate| u32::try_from(rate).ok());
    let after = [("close", AfterExpiry::Close), ("wait", AfterExpiry::Wait)];
    let after_expiry = choice(table, problems, "after_expiry", &after, AfterExpiry::Close);
    Supervision { window, beat, min_rate, rules: ResourceRules { window: None, progress }, after_expiry }
}

/// What shows that a client lives. `is_missing`: it would matter, and is not given.
fn beat(table: &mut Reader<'_>, problems: &mut Problems, speaks: &Speaks, is_missing: bool) -> BeatOf {
    let span = table.span_of("beat");
    let beats = [("motion", BeatOf::Motion), ("commands", BeatOf::Commands), ("bytes", BeatOf::Bytes)];
    if *speaks != Speaks::Plain {
        return choice(table, problems, "beat", &beats, BeatOf::Motion);
    }
    let beat = choice(table, problems, "beat", &beats, BeatOf::Bytes);
    let what = if is_missing {
        "\"beat\" is missing: of \"plain\" bytes it is not known what drives the motors, and any keep them moving; give \
         beat = \"bytes\" if that is meant, or \"speaks\""
    } else if beat != BeatOf::Bytes {
        "what drives or commands motors is known only of \"socketcand\" and \"cannelloni\" (\"speaks\"); give beat = \
         \"bytes\""
    } else {
        return beat;
    };
    let span = if is_missing { table.span() } else { span };
    problems.note(span, format!("{}: {what}", table.title));
    beat
}

/// What only a target of UDP has.
struct Datagrams {
    relock: Option<Duration>,
    source: Option<SocketAddr>,
}

fn datagrams(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    protocol: Option<TunnelProtocol>,
    target: Option<&HostPort>,
) -> Datagrams {
    for (key, span) in table.places() {
        if ["relock", "source"].contains(&key.as_str()) && protocol == Some(TunnelProtocol::Tcp) {
            let what = format!("\"{key}\" means something only with protocol = \"udp\"");
            problems.note(span, format!("{}: {what}", table.title));
        }
    }
    let relock = table.duration_if_given(problems, "relock", SHORTEST_WINDOW..=Duration::from_hours(1));
    let source_span = table.span_of("source");
    let source = address(table, problems, "source", 0);
    let to = target.and_then(|target| target.host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    if let Some((source, to)) = source.zip(to).filter(|(source, to)| source.is_ipv4() != to.is_ipv4()) {
        let what = format!("\"source\" = \"{source}\" and the target's address {to} are of two kinds of IP");
        problems.note(source_span, format!("{}: {what}", table.title));
    }
    Datagrams { relock, source }
}
