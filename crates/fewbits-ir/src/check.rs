//! What holds of every program that can run: it may have come from anywhere.

use crate::program::{Program, Step, ValueId};
use crate::{Result, RuntimeError};

impl Program {
    /// Checks that every value that is read was computed before, or is given, and that every step reads and
    /// gives as many as it must.
    ///
    /// # Errors
    /// With the step, or the name of the value, if not.
    pub fn check(&self) -> Result<()> {
        let mut known = vec![false; self.values.len()];
        for constant in &self.constants {
            self.give(constant.id, &mut known)?;
        }
        self.once.iter().try_for_each(|step| self.check_step(step, &mut known))?;
        for (_, id) in &self.inputs {
            self.give(*id, &mut known)?;
        }
        self.steps.iter().try_for_each(|step| self.check_step(step, &mut known))?;
        self.outputs.iter().try_for_each(|(_, id)| self.read(*id, &known))
    }

    fn check_step(&self, step: &Step, known: &mut [bool]) -> Result<()> {
        let (reads, gives) = (step.op.inputs(), step.op.outputs());
        if !reads.contains(&step.inputs.len()) || !gives.contains(&step.outputs.len()) {
            let (have, given) = (step.inputs.len(), step.outputs.len());
            let reason = format!(
                "its step '{}' ({}) reads {have} values and gives {given}, not {reads:?} and {gives:?}",
                step.node, step.what
            );
            return Err(RuntimeError::Load { reason });
        }
        step.inputs.iter().try_for_each(|id| self.read(*id, known))?;
        step.outputs.iter().try_for_each(|id| self.give(*id, known))
    }

    fn read(&self, id: ValueId, known: &[bool]) -> Result<()> {
        match known.get(id.index()) {
            Some(true) => Ok(()),
            _ => Err(self.refuse("nothing computes", id)),
        }
    }

    fn give(&self, id: ValueId, known: &mut [bool]) -> Result<()> {
        match known.get_mut(id.index()) {
            Some(known) if !*known => {
                *known = true;
                Ok(())
            }
            Some(_) => Err(self.refuse("more than one step computes", id)),
            None => Err(self.refuse("it does not have", id)),
        }
    }

    fn refuse(&self, what: &str, id: ValueId) -> RuntimeError {
        let names = self.values.get(id.index()).map_or(&[][..], |value| &value.names);
        let name = names.first().map_or(format!("{}", id.0), |name| format!("'{name}'"));
        RuntimeError::Load { reason: format!("{what} the value {name}") }
    }
}

#[cfg(test)]
mod tests {
    use crate::op::{ByteScale, Op};
    use crate::program::{Backend, Value};
    use crate::{F64Prologue, RowsKnown, Step, ValueSpec};

    use super::*;

    /// One step, from a fed value to an output.
    fn program() -> Program {
        let spec = |name: &str| ValueSpec {
            name: name.into(),
            data_type: None,
            dims: None,
            row_axis: None,
        };
        let step = Step {
            op: Op::Quantize(ByteScale { scale: 1.0, zero_point: 0 }),
            inputs: vec![ValueId(0)],
            outputs: vec![ValueId(1)],
            what: "QuantizeLinear".into(),
            node: "q".into(),
            rule: None,
            backend: Backend::Integers,
            nodes: 1,
            why: Vec::new(),
        };
        let value = |name: &str| Value { names: vec![name.into()], ..Value::default() };
        Program {
            values: vec![value("x"), value("y")],
            steps: vec![step],
            inputs: vec![(spec("x"), ValueId(0))],
            outputs: vec![(spec("y"), ValueId(1))],
            prologue: F64Prologue::default(),
            once: Vec::new(),
            constants: Vec::new(),
            rows: RowsKnown::Unknown,
            is_cut: false,
            weight_bytes: 0,
        }
    }

    #[track_caller]
    fn assert_refused(change: impl Fn(&mut Program), reason: &str) {
        let mut program = program();
        change(&mut program);
        let refusal = program.check().unwrap_err().to_string();
        assert!(refusal.contains(reason), "{refusal}");
    }

    #[test]
    fn what_cannot_run_is_refused() {
        program().check().unwrap();
        assert_refused(|p| p.steps[0].inputs[0] = ValueId(7), "nothing computes the value 7");
        assert_refused(|p| p.steps[0].outputs[0] = ValueId(7), "it does not have the value 7");
        assert_refused(
            |p| p.steps[0].outputs[0] = ValueId(0),
            "more than one step computes the value 'x'",
        );
        assert_refused(
            |p| p.steps[0].inputs.clear(),
            "its step 'q' (QuantizeLinear) reads 0 values",
        );
        assert_refused(|p| p.steps[0].outputs.clear(), "gives 0");
        assert_refused(|p| p.steps.clear(), "nothing computes the value 'y'");
        assert_refused(|p| p.inputs.clear(), "nothing computes the value 'x'");
    }
}
