//! Products with `MatMulNBits`, whose kernels read packed weights.

use fewbits_quant::{Encoding, Granularity, QTensor};

use super::{QWeightWriter, WeightForm};
use crate::MICROSOFT;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};
use crate::qweight::nbits::{Blocks, Fields};

/// The width that its kernels multiply float activations by. With 2 and 8 bits they unpack the whole
/// weight at every call.
const WIDTH: u8 = 4;
/// The smallest block that it loads; a block is a power of two.
const LEAST_BLOCK: usize = 16;
/// Activations stay f32: 0 and 1 are the same on CPUs, 4 rounds them to 8 bits.
const ACCURACY_LEVEL: i64 = 1;

impl QWeightWriter<'_> {
    /// The positions of the nodes that read `name`, if each can be a `MatMulNBits`.
    pub(super) fn products(&self, name: &str, weight: &QTensor, data_type: DataType) -> Vec<usize> {
        let Granularity::Group { axis, size } = weight.layout().granularity() else {
            return Vec::new();
        };
        // Scales that are quantized in turn have the blocks of another order.
        let fits = self.form == WeightForm::NBits
            && data_type == DataType::Float
            && weight.coded_scales().is_none()
            && weight.codes().encoding().floats().is_none()
            && weight.codes().width() == WIDTH
            && size.get() >= LEAST_BLOCK
            && size.is_power_of_two()
            && weight.layout().shape().len() == 2
            && weight.layout().elements() > 0;
        let graph = self.model.graph();
        if !fits || graph.is_output(name) {
            return Vec::new();
        }
        let mut readers = Vec::new();
        for (position, node) in graph.node.iter().enumerate() {
            let mut uses = 0;
            node.for_each_use(&mut |used| uses += usize::from(used == name));
            let reads = node.input.get(1).is_some_and(|input| input == name);
            match uses {
                0 => {}
                1 if reads && self.sums_over(axis, node) => readers.push(position),
                _ => return Vec::new(),
            }
        }
        readers
    }

    /// Whether a node is the product of a value and its second input, summed over this axis of it, and
    /// a bias for each column at most.
    fn sums_over(&self, axis: usize, node: &NodeProto) -> bool {
        match (node.is_onnx(), node.op_type()) {
            (true, "MatMul") => axis == 0,
            (true, "Gemm") => {
                let transposed = node.int("transB", 0) != 0;
                let plain = node.int("transA", 0) == 0 && node.float("alpha", 1.0) == 1.0;
                let bias = match node.input.get(2).map(String::as_str) {
                    None | Some("") => true,
                    Some(name) => self.is_row(name) && node.float("beta", 1.0) == 1.0,
                };
                axis == usize::from(transposed) && plain && bias
            }
            _ => false,
        }
    }

    /// Whether `name` is a constant of one axis that does not broadcast along it.
    fn is_row(&self, name: &str) -> bool {
        let tensor = self.model.graph().find_initializer(name);
        tensor.is_some_and(|t| matches!(t.dims[..], [n] if n > 1))
    }

    /// Replaces the products at `positions`. The integers take the weight's name.
    pub(super) fn multiply(&mut self, weight: QTensor, name: &str, positions: Vec<usize>) {
        let Granularity::Group { axis, size } = weight.layout().granularity() else {
            unreachable!("products are found for groups alone")
        };
        let shape = weight.layout().shape();
        let (k, n) = (shape[axis], shape[1 - axis]);
        let blocks = Blocks { k, n, size: size.get(), bits: usize::from(WIDTH) };
        let per_row = blocks.per_row();
        // Where element `(row, column)` of `[n, columns]` lies in the weight's own order.
        let at = |row: usize, column: usize, columns: usize| match axis {
            0 => column * n + row,
            _ => row * columns + column,
        };
        let codes = weight.codes().unpack();
        let middle = match weight.codes().encoding() {
            Encoding::Unsigned => 0,
            _ => i16::from(blocks.middle()),
        };
        let mut packed = Fields::new(n, per_row * blocks.bytes(), blocks.bits);
        for row in 0..n {
            for column in 0..k {
                packed.set(row, column, (codes[at(row, column, k)] + middle) as u8);
            }
        }
        let packed_shape = [n, per_row, blocks.bytes()];
        let bytes = packed.into_bytes();
        self.initializers.push(TensorProto::from_raw(name, &packed_shape, DataType::Uint8, bytes));

        let params = weight.params();
        let in_rows = (0..n).flat_map(|row| (0..per_row).map(move |block| at(row, block, per_row)));
        let scales: Vec<f32> = in_rows.clone().map(|param| params.scale[param]).collect();
        let mut rest = vec![name.to_string(), self.scales(&[n, per_row], &scales, None)];
        // Without zero points the middle stands for 0.
        if !params.zero_point.is_empty() || middle == 0 {
            let row_bytes = (per_row * blocks.bits).div_ceil(8);
            let mut packed = Fields::new(n, row_bytes, blocks.bits);
            for row in 0..n {
                for block in 0..per_row {
                    let param = at(row, block, per_row);
                    packed.set(row, block, params.zero_point.get(param).copied().unwrap_or(0));
                }
            }
            let bytes = packed.into_bytes();
            rest.push(self.constant("z", |name| {
                TensorProto::from_raw(name, &[n, row_bytes], DataType::Uint8, bytes)
            }));
        }
        for position in positions {
            let node = &self.model.graph().node[position];
            let mut inputs = vec![node.input[0].clone()];
            inputs.extend(rest.iter().cloned());
            if let Some(bias) = node.given_input(2) {
                // Behind zero points and an index of groups.
                inputs.resize(5, String::new());
                inputs.push(bias.to_string());
            }
            let mut product = self.node("MatMulNBits", &inputs, &node.output[0]);
            product.name = node.name.clone();
            product.domain = Some(MICROSOFT.to_string());
            let numbers = [
                ("K", k as i64),
                ("N", n as i64),
                ("bits", i64::from(WIDTH)),
                ("block_size", size.get() as i64),
                ("accuracy_level", ACCURACY_LEVEL),
            ];
            product.attribute =
                numbers.map(|(name, value)| AttributeProto::of_int(name, value)).to_vec();
            self.replaced.push((position, vec![product]));
        }
    }
}
