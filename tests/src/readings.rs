//! Readings from what other programs and the kernel print.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// The samples of a histogram as cyclictest prints it, nanoseconds, and how many lay beyond it. Its unit is the
/// whole microsecond, rounded down.
///
/// # Errors
/// There is no histogram.
pub fn histogram(text: &str) -> Result<(Vec<u64>, u64)> {
    let mut counts = BTreeMap::new();
    let mut overflows = None;
    for line in text.lines() {
        if let Some(count) = line.strip_prefix("# Histogram Overflows:") {
            overflows = Some(count.trim().parse().context("histogram overflows")?);
        } else if let Some((latency, count)) = line.split_once(char::is_whitespace)
            && let (Ok(latency), Ok(count)) = (latency.parse::<u64>(), count.trim().parse::<usize>())
        {
            counts.insert(latency, count);
        }
    }
    let overflows = overflows.context("cyclictest printed no histogram")?;
    let samples = counts.into_iter().flat_map(|(latency, count)| std::iter::repeat_n(latency * 1000, count));
    Ok((samples.collect(), overflows))
}

/// The number behind a key of a file in /proc, KiB.
///
/// # Errors
/// There is no such key.
pub fn kib(text: &str, key: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{key} is no number of KiB"))
}

/// The private pages in a /proc/PID/smaps, KiB, but for mappings whose line contains `shared`: memory that is meant
/// for others counts as private while nobody else has it mapped.
///
/// # Errors
/// It is no such file.
pub fn private_kib(smaps: &str, shared: &str) -> Result<f64> {
    let mut total = 0.0;
    let mut counts = true;
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if !first.ends_with(':') {
            counts = !line.contains(shared);
        } else if counts && matches!(first, "Private_Clean:" | "Private_Dirty:") {
            total += kib(line, first)?;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::{histogram, kib, private_kib};

    #[test]
    fn a_histogram_is_read_back_sample_by_sample() {
        let text = "# /dev/cpu_dma_latency set to 0us\n# Histogram\n000000 000000\n000003 000002\n000007\t000001\n\
                    # Total: 000000003\n# Max Latencies: 00007\n# Histogram Overflows: 00001\n";
        assert_eq!(histogram(text).unwrap(), (vec![3000, 3000, 7000], 1));
        assert!(histogram("nothing").is_err());
    }

    #[test]
    fn private_pages_of_shared_segments_do_not_count() {
        let smaps = "55d0-55d1 r-xp 00000000 fe:00 42 /usr/bin/x\nRss:   8 kB\nPrivate_Clean:   4 kB\n\
                     Private_Dirty:   1 kB\n7f00-7f01 rw-s 00000000 00:01 7 /memfd:lanyard-beats (deleted)\n\
                     Private_Dirty:   100 kB\n7fff-8000 rw-p 00000000 00:00 0 [stack]\nPrivate_Dirty:   16 kB\n";
        assert_eq!(private_kib(smaps, "/memfd:lanyard-").unwrap(), 21.0);
        assert_eq!(kib(smaps, "Rss:").unwrap(), 8.0);
        assert!(kib(smaps, "Swap:").is_err());
    }
}
