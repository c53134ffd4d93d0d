//! `[tunnel]`: what it says, and every mistake in it at its line.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use drivers::ArbitrationId;
use lanyard_config::{
    AfterExpiry, BeatOf, Config, Cyclic, Danger, Exposure, Logins, Service, Speaks, Tunnel, TunnelClients,
    TunnelProtocol,
};

const GOOD: &str = include_str!("good.toml");
const TARGET: &str = "[[tunnel.target]]\nname = \"can\"\nprotocol = \"tcp\"\naddress = \"127.0.0.1:29536\"\n";
const FRAMES: &str =
    "[[tunnel.target]]\nname = \"frames\"\nprotocol = \"udp\"\naddress = \"127.0.0.1:20000\"\n";

/// The good file with this in `[front]`, and this behind it.
fn with_front(front: &str, section: &str) -> Result<Config, String> {
    let before = GOOD.replacen("[front]\n", &format!("[front]\n{front}"), 1) + "\n";
    let text = format!("{before}{section}");
    Config::parse(Path::new("robot.toml"), &text).map_err(|error| {
        // Lines count from the section on.
        let first = before.lines().count();
        let line = |text: &str| {
            let (number, text) = text.strip_prefix("robot.toml:").unwrap().split_once(": ").unwrap();
            format!("{}: {text}\n", number.parse::<usize>().unwrap() - first)
        };
        error.to_string().lines().map(line).collect()
    })
}

fn parse(section: &str) -> Result<Config, String> {
    with_front("", section)
}

fn tunnel(section: &str) -> Tunnel {
    parse(section).unwrap_or_else(|error| panic!("{section}: {error}")).tunnel.unwrap()
}

/// The one mistake in this, with its line.
fn assert_mistake(section: &str, line: usize, words: &[&str]) {
    let error = parse(section).expect_err(section);
    assert_eq!(error.lines().count(), 1, "{section}: {error}");
    assert!(error.starts_with(&format!("{line}: ")), "{section}: {error}");
    for word in words {
        assert!(error.contains(word), "{section}: {error:?} lacks {word:?}");
    }
}

#[test]
fn nothing_is_served_unless_it_is_said() {
    let config = parse("").unwrap();
    assert!(config.tunnel.is_none());
    assert!(config.ports().all(|port| port.service == Service::Grpc));
}

#[test]
fn one_target_is_enough() {
    let tunnel = tunnel(&format!("[tunnel]\n{TARGET}"));
    assert_eq!(tunnel.listen, ([127, 0, 0, 1], 3_001).into());
    assert_eq!(tunnel.default_listen_host, ([127, 0, 0, 1], 0).into());
    assert_eq!(tunnel.listen_hosts, ["127.0.0.1", "::1"].map(|host| host.parse::<IpAddr>().unwrap()));
    assert_eq!(
        (tunnel.ports, tunnel.clients, tunnel.exposure),
        (None, TunnelClients::Creator, Exposure::Refused)
    );
    assert_eq!((tunnel.max_listeners, tunnel.max_connections), (64, 256));
    let [target] = &tunnel.targets[..] else { panic!("{:?}", tunnel.targets) };
    assert_eq!((target.name.as_str(), target.protocol), ("can", TunnelProtocol::Tcp));
    assert_eq!((target.address.host.as_str(), target.address.port), ("127.0.0.1", 29_536));
    assert!(target.aliases.is_empty() && target.motors.is_empty() && !target.is_supervised());
    assert_eq!((target.service, &target.robot, &target.speaks), (None, &None, &Speaks::Plain));
    assert_eq!(
        (target.beat, target.min_rate, target.after_expiry),
        (BeatOf::Bytes, None, AfterExpiry::Close)
    );
    assert_eq!((target.relock, target.source), (None, None));
    assert_eq!(
        (target.connect_timeout, target.resource()),
        (Duration::from_secs(2), "tunnel/can".to_owned())
    );
}

#[test]
fn everything_is_read() {
    let tunnel = tunnel(&format!(
        "[tunnel]\nlisten = \"[::1]:4000\"\ndefault_listen_host = \"10.0.0.1:7000\"\nlisten_hosts = [\"10.0.0.1\", \"::1\"]\n\
         ports = \"1024-65535\"\nclients = \"anybody\"\nmax_listeners = 1000\nmax_connections = 10000\ninsecure = true\n\
         {TARGET}aliases = [\"localhost:29536\", \"can\"]\nservice = 4294967295\nrobot = \"0x1B4824\"\n\
         speaks = \"socketcand\"\nbus = \"can0\"\ncyclic = \"allow\"\nmotors = [\"joint\", \"lift\"]\nwindow = \"200ms\"\n\
         also = [\"7a0\", \"000007A0\"]\nbeat = \"commands\"\nmin_rate = 10\nrequire_progress = \"400ms\"\nafter_expiry = \"wait\"\n\
         connect_timeout = \"50ms\"\n\
         {FRAMES}speaks = \"cannelloni\"\nrelock = \"2s\"\nsource = \"0.0.0.0:20001\"\n"
    ));
    assert_eq!(tunnel.listen, "[::1]:4000".parse().unwrap());
    assert_eq!(tunnel.default_listen_host, ([10, 0, 0, 1], 7_000).into());
    assert_eq!(tunnel.listen_hosts, ["10.0.0.1", "::1"].map(|host| host.parse::<IpAddr>().unwrap()));
    assert_eq!((tunnel.ports, tunnel.clients), (Some(1_024..=65_535), TunnelClients::Anybody));
    assert_eq!((tunnel.max_listeners, tunnel.max_connections), (1_000, 10_000));
    assert_eq!(tunnel.exposure, Exposure::Insecure);
    let [can, frames] = &tunnel.targets[..] else { panic!("{:?}", tunnel.targets) };
    assert_eq!(can.aliases, ["localhost:29536", "can"]);
    assert_eq!((can.service, can.robot.as_deref()), (Some(u32::MAX), Some("0x1B4824")));
    assert_eq!(can.speaks, Speaks::Socketcand { bus: Some("can0".to_owned()), cyclic: Cyclic::Allowed });
    assert_eq!((can.motors.as_slice(), can.window), (&[1, 0][..], Duration::from_millis(200)));
    assert_eq!((can.beat, can.min_rate, can.after_expiry), (BeatOf::Commands, Some(10), AfterExpiry::Wait));
    assert_eq!((can.rules.window, can.rules.progress), (None, Some(Duration::from_millis(400))));
    assert_eq!(can.connect_timeout, Duration::from_millis(50));
    assert!(can.is_supervised());
    assert_eq!(can.also, [ArbitrationId::standard(0x7A0), ArbitrationId::extended(0x7A0)]);
    assert_eq!((can.motors_bus, frames.motors_bus), (Some(0), None));
    assert_eq!(frames.speaks, Speaks::Cannelloni);
    assert_eq!(
        (frames.relock, frames.source),
        (Some(Duration::from_secs(2)), Some(([0, 0, 0, 0], 20_001).into()))
    );
}

#[test]
fn every_mistake_of_the_table_is_found_at_its_line() {
    let section = |line: &str| format!("[tunnel]\n{line}\n{TARGET}");
    for (line, words) in [
        (
            "listen = \"localhost\"",
            &["\"listen\" must be an address like", "127.0.0.1:3001", "\"localhost\""][..],
        ),
        ("listen = \"127.0.0.1:65536\"", &["\"listen\" must be an address"]),
        ("listen = 3001", &["\"listen\" must be a text"]),
        ("listen = \"127.0.0.1:8080\"", &["\"listen\"", "127.0.0.1:8080", "another port"]),
        ("listen = \"0.0.0.0:8080\"", &["\"listen\"", "another port"]),
        ("default_listen_host = \"robot\"", &["\"default_listen_host\" must be an address"]),
        ("listen_hosts = [\"127.0.0.1\", \"robot\"]", &["\"listen_hosts\" must be addresses", "\"robot\""]),
        ("listen_hosts = [\"127.0.0.1:0\"]\ndefault_listen_host = \"127.0.0.1\"", &["\"listen_hosts\""]),
        ("ports = \"10100\"", &["\"ports\" must be a range like \"10100-10199\", from 1024 up", "\"10100\""]),
        ("ports = \"1023-2000\"", &["\"ports\" must be a range"]),
        ("ports = \"2000-1999\"", &["\"ports\" must be a range"]),
        ("ports = \"2000-65536\"", &["\"ports\" must be a range"]),
        ("clients = \"all\"", &["\"clients\"", "creator", "anybody", "\"all\""]),
        ("max_listeners = 0", &["\"max_listeners\"", "1", "1000"]),
        ("max_listeners = 1001", &["\"max_listeners\"", "1000"]),
        ("max_connections = 10001", &["\"max_connections\"", "10000"]),
        ("insecure = 1", &["\"insecure\""]),
        ("port = 3001", &["unknown key \"port\"", "known keys: listen, default_listen_host"]),
    ] {
        let error = parse(&section(line)).expect_err(line);
        let found = error
            .lines()
            .any(|error| error.starts_with("2: [tunnel]: ") && words.iter().all(|word| error.contains(word)));
        assert!(found, "{line}: {error}");
    }
    let lacks = "[tunnel]\nlisten_hosts = [\"::1\"]\n";
    assert_mistake(
        &format!("{lacks}{TARGET}"),
        1,
        &["\"listen_hosts\" has not \"127.0.0.1\"", "default_listen_host"],
    );
    assert_mistake("[tunnel]\nclients = \"anybody\"\n", 1, &["nothing can be reached", "[[tunnel.target]]"]);
    // An address that is named is one that listeners may have, unless that is said otherwise.
    let hosts = tunnel(&format!("[tunnel]\ndefault_listen_host = \"10.0.0.1\"\n{TARGET}")).listen_hosts;
    assert!(hosts.contains(&"10.0.0.1".parse().unwrap()), "{hosts:?}");
}

#[test]
fn every_mistake_of_a_target_is_found_at_its_line() {
    let of = |base: &str, line: &str| format!("[tunnel]\n{base}{line}\n");
    for (base, line, words) in [
        (TARGET, "name = \"x\"", &["duplicate key"][..]),
        (TARGET, "service = -1", &["target \"can\": \"service\"", "4294967295"]),
        (TARGET, "service = 4294967296", &["\"service\""]),
        (TARGET, "robot = \"my robot\"", &["\"robot\" must be a destination", "12D3Koo"]),
        (TARGET, "robot = \"\"", &["\"robot\""]),
        (TARGET, "speaks = \"modbus\"", &["\"speaks\"", "plain or socketcand or cannelloni", "\"modbus\""]),
        (FRAMES, "speaks = \"socketcand\"", &["socketcand is spoken over TCP", "protocol = \"tcp\""]),
        (TARGET, "bus = \"can0\"", &["\"bus\" means something only with speaks = \"socketcand\""]),
        (FRAMES, "cyclic = \"allow\"", &["\"cyclic\" means something only with speaks = \"socketcand\""]),
        (TARGET, "motors = [\"elbow\"]", &["motor \"elbow\" is not configured; known motors: lift, joint"]),
        (TARGET, "window = \"200ms\"", &["\"window\" means something only with \"motors\""]),
        (
            TARGET,
            "require_progress = \"200ms\"",
            &["\"require_progress\" means something only with \"motors\""],
        ),
        (TARGET, "beat = \"bytes\"", &["\"beat\" means something only with \"motors\""]),
        (TARGET, "min_rate = 10", &["\"min_rate\" means something only with \"motors\""]),
        (TARGET, "after_expiry = \"wait\"", &["\"after_expiry\" means something only with \"motors\""]),
        (TARGET, "also = [\"7A0\"]", &["\"also\" means something only with \"motors\"", "cannelloni"]),
        (TARGET, "relock = \"2s\"", &["\"relock\" means something only with protocol = \"udp\""]),
        (TARGET, "source = \"127.0.0.1\"", &["\"source\" means something only with protocol = \"udp\""]),
        (FRAMES, "relock = \"29ms\"", &["\"relock\"", "[30ms, 1h]"]),
        (FRAMES, "source = \"here\"", &["\"source\" must be an address"]),
        (FRAMES, "source = \"[::1]:1\"", &["\"source\" = \"[::1]:1\"", "127.0.0.1", "two kinds of IP"]),
        (TARGET, "connect_timeout = \"49ms\"", &["\"connect_timeout\"", "[50ms, 30s]"]),
        (
            TARGET,
            "host = \"x\"",
            &["target \"can\": unknown key \"host\"", "known keys: name, protocol, address"],
        ),
    ] {
        let section = of(base, line);
        let error = parse(&section).expect_err(line);
        let at = if words == ["duplicate key"] { None } else { Some("6: ") };
        let found = error.lines().any(|error| {
            at.is_none_or(|at| error.starts_with(at)) && words.iter().all(|word| error.contains(word))
        });
        assert!(found, "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
    }
    let watched = format!("{TARGET}motors = [\"lift\"]\nbeat = \"bytes\"\n");
    assert_mistake(&of(&watched, ""), 2, &["target \"can\": \"window\" is missing", "300ms"]);
    let watched = format!("{watched}window = \"200ms\"\n");
    for (line, words) in [
        ("window = \"29ms\"", &["\"window\"", "[30ms, 1m]"][..]),
        ("beat = \"commands\"", &["known only of \"socketcand\" and \"cannelloni\"", "beat = \"bytes\""]),
        ("beat = \"motion\"", &["known only of \"socketcand\" and \"cannelloni\"", "beat = \"bytes\""]),
        ("beat = \"frames\"", &["\"beat\"", "motion or commands or bytes"]),
        ("also = [\"7A0\"]", &["\"also\" means something only with", "speaks"]),
        ("min_rate = 0", &["\"min_rate\"", "1000"]),
        ("min_rate = 1001", &["\"min_rate\"", "1000"]),
        ("after_expiry = \"open\"", &["\"after_expiry\"", "close or wait"]),
        ("require_progress = \"2m\"", &["\"require_progress\"", "[30ms, 1m]"]),
    ] {
        let mut base = watched.clone();
        for (key, given) in [("window", "window = \"200ms\"\n"), ("beat", "beat = \"bytes\"\n")] {
            if line.starts_with(key) {
                base = base.replace(given, "");
            }
        }
        let number = 2 + base.lines().count();
        assert_mistake(&of(&base, line), number, words);
    }
    assert_mistake(
        &of(TARGET, "motors = [\"lift\", \"lift\"]\nwindow = \"1s\"\nbeat = \"bytes\""),
        6,
        &["\"lift\" is named twice"],
    );
}

#[test]
fn what_a_target_needs_is_asked_for() {
    let whole = format!("[tunnel]\n{TARGET}");
    for (lost, words) in [
        ("name = \"can\"\n", &["\"name\" is missing"][..]),
        ("protocol = \"tcp\"\n", &["target \"can\": \"protocol\" is missing", "\"tcp\" or \"udp\""]),
        ("address = \"127.0.0.1:29536\"\n", &["target \"can\": \"address\" is missing", "127.0.0.1:29536"]),
    ] {
        assert_mistake(&whole.replace(lost, ""), 2, words);
    }
    for protocol in ["sctp", "TCP"] {
        let words = format!("\"protocol\" must be tcp or udp, not \"{protocol}\"");
        assert_mistake(&whole.replace("\"tcp\"", &format!("\"{protocol}\"")), 4, &[&words]);
    }
    for address in
        ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", ":1", "::1:1", "[::1", "a b:1", "http://a:1", "[x]:1"]
    {
        let words =
            format!("\"address\" must be a host and a port like \"127.0.0.1:29536\", not \"{address}\"");
        assert_mistake(&whole.replace("127.0.0.1:29536", address), 5, &[&words]);
    }
    for address in ["localhost:1", "[::1]:65535", "can0.robot_1:20000", "10.0.0.1:1"] {
        tunnel(&whole.replace("127.0.0.1:29536", address));
    }
}

#[test]
fn a_client_can_tell_targets_apart() {
    let other = TARGET.replace("\"can\"", "\"other\"");
    let two = |first: &str, second: &str| format!("[tunnel]\n{TARGET}{first}{second}");
    let same = parse(&two("", TARGET)).unwrap_err();
    assert!(same.starts_with("7: target \"can\": there are two of that name"), "{same}");
    assert_mistake(
        &two("", &other),
        9,
        &["target \"other\": another tcp target is called \"127.0.0.1:29536\" already"],
    );
    let elsewhere = other.replace("29536", "29537");
    let alias = "aliases = [\"can:1\"]\n";
    assert_mistake(&two(alias, &format!("{elsewhere}{alias}")), 11, &["is called \"can:1\" already"]);
    let service = "service = 1\n";
    assert_mistake(&two(service, &format!("{elsewhere}{service}")), 11, &["is called \"#1\" already"]);
    assert_mistake(
        &two(&alias.replace("can:1", "127.0.0.1:29537"), &elsewhere),
        10,
        &["is called \"127.0.0.1:29537\""],
    );
    // Another protocol or another robot is another thing.
    tunnel(&two(service, &FRAMES.replace("20000", "29536")));
    tunnel(&two(service, &format!("{FRAMES}{service}")));
    tunnel(&two(service, &format!("{other}{service}robot = \"0x01\"\n")));
}

#[test]
fn other_computers_are_a_danger_that_has_to_be_meant() {
    let dangers = |section: &str, logins| {
        let config = parse(section).unwrap();
        let ports: Vec<_> = config.ports().filter(|port| port.service != Service::Grpc).collect();
        let danger = |port| config.danger(port, logins).map(|danger| (format!("{port}"), danger));
        ports.iter().filter_map(danger).collect::<Vec<_>>()
    };
    for logins in [Logins::None, Logins::Required] {
        assert!(dangers(&format!("[tunnel]\n{TARGET}"), logins).is_empty());
    }
    let outside = format!("[tunnel]\nlisten = \"10.0.0.1\"\n{TARGET}");
    let name = "[tunnel] listen = \"10.0.0.1:3001\"".to_owned();
    assert_eq!(dangers(&outside, Logins::None), [(name.clone(), Danger::Anybody(Service::Tunnels))]);
    assert_eq!(dangers(&outside, Logins::Required), [(name, Danger::PlainText(Service::Tunnels))]);
    let outside = format!("[tunnel]\nlisten_hosts = [\"127.0.0.1\", \"0.0.0.0\"]\n{TARGET}");
    let name = "[tunnel] listen_hosts has \"0.0.0.0\"".to_owned();
    for logins in [Logins::None, Logins::Required] {
        assert_eq!(dangers(&outside, logins), [(name.clone(), Danger::Anybody(Service::Links))]);
    }
    let tls = "certificate = \"/c\"\nprivate_key = \"/k\"\n";
    let config = with_front(tls, &format!("[tunnel]\nlisten = \"10.0.0.1\"\n{TARGET}")).unwrap();
    assert!(config.ports().all(|port| config.danger(&port, Logins::Required).is_none()));
}

const WATCHED: &str = "motors = [\"lift\"]\nwindow = \"200ms\"\n";

/// Of plain bytes nobody knows what they do: whoever has any of them keep motors moving has to write so.
#[test]
fn plain_bytes_keep_motors_moving_only_where_that_is_written() {
    let words = ["target \"can\": \"beat\" is missing", "beat = \"bytes\"", "\"speaks\""];
    assert_mistake(&format!("[tunnel]\n{TARGET}{WATCHED}"), 2, &words);
    let plain = tunnel(&format!("[tunnel]\n{TARGET}{WATCHED}beat = \"bytes\"\n"));
    assert_eq!(plain.targets[0].beat, BeatOf::Bytes);
    for (base, speaks) in [(TARGET, "socketcand"), (TARGET, "cannelloni"), (FRAMES, "cannelloni")] {
        let section = format!("[tunnel]\n{base}{WATCHED}speaks = \"{speaks}\"\n");
        assert_eq!(tunnel(&section).targets[0].beat, BeatOf::Motion, "{section}");
        for (word, beat) in
            [("motion", BeatOf::Motion), ("commands", BeatOf::Commands), ("bytes", BeatOf::Bytes)]
        {
            assert_eq!(tunnel(&format!("{section}beat = \"{word}\"\n")).targets[0].beat, beat);
        }
    }
}

#[test]
fn identifiers_are_written_as_they_are_printed() {
    let section = |id: &str| {
        format!("[tunnel]\n{TARGET}{WATCHED}speaks = \"socketcand\"\nalso = [\"7A0\", \"{id}\"]\n")
    };
    for (text, id) in [
        ("000", ArbitrationId::standard(0)),
        ("7ff", ArbitrationId::standard(0x7FF)),
        ("1FFFFFFF", ArbitrationId::extended(0x1FFF_FFFF)),
    ] {
        assert_eq!(tunnel(&section(text)).targets[0].also[1], id, "{text}");
    }
    for text in ["", "7A", "800", "0x7A0", "+7A", "7A00", "20000000", "FFFFFFFF", "7G0"] {
        let words = ["\"also\" must be identifiers", "\"7A0\"", &format!("not \"{text}\"")];
        assert_mistake(&section(text), 9, &words);
    }
}

/// A link leads to one bus: on another one the same frame means another motor.
#[test]
fn links_of_can_frames_lead_to_one_bus() {
    let other = "[[bus]]\nname = \"arm\"\ninterface = \"can1\"\n[[motor]]\nname = \"grip\"\nbus = \"arm\"\ndriver = \
                 \"odrive\"\nnode = 9\nfirmware = \"0.6\"\nafter_stop = \"hold\"\nmax_rpm = 300\n";
    let section = |motors: &str, more: &str| {
        format!(
            "{other}[tunnel]\n{TARGET}speaks = \"socketcand\"\nmotors = {motors}\nwindow = \"200ms\"\n{more}"
        )
    };
    let words = ["target \"can\": \"motors\" has motors of several buses", "give each bus a target"];
    assert_mistake(&section("[\"lift\", \"grip\"]", ""), 18, &words);
    for (motors, more, bus, opened) in [
        ("[\"lift\", \"left\"]", "", 0, "can0"),
        ("[\"grip\"]", "", 1, "can1"),
        // The server is another computer's, where the bus has another name.
        ("[\"grip\"]", "bus = \"can7\"\n", 1, "can7"),
    ] {
        let target = tunnel(&section(motors, more)).targets.remove(0);
        assert_eq!(target.motors_bus, Some(bus), "{motors}");
        let Speaks::Socketcand { bus, .. } = &target.speaks else { panic!("{:?}", target.speaks) };
        assert_eq!(bus.as_deref(), Some(opened));
    }
}
