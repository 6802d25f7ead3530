//! Small floats: their numbers by a cast from a type of ONNX's, or from a table.
//!
//! `Cast` and `Mul` rather than `DequantizeLinear`: runtimes fold them when they load the model, while
//! onnxruntime dequantizes constant 8-bit floats anew at every call, at fifty times the cost of the
//! product that reads them. It has neither `FLOAT4E2M1` nor `FLOAT8E8M0`; what a code of 4 bits or of a
//! power of two stands for is looked up in a table of all.

use fewbits_quant::{Encoding, FloatFormat, Granularity, PackedInts, QTensor};

use super::QWeightWriter;
use super::dequantize::{signed, spread_shape};
use crate::proto::{DataType, TensorProto};
use crate::qweight::fields;

/// The opset whose `Cast` reads floats of 8 bits.
const FLOAT8_OPSET: i64 = 19;
/// The opset whose `Cast` reads integers of 4 bits.
const UINT4_OPSET: i64 = 21;

impl QWeightWriter<'_> {
    /// The product of small floats and their scales.
    pub(super) fn small_floats(&mut self, weight: &QTensor, output: &str) {
        let numbers = self.numbers(weight.codes(), weight.layout().shape());
        let (layout, scales) = (weight.layout(), &weight.params().scale);
        let scale = self.scales(&spread_shape(layout), scales, weight.coded_scales());
        let scale = self.spread(scale, layout);
        let node = self.node("Mul", &[numbers, scale], output);
        self.nodes.push(node);
    }

    /// Scales that are quantized in turn, in `shape`.
    pub(super) fn coded_scales(&mut self, coded: &QTensor, shape: &[usize]) -> String {
        let numbers_shape = match coded.layout().granularity() {
            // One scale of the scales broadcasts to any shape.
            Granularity::Tensor => shape,
            _ => coded.layout().shape(),
        };
        let mut scales = self.numbers(coded.codes(), numbers_shape);
        let of_scales = &coded.params().scale;
        if of_scales[..] != [1.0] {
            let dims: &[usize] = match coded.layout().granularity() {
                Granularity::Tensor => &[],
                _ => &[of_scales.len(), 1],
            };
            let factor = self.constant("s", |n| TensorProto::from_f32(n, dims, of_scales));
            scales = self.step("Mul", &[scales, factor]);
        }
        match numbers_shape == shape {
            true => scales,
            false => self.reshape(scales, &signed(shape)),
        }
    }

    /// The numbers that codes stand for, without scales, in `shape`.
    fn numbers(&mut self, codes: &PackedInts, shape: &[usize]) -> String {
        if let Some(data_type) = cast_type(codes.encoding(), self.opset) {
            let bytes = codes.bytes().to_vec();
            let narrow = self.constant("q", |n| TensorProto::from_raw(n, shape, data_type, bytes));
            let numbers = self.names.fresh("u");
            self.cast(&narrow, DataType::Float, &numbers);
            return numbers;
        }
        let table = codes.encoding().floats().expect("what is no integer is a float");
        let table = self.constant("t", |n| TensorProto::from_f32(n, &[table.len()], &table));
        let index = self.indices(codes, shape);
        self.step("Gather", &[table, index])
    }

    /// Codes as INT32, which look something up.
    fn indices(&mut self, codes: &PackedInts, shape: &[usize]) -> String {
        let (data_type, bytes) = match codes.width() {
            8 => (DataType::Uint8, codes.bytes().to_vec()),
            4 if self.opset >= UINT4_OPSET => (DataType::Uint4, fields(codes, 4)),
            _ if self.slices(codes) => return self.unpacked(codes.clone(), DataType::Int32, shape),
            _ => (DataType::Uint8, codes.unpack().into_iter().map(|code| code as u8).collect()),
        };
        let narrow = self.constant("q", |n| TensorProto::from_raw(n, shape, data_type, bytes));
        let index = self.names.fresh("u");
        self.cast(&narrow, DataType::Int32, &index);
        index
    }
}

/// The type that a `Cast` at an opset widens, for codes of 8 bits.
fn cast_type(encoding: Encoding, opset: i64) -> Option<DataType> {
    match encoding {
        Encoding::Unsigned => Some(DataType::Uint8),
        Encoding::Float(FloatFormat::E4m3) if opset >= FLOAT8_OPSET => Some(DataType::Float8e4m3fn),
        Encoding::Float(FloatFormat::E5m2) if opset >= FLOAT8_OPSET => Some(DataType::Float8e5m2),
        _ => None,
    }
}
