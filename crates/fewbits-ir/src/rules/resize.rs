//! `Resize` in the ways that the other executor lacks.

use fewbits_onnx::proto::{AttributeProto, NodeProto};

use crate::example::{Example, Net, tensor};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{
    AspectRatio, Coordinates, Filter, Interpolation, Nearest, Op, Outside, Resize, Target,
};
use crate::refusal::{Refusal, check, input, only};
use crate::trust::distrusted;

pub(crate) const RULE: Rule = Rule { name: "resize", takes: Takes::Anywhere(resize), example };

fn resize<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Resize"], node)?;
    if distrusted(node, lowering.view.opset).is_none() {
        return Err(Refusal::other());
    }
    check(lowering.is_float(input(node, 0)?), "it resizes no floats")?;
    let interpolation = interpolation(node)?;
    let coordinates = coordinates(node)?;
    let aspect = aspect_ratio(node)?;
    let outside = match node.int("exclude_outside", 0) {
        0 => Outside::Repeated,
        _ => Outside::Excluded,
    };
    // An empty list stands for one that is not given.
    let given = |place: usize| -> Option<&'a str> {
        let name = node.given_input(place)?;
        let is_empty = lowering.view.initializer(name).is_some_and(|t| t.dims.contains(&0));
        (!is_empty).then_some(name)
    };
    let part = match coordinates {
        Coordinates::TfCropAndResize(_) => given(1),
        _ => None,
    };
    let (told, target) = match (given(2), given(3)) {
        (Some(scales), None) => (scales, Target::Scales),
        (None, Some(sizes)) => (sizes, Target::Sizes(aspect)),
        _ => return Err(Refusal::of_node("it needs either scales or sizes")),
    };
    let axes = node.ints("axes").to_vec();
    let op = Resize { target, axes, interpolation, coordinates, outside };
    Ok(Box::new(move |lowering| {
        let names = [node.input[0].as_str(), told].into_iter().chain(part);
        let inputs: Vec<_> = names.map(|name| lowering.tensor(name)).collect();
        lowering.step(floats(), &inputs, node.op_type(), node, Op::Resize(op))
    }))
}

fn unknown(what: &str, value: &str) -> Refusal {
    Refusal::of_node(format!("{what} {value} is not one of ONNX"))
}

fn interpolation(node: &NodeProto) -> Result<Interpolation, Refusal> {
    let filter = match node.int("antialias", 0) {
        0 => Filter::Plain,
        _ => Filter::Antialias,
    };
    let nearest = match node.string("nearest_mode", "round_prefer_floor").as_str() {
        "round_prefer_floor" => Nearest::RoundPreferFloor,
        "round_prefer_ceil" => Nearest::RoundPreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        other => return Err(unknown("nearest_mode", other)),
    };
    match node.string("mode", "nearest").as_str() {
        "nearest" => Ok(Interpolation::Nearest(nearest)),
        "linear" => Ok(Interpolation::Linear(filter)),
        "cubic" => Ok(Interpolation::Cubic(f64::from(node.float("cubic_coeff_a", -0.75)), filter)),
        other => Err(unknown("mode", other)),
    }
}

fn coordinates(node: &NodeProto) -> Result<Coordinates, Refusal> {
    Ok(match node.string("coordinate_transformation_mode", "half_pixel").as_str() {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_crop_and_resize" => {
            Coordinates::TfCropAndResize(node.float("extrapolation_value", 0.0))
        }
        other => return Err(unknown("coordinate_transformation_mode", other)),
    })
}

fn aspect_ratio(node: &NodeProto) -> Result<AspectRatio, Refusal> {
    match node.string("keep_aspect_ratio_policy", "stretch").as_str() {
        "stretch" => Ok(AspectRatio::Stretch),
        "not_larger" => Ok(AspectRatio::NotLarger),
        "not_smaller" => Ok(AspectRatio::NotSmaller),
        other => Err(unknown("keep_aspect_ratio_policy", other)),
    }
}

/// A smaller image by cubic curves, as the specification of ONNX has it.
fn example() -> Example {
    let mut net = Net::new();
    let pixels: Vec<f32> = (1..=16).map(|pixel| pixel as f32).collect();
    let x = net.feed(tensor(&[1, 1, 4, 4], pixels));
    let scales = net.floats(&[4], &[1.0, 1.0, 0.8, 0.8]);
    let mode = AttributeProto::of_string("mode", "cubic");
    let y = net.node("Resize", &[&x, "", &scales], &[mode]);
    let first = [1.471_191_4_f32, 2.78125, 4.082_519_5];
    let below = [6.711_426, 8.021_484, 9.322_754, 11.916_504, 13.226_563, 14.527_832];
    net.gives(&y, tensor(&[1, 1, 3, 3], [&first[..], &below].concat()))
}
