//! Products of two float values, and attention: two of them with a softmax between.

use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::movement::permutation;
use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::refusal::{Refusal, only};
use crate::integer::state::ValueId;
use crate::integer::steps::attention::{Attention, FloatProduct, Heads, View};

impl<'a> Lowering<'a> {
    /// Multiplies two floats.
    pub(super) fn float_product(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["MatMul"], node)?;
        self.has_matrices(node)?;
        Ok(Box::new(move |lowering| lowering.product_of_two(node, Heads::Apart)))
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
            && !self.is_constant_product(node);
        fits.then(|| self.product_of_two(node, Heads::Together))
    }

    fn product_of_two(&mut self, node: &'a NodeProto, heads: Heads) -> ValueId {
        let (left, right) = (node.input[0].as_str(), node.input[1].as_str());
        if let Some(id) = self.attention(left, right, heads, node) {
            return id;
        }
        let (a, b) = (self.view(left), self.view(right));
        let inputs = [a.id, b.id];
        self.step(Form::Plain, &inputs, "MatMul", node, |output| FloatProduct {
            a,
            b,
            output,
            heads,
        })
    }

    /// A value, and the permutation that a Transpose before it makes.
    fn view(&mut self, name: &'a str) -> View {
        if let Some((_, node)) = self.net.producer(name)
            && node.is("Transpose")
            && let Ok(permutation) = permutation(node)
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
