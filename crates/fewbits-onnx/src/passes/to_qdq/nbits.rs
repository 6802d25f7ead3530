//! `MatMulNBits` as a float product.

use super::emit::{Emit, Why};
use super::{MICROSOFT, Outcome, Rewritten, input, optional, output, rewrite};
use crate::Model;
use crate::proto::{DataType, NodeProto, TensorProto};

/// Replaces every `MatMulNBits` of the main graph that has constant weights by a `MatMul` with the
/// weights as floats, for executors without it: they take as much memory as before the
/// quantization. Activations stay floats, whatever `accuracy_level` allows.
///
/// Weights that are grouped by an index, laid out for one runtime, or of another width than 2, 4
/// and 8 bits stay.
pub fn unpack_nbits(model: &mut Model) -> Rewritten {
    rewrite(model, |node, emit| {
        match node.op_type() == "MatMulNBits" && node.domain() == MICROSOFT {
            true => replace(node, emit),
            false => Ok(Outcome::Untouched),
        }
    })
}

fn replace(node: &NodeProto, emit: &mut Emit) -> Result<Outcome, Why> {
    let (result, a) = (output(node)?, input(node, 0)?);
    if !optional(node, 4).is_empty() {
        return Err("its weights are grouped by an index".into());
    }
    if node.int("weight_prepacked", 0) != 0 {
        return Err("its weights are laid out for one runtime; export the model again".into());
    }
    let constant = |n: usize| {
        let name = input(node, n)?;
        emit.constant(name).ok_or_else(|| format!("its input '{name}' is not constant"))
    };
    let layout = Layout::of(node)?;
    let zero_points = if optional(node, 3).is_empty() { None } else { Some(constant(3)?) };
    let weight = layout
        .unpack(constant(1)?, constant(2)?, zero_points)
        .ok_or("its weights do not fit its attributes; export the model again")?;
    let weight = emit.add(TensorProto::from_f32("w", &[layout.k, layout.n], &weight));
    let product = emit.op("MatMul", &[a, &weight], "y", Vec::new());
    emit.name_after(node);
    match optional(node, 5) {
        "" => {}
        bias => {
            emit.op("Add", &[&product, bias], "y", Vec::new());
        }
    }
    emit.finish(result);
    Ok(Outcome::Replaced)
}

/// No model has a larger dimension, and products of two cannot overflow.
const MAX_SIZE: usize = 1 << 28;

/// How the weight `[n, k]` is cut into blocks along `k`.
struct Layout {
    k: usize,
    n: usize,
    block: usize,
    bits: usize,
}

impl Layout {
    fn of(node: &NodeProto) -> Result<Layout, Why> {
        let size = |name: &str, default: i64| {
            let size = usize::try_from(node.int(name, default))
                .ok()
                .filter(|s| (1..=MAX_SIZE).contains(s));
            size.ok_or_else(|| format!("its attribute {name} is missing or wrong"))
        };
        let (k, n) = (size("K", 0)?, size("N", 0)?);
        let (block, bits) = (size("block_size", 0)?, size("bits", 4)?);
        if !matches!(bits, 2 | 4 | 8) || !(block * bits).is_multiple_of(8) {
            return Err(format!("its weights have {bits} bits in blocks of {block}"));
        }
        Ok(Layout { k, n, block, bits })
    }

    /// The weight, transposed: `[k, n]`.
    fn unpack(
        &self,
        packed: &TensorProto,
        scales: &TensorProto,
        zero_points: Option<&TensorProto>,
    ) -> Option<Vec<f32>> {
        let Layout { k, n, block, bits } = *self;
        let blocks = k.div_ceil(block);
        let block_bytes = block * bits / 8;
        let rows = Fields { bytes: bytes(packed)?, bits, row_bytes: blocks * block_bytes };
        let scales = scales.floats().ok()?;
        let zero_points = match zero_points {
            None => ZeroPoints::One((1 << (bits - 1)) as f32),
            Some(z) if z.element_type().ok()? == DataType::Uint8 => {
                let row_bytes = (blocks * bits).div_ceil(8);
                ZeroPoints::Packed(Fields { bytes: bytes(z)?, bits, row_bytes })
            }
            Some(z) => ZeroPoints::Floats(z.floats().ok()?),
        };
        let per_block = n.checked_mul(blocks)?;
        let zero_points_fit = match &zero_points {
            ZeroPoints::One(_) => true,
            ZeroPoints::Packed(fields) => fields.has(n),
            ZeroPoints::Floats(floats) => floats.len() == per_block,
        };
        if !(rows.has(n) && scales.len() == per_block && zero_points_fit) {
            return None;
        }
        let mut weight = vec![0f32; k.checked_mul(n)?];
        for row in 0..n {
            for column in 0..k {
                let b = column / block;
                let zero_point = match &zero_points {
                    ZeroPoints::One(z) => *z,
                    ZeroPoints::Packed(fields) => f32::from(fields.get(row, b)),
                    ZeroPoints::Floats(floats) => floats[row * blocks + b],
                };
                let q = f32::from(rows.get(row, column));
                weight[column * n + row] = (q - zero_point) * scales[row * blocks + b];
            }
        }
        Some(weight)
    }
}

enum ZeroPoints {
    One(f32),
    Packed(Fields),
    Floats(Vec<f32>),
}

/// Rows of unsigned integers, the first in the lowest bits of a byte; each row is whole bytes.
struct Fields {
    bytes: Vec<u8>,
    bits: usize,
    row_bytes: usize,
}

impl Fields {
    fn has(&self, rows: usize) -> bool {
        rows.checked_mul(self.row_bytes) == Some(self.bytes.len())
    }

    fn get(&self, row: usize, column: usize) -> u8 {
        let bit = column * self.bits;
        let byte = self.bytes[row * self.row_bytes + bit / 8];
        (byte >> (bit % 8)) & (0xff >> (8 - self.bits))
    }
}

fn bytes(tensor: &TensorProto) -> Option<Vec<u8>> {
    (tensor.element_type().ok()? == DataType::Uint8)
        .then(|| tensor.ints().ok())?
        .map(|ints| ints.into_iter().map(|v| v as u8).collect())
}
