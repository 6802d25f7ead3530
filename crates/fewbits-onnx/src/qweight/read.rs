use std::num::NonZeroUsize;

use fewbits_quant::{Encoding, Granularity, Layout, PackedInts, QTensor, QuantParams};

use super::{bit_values, nbits};
use crate::graph::Index;
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

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

/// A constant integer tensor.
struct Codes {
    shape: Vec<usize>,
    ints: PackedInts,
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
        if node.op_type() != "MatMulNBits" || node.domain() != nbits::MICROSOFT {
            return None;
        }
        let name = node.input.get(1)?.clone();
        if self.index.consumers(&name).first() != Some(&position) {
            return None;
        }
        let weight = nbits::read(node, &self.index, |scale| self.parameter(scale))?;
        Some(ReadWeight { name, lookup: None, weight, data_type: DataType::Float })
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
        let param = |name: &str| -> Option<(&'a TensorProto, Granularity)> {
            match self.parameter(name) {
                Some(tensor) => Some((tensor, Granularity::Tensor)),
                None => {
                    let gather = self
                        .producer(name)
                        .filter(|n| n.is("Gather") && n.input.get(1) == Some(index))?;
                    Some((self.parameter(gather.input.first()?)?, Granularity::Channel { axis: 0 }))
                }
            }
        };
        let (scale, granularity) = param(scale)?;
        let zero_point = match zero_point {
            Some(name) => param(name)?.0.floats().ok()?.into_iter().map(|z| z as i64).collect(),
            None => Vec::new(),
        };
        let weight = finish(codes, granularity, scale.floats().ok()?, zero_point)?;
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
        let granularity = if scale.element_count().ok()? == 1 && node.int("block_size", 0) == 0 {
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
        finish(codes, granularity, scale.floats().ok()?, zero_point)
    }

    /// `(q - zero_point) * scale`, as the writer spells it where `DequantizeLinear` is not to be had.
    fn arithmetic(&self, node: &NodeProto) -> Option<QTensor> {
        let [left, scale] = node.input.as_slice() else { return None };
        let producer = self.producer(left)?;
        let (q, zero_point) = match producer.op_type() {
            "Sub" => (producer.input.first()?.as_str(), Some(producer.input.get(1)?.as_str())),
            _ => (left.as_str(), None),
        };
        let codes = match self.producer(q)? {
            cast if cast.is("Cast") => self.codes(cast.input.first()?)?,
            _ => self.unpacked(q)?,
        };
        let (scale, granularity) = self.spread(scale, &codes.shape)?;
        let zero_point = match zero_point {
            Some(name) => {
                let (tensor, _) = self.spread(name, &codes.shape)?;
                tensor.floats().ok()?.into_iter().map(|z| z as i64).collect()
            }
            None => Vec::new(),
        };
        finish(codes, granularity, scale.floats().ok()?, zero_point)
    }

    /// A parameter and the granularity that its shape implies.
    fn spread(&self, name: &str, shape: &[usize]) -> Option<(&'a TensorProto, Granularity)> {
        if let Some(tensor) = self.parameter(name) {
            let dims = tensor.shape().ok()?;
            let granularity = match dims.first() {
                None => Granularity::Tensor,
                Some(_) => Granularity::Channel { axis: shape.len().checked_sub(dims.len())? },
            };
            return Some((tensor, granularity));
        }
        let gather = self.producer(name).filter(|n| n.is("Gather"))?;
        let param = self.parameter(gather.input.first()?)?;
        let index = self.index.initializer(gather.input.get(1)?)?.ints().ok()?;
        let size = index.iter().take_while(|&&i| i == 0).count();
        let regular = index.iter().enumerate().all(|(i, &g)| (i / size.max(1)) as i64 == g);
        let axis = usize::try_from(gather.int("axis", 0)).ok()?;
        let granularity = Granularity::Group { axis, size: NonZeroUsize::new(size)? };
        regular.then_some((param, granularity))
    }

    /// A constant parameter: an initializer, or one of half precision that is widened.
    fn parameter(&self, name: &str) -> Option<&'a TensorProto> {
        self.index.initializer(name).or_else(|| {
            let cast = self.producer(name).filter(|n| n.is("Cast"))?;
            let narrow = self.index.initializer(cast.input.first()?)?;
            matches!(narrow.element_type(), Ok(DataType::Float16)).then_some(narrow)
        })
    }

    /// A constant integer tensor: an initializer, or the end of an unpacking chain.
    fn codes(&self, name: &str) -> Option<Codes> {
        let Some(tensor) = self.index.initializer(name) else { return self.unpacked(name) };
        let (width, encoding) = match tensor.element_type().ok()? {
            DataType::Int8 => (8, Encoding::TwosComplement),
            DataType::Uint8 => (8, Encoding::Unsigned),
            DataType::Int16 => (16, Encoding::TwosComplement),
            DataType::Int4 => (4, Encoding::TwosComplement),
            DataType::Uint4 => (4, Encoding::Unsigned),
            DataType::Int2 => (2, Encoding::TwosComplement),
            DataType::Uint2 => (2, Encoding::Unsigned),
            _ => return None,
        };
        let codes: Vec<i16> = tensor.ints().ok()?.into_iter().map(|v| v as i16).collect();
        Some(Codes { shape: tensor.shape().ok()?, ints: PackedInts::pack(&codes, width, encoding) })
    }

    /// The chain that the writer emits, followed backwards from its last `Reshape`.
    fn unpacked(&self, name: &str) -> Option<Codes> {
        let (mut node, shape) = self.reshape(name)?;
        let shape: Vec<usize> =
            shape.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<_>>()?;
        let len: usize = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        if node.is("Slice") {
            node = self.reshape(node.input.first()?)?.0;
        }
        if node.is("Cast") {
            node = self.producer(node.input.first()?)?;
        }
        let minus_one = node.is("Sub");
        if minus_one {
            node = self.producer(node.input.first()?)?;
        }
        if !(node.is("MatMulInteger") || node.is("MatMul")) {
            return None;
        }
        let values = self.index.initializer(node.input.get(1)?)?;
        let values: Vec<i32> = match values.element_type().ok()? {
            DataType::Float => values.floats().ok()?.into_iter().map(|v| v as i32).collect(),
            _ => values.ints().ok()?.into_iter().map(|v| v as i32).collect(),
        };
        let width =
            u8::try_from(values.len()).ok().filter(|w| (1..=PackedInts::MAX_WIDTH).contains(w))?;
        let encoding = [Encoding::Sign, Encoding::TwosComplement, Encoding::Unsigned]
            .into_iter()
            .filter(|&e| (e == Encoding::Sign) == minus_one && (e != Encoding::Sign || width == 1))
            .find(|&e| bit_values(e, width) == values)?;
        node = self.producer(node.input.first()?)?;
        if node.is("Cast") {
            node = self.producer(node.input.first()?)?;
        }
        let two = self.index.initializer(node.input.get(1)?)?.ints().ok()?;
        let shift = self.producer(node.input.first()?).filter(|n| n.is("BitShift"))?;
        let shifts = self.index.initializer(shift.input.get(1)?)?.ints().ok()?;
        if !node.is("Mod") || two != [2] || shifts != [0, 1, 2, 3, 4, 5, 6, 7] {
            return None;
        }
        let packed = self.index.initializer(shift.input.first()?)?;
        let ints = PackedInts::from_bytes(packed.raw_data().to_vec(), len, width, encoding)?;
        Some(Codes { shape, ints })
    }

    /// The producer of a `Reshape`'s input, and the target shape.
    fn reshape(&self, name: &str) -> Option<(&'a NodeProto, Vec<i64>)> {
        let node = self.producer(name).filter(|n| n.is("Reshape"))?;
        let shape = self.index.initializer(node.input.get(1)?)?.ints().ok()?;
        Some((self.producer(node.input.first()?)?, shape))
    }

    fn producer(&self, name: &str) -> Option<&'a NodeProto> {
        self.index.producer(name).map(|i| &self.graph.node[i])
    }
}

fn finish(
    codes: Codes,
    granularity: Granularity,
    scale: Vec<f32>,
    zero_point: Vec<i64>,
) -> Option<QTensor> {
    let layout = Layout::new(&codes.shape, granularity).ok()?;
    // Zero points of signed tensors from other tools are folded into unsigned integers, so that
    // one form remains.
    let shift = match codes.ints.encoding() {
        Encoding::TwosComplement if zero_point.iter().any(|&z| z != 0) => {
            1i64 << (codes.ints.width() - 1)
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
    QTensor::new(layout, QuantParams { scale, zero_point }, ints)
}
