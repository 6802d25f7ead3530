//! The integers themselves: a type of ONNX's, whole bytes, or bit slices and what unpacks them.

use bytes::Bytes;
use fewbits_quant::{Encoding, PackedInts, QTensor};

use super::{QWeightWriter, WeightForm};
use crate::proto::{AttributeProto, DataType, TensorProto};
use crate::qweight::{bit_values, fields};

/// About what the operators that unpack a tensor, and their constants, take in a file.
const UNPACKING_BYTES: usize = 256;

fn whole_bytes(len: usize, width: u8) -> usize {
    len * if width > 8 { 2 } else { 1 }
}

fn sliced_bytes(len: usize, width: u8) -> usize {
    len.div_ceil(8) * usize::from(width)
}

fn slicing_saves(len: usize, width: u8, form: WeightForm) -> bool {
    let saved = whole_bytes(len, width).saturating_sub(sliced_bytes(len, width));
    form != WeightForm::NewestUnsliced && saved > UNPACKING_BYTES
}

impl QWeightWriter<'_> {
    /// The element type that `DequantizeLinear` reads.
    pub(super) fn integer_type(&self, codes: &PackedInts) -> DataType {
        let signed = codes.encoding() != Encoding::Unsigned;
        match (codes.width(), signed) {
            (4, true) if self.opset >= 21 => DataType::Int4,
            (4, false) if self.opset >= 21 => DataType::Uint4,
            (2, true) if self.opset >= 25 => DataType::Int2,
            (2, false) if self.opset >= 25 => DataType::Uint2,
            (9.., _) => DataType::Int16,
            (_, true) => DataType::Int8,
            (_, false) => DataType::Uint8,
        }
    }

    /// A value holding the integers in their own shape.
    pub(super) fn codes(&mut self, weight: QTensor, integer_type: DataType) -> String {
        let shape = weight.layout().shape().to_vec();
        let codes = weight.into_codes();
        let bytes = match (integer_type, codes.width()) {
            (DataType::Int4 | DataType::Uint4, _) => fields(&codes, 4),
            (DataType::Int2 | DataType::Uint2, _) => fields(&codes, 2),
            (_, 8) => codes.into_bytes(),
            _ if self.slices(&codes) => return self.unpacked(codes, integer_type, &shape),
            (DataType::Int16, _) => codes.unpack().into_iter().flat_map(i16::to_le_bytes).collect(),
            _ => codes.unpack().into_iter().map(|code| code as u8).collect(),
        };
        self.constant("q", |n| TensorProto::from_raw(n, &shape, integer_type, bytes))
    }

    /// About what so many integers of a width take in a file, with the operators that unpack them.
    pub fn integer_bytes(len: usize, width: u8, form: WeightForm, opset: i64) -> usize {
        let typed = match (width, form.usable(opset)) {
            (4, 21..) | (2, 25..) => Some(len.div_ceil(usize::from(8 / width))),
            _ => None,
        };
        let sliced =
            slicing_saves(len, width, form).then(|| sliced_bytes(len, width) + UNPACKING_BYTES);
        typed.or(sliced).unwrap_or(whole_bytes(len, width))
    }

    /// Whether integers without a type of their own are bit-sliced: where it is allowed and packing
    /// saves more than the operators that unpack take.
    pub(super) fn slices(&self, codes: &PackedInts) -> bool {
        slicing_saves(codes.len(), codes.width(), self.form)
    }

    /// The chain that unpacks bit-sliced integers to `data_type`, in `shape`.
    pub(super) fn unpacked(
        &mut self,
        codes: PackedInts,
        data_type: DataType,
        shape: &[usize],
    ) -> String {
        let (width, encoding, len) = (codes.width(), codes.encoding(), codes.len());
        let blocks = len.div_ceil(8);
        let packed = self.constant("p", |n| TensorProto {
            raw_data: Some(Bytes::from(codes.into_bytes())),
            ..TensorProto::from_u8(n, &[0], &[])
        });
        let tensor = self.initializers.last_mut().expect("just added");
        tensor.dims = vec![blocks as i64, 1, i64::from(width)];

        let shifts =
            self.constant("k", |n| TensorProto::from_u8(n, &[8, 1], &[0, 1, 2, 3, 4, 5, 6, 7]));
        let two = self.constant("k", |n| TensorProto::from_u8(n, &[], &[2]));
        let shifted = self.step("BitShift", &[packed, shifts]);
        self.nodes.last_mut().expect("just added").attribute =
            vec![AttributeProto::of_string("direction", "RIGHT")];
        let bits = self.step("Mod", &[shifted, two]);

        let values = bit_values(encoding, width);
        let dims = [usize::from(width), 1];
        let mut q = if width <= 8 {
            let values: Vec<i8> = values.iter().map(|&v| v as i8).collect();
            let values = self.constant("k", |n| TensorProto::from_i8(n, &dims, &values));
            self.step("MatMulInteger", &[bits, values])
        } else {
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            let values = self.constant("k", |n| TensorProto::from_f32(n, &dims, &values));
            let floats = self.names.fresh("u");
            self.cast(&bits, DataType::Float, &floats);
            self.step("MatMul", &[floats, values])
        };
        if encoding == Encoding::Sign {
            let one = self.constant("k", |n| TensorProto::from_i32(n, &[], &[1]));
            q = self.step("Sub", &[q, one]);
        }
        if width <= 8 {
            let cast = self.names.fresh("u");
            self.cast(&q, data_type, &cast);
            q = cast;
        }
        if len % 8 != 0 {
            q = self.reshape(q, &[-1]);
            let start = self.constant("k", |n| TensorProto::from_i64(n, &[1], &[0]));
            let end = self.constant("k", |n| TensorProto::from_i64(n, &[1], &[len as i64]));
            q = self.step("Slice", &[q, start, end]);
        }
        let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        self.reshape(q, &shape)
    }
}
