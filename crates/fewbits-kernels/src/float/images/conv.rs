//! Convolutions, cut into parts that are computed window by window or in tiles.

use std::ops::Range;

use super::convolution::{Convolution, Part};
use super::padded::Padded;
use super::windows::PartByWindows;
use super::winograd::{self, TileGrid, Transformed};
use crate::Cpu;
use crate::bytes::Window;

/// Floats of the padded copies that are made at a time: a quarter of a second cache of 1 MiB.
const COPIES: usize = 64 << 10;

/// The weights of a convolution as its loops read them.
#[derive(Clone, Debug)]
pub struct Weights {
    form: Form,
    /// As ONNX has them: filters, channels of a group, rows and columns of the window.
    shape: [usize; 4],
}

#[derive(Clone, Debug)]
enum Form {
    /// As ONNX has them.
    Plain(Vec<f32>),
    /// For tiles instead of windows.
    Tiles(Transformed),
}

impl Weights {
    /// Takes weights of `shape`: filters, channels of a group, rows and columns of the window.
    ///
    /// # Panics
    /// If there are not as many as the shape says.
    pub fn new(
        cpu: Cpu,
        weights: Vec<f32>,
        shape: [usize; 4],
        groups: usize,
        window: Window,
    ) -> Weights {
        assert_eq!(weights.len(), shape.iter().product::<usize>(), "weights of another size");
        let form = match Transformed::new(cpu, &weights, shape, groups, window) {
            Some(transformed) => Form::Tiles(transformed),
            None => Form::Plain(weights),
        };
        Weights { form, shape }
    }
}

/// Computes the channels `planes` of the result, counted through all images, to `out`.
///
/// Every sum is one chain of fused multiply-adds along channels, rows and columns of the window,
/// or, for 3 by 3 taps with stride 1 between enough channels and filters, a sum of products of tiles;
/// either way the bias is added last.
///
/// `input` is `[images, channels, rows, columns]`. `scratch` grows as
/// needed, and may be used again for anything.
///
/// # Panics
/// If lengths do not fit, or groups do not divide channels and filters.
pub fn convolve(
    cpu: Cpu,
    conv: &Convolution,
    weights: &Weights,
    input: &[f32],
    planes: Range<usize>,
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let Convolution { filters, channels, groups, window, .. } = *conv;
    assert!(filters % groups == 0 && channels % groups == 0, "groups that are not whole");
    let [rows, columns] = window.kernel;
    assert_eq!(
        weights.shape,
        [filters, channels / groups, rows, columns],
        "weights of another size"
    );
    assert!(conv.bias.is_empty() || conv.bias.len() == filters, "biases of another number");
    assert_eq!(out.len(), planes.len() * conv.out_plane(), "an output of another size");
    match &weights.form {
        Form::Plain(weights) => {
            let [height, width] = conv.out_size;
            let padded = |rows| Padded::new(window, conv.size, channels / groups, rows, width);
            let cut = Cut { height, copy_len: |rows| padded(rows).image_pitch(), together: 1 };
            in_parts(conv, input, planes, cut, out, |part, out| {
                let padded = padded(part.rows.len());
                PartByWindows { cpu, conv, weights, part }.run(padded, out, scratch);
            });
        }
        Form::Tiles(weights) => {
            let tiles = TileGrid::new(conv);
            let cut = Cut {
                height: tiles.count[0],
                copy_len: |rows| tiles.copy_len(rows),
                together: tiles.images_together(),
            };
            in_parts(conv, input, planes, cut, out, |part, out| {
                winograd::rows(cpu, conv, weights, tiles, part, out, scratch);
            });
        }
    }
}

/// What a convolution can be cut into.
struct Cut<L: Fn(usize) -> usize> {
    /// Rows of an image: of windows, or of tiles of them.
    height: usize,
    /// How many floats the padded copy of one image takes for some of its rows.
    copy_len: L,
    /// How many whole images are to be taken together, or a multiple, if possible.
    together: usize,
}

/// Cuts what is to be computed into parts whose padded copies stay in the cache: as many rows as fit,
/// of one image or of several. Each part is given those planes of the output, whole, of which it
/// computes rows.
fn in_parts(
    conv: &Convolution,
    input: &[f32],
    planes: Range<usize>,
    cut: Cut<impl Fn(usize) -> usize>,
    out: &mut [f32],
    mut run: impl FnMut(Part, &mut [f32]),
) {
    let Cut { height, copy_len, together: multiple } = cut;
    let filters = conv.filters;
    let (first_row, each) = match height {
        1 => (copy_len(1), 0),
        _ => (copy_len(1), copy_len(2) - copy_len(1)),
    };
    let fitting = COPIES.saturating_sub(first_row) / each.max(1) + 1;
    let rows = fitting.min(height);
    let together = if rows == height { COPIES / copy_len(rows).max(1) } else { 1 };
    // A few more than fit, or less, where no panel is left half empty then.
    let together = match together / multiple {
        0 if multiple <= 2 * together => multiple,
        0 => together,
        times => times * multiple,
    };
    let mut rest = out;
    let mut plane = planes.start;
    while plane < planes.end {
        let (image, first) = (plane / filters, plane % filters);
        let left = planes.end - plane;
        // Whole images, or a part of one.
        let (images, last) = match left / filters {
            whole if first == 0 && whole > 0 => (whole.min(together.max(1)), filters),
            _ => (1, filters.min(first + left)),
        };
        let count = images * (last - first);
        let (own, behind) = rest.split_at_mut(count * conv.out_plane());
        (rest, plane) = (behind, plane + count);
        for top in (0..height).step_by(rows) {
            let rows = top..(top + rows).min(height);
            let (images, filters) = (image..image + images, first..last);
            run(Part { input, images, filters, rows }, own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::Function;
    use crate::float::testing::{at_every_level, noise, same_bits};
    use proptest::prelude::*;

    /// The definition, element by element.
    fn chains(conv: &Convolution, weights: &Weights, input: &[f32], images: usize) -> Vec<f32> {
        let depth: usize = weights.shape[1..].iter().product();
        let Form::Plain(weights) = &weights.form else { panic!("not a chain") };
        let Convolution { filters, channels, groups, window, size, out_size, .. } = *conv;
        let inside = |axis: usize, at: usize, tap: usize| {
            let from = at * window.stride[axis] + tap * window.dilation[axis];
            from.checked_sub(window.pads_begin[axis]).filter(|&from| from < size[axis])
        };
        let (group_channels, group_filters) = (channels / groups, filters / groups);
        let mut out = Vec::new();
        for (image, filter) in (0..images).flat_map(|i| (0..filters).map(move |f| (i, f))) {
            let first = image * channels + filter / group_filters * group_channels;
            for (y, x) in (0..out_size[0]).flat_map(|y| (0..out_size[1]).map(move |x| (y, x))) {
                let mut weights = weights[filter * depth..].iter();
                let mut sum = 0f32;
                for plane in first..first + group_channels {
                    let plane = &input[plane * size[0] * size[1]..];
                    for (a, b) in (0..window.kernel[0])
                        .flat_map(|a| (0..window.kernel[1]).map(move |b| (a, b)))
                    {
                        let value = match (inside(0, y, a), inside(1, x, b)) {
                            (Some(y), Some(x)) => plane[y * size[1] + x],
                            _ => 0.0,
                        };
                        sum = weights.next().unwrap().mul_add(value, sum);
                    }
                }
                if let Some(bias) = conv.bias.get(filter) {
                    sum += bias;
                }
                out.push(conv.function.map_or(sum, |function| function.at(sum)));
            }
        }
        out
    }

    /// Checks a convolution as a whole and in two parts, cut anywhere.
    fn check(conv: &Convolution, weights: &Weights, images: usize, cut: usize) {
        let input = noise(images * conv.channels * conv.size[0] * conv.size[1], 7);
        let wanted = chains(conv, weights, &input, images);
        let planes = images * conv.filters;
        for cut in [0, cut % (planes + 1)] {
            let got = at_every_level(|cpu| {
                let mut out = vec![7.0; wanted.len()];
                let mut scratch = vec![f32::NAN; 5000];
                let (left, right) = out.split_at_mut(cut * conv.out_plane());
                convolve(cpu, conv, weights, &input, 0..cut, left, &mut scratch);
                convolve(cpu, conv, weights, &input, cut..planes, right, &mut scratch);
                out
            });
            assert!(same_bits(&got, &wanted), "{conv:?}, cut at {cut}");
        }
    }

    fn out_size(size: [usize; 2], window: &Window) -> [usize; 2] {
        [0, 1].map(|axis| window.count(axis, size[axis]).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn convolutions_are_chains_at_every_level(
            (kernel, stride, dilation) in (
                prop::array::uniform2(1usize..5),
                prop::array::uniform2(1usize..4),
                prop::array::uniform2(1usize..3),
            ),
            (before, behind, more) in (
                prop::array::uniform2(0usize..4),
                prop::array::uniform2(0usize..4),
                prop::array::uniform2(0usize..20),
            ),
            (groups, group_channels, group_filters) in (1usize..4, 1usize..4, 1usize..11),
            (images, cut) in (0usize..4, any::<usize>()),
            (has_bias, relu) in any::<(bool, bool)>(),
        ) {
            let window = Window { kernel, stride, pads_begin: before, pads_end: behind, dilation };
            let size =
                [0, 1].map(|axis| more[axis] + (kernel[axis] - 1) * dilation[axis] + 1);
            let (filters, channels) = (groups * group_filters, groups * group_channels);
            let shape = [filters, group_channels, kernel[0], kernel[1]];
            let weights = noise(shape.iter().product(), 8);
            let weights = Weights::new(Cpu::SCALAR, weights, shape, groups, window);
            let bias = noise(if has_bias { filters } else { 0 }, 9);
            let conv = Convolution {
                bias: &bias,
                filters,
                channels,
                groups,
                window,
                size,
                out_size: out_size(size, &window),
                function: relu.then_some(Function::Relu),
            };
            check(&conv, &weights, images, cut);
        }
    }

    /// Images of which not even one fits what is copied at a time, in a product and alone.
    #[test]
    fn large_images_are_cut_into_rows() {
        let window =
            Window { stride: [2, 1], pads_begin: [1, 1], pads_end: [1, 1], ..Window::of([3, 3]) };
        for (filters, groups) in [(3, 1), (2, 2)] {
            let (channels, size) = (2, [200, 400]);
            let shape = [filters, channels / groups, 3, 3];
            let weights = noise(shape.iter().product(), 1);
            let weights = Weights::new(Cpu::SCALAR, weights, shape, groups, window);
            let conv = Convolution {
                bias: &[],
                filters,
                channels,
                groups,
                window,
                size,
                out_size: out_size(size, &window),
                function: None,
            };
            assert!(size[0] * size[1] * channels / groups > COPIES);
            check(&conv, &weights, 1, 1);
        }
    }

    /// Windows of one pixel without padding, whose rows lie one behind the other.
    #[test]
    fn rows_without_padding_are_one_run() {
        let window = Window::of([1, 1]);
        for size in [[7, 7], [5, 3], [2, 40], [33, 1]] {
            let weights = Weights::new(Cpu::SCALAR, noise(5 * 4, 2), [5, 4, 1, 1], 1, window);
            let conv = Convolution {
                bias: &[],
                filters: 5,
                channels: 4,
                groups: 1,
                window,
                size,
                out_size: size,
                function: None,
            };
            check(&conv, &weights, 2, 3);
        }
    }

    #[test]
    #[should_panic(expected = "an output of another size")]
    fn an_output_too_short_is_refused() {
        let window = Window::of([1, 1]);
        let size = [2, 2];
        let weights = Weights::new(Cpu::SCALAR, vec![1.0], [1; 4], 1, window);
        let conv = Convolution {
            bias: &[],
            filters: 1,
            channels: 1,
            groups: 1,
            window,
            size,
            out_size: size,
            function: None,
        };
        convolve(Cpu::SCALAR, &conv, &weights, &[1.0; 4], 0..1, &mut [0.0; 3], &mut Vec::new());
    }
}
