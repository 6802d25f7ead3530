//! Steps on 64-bit integers.

use crate::Result;
use crate::integer::program::Step;
use crate::integer::state::{MAX_RANK, Shape, State, ValueId};
use crate::integer::steps::elementwise::broadcast;

/// What is done with two integers; beyond 64 bits it wraps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Add,
    Sub,
    Mul,
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
        let apply = match self.operation {
            Operation::Add => i64::wrapping_add,
            Operation::Sub => i64::wrapping_sub,
            Operation::Mul => i64::wrapping_mul,
        };
        let mut out = state.take(self.output, shape, shape.len() * 8);
        let (left, right) = (state.ints(a)?, state.ints(b)?);
        let (left_at, right_at) = (Places::new(a_shape, shape), Places::new(b_shape, shape));
        for (place, element) in out.i64s_mut().iter_mut().enumerate() {
            *element = apply(left[left_at.of(place)], right[right_at.of(place)]);
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
