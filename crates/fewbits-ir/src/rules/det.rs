//! Det, which the other executor lacks.

use fewbits_onnx::proto::NodeProto;

use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::Op;
use crate::refusal::{Refusal, check, input, only};

pub(crate) const RULE: Rule = Rule { name: "det", takes: Takes::Anywhere(det) };

fn det<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Det"], node)?;
    let matrices = input(node, 0)?;
    check(lowering.is_float(matrices), "its matrices are no floats")?;
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(matrices);
        lowering.step(floats(), &[input], "Det", node, Op::Det)
    }))
}
