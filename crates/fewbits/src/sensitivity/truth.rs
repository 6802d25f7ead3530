//! What the model itself answers.

use fewbits_engine::{RunOptions, Runner, Tensor};
use fewbits_onnx::Model;

use crate::Result;
use crate::data::{Dataset, Labels};
use crate::inputs::Counted;
use crate::layerwise::{LayerwiseRun, calls, float_runner};
use crate::padding::Tokens;

/// What is known of the rows of a batch.
pub struct Truth {
    /// The positions that are not only padding, where some are.
    pub tokens: Option<Tokens>,
    /// The labels of the rows, where there are any.
    pub labels: Option<Labels>,
    /// The model's outputs.
    pub expected: Vec<Tensor>,
}

impl Counted for Truth {
    fn tokens(&self) -> Option<&Tokens> {
        self.tokens.as_ref()
    }
}

/// Starts before the first node, with the rows of `sample`.
///
/// # Errors
/// If the model cannot be run.
pub fn start_layerwise(
    model: &Model,
    sample: &Dataset,
    run: &RunOptions,
) -> Result<LayerwiseRun<Truth>> {
    let runner = float_runner(model, run)?;
    let calls = calls(model, sample)?.into_iter().map(|call| {
        let tokens = Tokens::of(&call.inputs);
        let labels = call.rows.clone().and_then(|rows| Some(sample.labels()?.slice_rows(rows)));
        let outputs = runner.run(&call.inputs)?;
        let expected = outputs.into_iter().map(|(_, tensor)| tensor).collect();
        Ok((call, Truth { tokens, labels, expected }))
    });
    Ok(LayerwiseRun::new(model, calls.collect::<Result<_>>()?, run))
}
