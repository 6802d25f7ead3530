//! Pooling.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::{Divisor, QuantizeTo, Window};
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::{Bytes, Form, Lowering};
use crate::integer::net::pair;
use crate::integer::state::ValueId;
use crate::integer::steps::pool::{GlobalAverage, Pool, Pooling};

/// Pixels that a window may reach, so that sums and products of two such numbers can be counted.
const LARGEST: usize = 1 << 24;

impl<'a> Lowering<'a> {
    /// A pooling node of bytes.
    pub(super) fn pool(
        &mut self,
        node: &'a NodeProto,
        to: QuantizeTo,
        behind: &str,
    ) -> Option<ValueId> {
        if node.is("MaxPool") {
            let from = self.max_pool(node)?;
            return Some(self.requantized(from, to, node));
        }
        let what = format!("{}{behind}", node.op_type());
        if node.is("GlobalAveragePool") {
            let rank = self.ranks.get(node.input.first()?.as_str())?;
            (3..=4).contains(rank).then_some(())?;
            let bytes = self.source(node.input.first()?)?;
            let (input, from) = (self.as_image(bytes, Halo::default(), node), bytes.ty.scale);
            // One pixel an image: in the order of ONNX already.
            return Some(self.step(Form::Plain, &[input], what, node, |output| GlobalAverage {
                input,
                output,
                from,
                to,
            }));
        }
        let (window, end) = window(node)?;
        let bytes = self.source(node.input.first()?)?;
        let (input, from) = (self.as_image(bytes, Halo::default(), node), bytes.ty.scale);
        let divisor = match node.int("count_include_pad", 0) {
            0 => Divisor::PixelsInside,
            _ => Divisor::AllTaps,
        };
        let pooling = Pooling::Average { from, divisor, to };
        Some(self.step(Form::Image, &[input], what, node, |output| Pool {
            input,
            output,
            window,
            end,
            pooling,
        }))
    }

    /// A MaxPool, which leaves scales alone.
    pub(super) fn max_pool(&mut self, node: &'a NodeProto) -> Option<Bytes> {
        let (window, end) = window(node)?;
        (node.output.len() == 1 && node.int("storage_order", 0) == 0).then_some(())?;
        let bytes = self.source(node.input.first()?)?;
        let input = self.as_image(bytes, Halo::default(), node);
        let pooling = Pooling::Max { halo: bytes.ty.scale.zero_point };
        let id = self.step(Form::Image, &[input], "MaxPool", node, |output| Pool {
            input,
            output,
            window,
            end,
            pooling,
        });
        Some(Bytes { id, ..bytes })
    }
}

/// The window of a pooling node, and its padding at the end.
pub(crate) fn window(node: &NodeProto) -> Option<(Window, [usize; 2])> {
    let rank = node.ints("kernel_shape").len();
    (node.int("ceil_mode", 0) == 0 && (1..=2).contains(&rank)).then_some(())?;
    let kernel = pair(node, "kernel_shape", rank, 1)?;
    window_of(node, kernel, rank)
}

/// The window of `kernel` that a node moves over images of `rank` spatial axes, and its padding at
/// the end; `None` if that depends on the size of the images.
pub(crate) fn window_of(
    node: &NodeProto,
    kernel: [usize; 2],
    rank: usize,
) -> Option<(Window, [usize; 2])> {
    let auto_pad = node.string("auto_pad", "NOTSET");
    matches!(auto_pad.as_str(), "NOTSET" | "VALID" | "").then_some(())?;
    let stride = pair(node, "strides", rank, 1)?;
    let dilation = pair(node, "dilations", rank, 1)?;
    let pads: Vec<usize> =
        node.ints("pads").iter().map(|&p| usize::try_from(p).ok()).collect::<Option<_>>()?;
    let (begin, end) = match (pads.as_slice(), rank) {
        ([], _) => ([0, 0], [0, 0]),
        ([b, e], 1) => ([0, *b], [0, *e]),
        ([t, l, b, r], 2) => ([*t, *l], [*b, *r]),
        _ => return None,
    };
    let steps = [kernel, stride, dilation].into_iter().flatten();
    let of_images = steps.clone().all(|step| step > 0) && steps.chain(pads).all(|n| n <= LARGEST);
    of_images.then_some((Window { kernel, stride, pads_begin: begin, dilation }, end))
}
