//! What a call is worth: one thread, all of them, or parts of its batch, one or several a thread, each
//! small enough for the cache.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use fewbits_kernels::Threads;

/// What the values of a part may take: with weights beside them they stay in the last cache.
const PART_BYTES: usize = 4 << 20;
/// The weights are read once for every part: these should not be much smaller.
const WEIGHTS_A_PART: usize = 4;
/// Below so many bytes to be read and written, waking a thread takes longer than it saves.
const LEAST_BYTES: usize = 128 << 10;

/// Whether a batch may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Its rows can be computed apart, to the same bits.
    Apart,
    /// They depend on each other, or may.
    Mixed,
}

/// How the calls of a model are shared among threads.
pub(crate) struct Parts {
    rows: Rows,
    weight_bytes: usize,
    /// What the values of a row take; 0 before the first run.
    row_bytes: AtomicUsize,
}

impl Parts {
    pub(crate) fn new(rows: Rows, weight_bytes: usize) -> Parts {
        Parts { rows, weight_bytes, row_bytes: AtomicUsize::new(0) }
    }

    /// The threads that a call of so many rows is worth.
    pub(crate) fn threads(&self, rows: usize, threads: Threads) -> Threads {
        match self.row_bytes.load(Ordering::Relaxed) {
            0 => threads,
            row if row.saturating_mul(rows).saturating_add(self.weight_bytes) < LEAST_BYTES => {
                Threads::ONE
            }
            _ => threads,
        }
    }

    /// Learns from a run of so many rows, whose values take `bytes`.
    pub(crate) fn learn(&self, rows: usize, bytes: usize) {
        if self.row_bytes.load(Ordering::Relaxed) == 0 && rows > 0 {
            self.row_bytes.store(bytes.div_ceil(rows), Ordering::Relaxed);
        }
    }

    /// The parts of so many rows, as many for each thread; none if they are computed together.
    pub(crate) fn of(&self, rows: usize, threads: Threads) -> Option<Vec<Range<usize>>> {
        if self.rows == Rows::Mixed {
            return None;
        }
        let (row_bytes, threads) = (self.row_bytes.load(Ordering::Relaxed), threads.count());
        let unequal = rows < 2 * threads && !rows.is_multiple_of(threads);
        if row_bytes == 0 || rows < 2 || unequal || rows.saturating_mul(row_bytes) < LEAST_BYTES {
            return None;
        }
        let fitting = PART_BYTES.max(self.weight_bytes / WEIGHTS_A_PART) / row_bytes;
        let count = rows.div_ceil(fitting.max(1)).next_multiple_of(threads).min(rows);
        let start = |part: usize| rows * part / count;
        (count > 1).then(|| (0..count).map(|part| start(part)..start(part + 1)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_batch() {
        for (threads, row_bytes, weight_bytes) in
            [(1, 9_000_000, 0), (2, 3 << 20, 0), (3, 700_000, 1 << 30), (8, 40_000, 5)]
        {
            let (parts, threads) = (Parts::new(Rows::Apart, weight_bytes), Threads::new(threads));
            assert_eq!(parts.of(64, threads), None, "before anything is known");
            parts.learn(3, 3 * row_bytes);
            for rows in 0..200 {
                let Some(parts) = parts.of(rows, threads) else { continue };
                assert!(parts.len() >= threads.count());
                assert!(parts.iter().all(|part| !part.is_empty()));
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert_eq!((parts[0].start, parts.last().unwrap().end), (0, rows));
            }
            let cut = (0..200).filter(|&rows| parts.of(rows, threads).is_some()).count();
            assert!(cut > 100, "{cut} batches are cut");
        }
    }

    #[test]
    fn small_batches_and_what_fits_stay_whole() {
        let parts = Parts::new(Rows::Apart, 0);
        parts.learn(1, 1 << 10);
        assert_eq!(parts.of(32, Threads::new(2)), None);
        assert_eq!(parts.of(256, Threads::ONE), None);
        assert_eq!(parts.of(256, Threads::new(2)), Some(vec![0..128, 128..256]));
        assert_eq!(parts.of(8192, Threads::ONE), Some(vec![0..4096, 4096..8192]));
    }

    #[test]
    fn rows_that_mix_are_not_cut_and_small_calls_take_one_thread() {
        let (mixed, two) = (Parts::new(Rows::Mixed, 100 << 10), Threads::new(2));
        assert_eq!(mixed.threads(1, two), two, "before anything is known");
        mixed.learn(1, 1 << 10);
        assert_eq!(mixed.of(8192, two), None);
        assert_eq!(mixed.threads(1, two), Threads::ONE);
        assert_eq!(mixed.threads(64, two), two);
    }
}
