//! From scores to labels.

use crate::integer::program::Step;
use crate::integer::state::{State, ValueId};
use crate::integer::steps::shape;
use crate::{Result, RuntimeError};

/// The place of the greatest score of each row, the first of equal ones.
pub(crate) struct ArgMax {
    pub input: ValueId,
    pub output: ValueId,
    /// Whether the axis stays, of size 1.
    pub keep_axis: bool,
}

impl Step for ArgMax {
    fn run(&self, state: &mut State) -> Result<()> {
        let from = state.shape(self.input);
        let width = from.last();
        let to = match self.keep_axis {
            true => from.with_last(1),
            false => shape(from.dims().split_last().map_or(&[], |(_, rows)| rows))?,
        };
        if width == 0 {
            return Err(RuntimeError::Run { reason: "the greatest of no scores".to_string() });
        }
        let mut out = state.take(self.output, to, to.len() * 8);
        let rows = state.floats(self.input).chunks_exact(width);
        for (row, place) in rows.zip(out.i64s_mut()) {
            let mut best = 0;
            for (i, &score) in row.iter().enumerate() {
                if score > row[best] {
                    best = i;
                }
            }
            *place = best as i64;
        }
        state.give(self.output, out);
        Ok(())
    }
}

/// 1 where a score is above the threshold, 0 elsewhere.
pub(crate) struct Positive {
    pub input: ValueId,
    pub output: ValueId,
    pub threshold: f32,
}

impl Step for Positive {
    fn run(&self, state: &mut State) -> Result<()> {
        let shape = state.shape(self.input);
        let mut out = state.take(self.output, shape, shape.len() * 8);
        for (&score, label) in state.floats(self.input).iter().zip(out.i64s_mut()) {
            *label = i64::from(score > self.threshold);
        }
        state.give(self.output, out);
        Ok(())
    }
}

/// The labels of class numbers.
pub(crate) struct Table {
    pub input: ValueId,
    pub output: ValueId,
    pub labels: Vec<i64>,
}

impl Step for Table {
    fn run(&self, state: &mut State) -> Result<()> {
        let shape = state.shape(self.input);
        let mut out = state.take(self.output, shape, shape.len() * 8);
        let count = self.labels.len() as i64;
        for (&class, label) in state.ints(self.input)?.iter().zip(out.i64s_mut()) {
            let place = if class < 0 { class + count } else { class };
            let found = usize::try_from(place).ok().and_then(|place| self.labels.get(place));
            *label = *found
                .ok_or_else(|| RuntimeError::Run { reason: format!("class {class} of {count}") })?;
        }
        state.give(self.output, out);
        Ok(())
    }
}
