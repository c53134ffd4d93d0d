//! What boots, in which order, with which rights.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::machine::{FRONT, SUPERVISOR, Unit, journal_of_this_boot, ownership, run, status_line, threads};
use crate::scene::{FAR, NEAR, play};

/// SCHED_FIFO, as the kernel numbers it.
const FIFO: u32 = 1;
/// `priority` in the configuration, `CPUSchedulingPriority=` in the unit.
const PRIORITY: u32 = 80;
/// `cpu` in the configuration, `CPUAffinity=` in the drop-in.
const PROCESSOR: &str = "1";
/// The bits of a process without any capability.
const NONE: &str = "0000000000000000";

/// Fails if the supervisor says READY before the network has set up its interface, if the front is started before
/// the supervisor is armed, or if one of them needed a second try.
#[test]
fn network_then_supervisor_then_front() -> Result<()> {
    play(|_| {
        let (network, supervisor, front) =
            (Unit::show("systemd-networkd.service")?, Unit::show(SUPERVISOR)?, Unit::show(FRONT)?);
        let up = network.number("ExecMainStartTimestampMonotonic")?;
        let ready = supervisor.number("ActiveEnterTimestampMonotonic")?;
        let started = front.number("ExecMainStartTimestampMonotonic")?;
        println!("network {up} us, supervisor ready {ready} us, front started {started} us");
        ensure!(up < ready, "the supervisor was ready before the network was set up");
        ensure!(ready <= started, "the front was started before the supervisor was armed");
        for unit in [&supervisor, &front] {
            ensure!(unit.number("NRestarts")? == 0, "started again: {}", unit.get("Id"));
        }
        Ok(())
    })
}

/// Fails if an interface is not what the files for systemd-networkd say: up, bit rate, restart, queue, bands.
#[test]
fn interfaces_are_what_the_network_files_say() -> Result<()> {
    play(|_| {
        for name in [NEAR, FAR] {
            let text = run("ip", &["-json", "-details", "link", "show", name])?;
            let links: Value = serde_json::from_str(&text)?;
            let link = &links[0];
            let can = &link["linkinfo"]["info_data"];
            ensure!(
                can["bittiming"]["bitrate"] == 500_000,
                "{name}: bit rate {}",
                can["bittiming"]["bitrate"]
            );
            ensure!(can["restart_ms"] == 100, "{name}: joins again after {} ms", can["restart_ms"]);
            ensure!(link["txqlen"] == 10, "{name}: {} frames may wait", link["txqlen"]);
            ensure!(link["qdisc"] == "pfifo_fast", "{name}: {}", link["qdisc"]);
            ensure!(link["operstate"] == "UP", "{name} is {}", link["operstate"]);
        }
        Ok(())
    })
}

/// Fails if the supervisor's first thread does not have SCHED_FIFO 80, if another has, if one may run elsewhere than
/// on the processor of the drop-in, or if systemd's word on it is another.
#[test]
fn one_thread_of_the_supervisor_is_real_time() -> Result<()> {
    play(|_| {
        let pid = Unit::show(SUPERVISOR)?.pid()?;
        let threads = threads(pid)?;
        println!("{threads:#?}");
        let (real_time, ordinary): (Vec<_>, Vec<_>) =
            threads.iter().partition(|thread| thread.policy == FIFO);
        let [one] = real_time.as_slice() else { anyhow::bail!("{} real-time threads", real_time.len()) };
        ensure!(one.name == "lanyard-rt", "it is {}", one.name);
        ensure!(one.priority == PRIORITY, "its priority is {}", one.priority);
        ensure!(one.processors == PROCESSOR, "it may run on {}", one.processors);
        ensure!(!ordinary.is_empty(), "housekeeping is missing");
        let wrong = ordinary.iter().find(|thread| thread.policy != 0 || thread.priority != 0);
        ensure!(wrong.is_none(), "neither ordinary nor real-time: {wrong:?}");
        Ok(())
    })
}

/// Fails if a service has a capability, is root, could become more than it is, runs outside a user namespace of its own
/// (`PrivateUsers=`), may be taken before others when memory is short, or if the supervisor's memory is not locked.
#[test]
fn services_have_the_rights_of_their_units_and_no_others() -> Result<()> {
    play(|_| {
        for (unit, user, oom) in [(SUPERVISOR, "lanyard", "-1000"), (FRONT, "lanyard-front", "-500")] {
            let pid = Unit::show(unit)?.pid()?;
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let bits = status_line(pid, set)?;
                ensure!(bits == NONE, "{unit}: {set} {bits}");
            }
            ensure!(status_line(pid, "NoNewPrivs")? == "1", "{unit} may gain privileges");
            ensure!(status_line(pid, "Seccomp")? == "2", "{unit} has no filter of system calls");
            let id = run("id", &["-u", user])?;
            let owners = status_line(pid, "Uid")?;
            ensure!(owners.split_whitespace().all(|uid| uid == id.trim()), "{unit} is user {owners}");
            let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user"));
            ensure!(space(&pid.to_string())? != space("1")?, "{unit} is in the user namespace of everybody");
            let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
            ensure!(score.trim() == oom, "{unit}: OOM score {score}");
        }
        let pid = Unit::show(SUPERVISOR)?.pid()?;
        let (locked, size) = (status_line(pid, "VmLck")?, status_line(pid, "VmSize")?);
        println!("{locked} of {size} locked");
        let number = |text: &str| text.trim_end_matches(" kB").parse::<u64>().context("a number of kB");
        ensure!(number(&locked)? > 0, "no memory of the supervisor is locked");
        Ok(())
    })
}

/// Fails if the first start of an installed package counts as the loss of what was held before.
#[test]
fn first_start_holds_nothing() -> Result<()> {
    play(|scene| {
        let said = journal_of_this_boot(SUPERVISOR)?;
        let lost = said.iter().find(|line| line.contains("what was held before"));
        ensure!(lost.is_none(), "{lost:?}");
        ensure!(
            !Path::new("/var/lib/lanyard/first-start").exists(),
            "the next start would be a first one, too"
        );
        ensure!(scene.lanyard.status()?["latches_kept"] == "on disk", "nothing is kept");
        Ok(())
    })
}

/// Fails if the package and the units leave a file that others may read or change.
#[test]
fn files_belong_to_whom_they_should() -> Result<()> {
    play(|_| {
        for (path, expected) in [
            ("/run/lanyard", "lanyard:lanyard 711"),
            ("/run/lanyard/supervisor.sock", "lanyard:lanyard 660"),
            ("/run/lanyard/front", "lanyard:lanyard-front 2710"),
            ("/run/lanyard/front/supervisor.sock", "lanyard:lanyard-front 660"),
            ("/run/lanyard/operator", "lanyard:lanyard-operators 2710"),
            ("/run/lanyard/operator/supervisor.sock", "lanyard:lanyard-operators 660"),
            ("/run/lanyard/supervisor.estop", "lanyard:lanyard-estop 620"),
            ("/var/lib/lanyard", "lanyard:lanyard 750"),
            ("/var/lib/lanyard/latches", "lanyard:lanyard 600"),
            ("/etc/lanyard", "root:lanyard 750"),
            ("/etc/lanyard/lanyard.toml", "root:lanyard 640"),
            ("/dev/cpu_dma_latency", "root:lanyard 660"),
        ] {
            let found = ownership(path)?;
            ensure!(found == expected, "{path} is {found}, not {expected}");
        }
        Ok(())
    })
}

/// What this machine has not in order: with two processors neither can be the supervisor's alone, and a test may drive
/// without a key.
const NOT_HERE: [&str; 3] = ["cpu 1", "interrupts on cpu 1", "[front] listen = \"0.0.0.0:8080\""];

/// Fails if the supervisor was refused anything, by its own word, or if the doctor finds fault with what this machine
/// has in order: the services, the interfaces, the kernel, the supervisor's thread, priority and memory.
#[test]
fn doctor_finds_services_and_interfaces_in_order() -> Result<()> {
    play(|scene| {
        let said = journal_of_this_boot(SUPERVISOR)?;
        let degraded = said.iter().find(|line| line.contains("degraded"));
        ensure!(degraded.is_none(), "{degraded:?}");
        scene.lanyard.is_well()?;
        let answer = scene.lanyard.run(&["doctor", "--json", "/etc/lanyard/lanyard.toml"])?;
        let findings: Vec<Value> =
            serde_json::from_str(&answer.stdout).with_context(|| answer.stderr.clone())?;
        for finding in &findings {
            println!("{} | {} | {}", finding["verdict"], finding["subject"], finding["found"]);
        }
        let here = |finding: &&Value| !NOT_HERE.iter().any(|subject| finding["subject"] == *subject);
        let wrong: Vec<&Value> =
            findings.iter().filter(|finding| finding["verdict"] == "attention").filter(here).collect();
        ensure!(wrong.is_empty(), "{wrong:#?}");
        let good = |subject: &str| {
            findings.iter().any(|finding| finding["subject"] == subject && finding["verdict"] == "good")
        };
        for subject in ["lanyard.target", SUPERVISOR, FRONT, "supervisor's watchdog", "hardware watchdog"] {
            ensure!(good(subject), "the doctor does not find {subject} in order");
        }
        Ok(())
    })
}
