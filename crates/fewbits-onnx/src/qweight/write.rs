use bytes::Bytes;
use fewbits_quant::{Encoding, Granularity, PackedInts, QTensor, ScaleType};
use half::f16;

use super::{bit_values, fields};
use crate::graph::Names;
use crate::passes::cleanup::share_equal_initializers;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};
use crate::{Model, OnnxError, Result};

/// The newest opset whose forms of weights are plain.
const PLAIN_OPSET: i64 = 13;
/// About what the operators that unpack a tensor, and their constants, take in a file.
const UNPACKING_BYTES: usize = 256;

/// About what the operator that widens half-precision scales takes in a file.
const WIDENING_BYTES: usize = 40;

/// What of ONNX the integers of weights may be written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightForm {
    /// The packed types and the blocks of the model's opset, and bit slices.
    #[default]
    Newest,
    /// The packed types and the blocks of the model's opset; whole bytes for what has no type.
    NewestUnsliced,
    /// What opset 13 has, whatever the model's: no packed types and no blocks, but bit slices.
    Plain,
}

/// Replaces float initializers by quantized ones, then edits the graph once in [`finish`].
///
/// [`finish`]: QWeightWriter::finish
pub struct QWeightWriter<'a> {
    model: &'a mut Model,
    /// The opset whose forms may be used.
    opset: i64,
    form: WeightForm,
    names: Names,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Nodes of the model, by position, and what takes their place.
    replaced: Vec<(usize, Vec<NodeProto>)>,
}

impl<'a> QWeightWriter<'a> {
    /// Starts editing `model`.
    pub fn new(model: &'a mut Model, form: WeightForm) -> QWeightWriter<'a> {
        let names = Names::new(model.graph());
        let opset = match form {
            WeightForm::Plain => model.opset().min(PLAIN_OPSET),
            _ => model.opset(),
        };
        QWeightWriter {
            model,
            opset,
            form,
            names,
            nodes: Vec::new(),
            initializers: Vec::new(),
            replaced: Vec::new(),
        }
    }

    /// Why integers of this width cannot be written at the model's opset, if so.
    pub fn obstacle(opset: i64, width: u8) -> Option<String> {
        let needed = if width == 8 { 7 } else { 11 };
        (opset < needed).then(|| {
            format!("{width}-bit weights need opset {needed}, the model has {opset}; export it with a newer opset")
        })
    }

    /// Whether the model has an initializer of this name.
    pub fn has(&self, name: &str) -> bool {
        self.model.graph().find_initializer(name).is_some()
    }

    /// Replaces the initializer `name` by `weight`.
    pub fn replace(&mut self, name: &str, weight: QTensor) -> Result<()> {
        let data_type = match self.model.graph().find_initializer(name) {
            Some(tensor) => tensor.element_type()?,
            None => {
                return Err(OnnxError::Node {
                    node: name.to_string(),
                    op: "initializer".into(),
                    reason: "the model has no weight of this name; inspect lists those it has"
                        .into(),
                });
            }
        };
        if let Some(reason) = Self::obstacle(self.opset, weight.codes().width()) {
            return Err(OnnxError::Node { node: name.to_string(), op: "weight".into(), reason });
        }
        let lookups = self.lookups(name, &weight, data_type);
        if !lookups.is_empty() {
            self.remove_initializer(name);
            self.look_up(weight, name, lookups);
            return Ok(());
        }
        let floats =
            if data_type == DataType::Float { name.to_string() } else { self.names.fresh("f") };
        self.dequantize(weight, &floats);
        if data_type != DataType::Float {
            self.cast(&floats, data_type, name);
        }
        self.remove_initializer(name);
        Ok(())
    }

    fn remove_initializer(&mut self, name: &str) {
        let graph = self.model.graph_mut();
        graph.initializer.retain(|t| t.name() != name);
        graph.input.retain(|i| i.name() != name);
    }

    /// The positions of the `Gather` nodes that look rows up in `name`, if nothing else reads it
    /// and rows can be dequantized after the look-up.
    fn lookups(&self, name: &str, weight: &QTensor, data_type: DataType) -> Vec<usize> {
        let by_row = matches!(
            weight.layout().granularity(),
            Granularity::Tensor | Granularity::Channel { axis: 0 }
        );
        let graph = self.model.graph();
        if !by_row
            || data_type != DataType::Float
            || weight.layout().shape().len() != 2
            || graph.is_output(name)
        {
            return Vec::new();
        }
        let mut readers = Vec::new();
        for (i, node) in graph.node.iter().enumerate() {
            let mut uses = 0;
            node.for_each_use(&mut |used| uses += usize::from(used == name));
            if uses == 0 {
                continue;
            }
            let looks_up = node.is("Gather")
                && node.int("axis", 0) == 0
                && node.input.first().is_some_and(|i| i == name);
            if !(looks_up && uses == 1) {
                return Vec::new();
            }
            readers.push(i);
        }
        readers
    }

    /// Looks integers up and dequantizes the rows found: a table dequantized as a whole would cost
    /// every call the size of the vocabulary. The integers take the table's name.
    fn look_up(&mut self, weight: QTensor, name: &str, lookups: Vec<usize>) {
        let params = weight.params().clone();
        let rows = match weight.layout().granularity() {
            Granularity::Tensor => Vec::new(),
            _ => vec![params.scale.len(), 1],
        };
        // Sub-byte types cannot be looked up everywhere.
        let integer_type = match (weight.codes().width(), weight.codes().encoding()) {
            (9.., _) => DataType::Int16,
            (_, Encoding::Unsigned) => DataType::Uint8,
            _ => DataType::Int8,
        };
        let sliced = self.slices(weight.codes()) && weight.codes().width() != 8;
        let shape = weight.layout().shape().to_vec();
        let (width, codes) = (weight.codes().width(), weight.into_codes());
        let table = if sliced {
            let data_type = if width > 8 { DataType::Float } else { integer_type };
            self.unpacked(codes, data_type, &shape)
        } else {
            let bytes = match width {
                8 => codes.into_bytes(),
                9.. => codes.unpack().into_iter().flat_map(i16::to_le_bytes).collect(),
                _ => codes.unpack().into_iter().map(|code| code as u8).collect(),
            };
            self.initializers.push(TensorProto::from_raw(name, &shape, integer_type, bytes));
            name.to_string()
        };
        let scale = self.scales(&rows, &params.scale);
        let zero_point: Vec<f32> = params.zero_point.iter().map(|&z| f32::from(z)).collect();
        let zero_point = (!zero_point.is_empty())
            .then(|| self.constant("z", |n| TensorProto::from_f32(n, &rows, &zero_point)));
        for position in lookups {
            let node = self.model.graph().node[position].clone();
            let (index, output) = (node.input[1].clone(), node.output[0].clone());
            let mut steps = Vec::new();
            let mut look = |writer: &mut Self, param: &str| {
                if rows.is_empty() && param != table {
                    return param.to_string();
                }
                let found = writer.names.fresh("e");
                steps.push(NodeProto::new("Gather", &[param, &index], &[&found]));
                found
            };
            let found = look(self, &table);
            let scale = look(self, &scale);
            let zero_point = zero_point.as_ref().map(|z| look(self, z));
            let mut q = self.names.fresh("e");
            steps.push(
                NodeProto::new("Cast", &[&found], &[&q])
                    .with(AttributeProto::of_int("to", DataType::Float as i64)),
            );
            if let Some(zero_point) = zero_point {
                let centred = self.names.fresh("e");
                steps.push(NodeProto::new("Sub", &[&q, &zero_point], &[&centred]));
                q = centred;
            }
            steps.push(NodeProto::new("Mul", &[&q, &scale], &[&output]));
            self.replaced.push((position, steps));
        }
    }

    /// Puts the new nodes before all others.
    pub fn finish(mut self) {
        let graph: &mut GraphProto = self.model.graph_mut();
        // From the back, so that positions stay true.
        self.replaced.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
        for (position, steps) in self.replaced {
            graph.node.splice(position..=position, steps);
        }
        graph.node.splice(0..0, self.nodes);
        graph.initializer.extend(self.initializers);
        share_equal_initializers(graph);
    }

    fn dequantize(&mut self, weight: QTensor, output: &str) {
        let layout = weight.layout().clone();
        let params = weight.params().clone();
        let granularity = layout.granularity();
        let opset_of_dequantize_linear = match granularity {
            Granularity::Tensor => 10,
            Granularity::Channel { .. } => 13,
            Granularity::Group { .. } => 21,
        };
        let width = weight.codes().width();
        let scale_shape = layout.param_shape();
        if self.opset >= opset_of_dequantize_linear && width <= 8 {
            let integer_type = self.integer_type(weight.codes());
            let codes = self.codes(weight, integer_type);
            let scale = self.scales(&scale_shape, &params.scale);
            let mut inputs = vec![codes, scale];
            if !params.zero_point.is_empty() {
                let bytes = zero_point_bytes(&params.zero_point, integer_type);
                inputs.push(self.constant("z", |n| {
                    TensorProto::from_raw(n, &scale_shape, integer_type, bytes)
                }));
            }
            let mut node = self.node("DequantizeLinear", &inputs, output);
            match granularity {
                // 1 is the default.
                Granularity::Tensor | Granularity::Channel { axis: 1 } => {}
                Granularity::Channel { axis } => {
                    node.attribute.push(AttributeProto::of_int("axis", axis as i64))
                }
                Granularity::Group { axis, size } => {
                    node.attribute.push(AttributeProto::of_int("axis", axis as i64));
                    node.attribute.push(AttributeProto::of_int("block_size", size.get() as i64));
                }
            }
            self.nodes.push(node);
            return;
        }

        // Plain arithmetic: (q - zero_point) * scale, the parameters spread over the shape.
        let rank = layout.shape().len();
        let spread_shape = match granularity {
            Granularity::Channel { axis } => {
                let mut shape = vec![1; rank - axis];
                shape[0] = layout.params();
                shape
            }
            Granularity::Tensor | Granularity::Group { .. } => scale_shape,
        };
        let shape = layout.shape().to_vec();
        let mut q = if width <= 8 || !self.slices(weight.codes()) {
            let integer_type = self.integer_type(weight.codes());
            let codes = self.codes(weight, integer_type);
            let floats = self.names.fresh("q");
            self.cast(&codes, DataType::Float, &floats);
            floats
        } else {
            self.unpacked(weight.into_codes(), DataType::Float, &shape)
        };
        if !params.zero_point.is_empty() {
            let zero_point: Vec<f32> = params.zero_point.iter().map(|&z| f32::from(z)).collect();
            let zero_point =
                self.constant("z", |n| TensorProto::from_f32(n, &spread_shape, &zero_point));
            let zero_point = self.spread(zero_point, granularity, &shape);
            let centred = self.names.fresh("q");
            let node = self.node("Sub", &[q, zero_point], &centred);
            self.nodes.push(node);
            q = centred;
        }
        let scale = self.scales(&spread_shape, &params.scale);
        let scale = self.spread(scale, granularity, &shape);
        let node = self.node("Mul", &[q, scale], output);
        self.nodes.push(node);
    }

    /// Scales, in half precision where that is exact and saves bytes.
    fn scales(&mut self, shape: &[usize], scales: &[f32]) -> String {
        if ScaleType::of(scales) == ScaleType::F32 || scales.len() * 2 <= WIDENING_BYTES {
            return self.constant("s", |n| TensorProto::from_f32(n, shape, scales));
        }
        let bytes = scales.iter().flat_map(|&s| f16::from_f32(s).to_le_bytes()).collect();
        let narrow =
            self.constant("h", |n| TensorProto::from_raw(n, shape, DataType::Float16, bytes));
        let wide = self.names.fresh("s");
        self.cast(&narrow, DataType::Float, &wide);
        wide
    }

    /// Repeats the parameters of groups along their axis, so that they broadcast.
    fn spread(&mut self, param: String, granularity: Granularity, shape: &[usize]) -> String {
        let Granularity::Group { axis, size } = granularity else { return param };
        let index: Vec<i64> = (0..shape[axis]).map(|i| (i / size.get()) as i64).collect();
        let index = self.constant("g", |n| TensorProto::from_i64(n, &[index.len()], &index));
        let spread = self.names.fresh("s");
        let node = self
            .node("Gather", &[param, index], &spread)
            .with(AttributeProto::of_int("axis", axis as i64));
        self.nodes.push(node);
        spread
    }

    /// The element type that `DequantizeLinear` reads.
    fn integer_type(&self, codes: &PackedInts) -> DataType {
        let signed = codes.encoding() != Encoding::Unsigned;
        match (codes.width(), signed) {
            (4, true) if self.opset >= 21 => DataType::Int4,
            (4, false) if self.opset >= 21 => DataType::Uint4,
            (2, true) if self.opset >= 25 => DataType::Int2,
            (2, false) if self.opset >= 25 => DataType::Uint2,
            (9.., _) => DataType::Int16,
            (_, true) => DataType::Int8,
            (_, false) => DataType::Uint8,
        }
    }

    /// A value holding the integers in their own shape.
    fn codes(&mut self, weight: QTensor, integer_type: DataType) -> String {
        let shape = weight.layout().shape().to_vec();
        let codes = weight.into_codes();
        let bytes = match (integer_type, codes.width()) {
            (DataType::Int4 | DataType::Uint4, _) => fields(&codes, 4),
            (DataType::Int2 | DataType::Uint2, _) => fields(&codes, 2),
            (_, 8) => codes.into_bytes(),
            _ if self.slices(&codes) => return self.unpacked(codes, integer_type, &shape),
            (DataType::Int16, _) => codes.unpack().into_iter().flat_map(i16::to_le_bytes).collect(),
            _ => codes.unpack().into_iter().map(|code| code as u8).collect(),
        };
        self.constant("q", |n| TensorProto::from_raw(n, &shape, integer_type, bytes))
    }

    /// Whether integers without a type of their own are bit-sliced: where it is allowed and packing
    /// saves more than the operators that unpack take.
    fn slices(&self, codes: &PackedInts) -> bool {
        let whole = codes.len() * if codes.width() > 8 { 2 } else { 1 };
        let saved = whole.saturating_sub(codes.bytes().len());
        self.form != WeightForm::NewestUnsliced && saved > UNPACKING_BYTES
    }

    /// The chain that unpacks bit-sliced integers to `data_type`, in `shape`.
    fn unpacked(&mut self, codes: PackedInts, data_type: DataType, shape: &[usize]) -> String {
        let (width, encoding, len) = (codes.width(), codes.encoding(), codes.len());
        let blocks = len.div_ceil(8);
        let packed = self.constant("p", |n| TensorProto {
            raw_data: Some(Bytes::from(codes.into_bytes())),
            ..TensorProto::from_u8(n, &[0], &[])
        });
        let tensor = self.initializers.last_mut().expect("just added");
        tensor.dims = vec![blocks as i64, 1, i64::from(width)];

        let shifts =
            self.constant("k", |n| TensorProto::from_u8(n, &[8, 1], &[0, 1, 2, 3, 4, 5, 6, 7]));
        let two = self.constant("k", |n| TensorProto::from_u8(n, &[], &[2]));
        let shifted = self.step("BitShift", &[packed, shifts]);
        self.nodes.last_mut().expect("just added").attribute =
            vec![AttributeProto::of_string("direction", "RIGHT")];
        let bits = self.step("Mod", &[shifted, two]);

        let values = bit_values(encoding, width);
        let dims = [usize::from(width), 1];
        let mut q = if width <= 8 {
            let values: Vec<i8> = values.iter().map(|&v| v as i8).collect();
            let values = self.constant("k", |n| TensorProto::from_i8(n, &dims, &values));
            self.step("MatMulInteger", &[bits, values])
        } else {
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            let values = self.constant("k", |n| TensorProto::from_f32(n, &dims, &values));
            let floats = self.names.fresh("u");
            self.cast(&bits, DataType::Float, &floats);
            self.step("MatMul", &[floats, values])
        };
        if encoding == Encoding::Sign {
            let one = self.constant("k", |n| TensorProto::from_i32(n, &[], &[1]));
            q = self.step("Sub", &[q, one]);
        }
        if width <= 8 {
            let cast = self.names.fresh("u");
            self.cast(&q, data_type, &cast);
            q = cast;
        }
        if len % 8 != 0 {
            q = self.reshape(q, &[-1]);
            let start = self.constant("k", |n| TensorProto::from_i64(n, &[1], &[0]));
            let end = self.constant("k", |n| TensorProto::from_i64(n, &[1], &[len as i64]));
            q = self.step("Slice", &[q, start, end]);
        }
        let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        self.reshape(q, &shape)
    }

    fn reshape(&mut self, value: String, shape: &[i64]) -> String {
        let shape = self.constant("k", |n| TensorProto::from_i64(n, &[shape.len()], shape));
        self.step("Reshape", &[value, shape])
    }

    fn cast(&mut self, from: &str, to: DataType, output: &str) {
        let node = NodeProto::new("Cast", &[from], &[output])
            .with(AttributeProto::of_int("to", to as i64));
        self.nodes.push(node);
    }

    fn step(&mut self, op: &str, inputs: &[String]) -> String {
        let output = self.names.fresh("u");
        let node = self.node(op, inputs, &output);
        self.nodes.push(node);
        output
    }

    fn node(&self, op: &str, inputs: &[String], output: &str) -> NodeProto {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        NodeProto::new(op, &inputs, &[output])
    }

    fn constant(&mut self, prefix: &str, make: impl FnOnce(&str) -> TensorProto) -> String {
        let name = self.names.fresh(prefix);
        self.initializers.push(make(&name));
        name
    }
}

fn zero_point_bytes(zero_points: &[u8], integer_type: DataType) -> Vec<u8> {
    let bits = match integer_type {
        DataType::Uint4 => 4,
        DataType::Uint2 => 2,
        _ => return zero_points.to_vec(),
    };
    let codes: Vec<i16> = zero_points.iter().map(|&z| i16::from(z)).collect();
    fields(&PackedInts::pack(&codes, 8, Encoding::Unsigned), bits)
}
