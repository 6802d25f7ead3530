//! CumProd, which the other executor lacks.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, int, tensor};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{CumProd, CumSumOf, From, Op};
use crate::refusal::{Refusal, input, only};

pub(crate) const RULE: Rule = Rule { name: "cum_prod", takes: Takes::Anywhere(cum_prod), example };

fn cum_prod<'a>(_: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["CumProd"], node)?;
    let names = [input(node, 0)?, input(node, 1)?];
    let flag = |name| node.int(name, 0) != 0;
    let of = if flag("exclusive") { CumSumOf::BeforeThis } else { CumSumOf::UpToThis };
    let from = if flag("reverse") { From::Last } else { From::First };
    Ok(Box::new(move |lowering| {
        let inputs = names.map(|name| lowering.tensor(name));
        lowering.step(floats(), &inputs, "CumProd", node, Op::CumProd(CumProd { of, from }))
    }))
}

/// The products of what is behind each element of a row.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed(tensor(&[2, 3], vec![2_f32, 3.0, 4.0, 5.0, -1.0, 0.5]));
    let axis = net.ints(&[1]);
    let y = net.node("CumProd", &[&x, &axis], &[int("exclusive", 1), int("reverse", 1)]);
    net.gives(&y, tensor(&[2, 3], vec![12_f32, 4.0, 1.0, -0.5, 0.5, 1.0]))
}
