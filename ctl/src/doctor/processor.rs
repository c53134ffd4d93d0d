//! The processors: whether the supervisor has one to itself, and whether they change their speed.

use config::Config;

use super::Finding;
use super::machine::{Machine, lists};

const FOLDER: &str = "/sys/devices/system/cpu";
/// Interrupts that are named one by one; the others are counted.
const NAMED: usize = 3;

/// Looks at the processor of the configuration, or at all of them if it names none.
pub fn examine(config: &Config, machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(cpu) = config.supervisor.cpu {
        let online = machine.read(&format!("{FOLDER}/online")).unwrap_or_default();
        if !lists(&online, cpu) {
            return vec![Finding::attention(
                &format!("cpu {cpu}"),
                format!("[supervisor] cpu = {cpu}, and this machine has {online}: the loop is not pinned"),
                "name one of these in lanyard.toml, and in CPUAffinity= of the service",
            )];
        }
        findings.push(isolation(cpu, machine));
        findings.push(interrupts(cpu, machine));
    }
    findings.push(governor(config.supervisor.cpu, machine));
    findings
}

fn isolation(cpu: usize, machine: &Machine) -> Finding {
    let subject = format!("cpu {cpu}");
    let isolated = machine.read(&format!("{FOLDER}/isolated")).unwrap_or_default();
    if lists(&isolated, cpu) {
        return Finding::good(&subject, "no other program runs there (isolcpus)".to_owned());
    }
    Finding::attention(
        &subject,
        "other programs run there, too: what the kernel does for them can delay a stop".to_owned(),
        &format!(
            "boot with isolcpus=domain,managed_irq,{cpu} nohz_full={cpu} rcu_nocbs={cpu} (GRUB_CMDLINE_LINUX of \
             /etc/default/grub, then update-grub; Raspberry Pi: /boot/firmware/cmdline.txt)"
        ),
    )
}

/// Interrupts of devices that are served on that processor. Those that cannot be moved (timers) are not among
/// them: they have no action of a device.
fn interrupts(cpu: usize, machine: &Machine) -> Finding {
    let subject = format!("interrupts on cpu {cpu}");
    let served: Vec<String> = machine
        .names("/proc/irq")
        .into_iter()
        .filter(|number| number.parse::<u32>().is_ok())
        .filter_map(|number| {
            let folder = format!("/proc/irq/{number}");
            // A handler has a folder of its name among the files.
            let handler = machine.names(&folder).into_iter().find(|name| !is_file_of_the_kernel(name))?;
            let at = |name: &str| machine.read(&format!("{folder}/{name}")).filter(|list| !list.is_empty());
            let list = at("effective_affinity_list").or_else(|| at("smp_affinity_list"))?;
            lists(&list, cpu).then(|| format!("{number} ({handler})"))
        })
        .collect();
    if served.is_empty() {
        return Finding::good(&subject, "none of a device".to_owned());
    }
    let more = served.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    Finding::attention(
        &subject,
        format!(
            "{}{rest} are served there: each comes before the stop on a kernel without PREEMPT_RT, and some with it",
            served.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ")
        ),
        "boot with irqaffinity= and the other processors (irqaffinity=0-2, say), and apt purge irqbalance; one \
         at once: echo 0 > /proc/irq/NUMBER/smp_affinity_list",
    )
}

fn is_file_of_the_kernel(name: &str) -> bool {
    const FILES: [&str; 7] = [
        "affinity_hint",
        "effective_affinity",
        "effective_affinity_list",
        "node",
        "smp_affinity",
        "smp_affinity_list",
        "spurious",
    ];
    FILES.contains(&name)
}

fn governor(cpu: Option<usize>, machine: &Machine) -> Finding {
    const SUBJECT: &str = "processor speed";
    let all = machine.names(FOLDER);
    let numbers = all.iter().filter_map(|name| name.strip_prefix("cpu")?.parse::<usize>().ok());
    let slow: Vec<String> = numbers
        .filter(|number| cpu.is_none_or(|cpu| cpu == *number))
        .filter_map(|number| {
            let governor = machine.read(&format!("{FOLDER}/cpu{number}/cpufreq/scaling_governor"))?;
            (governor != "performance").then(|| format!("cpu {number} ({governor})"))
        })
        .collect();
    if slow.is_empty() {
        return Finding::good(SUBJECT, "does not change".to_owned());
    }
    Finding::attention(
        SUBJECT,
        format!(
            "changes with the load: {}. A loop that sleeps mostly runs slowly then, and a change of speed halts it",
            slow.join(", ")
        ),
        "cpupower frequency-set -g performance (package linux-cpupower), at every boot; or boot with \
         cpufreq.default_governor=performance",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Attention, Good};
    use super::super::machine::made_up::MadeUp;
    use super::super::robot;
    use super::examine;

    const PINNED: &str = "[supervisor]\ncpu = 3\n";

    fn tuned() -> MadeUp {
        MadeUp::with(&[
            ("/sys/devices/system/cpu/online", "0-3"),
            ("/sys/devices/system/cpu/isolated", "3"),
            ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand"),
            ("/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "performance"),
            ("/proc/irq/default_smp_affinity", "7"),
            ("/proc/irq/16/smp_affinity_list", "0-3"),
            ("/proc/irq/16/effective_affinity_list", "0"),
            ("/proc/irq/16/eth0/x", ""),
            // The timer: nobody's.
            ("/proc/irq/0/smp_affinity_list", "0-3"),
            ("/proc/irq/0/spurious", "count 1"),
        ])
    }

    #[test]
    fn a_processor_of_its_own_is_good() {
        let findings = examine(&robot(PINNED), &tuned().machine());
        assert_eq!(findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Good; 3]);
    }

    #[test]
    fn what_else_uses_it_is_told() {
        let made = tuned();
        made.write("/sys/devices/system/cpu/isolated", "");
        made.write("/proc/irq/16/effective_affinity_list", "3");
        for number in 20..24 {
            made.write(&format!("/proc/irq/{number}/smp_affinity_list"), "0-3");
            made.write(&format!("/proc/irq/{number}/nvme/x"), "");
        }
        made.write("/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "schedutil");
        let findings = examine(&robot(PINNED), &made.machine());
        assert_eq!(findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Attention; 3]);
        assert!(
            findings[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("managed_irq,3 nohz_full=3"))
        );
        let expected = "16 (eth0), 20 (nvme), 21 (nvme) and 2 more are served there";
        assert!(findings[1].found.starts_with(expected), "{findings:?}");
        assert!(findings[2].found.contains("cpu 3 (schedutil)"), "{findings:?}");
    }

    #[test]
    fn one_that_is_not_there_is_told_alone() {
        let findings = examine(&robot("[supervisor]\ncpu = 4\n"), &tuned().machine());
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].verdict, Attention);
        assert!(findings[0].found.contains("this machine has 0-3"), "{findings:?}");
    }

    #[test]
    fn without_one_every_processor_counts() {
        let findings = examine(&robot(""), &tuned().machine());
        assert_eq!(findings.len(), 1);
        assert!(findings[0].found.contains("cpu 0 (ondemand)"), "{findings:?}");
    }
}
