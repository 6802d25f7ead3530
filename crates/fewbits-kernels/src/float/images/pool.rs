//! Pooling: the largest value or the mean of every window.

use serde::{Deserialize, Serialize};

use super::padded::{Padded, SLACK};
use super::slide::{WindowRows, slide};
use crate::Cpu;
use crate::bytes::{Divisor, Window};
use crate::cpu::per_cpu;
use crate::float::binary::max;
use crate::float::strided::at_least;

/// Pooling of planes of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pooling {
    /// How it moves.
    pub window: Window,
    /// Rows and columns of the planes.
    pub size: [usize; 2],
    /// Rows and columns of the result, at least one.
    pub out_size: [usize; 2],
}

impl Pooling {
    /// Whether windows of two rows and columns lie side by side in the image, the commonest case.
    fn is_of_pairs(&self) -> bool {
        let Window { kernel, stride, pads_begin, dilation, .. } = self.window;
        let inside = |axis: usize| 2 * self.out_size[axis] <= self.size[axis];
        [kernel, stride, pads_begin, dilation] == [[2; 2], [2; 2], [0; 2], [1; 2]]
            && inside(0)
            && inside(1)
    }

    /// Elements of a plane of the result.
    fn out_plane(&self) -> usize {
        self.out_size[0] * self.out_size[1]
    }
}

/// Finds the largest value of each window: planes of `size` to planes of `out_size`.
///
/// Padding never wins; a window that has nothing else gives -inf, one that holds NaN gives NaN.
/// `scratch` grows as needed, and may be used again for anything.
///
/// # Panics
/// If the input is too short, or the output holds no whole planes.
pub fn max_pool(
    cpu: Cpu,
    pooling: &Pooling,
    input: &[f32],
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    if pooling.is_of_pairs() {
        return largest_of_pairs(cpu, pooling, input, out);
    }
    let padding = f32::NEG_INFINITY;
    each_plane(cpu, pooling, padding, input, out, scratch, |copy, taps, by, out| {
        largest(cpu, copy, taps, by, out);
    });
}

/// Computes the mean of each window: planes of `size` to planes of `out_size`.
///
/// Values are added one after the other, row by row, and divided once. `scratch` grows as needed,
/// and may be used again for anything.
///
/// # Panics
/// If the input is too short, or the output holds no whole planes.
pub fn average_pool(
    cpu: Cpu,
    pooling: &Pooling,
    divisor: Divisor,
    input: &[f32],
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let Pooling { window, size, out_size } = *pooling;
    // How many taps lie in the image, for each row or column of windows.
    let inside = |axis: usize| -> Vec<usize> {
        (0..out_size[axis])
            .map(|at| match divisor {
                Divisor::PixelsInside => window.span(axis, at, size[axis]).count,
                Divisor::AllTaps => window.kernel[axis],
            })
            .collect()
    };
    let (rows, columns) = (inside(0), inside(1));
    each_plane(cpu, pooling, 0.0, input, out, scratch, |copy, taps, by, out| {
        sum(cpu, copy, taps, by, out);
        for (out, rows) in out.chunks_exact_mut(out_size[1]).zip(&rows) {
            out.iter_mut().zip(&columns).for_each(|(sum, columns)| *sum /= (rows * columns) as f32);
        }
    });
}

/// Calls `work` for each plane with its padded copy, around which lies `padding`, the taps in it and how
/// the windows lie.
fn each_plane(
    cpu: Cpu,
    pooling: &Pooling,
    padding: f32,
    input: &[f32],
    out: &mut [f32],
    scratch: &mut Vec<f32>,
    work: impl Fn(&[f32], &[usize], WindowRows, &mut [f32]),
) {
    let Pooling { window, size, out_size } = *pooling;
    let out_plane = pooling.out_plane();
    assert!(out.len().is_multiple_of(out_plane), "an output without whole planes");
    let padded = Padded::new(window, size, 1, out_size[0], out_size[1]);
    let taps = padded.taps();
    let copy = at_least(scratch, padded.image_pitch() + SLACK);
    for (plane, out) in out.chunks_exact_mut(out_plane).enumerate() {
        padded.fill(cpu, input, std::iter::once(plane..plane + 1), 0, padding, copy);
        work(copy, &taps, WindowRows { step: padded.step(), width: out_size[1] }, out);
    }
}

per_cpu! {
    /// [`max_pool`] of pairs that lie in the image: nothing needs to be copied.
    fn largest_of_pairs(pooling: &Pooling, input: &[f32], out: &mut [f32]) {
        let Pooling { size, out_size, .. } = *pooling;
        let planes = input.chunks_exact(size[0] * size[1]);
        let out_plane = pooling.out_plane();
        assert!(out.len().is_multiple_of(out_plane), "an output without whole planes");
        assert!(out.len() / out_plane <= planes.len(), "too short an input");
        for (plane, out) in planes.zip(out.chunks_exact_mut(out_plane)) {
            let rows = plane.chunks_exact(2 * size[1]);
            for (rows, out) in rows.zip(out.chunks_exact_mut(out_size[1])) {
                let (above, below) = rows.split_at(size[1]);
                let (above, below) = (above.as_chunks().0, below.as_chunks().0);
                match out.len() {
                    16.. => pairs::<16>(above, below, out),
                    8.. => pairs::<8>(above, below, out),
                    4.. => pairs::<4>(above, below, out),
                    _ => pairs::<1>(above, below, out),
                }
            }
        }
    }
}

/// A row of at least `LEN` windows; the last `LEN` are computed a second time rather than one by one.
#[inline(always)]
fn pairs<const LEN: usize>(above: &[[f32; 2]], below: &[[f32; 2]], out: &mut [f32]) {
    for start in (0..out.len()).step_by(LEN) {
        let start = start.min(out.len() - LEN);
        let above: &[[f32; 2]; LEN] = above[start..].first_chunk().expect("as many as windows");
        let below: &[[f32; 2]; LEN] = below[start..].first_chunk().expect("as many as windows");
        let out: &mut [f32; LEN] = out[start..].first_chunk_mut().expect("as many are left");
        let mut largest = [f32::NEG_INFINITY; LEN];
        for (values, x) in [(above, 0), (above, 1), (below, 0), (below, 1)] {
            for i in 0..LEN {
                largest[i] = max(largest[i], values[i][x]);
            }
        }
        *out = largest;
    }
}

per_cpu! {
    fn largest(copy: &[f32], taps: &[usize], by: WindowRows, out: &mut [f32]) {
        let join = |largest: f32, _, value: f32| max(largest, value);
        slide(copy, taps, by, f32::NEG_INFINITY, join, |largest| largest, out);
    }
}

per_cpu! {
    fn sum(copy: &[f32], taps: &[usize], by: WindowRows, out: &mut [f32]) {
        slide(copy, taps, by, 0.0, |sum: f32, _, value| sum + value, |sum| sum, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::testing::{at_every_level, noise, same_bits};
    use proptest::prelude::*;

    fn poolings() -> impl Strategy<Value = Pooling> {
        let pair = |from: usize, to: usize| prop::array::uniform2(from..to);
        (pair(1, 4), pair(1, 4), pair(1, 3), pair(0, 3), pair(0, 3), pair(1, 22)).prop_map(
            |(kernel, stride, dilation, before, behind, more)| {
                let window =
                    Window { kernel, stride, pads_begin: before, pads_end: behind, dilation };
                let size = [0, 1].map(|axis| more[axis] + window.extent(axis) - 1);
                let out_size = [0, 1].map(|axis| window.count(axis, size[axis]).unwrap());
                Pooling { window, size, out_size }
            },
        )
    }

    /// The values of the window in row `y` and column `x` of `plane` that lie in the image.
    fn values(window: &Window, plane: &[f32], size: [usize; 2], y: usize, x: usize) -> Vec<f32> {
        let at = |axis: usize, at: usize, tap: usize| {
            let from = at * window.stride[axis] + tap * window.dilation[axis];
            from.checked_sub(window.pads_begin[axis]).filter(|&from| from < size[axis])
        };
        let taps = |axis: usize| 0..window.kernel[axis];
        let all = taps(0).flat_map(|a| taps(1).map(move |b| (a, b)));
        all.filter_map(|(a, b)| Some(plane[at(0, y, a)? * size[1] + at(1, x, b)?])).collect()
    }

    fn check(
        Pooling { window, size, out_size }: Pooling,
        wanted: impl Fn(&[f32]) -> f32,
        pool: impl Fn(Cpu, &[f32], &mut [f32], &mut Vec<f32>),
    ) {
        let input = noise(3 * size[0] * size[1], 5);
        let got = at_every_level(|cpu| {
            let mut out = vec![7.0; 3 * out_size[0] * out_size[1]];
            pool(cpu, &input, &mut out, &mut vec![f32::NAN; 4000]);
            out
        });
        let mut expected = Vec::new();
        for plane in input.chunks_exact(size[0] * size[1]) {
            for (y, x) in (0..out_size[0]).flat_map(|y| (0..out_size[1]).map(move |x| (y, x))) {
                expected.push(wanted(&values(&window, plane, size, y, x)));
            }
        }
        assert!(same_bits(&got, &expected), "{window:?} over {size:?}: {got:?}, not {expected:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn pools_are_what_windows_hold(pooling in poolings()) {
            let largest = |values: &[f32]| values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            check(pooling, largest, |cpu, input, out, scratch| {
                max_pool(cpu, &pooling, input, out, scratch);
            });
            let taps = pooling.window.kernel.iter().product();
            for divisor in [Divisor::PixelsInside, Divisor::AllTaps] {
                let mean = |values: &[f32]| {
                    let count = match divisor {
                        Divisor::PixelsInside => values.len(),
                        Divisor::AllTaps => taps,
                    };
                    values.iter().fold(0.0, |sum, x| sum + x) / count as f32
                };
                check(pooling, mean, |cpu, input, out, scratch| {
                    average_pool(cpu, &pooling, divisor, input, out, scratch);
                });
            }
        }
    }

    #[test]
    fn nan_is_not_lost() {
        let window = Window { stride: [2, 2], ..Window::of([2, 2]) };
        let pooling = Pooling { window, size: [2, 4], out_size: [1, 2] };
        let input = [1.0, f32::NAN, 2.0, 3.0, 5.0, 4.0, 0.0, f32::NAN];
        let got = at_every_level(|cpu| {
            let mut out = [0.0; 2];
            max_pool(cpu, &pooling, &input, &mut out, &mut Vec::new());
            out.to_vec()
        });
        assert!(got.iter().all(|x| x.is_nan()));
    }
}
