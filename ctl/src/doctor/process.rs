//! The supervisor that runs: what it was really given of what it needs.

use config::Config;

use super::Finding;
use super::machine::Machine;
use crate::status::Status;

/// `SCHED_FIFO` in field 41 of stat (linux/sched.h).
const FIFO: &str = "1";

/// Looks at the running supervisor, as the kernel describes it.
pub fn examine(config: &Config, status: Option<&Status>, machine: &Machine) -> Vec<Finding> {
    let Some(status) = status else {
        return vec![Finding::unknown(
            "supervisor",
            "does not answer, so nobody can tell what the system gives it. Nothing stops the motors"
                .to_owned(),
            Some(
                "systemctl start lanyard.target, then run this again; why it does not: journalctl -u lanyard-supervisor",
            ),
        )];
    };
    let mut findings = vec![own_words(status)];
    let folder = format!("/proc/{}", status.pid);
    if machine.read(&format!("{folder}/stat")).is_none() {
        // In another namespace, or hidden from this user: what it says of itself is all there is.
        return findings;
    }
    findings.push(scheduling(config, &folder, machine));
    findings.push(memory(&folder, machine));
    findings
}

/// What the supervisor itself was refused.
fn own_words(status: &Status) -> Finding {
    const SUBJECT: &str = "supervisor";
    if status.degraded.is_empty() {
        return Finding::good(SUBJECT, format!("{}, and was refused nothing", status.phase));
    }
    Finding::attention(
        SUBJECT,
        format!("degraded: {}", status.degraded.join(", ")),
        "journalctl -u lanyard-supervisor | grep WARNING says of each what to do",
    )
}

fn scheduling(config: &Config, folder: &str, machine: &Machine) -> Finding {
    const SUBJECT: &str = "supervisor's priority";
    let stat = |thread: &str| machine.read(&format!("{folder}/task/{thread}/stat"));
    let wanted = config.supervisor.priority.to_string();
    let real_time: Vec<(String, String)> = machine
        .names(&format!("{folder}/task"))
        .iter()
        .filter_map(|thread| {
            let stat = stat(thread)?;
            let (name, fields) = stat.rsplit_once(')')?;
            let field = |number: usize| fields.split_whitespace().nth(number - 3);
            let name = name.split_once('(')?.1.to_owned();
            (field(41)? == FIFO).then_some((name, field(40)?.to_owned()))
        })
        .collect();
    match &real_time[..] {
        [(_, priority)] if *priority == wanted => {
            Finding::good(SUBJECT, format!("SCHED_FIFO {priority}, one thread"))
        }
        [(_, priority)] => Finding::attention(
            SUBJECT,
            format!("SCHED_FIFO {priority}, and lanyard.toml wants {wanted}"),
            "make [supervisor] priority and CPUSchedulingPriority= of the service the same",
        ),
        [] => Finding::attention(
            SUBJECT,
            "no thread has real-time priority: any busy program can delay a stop".to_owned(),
            "systemctl cat lanyard-supervisor must show CPUSchedulingPolicy=fifo; a kernel with RT_GROUP_SCHED \
             and cgroups refuses it all the same",
        ),
        several => Finding::attention(
            SUBJECT,
            format!(
                "{} threads have real-time priority ({}): the loop may wait for the others",
                several.len(),
                several.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
            ),
            "systemctl cat lanyard-supervisor must show CPUSchedulingResetOnFork=yes",
        ),
    }
}

fn memory(folder: &str, machine: &Machine) -> Finding {
    const SUBJECT: &str = "supervisor's memory";
    let size = |key: &str| {
        let status = machine.read(&format!("{folder}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (locked, resident) = (size("VmLck").unwrap_or(0), size("VmRSS").unwrap_or(0));
    if locked > 0 {
        return Finding::good(SUBJECT, format!("{locked} kB locked"));
    }
    Finding::attention(
        SUBJECT,
        format!("nothing of its {resident} kB is locked: a page fault can delay a stop"),
        "systemctl cat lanyard-supervisor must show LimitMEMLOCK=infinity",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Attention, Good, Unknown};
    use super::super::machine::made_up::MadeUp;
    use super::super::robot;
    use super::*;
    use crate::fixture;

    /// A line of stat whose 40th and 41st fields are these.
    fn stat(name: &str, priority: u8, policy: u8) -> String {
        format!("12 ({name}) S {}{priority} {policy} 0", "0 ".repeat(36))
    }

    fn status() -> Status {
        let (_segment, view) = fixture::healthy();
        Status::read(&view, fixture::NOW, None)
    }

    fn running() -> MadeUp {
        let folder = format!("/proc/{}", status().pid);
        MadeUp::with(&[
            (&format!("{folder}/stat"), &stat("lanyard-rt", 80, 1)),
            (&format!("{folder}/task/12/stat"), &stat("lanyard-rt", 80, 1)),
            (&format!("{folder}/task/13/stat"), &stat("lanyard-keep", 0, 0)),
            (&format!("{folder}/status"), "Name:\tx\nVmLck:\t    5232 kB\nVmRSS:\t    5300 kB"),
        ])
    }

    fn verdicts(made: &MadeUp) -> Vec<Verdict> {
        let findings = examine(&robot(""), Some(&status()), &made.machine());
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_supervisor_with_all_it_needs_is_good() {
        assert_eq!(verdicts(&running()), [Good; 3]);
    }

    #[test]
    fn what_it_was_not_given_is_told() {
        let (made, folder) = (running(), format!("/proc/{}", status().pid));
        made.write(&format!("{folder}/status"), "Name:\tx\nVmLck:\t       0 kB\nVmRSS:\t    5300 kB");
        assert_eq!(verdicts(&made), [Good, Good, Attention]);
        for (line, expected) in [
            (stat("lanyard-rt", 70, 1), Attention),
            (stat("lanyard-rt", 0, 0), Attention),
            (stat("lanyard-rt", 80, 1), Good),
            // A name may hold anything.
            (stat("a) S 1 (b", 80, 1), Good),
        ] {
            made.write(&format!("{folder}/task/12/stat"), &line);
            assert_eq!(verdicts(&made)[1], expected, "{line}");
        }
        made.write(&format!("{folder}/task/13/stat"), &stat("lanyard-keep", 80, 1));
        assert_eq!(verdicts(&made)[1], Attention, "two real-time threads");
    }

    #[test]
    fn what_it_says_of_itself_counts_and_so_does_silence() {
        let made = MadeUp::with(&[]);
        assert_eq!(verdicts(&made), [Good], "its files are hidden");
        let degraded = Status { degraded: vec!["not SCHED_FIFO"], ..status() };
        let findings = examine(&robot(""), Some(&degraded), &made.machine());
        assert_eq!(findings[0].verdict, Attention);
        let findings = examine(&robot(""), None, &made.machine());
        assert_eq!((findings.len(), findings[0].verdict), (1, Unknown));
    }
}
