//! Float constants that a graph computes from other constants become initializers.
//!
//! Converters leave `Transpose`, `Reshape`, `Cast` or arithmetic between a weight and its reader;
//! folded, the weight is found where the quantizer looks for it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use fewbits_onnx::Model;
use fewbits_onnx::facts::{
    Conversion, Element, Extent, Extents, Known, conversion, elements, folds, moves, result_dims,
    result_type,
};
use fewbits_onnx::graph::Index;
use fewbits_onnx::passes::cleanup;
use fewbits_onnx::passes::constants::constants_to_initializers;
use fewbits_onnx::proto::{DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use fewbits_onnx::qweight::WeightReader;

use crate::{FloatRunner, Result, RunOptions, Runner, RuntimeError, Tensor, Values};

/// A result may be so many times larger than the constants it is computed from.
const LARGEST_GROWTH: usize = 4;
/// A constant of more elements is a weight, of which no second copy is made.
const SMALL_CONSTANT: usize = 1024;

/// Replaces what the main graph computes from constants alone by initializers of the same names.
///
/// FLOAT tensors only: integers and shapes are left to the runtime, though they are followed where
/// a float depends on them. Left alone is a result of more than four times the elements of the
/// constants behind it, what unpacks or dequantizes a weight, and what derives from a weight that
/// others read as it is: the model would hold both. A node that the executor cannot run stays. An
/// initializer that is an input of the graph is no constant.
///
/// Nodes are evaluated one at a time, so that the size of each result is known before it exists,
/// and a result is let go when its last reader has been seen.
///
/// # Errors
/// If a constant's payload is damaged.
pub fn fold_constants(model: &mut Model) -> Result<()> {
    let opset = model.opset();
    let graph = model.graph_mut();
    graph.sort_topologically();
    constants_to_initializers(graph);
    cleanup::drop_no_ops(graph);
    share_equal_moves(graph);
    cleanup::drop_dead(graph);
    for (position, tensor) in results(graph, opset)? {
        let node = &mut graph.node[position];
        node.output.iter_mut().filter(|o| **o == tensor.name()).for_each(String::clear);
        graph.initializer.push(tensor);
    }
    graph.node.retain(|n| n.output.is_empty() || n.output.iter().any(|o| !o.is_empty()));
    cleanup::drop_dead(graph);
    Ok(())
}

/// Lets readers of equal reshapes, transposes and casts of one constant share the first, so that
/// tied weights stay tied.
fn share_equal_moves(graph: &mut GraphProto) {
    let mut constants: HashSet<String> =
        graph.initializer.iter().map(|t| t.name().to_string()).collect();
    let mut first: HashMap<String, String> = HashMap::new();
    for position in 0..graph.node.len() {
        let node = &graph.node[position];
        let [output] = node.output.as_slice() else { continue };
        if !(moves(node) && node.input.iter().all(|name| constants.contains(name))) {
            continue;
        }
        let output = output.clone();
        let key = format!("{} {:?} {:?}", node.op_type(), node.input, node.attribute);
        constants.insert(output.clone());
        match first.get(&key) {
            Some(same) => {
                let same = same.clone();
                graph.replace_uses(&output, &same);
            }
            None => {
                first.insert(key, output);
            }
        }
    }
}

/// The initializers that take the place of nodes' outputs, each with the node's position.
fn results(graph: &GraphProto, opset: i64) -> Result<Vec<(usize, TensorProto)>> {
    let unpacking = WeightReader::new(graph).nodes();
    let index = Index::new(graph);
    let mut constants = Constants::of(graph)?;
    let mut unseen_readers: HashMap<&str, usize> = HashMap::new();
    let mut found: Vec<(usize, Constant)> = Vec::new();
    let mut taken: HashSet<&str> = HashSet::new();
    // Weights that a node reads as they are.
    let mut read: HashSet<&str> = HashSet::new();
    for (position, node) in graph.node.iter().enumerate() {
        let is_read = node.output.iter().any(|name| !index.consumers(name).is_empty());
        let evaluated = match is_read && !unpacking.contains(&position) {
            true => constants.evaluate(node, opset),
            false => None,
        };
        let stays = evaluated.is_none();
        for (name, constant) in node.output.iter().zip(evaluated.into_iter().flatten()) {
            constants.known.insert(name, constant);
        }
        node.for_each_use(&mut |name| {
            let unseen = unseen_readers.entry(name).or_insert_with(|| index.consumers(name).len());
            *unseen -= 1;
            let last = *unseen == 0;
            if stays && constants.elements.contains_key(name) {
                read.insert(name);
            } else if stays && !index.is_output(name) {
                // What a node that stays reads is needed; the rest was on the way.
                let needed = constants.known.get(name).filter(|c| c.data_type == DataType::Float);
                if let (Some(constant), Some(at)) = (needed, index.producer(name))
                    && taken.insert(name)
                {
                    found.push((at, Constant { name: name.to_string(), ..constant.clone() }));
                }
            }
            if last {
                constants.known.remove(name);
            }
        });
    }
    let mut derived: HashMap<&str, usize> = HashMap::new();
    for (_, constant) in &found {
        for &source in &constant.sources {
            *derived.entry(source).or_default() += constant.len();
        }
    }
    found.retain(|(_, constant)| {
        constant.sources.iter().all(|source| {
            let elements = constants.elements[source];
            let grows = derived[source] > LARGEST_GROWTH.saturating_mul(elements);
            elements <= SMALL_CONSTANT || !(grows || read.contains(source))
        })
    });
    found.into_iter().map(|(at, constant)| Ok((at, constant.to_float_initializer()?))).collect()
}

/// A value that does not depend on the inputs.
#[derive(Clone)]
struct Constant<'a> {
    name: String,
    payload: Payload<'a>,
    /// Its ONNX type, which the executor may have widened or narrowed.
    data_type: DataType,
    /// The initializers that it is computed from.
    sources: HashSet<&'a str>,
}

#[derive(Clone)]
enum Payload<'a> {
    /// As the model has it.
    Stored(Rc<Cow<'a, TensorProto>>),
    /// As the executor gave it.
    Computed(Rc<Tensor>),
}

impl Constant<'_> {
    fn shape(&self) -> Vec<usize> {
        match &self.payload {
            Payload::Stored(tensor) => tensor.shape().unwrap_or_default(),
            Payload::Computed(tensor) => tensor.shape().to_vec(),
        }
    }

    fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// The tensor in its own type.
    fn to_initializer(&self) -> Option<TensorProto> {
        let name = self.name.as_str();
        let tensor = match &self.payload {
            Payload::Stored(tensor) => {
                let tensor = TensorProto::clone(tensor);
                return Some(TensorProto { name: Some(name.to_string()), ..tensor });
            }
            Payload::Computed(tensor) => tensor,
        };
        let shape = tensor.shape();
        Some(match tensor.values() {
            Values::F32(v) => TensorProto::from_f32(name, shape, v),
            Values::I32(v) => TensorProto::from_i32(name, shape, v),
            Values::I64(v) => TensorProto::from_i64(name, shape, v),
            Values::Bool(v) => {
                let bytes = v.iter().map(|&b| u8::from(b)).collect();
                TensorProto::from_raw(name, shape, DataType::Bool, bytes)
            }
            _ => return None,
        })
    }

    fn to_float_initializer(&self) -> Result<TensorProto> {
        let tensor = self.to_initializer();
        tensor.filter(|t| t.data_type() == DataType::Float as i32).ok_or_else(|| {
            RuntimeError::Run { reason: format!("constant '{}' is not FLOAT", self.name) }
        })
    }
}

/// The constants known so far.
struct Constants<'a> {
    known: HashMap<&'a str, Constant<'a>>,
    /// Elements of each initializer.
    elements: HashMap<&'a str, usize>,
}

impl<'a> Constants<'a> {
    fn of(graph: &'a GraphProto) -> Result<Constants<'a>> {
        let replaceable: HashSet<&str> = graph.input.iter().map(|i| i.name()).collect();
        let mut all = Constants { known: HashMap::new(), elements: HashMap::new() };
        for tensor in graph.initializer.iter().filter(|t| !replaceable.contains(t.name())) {
            let name = tensor.name();
            all.elements.insert(name, tensor.element_count()?);
            let constant = Constant {
                name: name.to_string(),
                payload: Payload::Stored(Rc::new(Cow::Borrowed(tensor))),
                data_type: tensor.element_type()?,
                sources: HashSet::from([name]),
            };
            all.known.insert(name, constant);
        }
        Ok(all)
    }

    /// The outputs of `node`, if all its inputs are constants and it may be folded.
    fn evaluate(&self, node: &NodeProto, opset: i64) -> Option<Vec<Constant<'a>>> {
        let names = node.input.iter().filter(|name| !name.is_empty());
        let inputs: Vec<&Constant<'a>> =
            names.map(|name| self.known.get(name.as_str())).collect::<Option<_>>()?;
        if inputs.is_empty() || node.output.iter().any(String::is_empty) {
            return None;
        }
        let type_of = |name: &str| Some(self.known.get(name)?.data_type);
        let data_type = result_type(node, 0, type_of)?;
        folds(node, inputs[0].data_type, data_type).then_some(())?;
        let sources: HashSet<&'a str> =
            inputs.iter().flat_map(|c| c.sources.iter().copied()).collect();
        // Elements rather than bytes, so that a half that becomes a float counts once.
        let behind: usize = sources.iter().map(|name| self.elements[name]).sum();
        // What may be of any size may be too large.
        let sizes = (0..node.output.len()).map(|place| elements(&result_dims(node, place, self)?));
        let size = sizes.sum::<Option<usize>>()?;
        if size > LARGEST_GROWTH.saturating_mul(behind) {
            return None;
        }
        let constant = |name: &str, payload| Constant {
            name: name.to_string(),
            payload,
            data_type,
            sources: sources.clone(),
        };
        if let Some(stored) = as_stored(node, inputs[0], data_type) {
            return Some(vec![constant(node.output.first()?, Payload::Stored(stored))]);
        }
        let results = run(node, &inputs, opset).ok()?;
        node.output
            .iter()
            .zip(results)
            .map(|(name, tensor)| {
                let tensor = tensor.cast(data_type).ok()?;
                Some(constant(name, Payload::Computed(Rc::new(tensor))))
            })
            .collect()
    }
}

impl Known for Constants<'_> {
    fn extents(&self, name: &str) -> Option<Extents> {
        let shape = self.known.get(name)?.shape();
        Some(shape.into_iter().map(|size| Extent::from(Some(size))).collect())
    }

    fn elements(&self, name: &str) -> Option<Vec<Element>> {
        let ints = self.known.get(name)?.to_initializer()?.ints().ok()?;
        Some(ints.into_iter().map(Element::Is).collect())
    }
}

/// What needs no executor: the value itself, and another width of it.
fn as_stored<'a>(
    node: &NodeProto,
    input: &Constant<'a>,
    data_type: DataType,
) -> Option<Rc<Cow<'a, TensorProto>>> {
    let Payload::Stored(tensor) = &input.payload else { return None };
    match conversion(node, input.data_type, data_type)? {
        Conversion::Same => Some(tensor.clone()),
        Conversion::Widened => {
            let values = tensor.floats().ok()?;
            let widened = TensorProto::from_f32("", &tensor.shape().ok()?, &values);
            Some(Rc::new(Cow::Owned(widened)))
        }
    }
}

/// Runs one node on its constants.
fn run(node: &NodeProto, inputs: &[&Constant], opset: i64) -> Result<Vec<Tensor>> {
    let mut initializer: Vec<TensorProto> = Vec::new();
    for constant in inputs {
        if !initializer.iter().any(|t| t.name() == constant.name) {
            initializer.extend(constant.to_initializer());
        }
    }
    let output = |name: &String| ValueInfoProto { name: Some(name.clone()), ..Default::default() };
    let graph = GraphProto {
        node: vec![node.clone()],
        output: node.output.iter().map(output).collect(),
        initializer,
        ..GraphProto::default()
    };
    let runner = FloatRunner::new(&Model::from_graph(graph, opset), &RunOptions::default())?;
    Ok(runner.run(&[])?.into_iter().map(|(_, tensor)| tensor).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbits_onnx::proto::AttributeProto;

    fn model(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Model {
        let graph = GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(3)])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None, None])],
            initializer,
            ..GraphProto::default()
        };
        Model::from_graph(graph, 17)
    }

    fn weight() -> TensorProto {
        TensorProto::from_f32("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    }

    fn answer(model: &Model) -> Vec<f32> {
        let runner = FloatRunner::new(model, &RunOptions::default()).unwrap();
        let x = Tensor::new(vec![1, 3], vec![1.0f32, -2.0, 0.5]).unwrap();
        let (_, y) = runner.run(&[("x".to_string(), x)]).unwrap().remove(0);
        let Values::F32(values) = y.values() else { panic!("floats") };
        values.clone()
    }

    /// The operators left, after checking that the answer is the same.
    fn fold(mut model: Model) -> (Vec<String>, Model) {
        let before = answer(&model);
        fold_constants(&mut model).unwrap();
        assert_eq!(answer(&model), before);
        (model.graph().node.iter().map(|n| n.op_type().to_string()).collect(), model)
    }

    fn matmul(weight: &str) -> NodeProto {
        NodeProto::new("MatMul", &["x", weight], &["y"])
    }

    #[test]
    fn what_lies_between_a_weight_and_its_reader_is_folded() {
        let (ops, m) = fold(model(
            vec![
                NodeProto::new("Identity", &["w"], &["a"]),
                NodeProto::new("Transpose", &["a"], &["b"])
                    .with(AttributeProto::of_ints("perm", &[1, 0])),
                NodeProto::new("Mul", &["b", "k"], &["c"]),
                NodeProto::new("Cast", &["c"], &["d"]).with(AttributeProto::of_int("to", 1)),
                matmul("d"),
            ],
            vec![weight(), TensorProto::from_f32("k", &[2], &[2.0, 10.0])],
        ));
        assert_eq!(ops, ["MatMul"]);
        let tensor = m.graph().find_initializer(&m.graph().node[0].input[1]).unwrap();
        assert_eq!(tensor.dims, [3, 2]);
        assert_eq!(tensor.floats().unwrap(), [2.0, 40.0, 4.0, 50.0, 6.0, 60.0]);
        assert_eq!(m.graph().initializer.len(), 1);
    }

    #[test]
    fn shapes_on_the_way_are_followed_and_half_floats_widened() {
        // 1.0, 2.0 and 0.5 as halves.
        let half = vec![0x00, 0x3c, 0x00, 0x40, 0x00, 0x38];
        let (ops, m) = fold(model(
            vec![
                NodeProto::new("Cast", &["h"], &["f"]).with(AttributeProto::of_int("to", 1)),
                NodeProto::new("Shape", &["f"], &["n"]),
                NodeProto::new("Concat", &["n", "one"], &["s"])
                    .with(AttributeProto::of_int("axis", 0)),
                NodeProto::new("Reshape", &["f", "s"], &["r"]),
                matmul("r"),
            ],
            vec![
                TensorProto::from_raw("h", &[3], DataType::Float16, half),
                TensorProto::from_i64("one", &[1], &[1]),
            ],
        ));
        assert_eq!(ops, ["MatMul"]);
        assert_eq!(m.graph().find_initializer("r").unwrap().dims, [3, 1]);
    }

    #[test]
    fn integers_and_what_grows_stay() {
        let big = NodeProto::new("Expand", &["t", "shape"], &["e"]);
        let (ops, m) = fold(model(
            vec![
                NodeProto::new("Neg", &["v"], &["t"]),
                big,
                NodeProto::new("Add", &["sizes", "sizes"], &["shape2"]),
                NodeProto::new("MatMul", &["x", "e"], &["z"]),
                NodeProto::new("Reshape", &["z", "shape2"], &["y"]),
            ],
            vec![
                TensorProto::from_f32("v", &[1, 1], &[1.5]),
                TensorProto::from_i64("shape", &[2], &[3, 400]),
                TensorProto::from_i64("sizes", &[2], &[10, 10]),
            ],
        ));
        assert_eq!(ops, ["Expand", "Add", "MatMul", "Reshape"]);
        assert!(m.graph().find_initializer("t").is_some(), "what it reads is folded");
    }

    #[test]
    fn tied_weights_stay_one() {
        // The weight is read as it is, and transposed, twice.
        let transpose = |to: &str| {
            NodeProto::new("Transpose", &["w"], &[to])
                .with(AttributeProto::of_ints("perm", &[1, 0]))
        };
        let square = TensorProto::from_f32("w", &[40, 40], &[0.5; 1600]);
        let nodes = |first: NodeProto| {
            vec![
                NodeProto::new("MatMul", &["x", "e"], &["h"]),
                first,
                transpose("t"),
                transpose("u"),
                NodeProto::new("MatMul", &["g", "t"], &["i"]),
                NodeProto::new("MatMul", &["i", "u"], &["y"]),
            ]
        };
        let entry = TensorProto::from_f32("e", &[3, 40], &[0.25; 120]);
        let read = NodeProto::new("MatMul", &["h", "w"], &["g"]);
        let (ops, m) = fold(model(nodes(read), vec![square.clone(), entry.clone()]));
        assert_eq!(ops, ["MatMul", "MatMul", "Transpose", "MatMul", "MatMul"]);
        assert_eq!(m.graph().initializer.len(), 2);

        let other = NodeProto::new("Relu", &["h"], &["g"]);
        let (ops, m) = fold(model(nodes(other), vec![square, entry]));
        assert_eq!(ops, ["MatMul", "Relu", "MatMul", "MatMul"]);
        assert_eq!(m.graph().node[3].input[1], "t");
        assert_eq!(m.graph().initializer.len(), 2);
    }

    #[test]
    fn quantized_weights_are_left_packed() {
        let codes = TensorProto::from_i8("q", &[3, 2], &[1, 2, 3, 4, 5, 6]);
        let (ops, _) = fold(model(
            vec![
                NodeProto::new("DequantizeLinear", &["q", "s"], &["d"]),
                NodeProto::new("Transpose", &["d"], &["t"]),
                NodeProto::new("Transpose", &["t"], &["u"]),
                matmul("u"),
            ],
            vec![codes, TensorProto::from_f32("s", &[], &[0.5])],
        ));
        assert_eq!(ops, ["DequantizeLinear", "Transpose", "Transpose", "MatMul"]);
    }

    #[test]
    fn defaults_of_inputs_are_no_constants() {
        let mut m = model(vec![NodeProto::new("Neg", &["w"], &["n"]), matmul("n")], vec![]);
        let graph = m.graph_mut();
        graph.initializer.push(TensorProto::from_f32("w", &[3, 1], &[1.0, 2.0, 3.0]));
        graph.input.push(ValueInfoProto::tensor("w", 1, &[Some(3), Some(1)]));
        let (ops, _) = fold(m);
        assert_eq!(ops, ["Neg", "MatMul"]);
    }
}
