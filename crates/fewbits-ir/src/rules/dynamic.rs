//! The chain that is a product of dynamically quantized activations:
//! DynamicQuantizeLinear → MatMulInteger or ConvInteger → Cast → Mul by both scales.

use std::sync::Arc;

use fewbits_onnx::proto::{DataType, NodeProto};
use fewbits_quant::{Encoding, Granularity, Layout as Params, PackedInts, QTensor, QuantParams};

use crate::lower::Lowering;
use crate::op::{Op, OutputAxis, Weights};
use crate::program::{Layout, Quantization, Value, ValueId};
use crate::refusal::Refusal;
use crate::rules::matrix::spread;
use crate::shape::Shape;

/// What a Mul gives that stands at the end of such a chain.
pub(crate) struct Chain<'a> {
    /// Where its DynamicQuantizeLinear is.
    pub start: usize,
    pub quantize: &'a NodeProto,
    /// A MatMulInteger or ConvInteger.
    pub product: &'a NodeProto,
    pub weights: Weights,
    /// Of the weights, for each output.
    pub scale: Vec<f32>,
}

/// A DynamicQuantizeLinear, with its position, and a product that reads it.
type Start<'a> = (usize, &'a NodeProto, &'a NodeProto);

impl<'a> Lowering<'a> {
    /// Finds the chain at whose end a Mul stands.
    pub(crate) fn chain(&self, mul: &'a NodeProto) -> Result<Chain<'a>, Refusal> {
        let [a, b] = mul.input.as_slice() else { return Err(Refusal::other()) };
        let chains = [(a, b), (b, a)].into_iter();
        let mut chains = chains.filter_map(|(sums, scale)| Some((self.start_of(sums)?, scale)));
        let (start, scale) = chains.next().ok_or(Refusal::other())?;
        let (position, _, product) = start;
        self.chain_of(start, scale).map_err(|refusal| refusal.of_both(position, product))
    }

    /// Finds the DynamicQuantizeLinear and the product whose sums are cast to floats.
    fn start_of(&self, sums: &str) -> Option<Start<'a>> {
        let (_, cast) = self.view.producer(sums).filter(|(_, n)| n.is("Cast"))?;
        let (_, product) = self.view.producer(cast.input.first()?)?;
        let is_product = product.is("ConvInteger") || product.is("MatMulInteger");
        let (start, quantize) = self.view.producer(product.input.first()?)?;
        let fits = cast.int("to", 0) == DataType::Float as i64
            && is_product
            && quantize.is("DynamicQuantizeLinear")
            && product.input.get(2) == quantize.output.get(2);
        fits.then_some((start, quantize, product))
    }

    fn chain_of(
        &self,
        (start, quantize, product): Start<'a>,
        scale: &str,
    ) -> Result<Chain<'a>, Refusal> {
        let is_convolution = product.is("ConvInteger");
        let outputs = if is_convolution { OutputAxis::First } else { OutputAxis::Last };
        let why = "it has no constant weights of 8 bits";
        let weights = self.integer_weights(product, outputs).ok_or(Refusal::of_node(why))?;
        // The scales: that of the activations, times that of the weights unless it is 1.
        let columns = weights.columns();
        let mut weight_scale = vec![1.0; columns];
        let activations = quantize.output.get(1).map_or("", String::as_str);
        if scale != activations {
            let mul = self.view.producer(scale).filter(|(_, n)| n.is("Mul"));
            let other = mul.and_then(|(_, mul)| match mul.input.as_slice() {
                [a, b] if a == activations => Some(b),
                [a, b] if b == activations => Some(a),
                _ => None,
            });
            let rank = weights.tensor.layout().shape().len();
            let (rank, behind) = match is_convolution {
                true => (rank, rank.saturating_sub(2)),
                false => (self.rank(&product.output[0]).unwrap_or(1), 0),
            };
            let scale = other.and_then(|other| self.of_columns(other, columns, rank, behind));
            let why = "its sums are not scaled by the scale of activations and constants, one for \
                       each column";
            weight_scale = scale.ok_or(Refusal::of_node(why))?;
        }
        Ok(Chain { start, quantize, product, weights, scale: weight_scale })
    }

    /// The weights of a MatMulInteger or ConvInteger, with scale 1.
    fn integer_weights(&self, node: &NodeProto, outputs: OutputAxis) -> Option<Weights> {
        let tensor = self.view.initializer(node.input.get(1)?)?;
        let shift = match tensor.element_type().ok()? {
            DataType::Int8 => 128,
            DataType::Uint8 => 0,
            _ => return None,
        };
        let shape = tensor.shape().ok()?;
        (shape.len() >= 2).then_some(())?;
        let axis = match outputs {
            OutputAxis::First => 0,
            OutputAxis::Last => shape.len() - 1,
        };
        let zero_points = match node.input.get(3).map_or("", String::as_str) {
            "" => vec![0],
            name => self.view.initializer(name)?.ints().ok()?,
        };
        let zero_points = spread(zero_points, shape[axis])?;
        // Unsigned, as zero points are.
        let unsigned = |values: Vec<i64>| -> Option<Vec<i16>> {
            values.into_iter().map(|v| u8::try_from(v + shift).ok().map(i16::from)).collect()
        };
        let codes = PackedInts::pack(&unsigned(tensor.ints().ok()?)?, 8, Encoding::Unsigned);
        let zero_point = unsigned(zero_points)?.into_iter().map(|z| z as u8).collect();
        let params = QuantParams { scale: vec![1.0; shape[axis]], zero_point };
        let layout = Params::new(&shape, Granularity::Channel { axis }).ok()?;
        let tensor = Arc::new(QTensor::new(layout, params, codes)?);
        Some(Weights { tensor, outputs })
    }

    /// A constant float for each column from a constant of one for each or one for all, which meets
    /// a product of `rank` axes, `behind` of them behind the columns.
    pub(crate) fn of_columns(
        &self,
        name: &str,
        columns: usize,
        rank: usize,
        behind: usize,
    ) -> Option<Vec<f32>> {
        let (values, shape) = self.view.floats(name).or_else(|| self.floats_of_new_shape(name))?;
        let of_columns = shape.len().checked_sub(behind + 1);
        let fits = shape.len() <= rank
            && shape.iter().enumerate().all(|(axis, &d)| d == 1 || Some(axis) == of_columns);
        fits.then(|| spread(values, columns)).flatten()
    }

    /// Constant floats behind a Reshape, as quantizers write a bias.
    fn floats_of_new_shape(&self, name: &str) -> Option<(Vec<f32>, Vec<usize>)> {
        let (_, node) = self.view.producer(name).filter(|(_, n)| n.is_onnx())?;
        let (values, shape) = self.view.floats(node.input.first()?)?;
        let shape = self.new_shape(node).ok()?.of(Shape::new(&shape).ok()?).ok()?;
        Some((values, shape.dims().to_vec()))
    }

    /// The bytes that a DynamicQuantizeLinear gives, in this layout.
    pub(crate) fn dynamic_bytes(&mut self, node: &'a NodeProto, layout: Layout) -> ValueId {
        let key = (node.output[0].as_str(), layout.is_channels_last());
        if let Some(&id) = self.dynamic.get(&key) {
            return id;
        }
        let input = self.tensor(&node.input[0]);
        let quantization = Some(Quantization::Dynamic);
        let output = Value { layout, quantization, ..Value::default() };
        let id = self.step(output, &[input], "DynamicQuantizeLinear", node, Op::DynamicQuantize);
        self.dynamic.insert(key, id);
        id
    }
}
