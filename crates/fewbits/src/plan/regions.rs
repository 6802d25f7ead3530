//! Which operators can compute on integers, and which values must be quantized for that.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{GraphProto, NodeProto};
use serde::{Deserialize, Serialize};

/// The values to quantize.
#[derive(Debug, Default)]
pub struct Regions {
    /// Values, in the order in which the graph makes them.
    pub values: Vec<RegionValue>,
    /// Results of products that are computed in float, and why.
    pub kept: Vec<(String, String)>,
}

/// A value to quantize.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionValue {
    /// Its name.
    pub value: String,
    /// Who reads the integers.
    pub readers: Readers,
    /// Values of one group share a scale: it is the position of the group's first value.
    pub group: usize,
}

/// Which values of a region are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionExtent {
    /// All of them: what lies between convolutions stays in integers.
    Whole,
    /// Those that products read.
    ProductInputs,
}

/// Who reads the integers of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readers {
    /// Everyone: the value is made by an operator that computes on integers, too.
    All,
    /// Only products with quantized weights; others read the float value.
    Products,
}

/// Whether `node` multiplies an activation, its first input, by the weight that it reads second.
pub fn is_product(node: &NodeProto) -> bool {
    match node.op_type() {
        _ if !node.is_onnx() => false,
        "Conv" | "MatMul" => true,
        "Gemm" => {
            node.int("transA", 0) == 0
                && node.float("alpha", 1.0) == 1.0
                && node.float("beta", 1.0) == 1.0
        }
        _ => false,
    }
}

/// Operators that hand integers on unchanged: input and output share a scale.
const PASSES_ON: [&str; 6] = ["MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"];
/// Operators with integer forms of their own.
const JOINS: [&str; 5] = ["Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool"];
/// Activation functions that saturation performs.
const SATURATES: [&str; 2] = ["Relu", "Clip"];

/// Whether a node may stay in integers between products.
pub(crate) fn hands_on(node: &NodeProto) -> bool {
    let op = node.op_type();
    node.is_onnx() && (PASSES_ON.contains(&op) || JOINS.contains(&op) || SATURATES.contains(&op))
}

/// The inputs of such a node that are activations if they are no constants.
pub(crate) fn activations_of(node: &NodeProto) -> impl Iterator<Item = &str> {
    read(node).iter().filter(|name| !name.is_empty()).map(String::as_str)
}

/// Finds the values to quantize when the constants in `weights` are int8.
///
/// Convolutions make regions that stay in integers from one to the next, through pooling, residual
/// additions and the like. A product of matrices takes integers and gives floats: what lies between
/// two of them in a transformer (softmax, layer norm, attention scores, masks, residual additions)
/// loses more from 8 bits than it gains.
pub fn regions(graph: &GraphProto, weights: &HashSet<&str>, extent: RegionExtent) -> Regions {
    let index = Index::new(graph);
    let is_core: Vec<bool> = graph
        .node
        .iter()
        .map(|n| is_product(n) && n.input.get(1).is_some_and(|w| weights.contains(w.as_str())))
        .collect();
    let joined = joined(graph, &index, &is_core);
    let absorbed = |value: &str| {
        let [reader] = index.consumers(value) else { return false };
        joined[*reader]
            && SATURATES.contains(&graph.node[*reader].op_type())
            && !index.is_output(value)
    };

    let mut found: Vec<RegionValue> = Vec::new();
    let mut position: HashMap<String, usize> = HashMap::new();
    let mut add = |value: &str, readers: Readers| -> usize {
        let at = *position.entry(value.to_string()).or_insert_with(|| {
            found.push(RegionValue { value: value.to_string(), readers, group: found.len() });
            found.len() - 1
        });
        if readers == Readers::All {
            found[at].readers = Readers::All;
        }
        at
    };
    let mut same_scale: Vec<(usize, usize)> = Vec::new();
    for (i, node) in graph.node.iter().enumerate() {
        if extent == RegionExtent::ProductInputs {
            if is_core[i] {
                add(&node.input[0], Readers::All);
            }
        } else if is_core[i] {
            let made_by_integers = |value: &str| {
                index
                    .producer(value)
                    .is_some_and(|p| joined[p] || (is_core[p] && graph.node[p].is("Conv")))
            };
            let readers =
                if made_by_integers(&node.input[0]) { Readers::All } else { Readers::Products };
            add(&node.input[0], readers);
            let output = &node.output[0];
            if node.is("Conv") && !absorbed(output) && !index.consumers(output).is_empty() {
                add(output, Readers::All);
            }
        } else if joined[i] {
            let inputs: Vec<usize> = activations(node, &index)
                .filter(|v| !absorbed(v))
                .map(|v| add(v, Readers::All))
                .collect();
            let output = &node.output[0];
            if absorbed(output) {
                continue;
            }
            let output = add(output, Readers::All);
            if PASSES_ON.contains(&node.op_type()) || node.is("Concat") {
                same_scale.extend(inputs.into_iter().map(|input| (input, output)));
            }
        }
    }
    unite(&mut found, &same_scale);
    let kept = graph
        .node
        .iter()
        .zip(&is_core)
        .filter(|(node, core)| {
            !**core && matches!(node.op_type(), "MatMul" | "Gemm" | "ConvTranspose")
        })
        .map(|(node, _)| (node.output[0].clone(), why_float(node, weights).to_string()))
        .collect();
    Regions { values: found, kept }
}

/// The inputs of a node that are activations if they are no constants.
fn read(node: &NodeProto) -> &[String] {
    match node.op_type() {
        "Add" | "Mul" | "Concat" => &node.input,
        // The second input of Reshape and the like is none.
        _ => &node.input[..node.input.len().min(1)],
    }
}

/// The inputs of a node that are not constants.
fn activations<'a>(node: &'a NodeProto, index: &'a Index) -> impl Iterator<Item = &'a String> {
    read(node).iter().filter(|i| !i.is_empty() && index.initializer(i).is_none())
}

/// Marks the operators that are computed on integers because all they read is.
fn joined(graph: &GraphProto, index: &Index, is_core: &[bool]) -> Vec<bool> {
    let mut joined = vec![false; graph.node.len()];
    for (i, node) in graph.node.iter().enumerate() {
        let op = node.op_type();
        let elementwise = matches!(op, "Add" | "Mul");
        let known = hands_on(node);
        let read = read(node);
        // A Gemm ends in integers where a Relu lets them saturate, as between the layers of a
        // perceptron; bare, its result is as likely to be scores.
        let made_by_integers = |v: &String| {
            index.producer(v).is_some_and(|p| {
                joined[p]
                    || (is_core[p]
                        && (graph.node[p].is("Conv")
                            || (graph.node[p].is("Gemm") && SATURATES.contains(&op))))
            })
        };
        // A residual connection may start at a float that a convolution reads, as integers, too.
        let read_as_integers = |v: &String| {
            index
                .consumers(v)
                .iter()
                .any(|&r| is_core[r] && graph.node[r].is("Conv") && graph.node[r].input[0] == **v)
        };
        let all_integers = read.iter().any(made_by_integers)
            && read.iter().all(|v| {
                index.initializer(v).is_none()
                    && (made_by_integers(v) || (elementwise && read_as_integers(v)))
            });
        joined[i] = known && node.output.len() == 1 && all_integers;
    }
    // What nobody on integers reads gains nothing: prune from the end.
    for i in (0..graph.node.len()).rev() {
        if joined[i] {
            let output = &graph.node[i].output[0];
            let wanted = index.consumers(output).iter().any(|&r| joined[r] || is_core[r]);
            // What is made by integers must be quantized anyway: better behind the activation
            // function, which leaves half of the range, than before it.
            let saturates = SATURATES.contains(&graph.node[i].op_type())
                && index
                    .producer(&graph.node[i].input[0])
                    .is_some_and(|p| joined[p] || graph.node[p].is("Conv"));
            joined[i] = (wanted || saturates) && !index.is_output(output);
        }
    }
    joined
}

fn unite(values: &mut [RegionValue], pairs: &[(usize, usize)]) {
    // Few values and fewer pairs: repeat until nothing changes.
    let mut changed = true;
    while changed {
        changed = false;
        for &(a, b) in pairs {
            let least = values[a].group.min(values[b].group);
            for at in [a, b] {
                changed |= std::mem::replace(&mut values[at].group, least) != least;
            }
        }
    }
}

fn why_float(node: &NodeProto, weights: &HashSet<&str>) -> &'static str {
    let has_weight = node.input.iter().any(|i| weights.contains(i.as_str()));
    match node.op_type() {
        "ConvTranspose" => "runtimes have no integer form of it",
        "Gemm" if has_weight => "it is scaled or transposed on the activation's side",
        _ if has_weight => "the weight stands on the left",
        _ => "both sides are activations: attention scores and the like lose too much",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbits_onnx::proto::{TensorProto, ValueInfoProto};

    fn graph(nodes: Vec<NodeProto>, output: &str) -> GraphProto {
        GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None])],
            output: vec![ValueInfoProto::tensor(output, 1, &[None])],
            initializer: vec![TensorProto::from_f32("w", &[1], &[1.0])],
            ..GraphProto::default()
        }
    }

    fn names(regions: &Regions) -> Vec<(&str, Readers)> {
        regions.values.iter().map(|v| (v.value.as_str(), v.readers)).collect()
    }

    #[test]
    fn a_residual_block_stays_in_integers() {
        let graph = graph(
            vec![
                NodeProto::new("Conv", &["x", "w"], &["a"]),
                NodeProto::new("Relu", &["a"], &["b"]),
                NodeProto::new("Conv", &["b", "w"], &["c"]),
                NodeProto::new("Add", &["b", "c"], &["d"]),
                NodeProto::new("Relu", &["d"], &["e"]),
                NodeProto::new("MaxPool", &["e"], &["f"]),
                NodeProto::new("Flatten", &["f"], &["g"]),
                NodeProto::new("Gemm", &["g", "w"], &["y"]),
            ],
            "y",
        );
        let regions = regions(&graph, &HashSet::from(["w"]), RegionExtent::Whole);
        let all = |v| (v, Readers::All);
        assert_eq!(
            names(&regions),
            [("x", Readers::Products), all("b"), all("c"), all("e"), all("f"), all("g")]
        );
        let groups: Vec<usize> = regions.values.iter().map(|v| v.group).collect();
        assert_eq!(groups, [0, 1, 2, 3, 3, 3]);
    }

    #[test]
    fn shapes_are_not_quantized() {
        let graph = graph(
            vec![
                NodeProto::new("Conv", &["x", "w"], &["a"]),
                NodeProto::new("Shape", &["a"], &["sizes"]),
                NodeProto::new("Slice", &["sizes", "from", "to"], &["rows"]),
                NodeProto::new("Concat", &["rows", "rest"], &["shape"]),
                NodeProto::new("Reshape", &["a", "shape"], &["b"]),
                NodeProto::new("MatMul", &["b", "w"], &["y"]),
            ],
            "y",
        );
        let regions = regions(&graph, &HashSet::from(["w"]), RegionExtent::Whole);
        let all = |v| (v, Readers::All);
        assert_eq!(names(&regions), [("x", Readers::Products), all("a"), all("b")]);
    }

    #[test]
    fn what_floats_read_is_quantized_behind_its_activation_function() {
        let graph = graph(
            vec![
                NodeProto::new("Conv", &["x", "w"], &["a"]),
                NodeProto::new("Relu", &["a"], &["b"]),
                NodeProto::new("ReduceMean", &["b"], &["y"]),
            ],
            "y",
        );
        let regions = regions(&graph, &HashSet::from(["w"]), RegionExtent::Whole);
        assert_eq!(names(&regions), [("x", Readers::Products), ("b", Readers::All)]);
    }

    #[test]
    fn a_residual_connection_may_start_at_the_input() {
        let graph = graph(
            vec![
                NodeProto::new("Conv", &["x", "w"], &["a"]),
                NodeProto::new("Add", &["x", "a"], &["b"]),
                NodeProto::new("Relu", &["b"], &["c"]),
                NodeProto::new("Conv", &["c", "w"], &["y"]),
            ],
            "y",
        );
        let regions = regions(&graph, &HashSet::from(["w"]), RegionExtent::Whole);
        let all = |v| (v, Readers::All);
        assert_eq!(names(&regions), [all("x"), all("a"), all("c")]);
    }

    #[test]
    fn layers_of_a_perceptron_stay_in_integers_and_its_scores_do_not() {
        let graph = graph(
            vec![
                NodeProto::new("Gemm", &["x", "w"], &["a"]),
                NodeProto::new("Relu", &["a"], &["b"]),
                NodeProto::new("Gemm", &["b", "w"], &["c"]),
                NodeProto::new("Softmax", &["c"], &["y"]),
            ],
            "y",
        );
        let regions = regions(&graph, &HashSet::from(["w"]), RegionExtent::Whole);
        assert_eq!(names(&regions), [("x", Readers::Products), ("b", Readers::All)]);
    }

    #[test]
    fn a_transformer_quantizes_only_what_products_read() {
        let graph = graph(
            vec![
                NodeProto::new("LayerNormalization", &["x", "w"], &["n"]),
                NodeProto::new("MatMul", &["n", "w"], &["q"]),
                NodeProto::new("MatMul", &["q", "n"], &["s"]),
                NodeProto::new("Softmax", &["s"], &["p"]),
                NodeProto::new("Add", &["p", "x"], &["y"]),
            ],
            "y",
        );
        let regions = regions(&graph, &HashSet::from(["w"]), RegionExtent::Whole);
        assert_eq!(names(&regions), [("n", Readers::Products)]);
        assert_eq!(regions.kept.len(), 1);
        assert!(regions.kept[0].1.contains("both sides"));
    }
}
