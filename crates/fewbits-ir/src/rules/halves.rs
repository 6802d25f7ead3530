//! Floats rounded to halves, as those that read them compare them.

use fewbits_onnx::proto::{DataType, NodeProto};
use half::f16;

use crate::example::{Example, Net, int, tensor};
use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::{Refusal, input, only};
use crate::rules::floats_of_integers::convert;

pub(crate) const RULE: Rule = Rule { name: "halves", takes: Takes::Anywhere(halves), example };

fn halves<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Cast"], node)?;
    let to_half = node.int("to", 0) == DataType::Float16 as i64;
    if !to_half || !lowering.is_float(input(node, 0)?) {
        return Err(Refusal::other());
    }
    Ok(Box::new(move |lowering| convert(lowering, node, DataType::Float16)))
}

/// Floats of which the last bits are lost, and one beyond all halves.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed(tensor(&[4], vec![0.1_f32, -2049.0, 65_519.0, 1e6]));
    let y = net.node("Cast", &[&x], &[int("to", DataType::Float16 as i64)]);
    net.gives(
        &y,
        tensor(
            &[4],
            vec![0.1_f32, -2048.0, 65_504.0, f32::INFINITY]
                .into_iter()
                .map(f16::from_f32)
                .collect::<Vec<f16>>(),
        ),
    )
}
