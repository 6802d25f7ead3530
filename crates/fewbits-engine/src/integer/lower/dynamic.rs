//! Products of activations that are quantized as they come:
//! DynamicQuantizeLinear → MatMulInteger or ConvInteger → Cast → Mul by both scales, and the Add of a
//! convolution's bias.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::lower::product::{Moves, spread};
use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::net::{Axis, IntWeights};
use crate::integer::program::AnyStep;
use crate::integer::refusal::{Refusal, check, only};
use crate::integer::state::{Shape, ValueId};
use crate::integer::steps::product::{Conv, Epilogue, Product};
use crate::integer::steps::quantize::DynamicQuantize;

/// Columns that a kernel computes together.
const TOGETHER: usize = 16;

/// What a Mul gives that stands at the end of such a chain.
struct Chain<'a> {
    /// Where its DynamicQuantizeLinear is.
    start: usize,
    quantize: &'a NodeProto,
    /// A MatMulInteger or ConvInteger.
    product: &'a NodeProto,
    weights: IntWeights,
}

/// A DynamicQuantizeLinear, with its position, and a product that reads it.
type Start<'a> = (usize, &'a NodeProto, &'a NodeProto);

impl<'a> Lowering<'a> {
    /// Computes the float product that the last Mul of the chain gives.
    pub(super) fn dynamic_product(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["Mul"], node)?;
        let found = self.chain(node)?;
        let (start, product) = (found.start, found.product);
        let rewrite = match found.product.is("ConvInteger") {
            true => self.dynamic_convolution(found, None, node),
            false => self.dynamic_matrix(found, node),
        };
        rewrite.map_err(|refusal| refusal.of_both(start, product))
    }

    /// Computes a convolution and the Add of its bias.
    pub(super) fn dynamic_convolution_with_bias(
        &self,
        node: &'a NodeProto,
    ) -> Result<Rewrite<'a>, Refusal> {
        only(&["Add"], node)?;
        let [a, b] = node.input.as_slice() else { return Err(Refusal::other()) };
        self.with_bias(a, b, node).or_else(|_| self.with_bias(b, a, node))
    }

    fn with_bias(
        &self,
        sums: &str,
        bias: &str,
        node: &'a NodeProto,
    ) -> Result<Rewrite<'a>, Refusal> {
        let mul =
            self.net.producer(sums).filter(|(_, n)| n.is("Mul") && self.net.has_one_use(sums));
        let (_, mul) = mul.ok_or(Refusal::other())?;
        let found = self.chain(mul)?;
        only(&["ConvInteger"], found.product)?;
        let rank = found.weights.shape.len();
        let columns = found.weights.scale.len();
        let bias = self.of_columns(bias, columns, rank, rank.saturating_sub(2));
        // What is no bias is added to what the chain gives.
        let bias = bias.ok_or(Refusal::other())?;
        self.dynamic_convolution(found, Some(bias), node)
    }

    /// Finds the chain at whose end a Mul stands.
    fn chain(&self, mul: &'a NodeProto) -> Result<Chain<'a>, Refusal> {
        let [a, b] = mul.input.as_slice() else { return Err(Refusal::other()) };
        let chains = [(a, b), (b, a)].into_iter();
        let mut chains = chains.filter_map(|(sums, scale)| Some((self.start_of(sums)?, scale)));
        let (start, scale) = chains.next().ok_or(Refusal::other())?;
        let (position, _, product) = start;
        self.chain_of(start, scale).map_err(|refusal| refusal.of_both(position, product))
    }

    /// Finds the DynamicQuantizeLinear and the product whose sums are cast to floats.
    fn start_of(&self, sums: &str) -> Option<Start<'a>> {
        let (_, cast) = self.net.producer(sums).filter(|(_, n)| n.is("Cast"))?;
        let (_, product) = self.net.producer(cast.input.first()?)?;
        let is_product = product.is("ConvInteger") || product.is("MatMulInteger");
        let (start, quantize) = self.net.producer(product.input.first()?)?;
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
        let axis = if is_convolution { Axis::First } else { Axis::Last };
        let why = "it has no constant weights of 8 bits";
        let mut weights = self.integer_weights(product, axis).ok_or(Refusal::of_node(why))?;
        // The scales: that of the activations, times that of the weights unless it is 1.
        let activations = quantize.output.get(1).map_or("", String::as_str);
        if scale != activations {
            let mul = self.net.producer(scale).filter(|(_, n)| n.is("Mul"));
            let other = mul.and_then(|(_, mul)| match mul.input.as_slice() {
                [a, b] if a == activations => Some(b),
                [a, b] if b == activations => Some(a),
                _ => None,
            });
            let rank = weights.shape.len();
            let (rank, behind) = match is_convolution {
                true => (rank, rank.saturating_sub(2)),
                false => (self.ranks.get(&product.output[0]).copied().unwrap_or(1), 0),
            };
            let columns = weights.scale.len();
            let scale = other.and_then(|other| self.of_columns(other, columns, rank, behind));
            let why = "its sums are not scaled by the scale of activations and constants, one for \
                       each column";
            weights.scale = scale.ok_or(Refusal::of_node(why))?;
        }
        Ok(Chain { start, quantize, product, weights })
    }

    fn dynamic_matrix(
        &self,
        chain: Chain<'a>,
        node: &'a NodeProto,
    ) -> Result<Rewrite<'a>, Refusal> {
        let Chain { quantize, weights, .. } = chain;
        check(weights.shape.len() == 2, "its weights are no matrix")?;
        let packed = self.packed(&weights, 1, 1)?;
        Ok(Box::new(move |lowering| {
            let input = lowering.dynamic_bytes(quantize, Form::Plain);
            let output = lowering.value(Form::Plain);
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
            let step = AnyStep::Product(Box::new(product));
            lowering.push(step, &[input], output, "MatMulInteger", node);
            output
        }))
    }

    fn dynamic_convolution(
        &self,
        chain: Chain<'a>,
        offset: Option<Vec<f32>>,
        node: &'a NodeProto,
    ) -> Result<Rewrite<'a>, Refusal> {
        let Chain { quantize, product, weights, .. } = chain;
        let what = if offset.is_some() { "ConvInteger + Add" } else { "ConvInteger" };
        let mut moves = Moves::new(product, &weights)?;
        let (bias, scale) = (negative_sums(&weights), weights.scale.clone());
        let halo = moves.halo();
        let weights = joined_groups(weights, &mut moves);
        let (weights, conv) = self.packed_windows(weights, moves)?;
        Ok(Box::new(move |lowering| {
            let input = lowering.dynamic_bytes(quantize, Form::Image);
            lowering.widen_halo(input, halo);
            let (output, pixels) = (lowering.value(Form::Plain), lowering.value(Form::Plain));
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
            lowering.push(AnyStep::Product(Box::new(product)), &[input], output, what, node);
            if let Some(unit) = lowering.units.last_mut() {
                unit.outputs.push(pixels);
            }
            output
        }))
    }

    /// The weights of a MatMulInteger or ConvInteger, less their zero point and with scale 1.
    fn integer_weights(&self, node: &NodeProto, axis: Axis) -> Option<IntWeights> {
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
        let shape = self.new_shape(node).ok()?.of(Shape::new(&shape)?).ok()?;
        Some((values, shape.dims().to_vec()))
    }

    /// Refuses a DynamicQuantizeLinear by itself: the steps for what reads it take it in.
    pub(super) fn dynamic_quantize(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["DynamicQuantizeLinear"], node)?;
        Err(Refusal::of_values(
            "it is not part of DynamicQuantizeLinear, MatMulInteger or ConvInteger, Cast and Mul by \
             both scales with constant weights",
        ))
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
