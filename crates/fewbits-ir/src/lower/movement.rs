//! Nodes that move elements and leave them as they are.

use fewbits_kernels::Halo;
use fewbits_onnx::proto::NodeProto;

use crate::lower::window::pool_window;
use crate::lower::{Bytes, Lowering, bytes};
use crate::op::{BytesPool, NewShape, Op, Transpose};
use crate::program::{Layout, Value, ValueId};
use crate::refusal::{Refusal, only};

/// The operators that only change a shape.
pub(crate) const VIEWS: [&str; 5] = ["Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze"];

impl<'a> Lowering<'a> {
    /// The bytes that a node gives which only moves bytes.
    pub(crate) fn moved(&mut self, node: &'a NodeProto) -> Result<Bytes, Refusal> {
        if node.is("MaxPool") {
            return self.max_pool(node);
        }
        if node.is("Transpose") {
            let permutation = permutation(node)?;
            let from = self.source(&node.input[0])?;
            let input = self.in_layout(from, Layout::RowMajor, node);
            let output = bytes(from.ty.scale, Layout::RowMajor);
            let op = Op::Transpose(Transpose { permutation });
            let id = self.step(output, &[input], "Transpose", node, op);
            return Ok(Bytes { id, ..from });
        }
        let to = self.new_shape(node)?;
        let from = self.source(&node.input[0])?;
        let input = self.in_layout(from, Layout::RowMajor, node);
        Ok(Bytes { id: self.reshape(input, to, node), ..from })
    }

    /// Computes a MaxPool of bytes, which leaves scales alone.
    fn max_pool(&mut self, node: &'a NodeProto) -> Result<Bytes, Refusal> {
        let window = pool_window(node)?;
        let from = self.source(&node.input[0])?;
        let input = self.as_image(from, Halo::default(), node);
        let zero_point = from.ty.scale.zero_point;
        let op = Op::BytesPool(BytesPool::Max { window, zero_point });
        let id = self.step(bytes(from.ty.scale, Layout::IMAGES), &[input], "MaxPool", node, op);
        Ok(Bytes { id, ..from })
    }

    /// Gives a value another shape.
    pub(crate) fn reshape(&mut self, input: ValueId, to: NewShape, node: &NodeProto) -> ValueId {
        let quantization = self.values[input.index()].quantization;
        let output = Value { quantization, ..Value::default() };
        self.step(output, &[input], node.op_type(), node, Op::Reshape(to))
    }

    /// What a node that only changes the shape makes of it, if that is constant.
    pub(crate) fn new_shape(&self, node: &NodeProto) -> Result<NewShape, Refusal> {
        only(&VIEWS, node)?;
        let given = |i: usize| {
            let ints = node.input.get(i).and_then(|name| self.view.ints(name));
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
}

/// The permutation of a Transpose, unless it is left to the rank, which is not known here.
pub(crate) fn permutation(node: &NodeProto) -> Result<Vec<usize>, Refusal> {
    let permutation: Option<Vec<usize>> =
        node.ints("perm").iter().map(|&p| usize::try_from(p).ok()).collect();
    permutation.filter(|p| !p.is_empty()).ok_or(Refusal::of_node("it has no perm"))
}
