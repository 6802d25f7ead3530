//! NonMaxSuppression, at the end of detectors, which the other executor computes otherwise.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, tensor};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Boxes, NonMaxSuppression, Op};
use crate::refusal::{Refusal, input, only};

pub(crate) const RULE: Rule =
    Rule { name: "non_max_suppression", takes: Takes::Anywhere(non_max_suppression), example };

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

/// Three boxes, of which the best hides the first.
fn example() -> Example {
    let mut net = Net::new();
    let boxes = [[0.0_f32, 0.0, 1.0, 1.0], [0.0, 0.1, 1.0, 1.1], [0.0, 2.0, 1.0, 3.0]];
    let boxes = net.feed(tensor(&[1, 3, 4], boxes.concat()));
    let scores = net.feed(tensor(&[1, 1, 3], vec![0.5_f32, 0.9, 0.3]));
    let (most, overlap) = (net.ints(&[2]), net.floats(&[1], &[0.5]));
    let y = net.node("NonMaxSuppression", &[&boxes, &scores, &most, &overlap], &[]);
    net.gives(&y, tensor(&[2, 3], vec![0_i64, 0, 1, 0, 0, 2]))
}
