//! Windows over images, and pooling of bytes.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::{Divisor, Window};
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::rules::Wanted;
use crate::integer::lower::{Bytes, Form, Lowering};
use crate::integer::net::pair;
use crate::integer::refusal::{Refusal, check, only};
use crate::integer::state::ValueId;
use crate::integer::steps::pool::{GlobalAverage, Pool, Pooling};

/// Pixels that a window may reach, so that sums and products of two such numbers can be counted.
const LARGEST: usize = 1 << 24;

pub(super) const MORE_AXES: &str = "it has more than 2 spatial axes";

impl<'a> Lowering<'a> {
    /// Computes a GlobalAveragePool of bytes.
    pub(super) fn global_average_pool(&mut self, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
        let Wanted { node, to, .. } = *wanted;
        only(&["GlobalAveragePool"], node)?;
        check(self.spatial_axes(node)? <= 2, MORE_AXES)?;
        let bytes = self.source(&node.input[0])?;
        let (input, from) = (self.as_image(bytes, Halo::default(), node), bytes.ty.scale);
        let what = format!("GlobalAveragePool{}", wanted.behind);
        // One pixel an image: in the order of ONNX already.
        Ok(self.step(Form::Plain, &[input], what, node, |output| GlobalAverage {
            input,
            output,
            from,
            to,
        }))
    }

    /// Computes an AveragePool of bytes.
    pub(super) fn average_pool(&mut self, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
        let Wanted { node, to, .. } = *wanted;
        only(&["AveragePool"], node)?;
        let (window, end) = pool_window(node)?;
        let bytes = self.source(&node.input[0])?;
        let (input, from) = (self.as_image(bytes, Halo::default(), node), bytes.ty.scale);
        let pooling = Pooling::Average { from, divisor: divisor(node), to };
        let what = format!("AveragePool{}", wanted.behind);
        Ok(self.step(Form::Image, &[input], what, node, |output| Pool {
            input,
            output,
            window,
            end,
            pooling,
        }))
    }

    /// Computes a MaxPool of bytes, which leaves scales alone.
    pub(super) fn max_pool(&mut self, node: &'a NodeProto) -> Result<Bytes, Refusal> {
        let (window, end) = pool_window(node)?;
        let bytes = self.source(&node.input[0])?;
        let input = self.as_image(bytes, Halo::default(), node);
        let pooling = Pooling::Max { halo: bytes.ty.scale.zero_point };
        let id = self.step(Form::Image, &[input], "MaxPool", node, |output| Pool {
            input,
            output,
            window,
            end,
            pooling,
        });
        Ok(Bytes { id, ..bytes })
    }

    /// How many spatial axes the images have that a node reads.
    pub(super) fn spatial_axes(&self, node: &NodeProto) -> Result<usize, Refusal> {
        let rank = self.ranks.get(node.input[0].as_str());
        let axes = rank.and_then(|rank| rank.checked_sub(2)).filter(|&axes| axes > 0);
        axes.ok_or(Refusal::of_node("the number of its spatial axes is not known"))
    }
}

/// What an AveragePool divides by.
pub(super) fn divisor(node: &NodeProto) -> Divisor {
    match node.int("count_include_pad", 0) {
        0 => Divisor::PixelsInside,
        _ => Divisor::AllTaps,
    }
}

/// The window of a MaxPool or AveragePool of one output, and its padding at the end.
pub(super) fn pool_window(node: &NodeProto) -> Result<(Window, [usize; 2]), Refusal> {
    only(&["MaxPool", "AveragePool"], node)?;
    // Without positions it does not matter in which order these would count, the storage_order.
    check(node.output.len() == 1, "it also gives positions")?;
    check(node.int("ceil_mode", 0) == 0, "ceil_mode is set")?;
    let rank = node.ints("kernel_shape").len();
    check(rank > 0, "it has no kernel_shape")?;
    check(rank <= 2, MORE_AXES)?;
    let kernel = pair(node, "kernel_shape", rank, 1)?;
    window_of(node, kernel, rank)
}

/// The window of `kernel` that a node moves over images of `rank` spatial axes, and its padding at
/// the end, unless that depends on the size of the images.
pub(super) fn window_of(
    node: &NodeProto,
    kernel: [usize; 2],
    rank: usize,
) -> Result<(Window, [usize; 2]), Refusal> {
    let auto_pad = node.string("auto_pad", "NOTSET");
    if !matches!(auto_pad.as_str(), "NOTSET" | "VALID" | "") {
        return Err(Refusal::of_node(format!("auto_pad is {auto_pad}"))
            .help("images of declared sizes are padded by numbers"));
    }
    let stride = pair(node, "strides", rank, 1)?;
    let dilation = pair(node, "dilations", rank, 1)?;
    let pads: Option<Vec<usize>> =
        node.ints("pads").iter().map(|&p| usize::try_from(p).ok()).collect();
    let pads = pads.ok_or(Refusal::of_node("its pads are negative"))?;
    let (begin, end) = match (pads.as_slice(), rank) {
        ([], _) => ([0, 0], [0, 0]),
        ([b, e], 1) => ([0, *b], [0, *e]),
        ([t, l, b, r], 2) => ([*t, *l], [*b, *r]),
        _ => return Err(Refusal::of_node("its pads are not two for each spatial axis")),
    };
    let mut steps = [kernel, stride, dilation].into_iter().flatten();
    check(steps.clone().all(|step| step > 0), "a size, stride or dilation of its window is 0")?;
    let small = |n: usize| n <= LARGEST;
    check(steps.all(small) && pads.into_iter().all(small), "its window reaches over 2^24 pixels")?;
    Ok((Window { kernel, stride, pads_begin: begin, pads_end: end, dilation }, end))
}
