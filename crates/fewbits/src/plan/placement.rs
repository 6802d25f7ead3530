//! Where QuantizeLinear and DequantizeLinear are placed: which operators can compute on integers, and which values
//! must be quantized for that.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::facts::{BiasPlace, IntegerForm, OnIntegers, ProductForm, WeightLies};
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{GraphProto, NodeProto};
use fewbits_quant::Granularity;
use serde::{Deserialize, Serialize};

/// The values to quantize.
#[derive(Debug, Default)]
pub struct Placement {
    /// Values, in the order in which the graph makes them.
    pub values: Vec<PlacedValue>,
    /// Results of products that are computed in float, and why.
    pub kept: Vec<(String, String)>,
}

/// A value to quantize.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedValue {
    /// Its name.
    pub value: String,
    /// Who reads the integers.
    pub readers: Readers,
    /// Values of one group share a scale: it is the position of the group's first value.
    pub group: usize,
}

/// How far quantized values reach from the products that read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementExtent {
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

/// Tells whether a product can quantize its activation dynamically: with a matrix of weights that has one
/// scale or one a column.
pub(crate) fn has_dynamic_form(node: &NodeProto, shape: &[usize], scales: Granularity) -> bool {
    let of_matrices = |form: &ProductForm| !form.weight.is_convolution() && shape.len() == 2;
    let Some(form) = ProductForm::on_integers(node).filter(of_matrices) else { return false };
    match scales {
        Granularity::Tensor => true,
        Granularity::Channel { axis } => form.weight.axes(2).channel == Some(axis),
        Granularity::Group { .. } => false,
    }
}

/// Finds the values to quantize when the constants in `weights` are int8.
///
/// What lies between convolutions stays in integers, through pooling, residual
/// additions and the like. A product of matrices takes integers and gives floats: what lies between
/// two of them in a transformer (softmax, layer norm, attention scores, masks, residual additions)
/// loses more from 8 bits than it gains.
pub fn placement(
    graph: &GraphProto,
    weights: &HashSet<&str>,
    extent: PlacementExtent,
) -> Placement {
    let index = Index::new(graph);
    let core: Vec<Option<ProductForm>> = graph
        .node
        .iter()
        .map(|n| {
            let reads_weight = n.input.get(1).is_some_and(|w| weights.contains(w.as_str()));
            // A constant is no activation.
            let reads = |_: &ProductForm| reads_weight && index.initializer(&n.input[0]).is_none();
            ProductForm::on_integers(n).filter(reads)
        })
        .collect();
    let joined = joined(graph, &index, &core);
    let absorbed = |value: &str| {
        let [reader] = index.consumers(value) else { return false };
        joined[*reader] == Some(IntegerForm::Saturates) && !index.is_output(value)
    };

    let mut found: Vec<PlacedValue> = Vec::new();
    let mut position: HashMap<String, usize> = HashMap::new();
    let mut add = |value: &str, readers: Readers| -> usize {
        let at = *position.entry(value.to_string()).or_insert_with(|| {
            found.push(PlacedValue { value: value.to_string(), readers, group: found.len() });
            found.len() - 1
        });
        if readers == Readers::All {
            found[at].readers = Readers::All;
        }
        at
    };
    let mut same_scale: Vec<(usize, usize)> = Vec::new();
    for (i, node) in graph.node.iter().enumerate() {
        if extent == PlacementExtent::ProductInputs {
            if core[i].is_some() {
                add(&node.input[0], Readers::All);
            }
        } else if let Some(product) = core[i] {
            let made_by_integers = |value: &str| {
                index.producer(value).is_some_and(|p| joined[p].is_some() || convolves(core[p]))
            };
            let readers =
                if made_by_integers(&node.input[0]) { Readers::All } else { Readers::Products };
            add(&node.input[0], readers);
            let output = &node.output[0];
            let convolves = product.weight.is_convolution();
            if convolves && !absorbed(output) && !index.consumers(output).is_empty() {
                add(output, Readers::All);
            }
        } else if let Some(form) = joined[i] {
            let values = form.values(node).iter();
            let activations = values.filter(|v| !v.is_empty() && index.initializer(v).is_none());
            let inputs: Vec<usize> =
                activations.filter(|v| !absorbed(v)).map(|v| add(v, Readers::All)).collect();
            let output = &node.output[0];
            if absorbed(output) {
                continue;
            }
            let output = add(output, Readers::All);
            if form.shares_scale() {
                same_scale.extend(inputs.into_iter().map(|input| (input, output)));
            }
        }
    }
    unite(&mut found, &same_scale);
    let others = graph.node.iter().zip(&core).filter(|(_, core)| core.is_none());
    let kept = others
        .filter_map(|(node, _)| {
            let form = ProductForm::of(node)?;
            let why = why_float(form, node.input.iter().any(|i| weights.contains(i.as_str())))?;
            Some((node.output[0].clone(), why.to_string()))
        })
        .collect();
    Placement { values: found, kept }
}

/// Whether a product that computes on integers is a convolution, which ends in them, too.
fn convolves(product: Option<ProductForm>) -> bool {
    product.is_some_and(|product| product.weight.is_convolution())
}

/// Finds the operators that are computed on integers because all they read is, and how they are.
fn joined(
    graph: &GraphProto,
    index: &Index,
    core: &[Option<ProductForm>],
) -> Vec<Option<IntegerForm>> {
    let mut joined: Vec<Option<IntegerForm>> = vec![None; graph.node.len()];
    for (i, node) in graph.node.iter().enumerate() {
        let Some(form) = IntegerForm::of(node) else { continue };
        let read = form.values(node);
        // A product with a bias of its own ends in integers where a Relu lets them saturate, as between the
        // layers of a perceptron; bare, its result is as likely to be scores.
        let saturates = |product: Option<ProductForm>| {
            product.is_some_and(|product| product.bias != BiasPlace::AddBehind)
                && form == IntegerForm::Saturates
        };
        let made_by_integers = |v: &String| {
            index
                .producer(v)
                .is_some_and(|p| joined[p].is_some() || convolves(core[p]) || saturates(core[p]))
        };
        // A residual connection may start at a float that a convolution reads, as integers, too.
        let read_as_integers = |v: &String| {
            let mut readers = index.consumers(v).iter();
            readers.any(|&r| convolves(core[r]) && graph.node[r].input[0] == **v)
        };
        let combines = form == IntegerForm::Combines;
        let all_integers = read.iter().any(made_by_integers)
            && read.iter().all(|v| {
                index.initializer(v).is_none()
                    && (made_by_integers(v) || (combines && read_as_integers(v)))
            });
        joined[i] = Some(form).filter(|_| node.output.len() == 1 && all_integers);
    }
    // What nobody on integers reads gains nothing: prune from the end.
    for i in (0..graph.node.len()).rev() {
        if let Some(form) = joined[i] {
            let output = &graph.node[i].output[0];
            let on_integers = |&r: &usize| joined[r].is_some() || core[r].is_some();
            let wanted = index.consumers(output).iter().any(on_integers);
            // What is made by integers must be quantized anyway: better behind the activation
            // function, which leaves half of the range, than before it.
            let saturates = form == IntegerForm::Saturates
                && index
                    .producer(&graph.node[i].input[0])
                    .is_some_and(|p| joined[p].is_some() || convolves(core[p]));
            if !(wanted || saturates) || index.is_output(output) {
                joined[i] = None;
            }
        }
    }
    joined
}

fn unite(values: &mut [PlacedValue], pairs: &[(usize, usize)]) {
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

/// Why a product that is not computed on integers is not; none for convolutions, of which nothing is asked.
fn why_float(form: ProductForm, has_weight: bool) -> Option<&'static str> {
    match form.on_integers {
        _ if form.weight == WeightLies::Convolution => None,
        OnIntegers::Never => Some("runtimes have no integer form of it"),
        OnIntegers::Altered if has_weight => {
            Some("it is scaled or transposed on the activation's side")
        }
        _ if has_weight => Some("no activation stands on the left of its weight"),
        _ => Some("both sides are activations: attention scores and the like lose too much"),
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

    fn names(placement: &Placement) -> Vec<(&str, Readers)> {
        placement.values.iter().map(|v| (v.value.as_str(), v.readers)).collect()
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
        let placement = placement(&graph, &HashSet::from(["w"]), PlacementExtent::Whole);
        let all = |v| (v, Readers::All);
        assert_eq!(
            names(&placement),
            [("x", Readers::Products), all("b"), all("c"), all("e"), all("f"), all("g")]
        );
        let groups: Vec<usize> = placement.values.iter().map(|v| v.group).collect();
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
        let placement = placement(&graph, &HashSet::from(["w"]), PlacementExtent::Whole);
        let all = |v| (v, Readers::All);
        assert_eq!(names(&placement), [("x", Readers::Products), all("a"), all("b")]);
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
        let placement = placement(&graph, &HashSet::from(["w"]), PlacementExtent::Whole);
        assert_eq!(names(&placement), [("x", Readers::Products), ("b", Readers::All)]);
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
        let placement = placement(&graph, &HashSet::from(["w"]), PlacementExtent::Whole);
        let all = |v| (v, Readers::All);
        assert_eq!(names(&placement), [all("x"), all("a"), all("c")]);
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
        let placement = placement(&graph, &HashSet::from(["w"]), PlacementExtent::Whole);
        assert_eq!(names(&placement), [("x", Readers::Products), ("b", Readers::All)]);
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
        let placement = placement(&graph, &HashSet::from(["w"]), PlacementExtent::Whole);
        assert_eq!(names(&placement), [("n", Readers::Products)]);
        assert_eq!(placement.kept.len(), 1);
        assert!(placement.kept[0].1.contains("both sides"));
    }
}
