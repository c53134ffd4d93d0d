//! The hardware watchdog: a device that resets the machine unless somebody feeds it.
//!
//! It is fed for the progress of the real-time loop only, by housekeeping, and told to stop watching only at an orderly
//! end. systemd keeps the descriptor while the supervisor is gone: the device stays open and unfed, so that the machine
//! is reset if no supervisor comes back in time, also where its driver would stop with the last descriptor. A machine that
//! resets sends no stops: by then the kernel has sent them, and the drives' own watchdogs hold.
//!
//! Source: Documentation/watchdog/watchdog-api.rst and include/uapi/linux/watchdog.h of the kernel.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use config::HardwareWatchdog as Wanted;
use shm_proto::Nanos;
use shm_proto::verdicts::Degraded;

use crate::notify::{self, Notifier};
use crate::{log, sys};

/// What it is called in systemd's store.
const NAME: &str = "watchdog";
/// Any byte feeds it but this one, after which closing it is no reason to reset (magic close).
const GOODBYE: &[u8] = b"V";
const FOOD: &[u8] = b"\0";
/// Fed four times within its time: three may be late.
const SHARE: u64 = 4;
/// The machine was last reset by its watchdog (WDIOF_CARDRESET).
const CARD_RESET: i32 = 0x0020;
/// What the kernel tells of every watchdog it knows.
const CLASS: &str = "/sys/class/watchdog";

/// A device that is open, and therefore counting.
#[derive(Debug)]
pub struct HardwareWatchdog {
    device: File,
    period: u64,
    fed: Nanos,
    /// Passes of the loop when it was last fed.
    passes: u64,
    /// Whether systemd was given it, too.
    kept: bool,
}

/// Opens the device that the configuration names, or takes it back; from then on it counts. One that was kept and is no
/// longer wanted is told to stop. Without it the supervisor starts all the same, and says so: the second result is a
/// sum of [`Degraded`] bits.
#[must_use]
pub fn open(wanted: Option<&Wanted>, notifier: &Notifier) -> (Option<HardwareWatchdog>, u64) {
    let kept = notify::kept_for_us(|name| name == NAME).into_iter().map(|(_, fd)| File::from(fd));
    let mut same = None;
    for device in kept {
        if same.is_none() && wanted.is_some_and(|wanted| is_device_at(&device, &wanted.device)) {
            same = Some(device);
        } else {
            notifier.forget(NAME);
            // Of another configuration: nobody feeds it any more.
            let _ = (&device).write_all(GOODBYE);
        }
    }
    let Some(wanted) = wanted else { return (None, 0) };
    let opened = same.map_or_else(|| OpenOptions::new().write(true).open(&wanted.device), Ok);
    match opened.and_then(|device| HardwareWatchdog::start(device, wanted)) {
        Ok(mut watchdog) => {
            watchdog.keep(notifier);
            (Some(watchdog), 0)
        }
        Err(error) => {
            log::line(&format!(
                "WARNING: degraded: [supervisor] watchdog \"{}\": {error}{}; a machine that hangs is not reset",
                wanted.device.display(),
                remedy(&error)
            ));
            (None, Degraded::Watchdog.number())
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            " (somebody else feeds it: systemd, if RuntimeWatchdogSec= is set, or watchdogd)"
        }
        Some(libc::EACCES | libc::EPERM) => {
            " (the service needs systemd/examples/lanyard-supervisor.service.d/watchdog.conf)"
        }
        Some(libc::ENOENT) => " (load the driver of this computer's watchdog: ls /sys/class/watchdog)",
        Some(libc::ENOTTY | libc::EINVAL) => " (it is no watchdog)",
        _ => "",
    }
}

fn is_device_at(device: &File, path: &Path) -> bool {
    let there = std::fs::metadata(path).ok().filter(|found| found.file_type().is_char_device());
    let number = device.metadata().ok().map(|found| found.rdev());
    there.is_some_and(|there| Some(there.rdev()) == number)
}

impl HardwareWatchdog {
    /// Sets how long it waits. Some devices know only times of their own.
    fn start(device: File, Wanted { device: path, timeout }: &Wanted) -> io::Result<Self> {
        let seconds = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
        let takes = sys::watchdog_set_timeout(device.as_fd(), seconds)
            .or_else(|_| sys::watchdog_timeout(device.as_fd()))?;
        let takes = Duration::from_secs(u64::try_from(takes.max(1)).unwrap_or(1));
        if takes != *timeout {
            log::line(&format!(
                "the hardware watchdog {} waits {} s instead of {} s",
                path.display(),
                takes.as_secs(),
                timeout.as_secs()
            ));
        }
        let period = u64::try_from(takes.as_nanos()).unwrap_or(u64::MAX) / SHARE;
        Ok(Self { device, period, fed: Nanos::ZERO, passes: 0, kept: false })
    }

    fn keep(&mut self, notifier: &Notifier) {
        if !notifier.is_there() || self.kept {
            return;
        }
        let copy: Vec<OwnedFd> = self.device.try_clone().map(OwnedFd::from).into_iter().collect();
        // A busy systemd is asked again with the next feeding. One that has it already closes the second one.
        self.kept = notifier.store(NAME, &copy).is_ok();
    }

    /// Feeds it if it is time and the loop has come round since: as for [`notify::Watchdog`], nothing else counts.
    pub fn feed(&mut self, notifier: &Notifier, passes: u64, now: Nanos) {
        if passes == self.passes || now.since(self.fed) < self.period {
            return;
        }
        match self.device.write_all(FOOD) {
            Ok(()) => (self.fed, self.passes) = (now, passes),
            Err(error) => log::line(&format!("WARNING: the hardware watchdog cannot be fed: {error}")),
        }
        self.keep(notifier);
    }

    /// The last word of an orderly end: every motor was told to stop, and nobody need reset the machine.
    pub fn end(&mut self, notifier: &Notifier) {
        // Before systemd closes its descriptor, which may be the last.
        if let Err(error) = self.device.write_all(GOODBYE) {
            log::line(&format!("WARNING: the hardware watchdog goes on counting: {error}"));
        }
        notifier.forget(NAME);
    }
}

/// The watchdogs that say that they have reset this machine.
#[must_use]
pub fn has_reset_machine() -> Vec<String> {
    resets_in(Path::new(CLASS))
}

fn resets_in(class: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(class).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| {
            let status = std::fs::read_to_string(entry.path().join("bootstatus")).unwrap_or_default();
            status.trim().parse::<i32>().is_ok_and(|status| status & CARD_RESET != 0)
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, SeekFrom};

    use super::*;

    fn file() -> (File, File) {
        let path = std::env::temp_dir().join(format!(
            "lanyard-watchdog-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        (file.try_clone().unwrap(), file)
    }

    fn written(file: &mut File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Fails if it is fed while the loop stands still, more often than it needs, or told to stop before the end.
    #[test]
    fn only_a_loop_that_comes_round_feeds_it_and_only_the_end_says_goodbye() {
        let (device, mut shadow) = file();
        let period = 10_000_000_000 / SHARE;
        let mut watchdog = HardwareWatchdog { device, period, fed: Nanos::ZERO, passes: 0, kept: false };
        let notifier = Notifier::from_environment();
        let at = |millis: u64| Nanos(1_000_000_000_000 + millis * 1_000_000);
        let mut expected = Vec::new();
        for (millis, passes, fed) in [
            (0, 0, false), // not a single pass yet
            (50, 1, true),
            (100, 11, false),
            (2_549, 400, false),
            (2_550, 400, true),
            (5_100, 400, false), // the loop hangs
            (60_000, 400, false),
            (60_050, 401, true),
        ] {
            watchdog.feed(&notifier, passes, at(millis));
            expected.extend(if fed { FOOD } else { &[] });
            assert_eq!(written(&mut shadow), expected, "at {millis} ms");
        }
        watchdog.end(&notifier);
        expected.extend(GOODBYE);
        assert_eq!(written(&mut shadow), expected);
    }

    #[test]
    fn what_a_watchdog_says_of_the_last_start_is_understood() {
        let class = std::env::temp_dir().join(format!("lanyard-watchdogs-{}", std::process::id()));
        for (name, status) in
            [("watchdog0", "32\n"), ("watchdog1", "0\n"), ("watchdog2", "33\n"), ("watchdog3", "-\n")]
        {
            std::fs::create_dir_all(class.join(name)).unwrap();
            std::fs::write(class.join(name).join("bootstatus"), status).unwrap();
        }
        std::fs::create_dir_all(class.join("watchdog4")).unwrap();
        assert_eq!(resets_in(&class), ["watchdog0", "watchdog2"]);
        assert!(resets_in(&class.join("nowhere")).is_empty());
        std::fs::remove_dir_all(&class).unwrap();
    }
}
