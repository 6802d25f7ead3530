//! Operators without a kernel, which the plain interpreter computes: little time goes there.

use fewbits_ir::Op;
use fewbits_ir::op::{Computed, no_fallback};

use crate::Result;
use crate::state::State;
use crate::steps::{Io, Kernel};

/// The step, of values that lie as ONNX orders them.
pub(crate) struct Interpreted {
    pub op: Op,
    pub io: Io,
}

impl Kernel for Interpreted {
    fn run(&self, state: &mut State) -> Result<()> {
        let inputs = self.io.inputs.iter().map(|&id| Ok(state.tensor(id)?.into()));
        let inputs = inputs.collect::<Result<Vec<Computed>>>()?;
        let outputs = self.op.compute(&inputs.iter().collect::<Vec<_>>(), &no_fallback)?;
        for (&id, computed) in self.io.outputs.iter().zip(outputs) {
            state.set_tensor(id, &computed.tensor)?;
        }
        Ok(())
    }
}
