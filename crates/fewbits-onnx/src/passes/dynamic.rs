//! Products become integer products whose activations are quantized dynamically:
//! `DynamicQuantizeLinear` and `MatMulInteger`, which ONNX Runtime fuses with what scales the sums.
//!
//! However many products read a weight or a value, its integers, its scales and its quantization are
//! written once.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::facts::WeightLies;
use crate::graph::{Index, Names};
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// A product that [`dynamic_products`] rewrites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicProduct {
    /// The position of the `MatMul` or `Gemm`.
    pub node: usize,
    /// The activation that it reads.
    pub value: String,
    /// The weight that it reads.
    pub weight: String,
    /// How the weight lies: in columns, as a `MatMulInteger` reads it, or in rows.
    pub lies: WeightLies,
    /// The value that a `Gemm` adds.
    pub bias: Option<String>,
}

/// The int8 form of a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicWeight {
    /// The shape of the float weight.
    pub shape: [usize; 2],
    /// Its integers, row-major.
    pub integers: Vec<i8>,
    /// One scale, or one for each column of the products.
    pub scale: Vec<f32>,
}

/// Rewrites `products` as products of integers of `weights`, which holds each weight that they name.
///
/// A float weight that others read stays. Its integers then lie as it does, so that what is written
/// for those others can share them.
pub fn dynamic_products(
    graph: &mut GraphProto,
    products: Vec<DynamicProduct>,
    weights: BTreeMap<String, DynamicWeight>,
) {
    let mut writer = Writer::new(graph, &products, weights);
    let at: HashMap<usize, &DynamicProduct> =
        products.iter().map(|product| (product.node, product)).collect();
    // In the places of the products: what others share comes before the first of them.
    for (position, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        match at.get(&position) {
            Some(product) => writer.product(&node, product),
            None => writer.nodes.push(node),
        }
    }
    graph.node = writer.nodes;
    graph.initializer.append(&mut writer.constants);
}

struct Writer {
    names: Names,
    weights: BTreeMap<String, DynamicWeight>,
    /// Weights whose integers are stored as `[k, n]` although the floats lie the other way.
    turned: HashSet<String>,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    /// Of each value its integers, their scale and their zero point.
    values: HashMap<String, [String; 3]>,
    /// Of each weight and way to lie its integers.
    integers: HashMap<(String, bool), String>,
    /// Of each weight its scales.
    scales: HashMap<String, String>,
    /// Of each value and weight the product of their scales.
    factors: HashMap<(String, String), String>,
}

impl Writer {
    fn new(
        graph: &GraphProto,
        products: &[DynamicProduct],
        weights: BTreeMap<String, DynamicWeight>,
    ) -> Writer {
        let index = Index::new(graph);
        let nodes: HashSet<usize> = products.iter().map(|product| product.node).collect();
        let of_products = |weight: &str| {
            let only_they = index.consumers(weight).iter().all(|reader| nodes.contains(reader));
            only_they && !index.is_output(weight)
        };
        let turned = weights.keys().filter(|weight| {
            let mut readers = products.iter().filter(|product| product.weight == **weight);
            of_products(weight) && readers.all(|product| product.lies == WeightLies::Rows)
        });
        let turned = turned.cloned().collect();
        Writer {
            names: Names::new(graph),
            weights,
            turned,
            nodes: Vec::new(),
            constants: Vec::new(),
            values: HashMap::new(),
            integers: HashMap::new(),
            scales: HashMap::new(),
            factors: HashMap::new(),
        }
    }

    fn product(&mut self, node: &NodeProto, product: &DynamicProduct) {
        let [q, scale, zero_point] = self.value(&product.value);
        let integers = self.integers(&product.weight, product.lies);
        let factor = self.factor(product, &scale);
        let output = node.output[0].clone();
        let bias = product.bias.as_ref().filter(|bias| !bias.is_empty());
        let (sums, floats) = (self.names.fresh("p"), self.names.fresh("f"));
        let scaled = if bias.is_some() { self.names.fresh("y") } else { output.clone() };
        self.nodes.push(NodeProto::new("MatMulInteger", &[&q, &integers, &zero_point], &[&sums]));
        self.nodes.push(
            NodeProto::new("Cast", &[&sums], &[&floats])
                .with(AttributeProto::of_int("to", DataType::Float as i64)),
        );
        self.nodes.push(NodeProto::new("Mul", &[&floats, &factor], &[&scaled]));
        if let Some(bias) = bias {
            self.nodes.push(NodeProto::new("Add", &[&scaled, bias], &[&output]));
        }
    }

    fn value(&mut self, value: &str) -> [String; 3] {
        if let Some(known) = self.values.get(value) {
            return known.clone();
        }
        let made = ["q", "s", "z"].map(|name| self.names.fresh(name));
        let outputs = made.each_ref().map(String::as_str);
        self.nodes.push(NodeProto::new("DynamicQuantizeLinear", &[value], &outputs));
        self.values.insert(value.to_string(), made.clone());
        made
    }

    /// The integers of a weight as `[k, n]`: one copy, and a `Transpose` where products read it both
    /// ways, which runtimes fold.
    fn integers(&mut self, weight: &str, lies: WeightLies) -> String {
        let turns = lies == WeightLies::Rows && !self.turned.contains(weight);
        if let Some(known) = self.integers.get(&(weight.to_string(), turns)) {
            return known.clone();
        }
        let name = self.names.fresh("w");
        if turns {
            let stored = self.integers(weight, WeightLies::Columns);
            self.nodes.push(
                NodeProto::new("Transpose", &[&stored], &[&name])
                    .with(AttributeProto::of_ints("perm", &[1, 0])),
            );
        } else {
            let DynamicWeight { shape: [rows, columns], integers, .. } = &self.weights[weight];
            let (rows, columns) = (*rows, *columns);
            self.constants.push(match self.turned.contains(weight) {
                false => TensorProto::from_i8(&name, &[rows, columns], integers),
                true => {
                    let turned: Vec<i8> = (0..columns)
                        .flat_map(|column| (0..rows).map(move |row| row * columns + column))
                        .map(|at| integers[at])
                        .collect();
                    TensorProto::from_i8(&name, &[columns, rows], &turned)
                }
            });
        }
        self.integers.insert((weight.to_string(), turns), name.clone());
        name
    }

    /// The scale of the activations times those of the weight.
    fn factor(&mut self, product: &DynamicProduct, activations: &str) -> String {
        let key = (product.value.clone(), product.weight.clone());
        if let Some(known) = self.factors.get(&key) {
            return known.clone();
        }
        let weights = self.scales(&product.weight);
        let factor = self.names.fresh("m");
        self.nodes.push(NodeProto::new("Mul", &[activations, &weights], &[&factor]));
        self.factors.insert(key, factor.clone());
        factor
    }

    fn scales(&mut self, weight: &str) -> String {
        if let Some(known) = self.scales.get(weight) {
            return known.clone();
        }
        let name = self.names.fresh("s");
        let scale = &self.weights[weight].scale;
        let shape: &[usize] = if scale.len() == 1 { &[] } else { &[scale.len()] };
        self.constants.push(TensorProto::from_f32(&name, shape, scale));
        self.scales.insert(weight.to_string(), name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ValueInfoProto;

    fn graph(nodes: Vec<NodeProto>) -> GraphProto {
        GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(2)])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None, Some(2)])],
            initializer: vec![TensorProto::from_f32("w", &[2, 2], &[1.0; 4])],
            ..GraphProto::default()
        }
    }

    fn product(node: usize, value: &str, lies: WeightLies) -> DynamicProduct {
        DynamicProduct { node, value: value.into(), weight: "w".into(), lies, bias: None }
    }

    fn weights() -> BTreeMap<String, DynamicWeight> {
        let weight = DynamicWeight { shape: [2, 2], integers: vec![1, 2, 3, 4], scale: vec![0.5] };
        BTreeMap::from([("w".to_string(), weight)])
    }

    fn of_op<'a>(graph: &'a GraphProto, op: &str) -> Vec<&'a NodeProto> {
        graph.node.iter().filter(|n| n.is(op)).collect()
    }

    #[test]
    fn what_several_products_read_is_written_once() {
        let mut g = graph(vec![
            NodeProto::new("MatMul", &["x", "w"], &["a"]),
            NodeProto::new("MatMul", &["x", "w"], &["b"]),
            NodeProto::new("Gemm", &["a", "w"], &["c"]),
            NodeProto::new("Add", &["b", "c"], &["y"]),
        ]);
        let products = vec![
            product(0, "x", WeightLies::Columns),
            product(1, "x", WeightLies::Columns),
            product(2, "a", WeightLies::Rows),
        ];
        dynamic_products(&mut g, products, weights());
        assert_eq!(of_op(&g, "DynamicQuantizeLinear").len(), 2);
        assert_eq!(of_op(&g, "MatMulInteger").len(), 3);
        let int8 = |t: &&TensorProto| t.data_type() == DataType::Int8 as i32;
        assert_eq!(g.initializer.iter().filter(int8).count(), 1);
        // The float weight, the integers and one set of scales.
        assert_eq!(g.initializer.len(), 3);
        let [turned] = of_op(&g, "Transpose")[..] else { panic!("one Transpose") };
        let readers: Vec<&str> =
            of_op(&g, "MatMulInteger").iter().map(|n| n.input[1].as_str()).collect();
        assert_eq!(readers.iter().filter(|w| **w == turned.output[0]).count(), 1);
        // A factor for each pair of a value and a weight, and one Mul a product.
        assert_eq!(of_op(&g, "Mul").len(), 2 + 3);
    }

    #[test]
    fn a_weight_that_lies_transposed_for_all_is_turned_once_and_for_all() {
        let mut g = graph(vec![
            NodeProto::new("Gemm", &["x", "w"], &["a"]),
            NodeProto::new("Gemm", &["a", "w"], &["y"]),
        ]);
        let both = vec![product(0, "x", WeightLies::Rows), product(1, "a", WeightLies::Rows)];
        dynamic_products(&mut g, both, weights());
        assert!(of_op(&g, "Transpose").is_empty());
        let integers = g.initializer.iter().find(|t| t.data_type() == DataType::Int8 as i32);
        assert_eq!(integers.unwrap().ints().unwrap(), [1, 3, 2, 4]);
    }
}
