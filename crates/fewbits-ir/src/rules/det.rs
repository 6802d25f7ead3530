//! Det, which the other executor lacks.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, tensor};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::Op;
use crate::refusal::{Refusal, check, input, only};

pub(crate) const RULE: Rule = Rule { name: "det", takes: Takes::Anywhere(det), example };

fn det<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Det"], node)?;
    let matrices = input(node, 0)?;
    check(lowering.is_float(matrices), "its matrices are no floats")?;
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(matrices);
        lowering.step(floats(), &[input], "Det", node, Op::Det)
    }))
}

/// Two matrices, one with a negative determinant.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed(tensor(&[2, 2, 2], vec![1_f32, 2.0, 3.0, 4.0, 2.0, 0.5, 4.0, 3.0]));
    let y = net.node("Det", &[&x], &[]);
    net.gives(&y, tensor(&[2], vec![-2_f32, 4.0]))
}
