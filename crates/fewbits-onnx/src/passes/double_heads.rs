//! What shifts and scales inputs in 64 bits is cut off, up to the cast to 32.
//!
//! A column such as a time stamp has more digits than 32 bits hold. Less its mean it has not, so a model may begin
//! with `Sub` and `Div` of doubles and a `Cast` to floats.

use crate::Result;
use crate::graph::Index;
use crate::proto::{DataType, GraphProto, NodeProto, ValueInfoProto};

/// The operations between an input of doubles and its cast.
pub struct DoubleHead {
    /// The input's name.
    pub input: String,
    /// What is done, in this order.
    pub steps: Vec<DoubleStep>,
    /// The floats that come of it, an input of the graph now.
    pub gives: String,
}

/// An operation with a constant for every column, or one for all.
pub struct DoubleStep {
    /// What is done with each.
    pub operation: Arithmetic,
    /// The second operands.
    pub constant: Vec<f64>,
}

/// An operation on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Their sum.
    Add,
    /// The first less the second.
    Sub,
    /// Their product.
    Mul,
    /// The first by the second.
    Div,
}

impl Arithmetic {
    /// Computes in 64 bits.
    pub fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Arithmetic::Add => a + b,
            Arithmetic::Sub => a - b,
            Arithmetic::Mul => a * b,
            Arithmetic::Div => a / b,
        }
    }
}

/// Cuts the nodes between inputs of type DOUBLE and their casts to FLOAT out of `graph`, whose inputs are
/// floats behind it. An input that is used otherwise stays as it is.
///
/// # Errors
/// If a constant is damaged.
pub fn cut_double_heads(graph: &mut GraphProto) -> Result<Vec<DoubleHead>> {
    let mut heads = Vec::new();
    let mut gone = Vec::new();
    let index = Index::new(graph);
    for info in graph.required_inputs().filter(|info| info.data_type() == Some(DataType::Double)) {
        if let Some((head, nodes)) = follow(graph, &index, info)? {
            gone.extend(nodes);
            heads.push(head);
        }
    }
    drop(index);
    for head in &heads {
        for info in graph.input.iter_mut().filter(|info| info.name() == head.input) {
            let dims = info.dims().unwrap_or_default();
            *info = ValueInfoProto::tensor(&head.gives, DataType::Float as i32, &dims);
        }
    }
    let mut place = 0;
    graph.node.retain(|_| {
        place += 1;
        !gone.contains(&(place - 1))
    });
    Ok(heads)
}

/// The nodes from an input to its cast, and what they do; none if there is another way out of them.
fn follow(
    graph: &GraphProto,
    index: &Index,
    info: &ValueInfoProto,
) -> Result<Option<(DoubleHead, Vec<usize>)>> {
    let Some(width) = info.dims().and_then(|dims| usize::try_from((*dims.last()?)?).ok()) else {
        return Ok(None);
    };
    let (mut steps, mut nodes) = (Vec::new(), Vec::new());
    let mut value = info.name();
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
            let input = info.name().to_string();
            let head = DoubleHead { input, steps, gives: gives.clone() };
            return Ok(to_float.then_some((head, nodes)));
        }
        let Some(step) = step(node, value, width, index)? else { return Ok(None) };
        steps.push(step);
        value = gives;
    }
}

/// What a node does to `value` with a constant for each of `width` columns.
fn step(node: &NodeProto, value: &str, width: usize, index: &Index) -> Result<Option<DoubleStep>> {
    let operation = match node.op_type() {
        _ if !node.is_onnx() => return Ok(None),
        "Add" => Arithmetic::Add,
        "Sub" => Arithmetic::Sub,
        "Mul" => Arithmetic::Mul,
        "Div" => Arithmetic::Div,
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
    Ok((of_columns && !constant.is_empty()).then_some(DoubleStep { operation, constant }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, TensorProto};

    /// `Relu(Cast((x − mean) / scale))`.
    fn graph(second: &str) -> GraphProto {
        GraphProto {
            node: vec![
                NodeProto::new("Sub", &["x", "mean"], &["less"]),
                NodeProto::new("Div", &[second, "scale"], &["scaled"]),
                NodeProto::new("Cast", &["scaled"], &["narrow"])
                    .with(AttributeProto::of_int("to", DataType::Float as i64)),
                NodeProto::new("Relu", &["narrow"], &["y"]),
            ],
            input: vec![ValueInfoProto::tensor("x", DataType::Double as i32, &[None, Some(2)])],
            initializer: vec![
                TensorProto::from_f64("mean", &[2], &[1.7e9, 0.0]),
                TensorProto::from_f64("scale", &[1, 2], &[0.5, 2.0]),
            ],
            ..GraphProto::default()
        }
    }

    #[test]
    fn a_chain_up_to_the_cast_is_cut() {
        let mut graph = graph("less");
        let heads = cut_double_heads(&mut graph).unwrap();
        let [head] = heads.as_slice() else { panic!("one head") };
        let operations: Vec<Arithmetic> = head.steps.iter().map(|step| step.operation).collect();
        assert_eq!(operations, [Arithmetic::Sub, Arithmetic::Div]);
        assert_eq!((head.input.as_str(), head.gives.as_str()), ("x", "narrow"));
        assert_eq!(graph.node.len(), 1);
        assert_eq!(graph.input[0].name(), "narrow");
        assert_eq!(graph.input[0].dims(), Some(vec![None, Some(2)]));
    }

    #[test]
    fn a_value_that_is_read_elsewhere_stays() {
        let mut graph = graph("x");
        assert!(cut_double_heads(&mut graph).unwrap().is_empty());
        assert_eq!(graph.node.len(), 4);
    }
}
