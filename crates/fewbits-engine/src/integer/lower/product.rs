//! Products with constant integer weights: matrices and convolutions.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::{DepthwiseWeights, Window};
use fewbits_kernels::gemm::PackedWeights;
use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::lower::image::{MORE_AXES, window_of};
use crate::integer::lower::rules::Wanted;
use crate::integer::lower::sums::{Bias, Sums, added};
use crate::integer::lower::{Bytes, Form, Lowering};
use crate::integer::net::{Axis, IntWeights};
use crate::integer::program::AnyStep;
use crate::integer::refusal::{Refusal, check, input, only};
use crate::integer::state::ValueId;
use crate::integer::steps::depthwise::Depthwise;
use crate::integer::steps::product::{Conv, Epilogue, Product};

/// A product of a matrix of bytes.
struct Matrix {
    input: Bytes,
    weights: IntWeights,
    bias: Bias,
    what: String,
}

impl<'a> Lowering<'a> {
    /// Multiplies a matrix of bytes, to bytes.
    pub(super) fn matrix_to_bytes(&mut self, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
        let Wanted { node, to, .. } = *wanted;
        let Matrix { input, weights, bias, what } = self.matrix(node)?;
        let sums = Sums::new(&weights, bias, input);
        let (bias, packed) = (sums.ints()?, self.packed(&weights, 1, 1)?);
        let id = self.in_form(input, Form::Plain, node);
        let output = self.value(Form::Plain);
        let product = Product {
            input: id,
            output,
            weights: packed,
            conv: None,
            dynamic: false,
            bias,
            scale: sums.scale.iter().map(|s| s / to.scale).collect(),
            epilogue: Epilogue::Bytes { to, add: None },
        };
        let step = AnyStep::Product(Box::new(product));
        self.push(step, &[id], output, format!("{what}{}", wanted.behind), node);
        Ok(output)
    }

    /// Multiplies a matrix of bytes, to floats.
    pub(super) fn matrix_to_floats(&mut self, node: &'a NodeProto) -> Result<ValueId, Refusal> {
        let Matrix { input, weights, bias, what } = self.matrix(node)?;
        let packed = self.packed(&weights, 1, 1)?;
        let Sums { correction, scale, bias } = Sums::new(&weights, bias, input);
        let (bias, offset) = match bias {
            Bias::None => (correction, None),
            Bias::Ints(bias) => (added(&correction, &bias), None),
            Bias::Floats(floats) => (correction, Some(floats)),
        };
        let id = self.in_form(input, Form::Plain, node);
        let output = self.value(Form::Plain);
        let product = Product {
            input: id,
            output,
            weights: packed,
            conv: None,
            dynamic: false,
            bias,
            scale,
            epilogue: Epilogue::floats(offset),
        };
        let step = AnyStep::Product(Box::new(product));
        self.push(step, &[id], output, format!("{what} to floats"), node);
        Ok(output)
    }

    /// A MatMul, Gemm, or a MatMul and the Add of its bias, of bytes and integer weights.
    fn matrix(&mut self, node: &'a NodeProto) -> Result<Matrix, Refusal> {
        only(&["MatMul", "Gemm", "Add"], node)?;
        if node.is("Add") {
            // Any other Add has rules of its own.
            return self.matrix_and_bias(node).map_err(|_| Refusal::other());
        }
        let axis = match node.int("transB", 0) {
            0 => Axis::Last,
            _ => Axis::First,
        };
        if node.is("Gemm") {
            check(node.int("transA", 0) == 0, "transA is set")?;
            is_unscaled(node)?;
        }
        let weights = self.net.weights(input(node, 1)?, axis)?;
        check(weights.shape.len() == 2, "its weights are no matrix")?;
        let input = self.source(input(node, 0)?)?;
        let bias = self.bias(node.input.get(2), &weights, input)?;
        Ok(Matrix { input, weights, bias, what: node.op_type().to_string() })
    }

    fn matrix_and_bias(&mut self, node: &'a NodeProto) -> Result<Matrix, Refusal> {
        let [a, b] = node.input.as_slice() else { return Err(Refusal::other()) };
        let product_of = |name: &str| {
            let (_, before) = self.net.producer(name)?;
            (before.is("MatMul") && self.net.has_one_use(name)).then_some(before)
        };
        let found = product_of(a).map(|product| (product, b));
        let found = found.or_else(|| product_of(b).map(|product| (product, a)));
        let (product, bias) = found.ok_or(Refusal::other())?;
        let shape = self.bias_shape(bias).ok_or(Refusal::other())?;
        let row = shape.len() <= 1 || shape[..shape.len() - 1].iter().all(|&d| d == 1);
        check(row && shape.len() <= 2, "what is added is not one number for each column")?;
        let mut matrix = self.matrix(product)?;
        matrix.bias = self.bias(Some(bias), &matrix.weights, matrix.input)?;
        matrix.what = "MatMul + Add".into();
        Ok(matrix)
    }

    /// The shape of a constant bias, of floats or of integers that stand for some.
    fn bias_shape(&self, name: &str) -> Option<Vec<usize>> {
        if let Some(floats) = self.net.constant_floats(name) {
            return Some(floats.shape);
        }
        let (_, node) = self.net.producer(name).filter(|(_, n)| n.is("DequantizeLinear"))?;
        self.net.initializer(&node.input[0])?.shape().ok()
    }

    /// The third input of a Gemm or Conv, or what is added to the results of a MatMul.
    fn bias(
        &self,
        name: Option<&String>,
        weights: &IntWeights,
        input: Bytes,
    ) -> Result<Bias, Refusal> {
        let Some(name) = name.filter(|n| !n.is_empty()) else {
            return Ok(Bias::None);
        };
        let columns = weights.scale.len();
        let floats = |values| Ok(Bias::Floats(spread(values, columns).ok_or_else(other_bias)?));
        if let Some((values, _)) = self.net.floats(name) {
            return floats(values);
        }
        let (ints, scale) =
            self.integer_bias(name).ok_or(Refusal::of_node("its bias is computed"))?;
        let scale = spread(scale, columns).ok_or_else(other_bias)?;
        let expected = |i: usize| input.ty.scale.scale * weights.scale[i];
        let close = |(i, s): (usize, &f32)| (s - expected(i)).abs() <= expected(i) * 1e-5;
        if scale.iter().enumerate().all(close) && ints.len() == columns {
            return Ok(Bias::Ints(ints.into_iter().map(|b| b as i32).collect()));
        }
        floats(ints.iter().zip(&scale).map(|(&b, s)| b as f32 * s).collect())
    }

    /// Finds a constant bias of int32, and its scale.
    fn integer_bias(&self, name: &str) -> Option<(Vec<i64>, Vec<f32>)> {
        let (_, node) = self.net.producer(name).filter(|(_, n)| n.is("DequantizeLinear"))?;
        let tensor = self.net.initializer(&node.input[0])?;
        (tensor.element_type().ok()? == DataType::Int32).then_some(())?;
        Some((tensor.ints().ok()?, self.net.floats(&node.input[1])?.0))
    }

    /// Weights in the order of the kernels, for each group; `runs` of a dot product.
    ///
    /// Integers beyond 8 bits (unsigned weights with a zero point) are two terms, each of 8 bits,
    /// which the same activations are multiplied by.
    pub(super) fn packed(
        &self,
        weights: &IntWeights,
        groups: usize,
        runs: usize,
    ) -> Result<Vec<PackedWeights>, Refusal> {
        let columns = weights.scale.len() / groups;
        let depth = weights.ints.len() / weights.scale.len().max(1);
        check(columns > 0 && depth > 0, "its weights are empty")?;
        let terms = weights.terms();
        let packed = |ints: &[i16]| {
            let mut both = Vec::with_capacity(ints.len() * terms);
            for column in ints.chunks_exact(depth) {
                both.extend(column.iter().map(|&w| w.clamp(-128, 127) as i8));
                if terms == 2 {
                    both.extend(column.iter().map(|&w| (w - w.clamp(-128, 127)) as i8));
                }
            }
            PackedWeights::new(self.cpu, &both, columns, runs * terms, depth / runs)
        };
        Ok(weights.ints.chunks_exact(columns * depth).map(packed).collect())
    }

    /// Computes a convolution of bytes, to bytes.
    pub(super) fn convolution_to_bytes(&mut self, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
        let Wanted { node, to, .. } = *wanted;
        let behind = &wanted.behind;
        only(&["Conv"], node)?;
        let weights = self.net.weights(input(node, 1)?, Axis::First)?;
        let moves = Moves::new(node, &weights)?;
        let bytes = self.source(input(node, 0)?)?;
        let bias = self.bias(node.input.get(2), &weights, bytes)?;
        let sums = Sums::new(&weights, bias, bytes);
        let (bias, scale) = (sums.ints()?, sums.scale.iter().map(|s| s / to.scale).collect());

        let (filters, group_channels) = (weights.shape[0], weights.shape[1]);
        let groups = moves.groups;
        if group_channels == 1 && groups == filters && groups > 1 && weights.terms() == 1 {
            let Moves { window, end, .. } = moves;
            let ints: Vec<i8> = weights.ints.iter().map(|&w| w as i8).collect();
            let weights = DepthwiseWeights::new(&ints, filters, window.kernel);
            let input = self.as_image(bytes, moves.halo(), node);
            let output = self.value(Form::Image);
            let step = Depthwise { input, output, weights, window, end, bias, scale, to };
            let what = format!("depth-wise Conv{behind}");
            self.push(AnyStep::Other(Box::new(step)), &[input], output, what, node);
            return Ok(output);
        }
        let (weights, conv) = self.packed_windows(weights, moves)?;
        let input = self.as_image(bytes, moves.halo(), node);
        let output = self.value(Form::Image);
        let product = Product {
            input,
            output,
            weights,
            conv: Some(conv),
            dynamic: false,
            bias,
            scale,
            epilogue: Epilogue::Bytes { to, add: None },
        };
        let step = AnyStep::Product(Box::new(product));
        self.push(step, &[input], output, format!("Conv{behind}"), node);
        Ok(output)
    }

    /// The weights of a convolution for the kernels, and how it goes over the windows.
    pub(super) fn packed_windows(
        &self,
        mut weights: IntWeights,
        moves: Moves,
    ) -> Result<(Vec<PackedWeights>, Conv), Refusal> {
        let Moves { window, end, groups } = moves;
        channels_last(&mut weights);
        // Neighbouring pixels lie side by side unless the window skips some or sees a group.
        let joined = window.dilation[1] == 1 && groups == 1;
        let [rows, columns] = window.kernel;
        let runs = if joined { rows } else { rows * columns };
        let conv = Conv { window, end, terms: weights.terms(), joined, pixels: None };
        Ok((self.packed(&weights, groups, runs)?, conv))
    }
}

/// How a convolution moves over images.
#[derive(Clone, Copy)]
pub(super) struct Moves {
    pub window: Window,
    /// Padding at the end.
    pub end: [usize; 2],
    pub groups: usize,
}

impl Moves {
    /// Those of a node with these weights, `[filters, channels, ..]`.
    pub(super) fn new(node: &NodeProto, weights: &IntWeights) -> Result<Moves, Refusal> {
        let (kernel, rank) = match weights.shape[..] {
            [_, _, h, w] => ([h, w], 2),
            [_, _, w] => ([1, w], 1),
            _ => return Err(Refusal::of_node(MORE_AXES)),
        };
        let (window, end) = window_of(node, kernel, rank)?;
        Ok(Moves { window, end, groups: groups(node, weights.shape[0])? })
    }

    /// The halo that holds its padding.
    pub(super) fn halo(&self) -> Halo {
        let ([top, left], [bottom, right]) = (self.window.pads_begin, self.end);
        Halo { top, left, bottom, right }
    }
}

/// The groups of a convolution of so many filters.
pub(super) fn groups(node: &NodeProto, filters: usize) -> Result<usize, Refusal> {
    let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0);
    let groups = groups.filter(|&groups| filters.is_multiple_of(groups));
    groups.ok_or(Refusal::of_node("its filters do not divide into its groups"))
}

/// Refuses a Gemm that scales its product or its bias.
pub(super) fn is_unscaled(node: &NodeProto) -> Result<(), Refusal> {
    let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0;
    check(plain, "its alpha or beta is not 1")
}

/// Refuses a bias for its shape.
pub(super) fn other_bias() -> Refusal {
    Refusal::of_node("its bias is not one number for each column")
}

/// From `[filters, channels, window]` to `[filters, window, channels]`.
fn channels_last(weights: &mut IntWeights) {
    let channels = weights.shape[1];
    let window: usize = weights.shape[2..].iter().product();
    let mut ints = Vec::with_capacity(weights.ints.len());
    for filter in weights.ints.chunks_exact(channels * window) {
        for tap in 0..window {
            ints.extend((0..channels).map(|c| filter[c * window + tap]));
        }
    }
    weights.ints = ints;
}

/// A value for each column from one for each column or one for all.
pub(super) fn spread<T: Clone>(values: Vec<T>, columns: usize) -> Option<Vec<T>> {
    match values.len() {
        1 => Some(vec![values[0].clone(); columns]),
        n if n == columns => Some(values),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use fewbits_kernels::Cpu;
    use fewbits_onnx::proto::{AttributeProto, GraphProto, TensorProto, ValueInfoProto};

    use super::*;
    use crate::integer::net::Net;

    /// A convolution of padded bytes, whose bias a caller feeds, and a MaxPool of the same bytes.
    fn graph() -> GraphProto {
        let node = |op: &str, inputs: &[&str], output: &str, attributes: &[AttributeProto]| {
            let mut node = NodeProto::new(op, inputs, &[output]);
            node.attribute = attributes.to_vec();
            node
        };
        let pads = AttributeProto::of_ints("pads", &[1, 1, 1, 1]);
        let size = AttributeProto::of_ints("kernel_shape", &[2, 2]);
        let float = DataType::Float as i32;
        GraphProto {
            input: vec![
                ValueInfoProto::tensor("x", float, &[None, Some(1), Some(6), Some(6)]),
                ValueInfoProto::tensor("b", float, &[Some(2)]),
            ],
            initializer: vec![
                TensorProto::from_f32("s", &[], &[0.1]),
                TensorProto::from_u8("z", &[], &[3]),
                TensorProto::from_i8("w", &[2, 1, 3, 3], &[1; 18]),
            ],
            node: vec![
                node("QuantizeLinear", &["x", "s", "z"], "q", &[]),
                node("DequantizeLinear", &["q", "s", "z"], "d", &[]),
                node("DequantizeLinear", &["w", "s"], "wd", &[]),
                node("Conv", &["d", "wd", "b"], "c", &[pads]),
                node("QuantizeLinear", &["c", "s", "z"], "cq", &[]),
                node("MaxPool", &["d"], "p", &[size]),
                node("QuantizeLinear", &["p", "s", "z"], "pq", &[]),
            ],
            output: vec![
                ValueInfoProto::tensor("cq", DataType::Uint8 as i32, &[]),
                ValueInfoProto::tensor("pq", DataType::Uint8 as i32, &[]),
            ],
            ..GraphProto::default()
        }
    }

    #[test]
    fn a_convolution_that_is_refused_widens_no_halo() {
        let graph = graph();
        let mut lowering = Lowering::new(Net::new(&graph, 17), Cpu::chosen().unwrap());
        for output in &graph.output {
            lowering.tensor(output.name());
        }
        let whys: Vec<&str> = lowering.units.iter().map(|unit| unit.what.as_str()).collect();
        assert!(whys.contains(&"MaxPool") && !whys.contains(&"Conv"), "{whys:?}");
        assert_eq!(
            lowering.why(&[3]),
            ["Conv: its bias is not constant, or not one number for each filter"]
        );
        assert!(lowering.values.iter().all(|value| value.halo == Halo::default()));
    }
}
