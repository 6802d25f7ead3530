//! The whole range: no value is cut off.

use crate::{Layout, Span};

/// The smallest and largest value of the elements of each parameter, `(0, 0)` where there is none.
///
/// Values must be finite and as many as the layout has elements.
pub fn ranges(values: &[f32], layout: &Layout) -> Vec<(f32, f32)> {
    let mut low = vec![f32::INFINITY; layout.params()];
    let mut high = vec![f32::NEG_INFINITY; layout.params()];
    layout.for_each_run(|run, span| match span {
        Span::One(param) => {
            let (min, max) = of(&values[run]);
            low[param] = low[param].min(min);
            high[param] = high[param].max(max);
        }
        Span::Each(first) => {
            let params = first..first + run.len();
            let bounds = low[params.clone()].iter_mut().zip(&mut high[params]);
            for (&x, (low, high)) in values[run].iter().zip(bounds) {
                *low = if x < *low { x } else { *low };
                *high = if x > *high { x } else { *high };
            }
        }
    });
    low.into_iter().zip(high).map(|(l, h)| if l <= h { (l, h) } else { (0.0, 0.0) }).collect()
}

/// The smallest and largest of `values`. Eight lanes, because a single running minimum is one long dependency.
pub(super) fn of(values: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    let (chunks, tail) = values.as_chunks::<8>();
    for chunk in chunks {
        for lane in 0..8 {
            low[lane] = low[lane].min(chunk[lane]);
            high[lane] = high[lane].max(chunk[lane]);
        }
    }
    let low = low.iter().chain(tail).fold(f32::INFINITY, |a, &b| a.min(b));
    let high = high.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Granularity;
    use proptest::prelude::*;

    #[test]
    fn channels_have_their_own_range() {
        let layout = Layout::new(&[2, 3], Granularity::Channel { axis: 0 }).unwrap();
        assert_eq!(ranges(&[1.0, -2.0, 0.5, 3.0, 3.0, 3.0], &layout), [(-2.0, 1.0), (3.0, 3.0)]);
        let layout = Layout::new(&[2, 3], Granularity::Channel { axis: 1 }).unwrap();
        assert_eq!(
            ranges(&[1.0, -2.0, 0.5, 3.0, 3.0, 3.0], &layout),
            [(1.0, 3.0), (-2.0, 3.0), (0.5, 3.0)]
        );
    }

    proptest! {
        #[test]
        fn lanes_agree_with_a_plain_scan(values in prop::collection::vec(-1e30f32..1e30, 1..50)) {
            let low = values.iter().copied().fold(f32::INFINITY, f32::min);
            let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(of(&values), (low, high));
        }
    }
}
