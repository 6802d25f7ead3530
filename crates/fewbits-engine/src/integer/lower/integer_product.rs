//! Products of bytes that end in int32: MatMulInteger and ConvInteger that are no part of a chain which ends in floats.

use std::collections::HashSet;

use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::refusal::{Refusal, input};
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
    pub(super) fn integer_product(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        if !self.is_among(&self.integer_products, node) {
            return Err(Refusal::other());
        }
        match node.is("ConvInteger") {
            true => integer_convolution(node),
            false => self.matrix_product(node),
        }
    }

    fn matrix_product(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let (left, right) = (input(node, 0)?, input(node, 1)?);
        let constant = self.net.initializer(right);
        let constant = match constant.and_then(|tensor| constant_tensor(tensor).ok().flatten()) {
            Some(tensor) => {
                let why = "its constant factor is no matrix of 8-bit integers";
                Some(Matrices::new(self.cpu, &tensor).map_err(|_| Refusal::of_node(why))?)
            }
            None => None,
        };
        Ok(Box::new(move |lowering| {
            let right = match constant {
                Some(matrices) => Right::Constant(matrices),
                None => Right::Computed(lowering.tensor(right)),
            };
            let left = lowering.tensor(left);
            let [left_zero, right_zero] = [2, 3].map(|at| lowering.given(node, at));
            let read = match right {
                Right::Computed(id) => Some(id),
                Right::Constant(_) => None,
            };
            let all = [Some(left), read, left_zero, right_zero];
            let inputs: Vec<ValueId> = all.into_iter().flatten().collect();
            lowering.step(Form::Plain, &inputs, "MatMulInteger", node, |output| MatrixProduct {
                left,
                left_zero,
                right,
                right_zero,
                output,
            })
        }))
    }

    /// An input that may be absent.
    fn given(&mut self, node: &'a NodeProto, at: usize) -> Option<ValueId> {
        let name = node.given_input(at)?;
        Some(self.tensor(name))
    }
}

fn integer_convolution<'a>(node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let sizes = |name: &str| -> Result<Vec<usize>, Refusal> {
        let sizes = node.ints(name).iter().map(|&v| usize::try_from(v).ok()).collect();
        Option::ok_or(sizes, Refusal::of_node(format!("its {name} are negative")))
    };
    let padding = match node.string("auto_pad", "NOTSET").as_str() {
        "NOTSET" | "" => Padding::Given(sizes("pads")?),
        "VALID" => Padding::Given(Vec::new()),
        "SAME_UPPER" => Padding::SameUpper,
        "SAME_LOWER" => Padding::SameLower,
        other => return Err(Refusal::of_node(format!("auto_pad is {other}"))),
    };
    let groups = usize::try_from(node.int("group", 1));
    let moves = Moves {
        padding,
        strides: sizes("strides")?,
        dilations: sizes("dilations")?,
        groups: groups.map_err(|_| Refusal::of_node("its groups are negative"))?,
    };
    let (images, filters) = (input(node, 0)?, input(node, 1)?);
    Ok(Box::new(move |lowering| {
        let (images, filters) = (lowering.tensor(images), lowering.tensor(filters));
        let [images_zero, filters_zero] = [2, 3].map(|at| lowering.given(node, at));
        let all = [Some(images), Some(filters), images_zero, filters_zero];
        let inputs: Vec<ValueId> = all.into_iter().flatten().collect();
        lowering.step(Form::Plain, &inputs, "ConvInteger", node, |output| IntegerConvolution {
            images,
            images_zero,
            filters,
            filters_zero,
            moves,
            output,
        })
    }))
}
