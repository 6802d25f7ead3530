//! Functions of one value, also those that several nodes spell out.

use std::collections::HashSet;

use fewbits_kernels::float::Function;
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::refusal::Refusal;
use crate::integer::state::ValueId;
use crate::integer::steps::float::Elementwise;
use crate::integer::steps::product::Epilogue;

impl<'a> Lowering<'a> {
    /// A function of one value that `node` finishes, and the value.
    pub(super) fn function_at(&self, node: &'a NodeProto) -> Result<(Function, &'a str), Refusal> {
        if let Some(x) = self.gelu(node) {
            return Ok((Function::GeluErf, x));
        }
        if node.is("Mul")
            && let [a, b] = node.input.as_slice()
        {
            // x * Sigmoid(x), either way round.
            for (x, other) in [(a, b), (b, a)] {
                let sigmoid = self.net.producer(other).filter(|(_, n)| n.is("Sigmoid"));
                if sigmoid.is_some_and(|(_, n)| n.input[0] == *x) {
                    return Ok((Function::Silu, x));
                }
            }
        }
        Ok((self.function_of(node)?, node.input[0].as_str()))
    }

    /// Finds the function that `node` alone is.
    fn function_of(&self, node: &NodeProto) -> Result<Function, Refusal> {
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
            "HardSigmoid" => Function::HardSigmoid {
                alpha: node.float("alpha", 0.2),
                beta: node.float("beta", 0.5),
            },
            "Gelu" => match node.string("approximate", "none").as_str() {
                "tanh" => Function::GeluTanh,
                _ => Function::GeluErf,
            },
            "Clip" => {
                let bounds = self.clip_bounds(node);
                let (low, high) = bounds.ok_or(Refusal::of_node("its bounds are not constant"))?;
                Function::Clip {
                    low: low.unwrap_or(f32::NEG_INFINITY),
                    high: high.unwrap_or(f32::INFINITY),
                }
            }
            _ => return Err(Refusal::other()),
        })
    }

    /// Computes a function of each float.
    pub(super) fn function(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let (function, input) = self.function_at(node)?;
        Ok(Box::new(move |lowering| lowering.elementwise(input, function, node)))
    }

    /// A function of each element; inside the product that gives them, if one does.
    fn elementwise(&mut self, name: &'a str, function: Function, node: &'a NodeProto) -> ValueId {
        if let Some((_, before)) = self.net.producer(name)
            && self.is_read_only_by(name, node)
            && let Some(id) = self.binary_of_bytes(before, Some(function))
        {
            return id;
        }
        let input = self.tensor(name);
        if self.is_read_only_by(name, node)
            && let Some(product) = self.product_of(input)
            && let Epilogue::Floats { function: open @ None, add: None, quantize: None, .. } =
                &mut product.epilogue
        {
            *open = Some(function);
            return self.fuse(input, Form::Plain, &format!(" + {}", name_of(function, node)));
        }
        if self.is_read_only_by(name, node)
            && let Some(convolution) = self.convolution_of(input)
            && let open @ None = &mut convolution.function
        {
            *open = Some(function);
            return self.fuse(input, Form::Plain, &format!(" + {}", name_of(function, node)));
        }
        self.step(Form::Plain, &[input], name_of(function, node), node, |output| Elementwise {
            input,
            output,
            function,
        })
    }

    /// `x * (1 + Erf(x / √2)) * 0.5` in any order of the factors: the name of x.
    fn gelu(&self, node: &'a NodeProto) -> Option<&'a str> {
        node.is("Mul").then_some(())?;
        let factors = self.factors(node);
        let [half, erf, x] = self.sorted(&factors)?;
        (self.net.scalar(half)? == 0.5).then_some(())?;
        let (_, add) = self.net.producer(erf)?;
        let (erf, one) = self.value_and_scalar(add)?;
        (one == 1.0).then_some(())?;
        let (_, erf) = self.net.producer(erf).filter(|(_, n)| n.is("Erf"))?;
        let (_, scaled) = self.net.producer(&erf.input[0])?;
        let (inner, factor) = self.value_and_scalar(scaled)?;
        let wanted = if scaled.is("Div") { 2f32.sqrt() } else { 0.5f32.sqrt() };
        let fits = (scaled.is("Div") || scaled.is("Mul")) && (factor - wanted).abs() < 1e-6;
        (fits && inner == x).then_some(x)
    }

    /// The three factors of a product of products.
    fn factors(&self, node: &'a NodeProto) -> Vec<&'a str> {
        let mut factors = Vec::new();
        for name in &node.input {
            match self.net.producer(name) {
                Some((_, inner)) if inner.is("Mul") && self.net.has_one_use(name) => {
                    factors.extend(inner.input.iter().map(String::as_str));
                }
                _ => factors.push(name.as_str()),
            }
        }
        factors
    }

    /// The constant, the sum and the value among three factors.
    fn sorted(&self, factors: &[&'a str]) -> Option<[&'a str; 3]> {
        (factors.len() == 3).then_some(())?;
        let constant = factors.iter().position(|name| self.net.scalar(name).is_some())?;
        let is_sum = |name: &&&str| self.net.producer(name).is_some_and(|(_, n)| n.is("Add"));
        let others: Vec<&&'a str> =
            factors.iter().enumerate().filter(|(i, _)| *i != constant).map(|(_, n)| n).collect();
        // The value may be a sum itself: the right one leads to an Erf.
        let leads_to_erf = |name: &&&str| {
            is_sum(name)
                && self.net.producer(name).is_some_and(|(_, n)| {
                    n.input.iter().any(|i| self.net.producer(i).is_some_and(|(_, e)| e.is("Erf")))
                })
        };
        let sum = **others.iter().find(|n| leads_to_erf(n))?;
        let value = **others.iter().find(|n| ***n != sum)?;
        Some([factors[constant], sum, value])
    }

    /// A node of one value and one constant.
    fn value_and_scalar(&self, node: &'a NodeProto) -> Option<(&'a str, f32)> {
        let [a, b] = node.input.as_slice() else { return None };
        match (self.net.scalar(a), self.net.scalar(b)) {
            (None, Some(scalar)) => Some((a, scalar)),
            (Some(scalar), None) if !node.is("Div") && !node.is("Sub") => Some((b, scalar)),
            _ => None,
        }
    }

    /// Whether `node`, and what it finishes, alone reads `name`: Gelu and Silu read it twice.
    pub(super) fn is_read_only_by(&self, name: &str, node: &'a NodeProto) -> bool {
        let inside = self.nodes_between(name, node);
        !self.net.index.is_output(name)
            && self.net.index.consumers(name).iter().all(|c| inside.contains(c))
    }

    /// The nodes on the way from `name` to `node`, whose values nothing else reads.
    fn nodes_between(&self, name: &str, node: &'a NodeProto) -> HashSet<usize> {
        let mut inside = HashSet::new();
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            let Some(position) = node.output.first().and_then(|o| self.net.index.producer(o))
            else {
                continue;
            };
            inside.insert(position);
            if inside.len() > 8 {
                break;
            }
            for input in node.input.iter().filter(|i| *i != name) {
                if self.net.has_one_use(input)
                    && let Some((_, before)) = self.net.producer(input)
                {
                    open.push(before);
                }
            }
        }
        inside
    }
}

/// A function in the words of ONNX.
pub(super) fn name_of(function: Function, node: &NodeProto) -> String {
    match function {
        Function::GeluErf | Function::GeluTanh => "Gelu".to_string(),
        Function::Silu => "Silu".to_string(),
        _ => node.op_type().to_string(),
    }
}
