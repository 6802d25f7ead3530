//! Sharing work among threads of the pool that the caller runs in.

use std::ops::Range;

/// How many threads share the work of a call. They are those of the rayon pool in which the call
/// runs; with one, nothing leaves the caller's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads(usize);

impl Threads {
    /// The caller's thread alone.
    pub const ONE: Threads = Threads(1);

    /// `count` threads, at least one.
    pub fn new(count: usize) -> Threads {
        Threads(count.max(1))
    }

    /// The number of threads.
    pub fn count(self) -> usize {
        self.0
    }

    /// Calls `work` on ranges that together are `0..items`, at most one a thread, each but the
    /// last a multiple of `step` long.
    pub fn split(self, items: usize, step: usize, work: impl Fn(Range<usize>) + Sync) {
        let steps = items.div_ceil(step);
        let parts = self.0.min(steps);
        if parts <= 1 {
            return work(0..items);
        }
        let part = |i: usize| (steps * i / parts * step).min(items);
        rayon::scope(|scope| {
            for i in 1..parts {
                let work = &work;
                scope.spawn(move |_| work(part(i)..part(i + 1)));
            }
            work(0..part(1));
        });
    }

    /// Splits `rows`, whole rows of `width` elements, among the threads: `work` gets the number of
    /// the first row of a part and the part. Parts are at least `least` rows.
    pub fn rows<T: Send>(
        self,
        rows: &mut [T],
        width: usize,
        least: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let count = rows.len().checked_div(width).unwrap_or(0);
        let parts = self.0.min(count / least.max(1));
        if parts <= 1 {
            return work(0, rows);
        }
        let per_part = count.div_ceil(parts);
        let mut parts = rows.chunks_mut(per_part * width).enumerate();
        let first = parts.next();
        rayon::scope(|scope| {
            for (i, part) in parts {
                let work = &work;
                scope.spawn(move |_| work(i * per_part, part));
            }
            if let Some((_, part)) = first {
                work(0, part);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn parts_cover_all_once() {
        for (items, step, threads) in [(10, 4, 2), (3, 4, 2), (0, 4, 2), (100, 1, 3), (7, 2, 9)] {
            let seen = Mutex::new(vec![0; items]);
            Threads::new(threads).split(items, step, |range| {
                assert!(range.start % step == 0);
                range.for_each(|i| seen.lock().unwrap()[i] += 1);
            });
            assert!(seen.into_inner().unwrap().iter().all(|&n| n == 1));
        }
    }

    #[test]
    fn rows_stay_whole() {
        let mut rows = vec![0; 7 * 3];
        Threads::new(2).rows(&mut rows, 3, 1, |first, part| {
            part.chunks_mut(3).enumerate().for_each(|(i, row)| row.fill(first + i + 1));
        });
        let wanted: Vec<usize> = (1..=7).flat_map(|i| [i; 3]).collect();
        assert_eq!(rows, wanted);
    }
}
