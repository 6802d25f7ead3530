//! The windows that convolutions and pooling move over images.

use fewbits_kernels::bytes::{Divisor, Window};
use fewbits_onnx::proto::NodeProto;

use crate::lower::Lowering;
use crate::refusal::{Refusal, check, only};
use crate::view::pair;

/// Pixels that a window may reach, so that sums and products of two such numbers can be counted.
const LARGEST: usize = 1 << 24;

pub(crate) const MORE_AXES: &str = "it has more than 2 spatial axes";

/// The window of weights `[filters, channels, ..]`, and how many spatial axes there are.
pub(crate) fn kernel_of(shape: &[usize]) -> Result<([usize; 2], usize), Refusal> {
    match *shape {
        [_, _, h, w] => Ok(([h, w], 2)),
        [_, _, w] => Ok(([1, w], 1)),
        _ => Err(Refusal::of_node(MORE_AXES)),
    }
}

/// How many spatial axes the images have that a node reads.
pub(crate) fn spatial_axes(lowering: &Lowering, node: &NodeProto) -> Result<usize, Refusal> {
    let rank = lowering.rank(node.input[0].as_str());
    let axes = rank.and_then(|rank| rank.checked_sub(2)).filter(|&axes| axes > 0);
    axes.ok_or(Refusal::of_node("the number of its spatial axes is not known"))
}

/// What an AveragePool divides by.
pub(crate) fn divisor(node: &NodeProto) -> Divisor {
    match node.int("count_include_pad", 0) {
        0 => Divisor::PixelsInside,
        _ => Divisor::AllTaps,
    }
}

/// The window of a MaxPool or AveragePool of one output.
pub(crate) fn pool_window(node: &NodeProto) -> Result<Window, Refusal> {
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

/// The window of `kernel` that a node moves over images of `rank` spatial axes, unless its padding depends
/// on the size of the images.
pub(crate) fn window_of(
    node: &NodeProto,
    kernel: [usize; 2],
    rank: usize,
) -> Result<Window, Refusal> {
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
    Ok(Window { kernel, stride, pads_begin: begin, pads_end: end, dilation })
}

/// An attribute of one size for each spatial axis, of any number of them; empty if it is not given.
pub(crate) fn sizes_of(node: &NodeProto, name: &str) -> Result<Vec<usize>, Refusal> {
    let sizes = node.ints(name).iter().map(|&size| usize::try_from(size).ok());
    let sizes: Option<Vec<usize>> =
        sizes.map(|size| size.filter(|&size| size <= LARGEST)).collect();
    sizes.ok_or(Refusal::of_node(format!("its {name} are negative, or over 2^24 pixels")))
}
