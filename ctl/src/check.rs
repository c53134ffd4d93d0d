//! `lanyard check`: the mistakes in a configuration, and what deserves a second look.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use config::kernel_plan::KernelPlan;
use config::{BeatOf, Bus, Config, Drives, Exposure, Logins, Motor, Port, Service, TunnelTarget};
use drivers::WatchdogSet;
use shm_proto::verdicts::ResetPolicy;

/// Below this a window is shorter than what an ordinary network and a busy client need between two beats.
const SHORT_WINDOW: Duration = Duration::from_millis(100);

/// Writes what is in the file to `out`, or its mistakes to `errors`. True: it is valid.
pub fn run(file: &Path, out: &mut dyn Write, errors: &mut dyn Write) -> io::Result<bool> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(problems) => {
            writeln!(errors, "{problems}")?;
            return Ok(false);
        }
    };
    let name = file.display();
    let count = [
        plural(config.buses.len(), "bus", "buses"),
        plural(config.motors.len(), "motor", "motors"),
        plural(config.bases.len(), "base", "bases"),
    ];
    writeln!(out, "{name}: ok: {}", count.join(", "))?;
    for warning in warnings(&config) {
        writeln!(out, "{name}: warning: {warning}")?;
    }
    Ok(true)
}

fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What is allowed and still often not meant.
pub fn warnings(config: &Config) -> Vec<String> {
    let (supervisor, front) = (&config.supervisor, &config.front);
    let mut warnings = Vec::new();
    warnings.extend(config.ports().filter_map(|port| open_to_others(config, &port)));
    if supervisor.reset == ResetPolicy::Auto {
        warnings.push(
            "[supervisor] reset = \"auto\": after a trip a new session may drive at once, nobody has to look; with \
             reset = \"neutral\" its client must send a Stop first"
                .to_owned(),
        );
    }
    if supervisor.cpu.is_none() {
        warnings.push(
            "[supervisor] cpu is not set: the real-time thread is not pinned, other work can delay a stop"
                .to_owned(),
        );
    }
    if front.heartbeat_window < SHORT_WINDOW {
        warnings.push(format!(
            "[front] heartbeat_window = \"{}ms\": below 100 ms an ordinary client or network can be late and \
             stop the robot without need",
            front.heartbeat_window.as_millis()
        ));
    }
    warnings.extend((0..config.buses.len()).filter_map(|bus| crowded(config, bus)));
    warnings.extend(config.buses.iter().filter(|bus| bus.drives == Drives::Local).map(local));
    warnings.extend(config.motors.iter().filter_map(|motor| impatient(motor, front.refresh)));
    warnings.extend(config.tunnel.iter().flat_map(|tunnel| &tunnel.targets).filter_map(kept_by_any_bytes));
    warnings
}

/// What other computers could do. Whether there are keys is the machine's matter, not the file's: see the doctor.
fn open_to_others(config: &Config, port: &Port) -> Option<String> {
    let what = match (port.exposure, config.danger(port, Logins::Required)) {
        _ if config.danger(port, Logins::None).is_none() => return None,
        (Exposure::Insecure, _) => {
            "with insecure = true: whoever can connect can drive the robot, or read the keys that go by"
        }
        (Exposure::Refused, Some(_)) => match port.service {
            Service::Grpc | Service::Tunnels => "without a certificate: the front will not start",
            Service::Kortex => "is in plain text, because Kortex has no TLS: the front will not start",
            Service::Links => {
                "lets whoever reaches it drive the robot, because nobody logs in to a link: the front will not start"
            }
        },
        (Exposure::Refused, None) => return None,
    };
    Some(format!("{port} {what}"))
}

/// A bus whose drives any program can speak for.
fn local(bus: &Bus) -> String {
    format!(
        "bus \"{}\": local_drives = true: whatever a program of this computer says in the name of a drive counts, also \
         that it stands still; for simulated drives only, never on a robot",
        bus.name
    )
}

/// A bus whose last motor is told late to stop when the supervisor is gone. How fast the bus is, the file does not tell.
fn crowded(config: &Config, bus: usize) -> Option<String> {
    let name = &config.buses[bus].name;
    let plan = match KernelPlan::of(config, bus, None) {
        Ok(plan) => plan,
        Err(problem) => return Some(problem),
    };
    plan.is_spread_out().then(|| {
        format!(
            "bus \"{name}\": if the supervisor is killed or hangs, the last motor is sent its first stop {} ms after \
             kernel_stop, unless the interface tells a bit rate that allows for less (lanyard doctor says so); spread the \
             motors over two buses",
            plan.spread().as_millis()
        )
    })
}

/// A drive whose own watchdog does not wait for three commands: two may be late or lost.
fn impatient(motor: &Motor, refresh: Duration) -> Option<String> {
    let WatchdogSet::ByLanyard(window) = motor.drive.watchdog.set else { return None };
    (motor.drive.heartbeat.is_none() && window < refresh * 3).then(|| {
        format!(
            "motor \"{}\": its drive waits {} ms for the next command, and [front] refresh sends one every {} ms: it \
             may stop by itself while it is driven; at least three of them should fit",
            motor.name,
            window.as_millis(),
            refresh.as_millis()
        )
    })
}

/// A link whose motors go on for whoever sends anything at all.
fn kept_by_any_bytes(target: &TunnelTarget) -> Option<String> {
    (target.is_supervised() && target.beat == BeatOf::Bytes).then(|| {
        format!(
            "target \"{}\": beat = \"bytes\": whatever comes over a link keeps its motors moving, also when the program that \
             drives them is dead and something beside it goes on sending",
            target.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOTOR: &str = "[[bus]]\nname = \"can0\"\n[[motor]]\nname = \"m\"\nbus = \"can0\"\n\
        driver = \"odrive\"\nfirmware = \"0.6\"\nnode = 1\nafter_stop = \"hold\"\nmax_rpm = 100\n";

    fn warnings_of(head: &str) -> Vec<String> {
        let config = Config::parse(Path::new("robot.toml"), &format!("{head}{MOTOR}"));
        warnings(&config.unwrap_or_else(|error| panic!("{error}")))
    }

    #[test]
    fn a_careful_file_has_no_warning() {
        assert_eq!(warnings_of("[supervisor]\ncpu = 3\n"), [""; 0]);
        assert_eq!(warnings_of("[supervisor]\ncpu = 3\n[front]\nlisten = \"[::1]:80\"\n"), [""; 0]);
    }

    #[test]
    fn what_is_often_not_meant_is_said() {
        let head = "[supervisor]\nreset = \"auto\"\n[front]\nlisten = \"0.0.0.0:8080\"\nheartbeat_window = \"99ms\"\n\
            insecure = true\n";
        let warnings = warnings_of(head);
        let expected = ["listen = \"0.0.0.0:8080\"", "reset = \"auto\"", "cpu is not set", "\"99ms\""];
        assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.contains(expected), "{warning:?} lacks {expected:?}");
        }
    }

    #[test]
    fn a_front_that_will_not_start_or_is_open_is_told() {
        let listen = "[supervisor]\ncpu = 3\n[front]\nlisten = \"0.0.0.0:8080\"\n";
        let tls = "certificate = \"/c\"\nprivate_key = \"/k\"\n";
        assert!(warnings_of(listen)[0].contains("without a certificate: the front will not start"));
        assert_eq!(warnings_of(&format!("{listen}{tls}")), [""; 0]);
        assert!(warnings_of(&format!("{listen}{tls}insecure = true\n"))[0].contains("can drive the robot"));
    }

    #[test]
    fn so_is_every_port_of_kortex() {
        let warnings_of = |front: &str, more: &str| {
            let kortex = "[kortex]\ntcp = \"0.0.0.0\"\nudp = \"127.0.0.1\"\nmqtt = \"0.0.0.0:18830\"\n\
                [[kortex.joint]]\nmotor = \"m\"\n";
            warnings_of(&format!(
                "[supervisor]\ncpu = 3\n[front]\n{front}{}",
                kortex.replace("[[", &format!("{more}[["))
            ))
        };
        let refused =
            warnings_of("listen = \"0.0.0.0:8080\"\ncertificate = \"/c\"\nprivate_key = \"/k\"\n", "");
        let expected = [
            "[kortex] tcp = \"0.0.0.0:10000\" is in plain text, because Kortex has no TLS: the front will not start",
            "[kortex] mqtt = \"0.0.0.0:18830\" is in plain text, because Kortex has no TLS: the front will not start",
        ];
        assert_eq!(refused, expected);
        let insecure = warnings_of("", "insecure = true\n");
        assert_eq!(insecure.len(), 2, "{insecure:#?}");
        assert!(insecure.iter().all(|warning| warning.contains("can drive the robot")), "{insecure:#?}");
    }

    #[test]
    fn motors_that_any_bytes_keep_moving_are_told() {
        let link = |speaks: &str| {
            warnings_of(&format!(
                "[supervisor]\ncpu = 3\n[tunnel]\n[[tunnel.target]]\nname = \"can\"\nprotocol = \"tcp\"\naddress = \
                 \"127.0.0.1:1\"\nmotors = [\"m\"]\nwindow = \"1s\"\n{speaks}"
            ))
        };
        for speaks in ["beat = \"bytes\"\n", "speaks = \"socketcand\"\nbeat = \"bytes\"\n"] {
            let warnings = link(speaks);
            assert_eq!(warnings.len(), 1, "{warnings:#?}");
            assert!(warnings[0].starts_with("target \"can\": beat = \"bytes\": "), "{warnings:#?}");
        }
        assert_eq!(link("speaks = \"socketcand\"\n"), [""; 0]);
    }

    /// 64 motors of two frames at 1 ms each.
    #[test]
    fn a_bus_with_many_motors_is_told() {
        let motors = |count: usize| {
            let motor = |node: usize| {
                format!(
                    "[[motor]]\nname = \"m{node}\"\nbus = \"can0\"\ndriver = \"odrive\"\nfirmware = \"0.6\"\n\
                     node = {node}\nafter_stop = \"hold\"\nmax_rpm = 100\n"
                )
            };
            let head = "[supervisor]\ncpu = 3\n[[bus]]\nname = \"can0\"\n".to_owned();
            let text = (0..count).map(motor).fold(head, |text, motor| text + &motor);
            let config = Config::parse(Path::new("robot.toml"), &text);
            warnings(&config.unwrap_or_else(|error| panic!("{error}")))
        };
        assert_eq!(motors(40), [""; 0]);
        let told = motors(60);
        assert!(told.len() == 1 && told[0].contains("119 ms after kernel_stop"), "{told:?}");
    }

    #[test]
    fn a_watchdog_shorter_than_three_commands_is_told() {
        let moteus = "[[bus]]\nname = \"can0\"\nfd = true\n[[motor]]\nname = \"m\"\nbus = \"can0\"\ndriver = \"moteus\"\n\
            id = 1\nafter_stop = \"release\"\nmax_rpm = 100\nwatchdog_ms = 100\n";
        for (refresh, expected) in [("20ms", 0), ("34ms", 1)] {
            let text = format!("[supervisor]\ncpu = 3\n[front]\nrefresh = \"{refresh}\"\n{moteus}");
            let config =
                Config::parse(Path::new("robot.toml"), &text).unwrap_or_else(|error| panic!("{error}"));
            let warnings = warnings(&config);
            assert_eq!(warnings.len(), expected, "{warnings:#?}");
            assert!(warnings.iter().all(|warning| warning.contains("\"m\"") && warning.contains("100 ms")));
        }
    }

    #[test]
    fn the_example_is_counted_and_a_missing_file_is_an_error() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../lanyard.example.toml");
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        assert!(run(Path::new(example), &mut out, &mut errors).unwrap());
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with(&format!("{example}: ok: 1 bus, 3 motors, 1 base\n")), "{out}");
        assert!(errors.is_empty());

        let (mut out, mut errors) = (Vec::new(), Vec::new());
        assert!(!run(Path::new("/no/such/file.toml"), &mut out, &mut errors).unwrap());
        assert!(out.is_empty());
        assert!(errors.starts_with(b"/no/such/file.toml: cannot read the configuration: "));
    }
}
