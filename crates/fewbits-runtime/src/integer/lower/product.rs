//! Products with constant integer weights: matrices and convolutions.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::{DepthwiseWeights, QuantizeTo, Window};
use fewbits_kernels::gemm::PackedWeights;
use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::lower::image::window_of;
use crate::integer::lower::{Bytes, Form, Lowering};
use crate::integer::net::{Axis, IntWeights};
use crate::integer::program::AnyStep;
use crate::integer::state::ValueId;
use crate::integer::steps::depthwise::Depthwise;
use crate::integer::steps::product::{Conv, Epilogue, Product};

/// What is added to the sums of a product.
enum Bias {
    None,
    /// In units of the sums.
    Ints(Vec<i32>),
    Floats(Vec<f32>),
}

/// A product of a matrix of bytes.
struct Matrix {
    input: Bytes,
    weights: IntWeights,
    bias: Bias,
    what: String,
}

impl<'a> Lowering<'a> {
    pub(super) fn matrix_to_bytes(
        &mut self,
        node: &'a NodeProto,
        to: QuantizeTo,
        behind: &str,
    ) -> Option<ValueId> {
        let Matrix { input, weights, bias, what } = self.matrix(node)?;
        let id = self.in_form(input, Form::Plain, node);
        let sums = Sums::new(&weights, bias, input);
        let output = self.value(Form::Plain);
        let product = Product {
            input: id,
            output,
            weights: self.packed(&weights, 1, 1)?,
            conv: None,
            dynamic: false,
            bias: sums.ints()?,
            scale: sums.scale.iter().map(|s| s / to.scale).collect(),
            epilogue: Epilogue::Bytes { to, add: None },
        };
        let step = AnyStep::Product(Box::new(product));
        self.push(step, &[id], output, format!("{what}{behind}"), node);
        Some(output)
    }

    pub(super) fn matrix_to_floats(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let Matrix { input, weights, bias, what } = self.matrix(node)?;
        let id = self.in_form(input, Form::Plain, node);
        let Sums { correction, scale, bias } = Sums::new(&weights, bias, input);
        let (bias, offset) = match bias {
            Bias::None => (correction, None),
            Bias::Ints(bias) => (added(&correction, &bias), None),
            Bias::Floats(floats) => (correction, Some(floats)),
        };
        let output = self.value(Form::Plain);
        let product = Product {
            input: id,
            output,
            weights: self.packed(&weights, 1, 1)?,
            conv: None,
            dynamic: false,
            bias,
            scale,
            epilogue: Epilogue::floats(offset),
        };
        let step = AnyStep::Product(Box::new(product));
        self.push(step, &[id], output, format!("{what} to floats"), node);
        Some(output)
    }

    /// A MatMul, Gemm, or a MatMul and the Add of its bias, of bytes and integer weights.
    fn matrix(&mut self, node: &'a NodeProto) -> Option<Matrix> {
        match node.op_type() {
            "MatMul" => {
                let weights = self.net.weights(node.input.get(1)?, Axis::Last)?;
                (weights.shape.len() == 2).then_some(())?;
                let input = self.source(node.input.first()?)?;
                Some(Matrix { input, weights, bias: Bias::None, what: "MatMul".into() })
            }
            "Gemm" => {
                let plain = node.int("transA", 0) == 0
                    && node.float("alpha", 1.0) == 1.0
                    && node.float("beta", 1.0) == 1.0;
                plain.then_some(())?;
                let axis = if node.int("transB", 0) == 0 { Axis::Last } else { Axis::First };
                let weights = self.net.weights(node.input.get(1)?, axis)?;
                let input = self.source(node.input.first()?)?;
                let bias = self.bias(node.input.get(2), &weights, input)?;
                Some(Matrix { input, weights, bias, what: "Gemm".into() })
            }
            "Add" => {
                let [a, b] = node.input.as_slice() else { return None };
                let is_product =
                    |name: &str| self.net.producer(name).is_some_and(|(_, n)| n.is("MatMul"));
                let (product, bias) = if is_product(a) { (a, b) } else { (b, a) };
                let (_, inner) = self.net.producer(product).filter(|_| is_product(product))?;
                self.net.has_one_use(product).then_some(())?;
                let shape = self.bias_shape(bias)?;
                let row = shape.len() <= 1 || shape[..shape.len() - 1].iter().all(|&d| d == 1);
                (row && shape.len() <= 2).then_some(())?;
                let mut matrix = self.matrix(inner)?;
                matrix.bias = self.bias(Some(bias), &matrix.weights, matrix.input)?;
                matrix.what = "MatMul + Add".into();
                Some(matrix)
            }
            _ => None,
        }
    }

    /// The shape of a constant bias, of floats or of integers that stand for some.
    fn bias_shape(&self, name: &str) -> Option<Vec<usize>> {
        if let Some((_, shape)) = self.net.floats(name) {
            return Some(shape);
        }
        let (_, node) = self.net.producer(name).filter(|(_, n)| n.is("DequantizeLinear"))?;
        self.net.initializer(&node.input[0])?.shape().ok()
    }

    /// The third input of a Gemm or Conv, or what is added to the results of a MatMul.
    fn bias(&self, name: Option<&String>, weights: &IntWeights, input: Bytes) -> Option<Bias> {
        let Some(name) = name.filter(|n| !n.is_empty()) else {
            return Some(Bias::None);
        };
        let columns = weights.scale.len();
        if let Some((values, _)) = self.net.floats(name) {
            return Some(Bias::Floats(spread(values, columns)?));
        }
        let (_, node) = self.net.producer(name).filter(|(_, n)| n.is("DequantizeLinear"))?;
        let tensor = self.net.initializer(&node.input[0])?;
        (tensor.element_type().ok()? == DataType::Int32).then_some(())?;
        let ints = tensor.ints().ok()?;
        let (scale, _) = self.net.floats(&node.input[1])?;
        let scale = spread(scale, columns)?;
        let expected = |i: usize| input.ty.scale.scale * weights.scale[i];
        let close = |(i, s): (usize, &f32)| (s - expected(i)).abs() <= expected(i) * 1e-5;
        if scale.iter().enumerate().all(close) && ints.len() == columns {
            return Some(Bias::Ints(ints.into_iter().map(|b| b as i32).collect()));
        }
        let floats = ints.iter().zip(&scale).map(|(&b, s)| b as f32 * s).collect();
        Some(Bias::Floats(spread(floats, columns)?))
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
    ) -> Option<Vec<PackedWeights>> {
        let columns = weights.scale.len() / groups;
        let depth = weights.ints.len() / weights.scale.len().max(1);
        (columns > 0 && depth > 0).then_some(())?;
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
        Some(weights.ints.chunks_exact(columns * depth).map(packed).collect())
    }

    pub(super) fn convolution_to_bytes(
        &mut self,
        node: &'a NodeProto,
        to: QuantizeTo,
        behind: &str,
    ) -> Option<ValueId> {
        let weights = self.net.weights(node.input.get(1)?, Axis::First)?;
        let moves = Moves::new(node, &weights)?;
        let bytes = self.source(node.input.first()?)?;
        let input = self.as_image(bytes, moves.halo(), node);
        let bias = self.bias(node.input.get(2), &weights, bytes)?;
        let sums = Sums::new(&weights, bias, bytes);
        let (bias, scale) = (sums.ints()?, sums.scale.iter().map(|s| s / to.scale).collect());
        let output = self.value(Form::Image);

        let Moves { window, end, groups } = moves;
        let (filters, group_channels) = (weights.shape[0], weights.shape[1]);
        if group_channels == 1 && groups == filters && groups > 1 && weights.terms() == 1 {
            let ints: Vec<i8> = weights.ints.iter().map(|&w| w as i8).collect();
            let weights = DepthwiseWeights::new(&ints, filters, window.kernel);
            let step = Depthwise { input, output, weights, window, end, bias, scale, to };
            let what = format!("depth-wise Conv{behind}");
            self.push(AnyStep::Other(Box::new(step)), &[input], output, what, node);
            return Some(output);
        }
        let (weights, conv) = self.packed_windows(weights, moves)?;
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
        Some(output)
    }

    /// The weights of a convolution for the kernels, and how it goes over the windows.
    pub(super) fn packed_windows(
        &self,
        mut weights: IntWeights,
        moves: Moves,
    ) -> Option<(Vec<PackedWeights>, Conv)> {
        let Moves { window, end, groups } = moves;
        channels_last(&mut weights);
        // Neighbouring pixels lie side by side unless the window skips some or sees a group.
        let joined = window.dilation[1] == 1 && groups == 1;
        let [rows, columns] = window.kernel;
        let runs = if joined { rows } else { rows * columns };
        let conv = Conv { window, end, terms: weights.terms(), joined, pixels: None };
        Some((self.packed(&weights, groups, runs)?, conv))
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
    /// Of a node with these weights, `[filters, channels, ..]`; `None` if there is no kernel for it.
    pub(super) fn new(node: &NodeProto, weights: &IntWeights) -> Option<Moves> {
        let rank = weights.shape.len().checked_sub(2).filter(|r| (1..=2).contains(r))?;
        let kernel = match weights.shape[2..] {
            [h, w] => [h, w],
            [w] => [1, w],
            _ => return None,
        };
        let (window, end) = window_of(node, kernel, rank)?;
        let groups = usize::try_from(node.int("group", 1)).ok().filter(|&g| g > 0)?;
        weights.shape[0].is_multiple_of(groups).then_some(Moves { window, end, groups })
    }

    /// The halo that holds its padding.
    pub(super) fn halo(&self) -> Halo {
        let ([top, left], [bottom, right]) = (self.window.pads_begin, self.end);
        Halo { top, left, bottom, right }
    }
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

fn added(a: &[i32], b: &[i32]) -> Vec<i32> {
    a.iter().zip(b).map(|(&a, &b)| a.wrapping_add(b)).collect()
}

/// What the sums of a product must be corrected by, and what they are worth.
struct Sums {
    /// Takes off what the zero point of the activations added.
    correction: Vec<i32>,
    scale: Vec<f32>,
    bias: Bias,
}

impl Sums {
    fn new(weights: &IntWeights, bias: Bias, input: Bytes) -> Sums {
        let depth = weights.ints.len() / weights.scale.len().max(1);
        let zero_point = i32::from(input.ty.scale.zero_point);
        let sum = |column: &[i16]| column.iter().map(|&w| i32::from(w)).sum::<i32>();
        let correction =
            weights.ints.chunks_exact(depth.max(1)).map(|c| -zero_point * sum(c)).collect();
        let scale = weights.scale.iter().map(|s| input.ty.scale.scale * s).collect();
        Sums { correction, scale, bias }
    }

    /// Correction and bias in units of the sums. A float bias is rounded to them: they are finer
    /// than the bytes that come out by a factor of about a hundred.
    fn ints(&self) -> Option<Vec<i32>> {
        match &self.bias {
            Bias::None => Some(self.correction.clone()),
            Bias::Ints(bias) => Some(added(&self.correction, bias)),
            Bias::Floats(floats) => {
                let ints = floats.iter().zip(&self.scale).map(|(b, s)| {
                    let int = (b / s).round_ties_even();
                    (int.abs() < 1e9).then_some(int as i32)
                });
                Some(added(&self.correction, &ints.collect::<Option<Vec<i32>>>()?))
            }
        }
    }
}
