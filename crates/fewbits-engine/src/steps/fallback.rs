//! A part of the model that the float executor runs.

use fewbits_ir::op::Subgraph;

use crate::state::State;
use crate::steps::{Io, Kernel};
use crate::{FloatRunner, Result, RunOptions, Runner};

/// The step.
pub(crate) struct Fallback {
    runner: FloatRunner,
    inputs: Vec<String>,
    io: Io,
}

impl Fallback {
    /// Loads the nodes.
    ///
    /// # Errors
    /// If the float executor lacks one of them, by name.
    pub(crate) fn load(subgraph: Subgraph, io: Io, options: &RunOptions) -> Result<Fallback> {
        let options = RunOptions { threads: options.threads, ..RunOptions::default() };
        let runner = FloatRunner::new(&subgraph.model, &options)?;
        Ok(Fallback { runner, inputs: subgraph.inputs, io })
    }
}

impl Kernel for Fallback {
    fn run(&self, state: &mut State) -> Result<()> {
        let inputs = self.inputs.iter().zip(&self.io.inputs);
        let inputs = inputs
            .map(|(name, &id)| Ok((name.clone(), state.tensor(id)?)))
            .collect::<Result<Vec<_>>>()?;
        let outputs = self.runner.run(&inputs)?;
        for (&id, (_, tensor)) in self.io.outputs.iter().zip(outputs) {
            state.set_tensor(id, &tensor)?;
        }
        Ok(())
    }
}
