//! The factors of a product in floats, cut so that their products add up exactly.

use super::known::Known;
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, NodeProto};

/// Floats hold every integer below.
const EXACT: u64 = 1 << 24;
/// The largest difference of two bytes.
const BYTE: u64 = 255;
/// The largest magnitude of a nibble: a difference of bytes is 16 times -16 to 15, and 0 to 15.
const NIBBLE: u64 = 16;
/// Rows so long add up exactly if both factors are nibbles.
const PIECE: usize = (EXACT / (NIBBLE * NIBBLE)) as usize - 1;

/// What a constant factor can make of a sum.
struct Sums {
    /// The products of a sum.
    length: usize,
    /// The largest sum of the magnitudes that meet one element of the other factor.
    largest: u64,
}

/// A factor, as terms that add up to it: values, and what each is multiplied by.
type Terms = Vec<(String, i32)>;

/// A `MatMulInteger`.
pub(super) fn matrices(node: &NodeProto, known: &Known, emit: &mut Emit) {
    let [a, b, a_zero, b_zero] = inputs(node);
    let sums = column_sums(b, b_zero, known);
    let a_zero = zero_point(a_zero, Along::Rows, known, emit);
    let b_zero = zero_point(b_zero, Along::Columns, known, emit);
    let (a, b) = (centered(a, a_zero, emit), centered(b, b_zero, emit));
    let pieces = match &sums {
        Some(sums) if cut(Some(sums)) == Cut::Pieces => {
            let starts = (0..sums.length).step_by(PIECE);
            starts.map(|start| (start, sums.length.min(start + PIECE))).collect()
        }
        _ => vec![(0, 0)],
    };
    let mut parts = Vec::new();
    for piece in &pieces {
        let (a, b) = match pieces.as_slice() {
            [_] => (a.clone(), b.clone()),
            _ => (slice(&a, -1, *piece, emit), slice(&b, -2, *piece, emit)),
        };
        let (left, right) = terms(a, b, cut(sums.as_ref()), emit);
        for (a, by) in &left {
            for (b, and_by) in &right {
                parts.push((emit.op("MatMul", &[a, b]), by * and_by));
            }
        }
    }
    add_up(parts, emit);
    emit.finish(node);
}

/// A `ConvInteger`. What pads it is the zero point of the images, which is 0 once it is taken off.
pub(super) fn convolution(node: &NodeProto, known: &Known, emit: &mut Emit) {
    let [x, w, x_zero, w_zero] = inputs(node);
    let sums = filter_sums(w, w_zero, known);
    let x_zero = zero_point(x_zero, Along::Columns, known, emit);
    let x = centered(x, x_zero, emit);
    let filters = emit.cast(w, DataType::Float);
    let filters = match w_zero {
        "" => filters,
        zero => {
            // One for all filters, or one for each.
            let rows = emit.op("Flatten", &[&filters]);
            let zero = emit.cast(zero, DataType::Float);
            let zero = emit.reshape(&zero, &[-1, 1]);
            let rows = emit.op("Sub", &[&rows, &zero]);
            let shape = emit.op("Shape", &[&filters]);
            emit.op("Reshape", &[&rows, &shape])
        }
    };
    let mut attributes = node.attribute.clone();
    if node.attr("kernel_shape").is_none()
        && let Some([_, _, kernel @ ..]) = known.constant(w).map(|w| w.dims.as_slice())
    {
        attributes.push(AttributeProto::of_ints("kernel_shape", kernel));
    }
    let (left, right) = terms(x, filters, cut(sums.as_ref()), emit);
    let mut parts = Vec::new();
    for (x, by) in &left {
        for (w, and_by) in &right {
            parts.push((emit.op_with("Conv", &[x, w], attributes.clone()), by * and_by));
        }
    }
    add_up(parts, emit);
    emit.finish(node);
}

/// The factors and their zero points, empty where there is none.
fn inputs(node: &NodeProto) -> [&str; 4] {
    std::array::from_fn(|n| node.input.get(n).map_or("", String::as_str))
}

/// How far factors must be cut.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    Nothing,
    /// The activations into nibbles.
    Left,
    /// Both factors into nibbles.
    Both,
    /// Both, and rows into pieces.
    Pieces,
}

fn cut(sums: Option<&Sums>) -> Cut {
    match sums {
        Some(s) if s.largest.saturating_mul(BYTE) < EXACT => Cut::Nothing,
        Some(s) if s.largest.saturating_mul(NIBBLE) < EXACT => Cut::Left,
        Some(s) if s.length > PIECE => Cut::Pieces,
        _ => Cut::Both,
    }
}

fn terms(left: String, right: String, cut: Cut, emit: &mut Emit) -> (Terms, Terms) {
    let whole = |value: String| vec![(value, 1)];
    match cut {
        Cut::Nothing => (whole(left), whole(right)),
        Cut::Left => (nibbles(&left, emit), whole(right)),
        Cut::Both | Cut::Pieces => (nibbles(&left, emit), nibbles(&right, emit)),
    }
}

/// A difference of bytes as two nibbles.
fn nibbles(value: &str, emit: &mut Emit) -> Terms {
    let sixteen = emit.float(16.0);
    let shifted = emit.op("Div", &[value, &sixteen]);
    let high = emit.op("Floor", &[&shifted]);
    let back = emit.op("Mul", &[&high, &sixteen]);
    let low = emit.op("Sub", &[value, &back]);
    vec![(low, 1), (high, 16)]
}

/// The sum of all parts, each times its factor, in int32.
fn add_up(parts: Vec<(String, i32)>, emit: &mut Emit) {
    let mut total: Option<String> = None;
    for (part, by) in parts {
        let mut part = emit.cast(&part, DataType::Int32);
        if by != 1 {
            let by = emit.int32(by);
            part = emit.op("Mul", &[&part, &by]);
        }
        total = Some(match total {
            None => part,
            Some(total) => emit.op("Add", &[&total, &part]),
        });
    }
}

/// Elements `from` to `to` along an axis.
fn slice(value: &str, axis: i64, (from, to): (usize, usize), emit: &mut Emit) -> String {
    let [from, to, axis] = [from as i64, to as i64, axis].map(|n| emit.ints(&[n]));
    emit.op("Slice", &[value, &from, &to, &axis])
}

/// The integers less their zero point, as floats.
fn centered(value: &str, zero_point: Option<String>, emit: &mut Emit) -> String {
    let floats = emit.cast(value, DataType::Float);
    match zero_point {
        None => floats,
        Some(zero) => emit.op("Sub", &[&floats, &zero]),
    }
}

/// What a zero point of one dimension is of.
enum Along {
    Rows,
    Columns,
}

/// A zero point as floats, in the shape in which it is taken off.
fn zero_point(name: &str, along: Along, known: &Known, emit: &mut Emit) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let floats = emit.cast(name, DataType::Float);
    let one = known.constant(name).is_some_and(|t| t.dims.iter().product::<i64>() == 1);
    Some(match along {
        // It must not add an axis.
        _ if one => emit.reshape(&floats, &[]),
        Along::Rows if known.rank(name) == Some(1) => emit.reshape(&floats, &[-1, 1]),
        _ => floats,
    })
}

/// What the columns of a constant matrix can make of a sum.
fn column_sums(b: &str, zero: &str, known: &Known) -> Option<Sums> {
    let shape = known.constant(b)?.shape().ok()?;
    let magnitudes = magnitudes(b, zero, known)?;
    let (length, columns) = match shape.as_slice() {
        [length] => (*length, 1),
        [.., length, columns] => (*length, *columns),
        [] => return None,
    };
    let matrices = magnitudes.chunks_exact((length * columns).max(1));
    let largest = matrices.flat_map(|matrix| {
        let mut sums = vec![0; columns];
        for row in matrix.chunks_exact(columns) {
            sums.iter_mut().zip(row).for_each(|(sum, m)| *sum += m);
        }
        sums
    });
    Some(Sums { length, largest: largest.max().unwrap_or(0) })
}

/// What constant filters can make of a sum.
fn filter_sums(w: &str, zero: &str, known: &Known) -> Option<Sums> {
    let filters = *known.constant(w)?.shape().ok()?.first()?;
    let magnitudes = magnitudes(w, zero, known)?;
    let length = magnitudes.len() / filters.max(1);
    let largest = magnitudes.chunks_exact(length.max(1)).map(|filter| filter.iter().sum()).max();
    Some(Sums { length, largest: largest.unwrap_or(0) })
}

/// How far each element of a constant is at most from its zero point.
fn magnitudes(name: &str, zero: &str, known: &Known) -> Option<Vec<u64>> {
    let integers = known.constant(name)?.ints().ok()?;
    let zeros = match zero {
        "" => vec![0],
        zero => match known.constant(zero) {
            Some(zeros) => zeros.ints().ok()?,
            None => return Some(vec![BYTE; integers.len()]),
        },
    };
    let (low, high) = (*zeros.iter().min()?, *zeros.iter().max()?);
    Some(integers.iter().map(|q| q.abs_diff(low).max(q.abs_diff(high))).collect())
}
