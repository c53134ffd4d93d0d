//! From `CLOCK_BOOTTIME` to a date that can be compared with other logs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shm_proto::Nanos;

/// What the wall clock said at boot, as of now: after the wall clock was set, earlier moments are shown
/// by the corrected clock.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    boot: SystemTime,
}

impl WallClock {
    /// By both clocks as they are now.
    pub fn now() -> Self {
        let since_boot = Duration::from_nanos(Nanos::now().0);
        Self { boot: SystemTime::now().checked_sub(since_boot).unwrap_or(UNIX_EPOCH) }
    }

    /// A moment as RFC 3339 in UTC with microseconds.
    pub fn show(&self, at: Nanos) -> String {
        let since_epoch = self
            .boot
            .checked_add(Duration::from_nanos(at.0))
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let Some(time) = since_epoch else { return "unknown".to_owned() };
        let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
            second / 3_600,
            second / 60 % 60,
            second % 60,
            time.subsec_micros()
        )
    }
}

/// Year, month and day of a number of days since 1970-01-01, counted in eras of 400 years that begin in
/// March, so that the leap day is the last of a year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(20_088), (2024, 12, 31));
        assert_eq!(civil(47_540), (2100, 2, 28));
        assert_eq!(civil(47_541), (2100, 3, 1));
    }

    #[test]
    fn a_moment_is_shown_by_the_wall_clock() {
        let clock = WallClock { boot: UNIX_EPOCH + Duration::from_secs(1_700_000_000) };
        assert_eq!(clock.show(Nanos(1_234_567_890)), "2023-11-14T22:13:21.234567Z");
        assert_eq!(clock.show(Nanos::NEVER), "2608-06-04T21:47:53.709551Z");
    }
}
