//! The conversions, in the order of the table.

use std::ops::Range;

use super::Step;
use crate::proto::{AttributeProto, NodeProto};

type Done = Result<(), String>;

/// The attribute `name`, removed from the node.
fn take(node: &mut NodeProto, name: &str) -> Option<AttributeProto> {
    let at = node.attribute.iter().position(|a| a.name() == name)?;
    Some(node.attribute.remove(at))
}

/// Replaces an attribute.
fn set(node: &mut NodeProto, attribute: AttributeProto) {
    take(node, attribute.name());
    node.attribute.push(attribute);
}

/// Puts a value in the input `slot`; those between are absent.
fn set_input(node: &mut NodeProto, slot: usize, value: String) {
    if node.input.len() <= slot {
        node.input.resize(slot + 1, String::new());
    }
    node.input[slot] = value;
}

/// The name to derive other names from.
fn stem(node: &NodeProto) -> String {
    node.output.first().cloned().unwrap_or_default()
}

/// Before opset 7 the second operand could begin at an axis of the first; its last axes are those of the first now.
pub(super) fn broadcasting_becomes_implicit(mut node: NodeProto, step: &mut Step) -> Done {
    let is_broadcast = take(&mut node, "broadcast").is_some_and(|a| a.i() != 0);
    let axis = take(&mut node, "axis").filter(|_| is_broadcast);
    if let Some(axis) = axis {
        let [first, second] = node.input.as_slice() else {
            return Err("it has no two inputs".into());
        };
        let rank = |name: &str| step.dims(name).map(|dims| dims.len() as i64);
        let (Some(first), Some(behind)) = (rank(first), rank(second)) else {
            return Err("the axes of its inputs are not known; infer shapes first".into());
        };
        let axis = if axis.i() < 0 { axis.i() + first } else { axis.i() };
        let missing = first - axis - behind;
        if axis < 0 || missing < 0 {
            return Err("its second input does not fit into the first at the axis".into());
        }
        if missing > 0 && behind > 0 {
            widen_second(&mut node, "wide", behind..behind + missing, step);
        }
    }
    step.push(node);
    Ok(())
}

/// Adds axes to the second input of a node.
fn widen_second(node: &mut NodeProto, what: &str, axes: Range<i64>, step: &mut Step) {
    let wide = step.fresh(&format!("{}_{what}", stem(node)));
    let axes: Vec<i64> = axes.collect();
    step.push(
        NodeProto::new("Unsqueeze", &[&node.input[1]], &[&wide])
            .with(AttributeProto::of_ints("axes", &axes)),
    );
    node.input[1] = wide;
}

/// What is not said to be a test trains.
pub(super) fn inference_becomes_implicit(mut node: NodeProto, step: &mut Step) -> Done {
    if take(&mut node, "is_test").is_none_or(|a| a.i() == 0) {
        return Err("it is in training mode; export the model for inference".into());
    }
    step.push(node);
    Ok(())
}

/// Whether there is a sequence as an output follows from its name.
pub(super) fn outputs_become_optional(mut node: NodeProto, step: &mut Step) -> Done {
    take(&mut node, "output_sequence");
    step.push(node);
    Ok(())
}

pub(super) fn gemm_broadcasts(mut node: NodeProto, step: &mut Step) -> Done {
    take(&mut node, "broadcast");
    step.push(node);
    Ok(())
}

/// Slopes were one for each channel, and are broadcast as any operand now.
pub(super) fn slopes_are_broadcast(mut node: NodeProto, step: &mut Step) -> Done {
    let [data, slope] = node.input.as_slice() else { return Err("it has no two inputs".into()) };
    let (Some(rank), Some(slopes)) = (step.dims(data).map(<[_]>::len), step.dims(slope)) else {
        return Err("the axes of its inputs are not known; infer shapes first".into());
    };
    if slopes.len() == 1 && slopes[0] != Some(1) && rank > 2 {
        widen_second(&mut node, "slopes", 1..rank as i64 - 1, step);
    }
    step.push(node);
    Ok(())
}

pub(super) fn upsample_scales_become_a_list(_: NodeProto, _: &mut Step) -> Done {
    Err("the Upsample of opset 6 has scales of its own; export with opset 7 or newer".into())
}

pub(super) fn batch_norm_loses_spatial(mut node: NodeProto, step: &mut Step) -> Done {
    match take(&mut node, "spatial").map_or(1, |a| a.i()) {
        0 => Err("spatial=0, parameters for every position".into()),
        _ => {
            step.push(node);
            Ok(())
        }
    }
}

pub(super) fn scan_loses_batch(_: NodeProto, _: &mut Step) -> Done {
    Err("the Scan of opset 8 runs over a batch of sequences; export with opset 9 or newer".into())
}

pub(super) fn upsample_scales_become_input(mut node: NodeProto, step: &mut Step) -> Done {
    let scales = take(&mut node, "scales").ok_or("it has no scales")?;
    let scales = step.floats(&format!("{}_scales", stem(&node)), &scales.floats);
    set_input(&mut node, 1, scales);
    step.push(node);
    Ok(())
}

pub(super) fn dropout_mask_becomes_bool(node: NodeProto, step: &mut Step) -> Done {
    if node.output.get(1).is_some_and(|mask| step.is_read(mask)) {
        return Err("its mask is read".into());
    }
    step.push(node);
    Ok(())
}

pub(super) fn slice_bounds_become_inputs(mut node: NodeProto, step: &mut Step) -> Done {
    let stem = stem(&node);
    let starts = take(&mut node, "starts").ok_or("it has no starts")?.ints;
    let ends = take(&mut node, "ends").ok_or("it has no ends")?.ints;
    let axes = take(&mut node, "axes").map(|a| a.ints).filter(|axes| !axes.is_empty());
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    for (i, (name, values)) in
        [("starts", starts), ("ends", ends), ("axes", axes)].into_iter().enumerate()
    {
        let values = step.ints(&format!("{stem}_{name}"), &values);
        set_input(&mut node, i + 1, values);
    }
    step.push(node);
    Ok(())
}

pub(super) fn topk_count_becomes_input(mut node: NodeProto, step: &mut Step) -> Done {
    let k = take(&mut node, "k").ok_or("it has no k")?.i();
    let k = step.ints(&format!("{}_k", stem(&node)), &[k]);
    set_input(&mut node, 1, k);
    step.push(node);
    Ok(())
}

pub(super) fn upsample_becomes_resize(mut node: NodeProto, step: &mut Step) -> Done {
    node.op_type = Some("Resize".into());
    step.mark_enlarged(&stem(&node));
    step.push(node);
    Ok(())
}

/// The bounds of opset 6 have defaults, the ends of the range of `f32`; they bound nothing.
pub(super) fn clip_bounds_become_inputs(mut node: NodeProto, step: &mut Step) -> Done {
    for (slot, name, open) in [(1, "min", f32::MIN), (2, "max", f32::MAX)] {
        let bound = take(&mut node, name).map_or(open, |a| a.f());
        if bound != open {
            let bound = step.number(&format!("{}_{name}", stem(&node)), bound, &node)?;
            set_input(&mut node, slot, bound);
        }
    }
    step.push(node);
    Ok(())
}

pub(super) fn pads_become_inputs(mut node: NodeProto, step: &mut Step) -> Done {
    let pads = take(&mut node, "pads").ok_or("it has no pads")?;
    let pads = step.ints(&format!("{}_pads", stem(&node)), &pads.ints);
    set_input(&mut node, 1, pads);
    let value = take(&mut node, "value").map_or(0.0, |a| a.f());
    if value != 0.0 {
        let value = step.number(&format!("{}_value", stem(&node)), value, &node)?;
        set_input(&mut node, 2, value);
    }
    step.push(node);
    Ok(())
}

/// Opset 10 samples at `x / scale`. It leaves open how `nearest` rounds; ONNX Runtime rounds down
/// where it enlarges and up where it shrinks.
pub(super) fn resize_names_its_coordinates(mut node: NodeProto, step: &mut Step) -> Done {
    let scales = node.input.get(1).cloned().ok_or("it has no scales")?;
    if node.string("mode", "nearest") == "nearest" {
        let values = step.constant(&scales).and_then(|t| t.floats().ok());
        let rounding = match values {
            _ if step.is_enlarged(&stem(&node)) => "floor",
            Some(values) if values.iter().all(|&s| s >= 1.0) => "floor",
            Some(values) if values.iter().all(|&s| s <= 1.0) => "ceil",
            Some(_) => return Err("it enlarges one axis and shrinks another".into()),
            None => return Err("its scales are not constant".into()),
        };
        set(&mut node, AttributeProto::of_string("nearest_mode", rounding));
    }
    set(&mut node, AttributeProto::of_string("coordinate_transformation_mode", "asymmetric"));
    let region = step.floats(&format!("{}_roi", stem(&node)), &[]);
    node.input = vec![node.input[0].clone(), region, scales];
    step.push(node);
    Ok(())
}

pub(super) fn scatter_becomes_scatter_elements(mut node: NodeProto, step: &mut Step) -> Done {
    node.op_type = Some("ScatterElements".into());
    step.push(node);
    Ok(())
}

/// Without training the ratio changes nothing; the mask does.
pub(super) fn dropout_ratio_becomes_input(mut node: NodeProto, step: &mut Step) -> Done {
    if node.output.get(1).is_some_and(|mask| step.is_read(mask)) {
        return Err("its mask is read".into());
    }
    if let Some(ratio) = take(&mut node, "ratio") {
        let ratio = step.float(&format!("{}_ratio", stem(&node)), ratio.f());
        set_input(&mut node, 1, ratio);
    }
    step.push(node);
    Ok(())
}

/// Before opset 13 all axes from `axis` on were one, from 13 on `axis` is one axis.
pub(super) fn softmax_keeps_its_axes(mut node: NodeProto, step: &mut Step) -> Done {
    let axis = take(&mut node, "axis").map_or(1, |a| a.i());
    node.attribute.push(AttributeProto::of_int("axis", -1));
    let data = node.input.first().cloned().ok_or("it has no input")?;
    let rank = step.dims(&data).map(|dims| dims.len() as i64);
    if axis == -1 || rank == Some(axis + 1) {
        step.push(node);
        return Ok(());
    }
    let output = stem(&node);
    let shape = step.fresh(&format!("{output}_shape"));
    let (flat, soft) = (step.fresh(&format!("{output}_in")), step.fresh(&format!("{output}_out")));
    step.push(NodeProto::new("Shape", &[&data], &[&shape]));
    step.push(
        NodeProto::new("Flatten", &[&data], &[&flat]).with(AttributeProto::of_int("axis", axis)),
    );
    node.input = vec![flat];
    node.output = vec![soft.clone()];
    step.push(node);
    step.push(NodeProto::new("Reshape", &[&soft, &shape], &[&output]));
    Ok(())
}

pub(super) fn axes_become_input(mut node: NodeProto, step: &mut Step) -> Done {
    // No axes meant all of them, and still does.
    if let Some(axes) = take(&mut node, "axes").filter(|a| !a.ints.is_empty()) {
        let axes = step.ints(&format!("{}_axes", stem(&node)), &axes.ints);
        set_input(&mut node, 1, axes);
    }
    step.push(node);
    Ok(())
}

/// The region matters to one mode, and an empty list of scales is an absent input now.
pub(super) fn resize_region_becomes_optional(mut node: NodeProto, step: &mut Step) -> Done {
    let mode = node.string("coordinate_transformation_mode", "half_pixel");
    let is_empty = |step: &Step, name: &str| {
        step.constant(name).is_some_and(|t| t.element_count().is_ok_and(|n| n == 0))
    };
    for slot in 1..node.input.len().min(3) {
        let unread_region = slot == 1 && mode != "tf_crop_and_resize";
        if unread_region || is_empty(step, &node.input[slot]) {
            node.input[slot].clear();
        }
    }
    if mode == "tf_half_pixel_for_nn" {
        // (x + 0.5) / scale rounded down is (x + 0.5) / scale - 0.5 rounded to nearest, half up.
        let rounding = node.string("nearest_mode", "round_prefer_floor");
        if node.string("mode", "nearest") != "nearest" || rounding != "floor" {
            return Err("the coordinates tf_half_pixel_for_nn without rounding down".into());
        }
        set(&mut node, AttributeProto::of_string("coordinate_transformation_mode", "half_pixel"));
        set(&mut node, AttributeProto::of_string("nearest_mode", "round_prefer_ceil"));
    }
    step.push(node);
    Ok(())
}

pub(super) fn split_sizes_become_input(mut node: NodeProto, step: &mut Step) -> Done {
    if let Some(sizes) = take(&mut node, "split").filter(|a| !a.ints.is_empty()) {
        let sizes = step.ints(&format!("{}_split", stem(&node)), &sizes.ints);
        set_input(&mut node, 1, sizes);
    }
    step.push(node);
    Ok(())
}

pub(super) fn batch_norm_loses_statistics(node: NodeProto, step: &mut Step) -> Done {
    if node.output.iter().skip(1).any(|name| !name.is_empty()) {
        return Err("it is in training mode; export the model for inference".into());
    }
    step.push(node);
    Ok(())
}

pub(super) fn roi_align_names_its_coordinates(mut node: NodeProto, step: &mut Step) -> Done {
    set(
        &mut node,
        AttributeProto::of_string("coordinate_transformation_mode", "output_half_pixel"),
    );
    step.push(node);
    Ok(())
}

pub(super) fn split_counts_outputs(mut node: NodeProto, step: &mut Step) -> Done {
    if node.input.get(1).is_none_or(String::is_empty) {
        node.input.truncate(1);
        let outputs = node.output.len() as i64;
        set(&mut node, AttributeProto::of_int("num_outputs", outputs));
    }
    step.push(node);
    Ok(())
}

pub(super) fn dft_axis_becomes_input(mut node: NodeProto, step: &mut Step) -> Done {
    let axis = take(&mut node, "axis").map_or(1, |a| a.i());
    let axis = step.int(&format!("{}_axis", stem(&node)), axis);
    set_input(&mut node, 2, axis);
    step.push(node);
    Ok(())
}

pub(super) fn grid_sample_renames_modes(mut node: NodeProto, step: &mut Step) -> Done {
    let mode = match node.string("mode", "bilinear").as_str() {
        "bilinear" => "linear",
        "bicubic" => "cubic",
        "nearest" => "nearest",
        other => return Err(format!("the mode '{other}'")),
    };
    set(&mut node, AttributeProto::of_string("mode", mode));
    step.push(node);
    Ok(())
}

/// Scale and bias had one number a group, now they have one a channel: each is repeated.
pub(super) fn group_norm_scales_channels(mut node: NodeProto, step: &mut Step) -> Done {
    let groups = node.int("num_groups", 0);
    if groups < 1 || node.input.len() != 3 {
        return Err("it has no groups, or not three inputs".into());
    }
    let stem = stem(&node);
    let known = step.dims(&node.input[0]).and_then(|d| d.get(1).copied().flatten());
    let known = known.and_then(|channels| i64::try_from(channels).ok());
    let spread = match known {
        Some(channels) => step.ints(&format!("{stem}_spread"), &[groups, channels / groups]),
        None => {
            let channels = step.fresh(&format!("{stem}_channels"));
            let each = step.fresh(&format!("{stem}_each"));
            let spread = step.fresh(&format!("{stem}_spread"));
            let count = step.ints(&format!("{stem}_groups"), &[groups]);
            step.push(
                NodeProto::new("Shape", &[&node.input[0]], &[&channels])
                    .with(AttributeProto::of_int("start", 1))
                    .with(AttributeProto::of_int("end", 2)),
            );
            step.push(NodeProto::new("Div", &[&channels, &count], &[&each]));
            step.push(
                NodeProto::new("Concat", &[&count, &each], &[&spread])
                    .with(AttributeProto::of_int("axis", 0)),
            );
            spread
        }
    };
    let last = step.ints(&format!("{stem}_axis"), &[1]);
    let flat = step.ints(&format!("{stem}_flat"), &[-1]);
    for slot in [1, 2] {
        let mut value = node.input[slot].clone();
        for (op, argument) in [("Unsqueeze", &last), ("Expand", &spread), ("Reshape", &flat)] {
            let next = step.fresh(&format!("{stem}_per_channel"));
            step.push(NodeProto::new(op, &[&value, argument], &[&next]));
            value = next;
        }
        node.input[slot] = value;
    }
    step.push(node);
    Ok(())
}
