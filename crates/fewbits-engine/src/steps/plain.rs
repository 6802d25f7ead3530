//! Steps that are computed as the reference has them: little time goes there.

use fewbits_ir::op::{CumSum, IntegerBinary, Reduce, Resize, SumOfIntegers, Target};
use fewbits_ir::reference::{integers, resize};
use fewbits_ir::Shape;
use fewbits_onnx::proto::DataType;

use crate::Result;
use crate::state::State;
use crate::steps::{Io, Kernel};

/// A step without a kernel of its own.
pub(crate) struct Plain {
    pub op: PlainOp,
    pub io: Io,
}

/// What it computes.
pub(crate) enum PlainOp {
    Cast(DataType),
    Reduce(Reduce),
    Resize(Resize),
    IntegerBinary(IntegerBinary),
    SumOfIntegers(SumOfIntegers),
    CumSum(CumSum),
    ArgMax { keep_axis: bool },
    Threshold(f32),
    Labels(Vec<i64>),
}

impl Kernel for Plain {
    fn run(&self, state: &mut State) -> Result<()> {
        let (input, output) = (self.io.input(), self.io.output());
        let from = state.shape(input);
        match &self.op {
            PlainOp::Cast(to) => {
                let converted = state.tensor(input)?.cast(*to)?.widened();
                state.set_tensor(output, &converted)
            }
            PlainOp::Reduce(reduce) => {
                let (width, to) = reduce.shapes(from)?;
                let mut out = state.take(output, to, to.len() * 4);
                reduce.reduce(state.floats(input), width, out.f32s_mut());
                state.give(output, out);
                Ok(())
            }
            PlainOp::Resize(op) => {
                let told = match op.target {
                    Target::Scales => resize::Told::Scales(state.floats(self.io.inputs[1])),
                    Target::Sizes(aspect) => {
                        resize::Told::Sizes(state.ints(self.io.inputs[1])?, aspect)
                    }
                };
                let part = self.io.inputs.get(2).map(|&part| state.floats(part));
                let (values, to) = resize::resize(op, state.floats(input), from, told, part)?;
                let mut out = state.take(output, to, to.len() * 4);
                out.f32s_mut().copy_from_slice(&values);
                state.give(output, out);
                Ok(())
            }
            PlainOp::IntegerBinary(operator) => {
                let other = self.io.inputs[1];
                let other_shape = state.shape(other);
                let to = from.broadcast(other_shape)?;
                self.integers(state, to, |state, out| {
                    let right = match operator {
                        IntegerBinary::PowOfFloats => integers::Right::Floats(state.floats(other)),
                        _ => integers::Right::Ints(state.ints(other)?),
                    };
                    let left = (state.ints(input)?, from);
                    integers::binary(*operator, left, (right, other_shape), to, out)
                })
            }
            PlainOp::SumOfIntegers(sum) => {
                let (to, full) = sum.shapes(from)?;
                self.integers(state, to, |state, out| {
                    SumOfIntegers::sum(state.ints(input)?, from, full, out);
                    Ok(())
                })
            }
            PlainOp::CumSum(sum) => self
                .integers(state, from, |state, out| sum.run(state.ints(input)?, from, out)),
            PlainOp::ArgMax { keep_axis } => {
                let to = match keep_axis {
                    true => from.with_last(1),
                    false => Shape::new(from.dims().split_last().map_or(&[], |(_, rows)| rows))?,
                };
                self.integers(state, to, |state, out| {
                    integers::arg_max(state.floats(input), from.last(), out)
                })
            }
            PlainOp::Threshold(threshold) => self.integers(state, from, |state, out| {
                for (&score, label) in state.floats(input).iter().zip(out) {
                    *label = i64::from(score > *threshold);
                }
                Ok(())
            }),
            PlainOp::Labels(labels) => self.integers(state, from, |state, out| {
                integers::labels(labels, state.ints(input)?, out)
            }),
        }
    }
}

impl Plain {
    /// Lets `compute` write the 64-bit integers of the output, which has the shape `to`.
    fn integers(
        &self,
        state: &mut State,
        to: Shape,
        compute: impl FnOnce(&State, &mut [i64]) -> Result<()>,
    ) -> Result<()> {
        let output = self.io.output();
        let mut out = state.take(output, to, to.len() * 8);
        let result = compute(state, out.i64s_mut());
        state.give(output, out);
        result
    }
}
