//! What lowering asks of the ONNX graph.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::facts::Facts;
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use fewbits_onnx::qweight::{ReadWeight, WeightReader};
use fewbits_quant::{Granularity, QTensor};

use crate::integer::state::ByteScale;

/// A graph with an index, and the quantized weights that were found in it.
pub(crate) struct Net<'a> {
    pub graph: &'a GraphProto,
    pub index: Index<'a>,
    pub opset: i64,
    /// What is known of its values, of weights that nodes unpack as well.
    pub facts: Facts,
    weights: HashMap<String, QTensor>,
    /// What is looked up in quantized tables, by the values that are the last of a look-up.
    lookups: HashMap<&'a str, Lookup<'a>>,
    /// What all of them take as floats.
    pub float_bytes: usize,
    inputs: HashSet<&'a str>,
}

/// The value that says which rows are looked up, and the table.
type Lookup<'a> = (&'a str, QTensor);

/// The bytes of a quantized activation, as its QuantizeLinear says. Inside the executor all bytes
/// are unsigned: signed ones are shifted by 128, and so is their zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ByteType {
    pub scale: ByteScale,
    /// Whether the ONNX type is INT8.
    pub signed: bool,
}

/// Weights of a product as integers: `[columns, depth]`.
pub(crate) struct IntWeights {
    /// `(code - zero point)` of every weight; within ±256.
    pub ints: Vec<i16>,
    /// One for each column.
    pub scale: Vec<f32>,
    /// The shape that ONNX gives.
    pub shape: Vec<usize>,
}

impl<'a> Net<'a> {
    pub(crate) fn new(graph: &'a GraphProto, opset: i64) -> Net<'a> {
        let mut weights: HashMap<String, QTensor> = HashMap::new();
        let mut lookups = HashMap::new();
        let mut float_bytes = 0;
        let reader = WeightReader::new(graph);
        for found in reader.weights().filter(|found| found.data_type == DataType::Float) {
            let ReadWeight { name, lookup, weight, .. } = found;
            float_bytes += weight.layout().elements() * size_of::<f32>();
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
        Net { graph, index: Index::new(graph), opset, facts, weights, lookups, float_bytes, inputs }
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
        let tensor = self.initializer(name)?;
        (tensor.element_type().ok()? == DataType::Float).then_some(())?;
        Some((tensor.floats().ok()?, tensor.shape().ok()?))
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
            "" => match node.int("output_dtype", DataType::Uint8 as i64) {
                t if t == DataType::Uint8 as i64 => (0, false),
                t if t == DataType::Int8 as i64 => (0, true),
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

    /// The quantized weights that `name` is.
    pub(crate) fn weight(&self, name: &str) -> Option<&QTensor> {
        self.weights.get(name)
    }

    /// Where rows of a quantized table are looked up and `name` is what comes of it: the value that says
    /// which, and the table.
    pub(crate) fn lookup(&self, name: &str) -> Option<(&'a str, &QTensor)> {
        self.lookups.get(name).map(|(places, table)| (*places, table))
    }

    /// The floats that the quantized weights `name` stand for, with their shape.
    pub(crate) fn dequantized(&self, name: &str) -> Option<(Vec<f32>, Vec<usize>)> {
        let weight = self.weights.get(name)?;
        Some((weight.dequantize(), weight.layout().shape().to_vec()))
    }

    /// The quantized weights that `name` is, with `axis` as their columns.
    pub(crate) fn weights(&self, name: &str, axis: Axis) -> Option<IntWeights> {
        let weight = self.weights.get(name)?;
        if weight.codes().encoding().floats().is_some() {
            return None;
        }
        let shape = weight.layout().shape().to_vec();
        let columns_axis = axis.of(shape.len())?;
        let columns = *shape.get(columns_axis)?;
        let scale = match weight.layout().granularity() {
            Granularity::Tensor => vec![*weight.params().scale.first()?; columns],
            Granularity::Channel { axis } if axis == columns_axis => weight.params().scale.clone(),
            // Integer sums of one column cannot be scaled apart.
            _ => return None,
        };
        let codes = weight.codes().unpack();
        let inner: usize = shape[columns_axis + 1..].iter().product();
        let mut ints = vec![0i16; codes.len()];
        let depth = codes.len() / columns.max(1);
        let shared = weight.layout().granularity() == Granularity::Tensor;
        for (outer, codes) in codes.chunks_exact((inner * columns).max(1)).enumerate() {
            for (column, codes) in codes.chunks_exact(inner).enumerate() {
                let zero_point = weight.params().zero_point_of(if shared { 0 } else { column });
                let ints = &mut ints[column * depth + outer * inner..][..inner];
                for (int, &code) in ints.iter_mut().zip(codes) {
                    *int = code - zero_point;
                }
            }
        }
        ints.iter().all(|int| (-256..=254).contains(int)).then_some(())?;
        Some(IntWeights { ints, scale, shape })
    }
}

impl IntWeights {
    /// How many terms of 8 bits the integers need: 1 or 2.
    pub(crate) fn terms(&self) -> usize {
        let small = |w: &i16| i8::try_from(*w).is_ok();
        if self.ints.iter().all(small) { 1 } else { 2 }
    }
}

/// Which axis of a weight the columns of a product are.
#[derive(Clone, Copy)]
pub(crate) enum Axis {
    First,
    Last,
}

impl Axis {
    fn of(self, rank: usize) -> Option<usize> {
        match self {
            Axis::First => (rank > 0).then_some(0),
            Axis::Last => rank.checked_sub(1),
        }
    }
}

/// An attribute of two numbers, one for each spatial axis of images; a 1-D one gets `fill` for the
/// height.
pub(crate) fn pair(node: &NodeProto, name: &str, rank: usize, fill: usize) -> Option<[usize; 2]> {
    let values: Vec<usize> =
        node.ints(name).iter().map(|&v| usize::try_from(v).ok()).collect::<Option<_>>()?;
    match (values.as_slice(), rank) {
        ([], _) => Some([fill, fill]),
        ([w], 1) => Some([fill, *w]),
        ([h, w], 2) => Some([*h, *w]),
        _ => None,
    }
}
