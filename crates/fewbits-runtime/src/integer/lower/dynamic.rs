//! Products of activations that are quantized as they come:
//! DynamicQuantizeLinear → MatMulInteger or ConvInteger → Cast → Mul by both scales, and the Add of a
//! convolution's bias.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::lower::product::{Moves, spread};
use crate::integer::lower::{Form, Lowering};
use crate::integer::net::{Axis, IntWeights};
use crate::integer::program::AnyStep;
use crate::integer::state::{Shape, ValueId};
use crate::integer::steps::product::{Conv, Epilogue, Product};
use crate::integer::steps::quantize::DynamicQuantize;

/// Columns that a kernel computes together.
const TOGETHER: usize = 16;

/// What a Mul gives that stands at the end of such a chain.
struct Chain<'a> {
    quantize: &'a NodeProto,
    /// A MatMulInteger or ConvInteger.
    product: &'a NodeProto,
    weights: IntWeights,
}

impl<'a> Lowering<'a> {
    /// The float product that the last Mul of the chain gives.
    pub(super) fn dynamic_product(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let chain = self.chain(node)?;
        match chain.product.is("ConvInteger") {
            true => self.dynamic_convolution(chain, None, node),
            false => self.dynamic_matrix(chain, node),
        }
    }

    /// A convolution and the Add of its bias.
    pub(super) fn dynamic_convolution_with_bias(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let [a, b] = node.input.as_slice() else { return None };
        self.with_bias(a, b, node).or_else(|| self.with_bias(b, a, node))
    }

    fn with_bias(&mut self, sums: &'a str, bias: &str, node: &'a NodeProto) -> Option<ValueId> {
        let (_, mul) = self.net.producer(sums).filter(|(_, n)| n.is("Mul"))?;
        self.net.has_one_use(sums).then_some(())?;
        let chain = self.chain(mul).filter(|chain| chain.product.is("ConvInteger"))?;
        let rank = chain.weights.shape.len();
        let bias = self.of_columns(bias, chain.weights.scale.len(), rank, rank.checked_sub(2)?)?;
        self.dynamic_convolution(chain, Some(bias), node)
    }

    fn chain(&self, mul: &NodeProto) -> Option<Chain<'a>> {
        let [a, b] = mul.input.as_slice() else { return None };
        self.chain_of(a, b).or_else(|| self.chain_of(b, a))
    }

    fn chain_of(&self, sums: &str, scale: &str) -> Option<Chain<'a>> {
        let (_, cast) = self.net.producer(sums).filter(|(_, n)| n.is("Cast"))?;
        (cast.int("to", 0) == DataType::Float as i64).then_some(())?;
        let (_, product) = self.net.producer(cast.input.first()?)?;
        let is_convolution = product.is("ConvInteger");
        (is_convolution || product.is("MatMulInteger")).then_some(())?;
        let (_, quantize) = self.net.producer(product.input.first()?)?;
        quantize.is("DynamicQuantizeLinear").then_some(())?;
        (product.input.get(2) == quantize.output.get(2)).then_some(())?;
        let mut weights = match is_convolution {
            true => self.integer_weights(product, Axis::First)?,
            false => self.integer_weights(product, Axis::Last)?,
        };
        // The scales: that of the activations, times that of the weights unless it is 1.
        let activations = quantize.output.get(1)?.as_str();
        if scale != activations {
            let (_, mul) = self.net.producer(scale).filter(|(_, n)| n.is("Mul"))?;
            let other = match mul.input.as_slice() {
                [a, b] if a == activations => b,
                [a, b] if b == activations => a,
                _ => return None,
            };
            let rank = weights.shape.len();
            let (rank, behind) = match is_convolution {
                true => (rank, rank.checked_sub(2)?),
                false => {
                    (self.ranks.get(product.output.first()?.as_str()).copied().unwrap_or(1), 0)
                }
            };
            weights.scale = self.of_columns(other, weights.scale.len(), rank, behind)?;
        }
        Some(Chain { quantize, product, weights })
    }

    fn dynamic_matrix(&mut self, chain: Chain<'a>, node: &'a NodeProto) -> Option<ValueId> {
        let Chain { quantize, weights, .. } = chain;
        (weights.shape.len() == 2).then_some(())?;
        let packed = self.packed(&weights, 1, 1)?;
        let input = self.dynamic_bytes(quantize, Form::Plain);
        let output = self.value(Form::Plain);
        let product = Product {
            input,
            output,
            weights: packed,
            conv: None,
            dynamic: true,
            bias: negative_sums(&weights),
            scale: weights.scale,
            epilogue: Epilogue::floats(None),
        };
        self.push(AnyStep::Product(Box::new(product)), &[input], output, "MatMulInteger", node);
        Some(output)
    }

    fn dynamic_convolution(
        &mut self,
        chain: Chain<'a>,
        offset: Option<Vec<f32>>,
        node: &'a NodeProto,
    ) -> Option<ValueId> {
        let Chain { quantize, product, weights } = chain;
        let what = if offset.is_some() { "ConvInteger + Add" } else { "ConvInteger" };
        let mut moves = Moves::new(product, &weights)?;
        let (bias, scale) = (negative_sums(&weights), weights.scale.clone());
        let halo = moves.halo();
        let weights = joined_groups(weights, &mut moves);
        let (weights, conv) = self.packed_windows(weights, moves)?;
        let input = self.dynamic_bytes(quantize, Form::Image);
        self.widen_halo(input, halo);
        let (output, pixels) = (self.value(Form::Plain), self.value(Form::Plain));
        let product = Product {
            input,
            output,
            weights,
            conv: Some(Conv { pixels: Some(pixels), ..conv }),
            dynamic: true,
            bias,
            scale,
            epilogue: Epilogue::floats(offset),
        };
        self.push(AnyStep::Product(Box::new(product)), &[input], output, what, node);
        if let Some(unit) = self.units.last_mut() {
            unit.outputs.push(pixels);
        }
        Some(output)
    }

    /// The weights of a MatMulInteger or ConvInteger, less their zero point and with scale 1.
    pub(super) fn integer_weights(&self, node: &NodeProto, axis: Axis) -> Option<IntWeights> {
        let tensor = self.net.initializer(node.input.get(1)?)?;
        let eight_bits = matches!(tensor.element_type().ok()?, DataType::Int8 | DataType::Uint8);
        let shape = tensor.shape().ok()?;
        (eight_bits && shape.len() >= 2).then_some(())?;
        let columns = match axis {
            Axis::First => shape[0],
            Axis::Last => shape[shape.len() - 1],
        };
        let values = tensor.ints().ok()?;
        let depth = values.len().checked_div(columns)?;
        let zero_points = match node.input.get(3).map_or("", String::as_str) {
            "" => vec![0],
            name => self.net.initializer(name)?.ints().ok()?,
        };
        let zero_points = spread(zero_points, columns)?;
        let mut ints = vec![0i16; values.len()];
        for (i, value) in values.into_iter().enumerate() {
            let (k, column) = match axis {
                Axis::First => (i % depth, i / depth),
                Axis::Last => (i / columns, i % columns),
            };
            let int = value - zero_points[column];
            (-256..=254).contains(&int).then_some(())?;
            ints[column * depth + k] = int as i16;
        }
        Some(IntWeights { ints, scale: vec![1.0; columns], shape })
    }

    /// A constant float for each column from a constant of one for each or one for all, which meets
    /// a product of `rank` axes, `behind` of them behind the columns.
    fn of_columns(
        &self,
        name: &str,
        columns: usize,
        rank: usize,
        behind: usize,
    ) -> Option<Vec<f32>> {
        let (values, shape) = self.net.floats(name).or_else(|| self.floats_of_new_shape(name))?;
        let of_columns = shape.len().checked_sub(behind + 1);
        let fits = shape.len() <= rank
            && shape.iter().enumerate().all(|(axis, &d)| d == 1 || Some(axis) == of_columns);
        fits.then(|| spread(values, columns)).flatten()
    }

    /// Constant floats behind a Reshape, as quantizers write a bias.
    fn floats_of_new_shape(&self, name: &str) -> Option<(Vec<f32>, Vec<usize>)> {
        let (_, node) = self.net.producer(name).filter(|(_, n)| n.is_onnx())?;
        let (values, shape) = self.net.floats(node.input.first()?)?;
        let shape = self.new_shape(node)?.of(Shape::new(&shape)?).ok()?;
        Some((values, shape.dims().to_vec()))
    }

    fn dynamic_bytes(&mut self, node: &'a NodeProto, form: Form) -> ValueId {
        let key = (node.output[0].as_str(), form);
        if let Some(&id) = self.dynamic.get(&key) {
            return id;
        }
        let input = self.tensor(&node.input[0]);
        let what = "DynamicQuantizeLinear";
        let id =
            self.step(form, &[input], what, node, |output| DynamicQuantize { input, output, form });
        self.dynamic.insert(key, id);
        id
    }
}

/// The sum of each column with its sign changed: times the zero point of the activations, what that
/// added to a product.
fn negative_sums(weights: &IntWeights) -> Vec<i32> {
    let depth = weights.ints.len() / weights.scale.len().max(1);
    let sum = |column: &[i16]| -column.iter().map(|&w| i32::from(w)).sum::<i32>();
    weights.ints.chunks_exact(depth.max(1)).map(sum).collect()
}

/// Groups of few filters side by side, with zeros between them: a kernel computes so many columns at
/// once that most would be empty.
fn joined_groups(weights: IntWeights, moves: &mut Moves) -> IntWeights {
    let groups = moves.groups;
    let filters = weights.shape[0] / groups;
    let fit = |count: &usize| count * filters <= TOGETHER && groups.is_multiple_of(*count);
    let Some(count) = (2..=TOGETHER).rev().find(fit) else { return weights };
    let depth = weights.ints.len() / weights.shape[0].max(1);
    let mut ints = vec![0; weights.ints.len() * count];
    let columns = weights.ints.chunks_exact(depth.max(1));
    for (filter, (from, to)) in
        columns.zip(ints.chunks_exact_mut((depth * count).max(1))).enumerate()
    {
        let place = filter / filters.max(1) % count;
        to[place * depth..][..depth].copy_from_slice(from);
    }
    moves.groups /= count;
    let mut shape = weights.shape;
    shape[1] *= count;
    IntWeights { ints, scale: weights.scale, shape }
}
