//! Numbers that become others.

use fewbits_onnx::proto::DataType;

use crate::Result;
use crate::integer::program::Step;
use crate::integer::state::{State, ValueId};

/// Integers as floats, floats as 64-bit integers (what lies beyond these becomes the nearest), or floats rounded to
/// halves, which are computed as floats.
pub(crate) struct Convert {
    pub input: ValueId,
    pub output: ValueId,
    pub to: DataType,
}

impl Step for Convert {
    fn run(&self, state: &mut State) -> Result<()> {
        let converted = state.tensor(self.input)?.cast(self.to)?.widened();
        state.set_tensor(self.output, &converted)
    }
}
