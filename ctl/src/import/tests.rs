//! Whole robots, and files that are none.

use std::path::Path;

use config::Config;

use super::write::FILL_IN;
use super::{Import, import};

const ROBOTS: [(&str, &str, &str, &str); 3] = [
    (
        "rover.json",
        include_str!("../../tests/import/rover.json"),
        include_str!("../../tests/import/rover.toml"),
        include_str!("../../tests/import/rover.notes"),
    ),
    (
        "arm.json",
        include_str!("../../tests/import/arm.json"),
        include_str!("../../tests/import/arm.toml"),
        include_str!("../../tests/import/arm.notes"),
    ),
    (
        "pins.json",
        include_str!("../../tests/import/pins.json"),
        include_str!("../../tests/import/pins.toml"),
        include_str!("../../tests/import/pins.notes"),
    ),
];

fn imported(from: &str, json: &str) -> Import {
    import(from, json).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Lines of a text, from 1, that are marked.
fn marked(text: &str) -> Vec<usize> {
    let lines = text.lines().enumerate();
    lines.filter(|(_, line)| line.contains(FILL_IN)).map(|(place, _)| place + 1).collect()
}

/// Lines of a configuration that have mistakes.
fn mistaken(text: &str) -> Vec<usize> {
    let Err(error) = Config::parse(Path::new("lanyard.toml"), text) else { return Vec::new() };
    let lines = error
        .problems()
        .iter()
        .map(|problem| problem.line.unwrap_or_else(|| panic!("a mistake without a line: {}", problem.text)));
    let mut lines: Vec<usize> = lines.collect();
    lines.dedup();
    lines
}

#[test]
fn robots_become_the_files_that_people_have_read() {
    for (from, json, toml, notes) in ROBOTS {
        let import = imported(from, json);
        assert_eq!(import.text, toml, "{from}");
        assert_eq!(import.notes.join("\n") + "\n", notes, "{from}");
    }
}

#[test]
fn what_is_marked_is_what_the_check_names() {
    for (from, json, ..) in ROBOTS {
        let text = imported(from, json).text;
        assert_eq!(mistaken(&text), marked(&text), "{from}");
    }
}

#[test]
fn a_robot_that_is_filled_in_is_a_configuration() {
    let (from, json, ..) = ROBOTS[0];
    let text = imported(from, json).text;
    let filled: Vec<String> = text
        .lines()
        .map(|line| match line.split_once(&format!("  {FILL_IN}")) {
            Some(("bus = \"\"", _)) => "bus = \"can0\"".to_owned(),
            Some(("driver = \"\"", _)) => {
                // Two drives of a bus must differ; a node of its own for each line of the file.
                let node = 2 + text.lines().position(|other| std::ptr::eq(other, line)).unwrap_or(0) % 60;
                format!("driver = \"odrive\"\nfirmware = \"0.6\"\nnode = {node}")
            }
            Some(("after_stop = \"\"", _)) => "after_stop = \"hold\"".to_owned(),
            Some(("max_rpm = \"\"", _)) => "max_rpm = 300".to_owned(),
            Some(("key_id = \"\"", _)) => "key_id = \"8a1b\"".to_owned(),
            Some(("key_file = \"\"", _)) => "key_file = \"/etc/lanyard/viam.key\"".to_owned(),
            Some((other, _)) => panic!("nobody told the test how to fill in {other}"),
            None => line.to_owned(),
        })
        .collect();
    assert_eq!(mistaken(&filled.join("\n")), [0; 0]);
}

#[test]
fn secrets_stay_where_they_are() {
    for (from, json, ..) in ROBOTS {
        let import = imported(from, json);
        let said = import.text + &import.notes.join("\n");
        assert!(!said.contains("hush"), "{from}: {said}");
    }
}

#[test]
fn whatever_names_hold_they_are_texts_in_the_file_and_nothing_else() {
    let evil = "x\\\"]\n[supervisor]\npriority = 1 #\u{7f}\r";
    let json = serde_json::json!({
        "components": [
            { "name": evil, "type": "motor", "model": format!("acme:{evil}"), "attributes": { evil: evil, "can": evil } },
            { "name": "base", "type": "base", "model": "wheeled", "attributes": { "left": [evil], "right": evil } },
            { "name": evil, "type": evil, "model": "rdk:builtin:x" },
        ],
        evil: [{ "name": evil }],
        "auth": { "handlers": [{ "type": "api-key", "config": { evil: "k" } }, { "type": evil }] },
        "network": { "tls_cert_file": evil, "tls_key_file": evil, evil: 1 },
    });
    let text = imported(evil, &json.to_string()).text;
    assert_eq!(mistaken(&text), marked(&text), "{text}");
    assert_eq!(text.matches("[supervisor]\n").count(), 1, "{text}");
}

#[test]
fn wrong_json_is_refused_with_its_place() {
    for (json, expected) in [
        ("", "robot.json:1:0: EOF while parsing a value"),
        ("{\n  \"components\": [,]\n}", "robot.json:2:18: expected value"),
        ("{\n  \"components\": {}\n}", "robot.json:2:16: invalid type: map, expected a sequence"),
        ("{\"components\": [{\"type\": \"motor\"}]}", "robot.json:1:33: missing field `name`"),
        (
            "{\"components\": [{\"name\": 5}]}",
            "robot.json:1:26: invalid type: integer `5`, expected a string",
        ),
        ("{\"network\": 1}", "robot.json:1:13: invalid type: integer `1`, expected struct Network"),
        ("{\"network\": {}, \"network\": {}}", "robot.json:1:25: duplicate field `network`"),
        (
            "{\"network\": {\"sessions\": {\n\"heartbeat_window\": \"2\"}}}",
            "robot.json:2:24: heartbeat_window must be a duration like \"2s\" or \"500ms\", not \"2\"",
        ),
        (
            "{\"network\": {\"sessions\": {\n\"heartbeat_window\": \"29ms\"}}}",
            "robot.json:2:27: heartbeat_window must be between [30ms, 1m], not \"29ms\"",
        ),
        (
            "{\"network\": {\"sessions\": {\n\"heartbeat_window\": \"1m30s\"}}}",
            "robot.json:2:28: heartbeat_window must be between [30ms, 1m], not \"1m30s\"",
        ),
        (
            "{\"network\": {\"sessions\": {\n\"heartbeat_window\": 2}}}",
            "robot.json:2:21: invalid type: integer `2`, expected a string",
        ),
    ] {
        let error = import("robot.json", json).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(expected), "{json}");
    }
    // Deep enough to overflow a stack, were it followed.
    let deep = format!("{{\"x\": {}", "[".repeat(100_000));
    let error = import("robot.json", &deep).err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("recursion limit exceeded")));
}

#[test]
fn what_viam_server_would_refuse_is_refused_with_its_name() {
    for (json, expected) in [
        (
            r#"{"components": [{"name": "b", "type": "base", "model": "wheeled", "attributes": {"left": 1}}]}"#,
            "component \"b\": \"left\" must be the name of a component or a list of names",
        ),
        (
            r#"{"components": [{"name": "m", "type": "motor"}, {"name": "m", "api": "rdk:component:motor"}]}"#,
            "two components of the kind motor are called \"m\"",
        ),
        (r#"{"network": {"bind_address": "8080"}}"#, "network: bind_address must be like"),
        (r#"{"network": {"tls_cert_file": "c"}}"#, "network: tls_cert_file and tls_key_file go together"),
    ] {
        let error = import("robot.json", json).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("robot.json: ") && error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn a_circle_of_components_ends() {
    let json = r#"{"components": [
        {"name": "a", "type": "gantry", "model": "multi-axis", "attributes": {"subaxes_list": ["b", "a"]}},
        {"name": "b", "type": "gantry", "model": "multi-axis", "attributes": {"subaxes_list": ["a"]}}
    ]}"#;
    let text = imported("robot.json", json).text;
    assert!(text.contains("\na = []\n") && text.contains("\nb = []\n"), "{text}");
}

#[test]
fn the_window_is_viam_servers_default_when_it_says_nothing_or_zero() {
    for window in ["", "\"0s\"", "\"\"", "null"] {
        let json = match window {
            "" => "{}".to_owned(),
            window => format!("{{\"network\": {{\"sessions\": {{\"heartbeat_window\": {window}}}}}}}"),
        };
        assert!(imported("robot.json", &json).text.contains("\n#heartbeat_window = \"2s\"\n"), "{json}");
    }
}
