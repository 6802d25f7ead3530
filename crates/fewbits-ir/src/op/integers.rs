//! Arithmetic of 64-bit integers, and labels.

use serde::{Deserialize, Serialize};

use crate::shape::{Broadcast, Shape, axis_of};
use crate::{Result, RuntimeError};

/// What is done with two 64-bit integers; beyond 64 bits it wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntegerBinary {
    /// Their sum.
    Add,
    /// Their difference.
    Sub,
    /// Their product.
    Mul,
    /// A power.
    Pow,
    /// A power whose exponents are floats; what comes of them is cut off.
    PowOfFloats,
}

/// The sums over some axes; beyond 64 bits they wrap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumOfIntegers {
    /// As ONNX counts them, from either end; all if there are none.
    pub axes: Vec<i64>,
    /// Whether the axes stay, of size 1.
    pub keep_axes: bool,
}

/// The sums of all elements up to each, along an axis; beyond 64 bits they wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CumSum {
    /// As ONNX counts it, from either end.
    pub axis: i64,
    /// Which elements are summed.
    pub of: CumSumOf,
    /// From where.
    pub from: From,
}

/// Which elements a running sum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CumSumOf {
    /// Those up to the element, with it.
    UpToThis,
    /// Those before it.
    BeforeThis,
}

/// From where a running sum begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// From the first element.
    First,
    /// From the last.
    Last,
}

/// The second operand of an operator on integers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Right<'a> {
    /// Integers.
    Ints(&'a [i64]),
    /// Floats, as exponents.
    Floats(&'a [f32]),
}

/// Computes an operator on elements that meet; `to` is the shape of the result.
///
/// # Errors
/// If the second operand is not of the type that the operator takes.
pub(super) fn integer_binary(
    operator: IntegerBinary,
    (left, left_shape): (&[i64], Shape),
    (right, right_shape): (Right, Shape),
    to: Shape,
    out: &mut [i64],
) -> Result<()> {
    let at = [Broadcast::new(left_shape, to), Broadcast::new(right_shape, to)];
    let function = match operator {
        IntegerBinary::Add => i64::wrapping_add,
        IntegerBinary::Sub => i64::wrapping_sub,
        IntegerBinary::Mul => i64::wrapping_mul,
        IntegerBinary::Pow | IntegerBinary::PowOfFloats => power,
    };
    match (operator, right) {
        (IntegerBinary::PowOfFloats, Right::Floats(right)) => {
            for (i, out) in out.iter_mut().enumerate() {
                let (base, exponent) = (left[at[0].at(i)], right[at[1].at(i)]);
                *out = (base as f64).powf(exponent.into()) as i64;
            }
            Ok(())
        }
        (IntegerBinary::PowOfFloats, _) | (_, Right::Floats(_)) => {
            let reason = format!("{operator:?} of integers was given another type");
            Err(RuntimeError::Run { reason })
        }
        (_, Right::Ints(right)) => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = function(left[at[0].at(i)], right[at[1].at(i)]);
            }
            Ok(())
        }
    }
}

/// Raises an integer to an integer. One over it is cut off towards zero; over zero it is the largest.
fn power(base: i64, exponent: i64) -> i64 {
    match (base, u64::try_from(exponent)) {
        (_, Ok(exponent)) => {
            let (mut product, mut factor, mut left) = (1_i64, base, exponent);
            while left > 0 {
                if left % 2 == 1 {
                    product = product.wrapping_mul(factor);
                }
                factor = factor.wrapping_mul(factor);
                left /= 2;
            }
            product
        }
        (0, Err(_)) => i64::MAX,
        (1, Err(_)) => 1,
        (-1, Err(_)) => 1 - 2 * (exponent & 1),
        (_, Err(_)) => 0,
    }
}

impl SumOfIntegers {
    /// The shape of the sums, and the same with all axes.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn shapes(&self, from: Shape) -> Result<(Shape, Shape)> {
        let rank = from.dims().len();
        let mut is_summed = vec![self.axes.is_empty(); rank];
        for &axis in &self.axes {
            is_summed[axis_of(axis, rank)?] = true;
        }
        let sizes = from.dims().iter().zip(&is_summed);
        let full: Vec<usize> =
            sizes.clone().map(|(&size, &summed)| if summed { 1 } else { size }).collect();
        let full = Shape::new(&full)?;
        let kept: Vec<usize> =
            sizes.filter(|(_, summed)| !**summed).map(|(&size, _)| size).collect();
        Ok((if self.keep_axes { full } else { Shape::new(&kept)? }, full))
    }

    /// Sums `values` of shape `from`; `full` is the shape of the sums with all axes.
    pub fn sum(values: &[i64], from: Shape, full: Shape, sums: &mut [i64]) {
        sums.fill(0);
        let at = Broadcast::new(full, from);
        for (i, &value) in values.iter().enumerate() {
            let sum = &mut sums[at.at(i)];
            *sum = sum.wrapping_add(value);
        }
    }
}

impl CumSum {
    /// Writes the running sums of `values` of shape `shape`.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn run(&self, values: &[i64], shape: Shape, sums: &mut [i64]) -> Result<()> {
        let dims = shape.dims();
        let axis = axis_of(self.axis, dims.len())?;
        let (count, pitch) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
        let lines = shape.len().checked_div(count).unwrap_or(0);
        for line in 0..lines {
            let first = line / pitch * count * pitch + line % pitch;
            let mut sum = 0_i64;
            for step in 0..count {
                let step = if self.from == From::First { step } else { count - 1 - step };
                let at = first + step * pitch;
                let with_this = sum.wrapping_add(values[at]);
                sums[at] = if self.of == CumSumOf::UpToThis { with_this } else { sum };
                sum = with_this;
            }
        }
        Ok(())
    }
}

/// Finds the position of the greatest float of each row of `width`, the first of equal ones.
///
/// # Errors
/// If rows have no elements.
pub fn arg_max(scores: &[f32], width: usize, out: &mut [i64]) -> Result<()> {
    if width == 0 {
        return Err(RuntimeError::Run { reason: "the greatest of no scores".to_string() });
    }
    for (row, position) in scores.chunks_exact(width).zip(out) {
        let mut best = 0;
        for (i, &score) in row.iter().enumerate() {
            if score > row[best] {
                best = i;
            }
        }
        *position = best as i64;
    }
    Ok(())
}

/// Looks the label of each class up; negative ones count from the end.
///
/// # Errors
/// If there is no such class.
pub fn labels(labels: &[i64], classes: &[i64], out: &mut [i64]) -> Result<()> {
    let count = labels.len() as i64;
    for (&class, label) in classes.iter().zip(out) {
        let index = if class < 0 { class + count } else { class };
        let found = usize::try_from(index).ok().and_then(|index| labels.get(index));
        *label = *found
            .ok_or_else(|| RuntimeError::Run { reason: format!("class {class} of {count}") })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_those_of_integers() {
        assert_eq!(power(3, 4), 81);
        assert_eq!(power(-2, 63), i64::MIN);
        assert_eq!(power(7, 0), 1);
        assert_eq!(power(0, 0), 1);
        assert_eq!(power(2, 64), 0);
        assert_eq!([power(5, -1), power(1, -3), power(-1, -3), power(-1, -2)], [0, 1, -1, 1]);
    }
}
