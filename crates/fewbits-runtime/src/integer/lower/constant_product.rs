//! Products of floats with constant matrices: floats, or quantized weights.

use fewbits_kernels::Cpu;
use fewbits_kernels::float::{Codes, PackedCodes, Strided};
use fewbits_onnx::proto::NodeProto;
use fewbits_onnx::qweight::is_mat_mul_n_bits;
use fewbits_quant::{Granularity, QTensor};

use crate::integer::lower::{Form, Lowering};
use crate::integer::state::ValueId;
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
        let Some(name) = node.input.get(1).filter(|_| is_product(node)) else { return false };
        match (self.net.weight(name), self.net.initializer(name)) {
            (Some(weight), _) => weight.layout().shape().len() == 2,
            (None, Some(tensor)) => self.is_float(name) && tensor.dims.len() == 2,
            (None, None) => false,
        }
    }

    /// Whether the weights of a product of floats stay integers.
    pub(super) fn keeps_codes(&self, node: &NodeProto) -> bool {
        let weight = node.input.get(1).and_then(|name| self.net.weight(name));
        is_product(node)
            && self.net.float_bytes >= LEAST_FLOAT_BYTES
            && weight.is_some_and(|weight| has_kernel(weight, Order::of(node)))
    }

    /// A product of floats with a constant matrix.
    pub(super) fn constant_product(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0;
        (!node.is("Gemm") || plain).then_some(())?;
        let (name, order) = (&node.input[1], Order::of(node));
        let codes = self.net.weight(name).filter(|_| self.keeps_codes(node));
        let codes = codes.and_then(|weight| Some((weight, packed(weight, order)?)));
        let mut what = node.op_type().to_string();
        let (right, columns) = match codes {
            Some((weight, codes)) => {
                what = format!("{what} by {}-bit weights", weight.codes().width());
                let columns = codes.columns();
                (Right::Codes(codes), columns)
            }
            None => {
                let (values, shape) =
                    self.net.floats(name).or_else(|| self.net.dequantized(name))?;
                (shape.len() == 2).then_some(())?;
                let (depth, columns) = order.depth_and_columns(&shape);
                (of_floats(self.cpu, &values, shape[1], order, depth, columns), columns)
            }
        };
        let bias = match node.input.get(if is_mat_mul_n_bits(node) { 5 } else { 2 }) {
            Some(name) if !name.is_empty() => {
                Some(super::product::spread(self.net.floats(name)?.0, columns)?)
            }
            _ => None,
        };
        let input = self.tensor(&node.input[0]);
        Some(self.step(Form::Plain, &[input], what, node, |output| ConstantProduct {
            input,
            output,
            right,
            bias,
        }))
    }
}

fn is_product(node: &NodeProto) -> bool {
    node.is("MatMul") || node.is("Gemm") || is_mat_mul_n_bits(node)
}

fn of_floats(
    cpu: Cpu,
    values: &[f32],
    width: usize,
    order: Order,
    depth: usize,
    columns: usize,
) -> Right {
    let matrix = Strided::rows(values, width);
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
