//! From text to a checked [`Config`]: the keys, their defaults, and what must fit together.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drivers::registry::{self, Common, Family};
use drivers::{AfterStop, RevolutionsPerSecond};
use shm_proto::Capacity;
use shm_proto::verdicts::{MOST_BUSES, NAME_BYTES, ResetPolicy};
use toml::de::DeTable;

use crate::access;
use crate::ids::{self, Ids};
use crate::kortex;
use crate::origins;
use crate::reader::{Problems, Reader, Span};
use crate::sessions::{self, RESOURCE_KEYS};
use crate::tunnel;
use crate::upstream;
use crate::windows;
use crate::{
    Base, Broadcasts, Bus, BusFormat, Commanders, Config, ConfigError, Direction, Drives, Front,
    HardwareWatchdog, LONGEST_WINDOW, Motor, Overspeed, SHORTEST_WINDOW, Supervisor, estop_beside,
    front_socket_beside, operator_socket_beside,
};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Checks a whole file.
pub fn config(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        ConfigError::at_spans(path, text, vec![(span, error.message().to_owned())])
    })?;
    let mut problems = Problems::default();
    let mut root = Reader::new(table.get_ref(), 0..0, "the file");

    let supervisor = supervisor(&mut root, &mut problems);
    let front = front(&mut root, &mut problems, supervisor.capacity);
    let buses = buses(&mut root, &mut problems);
    let Motors { mut motors, spans, windows, names } = motors(&mut root, &mut problems, &buses, &supervisor);
    let mut bases = bases(&mut root, &mut problems, &names);
    let upstream = upstream::upstream(&mut root, &mut problems, &names, front.listen);
    if let Some((upstream, span)) = &upstream {
        upstream::bases_are_apart(&mut problems, upstream, span, &bases, &names);
    }
    let mut upstream = upstream.map(|(upstream, _)| upstream);
    let is_native = |motor| upstream.as_ref().is_none_or(|upstream| !upstream.drives(motor));
    let mut kortex = kortex::kortex(&mut root, &mut problems, &names, &bases, is_native, front.listen);
    let taken: Vec<_> = [front.listen]
        .into_iter()
        .chain(kortex.iter().flat_map(|kortex| [kortex.tcp, kortex.mqtt]).flatten())
        .collect();
    let mut tunnel = tunnel::tunnel(&mut root, &mut problems, &names, &taken);
    if problems.0.is_empty() {
        if let Some(tunnel) = &mut tunnel {
            tunnel::find_buses(&mut problems, tunnel, &motors, &buses);
        }
        let behind = upstream.iter().flat_map(|upstream| &upstream.resources);
        let together: Vec<Vec<usize>> = bases
            .iter()
            .map(|base| [&base.left[..], &base.right].concat())
            .chain(behind.map(|resource| resource.motors.clone()))
            .chain(kortex.iter().map(|kortex| kortex.joints.iter().map(|joint| joint.motor).collect()))
            .collect();
        ids::joint_frames_are_whole(&mut problems, &motors, &spans, &together);
        ids::commands_are_apart(&mut problems, &motors, &spans);
        let drivers = windows::Drivers {
            front: &front,
            bases: &mut bases,
            upstream: upstream.as_mut(),
            kortex: kortex.as_mut(),
            tunnel: tunnel.as_mut().map(|(tunnel, _)| tunnel),
        };
        windows::settle(&mut motors, &windows, drivers);
    }
    root.finish(
        &mut problems,
        &["supervisor", "front", "bus", "motor", "base", "upstream", "kortex", "tunnel"],
    );

    if problems.0.is_empty() {
        let path = path.to_owned();
        Ok(Config {
            path,
            hash: hash(text),
            supervisor,
            front,
            buses,
            motors,
            bases,
            upstream,
            kortex,
            tunnel: tunnel.map(|(tunnel, _)| tunnel),
        })
    } else {
        Err(ConfigError::at_spans(path, text, problems.0))
    }
}

/// FNV-1a: only tells equal files from different ones, nobody gains by forging it.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn empty<'a>(title: &str) -> Reader<'a> {
    static NOTHING: std::sync::OnceLock<DeTable<'static>> = std::sync::OnceLock::new();
    Reader::new(NOTHING.get_or_init(DeTable::default), 0..0, title)
}

fn supervisor(root: &mut Reader<'_>, problems: &mut Problems) -> Supervisor {
    let title = "[supervisor]";
    let mut table = root.table(problems, "supervisor", title).unwrap_or_else(|| empty(title));
    let at_socket = table.span_of("socket");
    let socket = table
        .text(problems, "socket")
        .map_or_else(|| PathBuf::from("/run/lanyard/supervisor.sock"), |(_, text)| PathBuf::from(text));
    let mut taken = vec![("socket", socket.clone())];
    let mut path = |table: &mut Reader<'_>, problems: &mut Problems, key, default: PathBuf| {
        path_of_its_own(table, problems, (key, default, at_socket.clone()), &mut taken)
    };
    let front_socket = path(&mut table, problems, "front_socket", front_socket_beside(&socket));
    let operator_socket = path(&mut table, problems, "operator_socket", operator_socket_beside(&socket));
    let estop = path(&mut table, problems, "estop", estop_beside(&socket));
    let mut group =
        |key, default: &str| table.text(problems, key).map_or_else(|| default.to_owned(), |(_, text)| text);
    let front_group = group("front_group", "lanyard-front");
    let operator_group = group("operator_group", "lanyard-operators");
    let estop_group = group("estop_group", "lanyard-estop");
    let state = table
        .text(problems, "state")
        .map_or_else(|| PathBuf::from("/var/lib/lanyard"), |(_, text)| PathBuf::from(text));
    let cpu = table.integer(problems, "cpu", 0..=1023).and_then(|cpu| usize::try_from(cpu).ok());
    // Above common interrupt threads (50), below the kernel's own watchdog threads (99).
    let priority = table.integer(problems, "priority", 1..=98).unwrap_or(80);
    let tick = table.duration(problems, "tick", millis(1)..=millis(20), millis(5));
    let front_window = table.duration(problems, "front_window", SHORTEST_WINDOW..=millis(5_000), millis(250));
    let stop_repeat = table.duration(problems, "stop_repeat", millis(1)..=millis(200), millis(20));
    let stage_timeout = table.duration(problems, "stage_timeout", millis(20)..=millis(10_000), millis(500));
    // Four default ticks: above what a loaded computer without PREEMPT_RT usually shows, below the
    // kernel's own patience.
    let at_lateness = table.span_of_first(["max_lateness", "kernel_stop"]);
    let max_lateness = table.duration(problems, "max_lateness", millis(5)..=millis(1_000), millis(20));
    // Ten default ticks; what the design promises for a supervisor that hangs. Never less than four ticks: the
    // stop is put off once in each, and three may be late.
    let kernel_stop = table.duration(
        problems,
        "kernel_stop",
        millis(20).max(tick * 4)..=millis(1_000),
        millis(50).max(tick * 4),
    );
    let watchdog = hardware_watchdog(&mut table, problems);
    if max_lateness >= kernel_stop {
        let what = format!(
            "({} ms) must be shorter than \"kernel_stop\" ({} ms): else the kernel stops the motors of a loop that is late, \
             and they are driven on afterwards as if nothing had been",
            max_lateness.as_millis(),
            kernel_stop.as_millis()
        );
        table.wrong(problems, at_lateness, "max_lateness", &what);
    }
    let user = table.text(problems, "user").map_or_else(|| "lanyard".to_owned(), |(_, text)| text);
    let reset = match table.text(problems, "reset") {
        None => ResetPolicy::Manual,
        Some((_, text)) if text == "manual" => ResetPolicy::Manual,
        Some((_, text)) if text == "neutral" => ResetPolicy::Neutral,
        Some((_, text)) if text == "auto" => ResetPolicy::Auto,
        Some((span, text)) => {
            let allowed = "\"manual\" (`lanyard reset` must come first), \"neutral\" (a Stop must) or \"auto\" \
                           (nothing must)";
            problems.note(span, format!("{title}: \"reset\" must be {allowed}, not \"{text}\""));
            ResetPolicy::Manual
        }
    };
    let mut size = |key, most: u16, default: u16| {
        table
            .integer(problems, key, 1..=i64::from(most))
            .and_then(|number| u16::try_from(number).ok())
            .unwrap_or(default)
    };
    let sessions = size("max_sessions", Capacity::MOST_SESSIONS, Capacity::DEFAULT.sessions());
    let motors = size("max_motors", Capacity::MOST_MOTORS, Capacity::DEFAULT.motors());
    table.finish(
        problems,
        &[
            "socket",
            "front_socket",
            "front_group",
            "operator_socket",
            "operator_group",
            "estop",
            "estop_group",
            "state",
            "cpu",
            "priority",
            "tick",
            "front_window",
            "stop_repeat",
            "stage_timeout",
            "max_lateness",
            "kernel_stop",
            "watchdog",
            "watchdog_timeout",
            "user",
            "reset",
            "max_sessions",
            "max_motors",
        ],
    );
    Supervisor {
        socket,
        front_socket,
        front_group,
        operator_socket,
        operator_group,
        estop,
        estop_group,
        state,
        cpu,
        priority: u8::try_from(priority).unwrap_or(80),
        tick,
        front_window,
        stop_repeat,
        stage_timeout,
        max_lateness,
        kernel_stop,
        watchdog,
        user,
        reset,
        capacity: Capacity::new(sessions, motors).unwrap_or(Capacity::DEFAULT),
    }
}

/// A path that no other key of the section leads to: one of two files there would have to replace the other. Its default
/// follows from "socket", so a default that is taken is a mistake there.
fn path_of_its_own(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    (key, default, at_socket): (&'static str, PathBuf, Span),
    taken: &mut Vec<(&'static str, PathBuf)>,
) -> PathBuf {
    let given = table.text(problems, key);
    let span = given.as_ref().map_or(at_socket, |(span, _)| span.clone());
    let path = given.map_or(default, |(_, text)| PathBuf::from(text));
    if let Some((other, _)) = taken.iter().find(|(_, used)| *used == path) {
        table.wrong(problems, span, key, &format!("must be another path than \"{other}\""));
    }
    taken.push((key, path.clone()));
    path
}

/// Devices count whole seconds. Two leave room for a housekeeping thread that a busy machine keeps waiting; nobody waits
/// for a minute beside a machine that hangs.
fn hardware_watchdog(table: &mut Reader<'_>, problems: &mut Problems) -> Option<HardwareWatchdog> {
    const RANGE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(60);
    let device = table.text(problems, "watchdog");
    let span = table.span_of("watchdog_timeout");
    let timeout = table.duration_if_given(problems, "watchdog_timeout", RANGE);
    if timeout.is_some_and(|timeout| timeout.subsec_nanos() != 0) {
        table.wrong(
            problems,
            span.clone(),
            "watchdog_timeout",
            "must be whole seconds: the devices count no others",
        );
    }
    match device {
        None => {
            if timeout.is_some() {
                table.wrong(
                    problems,
                    span,
                    "watchdog_timeout",
                    "means nothing without \"watchdog\", the device",
                );
            }
            None
        }
        Some((span, text)) => {
            let device = PathBuf::from(text);
            if !device.is_absolute() {
                table.wrong(
                    problems,
                    span,
                    "watchdog",
                    "must be the path of a device like \"/dev/watchdog0\"",
                );
            }
            Some(HardwareWatchdog { device, timeout: timeout.unwrap_or(Duration::from_secs(10)) })
        }
    }
}

fn front(root: &mut Reader<'_>, problems: &mut Problems, capacity: Capacity) -> Front {
    let title = "[front]";
    let mut table = root.table(problems, "front", title).unwrap_or_else(|| empty(title));
    let listen_default = ([127, 0, 0, 1], 8080).into();
    let listen = match table.text(problems, "listen") {
        None => listen_default,
        Some((span, text)) => text.parse().unwrap_or_else(|_| {
            let what = format!("must be an address with a port like \"127.0.0.1:8080\", not \"{text}\"");
            problems.note(span, format!("{title}: \"listen\" {what}"));
            listen_default
        }),
    };
    let window = SHORTEST_WINDOW..=LONGEST_WINDOW;
    let heartbeat_window = table.duration(problems, "heartbeat_window", window, millis(2_000));
    let refresh = table.duration(problems, "refresh", millis(5)..=millis(500), millis(20));
    let grant_timeout = table.duration(problems, "grant_timeout", millis(10)..=millis(5_000), millis(500));
    let enable_timeout =
        table.duration(problems, "enable_timeout", millis(50)..=millis(30_000), millis(3_000));
    let stop_hold = table.duration(problems, "stop_hold", millis(20)..=millis(2_000), millis(250));
    let max_connections = table.integer(problems, "max_connections", 1..=65_535).unwrap_or(1_024);
    let sessions = sessions::rules_of(&mut table, problems, capacity.sessions());
    let access = access::access(&mut table, problems);
    let origins = origins::origins(&mut table, problems);
    let own = [
        "listen",
        "heartbeat_window",
        "refresh",
        "grant_timeout",
        "enable_timeout",
        "stop_hold",
        "max_connections",
    ];
    table.finish(problems, &[&own[..], &sessions::FRONT_KEYS, &access::KEYS, &[origins::KEY]].concat());
    Front {
        listen,
        heartbeat_window,
        refresh,
        grant_timeout,
        enable_timeout,
        stop_hold,
        max_connections: usize::try_from(max_connections).unwrap_or(1_024),
        sessions,
        access,
        origins,
    }
}

/// Takes the name of a bus, motor or base, and refuses one that is used twice.
fn name(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    kind: &str,
    taken: &mut HashMap<String, Span>,
) -> String {
    let (span, name) = table.required_text(problems, "name", "the name of this part of the robot");
    if name.is_empty() {
        return name;
    }
    table.title = format!("{kind} \"{name}\"");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.len() > NAME_BYTES || !name.chars().all(plain) {
        let what =
            format!("may have up to {NAME_BYTES} letters, digits, dots, dashes and underscores, no others");
        problems.note(span.clone(), format!("{}: \"name\" {what}", table.title));
    }
    if taken.insert(name.clone(), span.clone()).is_some() {
        problems.note(span, format!("{}: the name is used twice; names must differ", table.title));
    }
    name
}

fn buses(root: &mut Reader<'_>, problems: &mut Problems) -> Vec<Bus> {
    let mut taken = HashMap::new();
    let mut interfaces: HashMap<String, String> = HashMap::new();
    let mut buses = Vec::new();
    for mut table in root.tables(problems, "bus") {
        let name = name(&mut table, problems, "bus", &mut taken);
        let (span, interface) =
            table.text(problems, "interface").unwrap_or_else(|| (table.span_of("name"), name.clone()));
        // IFNAMSIZ is 16 with its terminating zero.
        if interface.len() > 15 || interface.contains(['/', ' ']) {
            let what = format!("cannot be \"{interface}\": interface names have up to 15 characters");
            problems.note(span.clone(), format!("{}: \"interface\" {what}", table.title));
        }
        if let Some(other) = interfaces.insert(interface.clone(), name.clone()) {
            let what = format!("\"{interface}\" is already bus \"{other}\"");
            problems.note(span, format!("{}: \"interface\" {what}", table.title));
        }
        let format =
            if table.flag(problems, "fd") == Some(true) { BusFormat::Fd } else { BusFormat::Classic };
        let broadcasts = match table.flag(problems, "broadcast_stop") {
            Some(false) => Broadcasts::Forbidden,
            Some(true) | None => Broadcasts::Allowed,
        };
        let drives = match table.flag(problems, "local_drives") {
            Some(true) => Drives::Local,
            Some(false) | None => Drives::OnTheWire,
        };
        table.finish(problems, &["name", "interface", "fd", "broadcast_stop", "local_drives"]);
        buses.push(Bus { name, interface, format, broadcasts, drives });
    }
    if buses.is_empty() {
        problems.note(root.span(), "no [[bus]] is configured; at least one is needed");
    }
    if buses.len() > MOST_BUSES {
        problems.note(root.span(), format!("{} buses are configured; at most {MOST_BUSES}", buses.len()));
    }
    buses
}

/// The keys of every `[[motor]]`; the others are its family's.
pub const MOTOR_KEYS: [&str; 17] = [
    "name",
    "bus",
    "second_bus",
    "driver",
    "after_stop",
    "vertical",
    "brake",
    "max_rpm",
    "standstill_rpm",
    "reversed",
    "stage_timeout",
    "overspeed_margin",
    "overspeed_time",
    "other_masters",
    "max_window",
    "window",
    "require_progress",
];

/// What the `[[motor]]` tables hold.
struct Motors {
    /// Those without a mistake.
    motors: Vec<Motor>,
    /// Where they stand.
    spans: Vec<Span>,
    /// `max_window` of each, as the configuration gives it.
    windows: Vec<Option<Duration>>,
    /// The names of all: when there is no mistake at all, in the order of `motors`.
    names: Vec<String>,
}

fn motors(root: &mut Reader<'_>, problems: &mut Problems, buses: &[Bus], supervisor: &Supervisor) -> Motors {
    let mut names = Vec::new();
    let mut taken = HashMap::new();
    let mut ids = Ids::default();
    let mut motors: Vec<Motor> = Vec::new();
    let (mut spans, mut windows) = (Vec::new(), Vec::new());
    let mut tables = root.tables(problems, "motor");
    for table in &mut tables {
        let name = name(table, problems, "motor", &mut taken);
        names.push(name.clone());
        let window = table.duration_if_given(problems, "max_window", SHORTEST_WINDOW..=LONGEST_WINDOW);
        if let Some(motor) = motor(table, problems, name, buses, supervisor, &mut ids) {
            spans.push(table.span());
            windows.push(window);
            motors.push(motor);
        }
    }
    ids::heartbeats_are_free(problems, &motors, &spans, buses);
    if tables.is_empty() {
        problems.note(root.span(), "no [[motor]] is configured; without one there is nothing to stop");
    }
    let room = usize::from(supervisor.capacity.motors());
    if let Some(first_too_many) = tables.get(room) {
        let text = format!(
            "{} motors are configured, there is room for {room}; raise max_motors in [supervisor] (up to {})",
            tables.len(),
            Capacity::MOST_MOTORS
        );
        problems.note(first_too_many.span(), text);
    }
    Motors { motors, spans, windows, names }
}

/// One `[[motor]]`; `None` when a mistake in it keeps its drive from being built.
fn motor(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    name: String,
    buses: &[Bus],
    supervisor: &Supervisor,
    ids: &mut Ids,
) -> Option<Motor> {
    let places = table.places();
    let bus = bus_of(table, problems, buses);
    let second_bus = second_bus_of(table, problems, buses, bus);
    let family = family_of(table, problems);
    let after = after_stop(table, problems);
    let max_rpm = table.required_number(problems, "max_rpm", 0.01..=200_000.0);
    let standstill =
        table.number(problems, "standstill_rpm", 0.001..=1_000.0).map(RevolutionsPerSecond::from_rpm);
    let direction = match table.flag(problems, "reversed") {
        Some(true) => Direction::Reversed,
        Some(false) | None => Direction::Forward,
    };
    let stage_timeout =
        table.duration(problems, "stage_timeout", millis(20)..=millis(10_000), supervisor.stage_timeout);
    let overspeed = Overspeed {
        // Room for a speed controller that overshoots.
        margin: table.number(problems, "overspeed_margin", 0.0..=10.0).unwrap_or(0.1),
        // Longer than an overshoot lasts, a fifth of what an encoder may be silent.
        time: table.duration(problems, "overspeed_time", millis(0)..=millis(5_000), millis(100)),
    };
    let other_masters = table
        .flag(problems, "other_masters")
        .map(|may_be| if may_be { Commanders::Anywhere } else { Commanders::Here });
    let rules = sessions::rules_of_resource(table, problems);
    let span = table.span();
    let family = family?;
    let keys = family.key_names();
    let own = table.places().into_iter().filter(|(key, _)| !keys.contains(&key.as_str()));
    let unknown: Vec<(String, Span)> = own.collect();
    for (key, span) in &unknown {
        let known = [&MOTOR_KEYS[..], &keys].concat().join(", ");
        let what = format!("unknown key \"{key}\"; known keys: {known}");
        problems.note(span.clone(), format!("{} ({}): {what}", table.title, family.name));
    }
    let before = problems.0.len();
    let settings = table.rest(problems);
    if !unknown.is_empty() || problems.0.len() > before {
        return None;
    }
    let common = Common { after, standstill, max_speed: RevolutionsPerSecond::from_rpm(max_rpm) };
    let mut drive = match registry::build(family, &settings, &common) {
        Ok(drive) => drive,
        Err(error) => {
            let place = places.iter().find(|(key, _)| *key == error.key);
            let span = place.map_or(span, |(_, span)| span.clone());
            problems.note(span, format!("{} ({}): {error}", table.title, family.name));
            return None;
        }
    };
    let reached = || bus.into_iter().chain(second_bus);
    for bus in reached() {
        let Bus { name: bus_name, format, .. } = &buses[bus];
        if drive.format == drivers::Format::FdBrs && *format != BusFormat::Fd {
            let what =
                format!("driver \"{}\" needs CAN FD; set fd = true on bus \"{bus_name}\"", family.name);
            problems.note(span.clone(), format!("{}: {what}", table.title));
        }
        if let Err(what) = ids.take(bus, bus_name, &name, &drive) {
            problems.note(span.clone(), format!("{}: {what}", table.title));
        }
    }
    drive.broadcast = ids::without_broadcast(drive.broadcast, reached(), buses);
    let driver = family.name;
    let bus = bus?;
    Some(Motor {
        name,
        bus,
        second_bus,
        driver,
        drive,
        direction,
        max_rpm,
        stage_timeout,
        overspeed,
        other_masters,
        // Settled when all that drives it is known.
        max_window: LONGEST_WINDOW,
        rules,
    })
}

fn family_of(table: &mut Reader<'_>, problems: &mut Problems) -> Option<&'static Family> {
    let (span, driver) = table.required_text(problems, "driver", "the drive family");
    let family = registry::family(&driver);
    if family.is_none() && !driver.is_empty() {
        let known: Vec<&str> = registry::FAMILIES.iter().map(|family| family.name).collect();
        let what = format!("driver \"{driver}\" is not known; known drivers: {}", known.join(", "));
        problems.note(span, format!("{}: {what}", table.title));
    }
    family
}

/// Another bus that reaches the same drive.
fn second_bus_of(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    buses: &[Bus],
    first: Option<usize>,
) -> Option<usize> {
    let (span, wanted) = table.text(problems, "second_bus")?;
    let found = buses.iter().position(|bus| bus.name == wanted);
    if found.is_none() {
        let known: Vec<&str> = buses.iter().map(|bus| bus.name.as_str()).collect();
        let what = format!("second_bus \"{wanted}\" is not configured; known buses: {}", known.join(", "));
        problems.note(span, format!("{}: {what}", table.title));
    } else if found == first {
        let what = format!("second_bus \"{wanted}\" is its first one; name another, or leave the key out");
        problems.note(span, format!("{}: {what}", table.title));
        return None;
    }
    found
}

fn bus_of(table: &mut Reader<'_>, problems: &mut Problems, buses: &[Bus]) -> Option<usize> {
    let (span, wanted) = table.required_text(problems, "bus", "the name of a [[bus]]");
    let found = buses.iter().position(|bus| bus.name == wanted);
    if found.is_none() && !wanted.is_empty() {
        let known: Vec<&str> = buses.iter().map(|bus| bus.name.as_str()).collect();
        let what = format!("bus \"{wanted}\" is not configured; known buses: {}", known.join(", "));
        problems.note(span, format!("{}: {what}", table.title));
    }
    found
}

fn after_stop(table: &mut Reader<'_>, problems: &mut Problems) -> AfterStop {
    let wanted = "\"hold\" (keeps torque at standstill) or \"release\" (torque off at standstill; \
                  an arm without a brake falls)";
    let vertical = table.flag(problems, "vertical") == Some(true);
    let brake = table.flag(problems, "brake") == Some(true);
    let (span, text) = table.required_text(problems, "after_stop", wanted);
    if vertical && !brake && text == "release" {
        let what = "a vertical axis that is released falls; use after_stop = \"hold\", or say brake = true if a \
                    brake that closes without power holds it";
        problems.note(span.clone(), format!("{}: {what}", table.title));
    }
    match text.as_str() {
        "hold" => AfterStop::Hold,
        "release" => AfterStop::Release,
        "" => AfterStop::Hold,
        other => {
            let what = format!("\"after_stop\" must be {wanted}, not \"{other}\"");
            problems.note(span, format!("{}: {what}", table.title));
            AfterStop::Hold
        }
    }
}

fn bases(root: &mut Reader<'_>, problems: &mut Problems, motors: &[String]) -> Vec<Base> {
    let mut taken = HashMap::new();
    let mut used: HashMap<usize, String> = HashMap::new();
    let mut bases = Vec::new();
    for mut table in root.tables(problems, "base") {
        let name = name(&mut table, problems, "base", &mut taken);
        let mut side = |key: &str| {
            let title = table.title.clone();
            let span = table.span_of("name");
            let wanted = table.texts(problems, key).unwrap_or_default();
            if wanted.is_empty() {
                problems.note(span, format!("{title}: \"{key}\" must name at least one motor"));
            }
            let mut side = Vec::new();
            for (span, motor) in wanted {
                let Some(index) = motors.iter().position(|known| *known == motor) else {
                    let what =
                        format!("motor \"{motor}\" is not configured; known motors: {}", motors.join(", "));
                    problems.note(span, format!("{title}: {what}"));
                    continue;
                };
                if let Some(other) = used.insert(index, name.clone()) {
                    let what = format!("motor \"{motor}\" already belongs to base \"{other}\"");
                    problems.note(span, format!("{title}: {what}"));
                }
                side.push(index);
            }
            side
        };
        let left = side("left");
        let right = side("right");
        let wheel_circumference_mm =
            table.required_number(problems, "wheel_circumference_mm", 1.0..=10_000.0);
        let width_mm = table.required_number(problems, "width_mm", 1.0..=10_000.0);
        let rules = sessions::rules_of_resource(&mut table, problems);
        let own = ["name", "left", "right", "wheel_circumference_mm", "width_mm"];
        table.finish(problems, &[&own[..], &RESOURCE_KEYS].concat());
        bases.push(Base { name, left, right, wheel_circumference_mm, width_mm, rules });
    }
    bases
}
