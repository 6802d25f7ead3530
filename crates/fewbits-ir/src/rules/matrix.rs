//! What products of matrices and convolutions of bytes have in common: weights, bias, groups.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::lower::{Bias, Bytes, Lowering};
use crate::op::{OutputAxis, Weights};
use crate::refusal::{Refusal, check, input, only};

/// A product of a matrix of bytes.
pub(crate) struct Matrix {
    pub input: Bytes,
    pub weights: Weights,
    /// Of the weights, for each output.
    pub weight_scale: Vec<f32>,
    pub bias: Bias,
    pub what: String,
}

/// A MatMul, Gemm, or a MatMul and the Add of its bias, of bytes and integer weights.
pub(crate) fn matrix<'a>(
    lowering: &mut Lowering<'a>,
    node: &'a NodeProto,
) -> Result<Matrix, Refusal> {
    only(&["MatMul", "Gemm", "Add"], node)?;
    if node.is("Add") {
        // Any other Add has rules of its own.
        return matrix_and_bias(lowering, node).map_err(|_| Refusal::other());
    }
    let outputs = match node.int("transB", 0) {
        0 => OutputAxis::Last,
        _ => OutputAxis::First,
    };
    if node.is("Gemm") {
        check(node.int("transA", 0) == 0, "transA is set")?;
        is_unscaled(node)?;
    }
    let (weights, weight_scale) = lowering.view.weights(input(node, 1)?, outputs)?;
    check(weights.tensor.layout().shape().len() == 2, "its weights are no matrix")?;
    let input = lowering.source(input(node, 0)?)?;
    let bias = bias(lowering, node.input.get(2), &weight_scale, input)?;
    has_weights(&weights)?;
    Ok(Matrix { input, weights, weight_scale, bias, what: node.op_type().to_string() })
}

fn matrix_and_bias<'a>(
    lowering: &mut Lowering<'a>,
    node: &'a NodeProto,
) -> Result<Matrix, Refusal> {
    let [a, b] = node.input.as_slice() else { return Err(Refusal::other()) };
    let product_of = |name: &str| {
        let (_, before) = lowering.view.producer(name)?;
        (before.is("MatMul") && lowering.view.has_one_use(name)).then_some(before)
    };
    let found = product_of(a).map(|product| (product, b));
    let found = found.or_else(|| product_of(b).map(|product| (product, a)));
    let (product, name) = found.ok_or(Refusal::other())?;
    let shape = bias_shape(lowering, name).ok_or(Refusal::other())?;
    let row = shape.len() <= 1 || shape[..shape.len() - 1].iter().all(|&d| d == 1);
    check(row && shape.len() <= 2, "what is added is not one number for each column")?;
    let mut matrix = matrix(lowering, product)?;
    matrix.bias = bias(lowering, Some(name), &matrix.weight_scale, matrix.input)?;
    matrix.what = "MatMul + Add".into();
    Ok(matrix)
}

/// The shape of a constant bias, of floats or of integers that stand for some.
fn bias_shape(lowering: &Lowering, name: &str) -> Option<Vec<usize>> {
    if let Some(floats) = lowering.view.constant_floats(name) {
        return Some(floats.shape);
    }
    let (_, node) = lowering.view.producer(name).filter(|(_, n)| n.is("DequantizeLinear"))?;
    lowering.view.initializer(&node.input[0])?.shape().ok()
}

/// The third input of a Gemm or Conv, or what is added to the results of a MatMul.
pub(crate) fn bias(
    lowering: &Lowering,
    name: Option<&String>,
    weight_scale: &[f32],
    input: Bytes,
) -> Result<Bias, Refusal> {
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        return Ok(Bias::None);
    };
    let columns = weight_scale.len();
    let floats = |values| Ok(Bias::Floats(spread(values, columns).ok_or_else(other_bias)?));
    if let Some((values, _)) = lowering.view.floats(name) {
        return floats(values);
    }
    let (ints, scale) =
        integer_bias(lowering, name).ok_or(Refusal::of_node("its bias is computed"))?;
    let scale = spread(scale, columns).ok_or_else(other_bias)?;
    let expected = |i: usize| input.ty.scale.scale * weight_scale[i];
    let close = |(i, s): (usize, &f32)| (s - expected(i)).abs() <= expected(i) * 1e-5;
    if scale.iter().enumerate().all(close) && ints.len() == columns {
        return Ok(Bias::Ints(ints.into_iter().map(|b| b as i32).collect()));
    }
    floats(ints.iter().zip(&scale).map(|(&b, s)| b as f32 * s).collect())
}

/// Finds a constant bias of int32, and its scale.
fn integer_bias(lowering: &Lowering, name: &str) -> Option<(Vec<i64>, Vec<f32>)> {
    let (_, node) = lowering.view.producer(name).filter(|(_, n)| n.is("DequantizeLinear"))?;
    let tensor = lowering.view.initializer(&node.input[0])?;
    (tensor.element_type().ok()? == DataType::Int32).then_some(())?;
    Some((tensor.ints().ok()?, lowering.view.floats(&node.input[1])?.0))
}

/// Refuses weights of no elements.
pub(crate) fn has_weights(weights: &Weights) -> Result<(), Refusal> {
    check(weights.columns() > 0 && weights.depth() > 0, "its weights are empty")
}

/// The groups of a convolution of so many filters.
pub(crate) fn groups(node: &NodeProto, filters: usize) -> Result<usize, Refusal> {
    let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0);
    let groups = groups.filter(|&groups| filters.is_multiple_of(groups));
    groups.ok_or(Refusal::of_node("its filters do not divide into its groups"))
}

/// Refuses a Gemm that scales its product or its bias.
pub(crate) fn is_unscaled(node: &NodeProto) -> Result<(), Refusal> {
    let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0;
    check(plain, "its alpha or beta is not 1")
}

/// Refuses a bias for its shape.
pub(crate) fn other_bias() -> Refusal {
    Refusal::of_node("its bias is not one number for each column")
}

/// A value for each column from one for each column or one for all.
pub(crate) fn spread<T: Clone>(values: Vec<T>, columns: usize) -> Option<Vec<T>> {
    match values.len() {
        1 => Some(vec![values[0].clone(); columns]),
        n if n == columns => Some(values),
        _ => None,
    }
}
