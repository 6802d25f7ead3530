//! Finding quantized weights in a graph.

mod codes;
mod params;

use std::collections::HashSet;
use std::num::NonZeroUsize;

use fewbits_quant::{Encoding, Granularity, Layout, PackedInts, QTensor, QuantParams};

use super::nbits;
use crate::facts::is_mat_mul_n_bits;
use crate::graph::Index;
use crate::proto::{DataType, GraphProto, NodeProto};
use codes::Codes;
use params::{Param, beside_scales};

/// Finds the quantized weights of a graph: those that fewbits wrote, and every constant
/// `DequantizeLinear` that another tool wrote.
pub struct WeightReader<'a> {
    graph: &'a GraphProto,
    index: Index<'a>,
}

/// A weight that was found.
pub struct ReadWeight {
    /// The value that consumers read; of a table that rows are looked up in and of a product of packed
    /// integers, those.
    pub name: String,
    /// Where rows are looked up in it: the position of the last node of the look-up, and the value
    /// that says which rows.
    pub lookup: Option<(usize, String)>,
    /// Integers and parameters.
    pub weight: QTensor,
    /// The float type that consumers see.
    pub data_type: DataType,
}

impl<'a> WeightReader<'a> {
    /// Indexes the graph.
    pub fn new(graph: &'a GraphProto) -> WeightReader<'a> {
        WeightReader { graph, index: Index::new(graph) }
    }

    /// Every quantized weight, in the order of the nodes that finish them. A table appears once
    /// for every look-up.
    pub fn weights(&self) -> impl Iterator<Item = ReadWeight> {
        let nodes = self.graph.node.iter().enumerate();
        nodes.filter_map(|(i, node)| {
            let found = self.looked_up(i, node).or_else(|| self.weight_of(node));
            found.or_else(|| self.multiplied(i, node))
        })
    }

    /// The weight of a `MatMulNBits` at `position`, the first that reads it.
    fn multiplied(&self, position: usize, node: &NodeProto) -> Option<ReadWeight> {
        if !is_mat_mul_n_bits(node) {
            return None;
        }
        let name = node.input.get(1)?.clone();
        if self.index.consumers(&name).first() != Some(&position) {
            return None;
        }
        let weight = nbits::read(node, &self.index, |name| Some(self.parameter(name)?.floats))?;
        Some(ReadWeight { name, lookup: None, weight, data_type: DataType::Float })
    }

    /// The positions of the nodes that give the floats of weights.
    pub fn nodes(&self) -> HashSet<usize> {
        let mut waiting: Vec<usize> = Vec::new();
        for found in self.weights() {
            waiting.extend(self.index.producer(&found.name));
            waiting.extend(found.lookup.map(|(position, _)| position));
        }
        let mut nodes = HashSet::new();
        while let Some(position) = waiting.pop() {
            if nodes.insert(position) {
                let inputs = self.graph.node[position].input.iter();
                waiting.extend(inputs.filter_map(|name| self.index.producer(name)));
            }
        }
        nodes
    }

    /// The table in which a look-up that ends with the node at `position` finds its rows.
    fn looked_up(&self, position: usize, node: &NodeProto) -> Option<ReadWeight> {
        let [q, scale] = node.input.as_slice() else { return None };
        let mut cast = self.producer(q).filter(|_| node.is("Mul"))?;
        let mut zero_point = None;
        if cast.is("Sub") {
            zero_point = cast.input.get(1);
            cast = self.producer(cast.input.first()?)?;
        }
        let rows =
            self.producer(cast.input.first()?).filter(|n| cast.is("Cast") && n.is("Gather"))?;
        let (table, index) = (rows.input.first()?, rows.input.get(1)?);
        let codes = self.codes(table)?;
        let param = |name: &str| -> Option<(Param, Granularity)> {
            match self.parameter(name) {
                Some(param) => Some((param, Granularity::Tensor)),
                None => {
                    let gather = self
                        .producer(name)
                        .filter(|n| n.is("Gather") && n.input.get(1) == Some(index))?;
                    Some((self.parameter(gather.input.first()?)?, Granularity::Channel { axis: 0 }))
                }
            }
        };
        let (scale, granularity) = param(scale)?;
        let scales = (scale.floats.len(), granularity);
        let zero_point = match zero_point {
            Some(name) => beside_scales(param(name)?, scales)?,
            None => Vec::new(),
        };
        let weight = finish(codes, granularity, scale, zero_point)?;
        let lookup = Some((position, index.clone()));
        Some(ReadWeight { name: table.clone(), lookup, weight, data_type: DataType::Float })
    }

    /// The weight that `node` finishes, if it does.
    fn weight_of(&self, node: &NodeProto) -> Option<ReadWeight> {
        let name = node.output.first()?;
        let (finisher, data_type) = match node.op_type() {
            "DequantizeLinear" | "Mul" => (node, DataType::Float),
            "Cast" => {
                let data_type = DataType::try_from(node.int("to", 0) as i32).ok()?;
                let float =
                    matches!(data_type, DataType::Float16 | DataType::Bfloat16 | DataType::Double);
                (self.producer(node.input.first()?).filter(|_| float)?, data_type)
            }
            _ => return None,
        };
        // What a later Cast narrows is found there.
        let narrowed = |i: &usize| {
            let reader = &self.graph.node[*i];
            reader.is("Cast") && matches!(reader.int("to", 0), 10 | 11 | 16)
        };
        if std::ptr::eq(finisher, node) && self.index.consumers(name).iter().any(narrowed) {
            return None;
        }
        if self.is_scale(name) {
            return None;
        }
        let weight = match finisher.op_type() {
            "DequantizeLinear" => self.dequantize_linear(finisher)?,
            "Mul" => self.arithmetic(finisher)?,
            _ => return None,
        };
        Some(ReadWeight { name: name.clone(), lookup: None, weight, data_type })
    }

    fn dequantize_linear(&self, node: &NodeProto) -> Option<QTensor> {
        let codes = self.codes(node.input.first()?)?;
        let scale = self.parameter(node.input.get(1)?)?;
        let zero_point = match node.input.get(2).map(String::as_str) {
            None | Some("") => None,
            Some(name) => Some(self.index.initializer(name)?),
        };
        let rank = codes.shape.len();
        let granularity = if scale.floats.len() == 1 && node.int("block_size", 0) == 0 {
            Granularity::Tensor
        } else {
            let axis = node.int("axis", 1);
            let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()?;
            match usize::try_from(node.int("block_size", 0)).ok().and_then(NonZeroUsize::new) {
                Some(size) => Granularity::Group { axis, size },
                None => Granularity::Channel { axis },
            }
        };
        let zero_point = zero_point.map(|z| z.ints().ok()).map_or(Some(Vec::new()), |z| z)?;
        finish(codes, granularity, scale, zero_point)
    }

    /// `(q - zero_point) * scale`, as the writer spells it where `DequantizeLinear` is not to be had.
    fn arithmetic(&self, node: &NodeProto) -> Option<QTensor> {
        let [left, scale] = node.input.as_slice() else { return None };
        let producer = self.producer(left)?;
        let (q, zero_point) = match producer.op_type() {
            "Sub" => (producer.input.first()?.as_str(), Some(producer.input.get(1)?.as_str())),
            _ => (left.as_str(), None),
        };
        let codes = self.numbers(q)?;
        let (scale, granularity) = self.spread(scale, &codes.shape)?;
        let scales = (scale.floats.len(), granularity);
        let zero_point = match zero_point {
            Some(name) => beside_scales(self.spread(name, &codes.shape)?, scales)?,
            None => Vec::new(),
        };
        finish(codes, granularity, scale, zero_point)
    }

    fn producer(&self, name: &str) -> Option<&'a NodeProto> {
        self.index.producer(name).map(|i| &self.graph.node[i])
    }
}

fn finish(
    codes: Codes,
    granularity: Granularity,
    scale: Param,
    zero_point: Vec<i64>,
) -> Option<QTensor> {
    let layout = Layout::new(&codes.shape, granularity).ok()?;
    // Zero points of signed tensors from other tools are folded into unsigned integers, so that
    // one form remains.
    let shift = match codes.ints.encoding() {
        Encoding::TwosComplement if zero_point.iter().any(|&z| z != 0) => {
            1i64 << (codes.ints.width() - 1)
        }
        Encoding::Float(_) | Encoding::Exponent if zero_point.iter().any(|&z| z != 0) => {
            return None;
        }
        _ => 0,
    };
    let ints = match shift {
        0 => codes.ints,
        _ => {
            let shifted: Vec<i16> =
                codes.ints.unpack().into_iter().map(|c| c + shift as i16).collect();
            PackedInts::pack(&shifted, codes.ints.width(), Encoding::Unsigned)
        }
    };
    let zero_point = match zero_point.iter().all(|&z| z + shift == 0) {
        true => Vec::new(),
        false => zero_point
            .into_iter()
            .map(|z| u8::try_from(z + shift).ok())
            .collect::<Option<Vec<u8>>>()?,
    };
    match scale.coded {
        Some(coded) => QTensor::with_coded_scales(layout, coded, zero_point, ints),
        None => QTensor::new(layout, QuantParams { scale: scale.floats, zero_point }, ints),
    }
}
