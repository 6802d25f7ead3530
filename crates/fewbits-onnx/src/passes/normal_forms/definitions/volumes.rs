//! Windows that executors lack: along three axes, with gaps, of other sums than means. An axis is cut into its
//! windows by a look-up of the places in them, which makes an axis of places for each window.

use super::{Known, along};
use crate::facts::Windows;
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, NodeProto};

/// A window along one axis of known size.
struct Window {
    /// The axis in the value.
    axis: usize,
    size: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    behind: usize,
    /// How many results there are.
    count: usize,
}

impl Window {
    /// Those of a node with a kernel of this size on a value.
    fn all(node: &NodeProto, x: &str, kernel: &[usize], known: &Known) -> Option<Vec<Window>> {
        let dims = known.dims(x)?;
        let spatial = dims.get(2..).filter(|spatial| spatial.len() == kernel.len())?;
        let pads = Windows::of(node, kernel)?.pads(spatial)?;
        let each = |name: &str, axis: usize| match node.ints(name) {
            [] => Some(1),
            ints => usize::try_from(*ints.get(axis)?).ok(),
        };
        let ceils = node.int("ceil_mode", 0) != 0;
        let window = |axis: usize| {
            let size = (*spatial.get(axis)?)?;
            let (before, behind) = (pads[axis], pads[kernel.len() + axis]);
            let (stride, dilation) = (each("strides", axis)?, each("dilations", axis)?);
            let extent = (kernel[axis].checked_sub(1)?) * dilation + 1;
            let room = (size + before + behind).checked_sub(extent)?;
            let steps = if ceils { room.div_ceil(stride) } else { room / stride };
            // Where a last window would have nothing but padding, it is not agreed whether it is there.
            (stride >= 1 && steps * stride < size + before).then_some(())?;
            let (axis, kernel, count) = (axis + 2, kernel[axis], steps + 1);
            Some(Window { axis, size, kernel, stride, dilation, before, behind, count })
        };
        (0..kernel.len()).map(window).collect()
    }

    /// The first place of each tap of each window, padding counted.
    fn places(&self) -> impl Iterator<Item = usize> {
        (0..self.kernel).flat_map(move |tap| {
            (0..self.count).map(move |at| at * self.stride + tap * self.dilation)
        })
    }

    /// The value with this axis as two: the taps of a window, and the windows.
    fn cut(&self, value: &str, rank: usize, padding: f32, emit: &mut Emit) -> String {
        let reached = self.places().max().map_or(0, |last| last + 1);
        let behind = reached.saturating_sub(self.before + self.size);
        let mut value = value.to_string();
        if self.before > 0 || behind > 0 {
            let mut pads = vec![0; 2 * rank];
            pads[self.axis] = self.before as i64;
            pads[rank + self.axis] = behind as i64;
            let (pads, padding) = (emit.ints(&pads), emit.float(padding));
            value = emit.op("Pad", &[&value, &pads, &padding]);
        }
        let places: Vec<i64> = self.places().map(|place| place as i64).collect();
        let places = emit.table(&[self.kernel, self.count], &places);
        emit.op_with("Gather", &[&value, &places], along(self.axis as i64))
    }

    /// How many taps of each window count for its mean.
    fn counted(&self, with_padding: bool) -> Vec<f32> {
        let inside = |place: usize| match with_padding {
            true => place < self.before + self.size + self.behind,
            false => (self.before..self.before + self.size).contains(&place),
        };
        let taps =
            |at: usize| (0..self.kernel).map(move |tap| at * self.stride + tap * self.dilation);
        (0..self.count).map(|at| taps(at).filter(|&place| inside(place)).count() as f32).collect()
    }
}

fn kernel_of(node: &NodeProto) -> Option<Vec<usize>> {
    node.ints("kernel_shape").iter().map(|&size| usize::try_from(size).ok()).collect()
}

/// A pooling, an axis after the other.
pub(super) fn pool(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let kernel = kernel_of(node)?;
    let has_gaps = node.ints("dilations").iter().any(|&gap| gap != 1);
    let is_lacking = node.is("LpPool") || kernel.len() > 2 || (node.is("AveragePool") && has_gaps);
    let is_float = known.data_type(x) == Some(DataType::Float);
    (is_lacking && is_float && node.output.len() == 1).then_some(())?;
    let windows = Window::all(node, x, &kernel, known)?;
    let rank = kernel.len() + 2;
    let (reduction, padding) = match node.op_type() {
        "MaxPool" => ("ReduceMax", f32::NEG_INFINITY),
        _ => ("ReduceSum", 0.0),
    };
    let power = node.int("p", 2);
    let mut value = x.to_string();
    if node.is("LpPool") {
        (power >= 1).then_some(())?;
        let magnitude = emit.op("Abs", &[x]);
        let power = emit.float(power as f32);
        value = emit.op("Pow", &[&magnitude, &power]);
    }
    for window in &windows {
        let cut = window.cut(&value, rank, padding, emit);
        let gone = vec![AttributeProto::of_int("keepdims", 0)];
        value = emit.on_axes(reduction, &cut, &[window.axis as i64], known.opset, gone);
        if node.is("AveragePool") {
            let counted = window.counted(node.int("count_include_pad", 0) != 0);
            let counted = emit.floats(&counted);
            let mut shape = vec![1; rank - window.axis];
            shape[0] = -1;
            let counted = emit.reshape(&counted, &shape);
            value = emit.op("Div", &[&value, &counted]);
        }
    }
    match node.is("LpPool") {
        true => {
            let root = emit.float(1.0 / power as f32);
            emit.op("Pow", &[&value, &root]);
        }
        false => {
            emit.op("Identity", &[&value]);
        }
    }
    emit.finish(node);
    Some(())
}

/// A `Conv` of volumes: one of images, each with the slices of its window as channels.
pub(super) fn convolution(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let (x, weight) = (node.given_input(0)?, node.given_input(1)?);
    let filters = known.dims(weight);
    let kernel = match node.ints("kernel_shape") {
        [] => filters?.get(2..)?.iter().copied().collect::<Option<Vec<usize>>>()?,
        _ => kernel_of(node)?,
    };
    let [depth, height, width] = *kernel.as_slice() else { return None };
    (known.data_type(x)? == DataType::Float).then_some(())?;
    let windows = Window::all(node, x, &kernel, known)?;
    let channels = (*known.dims(x)?.get(1)?)?;
    let groups = node.int("group", 1);
    let inputs = channels.checked_div(usize::try_from(groups).ok()?)?;
    let slices = windows[0].cut(x, 5, 0.0, emit);
    let order = vec![AttributeProto::of_ints("perm", &[0, 3, 1, 2, 4, 5])];
    let slices = emit.op_with("Transpose", &[&slices], order);
    let sizes = [channels * depth, windows[1].size, windows[2].size].map(|size| size as i64);
    let images = emit.reshape(&slices, &[-1, sizes[0], sizes[1], sizes[2]]);
    let sizes = [inputs * depth, height, width].map(|size| size as i64);
    let filters = emit.reshape(weight, &[-1, sizes[0], sizes[1], sizes[2]]);
    let flat = &windows[1..];
    let each = |of: fn(&Window) -> usize| flat.iter().map(|w| of(w) as i64).collect::<Vec<i64>>();
    let attributes = vec![
        AttributeProto::of_ints("kernel_shape", &each(|w| w.kernel)),
        AttributeProto::of_ints("strides", &each(|w| w.stride)),
        AttributeProto::of_ints("dilations", &each(|w| w.dilation)),
        AttributeProto::of_ints("pads", &[each(|w| w.before), each(|w| w.behind)].concat()),
        AttributeProto::of_int("group", groups),
    ];
    let bias = node.given_input(2);
    let operands: Vec<&str> = [images.as_str(), &filters].into_iter().chain(bias).collect();
    let images = emit.op_with("Conv", &operands, attributes);
    // The filters may be unpacked: how many there are is seen when they are.
    let (shape, first) = (emit.op("Shape", &[weight]), emit.ints(&[0]));
    let outputs = emit.op_with("Gather", &[&shape, &first], along(0));
    let before = emit.ints(&[-1, windows[0].count as i64]);
    let behind = emit.ints(&[windows[1].count as i64, windows[2].count as i64]);
    let shape = emit.op_with("Concat", &[&before, &outputs, &behind], along(0));
    let volumes = emit.op("Reshape", &[&images, &shape]);
    let order = vec![AttributeProto::of_ints("perm", &[0, 2, 1, 3, 4])];
    emit.op_with("Transpose", &[&volumes], order);
    emit.finish(node);
    Some(())
}
