//! ConvInteger, of any number of axes: windows become the rows of a product of matrices.

use fewbits_ir::op::{ConvInteger, WindowAxis, WindowsOfAnyRank};
use fewbits_ir::{RuntimeError, Tensor, places};
use fewbits_kernels::gemm::{self, Grid, Input, Output, PackedWeights, RowStrides};
use fewbits_kernels::{Buffer, Cpu, Threads};

use super::{Sum, refused, signed, stored, stored_if_given, sum_of, unsigned, zero_points};
use crate::Result;
use crate::state::State;
use crate::steps::{Io, Kernel};

/// The step.
pub(crate) struct IntegerConvolution {
    pub op: ConvInteger,
    pub io: Io,
}

impl Kernel for IntegerConvolution {
    fn run(&self, state: &mut State) -> Result<()> {
        let [images_zero, filters_zero] = self.op.zero_points.split(&self.io.inputs[2..]);
        let factors = Factors {
            images: stored(state, self.io.input())?,
            images_zero: stored_if_given(state, images_zero)?,
            filters: stored(state, self.io.inputs[1])?,
            filters_zero: stored_if_given(state, filters_zero)?,
        };
        let sums = factors.convolved(&self.op.windows, state.cpu, state.threads)?;
        state.set_tensor(self.io.output(), &sums)
    }
}

/// What a convolution reads.
struct Factors<'a> {
    images: &'a Tensor,
    images_zero: Option<&'a Tensor>,
    filters: &'a Tensor,
    filters_zero: Option<&'a Tensor>,
}

impl Factors<'_> {
    fn convolved(&self, moves: &WindowsOfAnyRank, cpu: Cpu, threads: Threads) -> Result<Tensor> {
        let (x, w) = (unsigned(self.images)?, signed(self.filters)?);
        let (image_dims, filter_dims) = (self.images.shape(), self.filters.shape());
        let ([images, channels, sizes @ ..], [filters, depth @ ..]) = (image_dims, filter_dims)
        else {
            return Err(self.do_not_fit());
        };
        let ([group_channels, kernel @ ..], groups) = (depth, moves.groups) else {
            return Err(self.do_not_fit());
        };
        let fits = kernel.len() == sizes.len()
            && groups > 0
            && group_channels.checked_mul(groups) == Some(*channels)
            && filters.is_multiple_of(groups);
        if !fits {
            return Err(self.do_not_fit());
        }
        let axes = moves.axes(sizes, kernel)?;
        let depth = group_channels * kernel.iter().product::<usize>();
        let out_dims: Vec<usize> = axes.iter().map(|axis| axis.out).collect();
        let (pixels, columns) = (out_dims.iter().product::<usize>(), filters / groups);
        let shape = [&[*images, *filters], &out_dims[..]].concat();

        let image_zero = match zero_points(self.images_zero)?[..] {
            [zero] => zero - x.offset,
            _ => return Err(refused("the images of a convolution have several zero points")),
        };
        let filter_zeros = zero_points(self.filters_zero)?;
        if filter_zeros.len() != 1 && filter_zeros.len() != *filters {
            return Err(self.do_not_fit());
        }
        let mut out = vec![0; shape.iter().product()];
        if out.is_empty() || depth == 0 {
            return Tensor::new(shape, out);
        }
        let windows = Windows::new(&axes, *group_channels, image_zero as u8);
        let packed: Vec<PackedWeights> = w
            .bytes
            .chunks_exact(columns * depth)
            .map(|group| PackedWeights::new(cpu, group, columns, 1, depth))
            .collect();
        let mut rows = Buffer::new(pixels * depth);
        let mut sums = vec![0; pixels * columns];
        let size = group_channels * sizes.iter().product::<usize>();
        let parts = x.bytes.chunks_exact(size.max(1)).zip(out.chunks_exact_mut(columns * pixels));
        for (part, (image, out)) in parts.enumerate() {
            let group = part % groups;
            windows.write(image, rows.u8s_mut());
            gemm::multiply(
                &packed[group],
                Grid::of_matrix(pixels),
                &Input { bytes: rows.with_slack(), rows: RowStrides::of_matrix(depth), runs: &[0] },
                Output::Sums { sums: &mut sums, rows: RowStrides::of_matrix(columns) },
                threads,
            );
            let lines = rows.u8s().chunks_exact(depth).zip(sums.chunks_exact(columns));
            for (pixel, (row, sums)) in lines.enumerate() {
                let left = sum_of(row);
                for (j, (&products, &right)) in sums.iter().zip(packed[group].sums()).enumerate() {
                    let zero = filter_zeros[(group * columns + j) % filter_zeros.len()] - w.offset;
                    let sum = Sum { products, left, right, count: depth as i32 };
                    out[j * pixels + pixel] = sum.without(image_zero, zero);
                }
            }
        }
        Tensor::new(shape, out)
    }

    fn do_not_fit(&self) -> RuntimeError {
        let (x, w) = (self.images.shape(), self.filters.shape());
        refused(format!("images of shape {x:?} and filters of shape {w:?} have no convolution"))
    }
}

/// The windows of an image, each a row of bytes.
struct Windows {
    /// For each window and axis, where it starts; for each element of a window, where it lies from there.
    starts: Vec<Vec<isize>>,
    taps: Vec<Vec<isize>>,
    sizes: Vec<usize>,
    channels: usize,
    /// What is outside the image.
    outside: u8,
}

impl Windows {
    fn new(axes: &[WindowAxis], channels: usize, outside: u8) -> Windows {
        let out: Vec<usize> = axes.iter().map(|axis| axis.out).collect();
        let kernel: Vec<usize> = axes.iter().map(|axis| axis.kernel).collect();
        let each =
            |dims: &[usize], place: &dyn Fn(&WindowAxis, usize) -> isize| -> Vec<Vec<isize>> {
                (0..dims.iter().product())
                    .map(|i| axes.iter().zip(places(i, dims)).map(|(a, p)| place(a, p)).collect())
                    .collect()
            };
        Windows {
            starts: each(&out, &|axis, i| (i * axis.stride) as isize - axis.pad as isize),
            taps: each(&kernel, &|axis, i| (i * axis.dilation) as isize),
            sizes: axes.iter().map(|axis| axis.size).collect(),
            channels,
            outside,
        }
    }

    /// Writes the rows of the windows of an image `[channels, ..]`.
    fn write(&self, image: &[u8], rows: &mut [u8]) {
        let plane: usize = self.sizes.iter().product();
        let taps = self.taps.len();
        for (start, row) in self.starts.iter().zip(rows.chunks_exact_mut(self.channels * taps)) {
            for (t, tap) in self.taps.iter().enumerate() {
                let inside =
                    start.iter().zip(tap).zip(&self.sizes).try_fold(0, |at, ((s, t), &n)| {
                        let place = usize::try_from(s + t).ok().filter(|&place| place < n)?;
                        Some(at * n + place)
                    });
                for channel in 0..self.channels {
                    row[channel * taps + t] =
                        inside.map_or(self.outside, |at| image[channel * plane + at]);
                }
            }
        }
    }
}
