//! Operators on two floats.

use fewbits_kernels::float::{Binary, Function};
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::program::AnyStep;
use crate::integer::refusal::Refusal;
use crate::integer::state::ValueId;
use crate::integer::steps::binary_of_bytes::BinaryOfBytes;
use crate::integer::steps::float::FloatBinary;
use crate::integer::steps::product::{Epilogue, FloatResidual};

impl<'a> Lowering<'a> {
    /// An operator on two values that are bytes, and a function of its result: in one pass, since
    /// floats of images take more time to write and read than to compute.
    pub(super) fn binary_of_bytes(
        &mut self,
        node: &'a NodeProto,
        function: Option<Function>,
    ) -> Option<ValueId> {
        let operation = binary_of(node)?;
        let [a, b] = node.input.as_slice() else { return None };
        (self.is_source(a) && self.is_source(b)).then_some(())?;
        let (a, b) = (self.source(a).ok()?, self.source(b).ok()?);
        let form = self.form(a.id);
        (self.form(b.id) == form).then_some(())?;
        let what = match function {
            Some(function) => format!("{} + {function:?}", node.op_type()),
            None => node.op_type().to_string(),
        };
        let inputs = [(a.id, a.ty.scale), (b.id, b.ty.scale)];
        Some(self.step(Form::Plain, &[a.id, b.id], what, node, |output| BinaryOfBytes {
            inputs,
            output,
            operation,
            function,
            form,
        }))
    }

    /// Computes an operator on two floats.
    pub(super) fn float_binary(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let operation = binary_of(node).ok_or(Refusal::other())?;
        Ok(Box::new(move |lowering| lowering.binary_of_floats(operation, node)))
    }

    fn binary_of_floats(&mut self, operation: Binary, node: &'a NodeProto) -> ValueId {
        if let Some(id) = self.binary_of_bytes(node, None) {
            return id;
        }
        let (a_name, b_name) = (node.input[0].as_str(), node.input[1].as_str());
        let (a, b) = (self.tensor(a_name), self.tensor(b_name));
        if operation == Binary::Add {
            for ((name, id), (other_name, other)) in
                [((a_name, a), (b_name, b)), ((b_name, b), (a_name, a))]
            {
                if let Some(sum) = self.added_to_product(name, id, other_name, other) {
                    return sum;
                }
            }
        }
        self.step(Form::Plain, &[a, b], node.op_type(), node, |output| FloatBinary {
            inputs: [a, b],
            output,
            operation,
        })
    }

    /// Adds `other` inside the product that gives `id`, if nothing else reads it.
    fn added_to_product(
        &mut self,
        name: &str,
        id: ValueId,
        other_name: &str,
        other: ValueId,
    ) -> Option<ValueId> {
        // More axes than the product has would be axes of the sum.
        let rank = self.rank(name).unwrap_or(1);
        let row = self.net.floats(other_name).filter(|(_, shape)| {
            shape.len() <= 1
                || (shape.len() <= rank && shape[..shape.len() - 1].iter().all(|&d| d == 1))
        });
        let is_constant = self.net.initializer(other_name).is_some();
        let product = self.open_product(name, id)?;
        let columns = product.scale.len();
        let Epilogue::Floats { offset, function, add: None, quantize: None } =
            &mut product.epilogue
        else {
            return None;
        };
        if let Some((values, _)) = row
            && offset.is_none()
            && function.is_none()
            && values.len() == columns
        {
            *offset = Some(values);
            return Some(self.fuse(id, Form::Plain, " + Add"));
        }
        (id != other && !is_constant).then_some(())?;
        let unit = self.values[id.index()].unit?;
        let residual =
            FloatResidual { other, product: self.value(Form::Plain), sum: self.value(Form::Plain) };
        let output = self.fuse(id, Form::Plain, " + Add");
        let unit = &mut self.units[unit];
        unit.inputs.push(other);
        unit.outputs.extend([residual.product, residual.sum]);
        if let AnyStep::Product(product) = &mut unit.step
            && let Epilogue::Floats { add, .. } = &mut product.epilogue
        {
            *add = Some(residual);
        }
        Some(output)
    }
}

fn binary_of(node: &NodeProto) -> Option<Binary> {
    (node.is_onnx() && node.input.len() == 2).then_some(())?;
    Some(match node.op_type() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        _ => return None,
    })
}
