//! Inputs in 64 bits, which no executor of ours computes with: what shifts and scales them before
//! they are cast to 32 bits.
//!
//! A column such as a time stamp has more digits than 32 bits hold. Less its mean it has not, so a
//! model may begin with `Sub` and `Div` of doubles and a `Cast` to floats. These nodes are cut off
//! and computed when inputs are fed, each operation in 64 bits and in the model's order.

use std::borrow::Cow;

use fewbits_onnx::passes::double_heads::{DoubleHead, cut_double_heads};
use fewbits_onnx::proto::{DataType, GraphProto};

use crate::{Result, RuntimeError, Tensor, ValueSpec, Values};

/// The part of a graph that works on doubles, cut off to be run before the rest.
#[derive(Default)]
pub(crate) struct Doubles {
    inputs: Vec<Input>,
}

/// One input, as a caller feeds it and as the rest of the graph takes it.
struct Input {
    spec: ValueSpec,
    head: DoubleHead,
}

impl Doubles {
    /// Cuts what works on doubles out of `graph`, whose inputs are floats behind it.
    ///
    /// # Errors
    /// If a constant is damaged.
    pub(crate) fn cut(graph: &mut GraphProto) -> Result<Doubles> {
        let specs: Vec<ValueSpec> = graph.required_inputs().map(ValueSpec::new).collect();
        let input = |head: DoubleHead| {
            let spec = specs.iter().find(|spec| spec.name == head.input)?.clone();
            Some(Input { spec, head })
        };
        Ok(Doubles { inputs: cut_double_heads(graph)?.into_iter().filter_map(input).collect() })
    }

    /// What a caller feeds, of what the rest of the graph takes.
    pub(crate) fn outer(&self, inner: &[ValueSpec]) -> Vec<ValueSpec> {
        let outer = |spec: &ValueSpec| {
            let cut = self.inputs.iter().find(|input| input.head.gives == spec.name);
            cut.map_or(spec, |input| &input.spec).clone()
        };
        inner.iter().map(outer).collect()
    }

    /// What the rest of the graph takes, of what a caller feeds.
    ///
    /// # Errors
    /// If data is not of the input's type and shape.
    pub(crate) fn feed<'a>(
        &self,
        inputs: &'a [(String, Tensor)],
    ) -> Result<Cow<'a, [(String, Tensor)]>> {
        if self.inputs.is_empty() {
            return Ok(Cow::Borrowed(inputs));
        }
        let feed = |(name, tensor): &(String, Tensor)| match self
            .inputs
            .iter()
            .find(|input| input.spec.name == *name)
        {
            Some(input) => Ok((input.head.gives.clone(), input.narrowed(tensor)?)),
            None => Ok((name.clone(), tensor.clone())),
        };
        inputs.iter().map(feed).collect::<Result<Vec<_>>>().map(Cow::Owned)
    }
}

impl Input {
    fn narrowed(&self, tensor: &Tensor) -> Result<Tensor> {
        self.spec.check(tensor)?;
        let Values::F64(values) = tensor.values() else {
            return Err(RuntimeError::Cast { from: tensor.data_type(), to: DataType::Double });
        };
        let width = tensor.shape().last().copied().unwrap_or(1).max(1);
        let mut narrow = Vec::with_capacity(values.len());
        for row in values.chunks(width) {
            narrow.extend(row.iter().enumerate().map(|(column, &x)| {
                let steps = self.head.steps.iter();
                let shifted = steps.fold(x, |x, step| {
                    step.operation.of(x, step.constant[column % step.constant.len()])
                });
                shifted as f32
            }));
        }
        Tensor::new(tensor.shape().to_vec(), narrow)
    }
}

#[cfg(test)]
mod tests {
    use fewbits_onnx::Model;
    use fewbits_onnx::proto::{AttributeProto, NodeProto, TensorProto, ValueInfoProto};

    use super::*;
    use crate::{Engine, FloatRunner, RunOptions, Runner};

    /// `Relu(Cast((x − mean) / scale))` of two columns.
    fn graph() -> GraphProto {
        let double = DataType::Double as i32;
        GraphProto {
            node: vec![
                NodeProto::new("Sub", &["x", "mean"], &["less"]),
                NodeProto::new("Div", &["less", "scale"], &["scaled"]),
                NodeProto::new("Cast", &["scaled"], &["narrow"])
                    .with(AttributeProto::of_int("to", DataType::Float as i64)),
                NodeProto::new("Relu", &["narrow"], &["y"]),
            ],
            input: vec![ValueInfoProto::tensor("x", double, &[None, Some(2)])],
            output: vec![ValueInfoProto::tensor("y", DataType::Float as i32, &[None, Some(2)])],
            initializer: vec![
                TensorProto::from_f64("mean", &[2], &[1.7e9, 0.0]),
                TensorProto::from_f64("scale", &[1, 2], &[0.5, 2.0]),
            ],
            ..GraphProto::default()
        }
    }

    #[test]
    fn digits_beyond_32_bits_count() {
        let model = Model::from_graph(graph(), 17);
        let x = Tensor::new(vec![2, 2], vec![1.7e9 + 0.25, 3.0, 1.7e9 - 1.0, 0.1]).unwrap();
        let options = RunOptions::default();
        let runners: [Box<dyn Runner>; 2] = [
            Box::new(Engine::new(&model, &options).unwrap()),
            Box::new(FloatRunner::new(&model, &options).unwrap()),
        ];
        for runner in runners {
            assert_eq!(runner.inputs()[0].data_type, Some(DataType::Double));
            let y = runner.run(&[("x".to_string(), x.clone())]).unwrap().remove(0).1;
            assert_eq!(y.values(), &Values::F32(vec![0.5, 1.5, 0.0, 0.05]));
            let surplus = runner.run(&[("narrow".to_string(), x.clone())]);
            assert!(surplus.is_err(), "the name of a value inside is no input's");
            let float = x.clone().cast(DataType::Float).unwrap();
            assert!(runner.run(&[("x".to_string(), float)]).is_err());
        }
    }
}
