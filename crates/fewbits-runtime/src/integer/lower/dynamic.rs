//! Products of activations that are quantized as they come:
//! DynamicQuantizeLinear → MatMulInteger → Cast → Mul by both scales.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::lower::{Form, Lowering};
use crate::integer::net::IntWeights;
use crate::integer::program::AnyStep;
use crate::integer::state::ValueId;
use crate::integer::steps::product::{Epilogue, Product};
use crate::integer::steps::quantize::DynamicQuantize;

impl<'a> Lowering<'a> {
    /// The float product that the last Mul of the chain gives.
    pub(super) fn dynamic_product(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let [a, b] = node.input.as_slice() else { return None };
        self.dynamic_of(a, b, node).or_else(|| self.dynamic_of(b, a, node))
    }

    fn dynamic_of(
        &mut self,
        sums: &'a str,
        scale: &'a str,
        node: &'a NodeProto,
    ) -> Option<ValueId> {
        let (_, cast) = self.net.producer(sums).filter(|(_, n)| n.is("Cast"))?;
        (cast.int("to", 0) == DataType::Float as i64).then_some(())?;
        let (_, product) =
            self.net.producer(&cast.input[0]).filter(|(_, n)| n.is("MatMulInteger"))?;
        let (_, quantize) = self.net.producer(&product.input[0])?;
        quantize.is("DynamicQuantizeLinear").then_some(())?;
        (product.input.get(2) == quantize.output.get(2)).then_some(())?;
        // The scales: that of the activations, times that of the weights unless it is 1.
        let activations = quantize.output.get(1)?.as_str();
        let weight_scale = if scale == activations {
            vec![1.0]
        } else {
            let (_, mul) = self.net.producer(scale).filter(|(_, n)| n.is("Mul"))?;
            let other = match mul.input.as_slice() {
                [a, b] if a == activations => b,
                [a, b] if b == activations => a,
                _ => return None,
            };
            self.net.floats(other)?.0
        };
        let weights = self.integer_weights(product, weight_scale)?;
        let packed = self.packed(&weights, 1, 1)?;
        let depth = weights.ints.len() / weights.scale.len();
        let sum = |column: &[i16]| -column.iter().map(|&w| i32::from(w)).sum::<i32>();
        let bias = weights.ints.chunks_exact(depth).map(sum).collect();

        let input = self.dynamic_bytes(quantize);
        let output = self.value(Form::Plain);
        let product = Product {
            input,
            output,
            weights: packed,
            conv: None,
            dynamic: true,
            bias,
            scale: weights.scale,
            epilogue: Epilogue::floats(None),
        };
        self.push(AnyStep::Product(Box::new(product)), &[input], output, "MatMulInteger", node);
        Some(output)
    }

    /// The weights of a MatMulInteger, `[depth, columns]`, less their zero point.
    fn integer_weights(&self, node: &NodeProto, scale: Vec<f32>) -> Option<IntWeights> {
        let tensor = self.net.initializer(node.input.get(1)?)?;
        let eight_bits = matches!(tensor.element_type().ok()?, DataType::Int8 | DataType::Uint8);
        let shape = tensor.shape().ok()?;
        (eight_bits && shape.len() == 2).then_some(())?;
        let (depth, columns) = (shape[0], shape[1]);
        let zero_points = match node.input.get(3).map_or("", String::as_str) {
            "" => vec![0],
            name => self.net.initializer(name)?.ints().ok()?,
        };
        let values = tensor.ints().ok()?;
        let mut ints = vec![0i16; values.len()];
        for (i, value) in values.into_iter().enumerate() {
            let (k, column) = (i / columns, i % columns);
            let zero_point = zero_points.get(if zero_points.len() == 1 { 0 } else { column })?;
            let int = value - zero_point;
            (-256..=254).contains(&int).then_some(())?;
            ints[column * depth + k] = int as i16;
        }
        let scale = super::product::spread(scale, columns)?;
        Some(IntWeights { ints, scale, shape })
    }

    fn dynamic_bytes(&mut self, node: &'a NodeProto) -> ValueId {
        let name = node.output[0].as_str();
        if let Some(&id) = self.dynamic.get(name) {
            return id;
        }
        let input = self.tensor(&node.input[0]);
        let what = "DynamicQuantizeLinear";
        let id = self
            .step(Form::Plain, &[input], what, node, |output| DynamicQuantize { input, output });
        self.dynamic.insert(name, id);
        id
    }
}
