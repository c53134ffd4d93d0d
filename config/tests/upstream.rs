//! `[upstream]`: what it says, and every mistake in it at its line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lanyard_config::{Address, Config, HostPort, Login, OnLoss, Trust, ViamSid};

const GOOD: &str = include_str!("good.toml");

/// The good file without its base, and this behind it.
fn parse(section: &str) -> Result<Config, String> {
    let (before, _) = GOOD.split_once("[[base]]").unwrap();
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

#[test]
fn nothing_is_behind_unless_it_is_said() {
    let config = parse("").unwrap();
    assert!(config.upstream.is_none());
    assert!(config.is_native(0));
}

#[test]
fn an_address_is_enough() {
    let upstream = parse("[upstream]\naddress = \"http://127.0.0.1:8081\"\n").unwrap().upstream.unwrap();
    assert_eq!(upstream.address, Address::Plain(HostPort { host: "127.0.0.1".to_owned(), port: 8081 }));
    assert_eq!((upstream.viam_sid, upstream.on_loss), (ViamSid::Strip, OnLoss::Stop));
    assert_eq!((upstream.window, upstream.stop_timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    assert_eq!((upstream.login, upstream.resources.len()), (None, 0));
}

#[test]
fn everything_is_read() {
    let config = parse(
        "[upstream]\naddress = \"https://robot:8081\"\nviam_sid = \"keep\"\nwindow = \"500ms\"\n\
         on_loss = \"ignore\"\nstop_timeout = \"2s\"\ncertificate_authority = \"/ca.pem\"\nserver_name = \"x\"\n\
         key_id = \"id\"\nkey_file = \"/key\"\n\
         [upstream.resources]\nbase1 = [\"left\", \"right\"]\n\"arm/one\" = { motors = [\"joint\"], window = \"300ms\" }\n\
         gripper1 = { require_progress = \"1s\" }\n",
    )
    .unwrap();
    assert_eq!([0, 1, 2, 3].map(|motor| config.is_native(motor)), [true, false, false, false]);
    let upstream = config.upstream.unwrap();
    let trust = Trust { authority: Some(PathBuf::from("/ca.pem")), server_name: "x".to_owned() };
    assert_eq!(upstream.address, Address::Tls(HostPort { host: "robot".to_owned(), port: 8081 }, trust));
    assert_eq!((upstream.viam_sid, upstream.on_loss), (ViamSid::Keep, OnLoss::Ignore));
    assert_eq!(
        (upstream.window, upstream.stop_timeout),
        (Duration::from_millis(500), Duration::from_secs(2))
    );
    assert_eq!(upstream.login, Some(Login { key_id: "id".to_owned(), key_file: PathBuf::from("/key") }));
    let motors = |kind, name| upstream.resource(kind, name).map(|resource| resource.motors.clone());
    assert_eq!(motors("base", "base1"), Some(vec![2, 3]));
    assert_eq!(motors("arm", "one"), Some(vec![1]));
    assert_eq!(motors("gripper", "one"), None);
    let rules = |kind, name| upstream.resource(kind, name).unwrap().rules;
    assert_eq!(rules("arm", "one").window, Some(Duration::from_millis(300)));
    assert_eq!(rules("gripper", "gripper1").progress, Some(Duration::from_secs(1)));
}

#[test]
fn every_mistake_is_found_at_its_line() {
    let plain = "[upstream]\naddress = \"http://127.0.0.1:8081\"\n";
    for (section, line, words) in [
        ("[upstream]\n", 1, &["\"address\" is missing", "http://127.0.0.1:8081", "unix:/path"][..]),
        ("[upstream]\naddress = \"127.0.0.1:8081\"\n", 2, &["must be", "not \"127.0.0.1:8081\""]),
        (
            "[upstream]\naddress = \"http://localhost:8080\"\n",
            2,
            &["the front itself listens", "another port"],
        ),
        (&format!("{plain}viam_sid = \"drop\"\n"), 3, &["strip or keep", "not \"drop\""]),
        (&format!("{plain}on_loss = \"go\"\n"), 3, &["stop or ignore", "not \"go\""]),
        (&format!("{plain}window = \"10ms\"\n"), 3, &["[100ms, 1m]"]),
        (&format!("{plain}stop_timeout = \"1m\"\n"), 3, &["[50ms, 30s]"]),
        (&format!("{plain}server_name = \"x\"\n"), 3, &["only with an address that begins with https://"]),
        (&format!("{plain}key_id = \"x\"\n"), 3, &["needs \"key_file\""]),
        (&format!("{plain}key_file = \"x\"\n"), 3, &["needs \"key_id\""]),
        (&format!("{plain}nonsense = 1\n"), 3, &["unknown key \"nonsense\"", "known keys: address"]),
        (
            &format!("{plain}[upstream.resources]\nb = [\"lefd\"]\n"),
            4,
            &["\"lefd\" is not configured", "lift, joint"],
        ),
        (&format!("{plain}[upstream.resources]\nb = [\"left\", \"left\"]\n"), 4, &["named twice"]),
        (
            &format!("{plain}[upstream.resources]\nb = {{ motor = 1 }}\n"),
            4,
            &["unknown key \"motor\"", "motors"],
        ),
        (&format!("{plain}[upstream.resources]\nb = {{ window = \"10ms\" }}\n"), 4, &["[30ms, 1m]"]),
        (&format!("{plain}[upstream.resources]\nb = 7\n"), 4, &["must be a table"]),
        (&format!("{plain}[upstream.resources]\n\"arm/\" = []\n"), 4, &["no name of a resource"]),
        (
            &format!(
                "[[base]]\nname = \"base\"\nleft = [\"left\"]\nright = [\"right\"]\nwheel_circumference_mm = 520\n\
                 width_mm = 410\n{plain}[upstream.resources]\nb = [\"left\"]\n"
            ),
            7,
            &["motor \"left\" is driven by the server behind", "base \"base\""],
        ),
    ] {
        let error = parse(section).expect_err(section);
        assert_eq!(error.lines().count(), 1, "{section}: {error}");
        assert!(error.starts_with(&format!("{line}: ")), "{section}: {error}");
        for word in words {
            assert!(error.contains(word), "{section}: {error:?} lacks {word:?}");
        }
    }
}
