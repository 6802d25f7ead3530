//! Steps on 64-bit integers.

use crate::Result;
use crate::integer::program::Step;
use crate::integer::state::{MAX_RANK, Shape, State, ValueId};
use crate::integer::steps::elementwise::broadcast;
use crate::integer::steps::place_of;

/// What is done with two integers; beyond 64 bits it wraps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Add,
    Sub,
    Mul,
    Pow,
    /// The exponents are floats; what comes of them is cut off.
    PowOfFloats,
}

/// An operation on elements that meet.
pub(crate) struct IntegerBinary {
    pub inputs: [ValueId; 2],
    pub output: ValueId,
    pub operation: Operation,
}

impl Step for IntegerBinary {
    fn run(&self, state: &mut State) -> Result<()> {
        let [a, b] = self.inputs;
        let (a_shape, b_shape) = (state.shape(a), state.shape(b));
        let shape = broadcast(a_shape, b_shape)?;
        let mut out = state.take(self.output, shape, shape.len() * 8);
        let meet = Meeting {
            left: state.ints(a)?,
            places: [Places::new(a_shape, shape), Places::new(b_shape, shape)],
            out: out.i64s_mut(),
        };
        match self.operation {
            Operation::Add => meet.apply(state.ints(b)?, i64::wrapping_add),
            Operation::Sub => meet.apply(state.ints(b)?, i64::wrapping_sub),
            Operation::Mul => meet.apply(state.ints(b)?, i64::wrapping_mul),
            Operation::Pow => meet.apply(state.ints(b)?, power),
            Operation::PowOfFloats => meet.apply(state.floats(b), |base, exponent: f32| {
                (base as f64).powf(exponent.into()) as i64
            }),
        }
        state.give(self.output, out);
        Ok(())
    }
}

/// Integers that meet others, and where.
struct Meeting<'a> {
    left: &'a [i64],
    places: [Places; 2],
    out: &'a mut [i64],
}

impl Meeting<'_> {
    fn apply<B: Copy>(self, right: &[B], operation: impl Fn(i64, B) -> i64) {
        let [left_at, right_at] = self.places;
        for (place, element) in self.out.iter_mut().enumerate() {
            *element = operation(self.left[left_at.of(place)], right[right_at.of(place)]);
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

/// The sums over some axes; beyond 64 bits they wrap.
pub(crate) struct IntegerSum {
    pub input: ValueId,
    pub output: ValueId,
    /// As ONNX counts them, from either end; all if there are none.
    pub axes: Vec<i64>,
    /// Whether the axes stay, of size 1.
    pub keep_axes: bool,
}

impl Step for IntegerSum {
    fn run(&self, state: &mut State) -> Result<()> {
        let from = state.shape(self.input);
        let rank = from.dims().len();
        let mut is_summed = vec![self.axes.is_empty(); rank];
        for &axis in &self.axes {
            is_summed[place_of(axis, rank)?] = true;
        }
        let sized = |summed: usize| -> Vec<usize> {
            let sizes = from.dims().iter().zip(&is_summed);
            sizes.map(|(&size, &is_summed)| if is_summed { summed } else { size }).collect()
        };
        let full = super::shape(&sized(1))?;
        let to = match self.keep_axes {
            true => full,
            false => {
                let kept = from.dims().iter().zip(&is_summed).filter(|(_, summed)| !**summed);
                super::shape(&kept.map(|(&size, _)| size).collect::<Vec<_>>())?
            }
        };
        let mut out = state.take(self.output, to, to.len() * 8);
        let sums = out.i64s_mut();
        sums.fill(0);
        let places = Places::new(full, from);
        for (place, &value) in state.ints(self.input)?.iter().enumerate() {
            let sum = &mut sums[places.of(place)];
            *sum = sum.wrapping_add(value);
        }
        state.give(self.output, out);
        Ok(())
    }
}

/// The sums of all elements up to each, along an axis; beyond 64 bits they wrap.
pub(crate) struct IntegerRunningSum {
    pub input: ValueId,
    pub output: ValueId,
    /// As ONNX counts it, from either end.
    pub axis: i64,
    pub which: Which,
    pub from: From,
}

/// Which elements a running sum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    UpToThis,
    BeforeThis,
}

/// From where a running sum begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    First,
    Last,
}

impl Step for IntegerRunningSum {
    fn run(&self, state: &mut State) -> Result<()> {
        let shape = state.shape(self.input);
        let dims = shape.dims();
        let axis = place_of(self.axis, dims.len())?;
        let (count, pitch) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
        let mut out = state.take(self.output, shape, shape.len() * 8);
        let sums = out.i64s_mut();
        let input = state.ints(self.input)?;
        let lines = if shape.len() == 0 { 0 } else { shape.len() / count };
        for line in 0..lines {
            let first = line / pitch * count * pitch + line % pitch;
            let mut sum = 0_i64;
            for step in 0..count {
                let step = if self.from == From::First { step } else { count - 1 - step };
                let place = first + step * pitch;
                let with_this = sum.wrapping_add(input[place]);
                sums[place] = if self.which == Which::UpToThis { with_this } else { sum };
                sum = with_this;
            }
        }
        state.give(self.output, out);
        Ok(())
    }
}

/// Where the elements of a value lie that is broadcast.
struct Places {
    /// The sizes of the result, and how far the value's elements lie apart along each of its axes.
    axes: Vec<(usize, usize)>,
}

impl Places {
    fn new(from: Shape, to: Shape) -> Places {
        let missing = to.dims().len() - from.dims().len();
        let mut pitches = [0; MAX_RANK];
        let mut pitch = 1;
        for (axis, &size) in from.dims().iter().enumerate().rev() {
            pitches[missing + axis] = if size == 1 { 0 } else { pitch };
            pitch *= size;
        }
        Places { axes: to.dims().iter().copied().zip(pitches).collect() }
    }

    fn of(&self, mut place: usize) -> usize {
        let mut found = 0;
        for &(size, pitch) in self.axes.iter().rev() {
            found += place % size * pitch;
            place /= size;
        }
        found
    }
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
