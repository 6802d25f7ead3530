//! `MatMulNBits` of `com.microsoft`: how its weights lie.
//!
//! ONNX Runtime, ContribOperators.md: `Y = A Bᵀ`, where row `n` of `B` is cut into blocks along the
//! axis of length `K` that the product sums over. The last block is filled up.

use fewbits_quant::{Encoding, Granularity, Layout, PackedInts, QTensor, QuantParams};

use crate::graph::Index;
use crate::proto::{DataType, NodeProto, TensorProto};

/// No model has a larger dimension, and products of two cannot overflow.
const MAX_SIZE: usize = 1 << 28;

/// How the weight `[n, k]` of a node is cut into blocks along `k`.
pub(crate) struct Blocks {
    pub k: usize,
    pub n: usize,
    /// Elements of a block.
    pub size: usize,
    pub bits: usize,
}

impl Blocks {
    /// What a `MatMulNBits` says of its weight, or why that is not known.
    pub(crate) fn of(node: &NodeProto) -> Result<Blocks, String> {
        if node.input.get(4).is_some_and(|index| !index.is_empty()) {
            return Err("its weights are grouped by an index".into());
        }
        if node.int("weight_prepacked", 0) != 0 {
            return Err("its weights are laid out for one runtime; export the model again".into());
        }
        let number = |name: &str, default: i64| {
            let size = usize::try_from(node.int(name, default))
                .ok()
                .filter(|s| (1..=MAX_SIZE).contains(s));
            size.ok_or_else(|| format!("its attribute {name} is missing or wrong"))
        };
        let (k, n) = (number("K", 0)?, number("N", 0)?);
        let (size, bits) = (number("block_size", 0)?, number("bits", 4)?);
        if !matches!(bits, 2 | 4 | 8) || !(size * bits).is_multiple_of(8) {
            return Err(format!("its weights have {bits} bits in blocks of {size}"));
        }
        Ok(Blocks { k, n, size, bits })
    }

    /// Blocks of a row.
    pub(crate) fn per_row(&self) -> usize {
        self.k.div_ceil(self.size)
    }

    /// Bytes of a block.
    pub(crate) fn bytes(&self) -> usize {
        self.size * self.bits / 8
    }

    /// The integers of the weight.
    pub(crate) fn codes(&self, packed: &TensorProto) -> Option<Fields> {
        let row_bytes = self.per_row() * self.bytes();
        Fields { bytes: bytes(packed)?, bits: self.bits, row_bytes }.checked(self.n)
    }

    /// The integers that stand for 0, one a block.
    pub(crate) fn zero_points(&self, packed: &TensorProto) -> Option<Fields> {
        let row_bytes = (self.per_row() * self.bits).div_ceil(8);
        Fields { bytes: bytes(packed)?, bits: self.bits, row_bytes }.checked(self.n)
    }

    /// The integer that stands for 0 where none is given.
    pub(crate) fn middle(&self) -> u8 {
        1 << (self.bits - 1)
    }
}

/// Rows of unsigned integers, the first in the lowest bits of a byte; each row is whole bytes.
pub(crate) struct Fields {
    bytes: Vec<u8>,
    bits: usize,
    row_bytes: usize,
}

impl Fields {
    /// Rows of zeros.
    pub(crate) fn new(rows: usize, row_bytes: usize, bits: usize) -> Fields {
        Fields { bytes: vec![0; rows * row_bytes], bits, row_bytes }
    }

    fn checked(self, rows: usize) -> Option<Fields> {
        (rows.checked_mul(self.row_bytes)? == self.bytes.len()).then_some(self)
    }

    pub(crate) fn get(&self, row: usize, column: usize) -> u8 {
        let (byte, shift) = self.place(row, column);
        (self.bytes[byte] >> shift) & (0xff >> (8 - self.bits))
    }

    /// Writes an integer where a zero is.
    pub(crate) fn set(&mut self, row: usize, column: usize, value: u8) {
        let (byte, shift) = self.place(row, column);
        self.bytes[byte] |= value << shift;
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn place(&self, row: usize, column: usize) -> (usize, usize) {
        let bit = column * self.bits;
        (row * self.row_bytes + bit / 8, bit % 8)
    }
}

fn bytes(tensor: &TensorProto) -> Option<Vec<u8>> {
    (tensor.element_type().ok()? == DataType::Uint8)
        .then(|| tensor.ints().ok())?
        .map(|ints| ints.into_iter().map(|v| v as u8).collect())
}

/// The weight `[k, n]` of a `MatMulNBits` with constant integers; `scale` gives the constants behind
/// the name of scales. Zero points that are floats have no [`QTensor`].
pub(super) fn read(
    node: &NodeProto,
    index: &Index,
    scale: impl Fn(&str) -> Option<Vec<f32>>,
) -> Option<QTensor> {
    let blocks = Blocks::of(node).ok()?;
    let codes = blocks.codes(index.initializer(node.input.get(1)?)?)?;
    let scales = scale(node.input.get(2)?)?;
    let zero_points = match node.input.get(3).map(String::as_str) {
        None | Some("") => None,
        Some(name) => Some(blocks.zero_points(index.initializer(name)?)?),
    };
    let (k, n, per_row) = (blocks.k, blocks.n, blocks.per_row());
    if scales.len() != n.checked_mul(per_row)? {
        return None;
    }
    let size = std::num::NonZeroUsize::new(blocks.size)?;
    let layout = Layout::new(&[k, n], Granularity::Group { axis: 0, size }).ok()?;
    let params = (0..per_row).flat_map(|block| (0..n).map(move |row| (row, block)));
    let scale = params.clone().map(|(row, block)| scales[row * per_row + block]).collect();
    let elements = (0..k).flat_map(|column| (0..n).map(move |row| (row, column)));
    let width = blocks.bits as u8;
    let (codes, zero_point, encoding): (Vec<i16>, _, _) = match zero_points {
        // The middle is the zero of symmetric integers.
        None => {
            let middle = i16::from(blocks.middle());
            let signed = elements.map(|(row, column)| i16::from(codes.get(row, column)) - middle);
            (signed.collect(), Vec::new(), Encoding::TwosComplement)
        }
        Some(zero_points) => (
            elements.map(|(row, column)| i16::from(codes.get(row, column))).collect(),
            params.map(|(row, block)| zero_points.get(row, block)).collect(),
            Encoding::Unsigned,
        ),
    };
    let codes = PackedInts::pack(&codes, width, encoding);
    QTensor::new(layout, QuantParams { scale, zero_point }, codes)
}
