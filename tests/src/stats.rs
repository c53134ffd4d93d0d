//! From samples to the few numbers that are reported.

/// Latencies in nanoseconds, summed up in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Half are at most this.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// 999 of 1000 are at most this.
    pub p999: f64,
    /// All are at most this.
    pub max: f64,
    /// Their mean.
    pub avg: f64,
}

/// Nanoseconds as a number of microseconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "durations of a benchmark are far below 2^52 ns")]
pub fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// The sample that `per_mille` thousandths of all, rounded up, do not exceed. `sorted` must be sorted.
///
/// # Panics
///
/// Without a sample.
#[must_use]
pub fn quantile(sorted: &[u64], per_mille: usize) -> u64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted[rank.min(sorted.len()) - 1]
}

/// Sums up; `None` without samples.
#[must_use]
pub fn summary(mut samples: Vec<u64>) -> Option<Summary> {
    samples.sort_unstable();
    let max = *samples.last()?;
    let count = u64::try_from(samples.len()).ok()?;
    let at = |per_mille| micros(quantile(&samples, per_mille));
    let avg = micros(samples.iter().sum::<u64>()) / micros(count * 1000);
    Some(Summary { p50: at(500), p99: at(990), p999: at(999), max: micros(max), avg })
}

/// The middle one of some measurements; not a number if there are none.
#[must_use]
pub fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{median, quantile, summary};

    #[test]
    fn a_quantile_is_a_sample_that_so_many_do_not_exceed() {
        let sorted: Vec<u64> = (1..=1000).collect();
        assert_eq!(
            [500, 990, 999, 1000].map(|per_mille| quantile(&sorted, per_mille)),
            [500, 990, 999, 1000]
        );
        assert_eq!([500, 990, 999].map(|per_mille| quantile(&[1, 2, 3], per_mille)), [2, 3, 3]);
    }

    #[test]
    fn samples_are_summed_up_in_microseconds_whatever_their_order() {
        let summary = summary(vec![4000, 1000, 2000, 3000]).unwrap();
        assert_eq!((summary.p50, summary.max, summary.avg), (2.0, 4.0, 2.5));
        assert!(super::summary(Vec::new()).is_none());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
