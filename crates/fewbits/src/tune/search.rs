//! The search: which of its options every unit takes.
//!
//! What each option costs (bytes, or time) and how far it alone moves the outputs is known. If the
//! errors of several options add up, the least cost for every total error lies on a path along the
//! lower convex hulls of the units, taken in the order of their slopes: Shoham and Gersho 1988,
//! "Efficient Bit Allocation for an Arbitrary Set of Quantizers", section III, whose multiplier
//! lambda is the slope. That the errors add up is an assumption (Hubara et al. 2021, "Accurate Post
//! Training Quantization With Small Calibration Sets", section 3.2, makes it for whole networks), so
//! what is right for the model is measured: by bisection along the path, then step by step behind.

use crate::Result;

/// One option of a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// What it costs; less is better.
    pub cost: f64,
    /// How far it alone moves the outputs, at least 0.
    pub error: f64,
}

/// What measuring said of some choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are good enough.
    Holds,
    /// They are not.
    Exceeds,
    /// There is no time to measure.
    Stop,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// No step is left to try.
    Complete,
    /// It was stopped.
    Stopped,
}

/// A step of one unit from one option to the next on its hull.
struct Step {
    unit: usize,
    from: usize,
    to: usize,
    /// Error per cost saved.
    slope: f64,
}

/// Looks for the cheapest options that hold. `units` are the options of each unit, in any order;
/// `check` measures choices, one option's position for each unit, and remembers the best that
/// hold.
///
/// # Errors
/// Those of `check`.
pub fn search(
    units: &[Vec<Choice>],
    check: &mut dyn FnMut(&[usize]) -> Result<Verdict>,
) -> Result<End> {
    let hulls: Vec<Vec<usize>> = units.iter().map(|options| hull(options)).collect();
    let path = path(units, &hulls);
    let at = |steps: usize| {
        let mut choice: Vec<usize> = hulls.iter().map(|hull| hull[0]).collect();
        path[..steps].iter().for_each(|step| choice[step.unit] = step.to);
        choice
    };
    // Holds at `low`, exceeds at `high`, which may be one beyond the end.
    let (mut low, mut high) = (None, path.len() + 1);
    loop {
        let next = match low {
            None if high == 0 => return Ok(End::Complete),
            None => (high - 1) / 2,
            Some(low) if high - low <= 1 => break,
            Some(low) => low + (high - low) / 2,
        };
        match check(&at(next))? {
            Verdict::Holds => low = Some(next),
            Verdict::Exceeds => high = next,
            Verdict::Stop => return Ok(End::Stopped),
        }
    }
    let low = low.unwrap_or(0);
    let mut choice = at(low);
    // The first step is the one that did not hold.
    for step in path.iter().skip(low + 1).filter(|_| low < path.len()) {
        if choice[step.unit] != step.from {
            continue;
        }
        choice[step.unit] = step.to;
        match check(&choice)? {
            Verdict::Holds => {}
            Verdict::Exceeds => choice[step.unit] = step.from,
            Verdict::Stop => return Ok(End::Stopped),
        }
    }
    Ok(End::Complete)
}

/// The options on the lower convex hull of error over cost, from the least error to the least cost.
fn hull(options: &[Choice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..options.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (options[a], options[b]);
        a.error.total_cmp(&b.error).then(a.cost.total_cmp(&b.cost))
    });
    let mut hull: Vec<usize> = Vec::new();
    for option in order {
        if hull.last().is_some_and(|&last| options[option].cost >= options[last].cost) {
            continue;
        }
        while let [.., before, last] = hull[..]
            && slope(options[before], options[last]) >= slope(options[last], options[option])
        {
            hull.pop();
        }
        hull.push(option);
    }
    hull
}

/// Error added per cost saved.
fn slope(from: Choice, to: Choice) -> f64 {
    (to.error - from.error) / (from.cost - to.cost)
}

/// The steps of all units, the best first.
fn path(units: &[Vec<Choice>], hulls: &[Vec<usize>]) -> Vec<Step> {
    let mut path: Vec<Step> = hulls
        .iter()
        .enumerate()
        .flat_map(|(unit, hull)| {
            hull.windows(2).map(move |pair| Step {
                unit,
                from: pair[0],
                to: pair[1],
                slope: slope(units[unit][pair[0]], units[unit][pair[1]]),
            })
        })
        .collect();
    // Stable: a unit's own steps have rising slopes.
    path.sort_by(|a, b| a.slope.total_cmp(&b.slope));
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(points: &[(f64, f64)]) -> Vec<Choice> {
        points.iter().map(|&(cost, error)| Choice { cost, error }).collect()
    }

    fn total(units: &[Vec<Choice>], choice: &[usize], of: fn(&Choice) -> f64) -> f64 {
        units.iter().zip(choice).map(|(options, &i)| of(&options[i])).sum()
    }

    /// The cheapest choice that holds where a limit on the sum of errors decides.
    fn found(units: &[Vec<Choice>], limit: f64) -> (Option<f64>, usize) {
        let (mut best, mut checks) = (None, 0);
        search(units, &mut |choice| {
            checks += 1;
            if total(units, choice, |c| c.error) > limit {
                return Ok(Verdict::Exceeds);
            }
            let cost = total(units, choice, |c| c.cost);
            best = Some(best.map_or(cost, |b: f64| b.min(cost)));
            Ok(Verdict::Holds)
        })
        .unwrap();
        (best, checks)
    }

    #[test]
    fn options_above_the_hull_are_left_out() {
        let points =
            options(&[(8.0, 1.0), (32.0, 0.0), (6.0, 4.0), (7.0, 3.5), (6.5, 9.0), (2.0, 20.0)]);
        assert_eq!(hull(&points), [1, 0, 2, 5]);
    }

    #[test]
    fn the_limit_is_used_up_where_it_saves_most() {
        let units = [
            options(&[(32.0, 0.0), (8.0, 0.1), (4.0, 2.0)]),
            options(&[(320.0, 0.0), (80.0, 0.1), (40.0, 0.5)]),
        ];
        assert_eq!(found(&units, 0.0).0, Some(352.0));
        assert_eq!(found(&units, 0.65).0, Some(48.0));
        assert_eq!(found(&units, 100.0).0, Some(44.0));
    }

    #[test]
    fn where_nothing_holds_nothing_is_found() {
        let units = [options(&[(32.0, 1.0), (8.0, 2.0)])];
        assert_eq!(found(&units, 0.5).0, None);
        assert_eq!(found(&[], 0.5).0, Some(0.0));
    }

    #[test]
    fn a_search_can_be_stopped() {
        let units = vec![options(&[(32.0, 0.0), (8.0, 1.0)]); 5];
        assert_eq!(search(&units, &mut |_| Ok(Verdict::Stop)).unwrap(), End::Stopped);
    }

    proptest! {
        #[test]
        fn the_best_is_near_the_bound_of_the_multiplier(
            points in prop::collection::vec(prop::collection::vec((0.0f64..100.0, 0.0f64..10.0), 1..6), 1..8),
            limit in 0.0f64..40.0,
        ) {
            let units: Vec<Vec<Choice>> = points.iter().map(|p| options(p)).collect();
            let (best, checks) = found(&units, limit);
            let least: Vec<usize> = units.iter().map(|o| hull(o)[0]).collect();
            let possible = total(&units, &least, |c| c.error) <= limit;
            prop_assert_eq!(best.is_some(), possible);
            prop_assert!(checks <= 2 * units.iter().map(Vec::len).sum::<usize>() + 8);
            // Every choice that holds costs at least the Lagrangian's lower bound, and ours at most
            // one unit's whole spread more.
            if let Some(best) = best {
                let bound = (0..200)
                    .map(|i| 10f64.powf(i as f64 / 20.0 - 5.0))
                    .map(|lambda| {
                        let least = |o: &Vec<Choice>| {
                            o.iter().map(|c| c.cost + lambda * c.error).fold(f64::INFINITY, f64::min)
                        };
                        units.iter().map(least).sum::<f64>() - lambda * limit
                    })
                    .fold(f64::NEG_INFINITY, f64::max);
                let spread = units
                    .iter()
                    .map(|o| {
                        let costs = || o.iter().map(|c| c.cost);
                        costs().fold(0.0, f64::max) - costs().fold(f64::INFINITY, f64::min)
                    })
                    .fold(0.0, f64::max);
                prop_assert!(best >= bound - 1e-6 && best <= bound + spread + 1.0, "{} {}", best, bound);
            }
        }
    }
}
