//! Products of bytes that end in int32: MatMulInteger and ConvInteger that are no part of a chain which ends in floats.

use std::collections::HashSet;

use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::{Form, Lowering};
use crate::integer::schedule::constant_tensor;
use crate::integer::state::ValueId;
use crate::integer::steps::integer_product::convolution::{IntegerConvolution, Moves, Padding};
use crate::integer::steps::integer_product::matrices::{Matrices, MatrixProduct, Right};

impl<'a> Lowering<'a> {
    /// Chooses the products of bytes that become our own steps: all that depend on an input.
    pub(crate) fn choose_integer_products(&mut self, constant: &HashSet<usize>) {
        let is_product = |node: &NodeProto| node.is("MatMulInteger") || node.is("ConvInteger");
        let nodes = self.net.graph.node.iter().enumerate();
        let products = nodes.filter(|(at, node)| is_product(node) && !constant.contains(at));
        self.integer_products = products.map(|(at, _)| at).collect();
    }

    /// The int32 sums that a MatMulInteger or ConvInteger gives.
    pub(super) fn integer_product(&mut self, name: &str, node: &'a NodeProto) -> Option<ValueId> {
        let (position, _) = self.net.producer(name)?;
        self.integer_products.contains(&position).then_some(())?;
        match node.is("ConvInteger") {
            true => self.integer_convolution(node),
            false => self.matrix_product(node),
        }
    }

    fn matrix_product(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let constant = self.net.initializer(node.input.get(1)?);
        let right = match constant.and_then(|tensor| constant_tensor(tensor).ok().flatten()) {
            Some(tensor) => Right::Constant(Matrices::new(self.cpu, &tensor).ok()?),
            None => Right::Computed(self.tensor(&node.input[1])),
        };
        let left = self.tensor(node.input.first()?);
        let [left_zero, right_zero] = [2, 3].map(|at| self.given(node, at));
        let read = |id: &Right| match id {
            Right::Computed(id) => Some(*id),
            Right::Constant(_) => None,
        };
        let all = [Some(left), read(&right), left_zero, right_zero];
        let inputs: Vec<ValueId> = all.into_iter().flatten().collect();
        Some(self.step(Form::Plain, &inputs, "MatMulInteger", node, |output| MatrixProduct {
            left,
            left_zero,
            right,
            right_zero,
            output,
        }))
    }

    fn integer_convolution(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let sizes = |name: &str| -> Option<Vec<usize>> {
            node.ints(name).iter().map(|&v| usize::try_from(v).ok()).collect()
        };
        let padding = match node.string("auto_pad", "NOTSET").as_str() {
            "NOTSET" | "" => Padding::Given(sizes("pads")?),
            "VALID" => Padding::Given(Vec::new()),
            "SAME_UPPER" => Padding::SameUpper,
            "SAME_LOWER" => Padding::SameLower,
            _ => return None,
        };
        let moves = Moves {
            padding,
            strides: sizes("strides")?,
            dilations: sizes("dilations")?,
            groups: usize::try_from(node.int("group", 1)).ok()?,
        };
        let (images, filters) = (node.input.first()?, node.input.get(1)?);
        let (images, filters) = (self.tensor(images), self.tensor(filters));
        let [images_zero, filters_zero] = [2, 3].map(|at| self.given(node, at));
        let all = [Some(images), Some(filters), images_zero, filters_zero];
        let inputs: Vec<ValueId> = all.into_iter().flatten().collect();
        Some(self.step(Form::Plain, &inputs, "ConvInteger", node, |output| IntegerConvolution {
            images,
            images_zero,
            filters,
            filters_zero,
            moves,
            output,
        }))
    }

    /// An input that may be absent.
    fn given(&mut self, node: &'a NodeProto, at: usize) -> Option<ValueId> {
        let name = node.input.get(at).filter(|name| !name.is_empty())?;
        Some(self.tensor(name))
    }
}
