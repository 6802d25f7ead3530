//! What lowering asks of the ONNX graph.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fewbits_onnx::facts::Facts;
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use fewbits_onnx::qweight::{ReadWeight, WeightReader};
use fewbits_quant::{Granularity, QTensor};

use crate::op::{ByteScale, OutputAxis, Weights};
use crate::refusal::Refusal;

/// A graph with an index, and the quantized weights that were found in it.
pub(crate) struct GraphView<'a> {
    pub graph: &'a GraphProto,
    pub index: Index<'a>,
    pub opset: i64,
    /// What is known of its values, of weights that nodes unpack as well.
    pub facts: Facts,
    weights: HashMap<String, Arc<QTensor>>,
    /// What is looked up in quantized tables, by the values that are the last of a look-up.
    lookups: HashMap<&'a str, Lookup<'a>>,
    /// What all of them take as floats.
    pub float_bytes: usize,
    inputs: HashSet<&'a str>,
}

/// The value that says which rows are looked up, and the table.
type Lookup<'a> = (&'a str, Arc<QTensor>);

/// The bytes of a quantized activation, as its QuantizeLinear says. Inside the executor all bytes
/// are unsigned: signed ones are shifted by 128, and so is their zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ByteType {
    pub scale: ByteScale,
    /// Whether the ONNX type is INT8.
    pub signed: bool,
}

impl<'a> GraphView<'a> {
    pub(crate) fn new(graph: &'a GraphProto, opset: i64) -> GraphView<'a> {
        let mut weights: HashMap<String, Arc<QTensor>> = HashMap::new();
        let mut lookups = HashMap::new();
        let mut float_bytes = 0;
        let reader = WeightReader::new(graph);
        for found in reader.weights().filter(|found| found.data_type == DataType::Float) {
            let ReadWeight { name, lookup, weight, .. } = found;
            float_bytes += weight.layout().elements() * size_of::<f32>();
            let weight = Arc::new(weight);
            let Some((last, places)) = lookup else {
                weights.insert(name, weight);
                continue;
            };
            let mut names = graph.node.iter().flat_map(|node| &node.input);
            if let Some(places) = names.find(|name| **name == places)
                && let Some(output) = graph.node[last].output.first()
            {
                lookups.insert(output.as_str(), (places.as_str(), weight));
            }
        }
        let inputs = graph.required_inputs().map(ValueInfoProto::name).collect();
        let shapes = weights.iter().map(|(name, weight)| {
            (name.clone(), weight.layout().shape().iter().copied().map(Some).collect())
        });
        let facts = Facts::beside(graph, shapes);
        GraphView {
            graph,
            index: Index::new(graph),
            opset,
            facts,
            weights,
            lookups,
            float_bytes,
            inputs,
        }
    }

    pub(crate) fn producer(&self, name: &str) -> Option<(usize, &'a NodeProto)> {
        self.index.producer(name).map(|i| (i, &self.graph.node[i]))
    }

    pub(crate) fn initializer(&self, name: &str) -> Option<&'a TensorProto> {
        self.index.initializer(name)
    }

    /// Whether a caller feeds `name`.
    pub(crate) fn is_input(&self, name: &str) -> bool {
        self.inputs.contains(name)
    }

    /// Whether one node alone reads `name`, once, and the graph does not give it out.
    pub(crate) fn has_one_use(&self, name: &str) -> bool {
        self.index.consumers(name).len() == 1 && !self.index.is_output(name)
    }

    /// The constant floats of `name`, with their shape.
    pub(crate) fn floats(&self, name: &str) -> Option<(Vec<f32>, Vec<usize>)> {
        let constant = self.constant_floats(name)?;
        Some((constant.values(), constant.shape))
    }

    /// The constant floats of `name`, which are not read yet.
    pub(crate) fn constant_floats(&self, name: &str) -> Option<ConstantFloats<'a>> {
        let tensor = self.initializer(name)?;
        let is_sound = tensor.element_type().ok()? == DataType::Float && tensor.check().is_ok();
        is_sound.then_some(ConstantFloats { tensor, shape: tensor.shape().ok()? })
    }

    /// A constant float of one element.
    pub(crate) fn scalar(&self, name: &str) -> Option<f32> {
        match self.floats(name)?.0.as_slice() {
            [value] => Some(*value),
            _ => None,
        }
    }

    /// The constant integers of `name`.
    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.initializer(name)?;
        matches!(tensor.element_type().ok()?, DataType::Int64 | DataType::Int32).then_some(())?;
        tensor.ints().ok()
    }

    /// The bytes that a QuantizeLinear writes or a DequantizeLinear reads: constant, per tensor.
    pub(crate) fn byte_type(&self, node: &NodeProto) -> Option<ByteType> {
        let scale = self.scalar(node.input.get(1)?)?;
        let (zero_point, signed) = match node.input.get(2).map_or("", String::as_str) {
            "" => match self.type_without_zero_point(node)? {
                DataType::Uint8 => (0, false),
                DataType::Int8 => (0, true),
                _ => return None,
            },
            name => {
                let tensor = self.initializer(name)?;
                let signed = match tensor.element_type().ok()? {
                    DataType::Uint8 => false,
                    DataType::Int8 => true,
                    _ => return None,
                };
                match tensor.ints().ok()?.as_slice() {
                    [z] => (*z, signed),
                    _ => return None,
                }
            }
        };
        let zero_point = u8::try_from(zero_point + if signed { 128 } else { 0 }).ok()?;
        (scale > 0.0 && scale.is_finite())
            .then_some(ByteType { scale: ByteScale { scale, zero_point }, signed })
    }

    /// The type of the integers that a node without a zero point writes or reads.
    fn type_without_zero_point(&self, node: &NodeProto) -> Option<DataType> {
        let names = node.output.first().into_iter().chain(node.input.first());
        let mut types = names.filter_map(|name| self.facts.types().get(name.as_str()).copied());
        types.find(|data_type| matches!(data_type, DataType::Int8 | DataType::Uint8))
    }

    /// The quantized weights that `name` is.
    pub(crate) fn weight(&self, name: &str) -> Option<&Arc<QTensor>> {
        self.weights.get(name)
    }

    /// Where rows of a quantized table are looked up and `name` is what comes of it: the value that says
    /// which, and the table.
    pub(crate) fn lookup(&self, name: &str) -> Option<(&'a str, &Arc<QTensor>)> {
        self.lookups.get(name).map(|(places, table)| (*places, table))
    }

    /// The constant that `name` is: quantized weights, or floats.
    pub(crate) fn factor(&self, name: &str) -> Option<Factor<'a>> {
        match self.weights.get(name) {
            Some(weight) => Some(Factor::Quantized(weight.clone())),
            None => self.constant_floats(name).map(Factor::Floats),
        }
    }

    /// The quantized weights that `name` is as the integers of a product whose outputs are along
    /// `outputs`, and the scale of each output.
    pub(crate) fn weights(
        &self,
        name: &str,
        outputs: OutputAxis,
    ) -> Result<(Weights, Vec<f32>), Refusal> {
        let why = "its weights are not integers of up to 8 bits";
        let not_integers = || Refusal::of_values(why);
        let tensor = self.weights.get(name).ok_or(Refusal::of_operator(why))?;
        let multiplied_as_floats = || {
            let (layout, width) = (tensor.layout(), tensor.codes().width());
            let shared = shared_by(layout.granularity());
            Refusal::of_values(format!("weights of {width} bits {shared} are multiplied as floats"))
                .help("weights with a scale for each output channel are multiplied as integers")
        };
        if tensor.codes().encoding().floats().is_some() {
            return Err(Refusal::of_values("its weights stand for floats of a table"));
        }
        let shape = tensor.layout().shape();
        let axis = match outputs {
            OutputAxis::First => (!shape.is_empty()).then_some(0),
            OutputAxis::Last => shape.len().checked_sub(1),
        };
        let axis = axis.ok_or_else(not_integers)?;
        let scale = match (tensor.layout().granularity(), tensor.params().scale.first()) {
            (Granularity::Tensor, Some(&scale)) => vec![scale; shape[axis]],
            (Granularity::Channel { axis: channel }, _) if channel == axis => {
                tensor.params().scale.clone()
            }
            // Integer sums of one output cannot be scaled apart.
            _ => return Err(multiplied_as_floats()),
        };
        let weights = Weights { tensor: tensor.clone(), outputs };
        match weights.ints().iter().all(|int| (-256..=254).contains(int)) {
            true => Ok((weights, scale)),
            false => Err(not_integers()),
        }
    }
}

/// Constant floats whose payload is as long as their shape asks for.
pub(crate) struct ConstantFloats<'a> {
    tensor: &'a TensorProto,
    pub shape: Vec<usize>,
}

impl ConstantFloats<'_> {
    /// Reads them.
    pub(crate) fn values(&self) -> Vec<f32> {
        self.tensor.floats().expect("the payload was checked")
    }
}

/// The constant factor of a product of floats.
pub(crate) enum Factor<'a> {
    Quantized(Arc<QTensor>),
    Floats(ConstantFloats<'a>),
}

impl Factor<'_> {
    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Factor::Quantized(weight) => weight.layout().shape(),
            Factor::Floats(floats) => &floats.shape,
        }
    }

    /// Unpacks the floats that it stands for.
    pub(crate) fn values(&self) -> Vec<f32> {
        match self {
            Factor::Quantized(weight) => weight.dequantize(),
            Factor::Floats(floats) => floats.values(),
        }
    }
}

/// How weights share their scales, in words.
pub(crate) fn shared_by(granularity: Granularity) -> String {
    match granularity {
        Granularity::Tensor => "with one scale".to_string(),
        Granularity::Channel { axis } => format!("with scales along axis {axis}"),
        Granularity::Group { size, .. } => format!("in groups of {size}"),
    }
}

/// An attribute of two numbers, one for each spatial axis of images; a 1-D one gets `fill` for the
/// height.
pub(crate) fn pair(
    node: &NodeProto,
    name: &str,
    rank: usize,
    fill: usize,
) -> Result<[usize; 2], Refusal> {
    let values: Option<Vec<usize>> =
        node.ints(name).iter().map(|&v| usize::try_from(v).ok()).collect();
    match (values.as_deref(), rank) {
        (Some([]), _) => Ok([fill, fill]),
        (Some([w]), 1) => Ok([fill, *w]),
        (Some([h, w]), 2) => Ok([*h, *w]),
        _ => Err(Refusal::of_node(format!("its {name} are not one size for each spatial axis"))),
    }
}
