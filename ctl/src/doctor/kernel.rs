//! The kernel: whether it serves real-time programs first, how long it may keep them waiting, and its clock.

use std::time::Duration;

use config::Config;

use super::Finding;
use super::machine::Machine;

/// Clocks that are read without a system call, which takes some ten nanoseconds.
const FAST_CLOCKS: [&str; 4] = ["tsc", "arch_sys_counter", "kvm-clock", "riscv_clocksource"];

/// Looks at the kernel.
pub fn examine(config: &Config, machine: &Machine) -> Vec<Finding> {
    vec![preemption(machine), throttling(config, machine), clock(machine)]
}

fn preemption(machine: &Machine) -> Finding {
    const SUBJECT: &str = "kernel";
    let version = machine.read("/proc/version").unwrap_or_default();
    let release = version.split_whitespace().nth(2).unwrap_or("unknown").to_owned();
    if machine.number("/sys/kernel/realtime") == Some(1) || version.contains("PREEMPT_RT") {
        return Finding::good(SUBJECT, format!("{release} with PREEMPT_RT"));
    }
    Finding::attention(
        SUBJECT,
        format!(
            "{release} is without PREEMPT_RT: whatever the kernel happens to be doing comes before the stop, however \
             long it takes"
        ),
        "Debian: apt install linux-image-rt-amd64 (or -rt-arm64) and reboot; Raspberry Pi OS: apt install \
         linux-image-rpi-v8-rt",
    )
}

/// Real-time programs together get so much of each period; one that runs wild makes all of them wait for the rest.
fn throttling(config: &Config, machine: &Machine) -> Finding {
    const SUBJECT: &str = "real-time limit";
    let at = |name: &str| machine.number(&format!("/proc/sys/kernel/sched_rt_{name}_us"));
    let (Some(runtime), Some(period)) = (at("runtime"), at("period")) else {
        return Finding::good(SUBJECT, "this kernel has none".to_owned());
    };
    if runtime < 0 {
        return Finding::good(SUBJECT, "none: real-time programs are never made to wait".to_owned());
    }
    let pause = Duration::from_micros(u64::try_from(period - runtime).unwrap_or_default());
    let found = format!(
        "if a real-time program runs wild, all of them wait for {} ms of every {} ms",
        pause.as_millis(),
        period / 1000
    );
    if pause <= config.supervisor.kernel_stop {
        return Finding::good(SUBJECT, found + ", no longer than kernel_stop");
    }
    Finding::attention(
        SUBJECT,
        format!(
            "{found}: longer than kernel_stop ({} ms), so the kernel stops the motors meanwhile",
            config.supervisor.kernel_stop.as_millis()
        ),
        "sysctl -w kernel.sched_rt_runtime_us=950000; the file that sets another value is in /etc/sysctl.d",
    )
}

fn clock(machine: &Machine) -> Finding {
    const SUBJECT: &str = "clock";
    let Some(clock) = machine.read("/sys/devices/system/clocksource/clocksource0/current_clocksource") else {
        return Finding::unknown(SUBJECT, "the kernel does not say which it uses".to_owned(), None);
    };
    if FAST_CLOCKS.contains(&clock.as_str()) {
        return Finding::good(SUBJECT, clock);
    }
    Finding::attention(
        SUBJECT,
        format!(
            "{clock} is slow: each look at it is a system call and takes microseconds, some thousand times a second"
        ),
        "see why the fast one was given up: dmesg | grep -i clocksource. If it may be trusted, boot with \
         tsc=reliable clocksource=tsc",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Attention, Good, Unknown};
    use super::super::machine::made_up::MadeUp;
    use super::super::robot;
    use super::examine;

    const PLAIN: &str = "Linux version 6.12.43+deb12-amd64 (d@b) #1 SMP PREEMPT_DYNAMIC Debian 6.12.43-1";
    const REAL_TIME: &str = "Linux version 6.1.0-37-rt-amd64 (d@b) #1 SMP PREEMPT_RT Debian 6.1.140-1";
    const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    const RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";

    fn verdicts(made: &MadeUp) -> Vec<Verdict> {
        examine(&robot(""), &made.machine()).iter().map(|finding| finding.verdict).collect()
    }

    fn tuned() -> MadeUp {
        MadeUp::with(&[
            ("/proc/version", REAL_TIME),
            ("/sys/kernel/realtime", "1"),
            (RUNTIME, "950000"),
            ("/proc/sys/kernel/sched_rt_period_us", "1000000"),
            (CLOCK, "tsc"),
        ])
    }

    #[test]
    fn a_tuned_kernel_is_good_and_a_plain_one_is_not() {
        let made = tuned();
        assert_eq!(verdicts(&made), [Good; 3]);
        // Older kernels say it in their name alone.
        made.write("/sys/kernel/realtime", "0");
        assert_eq!(verdicts(&made)[0], Good);
        made.write("/proc/version", PLAIN);
        let findings = examine(&robot(""), &made.machine());
        assert_eq!(findings[0].verdict, Attention);
        assert!(findings[0].found.starts_with("6.12.43+deb12-amd64 is without PREEMPT_RT"), "{findings:?}");
    }

    #[test]
    fn a_pause_of_real_time_programs_is_compared_with_the_kernels_stop() {
        let made = tuned();
        for (runtime, expected) in [("-1", Good), ("950000", Good), ("949000", Attention), ("0", Attention)] {
            made.write(RUNTIME, runtime);
            assert_eq!(verdicts(&made)[1], expected, "{runtime}");
        }
        let patient = robot("[supervisor]\nkernel_stop = \"60ms\"\n");
        made.write(RUNTIME, "940000");
        assert_eq!(examine(&patient, &made.machine())[1].verdict, Good);
    }

    #[test]
    fn a_slow_clock_is_told() {
        let made = tuned();
        for (clock, expected) in [("hpet", Attention), ("acpi_pm", Attention), ("arch_sys_counter", Good)] {
            made.write(CLOCK, clock);
            assert_eq!(verdicts(&made)[2], expected, "{clock}");
        }
        assert_eq!(verdicts(&MadeUp::with(&[("/proc/version", PLAIN)])), [Attention, Good, Unknown]);
    }
}
