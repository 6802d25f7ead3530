//! Rows that are looked up in a constant table.

use fewbits_onnx::proto::{DataType, NodeProto};
use fewbits_quant::QTensor;

use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::net::Factor;
use crate::integer::refusal::{Refusal, check, input, only};
use crate::integer::steps::embedding::{Embedding, Table};

impl<'a> Lowering<'a> {
    /// Looks rows of floats or quantized ones up: a Gather, or the Mul at the end of looking up
    /// quantized ones.
    pub(super) fn embedding(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let (places, table) = self.looked_up_rows(node)?;
        if self.types.get(places) != Some(&DataType::Int64) {
            return Err(Refusal::of_node("the places that it looks up are no int64"));
        }
        Ok(Box::new(move |lowering| {
            let (what, table) = match table {
                Factor::Quantized(weight) => (
                    format!("Gather of {}-bit rows", weight.codes().width()),
                    Table::Weight(Box::new(QTensor::clone(&weight))),
                ),
                Factor::Floats(floats) => {
                    let (values, width) = (floats.values(), floats.shape[1]);
                    ("Gather".to_string(), Table::Floats { values, width })
                }
            };
            let input = lowering.tensor(places);
            lowering.step(Form::Plain, &[input], what, node, |output| Embedding {
                input,
                output,
                table,
            })
        }))
    }

    /// Finds the value that says which rows a node looks up, and the table.
    fn looked_up_rows(&self, node: &'a NodeProto) -> Result<(&'a str, Factor<'a>), Refusal> {
        let output = node.output.first().map_or("", String::as_str);
        if let Some((places, weight)) = self.net.lookup(output) {
            return Ok((places, Factor::Quantized(weight.clone())));
        }
        only(&["Gather"], node)?;
        check(node.int("axis", 0) == 0, "it looks up along another axis than the first")?;
        let (table, places) = (input(node, 0)?, input(node, 1)?);
        let table = self.net.factor(table).filter(|table| table.shape().len() == 2);
        Ok((places, table.ok_or(Refusal::of_node("its table is no constant matrix"))?))
    }
}
