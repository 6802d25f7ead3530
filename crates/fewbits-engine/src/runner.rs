//! What every executor offers.

use std::num::NonZeroUsize;

use fewbits_ir::{Result, RowsKnown, Tensor, ValueSpec};

/// How to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Threads; all cores if not given.
    pub threads: Option<NonZeroUsize>,
    /// Values inside the graph to hand out behind the model's own outputs.
    pub intermediates: Vec<String>,
}

/// An executor that holds one model.
pub trait Runner: Send + Sync {
    /// The inputs to feed.
    fn inputs(&self) -> &[ValueSpec];

    /// The outputs that [`run`](Runner::run) returns, in this order: the model's own, then the
    /// intermediates asked for.
    fn outputs(&self) -> &[ValueSpec];

    /// What is known of the rows of a batch.
    fn rows_known(&self) -> RowsKnown {
        RowsKnown::Unknown
    }

    /// Runs the model once on named inputs.
    ///
    /// # Errors
    /// If an input is missing, unknown, or of the wrong type or shape, or the executor fails.
    fn run(&self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>>;

    /// As [`run`](Runner::run), and computes our own steps on the thread that calls: for callers
    /// that make several calls at once. What is left to rten is shared among threads all the same.
    ///
    /// # Errors
    /// Those of [`run`](Runner::run).
    fn run_alone(&self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        self.run(inputs)
    }
}
