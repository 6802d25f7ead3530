//! Rows that are looked up in a constant table.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::Tensor;
use crate::example::{Example, Net, tensor};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Gather, Matrix, Op};
use crate::refusal::{Refusal, check, input, only};
use crate::view::Factor;

pub(crate) const RULE: Rule = Rule { name: "gather", takes: Takes::Floats(gather), example };

/// Looks rows of floats or quantized ones up: a Gather, or the Mul at the end of looking up
/// quantized ones.
fn gather<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let (indices, table) = looked_up_rows(lowering, node)?;
    if lowering.types.get(indices) != Some(&DataType::Int64) {
        return Err(Refusal::of_node("the places that it looks up are no int64"));
    }
    Ok(Box::new(move |lowering| {
        let (what, table) = match table {
            Factor::Quantized(weight) => {
                (format!("Gather of {}-bit rows", weight.codes().width()), Matrix::Codes(weight))
            }
            Factor::Floats(floats) => {
                let tensor = Tensor::new(floats.shape.clone(), floats.values());
                ("Gather".to_string(), Matrix::Floats(tensor.expect("the payload was checked")))
            }
        };
        let input = lowering.tensor(indices);
        lowering.step(floats(), &[input], what, node, Op::Gather(Gather { table }))
    }))
}

/// Finds the value that says which rows a node looks up, and the table.
fn looked_up_rows<'a>(
    lowering: &Lowering<'a>,
    node: &'a NodeProto,
) -> Result<(&'a str, Factor<'a>), Refusal> {
    let output = node.output.first().map_or("", String::as_str);
    if let Some((indices, weight)) = lowering.view.lookup(output) {
        return Ok((indices, Factor::Quantized(weight.clone())));
    }
    only(&["Gather"], node)?;
    check(node.int("axis", 0) == 0, "it looks up along another axis than the first")?;
    let (table, indices) = (input(node, 0)?, input(node, 1)?);
    let table = lowering.view.factor(table).filter(|table| table.shape().len() == 2);
    Ok((indices, table.ok_or(Refusal::of_node("its table is no constant matrix"))?))
}

/// Rows of a table, one of them twice.
fn example() -> Example {
    let mut net = Net::new();
    let places = net.feed(tensor(&[2, 2], vec![4_i64, 0, 2, 4]));
    let table = net.random_floats(&[5, 7]);
    let y = net.node("Gather", &[&table, &places], &[]);
    net.ends_in_floats(&y)
}
