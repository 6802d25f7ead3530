//! Functions that several nodes spell out.

use std::collections::HashSet;

use fewbits_onnx::proto::NodeProto;

use crate::lower::Lowering;

impl<'a> Lowering<'a> {
    /// `x * Sigmoid(x)`, either way round: the name of x.
    pub(crate) fn silu(&self, node: &'a NodeProto) -> Option<&'a str> {
        node.is("Mul").then_some(())?;
        let [a, b] = node.input.as_slice() else { return None };
        let is_silu = |x: &String, other: &String| {
            let sigmoid = self.view.producer(other).filter(|(_, n)| n.is("Sigmoid"));
            sigmoid.is_some_and(|(_, n)| n.input[0] == *x)
        };
        let mut found = [(a, b), (b, a)].into_iter().filter(|(x, other)| is_silu(x, other));
        found.next().map(|(x, _)| x.as_str())
    }

    /// `x * (1 + Erf(x / √2)) * 0.5` in any order of the factors: the name of x.
    pub(crate) fn gelu(&self, node: &'a NodeProto) -> Option<&'a str> {
        node.is("Mul").then_some(())?;
        let factors = self.factors(node);
        let [half, erf, x] = self.sorted(&factors)?;
        (self.view.scalar(half)? == 0.5).then_some(())?;
        let (_, add) = self.view.producer(erf)?;
        let (erf, one) = self.value_and_scalar(add)?;
        (one == 1.0).then_some(())?;
        let (_, erf) = self.view.producer(erf).filter(|(_, n)| n.is("Erf"))?;
        let (_, scaled) = self.view.producer(&erf.input[0])?;
        let (inner, factor) = self.value_and_scalar(scaled)?;
        let wanted = if scaled.is("Div") { 2f32.sqrt() } else { 0.5f32.sqrt() };
        let fits = (scaled.is("Div") || scaled.is("Mul")) && (factor - wanted).abs() < 1e-6;
        (fits && inner == x).then_some(x)
    }

    /// The three factors of a product of products.
    fn factors(&self, node: &'a NodeProto) -> Vec<&'a str> {
        let mut factors = Vec::new();
        for name in &node.input {
            match self.view.producer(name) {
                Some((_, inner)) if inner.is("Mul") && self.view.has_one_use(name) => {
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
        let constant = factors.iter().position(|name| self.view.scalar(name).is_some())?;
        let is_sum = |name: &&&str| self.view.producer(name).is_some_and(|(_, n)| n.is("Add"));
        let others: Vec<&&'a str> =
            factors.iter().enumerate().filter(|(i, _)| *i != constant).map(|(_, n)| n).collect();
        // The value may be a sum itself: the right one leads to an Erf.
        let leads_to_erf = |name: &&&str| {
            is_sum(name)
                && self.view.producer(name).is_some_and(|(_, n)| {
                    n.input.iter().any(|i| self.view.producer(i).is_some_and(|(_, e)| e.is("Erf")))
                })
        };
        let sum = **others.iter().find(|n| leads_to_erf(n))?;
        let value = **others.iter().find(|n| ***n != sum)?;
        Some([factors[constant], sum, value])
    }

    /// A node of one value and one constant.
    fn value_and_scalar(&self, node: &'a NodeProto) -> Option<(&'a str, f32)> {
        let [a, b] = node.input.as_slice() else { return None };
        match (self.view.scalar(a), self.view.scalar(b)) {
            (None, Some(scalar)) => Some((a, scalar)),
            (Some(scalar), None) if !node.is("Div") && !node.is("Sub") => Some((b, scalar)),
            _ => None,
        }
    }

    /// Whether `node`, and what it finishes, alone reads `name`: Gelu and Silu read it twice.
    pub(crate) fn is_read_only_by(&self, name: &str, node: &'a NodeProto) -> bool {
        let inside = self.nodes_between(name, node);
        !self.view.index.is_output(name)
            && self.view.index.consumers(name).iter().all(|c| inside.contains(c))
    }

    /// The nodes on the way from `name` to `node`, whose values nothing else reads.
    fn nodes_between(&self, name: &str, node: &'a NodeProto) -> HashSet<usize> {
        let mut inside = HashSet::new();
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            let Some(position) = node.output.first().and_then(|o| self.view.index.producer(o))
            else {
                continue;
            };
            inside.insert(position);
            if inside.len() > 8 {
                break;
            }
            for input in node.input.iter().filter(|i| *i != name) {
                if self.view.has_one_use(input)
                    && let Some((_, before)) = self.view.producer(input)
                {
                    open.push(before);
                }
            }
        }
        inside
    }
}
