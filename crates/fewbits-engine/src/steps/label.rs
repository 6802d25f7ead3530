//! From scores to labels.

use fewbits_ir::{Shape, ValueId, op};

use crate::Result;
use crate::state::State;
use crate::steps::Kernel;

/// The position of the greatest score of each row.
pub(crate) struct ArgMax {
    pub input: ValueId,
    pub output: ValueId,
    /// Whether the axis stays, of size 1.
    pub keep_axis: bool,
}

impl Kernel for ArgMax {
    fn run(&self, state: &mut State) -> Result<()> {
        let from = state.shape(self.input);
        let to = match self.keep_axis {
            true => from.with_last(1),
            false => Shape::new(from.dims().split_last().map_or(&[], |(_, rows)| rows))?,
        };
        let mut out = state.take(self.output, to, to.len() * 8);
        let found = op::arg_max(state.floats(self.input), from.last(), out.i64s_mut());
        state.give_ints(self.output, out);
        found
    }
}

/// 1 where a score is above the threshold, 0 elsewhere.
pub(crate) struct Threshold {
    pub input: ValueId,
    pub output: ValueId,
    pub threshold: f32,
}

impl Kernel for Threshold {
    fn run(&self, state: &mut State) -> Result<()> {
        let shape = state.shape(self.input);
        let mut out = state.take(self.output, shape, shape.len() * 8);
        for (&score, label) in state.floats(self.input).iter().zip(out.i64s_mut()) {
            *label = i64::from(score > self.threshold);
        }
        state.give_ints(self.output, out);
        Ok(())
    }
}

/// The labels of class numbers.
pub(crate) struct Labels {
    pub input: ValueId,
    pub output: ValueId,
    pub labels: Vec<i64>,
}

impl Kernel for Labels {
    fn run(&self, state: &mut State) -> Result<()> {
        let shape = state.shape(self.input);
        let mut out = state.take(self.output, shape, shape.len() * 8);
        let found = op::labels(&self.labels, state.ints(self.input)?, out.i64s_mut());
        state.give_ints(self.output, out);
        found
    }
}
