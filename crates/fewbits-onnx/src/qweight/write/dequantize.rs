//! Floats from integers: `DequantizeLinear`, or plain arithmetic.

use fewbits_quant::{Encoding, Granularity, Layout, PackedInts, QTensor, ScaleType};
use half::f16;

use super::{QWeightWriter, ReadBy};
use crate::proto::{AttributeProto, DataType, TensorProto};
use crate::qweight::fields;

/// About what the operator that widens half-precision scales takes in a file.
const WIDENING_BYTES: usize = 40;

impl QWeightWriter<'_> {
    pub(super) fn dequantize(&mut self, weight: QTensor, read_by: ReadBy, output: &str) {
        if let Encoding::Float(_) = weight.codes().encoding() {
            return self.small_floats(&weight, output);
        }
        let granularity = weight.layout().granularity();
        let opset_of_dequantize_linear = match granularity {
            Granularity::Tensor => 10,
            Granularity::Channel { .. } => 13,
            Granularity::Group { .. } => 21,
        };
        let folded = read_by == ReadBy::Floats && self.form.folds(&weight);
        if self.opset < opset_of_dequantize_linear || weight.codes().width() > 8 || folded {
            return self.arithmetic(weight, output);
        }
        let scale_shape = weight.layout().param_shape();
        let params = weight.params().clone();
        let coded_scales = weight.coded_scales().cloned();
        let integer_type = self.integer_type(weight.codes());
        let codes = self.codes(weight, integer_type);
        let scale = self.scales(&scale_shape, &params.scale, coded_scales.as_ref());
        let mut inputs = vec![codes, scale];
        if !params.zero_point.is_empty() {
            let bytes = zero_point_bytes(&params.zero_point, integer_type);
            inputs.push(
                self.constant("z", |n| TensorProto::from_raw(n, &scale_shape, integer_type, bytes)),
            );
        }
        let mut node = self.node("DequantizeLinear", &inputs, output);
        match granularity {
            // 1 is the default.
            Granularity::Tensor | Granularity::Channel { axis: 1 } => {}
            Granularity::Channel { axis } => {
                node.attribute.push(AttributeProto::of_int("axis", axis as i64))
            }
            Granularity::Group { axis, size } => {
                node.attribute.push(AttributeProto::of_int("axis", axis as i64));
                node.attribute.push(AttributeProto::of_int("block_size", size.get() as i64));
            }
        }
        self.nodes.push(node);
    }

    /// `(q - zero_point) * scale`, the parameters spread over the shape.
    fn arithmetic(&mut self, weight: QTensor, output: &str) {
        let layout = weight.layout().clone();
        let params = weight.params().clone();
        let coded_scales = weight.coded_scales().cloned();
        let width = weight.codes().width();
        let param_shape = spread_shape(&layout);
        let shape = layout.shape().to_vec();
        let mut q = if width <= 8 || !self.slices(weight.codes()) {
            let integer_type = self.integer_type(weight.codes());
            let codes = self.codes(weight, integer_type);
            let floats = self.names.fresh("q");
            self.cast(&codes, DataType::Float, &floats);
            floats
        } else {
            self.unpacked(weight.into_codes(), DataType::Float, &shape)
        };
        if !params.zero_point.is_empty() {
            let zero_point: Vec<f32> = params.zero_point.iter().map(|&z| f32::from(z)).collect();
            let zero_point =
                self.constant("z", |n| TensorProto::from_f32(n, &param_shape, &zero_point));
            let zero_point = self.spread(zero_point, &layout);
            let centred = self.names.fresh("q");
            let node = self.node("Sub", &[q, zero_point], &centred);
            self.nodes.push(node);
            q = centred;
        }
        let scale = self.scales(&param_shape, &params.scale, coded_scales.as_ref());
        let scale = self.spread(scale, &layout);
        let node = self.node("Mul", &[q, scale], output);
        self.nodes.push(node);
    }

    /// Scales in `shape`: as they are quantized in turn, or in half precision where that is exact and
    /// saves bytes.
    pub(super) fn scales(
        &mut self,
        shape: &[usize],
        scales: &[f32],
        coded: Option<&QTensor>,
    ) -> String {
        if let Some(coded) = coded {
            return self.coded_scales(coded, shape);
        }
        if ScaleType::of(scales) == ScaleType::F32 || scales.len() * 2 <= WIDENING_BYTES {
            return self.constant("s", |n| TensorProto::from_f32(n, shape, scales));
        }
        let bytes = scales.iter().flat_map(|&s| f16::from_f32(s).to_le_bytes()).collect();
        let narrow =
            self.constant("h", |n| TensorProto::from_raw(n, shape, DataType::Float16, bytes));
        let wide = self.names.fresh("s");
        self.cast(&narrow, DataType::Float, &wide);
        wide
    }

    /// Repeats the parameters of groups, which have [`spread_shape`], along their axis, so that they broadcast.
    pub(super) fn spread(&mut self, param: String, layout: &Layout) -> String {
        let (shape, Granularity::Group { axis, size }) = (layout.shape(), layout.granularity())
        else {
            return param;
        };
        if layout.params() == 1 {
            return param;
        }
        if shape[axis].is_multiple_of(size.get()) {
            // [.., groups, 1, ..] to [.., groups, size, ..]: a `Gather` would need an index of 8 bytes for
            // each element of the axis.
            let mut target = signed(&spread_shape(layout));
            target[axis + 1] = size.get() as i64;
            let target = self.constant("k", |n| TensorProto::from_i64(n, &[target.len()], &target));
            let repeated = self.step("Expand", &[param, target]);
            return self.reshape(repeated, &signed(shape));
        }
        let index: Vec<i64> = (0..shape[axis]).map(|i| (i / size.get()) as i64).collect();
        let index = self.constant("g", |n| TensorProto::from_i64(n, &[index.len()], &index));
        let spread = self.names.fresh("s");
        let node = self
            .node("Gather", &[param, index], &spread)
            .with(AttributeProto::of_int("axis", axis as i64));
        self.nodes.push(node);
        spread
    }
}

/// The shape of parameters that are to be spread.
pub(super) fn spread_shape(layout: &Layout) -> Vec<usize> {
    match layout.granularity() {
        // The smallest form: of a linear model of one column every byte counts.
        _ if layout.params() == 1 => Vec::new(),
        Granularity::Group { axis, size } if layout.shape()[axis].is_multiple_of(size.get()) => {
            let mut shape = layout.param_shape();
            shape.insert(axis + 1, 1);
            shape
        }
        _ => layout.spread_shape(),
    }
}

pub(super) fn signed(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&d| d as i64).collect()
}

fn zero_point_bytes(zero_points: &[u8], integer_type: DataType) -> Vec<u8> {
    let bits = match integer_type {
        DataType::Uint4 => 4,
        DataType::Uint2 => 2,
        _ => return zero_points.to_vec(),
    };
    let codes: Vec<i16> = zero_points.iter().map(|&z| i16::from(z)).collect();
    fields(&PackedInts::pack(&codes, 8, Encoding::Unsigned), bits)
}
