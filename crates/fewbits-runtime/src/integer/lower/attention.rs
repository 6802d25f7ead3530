//! Products of two float values, and attention: two of them with a softmax between.

use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::movement::permutation;
use crate::integer::lower::{Form, Lowering};
use crate::integer::state::ValueId;
use crate::integer::steps::attention::{Attention, FloatProduct, Heads, View};
use crate::integer::steps::float::ConstantProduct;

impl<'a> Lowering<'a> {
    /// A MatMul or Gemm of floats.
    pub(super) fn float_product(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let (position, _) = self.net.producer(node.output.first()?)?;
        self.own_float.contains(&position).then_some(())?;
        match node.op_type() {
            "MatMul" | "Gemm" if self.float_weights(&node.input[1]).is_some() => {
                self.constant_product(node)
            }
            "MatMul" => self.product_of_two(node, Heads::Apart),
            _ => None,
        }
    }

    /// The constant floats of a matrix, also those that quantized weights stand for.
    fn float_weights(&self, name: &str) -> Option<(Vec<f32>, Vec<usize>)> {
        let (values, shape) = self.net.floats(name).or_else(|| self.net.dequantized(name))?;
        (shape.len() == 2).then_some((values, shape))
    }

    fn constant_product(&mut self, node: &'a NodeProto) -> Option<ValueId> {
        let (values, shape) = self.float_weights(&node.input[1])?;
        let transposed = node.int("transB", 0) != 0;
        let is_gemm = node.is("Gemm");
        let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0;
        (!is_gemm || plain).then_some(())?;
        let bias = match node.input.get(2).map_or("", String::as_str) {
            "" => None,
            name => {
                let columns = if transposed { shape[0] } else { shape[1] };
                Some(super::product::spread(self.net.floats(name)?.0, columns)?)
            }
        };
        let input = self.tensor(&node.input[0]);
        let cpu = self.cpu;
        Some(self.step(Form::Plain, &[input], node.op_type(), node, |output| {
            ConstantProduct::new(
                cpu,
                input,
                output,
                &values,
                [shape[0], shape[1]],
                transposed,
                bias,
            )
        }))
    }

    /// A Transpose of a product of two, written in its order where it is computed: `[batch, heads,
    /// rows, columns]` to `[batch, rows, heads, columns]`.
    pub(super) fn transposed_product(
        &mut self,
        name: &'a str,
        permutation: &[usize],
    ) -> Option<ValueId> {
        let (position, node) = self.net.producer(name).filter(|(_, n)| n.is("MatMul"))?;
        let fits = permutation == [0, 2, 1, 3]
            && self.net.has_one_use(name)
            && self.own_float.contains(&position)
            && self.float_weights(&node.input[1]).is_none();
        fits.then_some(())?;
        self.product_of_two(node, Heads::Together)
    }

    fn product_of_two(&mut self, node: &'a NodeProto, heads: Heads) -> Option<ValueId> {
        let [left, right] = node.input.as_slice() else { return None };
        if let Some(id) = self.attention(left, right, heads, node) {
            return Some(id);
        }
        let (a, b) = (self.view(left), self.view(right));
        let inputs = [a.id, b.id];
        Some(self.step(Form::Plain, &inputs, "MatMul", node, |output| FloatProduct {
            a,
            b,
            output,
            heads,
        }))
    }

    /// A value, and the permutation that a Transpose before it makes.
    fn view(&mut self, name: &'a str) -> View {
        if let Some((_, node)) = self.net.producer(name)
            && node.is("Transpose")
            && let Some(permutation) = permutation(node)
        {
            return View { id: self.tensor(&node.input[0]), permutation: Some(permutation) };
        }
        View { id: self.tensor(name), permutation: None }
    }

    /// softmax(q kᵀ · scale + mask) v, where nothing else reads what is between.
    fn attention(
        &mut self,
        weights: &'a str,
        values: &'a str,
        heads: Heads,
        node: &'a NodeProto,
    ) -> Option<ValueId> {
        let own = |lowering: &Self, name: &str, op: &str| {
            let (position, node) = lowering.net.producer(name)?;
            let fits = node.is(op)
                && lowering.own_float.contains(&position)
                && lowering.net.has_one_use(name);
            fits.then_some(node)
        };
        let softmax = own(self, weights, "Softmax")?;
        let mut scores = softmax.input[0].as_str();
        let mut mask = None;
        if let Some(add) = own(self, scores, "Add") {
            let [a, b] = add.input.as_slice() else { return None };
            let is_scores = |name: &str| {
                ["MatMul", "Mul", "Div"].iter().any(|op| own(self, name, op).is_some())
                    && self.leads_to_product(name)
            };
            let (product, other) = if is_scores(a) { (a, b) } else { (b, a) };
            (scores, mask) = (product, Some(other.as_str()));
        }
        let mut scale = 1.0;
        for op in ["Mul", "Div"] {
            if let Some(scaled) = own(self, scores, op) {
                let [a, b] = scaled.input.as_slice() else { return None };
                let (name, factor) = match self.net.scalar(b) {
                    Some(factor) => (a, factor),
                    None if op == "Mul" => (b, self.net.scalar(a)?),
                    None => return None,
                };
                // A power of two, as √16 is, divides as exactly as its inverse multiplies.
                scale = if op == "Div" { 1.0 / factor } else { factor };
                scores = name;
                break;
            }
        }
        let product = own(self, scores, "MatMul")?;
        let rank = self.ranks.get(scores).copied().filter(|r| (3..=4).contains(r))?;
        (heads == Heads::Apart || rank == 4).then_some(())?;
        let (q, k, v) =
            (self.view(&product.input[0]), self.view(&product.input[1]), self.view(values));
        let mask = mask.map(|name| self.tensor(name));
        let inputs: Vec<ValueId> = [q.id, k.id, v.id].into_iter().chain(mask).collect();
        Some(self.step(Form::Plain, &inputs, "attention", node, |output| Attention {
            q,
            k,
            v,
            scale,
            mask,
            output,
            heads,
        }))
    }

    /// Whether a value is a product of two, or that times a constant.
    fn leads_to_product(&self, name: &str) -> bool {
        let Some((_, node)) = self.net.producer(name) else { return false };
        node.is("MatMul")
            || node.input.iter().any(|i| self.net.producer(i).is_some_and(|(_, n)| n.is("MatMul")))
    }
}
