//! Functions of one value, also those that several nodes spell out.

use fewbits_kernels::float::Function;
use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Epilogue, Op};
use crate::program::ValueId;
use crate::refusal::Refusal;
use crate::rules::float_binary::dequantized_binary;

pub(crate) const RULE: Rule = Rule { name: "function", takes: Takes::Floats(function), example };

fn function<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let (function, input) = function_at(lowering, node)?;
    Ok(Box::new(move |lowering| elementwise(lowering, input, function, node)))
}

/// A function of one value that `node` finishes, and the value.
pub(crate) fn function_at<'a>(
    lowering: &Lowering<'a>,
    node: &'a NodeProto,
) -> Result<(Function, &'a str), Refusal> {
    if let Some(x) = lowering.gelu(node) {
        return Ok((Function::GeluErf, x));
    }
    if let Some(x) = lowering.silu(node) {
        return Ok((Function::Silu, x));
    }
    Ok((function_of(lowering, node)?, node.input[0].as_str()))
}

/// Finds the function that `node` alone is.
fn function_of(lowering: &Lowering, node: &NodeProto) -> Result<Function, Refusal> {
    if !node.is_onnx() {
        return Err(Refusal::other());
    }
    Ok(match node.op_type() {
        "Relu" => Function::Relu,
        "LeakyRelu" => Function::LeakyRelu { slope: node.float("alpha", 0.01) },
        "Sigmoid" => Function::Sigmoid,
        "Tanh" => Function::Tanh,
        "Erf" => Function::Erf,
        "Exp" => Function::Exp,
        "Sqrt" => Function::Sqrt,
        "Reciprocal" => Function::Reciprocal,
        "Neg" => Function::Neg,
        "Abs" => Function::Abs,
        "Softplus" => Function::Softplus,
        "Elu" => Function::Elu { alpha: node.float("alpha", 1.0) },
        "HardSwish" => Function::HardSwish,
        "HardSigmoid" => {
            Function::HardSigmoid { alpha: node.float("alpha", 0.2), beta: node.float("beta", 0.5) }
        }
        "Gelu" => match node.string("approximate", "none").as_str() {
            "tanh" => Function::GeluTanh,
            _ => Function::GeluErf,
        },
        "Clip" => {
            let bounds = lowering.clip_bounds(node);
            let (low, high) = bounds.ok_or(Refusal::of_node("its bounds are not constant"))?;
            Function::Clip {
                low: low.unwrap_or(f32::NEG_INFINITY),
                high: high.unwrap_or(f32::INFINITY),
            }
        }
        _ => return Err(Refusal::other()),
    })
}

/// A function of each element; inside the product that gives them, if one does.
fn elementwise<'a>(
    lowering: &mut Lowering<'a>,
    name: &'a str,
    function: Function,
    node: &'a NodeProto,
) -> ValueId {
    let is_read_by_it_only = lowering.is_read_only_by(name, node);
    if is_read_by_it_only
        && let Some((_, before)) = lowering.view.producer(name)
        && let Some(id) = dequantized_binary(lowering, before, Some(function))
    {
        return id;
    }
    let input = lowering.tensor(name);
    let what = name_of(function, node);
    if is_read_by_it_only && takes(lowering, input, function) {
        return lowering.fuse(input, floats(), &format!(" + {what}"));
    }
    lowering.step(floats(), &[input], what, node, Op::Function(function))
}

/// Gives what computes `id` a function of its result, if it takes one.
fn takes(lowering: &mut Lowering, id: ValueId, function: Function) -> bool {
    if let Some(product) = lowering.product_of(id)
        && let Epilogue::Floats { function: open @ None, adds_input: false, quantize: None, .. } =
            &mut product.epilogue
    {
        *open = Some(function);
        return true;
    }
    if let Some(convolution) = lowering.convolution_of(id)
        && let open @ None = &mut convolution.function
    {
        *open = Some(function);
        return true;
    }
    false
}

/// A function in the words of ONNX.
pub(crate) fn name_of(function: Function, node: &NodeProto) -> String {
    match function {
        Function::GeluErf | Function::GeluTanh => "Gelu".to_string(),
        Function::Silu => "Silu".to_string(),
        _ => node.op_type().to_string(),
    }
}

/// A function that is not odd.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let y = net.node("Softplus", &[&x], &[]);
    net.ends_in_floats(&y)
}
