//! Norms of groups, of channels that are neighbours, and over the axes of a batch.

use super::Known;
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, NodeProto};

/// The opset from which on a `GroupNormalization` has a scale and a bias for each channel, not each group.
const SCALES_OF_CHANNELS: i64 = 21;

/// `GroupNormalization`: the norm of an instance whose channels are the groups.
pub(super) fn group(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let (x, scale, bias) = (node.given_input(0)?, node.given_input(1)?, node.given_input(2)?);
    let groups = node.int("num_groups", 0);
    let is_float = [x, scale, bias].iter().all(|v| known.data_type(v) == Some(DataType::Float));
    let in_single = node.int("stash_type", 1) == DataType::Float as i64;
    (is_float && in_single && groups >= 1).then_some(())?;
    let rank = usize::try_from(known.rank(x)?).ok()?;
    let epsilon = || vec![AttributeProto::of_float("epsilon", node.float("epsilon", 1e-5))];
    let shape = emit.op("Shape", &[x]);
    let grouped = emit.reshape(x, &[0, groups, -1]);
    if known.opset < SCALES_OF_CHANNELS {
        let normal = emit.op_with("InstanceNormalization", &[&grouped, scale, bias], epsilon());
        emit.op("Reshape", &[&normal, &shape]);
        emit.finish(node);
        return Some(());
    }
    let count = usize::try_from(groups).ok()?;
    let ones = emit.floats(&vec![1.0; count]);
    let zeros = emit.floats(&vec![0.0; count]);
    let normal = emit.op_with("InstanceNormalization", &[&grouped, &ones, &zeros], epsilon());
    let normal = emit.op("Reshape", &[&normal, &shape]);
    let mut of_channels = vec![1; rank.checked_sub(1)?];
    *of_channels.first_mut()? = -1;
    let scale = emit.reshape(scale, &of_channels);
    let bias = emit.reshape(bias, &of_channels);
    let scaled = emit.op("Mul", &[&normal, &scale]);
    emit.op("Add", &[&scaled, &bias]);
    emit.finish(node);
    Some(())
}

/// `MeanVarianceNormalization`: less the mean, by the deviation.
pub(super) fn mean_variance(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let axes = match node.ints("axes") {
        [] => &[0, 2, 3],
        axes => axes,
    };
    let epsilon = known.number(1e-9, x, emit)?;
    let mean = emit.on_axes("ReduceMean", x, axes, known.opset, vec![]);
    let centred = emit.op("Sub", &[x, &mean]);
    let squares = emit.op("Mul", &[&centred, &centred]);
    let variance = emit.on_axes("ReduceMean", &squares, axes, known.opset, vec![]);
    let deviation = emit.op("Sqrt", &[&variance]);
    let deviation = emit.op("Add", &[&deviation, &epsilon]);
    emit.op("Div", &[&centred, &deviation]);
    emit.finish(node);
    Some(())
}

/// `LRN`: by a power of the mean of the squares of channels around each, those beyond the ends being 0.
pub(super) fn local_response(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    (known.data_type(x)? == DataType::Float && known.rank(x)? >= 3).then_some(())?;
    let size = node.attr("size")?.i();
    (size >= 1).then_some(())?;
    let before = (size - 1) / 2;
    let [alpha, beta, bias] = [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)]
        .map(|(name, default)| node.float(name, default));
    let shape = emit.op("Shape", &[x]);
    let squares = emit.op("Mul", &[x, x]);
    // Channels as the height of an image.
    let columns = {
        let flat = emit.reshape(&squares, &[0, 0, -1]);
        emit.on_axes("Unsqueeze", &flat, &[1], known.opset, vec![])
    };
    let means = emit.op_with(
        "AveragePool",
        &[&columns],
        vec![
            AttributeProto::of_ints("kernel_shape", &[size, 1]),
            AttributeProto::of_ints("pads", &[before, 0, size - 1 - before, 0]),
            AttributeProto::of_int("count_include_pad", 1),
        ],
    );
    let means = emit.op("Reshape", &[&means, &shape]);
    let [alpha, beta, bias] = [alpha, beta, bias].map(|value| emit.float(value));
    let scaled = emit.op("Mul", &[&means, &alpha]);
    let sum = emit.op("Add", &[&scaled, &bias]);
    let divisor = emit.op("Pow", &[&sum, &beta]);
    emit.op("Div", &[x, &divisor]);
    emit.finish(node);
    Some(())
}
