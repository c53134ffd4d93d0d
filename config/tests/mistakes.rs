//! Every mistake is found, at its line, and the message says what would be right.
//!
//! Each case replaces one line of `good.toml`; then there must be exactly the listed messages.

use std::path::Path;
use std::time::Duration;

use lanyard_config::{Config, ConfigError, Exposure, TlsFiles};

const GOOD: &str = include_str!("good.toml");

/// A message: its line in the file, and words it must have.
type Message<'a> = (usize, &'a [&'a str]);

/// Line to replace, what stands there now, and the one message.
type Case<'a> = (usize, &'a str, Message<'a>);

/// The good file with that line replaced, perhaps by several.
fn with_line(number: usize, text: &str) -> String {
    assert!((1..=GOOD.lines().count()).contains(&number));
    let line = |(index, line)| if index + 1 == number { text } else { line };
    GOOD.lines().enumerate().map(line).flat_map(|line| [line, "\n"]).collect()
}

fn mistakes(text: &str) -> ConfigError {
    match Config::parse(Path::new("robot.toml"), text) {
        Err(error) => error,
        Ok(config) => panic!("no mistake was found in:\n{text}\n{config:#?}"),
    }
}

fn assert_messages(text: &str, expected: &[Message<'_>]) {
    let error = mistakes(text).to_string();
    let found: Vec<&str> = error.lines().collect();
    assert_eq!(found.len(), expected.len(), "expected {expected:#?}\nfound\n{error}\nin\n{text}");
    for (found, (line, words)) in found.iter().zip(expected) {
        let prefix = format!("robot.toml:{line}: ");
        assert!(found.starts_with(&prefix), "{found:?} does not begin with {prefix:?} in\n{text}");
        for word in *words {
            assert!(found.contains(word), "{found:?} lacks {word:?}");
        }
    }
}

fn assert_each(cases: &[Case<'_>]) {
    for (number, line, message) in cases {
        assert_messages(&with_line(*number, line), &[*message]);
    }
}

#[test]
fn the_good_file_is_good() {
    let config = Config::parse(Path::new("robot.toml"), GOOD).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.buses.len(), config.motors.len(), config.bases.len()), (1, 4, 1));
}

#[test]
fn unknown_keys() {
    assert_each(&[
        (2, "tik = \"5ms\"", (2, &["[supervisor]", "unknown key \"tik\"", "known keys", "tick"])),
        (5, "heartbeat = \"2s\"", (5, &["[front]", "unknown key \"heartbeat\"", "heartbeat_window"])),
        (9, "fdd = true", (9, &["bus \"can0\"", "unknown key \"fdd\"", "name, interface, fd"])),
        (18, "noode = 3", (18, &["motor \"lift\" (odrive)", "\"noode\"", "node, firmware"])),
        (27, "firmware = \"0.6\"", (27, &["motor \"joint\"", "cia402", "\"firmware\"", "counts_per_rev"])),
        (51, "width_mm = 410\nheight = 3", (52, &["base \"base\"", "unknown key \"height\"", "width_mm"])),
        (4, "[fronnt]", (4, &["unknown key \"fronnt\"", "supervisor, front, bus, motor, base"])),
    ]);
}

#[test]
fn rules_for_sessions() {
    assert_each(&[
        (5, "sessionless = \"maybe\"", (5, &["[front]", "lease or refuse or viam, not \"maybe\""])),
        (5, "takeover = \"first\"", (5, &["[front]", "last_used or exclusive, not \"first\""])),
        (5, "lease_window = \"1ms\"", (5, &["\"lease_window\" must be between [30ms, 1m]"])),
        (5, "max_sessions_per_key = 65", (5, &["\"max_sessions_per_key\" must be 1 to 64, not 65"])),
        (
            5,
            "origins = [\"https://Panel.example/\"]",
            (5, &["[front]: \"origins\"", "in small letters and without a path"]),
        ),
        (5, "origins = [\"https://panel.example:443\"]", (5, &["browsers leave out"])),
        (5, "origins = [\"*\", \"http://a\"]", (5, &["name no others beside it"])),
        (18, "window = \"2m\"", (18, &["motor \"lift\"", "\"window\" must be between [30ms, 1m]"])),
        (51, "width_mm = 410\nrequire_progress = \"1us\"", (52, &["base \"base\"", "\"require_progress\""])),
    ]);
}

#[test]
fn names_that_are_used_twice() {
    assert_each(&[
        (9, "[[bus]]\nname = \"can0\"\ninterface = \"can1\"", (10, &["bus \"can0\"", "used twice"])),
        (9, "[[bus]]\nname = \"x\"\ninterface = \"can0\"", (11, &["bus \"x\"", "is already bus \"can0\""])),
        (20, "name = \"lift\"", (20, &["motor \"lift\"", "used twice"])),
        (49, "right = [\"left\"]", (49, &["motor \"left\" already belongs to base \"base\""])),
    ]);
    let base = "width_mm = 410\n[[base]]\nname = \"base\"\nleft = [\"lift\"]\nright = [\"left\"]\n\
                wheel_circumference_mm = 1\nwidth_mm = 1";
    let expected: &[Message<'_>] =
        &[(53, &["base \"base\"", "used twice"]), (55, &["motor \"left\" already belongs to base \"base\""])];
    assert_messages(&with_line(51, base), expected);
}

#[test]
fn names_that_cannot_be() {
    let letters = "letters, digits, dots, dashes and underscores";
    let long = format!("name = \"{}\"", "b".repeat(33));
    assert_each(&[
        (11, "name = \"li ft\"", (11, &["motor \"li ft\"", "\"name\"", letters])),
        (11, "name = \"hübe\"", (11, &["motor \"hübe\"", "\"name\"", letters])),
        (47, &long, (47, &["base \"bbb", "\"name\" may have up to 32"])),
        (9, "interface = \"can0123456789abc\"", (9, &["bus \"can0\"", "\"interface\"", "up to 15"])),
        (9, "interface = \"../can0\"", (9, &["\"interface\" cannot be \"../can0\""])),
    ]);
}

#[test]
fn names_that_nobody_has() {
    assert_each(&[
        (12, "bus = \"can7\"", (12, &["motor \"lift\"", "bus \"can7\" is not configured", "buses: can0"])),
        (
            13,
            "driver = \"steam\"",
            (13, &["motor \"lift\"", "driver \"steam\"", "known drivers: ", "cia402, ", ", odrive"]),
        ),
        (48, "left = [\"lleft\"]", (48, &["base \"base\"", "motor \"lleft\"", "lift, joint, left, right"])),
    ]);
}

#[test]
fn durations_out_of_range() {
    let window = &["[front]", "\"heartbeat_window\" must be between [30ms, 1m]"];
    assert_each(&[
        // 1ms and 2m are what RDK's own test of its configuration refuses, 30ms what it accepts.
        (5, "heartbeat_window = \"1ms\"", (5, window)),
        (5, "heartbeat_window = \"29999us\"", (5, window)),
        (5, "heartbeat_window = \"2m\"", (5, window)),
        (5, "heartbeat_window = \"60.001s\"", (5, window)),
        (5, "refresh = \"1s\"", (5, &["\"refresh\" must be between [5ms, 500ms], not \"1s\""])),
        (5, "grant_timeout = \"1ms\"", (5, &["\"grant_timeout\" must be between [10ms, 5s]"])),
        (5, "enable_timeout = \"1m\"", (5, &["\"enable_timeout\" must be between [50ms, 30s]"])),
        (2, "tick = \"21ms\"", (2, &["[supervisor]", "\"tick\" must be between [1ms, 20ms]"])),
        (2, "front_window = \"20ms\"", (2, &["\"front_window\" must be between [30ms, 5s]"])),
        (2, "stop_repeat = \"1s\"", (2, &["\"stop_repeat\" must be between [1ms, 200ms]"])),
        (2, "stage_timeout = \"11s\"", (2, &["\"stage_timeout\" must be between [20ms, 10s]"])),
        (18, "stage_timeout = \"1ms\"", (18, &["motor \"lift\"", "between [20ms, 10s]"])),
        (5, "heartbeat_window = \"soon\"", (5, &["must be a duration like \"250ms\"", "not \"soon\""])),
        (5, "heartbeat_window = \"2 s\"", (5, &["must be a duration like \"250ms\"", "not \"2 s\""])),
    ]);
    for right in ["30ms", "0.03s", "30000us", "60s", "1m"] {
        let text = with_line(5, &format!("heartbeat_window = \"{right}\""));
        assert!(Config::parse(Path::new("robot.toml"), &text).is_ok(), "{right}");
    }
}

#[test]
fn numbers_and_words_out_of_range() {
    assert_each(&[
        (2, "priority = 99", (2, &["\"priority\" must be 1 to 98, not 99"])),
        (2, "cpu = -1", (2, &["\"cpu\" must be 0 to 1023, not -1"])),
        (2, "max_sessions = 1025", (2, &["\"max_sessions\" must be 1 to 1024, not 1025"])),
        (2, "max_motors = 99999999999999999999", (2, &["\"max_motors\" must be 1 to 256"])),
        (
            2,
            "reset = \"never\"",
            (2, &["\"reset\" must be", "\"manual\"", "\"neutral\"", "\"auto\"", ", not \"never\""]),
        ),
        (5, "listen = \"localhost\"", (5, &["\"listen\"", "like \"127.0.0.1:8080\", not \"localhost\""])),
        (5, "max_connections = 0", (5, &["\"max_connections\" must be 1 to 65535, not 0"])),
        (14, "after_stop = \"brake\"", (14, &["\"hold\"", "\"release\"", "falls", "not \"brake\""])),
        (15, "max_rpm = 0", (15, &["motor \"lift\"", "\"max_rpm\" must be 0.01 to 200000, not 0"])),
        (15, "max_rpm = nan", (15, &["\"max_rpm\" must be 0.01 to 200000, not nan"])),
        (18, "standstill_rpm = -1", (18, &["\"standstill_rpm\" must be 0.001 to 1000, not -1"])),
        (16, "node = 64", (16, &["motor \"lift\" (odrive)", "\"node\" must be 0 to 63, not 64"])),
        (17, "firmware = \"0.7\"", (17, &["\"firmware\" must be one of 0.5, 0.6, not \"0.7\""])),
        (27, "quick_stop_option = 2", (27, &["motor \"joint\"", "takes the torque away", "use 5 or 6"])),
        (27, "master_node = 5", (27, &["\"master_node\" must differ from \"node\" (5)"])),
        (50, "wheel_circumference_mm = 0", (50, &["base \"base\"", "must be 1 to 10000, not 0"])),
        (49, "right = []", (46, &["base \"base\"", "\"right\" must name at least one motor"])),
    ]);
}

#[test]
fn required_keys_that_are_missing() {
    // What is missing has no line of its own: the message stands at the head of its table.
    assert_each(&[
        (12, "", (10, &["motor \"lift\"", "\"bus\" is missing; give the name of a [[bus]]"])),
        (13, "", (10, &["motor \"lift\"", "\"driver\" is missing"])),
        (14, "", (10, &["motor \"lift\"", "\"after_stop\" is missing", "hold", "release", "falls"])),
        (15, "", (10, &["motor \"lift\"", "\"max_rpm\" is missing"])),
        (16, "", (10, &["motor \"lift\" (odrive)", "\"node\" is missing", "0 to 63"])),
        (17, "", (10, &["motor \"lift\" (odrive)", "\"firmware\" is missing", "0.5, 0.6"])),
        (25, "", (19, &["motor \"joint\" (cia402)", "\"node\" is missing", "1 to 127"])),
        (26, "", (19, &["motor \"joint\" (cia402)", "\"counts_per_rev\" is missing"])),
        (48, "", (46, &["base \"base\"", "\"left\" must name at least one motor"])),
        (51, "", (46, &["base \"base\"", "\"width_mm\" is missing"])),
    ]);
    // Without its bus no motor has one.
    let found = mistakes(&with_line(8, "interface = \"can0\"")).to_string();
    assert!(found.starts_with("robot.toml:7: [[bus]]: \"name\" is missing"), "{found}");
}

#[test]
fn values_of_the_wrong_type() {
    assert_each(&[
        (2, "tick = 5", (2, &["[supervisor]", "\"tick\" must be a text", "integer"])),
        (2, "cpu = \"3\"", (2, &["\"cpu\" must be a whole number"])),
        (2, "priority = 80.5", (2, &["\"priority\" must be a whole number"])),
        (2, "reset = true", (2, &["\"reset\" must be a text"])),
        (9, "fd = \"yes\"", (9, &["bus \"can0\"", "\"fd\" must be true or false"])),
        (14, "after_stop = false", (14, &["motor \"lift\"", "\"after_stop\" must be a text"])),
        (15, "max_rpm = \"300\"", (15, &["motor \"lift\"", "\"max_rpm\" must be a number"])),
        (18, "reversed = 1", (18, &["motor \"lift\"", "\"reversed\" must be true or false"])),
        (16, "node = \"3\"", (16, &["motor \"lift\"", "\"node\" must be a whole number"])),
        (17, "firmware = 0.6", (17, &["\"firmware\" must be a text, one of 0.5, 0.6"])),
        (48, "left = [\"left\", 2]", (48, &["base \"base\"", "\"left\" must hold texts only"])),
    ]);
    assert_messages(
        "supervisor = 5\nbus = 3\nmotor = 1\nfront = []",
        &[
            (1, &["\"supervisor\" must be a table: [supervisor]"]),
            (1, &["no [[bus]] is configured"]),
            (1, &["no [[motor]] is configured"]),
            (2, &["\"bus\" must be written as [[bus]]"]),
            (3, &["\"motor\" must be written as [[motor]]"]),
            (4, &["\"front\" must be a table: [front]"]),
        ],
    );
}

#[test]
fn motors_that_would_hear_each_other() {
    let id = "arbitration id";
    assert_each(&[
        (34, "node = 3", (28, &["motor \"left\"", id, "belongs to motor \"lift\"", "another node id"])),
        // By default the supervisor's heartbeat comes from node 127.
        (25, "node = 127", (19, &["\"master_node\" must differ from \"node\" (127)"])),
    ]);
    // An ODrive of node 48 is told its axis state with 48 << 5 | 7 = 0x607, the SDO requests of node 7.
    let families = GOOD.replace("node = 3\n", "node = 48\n").replace("node = 5\n", "node = 7\n");
    assert_messages(&families, &[(19, &["motor \"joint\"", id, "id 0x607", "motor \"lift\""])]);
    let elbow = "master_node = 6\n[[motor]]\nname = \"elbow\"\nbus = \"can0\"\ndriver = \"cia402\"\n\
                 after_stop = \"hold\"\nmax_rpm = 1\nnode = 6\ncounts_per_rev = 1000\n";
    let words: &[&str] = &["motor \"joint\"", "heartbeat", "id 0x706", "motor \"elbow\"", "master_node"];
    assert_messages(&with_line(27, elbow), &[(19, words)]);
}

#[test]
fn too_few_and_too_many() {
    assert_messages("", &[(1, &["no [[bus]] is configured"]), (1, &["no [[motor]] is configured"])]);
    assert_messages(&GOOD[..GOOD.find("[[motor]]").unwrap()], &[(1, &["no [[motor]]", "nothing to stop"])]);
    assert_each(&[(2, "max_motors = 3", (37, &["4 motors", "room for 3", "max_motors", "up to 256"]))]);
    let buses: String = (1..17).map(|n| format!("[[bus]]\nname = \"can{n}\"\n")).collect();
    assert_messages(&with_line(9, &buses), &[(1, &["17 buses are configured; at most 16"])]);
}

#[test]
fn what_is_no_toml() {
    for (number, line) in [(5, "heartbeat_window = 2s"), (7, "[[bus]"), (11, "name = \"lift"), (2, "tick")] {
        assert_messages(&with_line(number, line), &[(number, &[])]);
    }
    assert_each(&[(6, "heartbeat_window = \"1s\"", (6, &["duplicate key"]))]);
}

#[test]
fn all_mistakes_of_a_file_are_told_in_the_order_of_the_file() {
    let text = GOOD.replace("\"5ms\"", "\"5h\"").replace("node = 3\n", "").replace("410", "-1");
    let expected: &[Message<'_>] =
        &[(2, &["\"tick\""]), (10, &["\"node\" is missing"]), (50, &["\"width_mm\" must be 1 to 10000"])];
    assert_messages(&text, expected);
}

#[test]
fn a_file_that_cannot_be_read() {
    let error = Config::load(Path::new("/no/such/lanyard.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/no/such/lanyard.toml: cannot read the configuration: "), "{error}");
}

#[test]
fn holes() {
    assert_each(&[
        // An empty text is no text.
        (8, "name = \"can0\"\ninterface = \"\"", (9, &["bus \"can0\"", "\"interface\" must not be empty"])),
        (2, "socket = \"\"", (2, &["[supervisor]", "\"socket\" must not be empty"])),
        (2, "socket = \"/a\"\nestop = \"/a\"", (3, &["[supervisor]", "\"estop\" must be another path than"])),
        (
            2,
            "max_lateness = \"50ms\"",
            (2, &["[supervisor]", "\"max_lateness\" (50 ms) must be shorter than"]),
        ),
        (2, "kernel_stop = \"20ms\"", (2, &["[supervisor]", "\"kernel_stop\" (20 ms)"])),
        (
            2,
            "front_socket = \"/a\"\noperator_socket = \"/a\"",
            (3, &["\"operator_socket\" must be another path than"]),
        ),
        (2, "socket = \"/a.estop\"", (2, &["[supervisor]", "\"estop\" must be another path than"])),
        (11, "name = \"\"", (11, &["[[motor]]", "\"name\" must not be empty"])),
        (12, "bus = \"\"", (12, &["motor \"lift\"", "\"bus\" must not be empty"])),
        (13, "driver = \"\"", (13, &["motor \"lift\"", "\"driver\" must not be empty"])),
        (14, "after_stop = \"\"", (14, &["motor \"lift\"", "\"after_stop\" must not be empty"])),
        // A motor with a mistake is still a motor: the base that names it is not wrong.
        (34, "node = 64", (34, &["motor \"left\"", "0 to 63"])),
        // One mistake, one message.
        (16, "node = [3]", (16, &["motor \"lift\"", "\"node\" must be a whole number"])),
        // Common keys have lines, too.
        (26, "counts_per_rev = 100\nstandstill_rpm = 0.1", (27, &["motor \"joint\"", "\"standstill_rpm\""])),
        // 0x1000 is 4096, not 1000.
        (15, "max_rpm = 0x100000", (15, &["\"max_rpm\" must be 0.01 to 200000"])),
    ]);
    // Every unknown key of a motor, with all the keys it could be.
    let expected: &[Message<'_>] = &[
        (18, &["motor \"lift\" (odrive)", "\"standstil_rpm\"", "standstill_rpm", "node, firmware"]),
        (19, &["motor \"lift\" (odrive)", "\"colour\""]),
    ];
    assert_messages(&with_line(18, "standstil_rpm = 1\ncolour = \"red\""), expected);
    // An ODrive of node 56 would take the supervisor's heartbeat for its axis state.
    let heartbeat = with_line(27, "master_node = 7\n").replace("node = 3\n", "node = 56\n");
    let own: &[&str] = &["motor \"joint\"", "id 0x705", "motor \"lift\"", "another node id"];
    let words: &[&str] = &["motor \"joint\"", "id 0x707", "motor \"lift\"", "another master_node"];
    assert_messages(&heartbeat, &[(19, own), (19, words)]);
}

/// Fails if gravity is forgotten: no default is guessed for an axis that falls.
#[test]
fn vertical_axes() {
    let falls: &[&str] = &["motor \"lift\"", "vertical axis", "falls", "hold", "brake = true"];
    assert_each(&[(14, "vertical = true\nafter_stop = \"release\"", (15, falls))]);
    assert_each(&[(14, "vertical = true", (10, &["motor \"lift\"", "\"after_stop\" is missing"]))]);
    for line in
        ["vertical = true\nafter_stop = \"hold\"", "vertical = true\nbrake = true\nafter_stop = \"release\""]
    {
        assert!(Config::parse(Path::new("x"), &with_line(14, line)).is_ok(), "{line}");
    }
}

#[test]
fn second_buses() {
    let words: &[&str] = &["motor \"lift\"", "second_bus \"can1\"", "known buses: can0"];
    assert_each(&[
        (13, "driver = \"odrive\"\nsecond_bus = \"can1\"", (14, words)),
        (13, "driver = \"odrive\"\nsecond_bus = \"can0\"", (14, &["second_bus \"can0\"", "first one"])),
    ]);
    // Its identifiers must be free there, too.
    let two = GOOD.replacen("[[bus]]", "[[bus]]\nname = \"can1\"\n[[bus]]", 1);
    let clash = two.replacen("bus = \"can0\"\ndriver", "bus = \"can0\"\nsecond_bus = \"can1\"\ndriver", 1)
        + "[[motor]]\nname = \"other\"\nbus = \"can1\"\ndriver = \"odrive\"\nnode = 3\nfirmware = \"0.6\"\n\
           after_stop = \"hold\"\nmax_rpm = 1\n";
    let words: &[&str] = &["motor \"other\"", "bus \"can1\"", "belongs to motor \"lift\"", "another node id"];
    assert_messages(&clash, &[(55, words)]);
}

#[test]
fn access() {
    let relative = "must be an absolute path, not \"keys.toml\"";
    let lifetime = "\"token_lifetime\" must be between [1s, 744h]";
    assert_each(&[
        (5, "keys = \"keys.toml\"", (5, &["[front]", "\"keys\"", relative])),
        (5, "keys = true", (5, &["\"keys\" must be a text"])),
        (5, "certificate = \"/a\"", (4, &["[front]", "\"private_key\" is missing"])),
        (5, "private_key = \"/a\"", (4, &["[front]", "\"certificate\" is missing"])),
        (5, "insecure = \"yes\"", (5, &["\"insecure\" must be true or false"])),
        (5, "token_lifetime = \"0s\"", (5, &[lifetime, "not \"0s\""])),
        (5, "token_lifetime = \"745h\"", (5, &[lifetime])),
        (5, "token_lifetime = \"1d\"", (5, &["must be a duration like \"250ms\"", "not \"1d\""])),
    ]);
    let text =
        with_line(5, "certificate = \"/c\"\nprivate_key = \"/k\"\nkeys = \"/keys\"\ntoken_lifetime = \"1h\"");
    let access = Config::parse(Path::new("x"), &text).unwrap_or_else(|error| panic!("{error}")).front.access;
    let tls = TlsFiles { certificate: "/c".into(), private_key: "/k".into() };
    assert_eq!((access.tls, access.exposure), (Some(tls), Exposure::Refused));
    assert_eq!((access.keys, access.token_lifetime), ("/keys".into(), Duration::from_secs(3_600)));
    let open = Config::parse(Path::new("x"), &with_line(5, "insecure = true")).unwrap();
    assert_eq!(open.front.access.exposure, Exposure::Insecure);
}

const FRAMES: &str = r#"
[[bus]]
name = "can0"
[[motor]]
name = "lift"
bus = "can0"
driver = "frames"
after_stop = "release"
max_rpm = 600
controlled = ["141#8100000000000000"]
torque_off = ["141#8000000000000000"]
velocity = "141#A200000000000000"
velocity_byte = 4
velocity_type = "i32le"
velocity_rpm_per_count = 0.001
feedback = "241#9C.............."
speed_byte = 4
speed_type = "i16le"
speed_rpm_per_count = 0.1
power_byte = 1
power_on = [0x01]
power_off = [0, 2]
power_fault = []
"#;

/// A motor whose frames stand in the file: each mistake at the line of its key.
#[test]
fn lists_of_frames_and_of_values() {
    let config = Config::parse(Path::new("robot.toml"), FRAMES).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.motors[0].drive.stop.stages().len(), 2);
    for (line, old, new, words) in [
        (
            11,
            "[\"141#8000000000000000\"]",
            "[\"141#80\", \"141\"]",
            &["\"torque_off\" cannot be \"141\""][..],
        ),
        (11, "[\"141#8000000000000000\"]", "[]", &["\"torque_off\" is missing"][..]),
        (
            11,
            "[\"141#8000000000000000\"]",
            "[\"141#80\", 7]",
            &["\"torque_off\" must be a list of texts or"][..],
        ),
        (11, "[\"141#8000000000000000\"]", "\"141#80\"", &["\"torque_off\" must be a list of texts"][..]),
        (22, "[0, 2]", "[0, 300]", &["\"power_off\" must hold numbers from 0 to 255, not 300"][..]),
        (22, "[0, 2]", "[0, 1.5]", &["\"power_off\" must be a list of texts or of whole numbers"][..]),
        (22, "[0, 2]", "[1]", &["\"power_off\" names 1"][..]),
        (21, "[0x01]", "{ on = 1 }", &["\"power_on\" cannot be a table"][..]),
    ] {
        let text: String = FRAMES
            .lines()
            .enumerate()
            .map(|(index, text)| if index + 1 == line { text.replace(old, new) } else { text.to_owned() })
            .flat_map(|text| [text, "\n".to_owned()])
            .collect();
        assert_ne!(text, FRAMES, "{old} is not in line {line}");
        assert_messages(&text, &[(line, words)]);
    }
}

/// A robot of these motors, each `name = ...` with its lines, on a classic bus.
fn robot(motors: &[(&str, &str)], rest: &str) -> String {
    let motor = |(name, lines): &(&str, &str)| {
        format!(
            "[[motor]]\nname = \"{name}\"\nbus = \"can0\"\nafter_stop = \"release\"\nmax_rpm = 100\n{lines}"
        )
    };
    "[[bus]]\nname = \"can0\"\n".to_owned() + &motors.iter().map(motor).collect::<String>() + rest
}

const C620: &str = "driver = \"dji\"\nmodel = \"c620\"\n";

/// Fails if motors that only one frame can command may be driven by two clients.
#[test]
fn joint_frames() {
    let (one, two) = (format!("{C620}id = 1\n"), format!("{C620}id = 2\n"));
    let apart = robot(&[("a", &one), ("b", &two)], "");
    let words: &[&str] = &["motor \"b\"", "motor \"a\"", "one frame, 0x200", "one session", "one [[base]]"];
    assert_messages(&apart, &[(11, words)]);
    let base = "[[base]]\nname = \"base\"\nleft = [\"a\"]\nright = [\"b\"]\nwheel_circumference_mm = 100\nwidth_mm = 100\n";
    let whole = robot(&[("a", &one), ("b", &two)], base);
    assert!(Config::parse(Path::new("x"), &whole).is_ok());
    // Of another frame, nobody cares.
    let five = format!("{C620}id = 5\n");
    assert!(Config::parse(Path::new("x"), &robot(&[("a", &one), ("b", &five)], "")).is_ok());
    // Reached by different buses.
    let second = "[[bus]]\nname = \"can1\"\n".to_owned()
        + &whole.replacen("name = \"b\"\n", "name = \"b\"\nsecond_bus = \"can1\"\n", 1);
    assert_messages(&second, &[(13, &["motor \"b\"", "\"bus\" and \"second_bus\" must be the same"])]);
    // Two motors with one id.
    let words: &[&str] = &["motor \"b\"", "id 0x201", "belongs to motor \"a\"", "another node id"];
    assert_messages(&robot(&[("a", &one), ("b", &one)], ""), &[(11, words)]);
}

/// Fails if a command for one motor may move another.
#[test]
fn commands_for_two() {
    let esc = |node: u8, index: u8, source: u8| {
        format!(
            "driver = \"dronecan\"\nesc_node = {node}\nindex = {index}\ncommand = \"rpm\"\nsource_node = {source}\n"
        )
    };
    let base = "[[base]]\nname = \"base\"\nleft = [\"a\"]\nright = [\"b\"]\nwheel_circumference_mm = 100\nwidth_mm = 100\n";
    let words: &[&str] = &["motor \"b\"", "motor \"a\"", "move the other, too", "different ids or places"];
    assert_messages(&robot(&[("a", &esc(20, 0, 125)), ("b", &esc(21, 0, 125))], base), &[(13, words)]);
    assert_messages(&robot(&[("a", &esc(20, 0, 125)), ("b", &esc(21, 0, 124))], base), &[(13, words)]);
    let good = robot(&[("a", &esc(20, 0, 125)), ("b", &esc(21, 1, 125))], base);
    assert!(Config::parse(Path::new("x"), &good).is_ok());
}

#[test]
fn what_a_family_cannot_do() {
    let moteus = robot(&[("a", "driver = \"moteus\"\nid = 1\n")], "");
    assert_messages(&moteus, &[(3, &["motor \"a\"", "needs CAN FD", "fd = true on bus \"can0\""])]);
    let vesc = robot(&[("a", "driver = \"vesc\"\nid = 255\npole_pairs = 7\n")], "");
    assert_messages(&vesc, &[(9, &["motor \"a\" (vesc)", "\"id\" must be 0 to 254, not 255"])]);
    let held = robot(&[("a", &format!("{C620}id = 1\n"))], "").replace("\"release\"", "\"hold\"");
    assert_messages(&held, &[(6, &["motor \"a\" (dji)", "\"after_stop\"", "cannot hold", "brake"])]);
    // Identifiers that a family has in common on a bus are no other family's.
    let foreign = robot(
        &[
            ("a", &format!("{C620}id = 1\n")),
            ("b", "driver = \"cia402\"\nnode = 127\nmaster_node = 1\ncounts_per_rev = 100\n"),
        ],
        "",
    );
    let words: &[&str] = &["motor \"b\"", "0x1FF", "dji drives (motor \"a\") have in common", "another bus"];
    assert_messages(&foreign, &[(11, words)]);
}

/// Fails if a watchdog that would never bite, or bites a machine that is only busy, is taken.
#[test]
fn a_hardware_watchdog_is_a_device_and_whole_seconds() {
    let robot = |keys: &str| GOOD.replacen("[supervisor]\n", &format!("[supervisor]\n{keys}\n"), 1);
    assert!(GOOD.starts_with("[supervisor]\n"), "the lines below count from there");
    let config =
        Config::parse(Path::new("robot.toml"), &robot("watchdog = \"/dev/watchdog0\"")).expect("valid");
    let watchdog = config.supervisor.watchdog.expect("a watchdog");
    assert_eq!(
        (watchdog.device.as_path(), watchdog.timeout),
        (Path::new("/dev/watchdog0"), Duration::from_secs(10))
    );
    for (keys, line, words) in [
        ("watchdog = \"watchdog0\"", 2, &["must be the path of a device"][..]),
        ("watchdog_timeout = \"10s\"", 2, &["means nothing without \"watchdog\""]),
        ("watchdog = \"/dev/watchdog0\"\nwatchdog_timeout = \"2500ms\"", 3, &["whole seconds"]),
        ("watchdog = \"/dev/watchdog0\"\nwatchdog_timeout = \"1s\"", 3, &["must be between [2s, 1m]"]),
        ("watchdog = \"/dev/watchdog0\"\nwatchdog_timeout = \"61s\"", 3, &["must be between [2s, 1m]"]),
    ] {
        assert_messages(&robot(keys), &[(line, words)]);
    }
}
