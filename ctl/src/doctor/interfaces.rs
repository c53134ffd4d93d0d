//! The CAN interfaces: there, up, and set up so that a stop gets through.

use std::time::Duration;

use config::kernel_plan::KernelPlan;
use config::{Bus, BusFormat, Config, Drives};
use drivers::unattended::BitRates;

use super::Finding;
use super::link::{Link, Links};

/// Bytes of the largest frame an interface with CAN FD takes (`CANFD_MTU`).
const FD_MTU: u32 = 72;
/// Bits of a classic frame with eight bytes and an identifier of 29 bits, stuffed as much as can be.
const LONGEST_FRAME: u64 = 160;
/// Disciplines in which frames of a high priority overtake others.
const WITH_BANDS: [&str; 3] = ["pfifo_fast", "prio", "mqprio"];

/// Looks at the interface of every bus.
pub fn examine(config: &Config, links: &impl Links) -> Vec<Finding> {
    (0..config.buses.len()).flat_map(|bus| examine_one(config, bus, links)).collect()
}

fn examine_one(config: &Config, number: usize, links: &impl Links) -> Vec<Finding> {
    let (bus, repeat) = (&config.buses[number], config.supervisor.stop_repeat);
    let name = &bus.interface;
    let subject = format!("interface \"{name}\"");
    let link = match links.look_at(name) {
        Ok(Some(link)) => link,
        Ok(None) => {
            return vec![Finding::attention(
                &subject,
                "is not there: the supervisor cannot start".to_owned(),
                "is the adapter plugged in, and its overlay in config.txt? dmesg | grep -i can; docs/install.md has \
                 the set-up of common adapters",
            )];
        }
        Err(error) => {
            return vec![Finding::unknown(
                &subject,
                format!("the kernel does not say how it is: {error}"),
                None,
            )];
        }
    };
    if link.kind == "vcan" || link.kind == "vxcan" {
        return vec![simulated(&subject, bus, &link), kernel_stops(&subject, config, number, &link)];
    }
    let mut findings = vec![state(&subject, name, &link)];
    findings.extend((bus.drives == Drives::Local).then(|| spoken_for(&subject)));
    findings.extend(bit_rates(&subject, bus, &link));
    // A driver that does not tell (slcan) has a setting of its own, outside of Linux.
    findings.extend(link.restart.map(|restart| after_bus_off(&subject, name, restart)));
    findings.push(queue(&subject, name, repeat, &link));
    findings.push(discipline(&subject, name, &link));
    findings.push(echo(&subject, &link));
    findings.push(kernel_stops(&subject, config, number, &link));
    findings
}

/// A bus without a wire, or with one that is made of software: whether its drives can be told from other programs.
fn simulated(subject: &str, bus: &Bus, link: &Link) -> Finding {
    match (bus.drives, link.kind.as_str()) {
        (Drives::Local, _) => spoken_for(subject),
        (Drives::OnTheWire, "vcan") => Finding::attention(
            subject,
            "is a vcan: whatever is on it was sent by a program of this computer, and is no feedback"
                .to_owned(),
            "local_drives = true in its [[bus]] for simulated drives; or a pair instead, with the simulated drives at its \
             other end: ip link add NAME type vxcan peer name OTHER",
        ),
        (Drives::OnTheWire, kind) => Finding::good(subject, format!("is a {kind}: nothing to set up")),
    }
}

/// A bus with `local_drives`.
fn spoken_for(subject: &str) -> Finding {
    Finding::attention(
        subject,
        "local_drives = true: whatever a program of this computer says in the name of a drive counts"
            .to_owned(),
        "for simulated drives only: on a robot take local_drives away from its [[bus]]",
    )
}

/// How late the last motor is told to stop when the supervisor is gone, at the bit rate of this bus.
fn kernel_stops(subject: &str, config: &Config, bus: usize, link: &Link) -> Finding {
    let rates = link.bit_rate.map(|nominal| BitRates { nominal, data: link.data_bit_rate });
    let plan = match KernelPlan::of(config, bus, rates) {
        Ok(plan) => plan,
        Err(problem) => {
            return Finding::attention(subject, problem, "spread its drives over two buses");
        }
    };
    let found = format!(
        "if the supervisor is killed or hangs, the kernel has sent every motor its first stop after {} ms \
         (kernel_stop is {} ms), and {} ms after its last word nothing feeds a drive's own watchdog any more",
        plan.last_first_stop.as_millis(),
        plan.times.wait.as_millis(),
        plan.last_fed.as_millis()
    );
    if !plan.is_spread_out() {
        return Finding::good(subject, found);
    }
    Finding::attention(
        subject,
        found,
        "the motors of one bus are told one after the other: spread them over two buses, or raise the bit rate",
    )
}

fn state(subject: &str, name: &str, link: &Link) -> Finding {
    if !link.up {
        let remedy = format!("ip link set {name} up; at every boot: docs/install.md, CAN");
        return Finding::attention(subject, "is down: no stop frame leaves".to_owned(), &remedy);
    }
    match link.state {
        Some(0) => Finding::good(subject, "up, error-active".to_owned()),
        None => {
            Finding::unknown(subject, "up; its driver does not tell the state of the bus".to_owned(), None)
        }
        Some(1 | 2) => Finding::attention(
            subject,
            format!(
                "{}: frames are lost",
                if link.state == Some(1) { "disturbed (error-warning)" } else { "error-passive" }
            ),
            "are the drives powered and connected, is the bit rate the same everywhere, is the bus terminated at \
             both ends (60 ohm between CAN-H and CAN-L)?",
        ),
        Some(3) => Finding::attention(
            subject,
            "bus-off: the controller has left the bus, no stop frame leaves".to_owned(),
            &format!(
                "look for a short circuit or a wrong bit rate, then: ip link set {name} type can restart"
            ),
        ),
        Some(_) => Finding::attention(
            subject,
            "stopped or asleep: no stop frame leaves".to_owned(),
            &format!("ip link set {name} down && ip link set {name} up"),
        ),
    }
}

fn bit_rates(subject: &str, bus: &Bus, link: &Link) -> Vec<Finding> {
    let name = &bus.interface;
    if link.kind != "can" {
        return vec![Finding::unknown(subject, "its driver does not tell the bit rate".to_owned(), None)];
    }
    let Some(rate) = link.bit_rate else {
        return vec![Finding::attention(
            subject,
            "has no bit rate".to_owned(),
            &format!(
                "ip link set {name} down && ip link set {name} up type can bitrate 500000 (that of the drives)"
            ),
        )];
    };
    let fd = bus.format == BusFormat::Fd;
    match link.data_bit_rate {
        Some(data) if fd && link.mtu >= FD_MTU => {
            vec![Finding::good(subject, format!("{}, payload {}", kilobits(rate), kilobits(data)))]
        }
        _ if fd => vec![Finding::attention(
            subject,
            "lanyard.toml says fd = true, and it is not set up for CAN FD: the supervisor cannot start"
                .to_owned(),
            &format!(
                "ip link set {name} down && ip link set {name} up type can bitrate {rate} dbitrate 5000000 fd on"
            ),
        )],
        _ => vec![Finding::good(subject, kilobits(rate))],
    }
}

fn kilobits(rate: u32) -> String {
    format!("{} kbit/s", rate / 1000)
}

fn after_bus_off(subject: &str, name: &str, restart: u32) -> Finding {
    if restart > 0 {
        return Finding::good(subject, format!("joins again {restart} ms after bus-off"));
    }
    Finding::attention(
        subject,
        "does not join again after bus-off: one short circuit of a moment, and no stop frame leaves until somebody \
         comes"
            .to_owned(),
        &format!(
            "RestartSec=100ms in its .network file; once: ip link set {name} down && ip link set {name} up type can \
             restart-ms 100"
        ),
    )
}

/// Motion frames that wait when a stop is sent, and are sent with it.
fn queue(subject: &str, name: &str, repeat: Duration, link: &Link) -> Finding {
    // Where the bit rate is not known: the slowest that is usual.
    let rate = u64::from(link.bit_rate.unwrap_or(125_000));
    let wait = Duration::from_micros(u64::from(link.queue) * LONGEST_FRAME * 1_000_000 / rate);
    let found = format!("{} frames may wait, {} ms of bus time", link.queue, wait.as_millis());
    if wait <= repeat {
        return Finding::good(subject, found);
    }
    Finding::attention(
        subject,
        format!(
            "{found}: longer than the pause between two stops (stop_repeat, {} ms), so old motion frames can follow \
             a stop",
            repeat.as_millis()
        ),
        &format!("ip link set {name} txqueuelen 10; at every boot: TransmitQueueLength=10 in its .link file"),
    )
}

fn discipline(subject: &str, name: &str, link: &Link) -> Finding {
    let discipline = &link.discipline;
    if WITH_BANDS.contains(&discipline.as_str()) {
        return Finding::good(subject, format!("{discipline}: stop frames overtake"));
    }
    Finding::attention(
        subject,
        format!("{discipline}: stop frames wait behind motion frames, and fq_codel drops what waits"),
        &format!(
            "tc qdisc replace dev {name} root pfifo_fast; at every boot: [PFIFOFast] Parent=root in its .network file"
        ),
    )
}

fn echo(subject: &str, link: &Link) -> Finding {
    if link.echo {
        return Finding::good(subject, "tells which frames were acknowledged (IFF_ECHO)".to_owned());
    }
    Finding::unknown(
        subject,
        "does not tell which frames were acknowledged: that a stop left is known by the drive's answer only"
            .to_owned(),
        Some("an adapter whose driver does: gs_usb, MCP2515, MCP2518FD, PEAK and Kvaser do, slcan does not"),
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::Verdict::{self, Attention, Good, Unknown};
    use super::super::robot;
    use super::*;

    impl Links for io::Result<Option<Link>> {
        fn look_at(&self, interface: &str) -> io::Result<Option<Link>> {
            assert_eq!(interface, "can0");
            match self {
                Ok(link) => Ok(link.clone()),
                Err(error) => Err(error.kind().into()),
            }
        }
    }

    fn well() -> Link {
        Link {
            up: true,
            echo: true,
            kind: "can".to_owned(),
            mtu: 16,
            queue: 10,
            discipline: "pfifo_fast".to_owned(),
            bit_rate: Some(500_000),
            data_bit_rate: None,
            state: Some(0),
            restart: Some(100),
        }
    }

    fn looked_at(link: Link) -> Vec<Finding> {
        examine(&robot(""), &Ok(Some(link)))
    }

    /// The one finding that is not good, with what it says.
    fn only(link: Link, verdict: Verdict, words: &str) {
        let findings = looked_at(link.clone());
        let bad: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict != Good).collect();
        assert_eq!(bad.len(), 1, "{link:?}: {bad:#?}");
        assert_eq!(bad[0].verdict, verdict, "{bad:#?}");
        assert!(bad[0].found.contains(words), "{words:?} is not in {bad:#?}");
        assert!(verdict == Unknown || bad[0].remedy.is_some());
    }

    #[test]
    fn one_that_is_set_up_well_is_good() {
        let findings = looked_at(well());
        assert!(
            findings.len() == 7 && findings.iter().all(|finding| finding.verdict == Good),
            "{findings:#?}"
        );
    }

    /// Simulated drives on a vcan are programs like any other; at the other end of a pair they are not.
    #[test]
    fn where_the_drives_of_a_simulation_are_is_told() {
        for (kind, drives, verdict, words) in [
            ("vcan", Drives::OnTheWire, Attention, "is no feedback"),
            ("vxcan", Drives::OnTheWire, Good, "is a vxcan"),
            ("vcan", Drives::Local, Attention, "counts"),
            ("vxcan", Drives::Local, Attention, "counts"),
            ("can", Drives::Local, Attention, "counts"),
        ] {
            let link = if kind == "can" { well() } else { Link { kind: kind.to_owned(), ..Link::default() } };
            let mut robot = robot("");
            robot.buses[0].drives = drives;
            let findings = examine(&robot, &Ok(Some(link)));
            let told: Vec<_> = findings.iter().filter(|finding| finding.found.contains(words)).collect();
            assert_eq!(told.len(), 1, "{kind} {drives:?}: {findings:#?}");
            assert_eq!(told[0].verdict, verdict, "{kind} {drives:?}: {findings:#?}");
        }
    }

    #[test]
    fn one_that_is_not_there_or_not_known_is_told_alone() {
        let findings = examine(&robot(""), &Ok(None));
        assert_eq!((findings.len(), findings[0].verdict), (1, Attention));
        let findings = examine(&robot(""), &Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!((findings.len(), findings[0].verdict), (1, Unknown));
    }

    #[test]
    fn each_thing_that_is_wrong_is_told() {
        only(Link { up: false, ..well() }, Attention, "is down");
        only(Link { state: Some(1), ..well() }, Attention, "error-warning");
        only(Link { state: Some(2), ..well() }, Attention, "error-passive");
        only(Link { state: Some(3), ..well() }, Attention, "bus-off");
        only(Link { state: Some(4), ..well() }, Attention, "stopped or asleep");
        only(Link { state: None, ..well() }, Unknown, "does not tell the state");
        only(Link { bit_rate: None, ..well() }, Attention, "no bit rate");
        only(Link { restart: Some(0), ..well() }, Attention, "does not join again");
        only(Link { echo: false, ..well() }, Unknown, "does not tell which frames");
        for discipline in ["fq_codel", "pfifo", "noqueue"] {
            only(Link { discipline: discipline.to_owned(), ..well() }, Attention, discipline);
        }
    }

    /// 20 ms are 62 frames at 500 kbit/s and 125 at 1 Mbit/s.
    #[test]
    fn a_queue_is_measured_in_time() {
        for (rate, queue, verdict) in
            [(500_000, 62, Good), (500_000, 63, Attention), (1_000_000, 125, Good), (125_000, 16, Attention)]
        {
            let link = Link { bit_rate: Some(rate), queue, ..well() };
            let found =
                looked_at(link).into_iter().find(|finding| finding.found.contains("may wait")).unwrap();
            assert_eq!(found.verdict, verdict, "{rate} {queue}: {found:?}");
        }
        let patient = robot("[supervisor]\nstop_repeat = \"100ms\"\n");
        let link = Link { queue: 63, ..well() };
        assert!(examine(&patient, &Ok(Some(link))).iter().all(|finding| finding.verdict == Good));
    }

    /// 60 ODrives have 120 frames: of 0.2 ms each at 1 Mbit/s, of 1 ms where no bit rate is known.
    #[test]
    fn how_late_the_last_motor_is_told_depends_on_the_bit_rate() {
        let motor = |node: usize| {
            format!(
                "[[motor]]\nname = \"m{node}\"\nbus = \"can0\"\ndriver = \"odrive\"\nfirmware = \"0.6\"\nnode = {node}\n\
                 after_stop = \"hold\"\nmax_rpm = 100\n"
            )
        };
        let text =
            (0..60).map(motor).fold("[[bus]]\nname = \"can0\"\n".to_owned(), |text, motor| text + &motor);
        let config =
            Config::parse(std::path::Path::new("x"), &text).unwrap_or_else(|error| panic!("{error}"));
        for (bit_rate, verdict, words) in
            [(Some(1_000_000), Good, "after 73 ms"), (None, Attention, "after 169 ms")]
        {
            let findings = examine(&config, &Ok(Some(Link { bit_rate, ..well() })));
            let told = findings.last().unwrap();
            assert!(told.verdict == verdict && told.found.contains(words), "{told:?}");
        }
    }

    #[test]
    fn fd_needs_both_rates() {
        let text = "[[bus]]\nname = \"can0\"\nfd = true\n[[motor]]\nname = \"m\"\nbus = \"can0\"\n\
            driver = \"moteus\"\nid = 1\nafter_stop = \"release\"\nmax_rpm = 1\n";
        let config = Config::parse(std::path::Path::new("x"), text).unwrap_or_else(|error| panic!("{error}"));
        let full = Link { mtu: 72, data_bit_rate: Some(5_000_000), ..well() };
        for (link, expected) in [
            (full.clone(), Good),
            (Link { mtu: 16, ..full.clone() }, Attention),
            (Link { data_bit_rate: None, ..full }, Attention),
        ] {
            let findings = examine(&config, &Ok(Some(link)));
            assert_eq!(findings[1].verdict, expected, "{findings:#?}");
        }
    }
}
