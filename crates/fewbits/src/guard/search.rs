//! Which units stay float, found with few measurements.

use crate::Result;

/// Models that are measured in all, the one with nothing left float included.
pub const MOST_EVALUATIONS: usize = 20;

/// What is left float, and how far a model is from what it must hold.
#[derive(Clone, Debug)]
pub struct Found<V> {
    /// The units left float, in the order in which they cost most.
    pub float: Vec<usize>,
    /// What was measured.
    pub verdict: V,
    /// How many models were measured.
    pub evaluations: usize,
}

/// What a measured model is judged by.
pub trait Verdict {
    /// How much it lacks, 0 where it holds.
    fn lacks(&self) -> f64;
}

/// What is known before the search.
pub struct Ends<V> {
    /// What was measured of the model with nothing left float.
    pub nothing_float: V,
    /// The same with all units left float that may be.
    pub all_float: V,
    /// How many models were measured for both.
    pub evaluations: usize,
}

/// Looks for few units to leave float so that the model holds. `order` names those that may be, the costliest
/// first. If no model holds, gives the one that lacks least.
///
/// The shortest beginning of `order` that holds is found by bisection. With the measurements that are left,
/// the largest units, by `size`, are quantized again, one at a time, where the model holds nevertheless.
///
/// # Errors
/// Those of `measure`.
pub fn search<V: Verdict>(
    order: &[usize],
    size: &dyn Fn(usize) -> usize,
    ends: Ends<V>,
    measure: &mut dyn FnMut(&[usize]) -> Result<V>,
) -> Result<Found<V>> {
    let Ends { nothing_float, all_float, mut evaluations } = ends;
    let best_of_both = match all_float.lacks() < nothing_float.lacks() {
        true => Found { float: order.to_vec(), verdict: all_float, evaluations },
        false => Found { float: Vec::new(), verdict: nothing_float, evaluations },
    };
    if best_of_both.float.is_empty() || best_of_both.verdict.lacks() > 0.0 {
        return Ok(best_of_both);
    }
    let mut best = best_of_both;
    // The beginning of `low` units is too short; that of `high` holds.
    let (mut low, mut high) = (0, order.len());
    while high - low > 1 && evaluations < MOST_EVALUATIONS {
        let at = low + (high - low) / 2;
        let verdict = measure(&order[..at])?;
        evaluations += 1;
        match verdict.lacks() <= 0.0 {
            true => {
                best = Found { float: order[..at].to_vec(), verdict, evaluations };
                high = at;
            }
            false => low = at,
        }
    }
    // The last one is needed: without it the beginning is too short.
    let mut large: Vec<usize> = best.float.iter().rev().skip(1).copied().collect();
    large.retain(|&unit| size(unit) > 0);
    large.sort_by_key(|&unit| std::cmp::Reverse(size(unit)));
    for unit in large {
        if evaluations >= MOST_EVALUATIONS {
            break;
        }
        let float: Vec<usize> = best.float.iter().copied().filter(|&u| u != unit).collect();
        let verdict = measure(&float)?;
        evaluations += 1;
        if verdict.lacks() <= 0.0 {
            best = Found { float, verdict, evaluations };
        }
    }
    Ok(Found { evaluations, ..best })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Verdict for f64 {
        fn lacks(&self) -> f64 {
            *self
        }
    }

    /// Searches where each unit left float takes its noise off, and the rest must be at most `most`.
    fn found(noise: &[f64], sizes: &[usize], most: f64) -> (Found<f64>, usize) {
        let mut order: Vec<usize> = (0..noise.len()).collect();
        order.sort_by(|&a, &b| noise[b].total_cmp(&noise[a]));
        found_in(&order, noise, sizes, most)
    }

    /// The same in an order that is given.
    fn found_in(order: &[usize], noise: &[f64], sizes: &[usize], most: f64) -> (Found<f64>, usize) {
        let mut calls = 0;
        let lacks = |float: &[usize]| {
            let rest = (0..noise.len()).filter(|unit| !float.contains(unit));
            (rest.map(|unit| noise[unit]).sum::<f64>() - most).max(0.0)
        };
        let size = |unit: usize| sizes[unit];
        let ends = Ends { nothing_float: lacks(&[]), all_float: lacks(order), evaluations: 2 };
        let found = search(order, &size, ends, &mut |float| {
            calls += 1;
            Ok(lacks(float))
        });
        (found.unwrap(), calls)
    }

    #[test]
    fn what_holds_is_measured_once() {
        let (found, calls) = found(&[1.0, 2.0], &[1, 1], 3.0);
        assert_eq!((found.float.len(), calls), (0, 0));
    }

    #[test]
    fn the_fewest_that_cost_most_stay_float() {
        let noise: Vec<f64> = (0..500).map(|i| f64::from(i % 100)).collect();
        let (found, calls) = found(&noise, &[0; 500], 500.0 * 20.0);
        let rest: f64 =
            noise.iter().sum::<f64>() - found.float.iter().map(|&u| noise[u]).sum::<f64>();
        assert!(rest <= 10_000.0);
        let last = noise[*found.float.last().unwrap()];
        assert!(rest + last > 10_000.0, "one fewer does not hold");
        assert_eq!(found.evaluations, calls + 2);
        assert!(found.evaluations <= MOST_EVALUATIONS);
    }

    #[test]
    fn large_ones_that_need_not_be_float_are_quantized_again() {
        // The large one was thought to cost most; in truth it costs nothing beside the others.
        let (found, _) = found_in(&[0, 1, 2], &[0.0, 4.0, 4.0], &[1000, 1, 1], 0.0);
        assert_eq!(found.float, [1, 2]);
        assert_eq!(found.verdict, 0.0);
    }

    #[test]
    fn where_nothing_holds_the_best_is_given() {
        let (found, calls) = found(&[5.0, 4.0], &[1, 1], -1.0);
        assert_eq!((found.float.len(), found.verdict), (2, 1.0));
        assert_eq!(calls, 0);
    }
}
