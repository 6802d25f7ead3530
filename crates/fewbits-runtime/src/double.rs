//! Inputs in 64 bits, which no executor of ours computes with: what shifts and scales them before
//! they are cast to 32 bits.
//!
//! A column such as a time stamp has more digits than 32 bits hold. Less its mean it has not, so a
//! model may begin with `Sub` and `Div` of doubles and a `Cast` to floats. These nodes are cut off
//! and computed when inputs are fed, each operation in 64 bits and in the model's order.

use std::borrow::Cow;

use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{DataType, GraphProto, NodeProto, ValueInfoProto};

use crate::{Result, RuntimeError, Tensor, ValueSpec, Values};

/// The part of a graph that works on doubles, cut off to be run before the rest.
#[derive(Default)]
pub(crate) struct DoubleHead {
    inputs: Vec<Input>,
}

/// One input, as a caller feeds it and as the rest of the graph takes it.
struct Input {
    spec: ValueSpec,
    steps: Vec<Step>,
    /// What the rest calls the floats.
    gives: String,
}

/// An operation with a constant for every column, or one for all.
struct Step {
    op: fn(f64, f64) -> f64,
    constant: Vec<f64>,
}

impl DoubleHead {
    /// Cuts the nodes between inputs of type DOUBLE and their casts to FLOAT out of `graph`, whose
    /// inputs are floats behind it. An input that is used otherwise stays as it is.
    ///
    /// # Errors
    /// If a constant is damaged.
    pub(crate) fn cut(graph: &mut GraphProto) -> Result<DoubleHead> {
        let mut head = DoubleHead::default();
        let mut gone = Vec::new();
        let index = Index::new(graph);
        for info in &graph.input {
            let spec = ValueSpec::new(info);
            let is_double = spec.data_type == Some(DataType::Double);
            if !is_double || index.initializer(info.name()).is_some() {
                continue;
            }
            if let Some((input, nodes)) = follow(graph, &index, spec)? {
                gone.extend(nodes);
                head.inputs.push(input);
            }
        }
        drop(index);
        for input in &head.inputs {
            let dims: Vec<Option<i64>> = match &input.spec.dims {
                Some(dims) => dims.iter().map(|d| d.map(|d| d as i64)).collect(),
                None => continue,
            };
            let float = ValueInfoProto::tensor(&input.gives, DataType::Float as i32, &dims);
            if let Some(info) = graph.input.iter_mut().find(|i| i.name() == input.spec.name) {
                *info = float;
            }
        }
        let mut place = 0;
        graph.node.retain(|_| {
            place += 1;
            !gone.contains(&(place - 1))
        });
        Ok(head)
    }

    /// What a caller feeds, of what the rest of the graph takes.
    pub(crate) fn outer(&self, inner: &[ValueSpec]) -> Vec<ValueSpec> {
        let outer = |spec: &ValueSpec| {
            let cut = self.inputs.iter().find(|input| input.gives == spec.name);
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
            Some(input) => Ok((input.gives.clone(), input.narrowed(tensor)?)),
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
                let shifted = self
                    .steps
                    .iter()
                    .fold(x, |x, step| (step.op)(x, step.constant[column % step.constant.len()]));
                shifted as f32
            }));
        }
        Tensor::new(tensor.shape().to_vec(), narrow)
    }
}

/// The nodes from an input to its cast, and what they do; none if there is another way out of them.
fn follow(
    graph: &GraphProto,
    index: &Index,
    spec: ValueSpec,
) -> Result<Option<(Input, Vec<usize>)>> {
    let Some(width) = spec.dims.as_ref().and_then(|dims| dims.last().copied().flatten()) else {
        return Ok(None);
    };
    let (mut steps, mut nodes) = (Vec::new(), Vec::new());
    let mut value = spec.name.as_str();
    loop {
        let &[reader] = index.consumers(value) else { return Ok(None) };
        if index.is_output(value) {
            return Ok(None);
        }
        let node = &graph.node[reader];
        let [gives] = node.output.as_slice() else { return Ok(None) };
        nodes.push(reader);
        if node.is("Cast") {
            let to_float = node.int("to", 0) == DataType::Float as i64;
            let input = Input { spec: spec.clone(), steps, gives: gives.clone() };
            return Ok(to_float.then_some((input, nodes)));
        }
        let Some(step) = step(node, value, width, index)? else { return Ok(None) };
        steps.push(step);
        value = gives;
    }
}

/// What a node does to `value` with a constant for each of `width` columns.
fn step(node: &NodeProto, value: &str, width: usize, index: &Index) -> Result<Option<Step>> {
    let op: fn(f64, f64) -> f64 = match node.op_type() {
        _ if !node.is_onnx() => return Ok(None),
        "Add" => |x, c| x + c,
        "Sub" => |x, c| x - c,
        "Mul" => |x, c| x * c,
        "Div" => |x, c| x / c,
        _ => return Ok(None),
    };
    let [first, second] = node.input.as_slice() else { return Ok(None) };
    let Some(constant) = index.initializer(second).filter(|_| first == value) else {
        return Ok(None);
    };
    let shape = constant.shape()?;
    let of_columns = match shape.split_last() {
        None => true,
        Some((last, rest)) => (*last == 1 || *last == width) && rest.iter().all(|&d| d == 1),
    };
    let constant = constant.doubles()?;
    Ok((of_columns && !constant.is_empty()).then_some(Step { op, constant }))
}

#[cfg(test)]
mod tests {
    use fewbits_onnx::Model;
    use fewbits_onnx::proto::{AttributeProto, TensorProto};

    use super::*;
    use crate::{FloatRunner, IntegerRunner, RunOptions, Runner};

    /// `Relu(Cast((x − mean) / scale))` of two columns.
    fn graph(second: &str) -> GraphProto {
        let double = DataType::Double as i32;
        GraphProto {
            node: vec![
                NodeProto::new("Sub", &["x", "mean"], &["less"]),
                NodeProto::new("Div", &[second, "scale"], &["scaled"]),
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
        let model = Model::from_graph(graph("less"), 17);
        let x = Tensor::new(vec![2, 2], vec![1.7e9 + 0.25, 3.0, 1.7e9 - 1.0, 0.1]).unwrap();
        let options = RunOptions::default();
        let runners: [Box<dyn Runner>; 2] = [
            Box::new(IntegerRunner::new(&model, &options).unwrap()),
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

    #[test]
    fn a_value_that_is_read_elsewhere_stays() {
        let mut graph = graph("x");
        assert!(DoubleHead::cut(&mut graph).unwrap().inputs.is_empty());
        assert_eq!(graph.node.len(), 4);
    }
}
