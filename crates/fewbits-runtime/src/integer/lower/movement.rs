//! Nodes that move elements and leave them as they are.

use fewbits_kernels::bytes::QuantizeTo;
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::{Bytes, Form, Lowering};
use crate::integer::program::AnyStep;
use crate::integer::state::ValueId;
use crate::integer::steps::movement::{Concat, NewShape, Reshape, Transpose};

impl<'a> Lowering<'a> {
    /// The bytes that a node gives which only moves bytes.
    pub(super) fn moved(&mut self, node: &'a NodeProto) -> Option<Bytes> {
        if !node.is_onnx() {
            return None;
        }
        match node.op_type() {
            "MaxPool" => return self.max_pool(node),
            "Transpose" => {
                let permutation = permutation(node)?;
                let bytes = self.source(node.input.first()?)?;
                let input = self.in_form(bytes, Form::Plain, node);
                let id = self.step(Form::Plain, &[input], "Transpose", node, |output| Transpose {
                    input,
                    output,
                    permutation,
                    element_bytes: 1,
                });
                return Some(Bytes { id, ..bytes });
            }
            _ => {}
        }
        let to = self.new_shape(node)?;
        let bytes = self.source(node.input.first()?)?;
        let input = self.in_form(bytes, Form::Plain, node);
        Some(Bytes { id: self.reshape(input, to, node), ..bytes })
    }

    pub(super) fn reshape(&mut self, input: ValueId, to: NewShape, node: &NodeProto) -> ValueId {
        let output = self.value(Form::Plain);
        let step = AnyStep::Other(Box::new(Reshape { input, output, to }));
        self.push(step, &[input], output, node.op_type(), node);
        if let Some(unit) = self.units.last_mut() {
            unit.shares_memory = true;
        }
        output
    }

    /// What a node that only changes the shape makes of it, if that is constant.
    pub(super) fn new_shape(&self, node: &NodeProto) -> Option<NewShape> {
        let axes = |i: usize| match node.input.get(i) {
            Some(name) => self.net.ints(name),
            None => Some(node.ints("axes").to_vec()),
        };
        Some(match node.op_type() {
            "Identity" => NewShape::Same,
            "Flatten" => NewShape::Flatten { axis: node.int("axis", 1) },
            "Reshape" => NewShape::Dims {
                dims: self.net.ints(node.input.get(1)?)?,
                zero: node.int("allowzero", 0) == 0,
            },
            "Squeeze" => NewShape::Squeeze { axes: axes(1)? },
            "Unsqueeze" => NewShape::Unsqueeze { axes: axes(1)? },
            _ => return None,
        })
    }

    /// A Concat of bytes.
    pub(super) fn concat(&mut self, node: &'a NodeProto, to: QuantizeTo) -> Option<ValueId> {
        let axis = node.attr("axis")?.i();
        let bytes: Vec<Bytes> =
            node.input.iter().map(|name| self.source(name)).collect::<Option<_>>()?;
        let image = axis == 1 && bytes.iter().any(|b| self.form(b.id) == Form::Image);
        let form = if image { Form::Image } else { Form::Plain };
        let mut inputs = Vec::new();
        for from in bytes {
            let id = self.requantized(from, to, node);
            let mut ty = from.ty;
            (ty.scale.scale, ty.scale.zero_point) = (to.scale, to.zero_point);
            inputs.push(self.in_form(Bytes { id, ty }, form, node));
        }
        let halo = to.zero_point;
        let parts = inputs.clone();
        Some(self.step(form, &inputs, "Concat", node, |output| Concat {
            inputs: parts,
            output,
            axis,
            form,
            halo,
            element_bytes: 1,
        }))
    }
}

/// The permutation of a Transpose; `None` if it is left to the rank, which is not known here.
pub(super) fn permutation(node: &NodeProto) -> Option<Vec<usize>> {
    let permutation: Vec<usize> =
        node.ints("perm").iter().map(|&p| usize::try_from(p).ok()).collect::<Option<_>>()?;
    (!permutation.is_empty()).then_some(permutation)
}
