//! Norms and functions that are spelled out in arithmetic, as one operator: executors have a step for each.
//!
//! One is found by its last node. What lies on the way to it must be read by nothing else.

use std::collections::HashSet;

use crate::graph::Index;
use crate::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};

/// Finds an operator that ends with a node.
type Find = for<'a> fn(&mut Way<'a>, &'a NodeProto) -> Option<NodeProto>;

/// Puts the operator in the place of the last node of each; what only led there goes with it.
pub(super) fn as_operators(graph: &mut GraphProto) {
    let finds: [Find; 4] = [layer_norm, rms_norm, hard_swish, gelu];
    let mut gone = HashSet::new();
    let mut made = Vec::new();
    let index = Index::new(graph);
    let replaceable = graph.input.iter().map(ValueInfoProto::name).collect();
    // From behind, so that the longest form is found: a norm without a bias is a part of one with it.
    for (position, last) in graph.node.iter().enumerate().rev() {
        for find in finds {
            let mut way =
                Way { graph, index: &index, replaceable: &replaceable, nodes: Vec::new() };
            way.nodes.push(position);
            let Some(node) = find(&mut way, last) else { continue };
            let is_free = way.nodes.iter().all(|position| !gone.contains(position));
            if is_free && way.is_read_by_nothing_else() {
                gone.extend(way.nodes);
                made.push((position, NodeProto { name: last.name.clone(), ..node }));
                break;
            }
        }
    }
    for (position, node) in made {
        graph.node[position] = node;
        gone.remove(&position);
    }
    let mut position = 0;
    graph.node.retain(|_| {
        position += 1;
        !gone.contains(&(position - 1))
    });
}

/// The way back from the last node of an operator.
struct Way<'a> {
    graph: &'a GraphProto,
    index: &'a Index<'a>,
    replaceable: &'a HashSet<&'a str>,
    /// The nodes that it has come by.
    nodes: Vec<usize>,
}

impl<'a> Way<'a> {
    /// The node of this operator that gives a value.
    fn back(&mut self, name: &str, op: &str) -> Option<&'a NodeProto> {
        let position = self.index.producer(name)?;
        let node = &self.graph.node[position];
        node.is(op).then_some(())?;
        if !self.nodes.contains(&position) {
            self.nodes.push(position);
        }
        Some(node)
    }

    /// The elements of a vector of floats that no caller can replace.
    fn vector(&self, name: &str) -> Option<usize> {
        let tensor = self.index.initializer(name).filter(|_| !self.replaceable.contains(name))?;
        let &[length] = tensor.shape().ok()?.as_slice() else { return None };
        tensor.is_float().then_some(length)
    }

    /// A constant that is one number, near this one.
    fn is_number(&self, name: &str, wanted: f32) -> bool {
        self.number(name).is_some_and(|number| (number - wanted).abs() <= wanted.abs() * 1e-4)
    }

    fn number(&self, name: &str) -> Option<f32> {
        let tensor = self.index.initializer(name).filter(|_| !self.replaceable.contains(name))?;
        // Of no axes, so that it gives the result none.
        (tensor.shape().ok()?.is_empty() && tensor.is_float()).then_some(())?;
        tensor.floats().ok()?.first().copied()
    }

    /// The operand beside a number near this one, whichever way round.
    fn beside(&self, node: &'a NodeProto, wanted: f32) -> Option<&'a str> {
        let [a, b] = node.input.as_slice() else { return None };
        if self.is_number(b, wanted) {
            Some(a)
        } else {
            self.is_number(a, wanted).then_some(b.as_str())
        }
    }

    /// Whether a node multiplies a value by itself.
    fn is_square_of(&self, node: &NodeProto, value: &str) -> bool {
        let [a, b] = node.input.as_slice() else { return false };
        a == value && (b == value || (node.is("Pow") && self.is_number(b, 2.0)))
    }

    fn is_read_by_nothing_else(&self) -> bool {
        self.nodes[1..].iter().all(|&position| {
            self.graph.node[position].output.iter().all(|output| {
                !self.index.is_output(output)
                    && self.index.consumers(output).iter().all(|reader| self.nodes.contains(reader))
            })
        })
    }
}

/// The factors or terms of a node, either way round.
fn both(node: &NodeProto) -> Option<[(&str, &str); 2]> {
    let [a, b] = node.input.as_slice() else { return None };
    Some([(a, b), (b, a)])
}

/// Less the mean, by the root of the mean of the squares, times a gain, and a bias: along the last axis.
fn layer_norm<'a>(way: &mut Way<'a>, last: &'a NodeProto) -> Option<NodeProto> {
    let with_bias = last.is("Add");
    let (scaled, bias) = match with_bias {
        true => both(last)?.into_iter().find_map(|(bias, scaled)| {
            way.vector(bias)?;
            Some((way.back(scaled, "Mul")?, Some(bias)))
        })?,
        false => (last.is("Mul").then_some(last)?, None),
    };
    let (gain, normal) = both(scaled)?.into_iter().find_map(|(gain, normal)| {
        way.vector(gain)?;
        Some((gain, way.back(normal, "Div")?))
    })?;
    let length = way.vector(gain)?;
    let fits = |name: &str| way.vector(name) == Some(length);
    (length > 1 && bias.is_none_or(fits)).then_some(())?;
    let [centred, deviation] = normal.input.as_slice() else { return None };
    let (squared, epsilon) = root_of_mean_square(way, deviation)?;
    (squared == centred).then_some(())?;
    let less = way.back(centred, "Sub")?;
    let [x, mean] = less.input.as_slice() else { return None };
    (mean_of(way, mean)? == x).then_some(())?;
    let inputs: Vec<&str> = [x.as_str(), gain].into_iter().chain(bias).collect();
    let node = NodeProto::new("LayerNormalization", &inputs, &[&last.output[0]])
        .with(AttributeProto::of_int("axis", -1))
        .with(AttributeProto::of_float("epsilon", epsilon));
    Some(node)
}

/// By the root of the mean of the squares, times a gain: along the last axis.
fn rms_norm<'a>(way: &mut Way<'a>, last: &'a NodeProto) -> Option<NodeProto> {
    last.is("Mul").then_some(())?;
    let (gain, normal) = both(last)?.into_iter().find(|(gain, _)| way.vector(gain).is_some())?;
    let (x, root) = match way.back(normal, "Div") {
        Some(node) => {
            let [x, root] = node.input.as_slice() else { return None };
            (x.as_str(), root.as_str())
        }
        None => {
            let product = way.back(normal, "Mul")?;
            both(product)?
                .into_iter()
                .find_map(|(x, inverse)| Some((x, inverse_of(way, inverse)?)))?
        }
    };
    let (squared, epsilon) = root_of_mean_square(way, root)?;
    (squared == x && way.vector(gain)? > 1).then_some(())?;
    let node = NodeProto::new("RMSNormalization", &[x, gain], &[&last.output[0]])
        .with(AttributeProto::of_int("axis", -1))
        .with(AttributeProto::of_float("epsilon", epsilon));
    Some(node)
}

/// What a value is one over.
fn inverse_of<'a>(way: &mut Way<'a>, inverse: &str) -> Option<&'a str> {
    if let Some(node) = way.back(inverse, "Reciprocal") {
        return node.input.first().map(String::as_str);
    }
    let [one, root] = way.back(inverse, "Div")?.input.as_slice() else { return None };
    way.is_number(one, 1.0).then_some(root)
}

/// What is squared, where a value is the root of the mean of the squares and a number above 0, and that number.
fn root_of_mean_square<'a>(way: &mut Way<'a>, root: &str) -> Option<(&'a str, f32)> {
    let sum = way.back(root, "Sqrt")?.input.first()?;
    let sum = way.back(sum, "Add")?;
    let (mean, epsilon) = both(sum)?
        .into_iter()
        .find_map(|(mean, epsilon)| Some((mean, way.number(epsilon).filter(|e| *e > 0.0)?)))?;
    let squares = mean_of(way, mean)?;
    let squares = way.back(squares, "Mul").or_else(|| way.back(squares, "Pow"))?;
    let squared = squares.input.first()?;
    way.is_square_of(squares, squared).then_some((squared, epsilon))
}

/// What a value is the mean of, along the last axis, which stays.
fn mean_of<'a>(way: &mut Way<'a>, mean: &str) -> Option<&'a str> {
    let node = way.back(mean, "ReduceMean")?;
    let axes = match node.input.get(1) {
        Some(axes) => way.index.initializer(axes)?.ints().ok()?,
        None => node.ints("axes").to_vec(),
    };
    (axes == [-1] && node.int("keepdims", 1) != 0).then_some(())?;
    node.input.first().map(String::as_str)
}

/// `x * Clip(x + 3, 0, 6) / 6` with its factors in any order.
fn hard_swish<'a>(way: &mut Way<'a>, last: &'a NodeProto) -> Option<NodeProto> {
    let sixth = |way: &Way<'a>, node: &'a NodeProto| match node.op_type() {
        "Div" => node.input.get(1).filter(|by| way.is_number(by, 6.0)).map(|_| &*node.input[0]),
        "Mul" => way.beside(node, 1.0 / 6.0),
        _ => None,
    };
    let sixth_at = |way: &mut Way<'a>, name: &str| {
        let node = way.back(name, "Div").or_else(|| way.back(name, "Mul"))?;
        sixth(way, node)
    };
    last.is_onnx().then_some(())?;
    let product = match sixth(way, last) {
        Some(product) => way.back(product, "Mul")?,
        None => last.is("Mul").then_some(last)?,
    };
    let is_divided = !std::ptr::eq(product, last);
    both(product)?.into_iter().find_map(|(x, gate)| {
        let known = way.nodes.len();
        let found = (|| {
            let gate = if is_divided { gate } else { sixth_at(way, gate)? };
            let clip = way.back(gate, "Clip")?;
            let [sum, least, most] = clip.input.as_slice() else { return None };
            let is_gate = way.number(least) == Some(0.0) && way.is_number(most, 6.0);
            let sum = way.back(sum, "Add").filter(|_| is_gate)?;
            (way.beside(sum, 3.0)? == x)
                .then(|| NodeProto::new("HardSwish", &[x], &[&last.output[0]]))
        })();
        if found.is_none() {
            way.nodes.truncate(known);
        }
        found
    })
}

/// `0.5 x (1 + Tanh(0.79788 (x + 0.044715 x³)))` with its factors in any order.
fn gelu<'a>(way: &mut Way<'a>, last: &'a NodeProto) -> Option<NodeProto> {
    last.is("Mul").then_some(())?;
    // Three factors in two products.
    let mut factors: Vec<&str> = Vec::new();
    for name in &last.input {
        let producer = way.index.producer(name).map(|at| &way.graph.node[at]);
        let is_inner = producer.is_some_and(|node| {
            node.is("Mul") && way.index.consumers(name).len() == 1 && node.input.len() == 2
        });
        match producer.filter(|_| is_inner && factors.len() < 2) {
            Some(inner) => {
                way.back(name, "Mul")?;
                factors.extend(inner.input.iter().map(String::as_str));
            }
            None => factors.push(name),
        }
    }
    (factors.len() == 3).then_some(())?;
    let half = factors.iter().position(|name| way.is_number(name, 0.5))?;
    factors.remove(half);
    let [a, b] = factors[..] else { return None };
    let known = way.nodes.len();
    for (x, gate) in [(a, b), (b, a)] {
        if is_tanh_gate(way, x, gate).is_some() {
            let node = NodeProto::new("Gelu", &[x], &[&last.output[0]]);
            return Some(node.with(AttributeProto::of_string("approximate", "tanh")));
        }
        way.nodes.truncate(known);
    }
    None
}

fn is_tanh_gate(way: &mut Way, x: &str, gate: &str) -> Option<()> {
    let gate = way.back(gate, "Add")?;
    let tanh = way.beside(gate, 1.0)?;
    let scaled = way.back(tanh, "Tanh")?.input.first()?;
    let scaled = way.back(scaled, "Mul")?;
    let sum = way.beside(scaled, (2.0 / std::f32::consts::PI).sqrt())?;
    let sum = way.back(sum, "Add")?;
    both(sum)?.into_iter().find_map(|(first, cubes)| {
        (first == x).then_some(())?;
        let cubes = way.back(cubes, "Mul")?;
        let cube = way.beside(cubes, 0.044_715)?;
        let cube = way.back(cube, "Pow").or_else(|| way.back(cube, "Mul"))?;
        if cube.is("Pow") {
            let [base, exponent] = cube.input.as_slice() else { return None };
            return (base == x && way.is_number(exponent, 3.0)).then_some(());
        }
        both(cube)?.into_iter().find_map(|(square, other)| {
            let square = way.back(square, "Mul").or_else(|| way.back(square, "Pow"))?;
            (other == x && way.is_square_of(square, x)).then_some(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{DataType, TensorProto};

    /// A graph of these nodes from `x` to `y`, with `number: [value]` as constants.
    fn graph(nodes: &[(&str, &str, &str)], numbers: &[(&str, f32)]) -> GraphProto {
        let node = |&(op, inputs, output): &(&str, &str, &str)| {
            let inputs: Vec<&str> = inputs.split(' ').collect();
            let node = NodeProto::new(op, &inputs, &[output]);
            let axes = AttributeProto::of_ints("axes", &[-1]);
            if op == "ReduceMean" { node.with(axes) } else { node }
        };
        let vector = |name: &str| TensorProto::from_f32(name, &[2], &[1.0, 2.0]);
        let numbers =
            numbers.iter().map(|(name, value)| TensorProto::from_f32(name, &[], &[*value]));
        GraphProto {
            node: nodes.iter().map(node).collect(),
            input: vec![ValueInfoProto::tensor("x", DataType::Float as i32, &[None, Some(2)])],
            output: vec![ValueInfoProto::tensor("y", DataType::Float as i32, &[None, Some(2)])],
            initializer: numbers.chain([vector("gain"), vector("bias")]).collect(),
            ..GraphProto::default()
        }
    }

    fn ops(mut graph: GraphProto) -> Vec<String> {
        as_operators(&mut graph);
        graph
            .node
            .iter()
            .map(|node| format!("{} {}", node.op_type(), node.input.join(" ")))
            .collect()
    }

    const NORM: [(&str, &str, &str); 9] = [
        ("ReduceMean", "x", "mean"),
        ("Sub", "x mean", "centred"),
        ("Pow", "centred two", "squares"),
        ("ReduceMean", "squares", "variance"),
        ("Add", "variance epsilon", "sum"),
        ("Sqrt", "sum", "deviation"),
        ("Div", "centred deviation", "normal"),
        ("Mul", "gain normal", "scaled"),
        ("Add", "scaled bias", "y"),
    ];
    const NORM_NUMBERS: [(&str, f32); 2] = [("two", 2.0), ("epsilon", 1e-5)];

    #[test]
    fn a_norm_is_found_with_and_without_its_bias() {
        assert_eq!(ops(graph(&NORM, &NORM_NUMBERS)), ["LayerNormalization x gain bias"]);
        let mut without = NORM[..8].to_vec();
        without[7].2 = "y";
        assert_eq!(ops(graph(&without, &NORM_NUMBERS)), ["LayerNormalization x gain"]);
    }

    #[test]
    fn a_norm_that_leaves_the_mean_is_found_in_each_of_its_forms() {
        let root = [
            ("Mul", "x x", "squares"),
            ("ReduceMean", "squares", "mean"),
            ("Add", "epsilon mean", "sum"),
            ("Sqrt", "sum", "root"),
        ];
        let numbers = [("epsilon", 1e-6), ("one", 1.0), ("two", 2.0)];
        for ends in [
            vec![("Div", "x root", "normal"), ("Mul", "normal gain", "y")],
            vec![
                ("Div", "one root", "inverse"),
                ("Mul", "x inverse", "normal"),
                ("Mul", "gain normal", "y"),
            ],
            vec![
                ("Reciprocal", "root", "inverse"),
                ("Mul", "inverse x", "normal"),
                ("Mul", "gain normal", "y"),
            ],
        ] {
            let mut nodes = [&root[..], &ends].concat();
            assert_eq!(ops(graph(&nodes, &numbers)), ["RMSNormalization x gain"], "{ends:?}");
            // The squares of something else.
            nodes[0].1 = "gain gain";
            assert_eq!(ops(graph(&nodes, &numbers)).len(), nodes.len());
        }
        let two =
            [("Div", "two root", "inverse"), ("Mul", "x inverse", "n"), ("Mul", "gain n", "y")];
        let nodes = [&root[..], &two].concat();
        assert_eq!(ops(graph(&nodes, &numbers)).len(), nodes.len());
    }

    #[test]
    fn what_others_read_stays() {
        let mut read = graph(&NORM, &NORM_NUMBERS);
        read.output.push(ValueInfoProto::tensor(
            "deviation",
            DataType::Float as i32,
            &[None, None],
        ));
        assert_eq!(ops(read).len(), NORM.len());
        // Another power, and another mean.
        let cubes = [("two", 3.0), ("epsilon", 1e-5)];
        assert_eq!(ops(graph(&NORM, &cubes)).len(), NORM.len());
        let mut other = NORM;
        other[1].1 = "x gain";
        // What is taken off is no mean, but what is left is divided by the root of its mean square.
        let found = ops(graph(&other, &NORM_NUMBERS));
        assert!(found.contains(&"RMSNormalization centred gain".to_string()), "{found:?}");
        assert!(!found.iter().any(|node| node.starts_with("LayerNormalization")), "{found:?}");
    }

    #[test]
    fn functions_are_found() {
        let numbers = [("three", 3.0), ("zero", 0.0), ("six", 6.0), ("sixth", 1.0 / 6.0)];
        let gate = [("Add", "x three", "sum"), ("Clip", "sum zero six", "gate")];
        for ends in [
            [("Mul", "x gate", "product"), ("Div", "product six", "y")],
            [("Div", "gate six", "part"), ("Mul", "part x", "y")],
            [("Mul", "sixth gate", "part"), ("Mul", "x part", "y")],
        ] {
            let nodes = [gate, ends].concat();
            assert_eq!(ops(graph(&nodes, &numbers)), ["HardSwish x"], "{ends:?}");
        }
        let numbers =
            [("three", 3.0), ("k", 0.044715), ("c", 0.797_884_6), ("one", 1.0), ("half", 0.5)];
        let nodes = [
            ("Pow", "x three", "cube"),
            ("Mul", "k cube", "small"),
            ("Add", "x small", "sum"),
            ("Mul", "c sum", "scaled"),
            ("Tanh", "scaled", "tanh"),
            ("Add", "one tanh", "gate"),
            ("Mul", "half x", "part"),
            ("Mul", "part gate", "y"),
        ];
        assert_eq!(ops(graph(&nodes, &numbers)), ["Gelu x"]);
        let wrong = numbers.map(|(name, value)| (name, if name == "c" { 0.7 } else { value }));
        assert_eq!(ops(graph(&nodes, &wrong)).len(), nodes.len());
    }
}
