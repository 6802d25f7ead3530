//! Nodes that move elements and leave them as they are.

use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::rules::{Rewrite, Wanted};
use crate::integer::lower::{Bytes, Form, Lowering};
use crate::integer::program::AnyStep;
use crate::integer::refusal::{Refusal, only};
use crate::integer::state::ValueId;
use crate::integer::steps::movement::{Concat, NewShape, Reshape, Transpose};

/// The operators that only change a shape.
pub(super) const VIEWS: [&str; 5] = ["Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze"];

impl<'a> Lowering<'a> {
    /// The bytes that a node gives which only moves bytes.
    pub(super) fn moved(&mut self, node: &'a NodeProto) -> Result<Bytes, Refusal> {
        if node.is("MaxPool") {
            return self.max_pool(node);
        }
        if node.is("Transpose") {
            let permutation = permutation(node)?;
            let bytes = self.source(&node.input[0])?;
            let input = self.in_form(bytes, Form::Plain, node);
            let id = self.step(Form::Plain, &[input], "Transpose", node, |output| Transpose {
                input,
                output,
                permutation,
                element_bytes: 1,
            });
            return Ok(Bytes { id, ..bytes });
        }
        let to = self.new_shape(node)?;
        let bytes = self.source(&node.input[0])?;
        let input = self.in_form(bytes, Form::Plain, node);
        Ok(Bytes { id: self.reshape(input, to, node), ..bytes })
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
    pub(super) fn new_shape(&self, node: &NodeProto) -> Result<NewShape, Refusal> {
        only(&VIEWS, node)?;
        let given = |i: usize| {
            let ints = node.input.get(i).and_then(|name| self.net.ints(name));
            ints.ok_or(Refusal::of_node("the new shape is not constant"))
        };
        let axes = || match node.input.len() {
            0 | 1 => Ok(node.ints("axes").to_vec()),
            _ => given(1),
        };
        Ok(match node.op_type() {
            "Identity" => NewShape::Same,
            "Flatten" => NewShape::Flatten { axis: node.int("axis", 1) },
            "Reshape" => NewShape::Dims { dims: given(1)?, zero: node.int("allowzero", 0) == 0 },
            "Squeeze" => NewShape::Squeeze { axes: axes()? },
            _ => NewShape::Unsqueeze { axes: axes()? },
        })
    }

    /// Gives floats another shape.
    pub(super) fn float_view(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let to = self.new_shape(node)?;
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(&node.input[0]);
            lowering.reshape(input, to, node)
        }))
    }

    /// Transposes floats: inside the product before it, if that can write them so.
    pub(super) fn float_transpose(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["Transpose"], node)?;
        let permutation = permutation(node)?;
        Ok(Box::new(move |lowering| {
            if let Some(id) = lowering.transposed_product(&node.input[0], &permutation) {
                return id;
            }
            let input = lowering.tensor(&node.input[0]);
            lowering.step(Form::Plain, &[input], "Transpose", node, |output| Transpose {
                input,
                output,
                permutation,
                element_bytes: 4,
            })
        }))
    }

    /// Joins floats along an axis.
    pub(super) fn float_concat(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let axis = concat_axis(node)?;
        Ok(Box::new(move |lowering| {
            let inputs: Vec<ValueId> = node.input.iter().map(|n| lowering.tensor(n)).collect();
            let parts = inputs.clone();
            lowering.step(Form::Plain, &inputs, "Concat", node, |output| Concat {
                inputs: parts,
                output,
                axis,
                form: Form::Plain,
                halo: 0,
                element_bytes: 4,
            })
        }))
    }

    /// Joins bytes along an axis.
    pub(super) fn concat(&mut self, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
        let (node, to) = (wanted.node, wanted.to);
        let axis = concat_axis(node)?;
        let bytes: Vec<Bytes> =
            node.input.iter().map(|name| self.source(name)).collect::<Result<_, _>>()?;
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
        Ok(self.step(form, &inputs, "Concat", node, |output| Concat {
            inputs: parts,
            output,
            axis,
            form,
            halo,
            element_bytes: 1,
        }))
    }
}

fn concat_axis(node: &NodeProto) -> Result<i64, Refusal> {
    only(&["Concat"], node)?;
    Ok(node.attr("axis").ok_or(Refusal::of_node("it has no axis"))?.i())
}

/// The permutation of a Transpose, unless it is left to the rank, which is not known here.
pub(super) fn permutation(node: &NodeProto) -> Result<Vec<usize>, Refusal> {
    let permutation: Option<Vec<usize>> =
        node.ints("perm").iter().map(|&p| usize::try_from(p).ok()).collect();
    permutation.filter(|p| !p.is_empty()).ok_or(Refusal::of_node("it has no perm"))
}
