//! Products of floats with constant matrices: floats, or quantized weights.

use fewbits_onnx::facts::is_mat_mul_n_bits;
use fewbits_onnx::proto::NodeProto;
use fewbits_quant::{Granularity, QTensor};

use crate::Tensor;
use crate::example::{Example, Net};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{MatMulConstant, Matrix, Op, Order};
use crate::refusal::{Refusal, check, input};
use crate::rules::matrix::{is_unscaled, other_bias, spread};
use crate::view::Factor;

pub(crate) const RULE: Rule =
    Rule { name: "matmul_constant", takes: Takes::Floats(matmul), example };

/// A model whose quantized weights take less as floats has them in the second cache: there is nothing to
/// be gained by reading less, and unpacking takes time.
const LEAST_FLOAT_BYTES: usize = 1 << 20;

fn matmul<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let factor = constant_matrix(lowering, node)?;
    if node.is("Gemm") {
        check(node.int("transA", 0) == 0, "transA is set")?;
        is_unscaled(node)?;
    } else if node.is("MatMul") {
        has_matrices(lowering, node)?;
    }
    let order = order_of(node);
    let (_, columns) = order.depth_and_columns(factor.shape());
    let bias = match node.input.get(if is_mat_mul_n_bits(node) { 5 } else { 2 }) {
        Some(name) if !name.is_empty() => {
            let (values, _) =
                lowering.view.floats(name).ok_or(Refusal::of_node("its bias is computed"))?;
            Some(spread(values, columns).ok_or_else(other_bias)?)
        }
        _ => None,
    };
    let keeps_codes = keeps_codes(lowering, node);
    Ok(Box::new(move |lowering| {
        let mut what = node.op_type().to_string();
        let weights = match factor {
            Factor::Quantized(weight) if keeps_codes => {
                what = format!("{what} by {}-bit weights", weight.codes().width());
                Matrix::Codes(weight)
            }
            factor => {
                let tensor = Tensor::new(factor.shape().to_vec(), factor.values());
                Matrix::Floats(tensor.expect("the payload was checked"))
            }
        };
        let input = lowering.tensor(&node.input[0]);
        let op = Op::MatMulConstant(Box::new(MatMulConstant { weights, order, bias }));
        lowering.step(floats(), &[input], what, node, op)
    }))
}

/// Whether a node is a product of floats with a constant matrix.
pub(crate) fn is_constant_product(lowering: &Lowering, node: &NodeProto) -> bool {
    constant_matrix(lowering, node).is_ok()
}

/// Finds the constant matrix with which a node multiplies floats.
fn constant_matrix<'a>(lowering: &Lowering<'a>, node: &NodeProto) -> Result<Factor<'a>, Refusal> {
    let name = node.input.get(1).filter(|_| is_product(node)).ok_or(Refusal::other())?;
    let factor = lowering.view.factor(name).filter(|factor| factor.shape().len() == 2);
    factor.ok_or_else(|| match node.is("MatMul") {
        // It may be a product of two.
        true => Refusal::other(),
        false => Refusal::of_node("its second factor is no constant matrix"),
    })
}

/// Whether the weights of a product of floats stay integers.
pub(crate) fn keeps_codes(lowering: &Lowering, node: &NodeProto) -> bool {
    let weight = node.input.get(1).and_then(|name| lowering.view.weight(name));
    is_product(node)
        && lowering.view.float_bytes >= LEAST_FLOAT_BYTES
        && weight.is_some_and(|weight| has_kernel(weight, order_of(node)))
}

/// Refuses a MatMul of vectors.
pub(crate) fn has_matrices(lowering: &Lowering, node: &NodeProto) -> Result<(), Refusal> {
    let mut names = [input(node, 0)?, input(node, 1)?].into_iter();
    let are_matrices = names.all(|name| lowering.rank(name).is_some_and(|rank| rank >= 2));
    check(are_matrices, "a factor is a vector, or of unknown rank")
}

fn order_of(node: &NodeProto) -> Order {
    match node.int("transB", 0) {
        0 => Order::Rows,
        _ => Order::Transposed,
    }
}

fn is_product(node: &NodeProto) -> bool {
    node.is("MatMul") || node.is("Gemm") || is_mat_mul_n_bits(node)
}

/// Whether there is a kernel for weights that stay integers.
fn has_kernel(weight: &QTensor, order: Order) -> bool {
    let (layout, codes) = (weight.layout(), weight.codes());
    let [_, _] = layout.shape() else { return false };
    let fits = match layout.granularity() {
        Granularity::Tensor => true,
        // A scale for each row of the right side would be one for each product.
        Granularity::Channel { axis } => axis != order.depth_axis(),
        Granularity::Group { axis, .. } => axis == order.depth_axis(),
    };
    fits && codes.encoding().floats().is_none() && codes.width() <= 8
}

/// Rows and columns that are no multiple of a vector.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let w = net.random_floats(&[37, 21]);
    let y = net.node("MatMul", &[&x, &w], &[]);
    net.ends_in_floats(&y)
}
