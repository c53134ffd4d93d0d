//! The longest window of a motor: its default, and what it does to everything that drives the motor.

use std::path::Path;
use std::time::Duration;

use lanyard_config::Config;

const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Two wheels with a base, and an arm of one joint; `keys` are of the first wheel, `front` of `[front]`.
fn robot(front: &str, keys: &str, more: &str) -> Config {
    let motor = |name: &str, node: u8, keys: &str| {
        format!(
            "[[motor]]\nname = \"{name}\"\nbus = \"can0\"\ndriver = \"odrive\"\nnode = {node}\nfirmware = \"0.6\"\n\
             after_stop = \"hold\"\nmax_rpm = 300\n{keys}\n"
        )
    };
    let motors = motor("left", 3, keys) + &motor("right", 4, "") + &motor("j1", 5, "");
    let base = "[[base]]\nname = \"base1\"\nleft = [\"left\"]\nright = [\"right\"]\nwheel_circumference_mm = 500\n\
                width_mm = 400\n";
    let text = format!("[front]\n{front}\n[[bus]]\nname = \"can0\"\n{motors}{base}{more}");
    Config::parse(Path::new("robot.toml"), &text).unwrap_or_else(|error| panic!("{error}"))
}

/// Fails if the default shortens what the configuration gives, or if a client could have more than that.
#[test]
fn by_default_it_is_the_longest_that_the_configuration_gives() {
    let config = robot("heartbeat_window = \"700ms\"\nlease_window = \"500ms\"", "", "");
    assert_eq!(config.motors[0].max_window, millis(700));
    let config = robot("heartbeat_window = \"700ms\"\nlease_window = \"900ms\"", "", "");
    assert_eq!(config.motors[0].max_window, millis(900));
    let config = robot("heartbeat_window = \"700ms\"\nsessionless = \"refuse\"", "", "");
    assert_eq!(config.motors[0].max_window, millis(700), "there are no leases");
    assert_eq!(config.bases[0].rules.window, None, "nothing is shorter than its session's");
    let link = "[tunnel]\n[[tunnel.target]]\nname = \"arm\"\nprotocol = \"tcp\"\naddress = \"127.0.0.1:9\"\n\
                motors = [\"j1\"]\nwindow = \"5s\"\nbeat = \"bytes\"\n";
    let config = robot("heartbeat_window = \"700ms\"\nlease_window = \"700ms\"", "", link);
    assert_eq!(config.motors[2].max_window, millis(5_000));
    assert_eq!(config.motors[0].max_window, millis(700), "the link does not drive it");
}

/// Fails if what drives the motor is told a longer window than the supervisor allows.
#[test]
fn everything_that_drives_the_motor_is_shortened() {
    let config = robot("", "max_window = \"300ms\"", "");
    assert_eq!(config.motors[0].max_window, millis(300));
    assert_eq!(config.motors[0].rules.window, Some(millis(300)));
    assert_eq!(config.bases[0].rules.window, Some(millis(300)));
    assert_eq!(config.motors[1].rules.window, None);
    let config = robot("", "max_window = \"300ms\"\nwindow = \"200ms\"", "");
    assert_eq!(config.motors[0].rules.window, Some(millis(200)), "its own is shorter");
    let config = robot("", "max_window = \"300ms\"\nwindow = \"400ms\"", "");
    assert_eq!(config.motors[0].rules.window, Some(millis(300)));
}
