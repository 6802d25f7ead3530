//! The plain interpreter of programs: what they mean, to the bit.

use std::collections::HashMap;

use crate::op::{Computed, Fallback};
use crate::program::{Program, Step, ValueId};
use crate::{Result, RuntimeError, Tensor, ValueSpec};

impl Program {
    /// Runs the program on named inputs: its outputs.
    ///
    /// # Errors
    /// If the program [is none](Program::check), an input is missing or ill-shaped, or a step fails.
    pub fn interpret(
        &self,
        inputs: &[(String, Tensor)],
        fallback: Fallback,
    ) -> Result<Vec<(String, Tensor)>> {
        let values = self.interpret_all(inputs, fallback)?;
        let give = |(spec, id): &(ValueSpec, ValueId)| {
            let computed = values.get(id).ok_or_else(|| not_computed(*id))?.tensor.clone();
            let tensor = match spec.data_type {
                Some(data_type) => computed.cast(data_type)?,
                None => computed,
            };
            Ok((spec.name.clone(), tensor))
        };
        self.outputs.iter().map(give).collect()
    }

    /// Runs the program on named inputs: all values, those on the way included.
    ///
    /// # Errors
    /// As [`Program::interpret`].
    pub fn interpret_all(
        &self,
        inputs: &[(String, Tensor)],
        fallback: Fallback,
    ) -> Result<HashMap<ValueId, Computed>> {
        self.check()?;
        let mut values: HashMap<ValueId, Computed> = HashMap::new();
        for constant in &self.constants {
            values.insert(constant.id, constant.tensor.clone().widened().into());
        }
        for step in &self.once {
            run(step, &mut values, fallback)?;
        }
        let inputs = self.prologue.feed(inputs)?;
        for (spec, id) in &self.inputs {
            let given = inputs.iter().find(|(name, _)| *name == spec.name);
            let (_, tensor) = given.ok_or_else(|| RuntimeError::Input {
                input: spec.name.clone(),
                reason: "no data given for it".into(),
            })?;
            spec.check(tensor)?;
            values.insert(*id, tensor.clone().widened().into());
        }
        for step in &self.steps {
            run(step, &mut values, fallback)?;
        }
        Ok(values)
    }
}

fn not_computed(id: ValueId) -> RuntimeError {
    RuntimeError::Run { reason: format!("value {} is not computed", id.0) }
}

fn run(step: &Step, values: &mut HashMap<ValueId, Computed>, fallback: Fallback) -> Result<()> {
    let inputs: Vec<&Computed> = step
        .inputs
        .iter()
        .map(|id| values.get(id).ok_or_else(|| not_computed(*id)))
        .collect::<Result<_>>()?;
    let outputs = step.op.compute(&inputs, fallback)?;
    for (&id, computed) in step.outputs.iter().zip(outputs) {
        values.insert(id, computed);
    }
    Ok(())
}
