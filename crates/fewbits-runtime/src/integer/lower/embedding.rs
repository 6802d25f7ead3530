//! Rows that are looked up in a constant table.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::lower::{Form, Lowering};
use crate::integer::state::ValueId;
use crate::integer::steps::embedding::{Embedding, Table};

impl<'a> Lowering<'a> {
    /// Whether a Gather looks rows of floats up, or a Mul is the end of looking up quantized ones.
    pub(super) fn is_embedding(&self, node: &NodeProto) -> bool {
        self.places(node).is_some()
    }

    /// The value that says which rows a node looks up.
    fn places(&self, node: &NodeProto) -> Option<&'a str> {
        let output = node.output.first()?;
        if let Some((places, _)) = self.net.lookup(output) {
            return self.is_int64(places).then_some(places);
        }
        let (_, node) = self.net.producer(output)?;
        (node.is("Gather") && node.int("axis", 0) == 0).then_some(())?;
        let [table, places] = node.input.as_slice() else { return None };
        let rank = match (self.net.weight(table), self.net.initializer(table)) {
            (Some(weight), _) => weight.layout().shape().len(),
            (None, Some(tensor)) if self.is_float(table) => tensor.dims.len(),
            _ => return None,
        };
        (rank == 2 && self.is_int64(places)).then_some(places)
    }

    fn is_int64(&self, name: &str) -> bool {
        self.types.get(name) == Some(&DataType::Int64)
    }

    pub(super) fn embedding(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let places = self.places(node)?;
        let table = node.input.first()?;
        let quantized = self.net.lookup(node.output.first()?).map(|(_, weight)| weight);
        let (what, table) = match quantized.or_else(|| self.net.weight(table)) {
            Some(weight) => (
                format!("Gather of {}-bit rows", weight.codes().width()),
                Table::Weight(Box::new(weight.clone())),
            ),
            None => {
                let (values, shape) = self.net.floats(table)?;
                ("Gather".to_string(), Table::Floats { values, width: *shape.get(1)? })
            }
        };
        let input = self.tensor(places);
        Some(self.step(Form::Plain, &[input], what, node, |output| Embedding {
            input,
            output,
            table,
        }))
    }
}
