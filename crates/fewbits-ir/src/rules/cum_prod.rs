//! CumProd, which the other executor lacks.

use fewbits_onnx::proto::NodeProto;

use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{CumProd, CumSumOf, From, Op};
use crate::refusal::{Refusal, input, only};

pub(crate) const RULE: Rule = Rule { name: "cum_prod", takes: Takes::Anywhere(cum_prod) };

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
