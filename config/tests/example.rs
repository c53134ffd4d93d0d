//! `lanyard.example.toml` is valid, complete, and tells the truth about every default.

use std::collections::BTreeSet;
use std::path::Path;

use config::Config;
use drivers::registry;
use lanyard_config as config;
use shm_proto::verdicts::ResetPolicy;

const EXAMPLE: &str = include_str!("../../lanyard.example.toml");

fn parse(text: &str) -> Config {
    Config::parse(Path::new("lanyard.example.toml"), text).unwrap_or_else(|error| panic!("{error}"))
}

/// Every line `#key = value` as `key = value`: the settings shown at their defaults; and the tables that are not there
/// by default, such as `#[upstream]`.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
            setting.to_owned()
        }
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn the_example_is_valid() {
    let config = parse(EXAMPLE);
    let motors: Vec<(&str, &str, usize)> =
        config.motors.iter().map(|motor| (motor.name.as_str(), motor.driver, motor.bus)).collect();
    assert_eq!(motors, [("left", "odrive", 0), ("right", "odrive", 0), ("shoulder", "cia402", 0)]);
    assert_eq!(config.buses[0].interface, "can0");
    assert_eq!((config.bases[0].left.as_slice(), config.bases[0].right.as_slice()), (&[0][..], &[1][..]));
    assert_eq!(config.supervisor.reset, ResetPolicy::Neutral);
}

#[test]
fn what_is_commented_out_is_the_default() {
    // Some settings have no default; and the example has no bus that one of them could name.
    let without = |text: String, line: &str| {
        assert!(text.contains(line));
        text.replace(line, "")
    };
    let none = [
        "second_bus = \"can1\"\n",
        "other_masters = false\n",
        "halt_option = 1\n",
        "watchdog = \"/dev/watchdog0\"\n",
        "watchdog_timeout = \"10s\"\n",
        "origins = [\"https://panel.example\"]\n",
        "window = \"800ms\"\n",
        "require_progress = \"300ms\"\n",
        "certificate_authority = \"/etc/lanyard/ca.pem\"\n",
        "server_name = \"robot.example\"\n",
        "key_id = \"0c5e...\"\n",
        "key_file = \"/etc/lanyard/upstream.key\"\n",
        "user = \"lanyard\"\n",
        "password_file = \"/etc/lanyard/base.password\"\n",
        "temporary_role_lifetime = \"10m\"\n",
    ];
    let text = none.into_iter().fold(uncommented(), without);
    let mut shown = parse(&text);
    let mut plain = parse(EXAMPLE);
    assert_eq!((plain.supervisor.cpu, shown.supervisor.cpu), (None, Some(3)));
    shown.supervisor.cpu = None;
    assert!(plain.front.access.tls.is_none() && shown.front.access.tls.is_some());
    shown.front.access.tls = None;
    // There is no server behind by default; to have one takes its address and nothing else.
    assert!(plain.upstream.is_none());
    plain.upstream = parse(&format!("{EXAMPLE}\n[upstream]\naddress = \"http://127.0.0.1:8081\"\n")).upstream;
    // Nor are clients of Kinova arms served: that takes addresses and joints and nothing else.
    assert!(plain.kortex.is_none());
    let ports: String = ["tcp", "udp", "mqtt"].map(|key| format!("{key} = \"127.0.0.1\"\n")).concat();
    let joint = "[[kortex.joint]]\nmotor = \"shoulder\"\n";
    let base = "[kortex.upstream]\ntcp = \"192.168.1.10\"\nudp = \"192.168.1.10\"\nmqtt = \"192.168.1.10\"\n";
    plain.kortex = parse(&format!("{EXAMPLE}\n[kortex]\n{ports}{joint}{base}")).kortex;
    // Nor are there tunnels: that takes targets, and of each what it is and nothing else.
    assert!(plain.tunnel.is_none());
    let can = "name = \"can\"\nprotocol = \"tcp\"\naddress = \"127.0.0.1:29536\"\naliases = [\"localhost:29536\"]\n\
               service = 1\nrobot = \"12D3KooWR4uwjKCDCAY1xsEFB4esuWLF9Q5ijYvCjz5PNkTbnu33\"\nspeaks = \"socketcand\"\n\
               bus = \"can0\"\nmotors = [\"left\", \"right\"]\nwindow = \"300ms\"\nmin_rate = 10\n";
    let frames = "name = \"frames\"\nprotocol = \"udp\"\naddress = \"127.0.0.1:20000\"\nrelock = \"2s\"\n\
                  source = \"127.0.0.1:20001\"\n";
    let targets = format!("[[tunnel.target]]\n{can}[[tunnel.target]]\n{frames}");
    plain.tunnel = parse(&format!("{EXAMPLE}\n[tunnel]\nports = \"10100-10199\"\n{targets}")).tunnel;
    shown.hash = 0;
    plain.hash = 0;
    let lines = |config: &Config| format!("{config:#?}").lines().map(str::to_owned).collect::<Vec<_>>();
    for (shown, plain) in lines(&shown).iter().zip(lines(&plain)) {
        assert_eq!(*shown, plain, "the example shows a default that is none");
    }
}

/// The keys of each table, commented out or not, as `table.key`.
fn keys_of_the_example() -> BTreeSet<String> {
    let mut table = String::new();
    let mut keys = BTreeSet::new();
    for line in uncommented().lines() {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']).to_owned();
            // A table within another is a key of it, too.
            keys.extend(table.contains('.').then(|| table.clone()));
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.insert(format!("{table}.{key}"));
        }
    }
    keys
}

/// The keys a table has, by the parser's own word on a key it does not know.
fn known_keys(table: &str, header: &str) -> Vec<String> {
    let error = Config::parse(Path::new("x"), &format!("{header}\nnonsense = 1\n")).unwrap_err().to_string();
    let (_, known) = error
        .lines()
        .find_map(|line| {
            line.contains("unknown key \"nonsense\"").then(|| line.split_once("known keys: "))?
        })
        .unwrap_or_else(|| panic!("no word on known keys in: {error}"));
    known.split(", ").map(|key| format!("{table}.{key}")).collect()
}

#[test]
fn every_key_appears() {
    let shown = keys_of_the_example();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for table in ["supervisor", "front", "upstream", "kortex", "kortex.upstream", "tunnel"] {
        known.extend(known_keys(table, &format!("[{table}]")));
    }
    for table in ["bus", "base", "kortex.joint", "tunnel.target"] {
        known.extend(known_keys(table, &format!("[[{table}]]")));
    }
    // The keys of the other families stand in docs/drives.md.
    let config = parse(EXAMPLE);
    let used = |family: &&registry::Family| config.motors.iter().any(|motor| motor.driver == family.name);
    for family in registry::FAMILIES.iter().filter(used) {
        known.extend(family.keys.iter().map(|key| format!("motor.{}", key.name)));
    }
    known.extend(config::MOTOR_KEYS.map(|key| format!("motor.{key}")));
    assert!(known.contains("motor.stage_timeout") && known.contains("motor.after_stop"), "{known:?}");
    let missing: Vec<&String> = known.difference(&shown).collect();
    assert!(missing.is_empty(), "lanyard.example.toml does not show {missing:?}");
    let unknown: Vec<&String> = shown.difference(&known).collect();
    assert!(unknown.is_empty(), "nobody reads {unknown:?} of lanyard.example.toml");
}
