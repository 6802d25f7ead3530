//! Attention: two products of floats with a softmax between them.

use fewbits_onnx::proto::NodeProto;

use crate::lower::{Lowering, floats};
use crate::op::{Attention, Heads, Op};
use crate::program::ValueId;

impl<'a> Lowering<'a> {
    /// softmax(q kᵀ · scale + mask) v, where nothing else reads what is between.
    pub(crate) fn attention(
        &mut self,
        weights: &'a str,
        values: &'a str,
        heads: Heads,
        node: &'a NodeProto,
    ) -> Option<ValueId> {
        let own = |lowering: &Self, name: &str, op: &str| {
            let (position, node) = lowering.view.producer(name)?;
            let fits = node.is(op)
                && lowering.own_float.contains(&position)
                && lowering.view.has_one_use(name);
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
                let (name, factor) = match self.view.scalar(b) {
                    Some(factor) => (a, factor),
                    None if op == "Mul" => (b, self.view.scalar(a)?),
                    None => return None,
                };
                // A power of two, as √16 is, divides as exactly as its inverse multiplies.
                scale = if op == "Div" { 1.0 / factor } else { factor };
                scores = name;
                break;
            }
        }
        let product = own(self, scores, "MatMul")?;
        let rank = self.rank(scores).filter(|r| (3..=4).contains(r))?;
        (heads == Heads::Apart || rank == 4).then_some(())?;
        let [(q, of_q), (k, of_k), (v, of_v)] =
            [product.input[0].as_str(), product.input[1].as_str(), values]
                .map(|name| self.permuted(name));
        let mask = mask.map(|name| self.tensor(name));
        let inputs: Vec<ValueId> = [q, k, v].into_iter().chain(mask).collect();
        let op = Op::Attention(Attention { permutations: [of_q, of_k, of_v], scale, heads });
        Some(self.step(floats(), &inputs, "attention", node, op))
    }

    /// Whether a value is a product of two, or that times a constant.
    fn leads_to_product(&self, name: &str) -> bool {
        let Some((_, node)) = self.view.producer(name) else { return false };
        node.is("MatMul")
            || node.input.iter().any(|i| self.view.producer(i).is_some_and(|(_, n)| n.is("MatMul")))
    }
}
