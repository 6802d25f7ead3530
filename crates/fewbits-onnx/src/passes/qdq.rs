//! Activations become integers: a `QuantizeLinear` and a `DequantizeLinear` behind each chosen
//! value, in the form that runtimes fuse with the operators around it.

use std::collections::HashMap;

use crate::facts::bias_behind;
use crate::graph::{Index, Names};
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

/// The parameters of an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationParams {
    /// The step between two integers.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero_point: i16,
    /// The integers.
    pub storage: ActivationStorage,
    /// How many of their bits are used, at most 8.
    pub bits: u8,
    /// Who reads the integers.
    pub readers: IntegerReaders,
}

/// Who reads a quantized activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerReaders {
    /// Every node.
    All,
    /// Only products (`Conv`, `Gemm`, `MatMul`) as their first input; others read the float value.
    Products,
}

/// The element types of quantized activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationStorage {
    /// UINT8
    Unsigned,
    /// INT8
    Signed,
}

impl ActivationParams {
    /// The smallest and the largest float that can be represented.
    pub fn bounds(&self) -> (f32, f32) {
        let (low, high) = match (self.storage, self.bits) {
            (ActivationStorage::Unsigned, bits) => (0, (1i16 << bits) - 1),
            (ActivationStorage::Signed, 8) => (-128, 127),
            (ActivationStorage::Signed, bits) => (1 - (1 << (bits - 1)), (1 << (bits - 1)) - 1),
        };
        let value = |q: i16| f32::from(q - self.zero_point) * self.scale;
        (value(low), value(high))
    }

    fn zero_point_tensor(&self, name: &str) -> TensorProto {
        match self.storage {
            ActivationStorage::Unsigned => {
                TensorProto::from_u8(name, &[], &[self.zero_point as u8])
            }
            ActivationStorage::Signed => TensorProto::from_i8(name, &[], &[self.zero_point as i8]),
        }
    }
}

/// Quantizes the values named in `params`; every node reads the dequantized value, an output of
/// the graph stays the float one.
///
/// A `Relu` or `Clip` that the saturation of the integers performs anyway is dropped, so that the
/// operator before it and the quantization are neighbours.
pub fn quantize_activations(graph: &mut GraphProto, params: &HashMap<String, ActivationParams>) {
    let mut names = Names::new(graph);
    let mut values: Vec<&String> = params.keys().collect();
    values.sort();
    let mut nodes = Vec::new();
    for value in values {
        let p = params[value];
        let source = match p.readers {
            IntegerReaders::All => {
                absorb(graph, value, p.bounds()).unwrap_or_else(|| value.clone())
            }
            IntegerReaders::Products => value.clone(),
        };
        let source =
            if p.bits < 8 { clip(graph, &mut names, &mut nodes, &source, p) } else { source };
        let (scale, zero_point) = (names.fresh("s"), names.fresh("z"));
        graph.initializer.push(TensorProto::from_f32(&scale, &[], &[p.scale]));
        graph.initializer.push(p.zero_point_tensor(&zero_point));
        let (quantized, restored) = (names.fresh("q"), names.fresh("d"));
        match p.readers {
            IntegerReaders::All => graph.replace_uses(value, &restored),
            IntegerReaders::Products => {
                let products = graph
                    .node
                    .iter_mut()
                    .filter(|n| matches!(n.op_type(), "Conv" | "Gemm" | "MatMul"));
                for input in products.filter_map(|n| n.input.first_mut()).filter(|i| *i == value) {
                    *input = restored.clone();
                }
            }
        }
        nodes.push(NodeProto::new(
            "QuantizeLinear",
            &[&source, &scale, &zero_point],
            &[&quantized],
        ));
        nodes.push(NodeProto::new(
            "DequantizeLinear",
            &[&quantized, &scale, &zero_point],
            &[&restored],
        ));
    }
    graph.node.append(&mut nodes);
    graph.sort_topologically();
}

/// Keeps integers that do not use all of their bits inside their bounds: `QuantizeLinear` saturates
/// to the whole type.
fn clip(
    graph: &mut GraphProto,
    names: &mut Names,
    nodes: &mut Vec<NodeProto>,
    source: &str,
    params: ActivationParams,
) -> String {
    let (low, high) = params.bounds();
    let (least, most, clipped) = (names.fresh("l"), names.fresh("h"), names.fresh("c"));
    graph.initializer.push(TensorProto::from_f32(&least, &[], &[low]));
    graph.initializer.push(TensorProto::from_f32(&most, &[], &[high]));
    nodes.push(NodeProto::new("Clip", &[source, &least, &most], &[&clipped]));
    clipped
}

/// The positions of the products that [`scale_for_products`] lets read a scaled `value`: every
/// `MatMul` and `Gemm` that reads it first.
pub fn scalable_products(graph: &GraphProto, value: &str) -> Vec<usize> {
    let reads = |node: &NodeProto| {
        (node.is("MatMul") || node.is("Gemm")) && node.input.first().is_some_and(|i| i == value)
    };
    (0..graph.node.len()).filter(|&i| reads(&graph.node[i])).collect()
}

/// The name that [`scale_for_products`] gives to a scaled `value`: one that the graph does not use.
pub fn scaled_name(graph: &GraphProto, value: &str) -> String {
    Names::new(graph).fresh(&format!("{value}_scaled"))
}

/// Lets the [`scalable_products`] of `value` read `value * factors` instead, along the last axis,
/// under its [`scaled_name`]; answers whether there are any.
pub fn scale_for_products(graph: &mut GraphProto, value: &str, factors: &[f32]) -> bool {
    let products = scalable_products(graph, value);
    if products.is_empty() {
        return false;
    }
    let mut names = Names::new(graph);
    let scaled = names.fresh(&scaled_name(graph, value));
    for product in products {
        graph.node[product].input[0].clone_from(&scaled);
    }
    let constant = names.fresh("f");
    graph.initializer.push(TensorProto::from_f32(&constant, &[factors.len()], factors));
    graph.node.push(NodeProto::new("Mul", &[value, &constant], &[&scaled]));
    graph.sort_topologically();
    true
}

/// Removes the activation function that produces `value` if clipping to `bounds` does the same,
/// and returns its input, which is to be quantized instead.
fn absorb(graph: &mut GraphProto, value: &str, (low, high): (f32, f32)) -> Option<String> {
    if graph.is_output(value) {
        return None;
    }
    let index = Index::new(graph);
    let position = index.producer(value)?;
    let node = &graph.node[position];
    let input = node.input.first()?;
    let constant = |i: usize| -> Option<f32> {
        let tensor = index.initializer(node.input.get(i).filter(|n| !n.is_empty())?)?;
        tensor.floats().ok()?.first().copied()
    };
    let (least, most) = match node.op_type() {
        "Relu" => (0.0, f32::INFINITY),
        "Clip" if node.input.len() > 1 || node.attribute.is_empty() => {
            let given = |i: usize| node.input.get(i).is_some_and(|n| !n.is_empty());
            let least = if given(1) { constant(1)? } else { f32::NEG_INFINITY };
            let most = if given(2) { constant(2)? } else { f32::INFINITY };
            (least, most)
        }
        "Clip" => (node.float("min", f32::NEG_INFINITY), node.float("max", f32::INFINITY)),
        _ => return None,
    };
    // The largest integer may lie half a step above a bound by rounding of the scale.
    let same = low >= least && high <= most * (1.0 + 1e-6);
    let only_reader = index.consumers(input).len() == 1 && !index.is_output(input);
    let produced = index.producer(input).is_some();
    if !(node.is_onnx() && same && only_reader && produced) {
        return None;
    }
    let input = input.clone();
    graph.node.remove(position);
    Some(input)
}

/// The int32 form of a bias: `round(bias / (input scale * weight scale))`, so that it can be added
/// to the integer sum; `None` if an element does not fit.
///
/// Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
/// Integer-Arithmetic-Only Inference", eq. 11.
pub fn integer_bias(
    bias: &[f32],
    input_scale: f32,
    weight_scale: &[f32],
) -> Option<(Vec<i32>, Vec<f32>)> {
    if bias.len() != weight_scale.len() && weight_scale.len() != 1 {
        return None;
    }
    let scale: Vec<f32> = weight_scale.iter().map(|&w| w * input_scale).collect();
    if scale.iter().any(|&s| !s.is_normal()) {
        return None;
    }
    let integers = bias
        .iter()
        .enumerate()
        .map(|(i, &b)| {
            let q = (f64::from(b) / f64::from(scale[i % scale.len()])).round_ties_even();
            // Room for the sum of products beside it.
            (q.abs() < f64::from(1 << 30)).then_some(q as i32)
        })
        .collect::<Option<Vec<i32>>>()?;
    Some((integers, scale))
}

/// Replaces the bias of this shape that `node` reads at `input` by an int32 constant behind a
/// `DequantizeLinear`, with one scale or one for each place of its last axis.
pub fn write_integer_bias(
    graph: &mut GraphProto,
    node: usize,
    input: usize,
    shape: &[usize],
    (integers, scale): (Vec<i32>, Vec<f32>),
) {
    let mut names = Names::new(graph);
    let (q, s, bias) = (names.fresh("b"), names.fresh("s"), names.fresh("d"));
    let scale_shape: &[usize] = if scale.len() == 1 { &[] } else { &[scale.len()] };
    graph.initializer.push(TensorProto::from_i32(&q, shape, &integers));
    graph.initializer.push(TensorProto::from_f32(&s, scale_shape, &scale));
    let mut dequantize = NodeProto::new("DequantizeLinear", &[&q, &s], &[&bias]);
    if scale.len() > 1 {
        let axis = shape.len().saturating_sub(1) as i64;
        dequantize = dequantize.with(crate::proto::AttributeProto::of_int("axis", axis));
    }
    graph.node[node].input[input] = bias;
    graph.node.insert(0, dequantize);
}

/// Writes out the zero points, all zero, of the weights that a Gemm multiplies quantized
/// activations by, also one that is a MatMul and an Add: onnxruntime computes it on integers only if they are
/// there, although they are the default.
pub fn write_zero_points_of_gemm(graph: &mut GraphProto) {
    let index = Index::new(graph);
    let dequantized = |name: &String| {
        let position = index.producer(name)?;
        graph.node[position].is("DequantizeLinear").then_some(position)
    };
    let mut weights: Vec<(usize, Vec<usize>)> = Vec::new();
    let is_gemm = |node: &&NodeProto| node.is("Gemm") || bias_behind(graph, &index, node).is_some();
    for node in graph.node.iter().filter(is_gemm) {
        let (Some(_), Some(weight)) = (dequantized(&node.input[0]), dequantized(&node.input[1]))
        else {
            continue;
        };
        let [codes, scale] = graph.node[weight].input.as_slice() else { continue };
        let is_int8 = index
            .initializer(codes)
            .is_some_and(|t| matches!(t.element_type(), Ok(DataType::Int8)) && !t.dims.is_empty());
        if let Some(Ok(shape)) = index.initializer(scale).map(TensorProto::shape)
            && is_int8
            && !weights.iter().any(|(position, _)| *position == weight)
        {
            weights.push((weight, shape));
        }
    }
    let mut names = Names::new(graph);
    for (position, shape) in weights {
        let name = names.fresh("z");
        let zeros = vec![0i8; shape.iter().product()];
        graph.initializer.push(TensorProto::from_i8(&name, &shape, &zeros));
        graph.node[position].input.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ValueInfoProto;

    fn conv_relu_conv() -> GraphProto {
        GraphProto {
            node: vec![
                NodeProto::new("Conv", &["x", "w"], &["a"]),
                NodeProto::new("Relu", &["a"], &["b"]),
                NodeProto::new("Conv", &["b", "w"], &["y"]),
            ],
            input: vec![ValueInfoProto::tensor("x", 1, &[None])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None])],
            initializer: vec![TensorProto::from_f32("w", &[1, 1, 1, 1], &[1.0])],
            ..GraphProto::default()
        }
    }

    fn ops(graph: &GraphProto) -> Vec<&str> {
        graph.node.iter().map(|n| n.op_type()).collect()
    }

    #[test]
    fn saturation_replaces_relu() {
        let params = |zero_point| ActivationParams {
            scale: 0.1,
            zero_point,
            storage: ActivationStorage::Unsigned,
            bits: 8,
            readers: IntegerReaders::All,
        };
        let mut graph = conv_relu_conv();
        quantize_activations(&mut graph, &HashMap::from([("b".to_string(), params(0))]));
        assert_eq!(ops(&graph), ["Conv", "QuantizeLinear", "DequantizeLinear", "Conv"]);
        let mut graph = conv_relu_conv();
        quantize_activations(&mut graph, &HashMap::from([("b".to_string(), params(3))]));
        assert_eq!(ops(&graph), ["Conv", "Relu", "QuantizeLinear", "DequantizeLinear", "Conv"]);
    }

    #[test]
    fn fewer_bits_are_clipped() {
        let params = ActivationParams {
            scale: 0.5,
            zero_point: 3,
            storage: ActivationStorage::Unsigned,
            bits: 4,
            readers: IntegerReaders::All,
        };
        assert_eq!(params.bounds(), (-1.5, 6.0));
        let signed =
            ActivationParams { zero_point: 0, storage: ActivationStorage::Signed, ..params };
        assert_eq!(signed.bounds(), (-3.5, 3.5));
        let mut graph = conv_relu_conv();
        quantize_activations(&mut graph, &HashMap::from([("a".to_string(), params)]));
        assert_eq!(ops(&graph)[1], "Clip");
    }

    #[test]
    fn biases_keep_their_value_or_are_refused() {
        let (q, s) = integer_bias(&[1.0, -0.5], 0.1, &[0.01, 0.02]).unwrap();
        assert_eq!(q, [1000, -250]);
        assert!((s[0] - 0.001).abs() < 1e-9);
        assert!(integer_bias(&[1e9], 1e-6, &[1e-6]).is_none());
        assert!(integer_bias(&[1.0, 2.0], 0.1, &[0.1; 3]).is_none());
    }
}
