//! NonMaxSuppression, at the end of detectors, which the other executor computes otherwise.

use fewbits_onnx::proto::NodeProto;

use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Boxes, NonMaxSuppression, Op};
use crate::refusal::{Refusal, input, only};

pub(crate) const RULE: Rule =
    Rule { name: "non_max_suppression", takes: Takes::Anywhere(non_max_suppression) };

fn non_max_suppression<'a>(_: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["NonMaxSuppression"], node)?;
    let factors = [input(node, 0)?, input(node, 1)?];
    let further = [2, 3, 4].map(|at| node.given_input(at));
    let boxes = if node.int("center_point_box", 0) == 0 { Boxes::Corners } else { Boxes::Centres };
    let op = NonMaxSuppression { boxes, given: further.map(|name| name.is_some()) };
    Ok(Box::new(move |lowering| {
        let names = factors.into_iter().chain(further.into_iter().flatten());
        let inputs: Vec<_> = names.map(|name| lowering.tensor(name)).collect();
        lowering.step(floats(), &inputs, "NonMaxSuppression", node, Op::NonMaxSuppression(op))
    }))
}
