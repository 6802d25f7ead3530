//! Measuring latency and memory.

use std::time::{Duration, Instant};

use fewbits_runtime::{Runner, Tensor};
use serde::Serialize;

use crate::Result;

/// Calls before the clock counts: caches fill, threads wake.
const WARM_UP_CALLS: usize = 3;
/// At least this many timed calls a model, even if they are slow.
const MIN_CALLS: usize = 5;
/// At most this many, even if they are fast.
const MAX_CALLS: usize = 1000;
/// What timing one group of models may take.
const BUDGET: Duration = Duration::from_millis(800);

/// The time of one call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The median over all timed calls, in milliseconds.
    pub median: f64,
}

/// Times several models side by side: one call of each in turn, so that whatever else the machine
/// does falls on all of them alike.
pub fn latencies(runners: &[&dyn Runner], inputs: &[&[(String, Tensor)]]) -> Result<Vec<Latency>> {
    for _ in 0..WARM_UP_CALLS {
        for (runner, inputs) in runners.iter().zip(inputs) {
            runner.run(inputs)?;
        }
    }
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); runners.len()];
    let begun = Instant::now();
    for call in 0..MAX_CALLS {
        if call >= MIN_CALLS && begun.elapsed() > BUDGET {
            break;
        }
        for ((runner, inputs), times) in runners.iter().zip(inputs).zip(&mut times) {
            let start = Instant::now();
            runner.run(inputs)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times.into_iter().map(|t| Latency { median: median(t) }).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// The largest resident memory that this process has had, in bytes; `None` where the system does
/// not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_told_on_linux() {
        assert!(peak_rss_bytes().unwrap() > 100_000);
    }
}
