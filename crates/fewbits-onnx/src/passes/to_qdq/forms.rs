//! Operators on integers that are a float operator between `DequantizeLinear` and
//! `QuantizeLinear`.

use super::emit::{Emit, Params, Why};
use super::{Outcome, input, is_known_domain, optional, output, weights};
use crate::MICROSOFT;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

/// How an operator spells its inputs: three a quantized value, its integers, scale and zero point.
pub(super) struct Form {
    op: &'static str,
    /// The float operator.
    becomes: &'static str,
    /// An input that is no quantized value; it comes first in the float operator.
    plain: Option<usize>,
    /// Where the integers of the quantized values are.
    values: Values,
    /// The axes of the first two values, if they have a scale for each channel.
    axes: fn(&NodeProto) -> [i64; 2],
    /// Where the bias is: int32, its scale the product of the other two.
    bias: Option<usize>,
    /// Where the scale of the result is; the zero point follows.
    result: usize,
    /// Whether the result is a float if that scale is absent.
    may_be_float: bool,
}

enum Values {
    At(&'static [usize]),
    /// As many as there are, from here on.
    From(usize),
}

const PLAIN: Form = Form {
    op: "",
    becomes: "",
    plain: None,
    values: Values::At(&[0]),
    axes: |_| [1, 1],
    bias: None,
    result: 3,
    may_be_float: false,
};

/// Of two values.
const BINARY: Form = Form { values: Values::At(&[0, 3]), result: 6, ..PLAIN };

const FORMS: &[Form] = &[
    Form { op: "QLinearConv", becomes: "Conv", axes: |_| [1, 0], bias: Some(8), ..BINARY },
    Form { op: "QLinearMatMul", becomes: "MatMul", axes: |_| [-2, -1], ..BINARY },
    Form {
        op: "QGemm",
        becomes: "Gemm",
        axes: |node| [1, 1 - node.int("transB", 0)],
        bias: Some(6),
        result: 7,
        may_be_float: true,
        ..BINARY
    },
    Form { op: "QLinearAdd", becomes: "Add", ..BINARY },
    Form { op: "QLinearMul", becomes: "Mul", ..BINARY },
    Form { op: "QLinearSigmoid", becomes: "Sigmoid", ..PLAIN },
    Form { op: "QLinearLeakyRelu", becomes: "LeakyRelu", ..PLAIN },
    Form { op: "QLinearSoftmax", becomes: "Softmax", ..PLAIN },
    Form { op: "QLinearAveragePool", becomes: "AveragePool", ..PLAIN },
    Form { op: "QLinearGlobalAveragePool", becomes: "GlobalAveragePool", ..PLAIN },
    Form { op: "QLinearConcat", becomes: "Concat", values: Values::From(2), result: 0, ..PLAIN },
    Form {
        op: "QLinearWhere",
        becomes: "Where",
        plain: Some(0),
        values: Values::At(&[1, 4]),
        result: 7,
        ..PLAIN
    },
];

/// Attributes that the float operators do not have.
const DROPPED: [&str; 2] = ["channels_last", "opset"];

/// The form of `node`, if it is of one of them.
pub(super) fn find(node: &NodeProto) -> Option<&'static Form> {
    FORMS.iter().find(|f| f.op == node.op_type() && is_known_domain(node))
}

impl Form {
    pub fn rewrite(&self, node: &NodeProto, emit: &mut Emit) -> Result<Outcome, Why> {
        if node.int("channels_last", 0) != 0 {
            return Err("its channels come last; export the model with channels first".into());
        }
        let result = output(node)?;
        let positions = match self.values {
            Values::At(positions) => positions.to_vec(),
            Values::From(first) => (first..node.input.len()).step_by(3).collect(),
        };
        let mut inputs: Vec<String> = Vec::new();
        if let Some(at) = self.plain {
            inputs.push(input(node, at)?.to_string());
        }
        let axes = (self.axes)(node).into_iter().chain(std::iter::repeat(1));
        let mut values: Vec<Params> = Vec::new();
        for (&at, axis) in positions.iter().zip(axes) {
            let params = emit.params(input(node, at + 1)?, optional(node, at + 2))?;
            inputs.push(emit.dequantize(input(node, at)?, &params, axis)?);
            values.push(params);
        }
        if let Some(bias) = self.bias.map(|at| optional(node, at)).filter(|b| !b.is_empty()) {
            let [x, w] = values.as_slice() else { return Err("it has no weight".into()) };
            inputs.push(dequantize_bias(bias, x, w, node.float("alpha", 1.0), emit)?);
        }
        let quantized = match optional(node, self.result) {
            "" if self.may_be_float => None,
            _ => Some(emit.params(input(node, self.result)?, optional(node, self.result + 1))?),
        };
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mut attributes = node.attribute.clone();
        attributes.retain(|a| !DROPPED.contains(&a.name()));
        if self.op == "QLinearSoftmax" {
            check_softmax(node, emit)?;
            // Its default changed between versions.
            attributes = vec![AttributeProto::of_int("axis", node.int("axis", -1))];
        }
        let floats = emit.op(self.becomes, &inputs, "f", attributes);
        emit.name_after(node);
        match quantized {
            None => emit.finish(result),
            Some(params) => {
                let data_type = values.first().and_then(|first| {
                    let zero_point = emit.elem_type(&first.zero_point);
                    zero_point.or_else(|| emit.elem_type(optional(node, positions[0])))
                });
                emit.quantize(&floats, &params, data_type.unwrap_or(DataType::Uint8), result);
            }
        }
        Ok(Outcome::Replaced)
    }
}

/// The int32 bias of a product of `x` and `w` as floats.
fn dequantize_bias(
    bias: &str,
    x: &Params,
    w: &Params,
    alpha: f32,
    emit: &mut Emit,
) -> Result<String, Why> {
    let floats = |name: &str| emit.constant(name).and_then(|t| t.floats().ok());
    let known = floats(&x.scale).zip(floats(&w.scale));
    let scale = match known {
        Some((x, w)) if x.len() == 1 => {
            let products: Vec<f32> = w.iter().map(|w| alpha * x[0] * w).collect();
            let shape = if products.len() == 1 { vec![] } else { vec![products.len()] };
            emit.add(TensorProto::from_f32("s", &shape, &products))
        }
        _ if x.channels.is_some_and(|c| c > 1) => {
            return Err("its first input has several scales and it has a bias".into());
        }
        _ => {
            let product = emit.op("Mul", &[&x.scale, &w.scale], "s", Vec::new());
            if alpha == 1.0 {
                product
            } else {
                let alpha = emit.add(TensorProto::from_f32("alpha", &[], &[alpha]));
                emit.op("Mul", &[&product, &alpha], "s", Vec::new())
            }
        }
    };
    let columns = emit.constant(bias).and_then(|t| t.dims.last().copied());
    if let (Some(columns), Some(channels @ 2..)) = (columns, w.channels)
        && columns != channels as i64
    {
        return Err(format!("its bias has {columns} columns and its weight {channels}"));
    }
    let params = Params { scale, zero_point: String::new(), channels: w.channels };
    // Of a matrix that is added to a product, the last axis is that of the product's columns.
    let axis = emit.rank(bias).map_or(0, |rank| rank.max(1) as i64 - 1);
    emit.dequantize(bias, &params, axis)
}

/// Before opset 13 a softmax took all axes from `axis` on as one.
fn check_softmax(node: &NodeProto, emit: &Emit) -> Result<(), Why> {
    const OWN_AXES: i64 = 13;
    let axis = node.int("axis", -1);
    let rank = emit.rank(optional(node, 0)).map(|r| r as i64);
    let last = axis == -1 || rank.is_some_and(|r| axis == r - 1);
    let newer = |opset: i64| opset >= OWN_AXES;
    match last || newer(node.int("opset", OWN_AXES)) == newer(emit.opset()) {
        true => Ok(()),
        false => Err("it normalizes several axes at once; use the last axis".into()),
    }
}

/// `QuantizeLinear` and `DequantizeLinear` as the specification has them: in the default domain,
/// scalars where there is one scale, a zero point that says the type of the result, and a constant
/// as integers.
pub(super) fn rewrite_linear(node: &NodeProto, emit: &mut Emit) -> Result<Outcome, Why> {
    let foreign = node.domain() == MICROSOFT;
    if !(foreign || node.is_onnx()) || node.int("block_size", 0) != 0 {
        return Ok(Outcome::Untouched);
    }
    let (result, scale) = (output(node)?, input(node, 1)?);
    let mut params = match emit.params(scale, optional(node, 2)) {
        Ok(params) => params,
        Err(why) if foreign => return Err(why),
        Err(_) => return Ok(Outcome::Untouched),
    };
    let quantizes = node.op_type() == "QuantizeLinear";
    if quantizes && node.int("output_dtype", 0) == 0 {
        params = emit.with_zero_point(&params, DataType::Uint8);
    }
    if quantizes
        && !emit.is_output(result)
        && let Some(weight) = weights::quantized(node, &params, result, emit)
    {
        emit.define(weight);
        return Ok(Outcome::Replaced);
    }
    if quantizes && params.channels == Some(1) {
        emit.remember(result, params.clone());
    }
    let same = params.scale == *scale && params.zero_point == optional(node, 2);
    if same && !foreign {
        return Ok(Outcome::Untouched);
    }
    let integers = if quantizes { params.zero_point.as_str() } else { input(node, 0)? };
    let data_type = emit.elem_type(integers);
    if foreign && data_type.is_some_and(|t| emit.opset() < first_opset(t)) {
        return Err("the model's opset has no such integers; export it with opset 21".into());
    }
    let mut new = NodeProto::new(
        node.op_type(),
        &[input(node, 0)?, &params.scale, &params.zero_point],
        &[result],
    );
    if params.zero_point.is_empty() {
        new.input.pop();
    }
    new.attribute.clone_from(&node.attribute);
    new.name.clone_from(&node.name);
    emit.push(new);
    Ok(Outcome::Replaced)
}

/// The first opset whose `QuantizeLinear` and `DequantizeLinear` have integers of this type.
fn first_opset(data_type: DataType) -> i64 {
    match data_type {
        DataType::Int16 | DataType::Uint16 | DataType::Int4 | DataType::Uint4 => 21,
        _ => 10,
    }
}
