//! Sharing work among threads.
//!
//! A layer takes some microseconds, and so does waking a thread: the threads of a [`Pool`] stay awake
//! for a while after their work, and the caller takes a share.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

/// Threads that help whoever installs them.
pub struct Pool(micropool::ThreadPool);

impl Pool {
    /// Starts threads, `count` with the caller's of them; none if the system has no more.
    pub fn new(count: usize) -> Option<Pool> {
        let builder = micropool::ThreadPoolBuilder::default();
        // It panics if a thread cannot be had.
        let build = || builder.num_threads(count.saturating_sub(1).max(1)).build();
        catch_unwind(AssertUnwindSafe(build)).ok().map(Pool)
    }

    /// Does `work`, in which all of [`Threads`] are those of this pool. Not within such work.
    ///
    /// # Panics
    /// If `work` does.
    pub fn install<R>(&self, work: impl FnOnce() -> R) -> R {
        // A panic would not get past it.
        let result = self.0.install(|| catch_unwind(AssertUnwindSafe(work)));
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// How many threads share the work of a call. They are those of the [`Pool`] in which the call runs;
/// with one, nothing leaves the caller's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads(usize);

impl Threads {
    /// The caller's thread alone.
    pub const ONE: Threads = Threads(1);

    /// Asks for `count` threads, at least one.
    pub fn new(count: usize) -> Threads {
        Threads(count.max(1))
    }

    /// Returns the number of threads.
    pub fn count(self) -> usize {
        self.0
    }

    /// Calls `work` on ranges that together are `0..items`, at most one a thread, each but the
    /// last a multiple of `step` long.
    ///
    /// # Panics
    /// If `work` does, or `step` is zero.
    pub fn split(self, items: usize, step: usize, work: impl Fn(Range<usize>) + Sync) {
        let steps = items.div_ceil(step);
        let parts = self.0.min(steps);
        if parts <= 1 {
            return work(0..items);
        }
        let start = |part: usize| (steps * part / parts * step).min(items);
        let panic = FirstPanic::default();
        halves(0..parts, &|part| panic.catch(|| work(start(part)..start(part + 1))));
        panic.resume();
    }

    /// Splits `rows`, whole rows of `width` elements, among the threads: `work` gets the number of
    /// the first row of a part and the part. Parts are at least `least` rows.
    ///
    /// # Panics
    /// If `work` does.
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
        let panic = FirstPanic::default();
        halves_of_rows(rows, 0, per_part * width, &|part, rows| {
            panic.catch(|| work(part * per_part, rows));
        });
        panic.resume();
    }
}

/// Calls `work` with each number, on several threads.
fn halves(parts: Range<usize>, work: &(impl Fn(usize) + Sync)) {
    if parts.len() <= 1 {
        return parts.for_each(work);
    }
    let middle = parts.start + parts.len() / 2;
    micropool::join(|| halves(parts.start..middle, work), || halves(middle..parts.end, work));
}

/// Calls `work` with parts of `len` elements, of which the first is number `first`.
fn halves_of_rows<T: Send>(
    rows: &mut [T],
    first: usize,
    len: usize,
    work: &(impl Fn(usize, &mut [T]) + Sync),
) {
    let parts = rows.len().div_ceil(len);
    if parts <= 1 {
        return work(first, rows);
    }
    let (left, right) = rows.split_at_mut(parts / 2 * len);
    micropool::join(
        || halves_of_rows(left, first, len, work),
        || halves_of_rows(right, first + parts / 2, len, work),
    );
}

/// What one of several threads panicked with: the pool would end the process.
#[derive(Default)]
struct FirstPanic(Mutex<Option<Box<dyn Any + Send>>>);

impl FirstPanic {
    fn catch(&self, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.0.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(panic);
        }
    }

    fn resume(self) {
        if let Some(panic) = self.0.into_inner().unwrap_or_else(|e| e.into_inner()) {
            resume_unwind(panic);
        }
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
    fn panics_reach_the_caller() {
        let pool = Pool::new(3).unwrap();
        let fails = |work: &dyn Fn()| {
            let panic = catch_unwind(AssertUnwindSafe(|| pool.install(work))).unwrap_err();
            assert_eq!(*panic.downcast::<&str>().unwrap(), "seven");
        };
        let seven = |here: bool| assert!(!here, "seven");
        fails(&|| Threads::new(3).split(9, 1, |range| seven(range.contains(&7))));
        fails(&|| Threads::new(3).rows(&mut [0; 9], 1, 1, |first, _| seven(first == 6)));
        // And leave the pool as it was.
        assert_eq!(pool.install(|| 5), 5);
    }

    #[test]
    fn several_callers_share_a_pool() {
        let pool = Pool::new(2).unwrap();
        std::thread::scope(|scope| {
            for caller in 0..4 {
                let pool = &pool;
                scope.spawn(move || {
                    let mut rows = vec![0; 1000];
                    pool.install(|| {
                        Threads::new(2).rows(&mut rows, 1, 1, |first, part| {
                            part.iter_mut().enumerate().for_each(|(i, x)| *x = caller + first + i);
                        });
                    });
                    assert!(rows.into_iter().eq(caller..caller + 1000));
                });
            }
        });
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
