//! The services, as systemd has them: running, started at boot, watched, and who watches systemd.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use config::exit::WRONG_CONFIGURATION;

use super::Finding;
use super::machine::Machine;

const SUPERVISOR: &str = "lanyard-supervisor.service";
const FRONT: &str = "lanyard-front.service";
const TARGET: &str = "lanyard.target";
/// How exposed each service is at most as it is delivered, in tenths of what systemd says: the limits that its
/// tests hold, see systemd/README.md.
const EXPOSURE: [(&str, u32); 2] = [(SUPERVISOR, 10), (FRONT, 20)];

/// Properties by name.
pub type Properties = BTreeMap<String, String>;

/// Answers what `systemctl show` does.
pub trait Systemd {
    /// The properties of a unit, or of systemd itself; `None` when it does not answer.
    fn show(&self, unit: Option<&str>) -> Option<Properties>;

    /// How much a fault in a service could reach, in tenths of `systemd-analyze security`: 0 to 100. `None` when it does
    /// not answer.
    fn exposure(&self, unit: &str) -> Option<u32>;
}

/// The systemd of this machine.
pub struct Systemctl;

impl Systemd for Systemctl {
    fn show(&self, unit: Option<&str>) -> Option<Properties> {
        let mut command = Command::new("systemctl");
        let output = command.arg("show").args(unit).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| {
            let text = String::from_utf8_lossy(&output.stdout);
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        })
    }

    fn exposure(&self, unit: &str) -> Option<u32> {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(["security", "--no-pager", unit]).stdin(Stdio::null()).output().ok()?;
        overall_exposure(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Read from the last line of `systemd-analyze security`, where a number with one decimal follows the unit's name.
fn overall_exposure(text: &str) -> Option<u32> {
    let line = text.lines().rfind(|line| line.contains("Overall exposure level"))?;
    let number = line.rsplit_once(": ")?.1.split(' ').next()?;
    let (whole, tenths) = number.split_once('.')?;
    let whole: u32 = whole.parse().ok()?;
    whole.checked_mul(10)?.checked_add(tenths.parse().ok().filter(|tenths| *tenths < 10)?)
}

/// Looks at the services and at what watches over them.
pub fn examine(machine: &Machine, systemd: &impl Systemd) -> Vec<Finding> {
    const SUBJECT: &str = "systemd";
    if machine.names("/run/systemd/system").is_empty()
        && machine.read("/proc/1/comm").as_deref() != Some("systemd")
    {
        return vec![Finding::unknown(
            SUBJECT,
            "does not run this machine: nobody here can tell who starts the supervisor again when it ends"
                .to_owned(),
            None,
        )];
    }
    let (Some(manager), Some(target), Some(supervisor), Some(front)) = (
        systemd.show(None),
        systemd.show(Some(TARGET)),
        systemd.show(Some(SUPERVISOR)),
        systemd.show(Some(FRONT)),
    ) else {
        return vec![Finding::unknown(SUBJECT, "does not answer: systemctl show".to_owned(), None)];
    };
    let mut findings = vec![at_boot(&target)];
    findings.extend([(SUPERVISOR, &supervisor), (FRONT, &front)].map(|(name, unit)| running(name, unit)));
    // Of a service that does not run systemd says that it has none, whatever its unit says.
    if is(&supervisor, "ActiveState", "active") {
        findings.push(watchdog(&supervisor));
    }
    findings.push(hardware_watchdog(&manager, machine));
    findings.extend(watchdog_reset(machine));
    let installed = [(SUPERVISOR, &supervisor), (FRONT, &front)];
    let installed = installed.into_iter().filter(|(_, unit)| is(unit, "LoadState", "loaded"));
    findings.extend(installed.map(|(name, _)| exposure(name, systemd.exposure(name))));
    findings
}

fn exposure(name: &str, tenths: Option<u32>) -> Finding {
    let subject = format!("exposure of {}", name.trim_end_matches(".service"));
    let Some(tenths) = tenths else {
        let remedy = format!("as root: systemd-analyze security {name}");
        return Finding::unknown(&subject, "systemd does not say".to_owned(), Some(&remedy));
    };
    let most = EXPOSURE.iter().find(|(service, _)| *service == name).map_or(0, |(_, most)| *most);
    let written = |tenths: u32| format!("{}.{}", tenths / 10, tenths % 10);
    if tenths <= most {
        return Finding::good(&subject, format!("{} of 10", written(tenths)));
    }
    Finding::attention(
        &subject,
        format!(
            "{} of 10, delivered with {} at most: a fault in it could reach more of this machine",
            written(tenths),
            written(most)
        ),
        &format!(
            "systemctl cat {name} shows the drop-in that weakens it; systemd-analyze security {name} each point"
        ),
    )
}

fn is(unit: &Properties, property: &str, value: &str) -> bool {
    unit.get(property).is_some_and(|found| found == value)
}

/// Whether a span of time is one that ends: systemd writes none as 0, "infinity" or "off".
fn ends(unit: &Properties, property: &str) -> Option<String> {
    let span = unit.get(property)?;
    (!matches!(span.as_str(), "" | "0" | "infinity" | "off")).then(|| span.clone())
}

fn at_boot(target: &Properties) -> Finding {
    if !is(target, "LoadState", "loaded") {
        return Finding::attention(TARGET, "is not installed".to_owned(), "docs/install.md");
    }
    if is(target, "UnitFileState", "enabled") {
        return Finding::good(TARGET, "starts at boot".to_owned());
    }
    Finding::attention(
        TARGET,
        "does not start at boot: the robot comes up without anybody who stops it".to_owned(),
        "systemctl enable lanyard.target",
    )
}

fn running(name: &str, unit: &Properties) -> Finding {
    let of = |property: &str| unit.get(property).map_or("unknown", String::as_str);
    if !is(unit, "LoadState", "loaded") {
        let found = format!("is not installed ({})", of("LoadState"));
        return Finding::attention(name, found, "docs/install.md; then: systemctl daemon-reload");
    }
    let short = name.trim_end_matches(".service");
    match (of("ActiveState"), of("ExecMainStatus")) {
        ("active", _) => Finding::good(name, format!("runs; was started again {} times", of("NRestarts"))),
        ("failed", status) if status == WRONG_CONFIGURATION.to_string() => Finding::attention(
            name,
            "stays failed, because lanyard.toml has mistakes".to_owned(),
            &format!("lanyard check names them; then: systemctl restart {short}"),
        ),
        ("failed", status) => Finding::attention(
            name,
            format!("has failed ({}, exit code {status})", of("Result")),
            &format!("journalctl -u {short} -n 50 says why; then: systemctl restart {short}"),
        ),
        ("activating", _) => Finding::attention(
            name,
            "is being started and does not get ready".to_owned(),
            &format!("journalctl -u {short} -n 50 says what it waits for"),
        ),
        (state, _) => Finding::attention(name, format!("is {state}"), "systemctl start lanyard.target"),
    }
}

fn watchdog(supervisor: &Properties) -> Finding {
    const SUBJECT: &str = "supervisor's watchdog";
    match ends(supervisor, "WatchdogUSec") {
        Some(span) => {
            Finding::good(SUBJECT, format!("systemd starts it again when its loop hangs for {span}"))
        }
        None => Finding::attention(
            SUBJECT,
            "a supervisor that hangs stays so: the motors are stopped by the kernel, and nobody can drive"
                .to_owned(),
            "WatchdogSec=2 in the service; systemctl cat lanyard-supervisor shows who took it out",
        ),
    }
}

fn hardware_watchdog(manager: &Properties, machine: &Machine) -> Finding {
    const SUBJECT: &str = "hardware watchdog";
    match ends(manager, "RuntimeWatchdogUSec") {
        Some(span) => Finding::good(SUBJECT, format!("resets this machine when systemd hangs for {span}")),
        None if !in_use(machine).is_empty() => Finding::good(
            SUBJECT,
            format!(
                "{} is fed: by the supervisor, if `watchdog` in [supervisor] names it, and then for its loop only",
                in_use(machine).join(", ")
            ),
        ),
        None if machine.names("/sys/class/watchdog").is_empty() => Finding::unknown(
            SUBJECT,
            "this machine has none that its kernel knows: when it hangs it stays so, and the drives' own watchdogs \
             are all that stops"
                .to_owned(),
            Some("a driver may have to be loaded: i6300esb, iTCO_wdt, bcm2835_wdt; softdog is none"),
        ),
        None => Finding::attention(
            SUBJECT,
            "is not used: when this machine hangs it stays so".to_owned(),
            "either watchdog = \"/dev/watchdog0\" in [supervisor], which also resets for a supervisor that does not come back \
             (systemd/README.md), or systemd/examples/system.conf.d/lanyard-watchdog.conf to /etc/systemd/system.conf.d/, \
             then systemctl daemon-reexec",
        ),
    }
}

/// The watchdogs that count.
fn in_use(machine: &Machine) -> Vec<String> {
    let active = |name: &String| {
        machine
            .read(&format!("/sys/class/watchdog/{name}/state"))
            .is_some_and(|state| state.trim() == "active")
    };
    machine.names("/sys/class/watchdog").into_iter().filter(active).collect()
}

/// Whether the last start of this machine was a watchdog's doing: the flag WDIOF_CARDRESET of linux/watchdog.h.
fn watchdog_reset(machine: &Machine) -> Option<Finding> {
    const CARD_RESET: i64 = 0x20;
    let bitten = |name: &String| {
        let status = machine.number(&format!("/sys/class/watchdog/{name}/bootstatus"));
        status.is_some_and(|status| status & CARD_RESET != 0)
    };
    let bitten: Vec<String> = machine.names("/sys/class/watchdog").into_iter().filter(bitten).collect();
    (!bitten.is_empty()).then(|| {
        Finding::attention(
            "last start",
            format!(
                "this machine was reset by its hardware watchdog ({}): it had hung, or whoever feeds it had; nothing on it \
                 stopped the motors then",
                bitten.join(", ")
            ),
            "journalctl -b -1 -e shows the last it wrote; it is said until the machine is started anew",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Attention, Good, Unknown};
    use super::super::machine::made_up::MadeUp;
    use super::*;

    /// What each unit, and under "" systemd itself, says.
    #[derive(Clone)]
    struct Said(BTreeMap<String, Properties>, Option<u32>);

    impl Systemd for Said {
        fn show(&self, unit: Option<&str>) -> Option<Properties> {
            self.0.get(unit.unwrap_or("")).cloned()
        }

        fn exposure(&self, _: &str) -> Option<u32> {
            self.1
        }
    }

    impl Said {
        fn but(mut self, unit: &str, property: &str, value: &str) -> Self {
            self.0.entry(unit.to_owned()).or_default().insert(property.to_owned(), value.to_owned());
            self
        }
    }

    fn well() -> Said {
        let service = [("LoadState", "loaded"), ("ActiveState", "active"), ("NRestarts", "0")];
        let mut said = Said(BTreeMap::new(), Some(10))
            .but("", "RuntimeWatchdogUSec", "10s")
            .but(TARGET, "LoadState", "loaded")
            .but(TARGET, "UnitFileState", "enabled")
            .but(SUPERVISOR, "WatchdogUSec", "2s");
        for (property, value) in service {
            said = said.but(SUPERVISOR, property, value).but(FRONT, property, value);
        }
        said
    }

    fn looked_at(said: &Said) -> Vec<Finding> {
        let made = MadeUp::with(&[("/proc/1/comm", "systemd"), ("/sys/class/watchdog/watchdog0/x", "")]);
        examine(&made.machine(), said)
    }

    fn verdicts(said: &Said) -> Vec<Verdict> {
        looked_at(said).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn everything_running_and_watched_is_good() {
        assert_eq!(verdicts(&well()), [Good; 7]);
    }

    #[test]
    fn each_thing_that_is_not_is_told_with_its_remedy() {
        // The watchdog of a supervisor that does not run is not looked at.
        let down = looked_at(&well().but(SUPERVISOR, "ActiveState", "failed").but(
            SUPERVISOR,
            "WatchdogUSec",
            "infinity",
        ));
        assert_eq!(
            down.iter().map(|finding| finding.verdict).collect::<Vec<_>>(),
            [Good, Attention, Good, Good, Good, Good]
        );
        for (at, unit, property, value, words) in [
            (0, TARGET, "UnitFileState", "disabled", "systemctl enable"),
            (0, TARGET, "LoadState", "not-found", "install.md"),
            (1, SUPERVISOR, "ActiveState", "inactive", "systemctl start"),
            (1, SUPERVISOR, "ActiveState", "activating", "journalctl -u lanyard-supervisor"),
            (2, FRONT, "ActiveState", "failed", "journalctl -u lanyard-front"),
            (2, FRONT, "LoadState", "masked", "install.md"),
            (3, SUPERVISOR, "WatchdogUSec", "0", "WatchdogSec=2"),
            (3, SUPERVISOR, "WatchdogUSec", "infinity", "WatchdogSec=2"),
            (4, "", "RuntimeWatchdogUSec", "0", "lanyard-watchdog.conf"),
            (4, "", "RuntimeWatchdogUSec", "0", "watchdog = \"/dev/watchdog0\""),
        ] {
            let said = well().but(unit, property, value);
            let findings = looked_at(&said);
            for (index, finding) in findings.iter().enumerate() {
                let expected = if index == at { Attention } else { Good };
                assert_eq!(finding.verdict, expected, "{unit} {property}={value}: {finding:?}");
            }
            let remedy = findings[at].remedy.clone().unwrap_or_default();
            assert!(remedy.contains(words), "{remedy:?} lacks {words:?}");
        }
        let mistaken =
            well().but(SUPERVISOR, "ActiveState", "failed").but(SUPERVISOR, "ExecMainStatus", "78");
        assert!(looked_at(&mistaken)[1].found.contains("lanyard.toml has mistakes"));
    }

    #[test]
    fn a_service_that_was_opened_is_told() {
        let with = |tenths| {
            let said = Said(well().0, tenths);
            verdicts(&said).split_off(5)
        };
        assert_eq!(with(Some(11)), [Attention, Good], "the limit of the supervisor, not of the front");
        assert_eq!(with(Some(21)), [Attention; 2]);
        assert_eq!(with(None), [Unknown; 2]);
        let missing = looked_at(&well().but(FRONT, "LoadState", "not-found"));
        assert_eq!(missing.len(), 6, "what is not installed reaches nothing");
    }

    #[test]
    fn the_exposure_is_read_from_the_last_line() {
        let text = "✓ PrivateTmp=yes ...\n\n→ Overall exposure level for lanyard-front.service: 1.4 OK :-)\n";
        assert_eq!(overall_exposure(text), Some(14));
        assert_eq!(overall_exposure("→ Overall exposure level for a.service: 9.6 UNSAFE"), Some(96));
        for not in ["", "Overall exposure level for a.service:", "Overall exposure level for a: 1.23 x"] {
            assert_eq!(overall_exposure(not), None, "{not}");
        }
    }

    #[test]
    fn a_machine_without_systemd_or_watchdog_cannot_be_told() {
        let made = MadeUp::with(&[("/proc/1/comm", "init")]);
        let findings = examine(&made.machine(), &well());
        assert_eq!((findings.len(), findings[0].verdict), (1, Unknown));
        let made = MadeUp::with(&[("/proc/1/comm", "systemd")]);
        let findings = examine(&made.machine(), &well().but("", "RuntimeWatchdogUSec", "off"));
        assert_eq!(findings[4].verdict, Unknown);
        let silent = examine(&made.machine(), &Said(BTreeMap::new(), None));
        assert_eq!((silent.len(), silent[0].verdict), (1, Unknown));
    }

    #[test]
    fn a_watchdog_that_bit_is_told_and_one_that_the_supervisor_feeds_is_good() {
        let unused = well().but("", "RuntimeWatchdogUSec", "0");
        for (state, status, verdicts) in [
            ("inactive", "0", &[Attention][..]),
            ("active", "0", &[Good]),
            ("active", "32", &[Good, Attention]),
            ("inactive", "33", &[Attention, Attention]),
        ] {
            let made = MadeUp::with(&[
                ("/proc/1/comm", "systemd"),
                ("/sys/class/watchdog/watchdog0/state", state),
                ("/sys/class/watchdog/watchdog0/bootstatus", status),
            ]);
            let findings = examine(&made.machine(), &unused);
            let about = findings[4..].iter().filter(|finding| !finding.subject.starts_with("exposure"));
            let found: Vec<Verdict> = about.map(|finding| finding.verdict).collect();
            assert_eq!(found, verdicts, "{state}, {status}: {findings:?}");
        }
    }
}
