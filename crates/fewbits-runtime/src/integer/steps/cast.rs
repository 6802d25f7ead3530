//! Integers that become floats.

use fewbits_onnx::proto::DataType;

use crate::Result;
use crate::integer::program::Step;
use crate::integer::state::{State, ValueId};

/// The integers of a value as floats.
pub(crate) struct ToFloats {
    pub input: ValueId,
    pub output: ValueId,
}

impl Step for ToFloats {
    fn run(&self, state: &mut State) -> Result<()> {
        let floats = state.tensor(self.input)?.cast(DataType::Float)?;
        state.set_tensor(self.output, &floats)
    }
}
