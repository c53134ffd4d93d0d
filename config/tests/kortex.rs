//! `[kortex]`: what it says, and every mistake in it at its line.

use std::path::Path;
use std::time::Duration;

use lanyard_config::{Config, Danger, Joint, Logins, Service};

const GOOD: &str = include_str!("good.toml");
const JOINT: &str = "[[kortex.joint]]\nmotor = \"joint\"\n";

/// The good file without its base, with this in `[front]`, and this behind it.
fn with_front(front: &str, section: &str) -> Result<Config, String> {
    let (before, _) = GOOD.split_once("[[base]]").unwrap();
    let before = before.replacen("[front]\n", &format!("[front]\n{front}"), 1);
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

#[test]
fn nothing_is_served_unless_it_is_said() {
    let config = parse("").unwrap();
    assert!(config.kortex.is_none());
    assert_eq!(config.ports().map(|port| port.key).collect::<Vec<_>>(), ["listen"]);
}

#[test]
fn a_port_and_a_joint_are_enough() {
    let kortex = parse(&format!("[kortex]\ntcp = \"127.0.0.1\"\n{JOINT}")).unwrap().kortex.unwrap();
    assert_eq!((kortex.tcp, kortex.udp, kortex.mqtt), (Some(([127, 0, 0, 1], 10_000).into()), None, None));
    assert_eq!(kortex.connection_timeout, Duration::from_secs(2));
    assert_eq!(kortex.session_timeout, Duration::from_secs(60));
    assert_eq!(kortex.control_grace, Duration::from_millis(7_500));
    assert_eq!((kortex.temporary_role_lifetime, kortex.max_connections), (None, 64));
    // Programs name their own window, so what the motors allow is said.
    assert_eq!((kortex.rules.window, kortex.rules.progress), (Some(Duration::from_secs(2)), None));
    assert_eq!(kortex.joints, [Joint { motor: 1, gear_ratio: 1.0 }]);
}

#[test]
fn an_address_may_have_a_port_and_has_kinovas_otherwise() {
    let section = "[kortex]\ntcp = \"0.0.0.0\"\nudp = \"::1\"\nmqtt = \"[::]\"\n";
    assert!(parse(&format!("{section}{JOINT}")).is_err(), "brackets are for an address with a port");
    let section = "[kortex]\ntcp = \"0.0.0.0\"\nudp = \"::1\"\nmqtt = \"10.0.0.1\"\n";
    let kortex = parse(&format!("{section}{JOINT}")).unwrap().kortex.unwrap();
    let addresses = |kortex: &lanyard_config::Kortex| {
        kortex.addresses().map(|(key, address)| format!("{key} {address}")).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&kortex), ["tcp 0.0.0.0:10000", "udp [::1]:10001", "mqtt 10.0.0.1:1883"]);
    let section = "[kortex]\ntcp = \"127.0.0.1:1\"\nudp = \"127.0.0.1:1\"\nmqtt = \"[::1]:1\"\n";
    let kortex = parse(&format!("{section}{JOINT}")).unwrap().kortex.unwrap();
    assert_eq!(addresses(&kortex), ["tcp 127.0.0.1:1", "udp 127.0.0.1:1", "mqtt [::1]:1"]);
}

#[test]
fn everything_is_read() {
    let config = parse(
        "[kortex]\ntcp = \"127.0.0.1:0\"\nmqtt = \"127.0.0.1:0\"\nconnection_timeout = \"100ms\"\n\
         session_timeout = \"24h\"\ncontrol_grace = \"0s\"\ntemporary_role_lifetime = \"10m\"\nmax_connections = 2\n\
         window = \"500ms\"\nrequire_progress = \"300ms\"\n\
         [[kortex.joint]]\nmotor = \"lift\"\ngear_ratio = 100.5\n[[kortex.joint]]\nmotor = \"joint\"\ngear_ratio = 0.001\n",
    )
    .unwrap();
    let kortex = config.kortex.unwrap();
    assert_eq!(
        (kortex.connection_timeout, kortex.session_timeout),
        (Duration::from_millis(100), Duration::from_secs(86_400))
    );
    assert_eq!(kortex.control_grace, Duration::ZERO);
    assert_eq!(kortex.temporary_role_lifetime, Some(Duration::from_secs(600)));
    assert_eq!(kortex.max_connections, 2);
    assert_eq!(kortex.rules.window, Some(Duration::from_millis(500)));
    assert_eq!(kortex.rules.progress, Some(Duration::from_millis(300)));
    assert_eq!(kortex.joints, [Joint { motor: 0, gear_ratio: 100.5 }, Joint { motor: 1, gear_ratio: 0.001 }]);
}

/// The one mistake in this, with its line.
fn assert_mistake(front: &str, section: &str, line: usize, words: &[&str]) {
    let error = with_front(front, section).expect_err(section);
    assert_eq!(error.lines().count(), 1, "{section}: {error}");
    assert!(error.starts_with(&format!("{line}: ")), "{section}: {error}");
    for word in words {
        assert!(error.contains(word), "{section}: {error:?} lacks {word:?}");
    }
}

#[test]
fn every_mistake_is_found_at_its_line() {
    let many: String = (0..33).map(|_| JOINT).collect();
    let error = parse(&format!("[kortex]\ntcp = \"127.0.0.1\"\n{many}")).unwrap_err();
    assert!(error.contains("1: [kortex]: an arm has at most 32 joints, not 33"), "{error}");

    let bounds = |key: &str, value: &str, words: &'static [&'static str]| {
        let section = format!("[kortex]\ntcp = \"127.0.0.1\"\n{key} = {value}\n{JOINT}");
        assert_mistake("", &section, 3, &[words, &[&format!("\"{key}\"")]].concat());
    };
    for too in ["29ms", "61s"] {
        bounds("connection_timeout", &format!("\"{too}\""), &["[30ms, 1m]"]);
    }
    for too in ["29ms", "25h"] {
        bounds("session_timeout", &format!("\"{too}\""), &["[30ms, 24h]"]);
    }
    bounds("control_grace", "\"61s\"", &["[0ms, 1m]"]);
    bounds("control_grace", "7.5", &["must be a"]);
    for too in ["999ms", "25h"] {
        bounds("temporary_role_lifetime", &format!("\"{too}\""), &["[1s, 24h]"]);
    }
    for too in ["0", "4097"] {
        bounds("max_connections", too, &["1", "4096"]);
    }
    bounds("window", "\"10ms\"", &["[30ms, 1m]"]);
    bounds("require_progress", "\"2m\"", &["[30ms, 1m]"]);
    for (key, port) in [("tcp", 10_000), ("udp", 10_001), ("mqtt", 1_883)] {
        for wrong in ["localhost", "127.0.0.1:", "127.0.0.1:65536", "10000"] {
            let section = format!("[kortex]\n{key} = \"{wrong}\"\n{JOINT}");
            let error = parse(&section).unwrap_err();
            let words = format!(
                "2: [kortex]: \"{key}\" must be an address like \"127.0.0.1\" (port {port}) or \"127.0.0.1:{port}\", \
                 not \"{wrong}\""
            );
            assert_eq!(error.trim_end(), words);
        }
    }
}

#[test]
fn nobody_could_connect_or_move_anything() {
    let words: &[&str] = &["[kortex]: nobody could connect", "\"tcp\", \"udp\"", "\"mqtt\""];
    assert_mistake("", &format!("[kortex]\n{JOINT}"), 1, words);
    let words: &[&str] = &["[kortex]: the arm has no joints", "[[kortex.joint]]"];
    assert_mistake("", "[kortex]\ntcp = \"127.0.0.1\"\n", 1, words);
    let words: &[&str] = &["[kortex]: unknown key \"tpc\"", "known keys: tcp, udp, mqtt"];
    assert_mistake("", &format!("[kortex]\ntcp = \"127.0.0.1\"\ntpc = \"127.0.0.1\"\n{JOINT}"), 3, words);
}

#[test]
fn joints() {
    let head = "[kortex]\nudp = \"127.0.0.1\"\n[[kortex.joint]]\n";
    let upstream =
        "[upstream]\naddress = \"http://127.0.0.1:8081\"\n[upstream.resources]\narm1 = [\"left\"]\n";
    for (lines, line, words) in [
        ("", 3, &["[[kortex.joint]] 0", "\"motor\" is missing"][..]),
        (
            "motor = \"jiont\"\n",
            4,
            &["\"jiont\" is not configured", "known motors: lift, joint, left, right"],
        ),
        ("motor = 1\n", 4, &["\"motor\" must be a text"]),
        ("motor = \"lift\"\nratio = 3\n", 5, &["unknown key \"ratio\"", "motor, gear_ratio"]),
        ("motor = \"lift\"\ngear_ratio = 0\n", 5, &["\"gear_ratio\"", "0.001", "100000"]),
        ("motor = \"lift\"\ngear_ratio = 0.0009\n", 5, &["\"gear_ratio\"", "0.001"]),
        ("motor = \"lift\"\ngear_ratio = 100001\n", 5, &["\"gear_ratio\"", "100000"]),
        ("motor = \"lift\"\ngear_ratio = -100\n", 5, &["\"gear_ratio\""]),
        ("motor = \"lift\"\ngear_ratio = nan\n", 5, &["\"gear_ratio\""]),
        (
            "motor = \"lift\"\n[[kortex.joint]]\nmotor = \"joint\"\n[[kortex.joint]]\nmotor = \"lift\"\n",
            8,
            &["[[kortex.joint]] 2", "motor \"lift\" is a joint already"],
        ),
        (
            &format!("motor = \"left\"\n{upstream}"),
            4,
            &["motor \"left\" is driven by the server behind", "[upstream.resources]"],
        ),
    ] {
        assert_mistake("", &format!("{head}{lines}"), line, words);
    }
    assert!(parse(&format!("{head}motor = \"lift\"\n{upstream}")).is_ok());
}

#[test]
fn two_services_cannot_have_one_port() {
    let section = |lines: &str| format!("[kortex]\n{lines}{JOINT}");
    let outside = "listen = \"10.0.0.1:8080\"\n";
    for (front, lines, line, words) in [
        (
            "",
            "tcp = \"127.0.0.1:8080\"\n",
            2,
            &["\"tcp\" = \"127.0.0.1:8080\"", "the front itself listens"][..],
        ),
        ("", "mqtt = \"127.0.0.1:8080\"\n", 2, &["\"mqtt\"", "the front itself listens (127.0.0.1:8080)"]),
        ("", "tcp = \"0.0.0.0:8080\"\n", 2, &["\"tcp\"", "another port"]),
        (outside, "tcp = \"[::]:8080\"\n", 2, &["\"tcp\"", "10.0.0.1:8080"]),
        (
            "",
            "tcp = \"127.0.0.1:1883\"\nmqtt = \"127.0.0.1\"\n",
            3,
            &["\"mqtt\"", "\"tcp\" listens (127.0.0.1:1883)"],
        ),
        ("", "mqtt = \"10.0.0.1\"\ntcp = \"0.0.0.0:1883\"\n", 2, &["\"mqtt\"", "\"tcp\" listens"]),
    ] {
        assert_mistake(front, &section(lines), line, words);
    }
    for (front, lines) in [
        ("", "tcp = \"127.0.0.2:8080\"\n"),
        (outside, "tcp = \"127.0.0.1:8080\"\n"),
        ("", "udp = \"127.0.0.1:8080\"\n"),
        ("", "tcp = \"127.0.0.1:9\"\nudp = \"127.0.0.1:9\"\n"),
        ("listen = \"127.0.0.1:0\"\n", "tcp = \"127.0.0.1:0\"\nmqtt = \"127.0.0.1:0\"\n"),
    ] {
        assert!(with_front(front, &section(lines)).is_ok(), "{front}{lines}");
    }
}

/// Fails if Kinova's clients, which know no TLS, counted as protected by the front's certificate.
#[test]
fn a_certificate_protects_no_port_of_kortex() {
    let tls = "listen = \"0.0.0.0:8080\"\ncertificate = \"/c\"\nprivate_key = \"/k\"\n";
    let section = format!("[kortex]\ntcp = \"0.0.0.0\"\nudp = \"127.0.0.1\"\nmqtt = \"10.0.0.1\"\n{JOINT}");
    let config = with_front(tls, &section).unwrap();
    let told: Vec<_> = config
        .ports()
        .map(|port| {
            (port.to_string(), [Logins::None, Logins::Required].map(|logins| config.danger(&port, logins)))
        })
        .collect();
    let kortex = [Some(Danger::Anybody(Service::Kortex)), Some(Danger::PlainText(Service::Kortex))];
    let expected = [
        ("[front] listen = \"0.0.0.0:8080\"", [Some(Danger::Anybody(Service::Grpc)), None]),
        ("[kortex] tcp = \"0.0.0.0:10000\"", kortex),
        ("[kortex] udp = \"127.0.0.1:10001\"", [None, None]),
        ("[kortex] mqtt = \"10.0.0.1:1883\"", kortex),
    ];
    assert_eq!(told, expected.map(|(port, dangers)| (port.to_owned(), dangers)));
    for danger in kortex.into_iter().flatten() {
        assert!(danger.remedy().contains("insecure = true in [kortex]"), "{}", danger.remedy());
    }
}

#[test]
fn a_base_behind_may_have_the_arm() {
    let text = "[kortex]\ntcp = \"127.0.0.1\"\n[kortex.upstream]\ntcp = \"192.168.1.10\"\n";
    let config = parse(text).unwrap();
    let kortex = config.kortex.as_ref().unwrap();
    let base = kortex.upstream.as_ref().unwrap();
    assert!(kortex.joints.is_empty() && base.motors.is_empty() && base.login.is_none());
    assert_eq!((base.tcp, base.udp), (Some(([192, 168, 1, 10], 10_000).into()), None));
    assert_eq!(base.stop_timeout, Duration::from_millis(500));
    assert!(config.is_native(1));

    let more = "udp = \"192.168.1.10:7\"\nuser = \"u\"\npassword_file = \"/p\"\nmotors = [\"joint\"]\n";
    let config = parse(&format!("{text}{more}")).unwrap();
    let base = config.kortex.as_ref().unwrap().upstream.clone().unwrap();
    assert_eq!(base.udp, Some(([192, 168, 1, 10], 7).into()));
    let login = base.login.unwrap();
    assert_eq!((login.user.as_str(), login.password_file.to_str()), ("u", Some("/p")));
    assert_eq!(base.motors, [1]);
    assert!(!config.is_native(1) && config.is_native(0), "the front leaves what the base drives alone");
}

#[test]
fn mistakes_about_a_base_are_told_at_their_line() {
    let head = "[kortex]\ntcp = \"127.0.0.1\"\n[kortex.upstream]\n";
    for (section, line, words) in [
        ("", 3, &["where is the base?", "tcp = \"192.168.1.10\""][..]),
        ("tcp = \"base\"\n", 4, &["\"tcp\" must be an address"]),
        ("tcp = \"10.0.0.1\"\nuser = \"u\"\n", 5, &["\"password_file\" belong together"]),
        ("tcp = \"10.0.0.1\"\nmotors = [\"lefd\"]\n", 5, &["\"lefd\" is not configured", "joint"]),
        ("tcp = \"10.0.0.1\"\nmotors = [\"joint\", \"joint\"]\n", 5, &["named twice"]),
        ("tcp = \"10.0.0.1\"\nmotor = []\n", 5, &["unknown key \"motor\""]),
    ] {
        let errors = parse(&format!("{head}{section}")).unwrap_err();
        let told = errors.lines().find(|error| error.starts_with(&format!("{line}: ")));
        let told = told.unwrap_or_else(|| panic!("line {line}: {errors}"));
        assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {errors}");
    }
    let joint = format!("{head}tcp = \"10.0.0.1\"\nmotors = [\"joint\"]\n{JOINT}");
    assert!(parse(&joint).unwrap_err().contains("is a joint that Lanyard drives itself"));
    // The motors of a [[base]] are Lanyard's own.
    let base = format!("{GOOD}{head}tcp = \"10.0.0.1\"\nmotors = [\"left\"]\n");
    let error = Config::parse(Path::new("robot.toml"), &base).unwrap_err().to_string();
    assert!(error.contains("driven by Lanyard as part of a [[base]]"), "{error}");
}
