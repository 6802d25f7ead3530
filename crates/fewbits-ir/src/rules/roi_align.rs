//! RoiAlign, of detectors, which the other executor lacks.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, int, tensor};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Op, Pixels, RoiAlign, RoiPooling};
use crate::refusal::{Refusal, check, input, only};

pub(crate) const RULE: Rule =
    Rule { name: "roi_align", takes: Takes::Anywhere(roi_align), example };

/// Most rows or columns of parts, and samples of a part: more is an error in the file.
const MOST: i64 = 1 << 12;

fn roi_align<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["RoiAlign"], node)?;
    let names = [input(node, 0)?, input(node, 1)?, input(node, 2)?];
    check(names[..2].iter().all(|name| lowering.is_float(name)), "its features are no floats")?;
    let pooling = match node.string("mode", "avg").as_str() {
        "avg" => RoiPooling::Average,
        "max" => RoiPooling::Max,
        other => return Err(Refusal::of_node(format!("its mode {other} is not one of ONNX"))),
    };
    // Until opset 16 there was no attribute.
    let default = if lowering.view.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let pixels = match node.string("coordinate_transformation_mode", default).as_str() {
        "half_pixel" => Pixels::HalfPixel,
        "output_half_pixel" => Pixels::OutputHalfPixel,
        other => return Err(Refusal::of_node(format!("its coordinates {other} are not ONNX's"))),
    };
    let number = |name: &str, default| {
        let number = node.int(name, default);
        let fits = (0..=MOST).contains(&number).then_some(number as usize);
        fits.ok_or(Refusal::of_node(format!("its {name} is not from 0 to {MOST}")))
    };
    let op = RoiAlign {
        pooling,
        pixels,
        out: [number("output_height", 1)?, number("output_width", 1)?],
        samples: number("sampling_ratio", 0)?,
        spatial_scale: node.float("spatial_scale", 1.0),
    };
    Ok(Box::new(move |lowering| {
        let inputs = names.map(|name| lowering.tensor(name));
        lowering.step(floats(), &inputs, "RoiAlign", node, Op::RoiAlign(op))
    }))
}

/// A region whose two parts lie between rows of pixels.
fn example() -> Example {
    let mut net = Net::new();
    let pixels: Vec<f32> = (1..=9).map(|pixel| pixel as f32).collect();
    let x = net.feed(tensor(&[1, 1, 3, 3], pixels));
    let region = net.floats(&[1, 4], &[0.0, 0.0, 2.0, 2.0]);
    let image = net.ints(&[0]);
    let attributes = [int("output_width", 2), int("sampling_ratio", 1)];
    let y = net.node("RoiAlign", &[&x, &region, &image], &attributes);
    net.gives(&y, tensor(&[1, 1, 1, 2], vec![2.5_f32, 3.5]))
}
