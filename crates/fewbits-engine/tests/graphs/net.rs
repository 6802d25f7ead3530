//! Small quantized graphs, written node by node, and how far two runners are apart on them.

use std::num::NonZeroUsize;

use crate::oracle::assert_exact;
use fewbits_engine::{Engine, FloatRunner, RunOptions, Tensor, Values};
use fewbits_onnx::Model;
use fewbits_onnx::proto::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TypeValue, ValueInfoProto,
};

pub const FLOAT: i32 = 1;
pub const UINT8: i32 = 2;
pub const INT8: i32 = 3;

/// Numbers that look random, the same ones for the same seed.
pub struct Random(pub u64);

impl Random {
    /// From 0 to `below`, which is left out.
    pub fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    pub fn any_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// From -`most` to `most`.
    pub fn float(&mut self, most: f32) -> f32 {
        (self.below(20_001) as f32 / 10_000.0 - 1.0) * most
    }
}

/// Floats of `shape` from -1 to 1.
pub fn floats(shape: &[usize], seed: u64) -> Tensor {
    let mut random = Random(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.float(1.0)).collect();
    Tensor::new(shape.to_vec(), values).unwrap()
}

/// What bytes stand for.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub scale: f32,
    pub zero_point: i64,
    pub signed: bool,
}

impl Scale {
    pub fn u8(scale: f32, zero_point: i64) -> Scale {
        Scale { scale, zero_point, signed: false }
    }

    pub fn i8(scale: f32, zero_point: i64) -> Scale {
        Scale { scale, zero_point, signed: true }
    }
}

/// Integers of a type as raw data.
pub fn integers(name: &str, dims: &[usize], signed: bool, values: &[i64]) -> TensorProto {
    let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
    TensorProto {
        name: Some(name.to_string()),
        dims,
        data_type: Some(if signed { INT8 } else { UINT8 }),
        raw_data: Some(values.iter().map(|&v| v as u8).collect::<Vec<u8>>().into()),
        ..TensorProto::default()
    }
}

fn of_any_shape(name: &str, data_type: i32) -> ValueInfoProto {
    let mut info = ValueInfoProto::tensor(name, data_type, &[]);
    if let Some(TypeValue::TensorType(t)) = info.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        t.shape = None;
    }
    info
}

/// A graph in the making.
#[derive(Default)]
pub struct Net {
    graph: GraphProto,
    names: usize,
}

impl Net {
    pub fn new() -> Net {
        Net::default()
    }

    pub fn fresh(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    pub fn input(&mut self, name: &str, data_type: i32, dims: &[Option<i64>]) {
        self.graph.input.push(ValueInfoProto::tensor(name, data_type, dims));
    }

    pub fn input_of_any_shape(&mut self, name: &str) {
        self.graph.input.push(of_any_shape(name, FLOAT));
    }

    /// An output whose shape is not told.
    pub fn output(&mut self, name: &str, data_type: i32) {
        if !self.graph.is_output(name) {
            self.graph.output.push(of_any_shape(name, data_type));
        }
    }

    pub fn constant(&mut self, tensor: TensorProto) -> String {
        let name = tensor.name().to_string();
        self.graph.initializer.push(tensor);
        name
    }

    pub fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        let name = self.fresh();
        self.constant(TensorProto::from_f32(&name, dims, values))
    }

    pub fn ints(&mut self, values: &[i64]) -> String {
        let name = self.fresh();
        self.constant(TensorProto::from_i64(&name, &[values.len()], values))
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: &[AttributeProto]) -> String {
        let output = self.fresh();
        let mut node = NodeProto::new(op, inputs, &[&output]);
        node.name = Some(format!("{op}_{output}"));
        node.attribute = attributes.to_vec();
        self.graph.node.push(node);
        output
    }

    pub fn push(&mut self, node: NodeProto) {
        self.graph.node.push(node);
    }

    /// The names of constants with a scale and a zero point.
    fn scale(&mut self, by: Scale) -> [String; 2] {
        let scale = self.floats(&[], &[by.scale]);
        let zero_point = self.fresh();
        [scale, self.constant(integers(&zero_point, &[], by.signed, &[by.zero_point]))]
    }

    pub fn quantize(&mut self, value: &str, by: Scale) -> String {
        let [scale, zero_point] = self.scale(by);
        self.node("QuantizeLinear", &[value, &scale, &zero_point], &[])
    }

    pub fn dequantize(&mut self, value: &str, by: Scale) -> String {
        let [scale, zero_point] = self.scale(by);
        self.node("DequantizeLinear", &[value, &scale, &zero_point], &[])
    }

    /// Rounds a value to bytes: the floats that they stand for.
    pub fn rounded(&mut self, value: &str, by: Scale) -> String {
        let q = self.quantize(value, by);
        self.dequantize(&q, by)
    }

    /// The floats of quantized weights, with one scale and zero point for each index of `axis`, or
    /// for all.
    pub fn weights(&mut self, w: &Weights) -> String {
        let name = self.fresh();
        let q = self.constant(integers(&name, &w.dims, w.signed, &w.values));
        let dims: &[usize] = if w.scales.len() == 1 { &[] } else { &[w.scales.len()] };
        let scale = self.floats(dims, &w.scales);
        let name = self.fresh();
        let zero_point = self.constant(integers(&name, dims, w.signed, &w.zero_points));
        let axis = AttributeProto::of_int("axis", w.axis as i64);
        self.node("DequantizeLinear", &[&q, &scale, &zero_point], &[axis])
    }

    pub fn model(&self) -> Model {
        Model::from_graph(self.graph.clone(), 17)
    }
}

/// Weights as integers.
#[derive(Clone, Debug)]
pub struct Weights {
    pub dims: Vec<usize>,
    pub signed: bool,
    pub values: Vec<i64>,
    pub scales: Vec<f32>,
    pub zero_points: Vec<i64>,
    pub axis: usize,
}

impl Weights {
    /// At most `most` away from the zero point; symmetric, or unsigned with zero points.
    pub fn random(
        random: &mut Random,
        dims: &[usize],
        axis: usize,
        most: i64,
        scale: f32,
        [signed, per_channel]: [bool; 2],
    ) -> Weights {
        let count = if per_channel { dims[axis] } else { 1 };
        let scales = (0..count).map(|i| scale * (1.0 + (i % 4) as f32 / 8.0)).collect();
        let zero_points: Vec<i64> =
            (0..count).map(|_| if signed { 0 } else { 90 + random.below(60) as i64 }).collect();
        let inner: usize = dims[axis + 1..].iter().product();
        let values = (0..dims.iter().product::<usize>())
            .map(|i| {
                let zero_point = zero_points[(i / inner % dims[axis]).min(count - 1)];
                let value = random.below(2 * most as usize + 1) as i64 - most + zero_point;
                if signed { value.clamp(-128, 127) } else { value.clamp(0, 255) }
            })
            .collect();
        Weights { dims: dims.to_vec(), signed, values, scales, zero_points, axis }
    }
}

pub type Named = Vec<(String, Tensor)>;

pub fn engine(model: &Model, threads: usize) -> Engine {
    let options = RunOptions { threads: NonZeroUsize::new(threads), ..RunOptions::default() };
    Engine::new(model, &options).unwrap()
}

pub fn float_runner(model: &Model) -> FloatRunner {
    let options = RunOptions { threads: NonZeroUsize::new(1), ..RunOptions::default() };
    FloatRunner::new(model, &options).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    match tensor.values() {
        Values::F32(v) => v.clone(),
        Values::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
        Values::I8(v) => v.iter().map(|&x| f32::from(x)).collect(),
        Values::I64(v) => v.iter().map(|&x| x as f32).collect(),
        values => panic!("outputs of {:?}", values.data_type()),
    }
}

/// Asserts that outputs are of the same names, types and shapes, that no float is further than `most`
/// apart and no byte than one, nor the mean of all than a fifth of that.
#[track_caller]
pub fn assert_close(ours: &Named, wanted: &Named, most: f32) {
    assert_within(ours, wanted, most, 1.0);
}

/// The same with a bound for bytes.
#[track_caller]
pub fn assert_within(ours: &Named, wanted: &Named, most: f32, bytes: f32) {
    assert_eq!(ours.len(), wanted.len());
    for ((name, a), (wanted_name, b)) in ours.iter().zip(wanted) {
        assert_eq!(name, wanted_name);
        assert_eq!((a.shape(), a.data_type()), (b.shape(), b.data_type()), "{name}");
        let most = if a.data_type() as i32 == FLOAT { most } else { bytes };
        let (a, b) = (numbers(a), numbers(b));
        let apart: Vec<f32> = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).collect();
        if let Some(worst) = (0..apart.len()).max_by(|&i, &j| apart[i].total_cmp(&apart[j])) {
            let mean = apart.iter().sum::<f32>() / apart.len() as f32;
            assert!(
                apart[worst] <= most * 1.001 + 1e-5 && mean <= most / 5.0 + 1e-5,
                "{name}: element {worst} of {} is {}, not {}; {mean} apart in the mean, {most} at most",
                apart.len(),
                a[worst],
                b[worst],
            );
        }
    }
}

/// Runs a net, and asserts that [it is exact](assert_exact).
#[track_caller]
pub fn assert_runs(net: &Net, inputs: &Named) -> Named {
    assert_exact(&net.model(), inputs)
}
