//! Products of halves and doubles are computed in FLOAT, the one type whose activations every opset
//! quantizes: `Cast` goes around them, and what lies between two of them needs none.

use std::collections::{BTreeMap, HashMap};

use half::{bf16, f16};

use crate::Result;
use crate::facts::{ElementTypes, element_types};
use crate::graph::{Index, Names};
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto, TypeValue};

/// A constant of more elements is a weight, of which no second copy is made.
const SMALL_CONSTANT: usize = 1024;
/// A constant is narrowed again where that saves more bytes than the `Cast` behind it takes.
const WORTH_A_CAST_BYTES: u64 = 96;

/// Whether values of this type are floats, but not FLOAT.
pub fn is_other_float(data_type: DataType) -> bool {
    matches!(data_type, DataType::Float16 | DataType::Bfloat16 | DataType::Double)
}

/// Lets nodes that read and give floats of another type compute in FLOAT; `nodes` holds their positions
/// and that type. Of each the first output counts.
///
/// What they give is FLOAT under its own name, and is cast back for others; an output of the graph stays
/// what it is. Constants that they read become FLOAT.
///
/// # Errors
/// If a constant is damaged.
pub fn compute_in_single(graph: &mut GraphProto, nodes: &BTreeMap<usize, DataType>) -> Result<()> {
    let mut casts = Casts {
        types: element_types(graph),
        names: Names::new(graph),
        nodes: Vec::new(),
        single: HashMap::new(),
    };
    // What the nodes give, and the name under which others read it.
    let mut others: HashMap<String, String> = HashMap::new();
    {
        let index = Index::new(graph);
        for (&position, &data_type) in nodes {
            let given = &graph.node[position].output[0];
            let is_output = index.is_output(given);
            let is_read = index.consumers(given).iter().any(|reader| !nodes.contains_key(reader));
            let single = match is_output {
                true => casts.names.fresh(&format!("{given}_float")),
                false => given.clone(),
            };
            if is_output || is_read {
                let other = match is_output {
                    true => given.clone(),
                    false => casts.names.fresh(&format!("{given}_cast")),
                };
                casts.add(&single, data_type, &other);
                others.insert(given.clone(), other);
            }
            casts.single.insert(given.clone(), single);
        }
    }
    let mut constants = Constants::new(graph, nodes);
    for (position, node) in graph.node.iter_mut().enumerate() {
        if nodes.contains_key(&position) {
            continue;
        }
        node.rename_uses(&others);
    }
    for &position in nodes.keys() {
        for i in float_inputs(&graph.node[position]) {
            let name = graph.node[position].input[i].clone();
            let single = match graph.find_initializer(&name) {
                Some(tensor) => constants.single(tensor, &mut casts)?,
                None => casts.single(graph, &name),
            };
            graph.node[position].input[i] = single;
        }
        let given = graph.node[position].output[0].clone();
        graph.node[position].output[0].clone_from(&casts.single[&given]);
    }
    constants.store(graph);
    for info in &mut graph.value_info {
        let is_single = casts.single.get(info.name()).is_some_and(|single| single == info.name());
        if is_single
            && let Some(TypeValue::TensorType(tensor)) =
                info.r#type.as_mut().and_then(|t| t.value.as_mut())
        {
            tensor.elem_type = Some(DataType::Float as i32);
        }
    }
    graph.node.append(&mut casts.nodes);
    graph.sort_topologically();
    Ok(())
}

/// The inputs of a node that are floats.
fn float_inputs(node: &NodeProto) -> Vec<usize> {
    let places = ["Reshape", "Squeeze", "Unsqueeze", "Gather"].contains(&node.op_type());
    let is_float = |i: &usize| !node.input[*i].is_empty() && (*i != 1 || !places);
    (0..node.input.len()).filter(is_float).collect()
}

struct Casts {
    types: ElementTypes,
    names: Names,
    nodes: Vec<NodeProto>,
    /// The FLOAT form of values, by their names.
    single: HashMap<String, String>,
}

impl Casts {
    fn add(&mut self, from: &str, to: DataType, output: &str) {
        self.nodes.push(
            NodeProto::new("Cast", &[from], &[output])
                .with(AttributeProto::of_int("to", to as i64)),
        );
    }

    /// The FLOAT form of a value that a node of another type, or a caller, gives.
    fn single(&mut self, graph: &GraphProto, name: &str) -> String {
        if let Some(known) = self.single.get(name) {
            return known.clone();
        }
        if self.types.get(name) == Some(&DataType::Float) {
            return name.to_string();
        }
        // What was FLOAT before somebody cast it.
        let producer = graph.node.iter().find(|n| n.output.first().is_some_and(|o| o == name));
        let before = producer.filter(|n| n.is("Cast")).and_then(|n| n.input.first());
        let single = match before {
            Some(before) if self.types.get(before) == Some(&DataType::Float) => before.clone(),
            _ => {
                let single = self.names.fresh(&format!("{name}_float"));
                self.add(name, DataType::Float, &single);
                single
            }
        };
        self.single.insert(name.to_string(), single.clone());
        single
    }
}

/// The constants that change.
struct Constants {
    /// Those that other nodes read, too.
    shared: Vec<String>,
    /// In the place of those of the same name.
    replaced: HashMap<String, TensorProto>,
    /// The names of copies, by those of what they are made from.
    copies: HashMap<String, String>,
    added: Vec<TensorProto>,
    /// New names of weights, for others than the nodes in FLOAT.
    cast_back: HashMap<String, String>,
    nodes: Vec<usize>,
}

impl Constants {
    fn new(graph: &GraphProto, nodes: &BTreeMap<usize, DataType>) -> Constants {
        let index = Index::new(graph);
        let read_by_others = |name: &str| {
            index.is_output(name)
                || graph.input.iter().any(|i| i.name() == name)
                || index.consumers(name).iter().any(|reader| !nodes.contains_key(reader))
        };
        let shared = graph.initializer.iter().map(TensorProto::name).filter(|n| read_by_others(n));
        Constants {
            shared: shared.map(str::to_string).collect(),
            replaced: HashMap::new(),
            copies: HashMap::new(),
            added: Vec::new(),
            cast_back: HashMap::new(),
            nodes: nodes.keys().copied().collect(),
        }
    }

    /// The name of a constant's FLOAT form.
    fn single(&mut self, tensor: &TensorProto, casts: &mut Casts) -> Result<String> {
        let name = tensor.name();
        let data_type = tensor.element_type()?;
        if !is_other_float(data_type) || self.replaced.contains_key(name) {
            return Ok(name.to_string());
        }
        if let Some(copy) = self.copies.get(name) {
            return Ok(copy.clone());
        }
        let (shape, floats) = (tensor.shape()?, tensor.floats()?);
        let is_shared = self.shared.iter().any(|shared| shared == name);
        if is_shared && floats.len() <= SMALL_CONSTANT {
            let copy = casts.names.fresh(&format!("{name}_float"));
            self.added.push(TensorProto::from_f32(&copy, &shape, &floats));
            self.copies.insert(name.to_string(), copy.clone());
            return Ok(copy);
        }
        if is_shared {
            let back = casts.names.fresh(&format!("{name}_cast"));
            casts.add(name, data_type, &back);
            self.cast_back.insert(name.to_string(), back);
        }
        self.replaced.insert(name.to_string(), TensorProto::from_f32(name, &shape, &floats));
        Ok(name.to_string())
    }

    fn store(mut self, graph: &mut GraphProto) {
        for (position, node) in graph.node.iter_mut().enumerate() {
            if self.nodes.binary_search(&position).is_err() {
                node.rename_uses(&self.cast_back);
            }
        }
        for tensor in &mut graph.initializer {
            if let Some(single) = self.replaced.remove(tensor.name()) {
                *tensor = single;
            }
        }
        graph.initializer.append(&mut self.added);
    }
}

/// The element types of the constants of a graph.
pub fn constant_types(graph: &GraphProto) -> HashMap<String, DataType> {
    let types = graph.initializer.iter();
    types.filter_map(|t| Some((t.name().to_string(), t.element_type().ok()?))).collect()
}

/// Stores constants that [`compute_in_single`] made FLOAT, and that are still what they were, in the type
/// that `types` says they had, where that takes fewer bytes.
///
/// # Errors
/// If a constant is damaged.
pub fn store_as_before(graph: &mut GraphProto, types: &HashMap<String, DataType>) -> Result<()> {
    let mut names = Names::new(graph);
    let mut casts = Vec::new();
    let fixed: Vec<String> =
        graph.input.iter().chain(&graph.output).map(|v| v.name().to_string()).collect();
    for tensor in &mut graph.initializer {
        let narrow = match types.get(tensor.name()) {
            Some(&narrow @ (DataType::Float16 | DataType::Bfloat16)) => narrow,
            _ => continue,
        };
        let is_single = tensor.element_type()? == DataType::Float;
        let worth = tensor.stored_bytes() / 2 > WORTH_A_CAST_BYTES;
        if !is_single || !worth || fixed.iter().any(|name| name == tensor.name()) {
            continue;
        }
        let floats = tensor.floats()?;
        let Some(bytes) = narrowed(&floats, narrow) else { continue };
        let name = tensor.name().to_string();
        let stored = names.fresh("h");
        *tensor = TensorProto::from_raw(&stored, &tensor.shape()?, narrow, bytes);
        casts.push(
            NodeProto::new("Cast", &[&stored], &[&name])
                .with(AttributeProto::of_int("to", DataType::Float as i64)),
        );
    }
    graph.node.splice(0..0, casts);
    Ok(())
}

/// The values in another type, if they are the same there.
fn narrowed(floats: &[f32], narrow: DataType) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2 * floats.len());
    for &x in floats {
        let (bits, back) = match narrow {
            DataType::Float16 => (f16::from_f32(x).to_bits(), f16::from_f32(x).to_f32()),
            _ => (bf16::from_f32(x).to_bits(), bf16::from_f32(x).to_f32()),
        };
        if back.to_bits() != x.to_bits() {
            return None;
        }
        bytes.extend(bits.to_le_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::mismatches;
    use crate::passes::cleanup;
    use crate::proto::ValueInfoProto;

    fn half(name: &str, dims: &[usize], x: f32) -> TensorProto {
        let count: usize = dims.iter().product();
        let bytes = std::iter::repeat_n(f16::from_f32(x).to_le_bytes(), count).flatten().collect();
        TensorProto::from_raw(name, dims, DataType::Float16, bytes)
    }

    /// Two products and a Relu between them; the Softmax that follows stays in halves.
    fn graph() -> GraphProto {
        let float = DataType::Float as i32;
        GraphProto {
            node: vec![
                NodeProto::new("Cast", &["x"], &["half"])
                    .with(AttributeProto::of_int("to", DataType::Float16 as i64)),
                NodeProto::new("Gemm", &["half", "w", "b"], &["a"]),
                NodeProto::new("Relu", &["a"], &["r"]),
                NodeProto::new("MatMul", &["r", "w"], &["c"]),
                NodeProto::new("Softmax", &["c"], &["p"]),
                NodeProto::new("Add", &["p", "b"], &["y"]),
            ],
            input: vec![ValueInfoProto::tensor("x", float, &[None, Some(2)])],
            output: vec![ValueInfoProto::tensor("y", DataType::Float16 as i32, &[None, Some(2)])],
            initializer: vec![half("w", &[2, 2], 0.5), half("b", &[2], 1.0)],
            ..GraphProto::default()
        }
    }

    #[test]
    fn only_what_leaves_the_products_is_cast() {
        let mut g = graph();
        let nodes = [1, 2, 3].map(|position| (position, DataType::Float16)).into();
        compute_in_single(&mut g, &nodes).unwrap();
        cleanup::cleanup(&mut g);
        assert_eq!(mismatches(&g, 17), []);
        let ops: Vec<&str> = g.node.iter().map(|n| n.op_type()).collect();
        // The Cast of the input is not needed any more, the one behind the products is new.
        assert_eq!(ops, ["Gemm", "Relu", "MatMul", "Cast", "Softmax", "Add"]);
        assert_eq!(g.node[0].input[0], "x");
        assert_eq!(g.find_initializer("w").unwrap().element_type().unwrap(), DataType::Float);
        assert_eq!(g.find_initializer("b").unwrap().element_type().unwrap(), DataType::Float16);
    }

    #[test]
    fn outputs_of_the_graph_keep_their_type() {
        let mut g = graph();
        g.output = vec![ValueInfoProto::tensor("c", DataType::Float16 as i32, &[None, Some(2)])];
        compute_in_single(&mut g, &[(3, DataType::Float16)].into()).unwrap();
        cleanup::cleanup(&mut g);
        assert_eq!(mismatches(&g, 17), []);
        assert!(g.node.iter().any(|n| n.is("Cast") && n.output[0] == "c"));
    }

    #[test]
    fn constants_go_back_to_what_they_were() {
        let mut g = GraphProto {
            node: vec![NodeProto::new("Add", &["x", "b"], &["y"])],
            initializer: vec![TensorProto::from_f32("b", &[100], &[0.5; 100])],
            ..GraphProto::default()
        };
        let types = HashMap::from([("b".to_string(), DataType::Float16)]);
        store_as_before(&mut g, &types).unwrap();
        assert_eq!(g.initializer[0].stored_bytes(), 200);
        assert_eq!((g.node[0].op_type(), g.node[0].output[0].as_str()), ("Cast", "b"));
        g.initializer[0] = TensorProto::from_f32("b", &[100], &[0.1; 100]);
        g.node.remove(0);
        store_as_before(&mut g, &types).unwrap();
        assert_eq!(g.initializer[0].stored_bytes(), 400, "0.1 has no half of the same value");
    }
}
