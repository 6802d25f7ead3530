//! The nodes and constants that take the place of others.

use std::collections::HashMap;

use super::CHANNELS_OPSET;
use crate::facts::Facts;
use crate::graph::{Index, Names};
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// Why a node is left as it is.
pub(super) type Why = String;

/// Scale and zero point, in the shape that `QuantizeLinear` and `DequantizeLinear` take.
#[derive(Clone, PartialEq)]
pub(super) struct Params {
    pub scale: String,
    /// Empty if absent.
    pub zero_point: String,
    /// How many there are, if the scale is a constant.
    pub channels: Option<usize>,
}

/// A `DequantizeLinear` that was emitted: what it reads, and its axis.
type Dequantized = (String, String, String, i64);

/// Collects the nodes of the new graph.
pub(super) struct Emit<'a> {
    opset: i64,
    index: Index<'a>,
    facts: Facts,
    names: Names,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    /// The position of each by its name.
    added: HashMap<String, usize>,
    /// Values that several nodes read are dequantized once; with the position of the node.
    dequantized: HashMap<Dequantized, (usize, String)>,
    /// Constants of the graph in another shape.
    resized: HashMap<(String, usize), String>,
    /// What integers between two nodes stand for.
    params: HashMap<String, Params>,
}

impl<'a> Emit<'a> {
    pub fn new(graph: &'a GraphProto, opset: i64) -> Emit<'a> {
        Emit {
            opset,
            index: Index::new(graph),
            facts: Facts::of(graph),
            names: Names::new(graph),
            nodes: Vec::with_capacity(graph.node.len() + 8),
            constants: Vec::new(),
            added: HashMap::new(),
            dequantized: HashMap::new(),
            resized: HashMap::new(),
            params: HashMap::new(),
        }
    }

    /// The nodes in order, and the constants that they read beside the graph's.
    pub fn into_parts(self) -> (Vec<NodeProto>, Vec<TensorProto>) {
        (self.nodes, self.constants)
    }

    /// How far the new graph has come.
    pub fn mark(&self) -> usize {
        self.nodes.len()
    }

    /// Forgets the nodes emitted since `mark`.
    pub fn back_to(&mut self, mark: usize) {
        self.nodes.truncate(mark);
        self.dequantized.retain(|_, (position, _)| *position < mark);
    }

    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// The initializer `name` of the old or the new graph.
    pub fn constant(&self, name: &str) -> Option<&TensorProto> {
        let added = || self.added.get(name).map(|&at| &self.constants[at]);
        self.index.initializer(name).or_else(added)
    }

    /// The constant `name`, or the one that a `Cast` which was passed makes it of.
    pub fn cast_constant(&self, name: &str) -> Option<&TensorProto> {
        self.constant(name).or_else(|| {
            let makes = |node: &&NodeProto| node.output.first().is_some_and(|o| o == name);
            let cast = self.nodes.iter().find(makes).filter(|node| node.is("Cast"))?;
            self.constant(cast.input.first()?)
        })
    }

    /// The number of dimensions of a value, if known.
    pub fn rank(&self, value: &str) -> Option<usize> {
        self.facts.rank(value)
    }

    /// The element type of a value, if known.
    pub fn elem_type(&self, value: &str) -> Option<DataType> {
        let added = || self.constant(value)?.element_type().ok();
        self.facts.data_type(value).or_else(added)
    }

    /// What the integers of `value` stand for, if they come from a node.
    pub fn params_of(&self, value: &str) -> Option<&Params> {
        self.params.get(value)
    }

    /// Remembers what the integers of `value` stand for.
    pub fn remember(&mut self, value: &str, params: Params) {
        self.params.insert(value.to_string(), params);
    }

    /// A name that nothing uses.
    pub fn fresh(&mut self, wanted: &str) -> String {
        self.names.fresh(wanted)
    }

    /// Adds a constant; returns its name.
    pub fn add(&mut self, mut tensor: TensorProto) -> String {
        let name = self.fresh(tensor.name());
        tensor.name = Some(name.clone());
        self.define(tensor);
        name
    }

    /// Adds a constant under the name of the value that it takes the place of.
    pub fn define(&mut self, tensor: TensorProto) {
        self.added.insert(tensor.name().to_string(), self.constants.len());
        self.constants.push(tensor);
    }

    /// Whether `name` is an output of the graph, which a node must make.
    pub fn is_output(&self, name: &str) -> bool {
        self.index.is_output(name)
    }

    pub fn push(&mut self, node: NodeProto) {
        self.nodes.push(node);
    }

    /// An operator with one output; returns the output's name, which starts with `wanted`.
    pub fn op(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        wanted: &str,
        attributes: Vec<AttributeProto>,
    ) -> String {
        let output = self.fresh(wanted);
        let given = inputs.iter().rposition(|i| !i.is_empty()).map_or(0, |last| last + 1);
        let node = NodeProto::new(op_type, &inputs[..given], &[&output]);
        self.push(attributes.into_iter().fold(node, NodeProto::with));
        output
    }

    /// `value` as `to`.
    pub fn cast(&mut self, value: &str, to: DataType) -> String {
        self.op("Cast", &[value], "cast", vec![AttributeProto::of_int("to", to as i64)])
    }

    /// Gives the last node the name of the one it stands for, to be found by.
    pub fn name_after(&mut self, node: &NodeProto) {
        if let Some(last) = self.nodes.last_mut() {
            last.name.clone_from(&node.name);
        }
    }

    /// Renames the output of the last node to `output`.
    pub fn finish(&mut self, output: &str) {
        if let Some(name) = self.nodes.last_mut().and_then(|n| n.output.first_mut()) {
            *name = output.to_string();
        }
    }

    /// A scale and its zero point in one shape: scalars, or vectors of the same length. Tools also
    /// write vectors of one element, and a scalar beside a vector.
    pub fn params(&mut self, scale: &str, zero_point: &str) -> Result<Params, Why> {
        let count = |name: &str| self.constant(name).and_then(|t| t.element_count().ok());
        let (scales, zero_points) = (count(scale), count(zero_point));
        let Some(scales) = scales else {
            let (scale, zero_point) = (scale.to_string(), zero_point.to_string());
            return Ok(Params { scale, zero_point, channels: None });
        };
        let channels = scales.max(zero_points.unwrap_or(1));
        let scale = self.resized(scale, channels)?;
        let zero_point = match zero_points {
            Some(_) => self.resized(zero_point, channels)?,
            None => zero_point.to_string(),
        };
        Ok(Params { scale, zero_point, channels: Some(channels) })
    }

    /// The constant `name` as a scalar if `channels` is 1, otherwise as a vector.
    fn resized(&mut self, name: &str, channels: usize) -> Result<String, Why> {
        let key = (name.to_string(), channels);
        if let Some(known) = self.resized.get(&key) {
            return Ok(known.clone());
        }
        let tensor = self.constant(name).ok_or_else(|| format!("'{name}' is not a constant"))?;
        let shape = if channels == 1 { vec![] } else { vec![channels] };
        let why = |e: crate::OnnxError| e.to_string();
        let held = tensor.shape().map_err(why)?;
        let resized = if held == shape {
            name.to_string()
        } else {
            let count = tensor.element_count().map_err(why)?;
            if count != 1 && count != channels {
                return Err(format!(
                    "'{name}' has {count} elements where {channels} were expected"
                ));
            }
            let tensor = resize(tensor, &shape, channels)
                .ok_or_else(|| format!("'{name}' is of a type that cannot be spread"))?;
            self.add(tensor)
        };
        self.resized.insert(key, resized.clone());
        Ok(resized)
    }

    /// `x` as floats; `axis` is that of the channels, if there is a scale for each.
    pub fn dequantize(&mut self, x: &str, params: &Params, axis: i64) -> Result<String, Why> {
        let Params { scale, zero_point, channels } = params;
        if channels.is_some_and(|c| c > 1) && self.opset < CHANNELS_OPSET {
            return Err(format!(
                "its scales for each channel need opset {CHANNELS_OPSET} and the model has {}; \
                 export it with a newer opset",
                self.opset
            ));
        }
        let axis = if *channels == Some(1) { 0 } else { axis };
        let key = (x.to_string(), scale.clone(), zero_point.clone(), axis);
        if let Some((_, known)) = self.dequantized.get(&key) {
            return Ok(known.clone());
        }
        let attributes = match channels {
            Some(1) => Vec::new(),
            _ if self.opset < CHANNELS_OPSET => Vec::new(),
            _ => vec![AttributeProto::of_int("axis", axis)],
        };
        let at = self.mark();
        let floats = self.op("DequantizeLinear", &[x, scale, zero_point], "d", attributes);
        self.dequantized.insert(key, (at, floats.clone()));
        Ok(floats)
    }

    /// `value` as the integers `output`, which are of type `data_type` if there is no zero point.
    pub fn quantize(&mut self, value: &str, params: &Params, data_type: DataType, output: &str) {
        let params = self.with_zero_point(params, data_type);
        let Params { scale, zero_point, .. } = &params;
        self.push(NodeProto::new("QuantizeLinear", &[value, scale, zero_point], &[output]));
        self.remember(output, params);
    }

    /// The parameters with a zero point: not every executor has its default.
    pub fn with_zero_point(&mut self, params: &Params, data_type: DataType) -> Params {
        let mut params = params.clone();
        if params.zero_point.is_empty()
            && let Some(channels) = params.channels
        {
            let shape = if channels == 1 { vec![] } else { vec![channels] };
            params.zero_point =
                self.add(TensorProto::from_raw("z", &shape, data_type, vec![0; channels]));
        }
        params
    }
}

/// The elements of `tensor`, one or as many as `count`, in another shape.
fn resize(tensor: &TensorProto, shape: &[usize], count: usize) -> Option<TensorProto> {
    let name = tensor.name();
    let data_type = tensor.element_type().ok()?;
    if data_type == DataType::Float {
        let floats: Vec<f32> = tensor.floats().ok()?.into_iter().cycle().take(count).collect();
        return Some(TensorProto::from_f32(name, shape, &floats));
    }
    let ints = tensor.ints().ok()?.into_iter().cycle().take(count);
    let width = match data_type {
        DataType::Int8 | DataType::Uint8 => 1,
        DataType::Int16 | DataType::Uint16 => 2,
        DataType::Int32 => 4,
        _ => return None,
    };
    // The low bytes of two's complement are the narrower integer.
    let bytes = ints.flat_map(|v| v.to_le_bytes().into_iter().take(width)).collect();
    Some(TensorProto::from_raw(name, shape, data_type, bytes))
}
