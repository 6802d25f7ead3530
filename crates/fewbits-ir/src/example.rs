//! Small quantized graphs, written node by node: what each rule has as its example, and what tests run.

use fewbits_onnx::Model;
use fewbits_onnx::proto::{
    AttributeProto, DataType, GraphProto, NodeProto, TensorProto, TypeValue, ValueInfoProto,
};

use crate::{Tensor, Values};

/// ONNX's number of 32-bit floats.
pub const FLOAT: i32 = DataType::Float as i32;
/// ONNX's number of unsigned 8-bit integers.
pub const UINT8: i32 = DataType::Uint8 as i32;
/// ONNX's number of signed 8-bit integers.
pub const INT8: i32 = DataType::Int8 as i32;
/// ONNX's number of signed 32-bit integers.
pub const INT32: i32 = DataType::Int32 as i32;
/// ONNX's number of signed 64-bit integers.
pub const INT64: i32 = DataType::Int64 as i32;

/// A graph on which one rule shows what it does.
#[derive(Clone)]
pub struct Example {
    /// The graph, as a model.
    pub model: Model,
    /// What it is fed.
    pub inputs: Vec<(String, Tensor)>,
    /// What it gives, where no other executor could say so.
    pub wanted: Option<Tensor>,
}

/// Numbers that look random, the same ones for the same seed.
pub struct Random(pub u64);

impl Random {
    /// Draws a number from 0 to `below`, which is left out.
    pub fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    /// Draws one of several values.
    pub fn any_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// Draws a float from -`most` to `most`.
    pub fn float(&mut self, most: f32) -> f32 {
        (self.below(20_001) as f32 / 10_000.0 - 1.0) * most
    }
}

/// Makes an attribute of one integer.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto::of_int(name, value)
}

/// Makes an attribute of several integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto::of_ints(name, values)
}

/// Makes a tensor of as many values as its shape has.
pub fn tensor(shape: &[usize], values: impl Into<Values>) -> Tensor {
    Tensor::new(shape.to_vec(), values).expect("as many as the shape has")
}

/// Makes floats of `shape` from -1 to 1.
pub fn floats(shape: &[usize], seed: u64) -> Tensor {
    let mut random = Random(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.float(1.0)).collect();
    tensor(shape, values)
}

/// Makes 8-bit integers of a type as raw data.
pub fn integers(name: &str, dims: &[usize], data_type: i32, values: &[i64]) -> TensorProto {
    let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
    TensorProto {
        name: Some(name.to_string()),
        dims,
        data_type: Some(data_type),
        raw_data: Some(values.iter().map(|&v| v as u8).collect::<Vec<u8>>().into()),
        ..TensorProto::default()
    }
}

/// What bytes stand for.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The step between two bytes.
    pub scale: f32,
    /// The integer that stands for zero.
    pub zero_point: i64,
    /// The type of the integers.
    pub data_type: i32,
}

impl Scale {
    /// Unsigned bytes from -1.2 to 1.35.
    pub const UNSIGNED: Scale = Scale::u8(0.01, 120);
    /// Signed bytes from -2.46 to 2.64.
    pub const SIGNED: Scale = Scale::i8(0.02, -5);

    /// Makes the scale of unsigned bytes.
    pub const fn u8(scale: f32, zero_point: i64) -> Scale {
        Scale { scale, zero_point, data_type: UINT8 }
    }

    /// Makes the scale of signed bytes.
    pub const fn i8(scale: f32, zero_point: i64) -> Scale {
        Scale { scale, zero_point, data_type: INT8 }
    }
}

/// How integers stand for weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Signed ones, with zero in their middle.
    Symmetric,
    /// Unsigned ones, with zero points.
    Affine,
}

/// How weights share their scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// All have one.
    One,
    /// Each index of an axis has its own.
    PerChannel,
}

/// Weights as integers.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The size of each axis.
    pub dims: Vec<usize>,
    /// The type of the integers.
    pub data_type: i32,
    /// The integers.
    pub values: Vec<i64>,
    /// One scale, or one for each index of `axis`.
    pub scales: Vec<f32>,
    /// As many zero points.
    pub zero_points: Vec<i64>,
    /// The axis of the scales.
    pub axis: usize,
}

impl Weights {
    /// Draws weights that are at most `most` away from their zero points.
    pub fn random(
        random: &mut Random,
        dims: &[usize],
        axis: usize,
        most: i64,
        scale: f32,
        (coding, scales): (Coding, Scales),
    ) -> Weights {
        let count = if scales == Scales::PerChannel { dims[axis] } else { 1 };
        let scales = (0..count).map(|i| scale * (1.0 + (i % 4) as f32 / 8.0)).collect();
        let (data_type, range) = match coding {
            Coding::Symmetric => (INT8, -128..=127),
            Coding::Affine => (UINT8, 0..=255),
        };
        let mut zero_point = || match coding {
            Coding::Symmetric => 0,
            Coding::Affine => 90 + random.below(60) as i64,
        };
        let zero_points: Vec<i64> = (0..count).map(|_| zero_point()).collect();
        let inner: usize = dims[axis + 1..].iter().product();
        let values = (0..dims.iter().product::<usize>())
            .map(|i| {
                let zero_point = zero_points[(i / inner % dims[axis]).min(count - 1)];
                let value = random.below(2 * most as usize + 1) as i64 - most + zero_point;
                value.clamp(*range.start(), *range.end())
            })
            .collect();
        Weights { dims: dims.to_vec(), data_type, values, scales, zero_points, axis }
    }
}

/// A graph in the making.
#[derive(Default)]
pub struct Net {
    graph: GraphProto,
    names: usize,
    fed: Vec<(String, Tensor)>,
}

impl Net {
    /// Starts a graph of nothing.
    pub fn new() -> Net {
        Net::default()
    }

    /// Starts a graph of the float input `x`.
    pub fn of(dims: &[Option<i64>]) -> Net {
        let mut net = Net::new();
        net.input("x", FLOAT, dims);
        net
    }

    /// Makes a name that no value has.
    pub fn fresh(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, data_type: i32, dims: &[Option<i64>]) {
        self.graph.input.push(ValueInfoProto::tensor(name, data_type, dims));
    }

    /// Adds an input of floats whose shape is not told.
    pub fn input_of_any_shape(&mut self, name: &str) {
        self.graph.input.push(of_any_shape(name, FLOAT));
    }

    /// Adds an input that an example is fed, of any size along its first axis.
    pub fn feed(&mut self, tensor: Tensor) -> String {
        let name = self.fresh();
        let sizes = tensor.shape().iter().map(|&size| Some(size as i64));
        let dims: Vec<Option<i64>> = [None].into_iter().chain(sizes.skip(1)).collect();
        self.input(&name, tensor.data_type() as i32, &dims);
        self.fed.push((name.clone(), tensor));
        name
    }

    /// Feeds floats.
    pub fn feed_floats(&mut self, shape: &[usize]) -> String {
        let seed = self.names as u64;
        self.feed(floats(shape, seed))
    }

    /// Feeds unsigned bytes.
    pub fn feed_integers(&mut self, shape: &[usize]) -> String {
        let values: Vec<u8> = self.random(shape, |random| random.below(256) as u8);
        self.feed(tensor(shape, values))
    }

    /// Feeds floats, and rounds them to bytes: the floats that they stand for.
    pub fn feed_bytes(&mut self, shape: &[usize], by: Scale) -> String {
        let x = self.feed_floats(shape);
        self.rounded(&x, by)
    }

    /// Adds an output whose shape is not told.
    pub fn output(&mut self, name: &str, data_type: i32) {
        if !self.graph.is_output(name) {
            self.graph.output.push(of_any_shape(name, data_type));
        }
    }

    /// Adds a constant.
    pub fn constant(&mut self, tensor: TensorProto) -> String {
        let name = tensor.name().to_string();
        self.graph.initializer.push(tensor);
        name
    }

    /// Adds constant floats.
    pub fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        let name = self.fresh();
        self.constant(TensorProto::from_f32(&name, dims, values))
    }

    /// Adds a constant row of 64-bit integers.
    pub fn ints(&mut self, values: &[i64]) -> String {
        let name = self.fresh();
        self.constant(TensorProto::from_i64(&name, &[values.len()], values))
    }

    /// Adds a node of one output.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: &[AttributeProto]) -> String {
        let output = self.fresh();
        let mut node = NodeProto::new(op, inputs, &[&output]);
        node.name = Some(format!("{op}_{output}"));
        node.attribute = attributes.to_vec();
        self.graph.node.push(node);
        output
    }

    /// Adds any node.
    pub fn push(&mut self, node: NodeProto) {
        self.graph.node.push(node);
    }

    /// Adds constant floats from -1 to 1.
    pub fn random_floats(&mut self, dims: &[usize]) -> String {
        let values: Vec<f32> = self.random(dims, |random| random.float(1.0));
        self.floats(dims, &values)
    }

    /// Adds quantized weights with zero points and scales along an axis: the floats that they stand for.
    pub fn random_weights(&mut self, dims: &[usize], axis: usize) -> String {
        let mut random = Random(self.names as u64);
        let kind = (Coding::Affine, Scales::PerChannel);
        self.weights(&Weights::random(&mut random, dims, axis, 100, 0.005, kind))
    }

    /// Adds constant signed bytes.
    pub fn random_codes(&mut self, dims: &[usize]) -> String {
        let values: Vec<i64> = self.random(dims, |random| random.below(256) as i64 - 128);
        let name = self.fresh();
        self.constant(integers(&name, dims, INT8, &values))
    }

    /// Draws a value for each element.
    fn random<T>(&self, dims: &[usize], draw: impl Fn(&mut Random) -> T) -> Vec<T> {
        let mut random = Random(self.names as u64);
        (0..dims.iter().product()).map(|_| draw(&mut random)).collect()
    }

    /// Adds a zero point.
    pub fn zero_point(&mut self, of: Scale) -> String {
        let name = self.fresh();
        self.constant(integers(&name, &[], of.data_type, &[of.zero_point]))
    }

    /// Adds a scale and a zero point.
    fn scale(&mut self, by: Scale) -> [String; 2] {
        [self.floats(&[], &[by.scale]), self.zero_point(by)]
    }

    /// Rounds a value to bytes.
    pub fn quantize(&mut self, value: &str, by: Scale) -> String {
        let [scale, zero_point] = self.scale(by);
        self.node("QuantizeLinear", &[value, &scale, &zero_point], &[])
    }

    /// Finds the floats that bytes stand for.
    pub fn dequantize(&mut self, value: &str, by: Scale) -> String {
        let [scale, zero_point] = self.scale(by);
        self.node("DequantizeLinear", &[value, &scale, &zero_point], &[])
    }

    /// Rounds a value to bytes: the floats that they stand for.
    pub fn rounded(&mut self, value: &str, by: Scale) -> String {
        let q = self.quantize(value, by);
        self.dequantize(&q, by)
    }

    /// Quantizes a value as it comes: its bytes, their scale and zero point.
    pub fn quantized_as_it_comes(&mut self, value: &str) -> [String; 3] {
        let outputs = [self.fresh(), self.fresh(), self.fresh()];
        let names = outputs.each_ref().map(String::as_str);
        self.push(NodeProto::new("DynamicQuantizeLinear", &[value], &names));
        outputs
    }

    /// Makes floats of the sums of bytes with the scale `by` and of integers with the scale `weights`.
    pub fn scaled(&mut self, sums: &str, by: &str, weights: &str) -> String {
        let to = int("to", i64::from(FLOAT));
        let sums = self.node("Cast", &[sums], &[to]);
        let scale = self.node("Mul", &[by, weights], &[]);
        self.node("Mul", &[&sums, &scale], &[])
    }

    /// Adds the integers of weights.
    pub fn codes(&mut self, w: &Weights) -> String {
        let name = self.fresh();
        self.constant(integers(&name, &w.dims, w.data_type, &w.values))
    }

    /// Adds quantized weights: the floats that they stand for.
    pub fn weights(&mut self, w: &Weights) -> String {
        let q = self.codes(w);
        let dims: &[usize] = if w.scales.len() == 1 { &[] } else { &[w.scales.len()] };
        let scale = self.floats(dims, &w.scales);
        let name = self.fresh();
        let zero_point = self.constant(integers(&name, dims, w.data_type, &w.zero_points));
        let axis = int("axis", w.axis as i64);
        self.node("DequantizeLinear", &[&q, &scale, &zero_point], &[axis])
    }

    /// Gives the model of it.
    pub fn model(&self) -> Model {
        Model::from_graph(self.graph.clone(), 17)
    }

    /// Ends an example in a value of some type.
    pub fn ends_in(mut self, value: &str, data_type: i32) -> Example {
        self.output(value, data_type);
        Example { model: self.model(), inputs: self.fed, wanted: None }
    }

    /// Ends an example in floats.
    pub fn ends_in_floats(self, value: &str) -> Example {
        self.ends_in(value, FLOAT)
    }

    /// Ends an example in the bytes that a value is rounded to.
    pub fn ends_in_bytes(mut self, value: &str) -> Example {
        let value = self.rounded(value, Scale::SIGNED);
        self.ends_in_floats(&value)
    }

    /// Ends an example in a value that is known.
    pub fn gives(self, value: &str, wanted: Tensor) -> Example {
        let example = self.ends_in(value, wanted.data_type() as i32);
        Example { wanted: Some(wanted), ..example }
    }
}

fn of_any_shape(name: &str, data_type: i32) -> ValueInfoProto {
    let mut info = ValueInfoProto::tensor(name, data_type, &[]);
    if let Some(TypeValue::TensorType(t)) = info.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        t.shape = None;
    }
    info
}
