//! A part of the model that the float executor runs.

use std::ops::Range;

use crate::integer::program::Step;
use crate::integer::state::{Shape, State, ValueId};
use crate::integer::steps::shape;
use crate::{FloatRunner, Result, Runner, RuntimeError, Tensor, Values};

/// The step.
pub(crate) struct Region {
    pub runner: FloatRunner,
    /// All its nodes are.
    pub is_exact: bool,
    pub inputs: Vec<(String, ValueId)>,
    pub outputs: Vec<ValueId>,
}

impl Step for Region {
    fn run(&self, state: &mut State) -> Result<()> {
        let inputs = self
            .inputs
            .iter()
            .map(|(name, id)| Ok((name.clone(), state.tensor(*id)?)))
            .collect::<Result<Vec<_>>>()?;
        let outputs = self.runner.run(&inputs)?;
        for (&id, (_, tensor)) in self.outputs.iter().zip(outputs) {
            state.set_tensor(id, &tensor)?;
        }
        Ok(())
    }
}

impl State {
    /// A value as the float executor wants it.
    pub(crate) fn tensor(&self, id: ValueId) -> Result<Tensor> {
        let value = self.value(id);
        match &value.tensor {
            Some(tensor) => Ok(tensor.clone()),
            None if value.is_ints => {
                Tensor::new(value.shape.dims().to_vec(), self.buffer(id).i64s().to_vec())
            }
            None => Tensor::new(value.shape.dims().to_vec(), self.floats(id).to_vec()),
        }
    }

    /// 64-bit integers, in whatever form they came.
    pub(crate) fn ints(&self, id: ValueId) -> Result<&[i64]> {
        match self.value(id).tensor.as_ref().map(Tensor::values) {
            Some(Values::I64(ints)) => Ok(ints),
            Some(other) => Err(RuntimeError::Run {
                reason: format!("64-bit integers are wanted, {:?} given", other.data_type()),
            }),
            None => Ok(self.buffer(id).i64s()),
        }
    }

    /// Stores what a caller or the float executor gives.
    pub(crate) fn set_tensor(&mut self, id: ValueId, tensor: &Tensor) -> Result<()> {
        if let Values::F32(floats) = tensor.values() {
            self.set_floats(id, shape(tensor.shape())?, floats);
        } else {
            self.value_mut(id).shape = shape(tensor.shape())?;
            self.value_mut(id).tensor = Some(tensor.clone());
        }
        Ok(())
    }

    /// Some rows of a tensor.
    pub(crate) fn set_rows(
        &mut self,
        id: ValueId,
        tensor: &Tensor,
        rows: Range<usize>,
    ) -> Result<()> {
        let Values::F32(floats) = tensor.values() else {
            return self.set_tensor(id, &tensor.slice_rows(rows));
        };
        let row = floats.len() / tensor.rows().max(1);
        let mut dims = tensor.shape().to_vec();
        dims[0] = rows.len();
        self.set_floats(id, shape(&dims)?, &floats[rows.start * row..rows.end * row]);
        Ok(())
    }

    fn set_floats(&mut self, id: ValueId, shape: Shape, floats: &[f32]) {
        let mut buffer = self.take(id, shape, floats.len() * 4);
        buffer.f32s_mut().copy_from_slice(floats);
        self.give(id, buffer);
        self.value_mut(id).tensor = None;
    }
}
