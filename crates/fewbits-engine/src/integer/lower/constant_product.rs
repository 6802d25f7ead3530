//! Products of floats with constant matrices: floats, or quantized weights.

use fewbits_kernels::Cpu;
use fewbits_kernels::float::{Codes, PackedCodes, Strided};
use fewbits_onnx::facts::is_mat_mul_n_bits;
use fewbits_onnx::proto::NodeProto;
use fewbits_quant::{Granularity, QTensor};

use crate::integer::lower::product::{is_unscaled, other_bias, spread};
use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::net::Factor;
use crate::integer::refusal::{Refusal, check, input};
use crate::integer::steps::constant_product::{ConstantProduct, Right};

/// A model whose quantized weights take less as floats has them in the second cache: there is nothing to
/// be gained by reading less, and unpacking takes time.
const LEAST_FLOAT_BYTES: usize = 1 << 20;

/// How a matrix lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `[depth, columns]`.
    Rows,
    /// `[columns, depth]`.
    Transposed,
}

impl Order {
    fn of(node: &NodeProto) -> Order {
        match node.int("transB", 0) {
            0 => Order::Rows,
            _ => Order::Transposed,
        }
    }

    /// The axis along which products are summed.
    fn depth_axis(self) -> usize {
        match self {
            Order::Rows => 0,
            Order::Transposed => 1,
        }
    }

    fn depth_and_columns(self, shape: &[usize]) -> (usize, usize) {
        (shape[self.depth_axis()], shape[1 - self.depth_axis()])
    }
}

impl<'a> Lowering<'a> {
    /// Whether a node is a product of floats with a constant matrix.
    pub(super) fn is_constant_product(&self, node: &NodeProto) -> bool {
        self.constant_matrix(node).is_ok()
    }

    /// Finds the constant matrix with which a node multiplies floats.
    fn constant_matrix(&self, node: &NodeProto) -> Result<Factor<'a>, Refusal> {
        let name = node.input.get(1).filter(|_| is_product(node)).ok_or(Refusal::other())?;
        let factor = self.net.factor(name).filter(|factor| factor.shape().len() == 2);
        factor.ok_or_else(|| match node.is("MatMul") {
            // It may be a product of two.
            true => Refusal::other(),
            false => Refusal::of_node("its second factor is no constant matrix"),
        })
    }

    /// Whether the weights of a product of floats stay integers.
    pub(super) fn keeps_codes(&self, node: &NodeProto) -> bool {
        let weight = node.input.get(1).and_then(|name| self.net.weight(name));
        is_product(node)
            && self.net.float_bytes >= LEAST_FLOAT_BYTES
            && weight.is_some_and(|weight| has_kernel(weight, Order::of(node)))
    }

    /// Multiplies floats by a constant matrix.
    pub(super) fn constant_product(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let factor = self.constant_matrix(node)?;
        if node.is("Gemm") {
            check(node.int("transA", 0) == 0, "transA is set")?;
            is_unscaled(node)?;
        } else if node.is("MatMul") {
            self.has_matrices(node)?;
        }
        let order = Order::of(node);
        let (_, columns) = order.depth_and_columns(factor.shape());
        let bias = match node.input.get(if is_mat_mul_n_bits(node) { 5 } else { 2 }) {
            Some(name) if !name.is_empty() => {
                let (values, _) =
                    self.net.floats(name).ok_or(Refusal::of_node("its bias is computed"))?;
                Some(spread(values, columns).ok_or_else(other_bias)?)
            }
            _ => None,
        };
        let keeps_codes = self.keeps_codes(node);
        Ok(Box::new(move |lowering| {
            let mut what = node.op_type().to_string();
            let codes = match &factor {
                Factor::Quantized(weight) if keeps_codes => packed(weight, order),
                _ => None,
            };
            let right = match (codes, &factor) {
                (Some(codes), Factor::Quantized(weight)) => {
                    what = format!("{what} by {}-bit weights", weight.codes().width());
                    Right::Codes(codes)
                }
                _ => of_floats(lowering.cpu, &factor, order),
            };
            let input = lowering.tensor(&node.input[0]);
            lowering.step(Form::Plain, &[input], what, node, |output| ConstantProduct {
                input,
                output,
                right,
                bias,
            })
        }))
    }

    /// Refuses a MatMul of vectors.
    pub(super) fn has_matrices(&self, node: &NodeProto) -> Result<(), Refusal> {
        let mut names = [input(node, 0)?, input(node, 1)?].into_iter();
        let are_matrices = names.all(|name| self.rank(name).is_some_and(|rank| rank >= 2));
        check(are_matrices, "a factor is a vector, or of unknown rank")
    }
}

fn is_product(node: &NodeProto) -> bool {
    node.is("MatMul") || node.is("Gemm") || is_mat_mul_n_bits(node)
}

fn of_floats(cpu: Cpu, factor: &Factor, order: Order) -> Right {
    let (depth, columns) = order.depth_and_columns(factor.shape());
    let values = factor.values();
    let matrix = Strided::rows(&values, factor.shape()[1]);
    let matrix = match order {
        Order::Rows => matrix,
        Order::Transposed => matrix.transposed(),
    };
    Right::of_floats(cpu, depth, columns, matrix)
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

/// Quantized weights of a granularity that has a kernel, in its order.
fn packed(weight: &QTensor, order: Order) -> Option<PackedCodes> {
    let (layout, params) = (weight.layout(), weight.params());
    let (depth, columns) = order.depth_and_columns(layout.shape());
    let group = match layout.granularity() {
        Granularity::Group { size, .. } => size.get().min(depth.max(1)),
        Granularity::Tensor | Granularity::Channel { .. } => depth.max(1),
    };
    let groups = depth.div_ceil(group);
    // Where the parameter of a group and a column is.
    let place = |group: usize, column: usize| match (layout.granularity(), order) {
        (Granularity::Tensor, _) => 0,
        (Granularity::Channel { .. }, _) => column,
        (Granularity::Group { .. }, Order::Rows) => group * columns + column,
        (Granularity::Group { .. }, Order::Transposed) => column * groups + group,
    };
    let places = || (0..groups).flat_map(|g| (0..columns).map(move |c| place(g, c)));
    let zero_point: Vec<i16> = match params.zero_point.is_empty() {
        true => Vec::new(),
        false => places().map(|p| params.zero_point_of(p)).collect(),
    };
    let (row_pitch, column_pitch) = match order {
        Order::Rows => (columns, 1),
        Order::Transposed => (1, depth),
    };
    let codes = Codes {
        values: &weight.codes().unpack(),
        row_pitch,
        column_pitch,
        group,
        scale: &places().map(|p| params.scale[p]).collect::<Vec<f32>>(),
        zero_point: &zero_point,
    };
    PackedCodes::new(depth, columns, &codes)
}
