//! The walk's questions to the rules.

use fewbits_onnx::facts::is_mat_mul_n_bits;
use fewbits_onnx::proto::NodeProto;

use crate::lower::{Lowering, Rewrite, Rule, Takes, Wanted};
use crate::program::ValueId;
use crate::refusal::Refusal;
use crate::view::shared_by;

impl<'a> Lowering<'a> {
    /// Computes what is `wanted` by the first rule that does.
    pub(crate) fn bytes_of(&mut self, position: usize, wanted: &Wanted<'a>) -> Option<ValueId> {
        self.rules.iter().find_map(|rule| match rule.takes {
            Takes::ToBytes(compute) => {
                let result = self.under(rule, |lowering| compute(lowering, wanted));
                self.noted(position, result)
            }
            _ => None,
        })
    }

    /// Makes a node a step of ours by the first rule that takes it, where what it gives is not wanted as
    /// bytes.
    pub(crate) fn own_step(&mut self, position: usize, node: &'a NodeProto) -> Option<ValueId> {
        for rule in self.rules {
            let made = match rule.takes {
                Takes::FromBytes(compute) => self.under(rule, |lowering| compute(lowering, node)),
                Takes::Anywhere(ask) => ask(self, node).map(|rewrite| self.under(rule, rewrite)),
                Takes::Nothing(why) => Err(why(node)),
                _ => continue,
            };
            if let Some(id) = self.noted(position, made) {
                return Some(id);
            }
        }
        let result = self.float_rule(node).and_then(|found| {
            if self.own_float.contains(&position) { Ok(found) } else { Err(self.apart(node)) }
        });
        let (rule, rewrite) = self.noted(position, result)?;
        Some(self.under(rule, rewrite))
    }

    /// Whether a rule takes a node wherever it stands.
    pub(crate) fn is_taken_anywhere(&self, node: &'a NodeProto) -> bool {
        self.rules.iter().any(|rule| match rule.takes {
            Takes::Anywhere(ask) => ask(self, node).is_ok(),
            _ => false,
        })
    }

    /// Finds the first rule by which floats or labels are computed, and what it does.
    pub(crate) fn float_rule(
        &self,
        node: &'a NodeProto,
    ) -> Result<(&'static Rule, Rewrite<'a>), Refusal> {
        if !node.is_onnx() && !is_mat_mul_n_bits(node) {
            let why = format!("operators of {} have no kernel here", node.domain());
            return Err(Refusal::of_operator(why));
        }
        let output = node.output.first().map_or("", String::as_str);
        let gives_floats = self.is_float(output);
        let mut refusal = if gives_floats { Refusal::other() } else { self.no_kernel_for(output) };
        for rule in self.rules {
            let ask = match rule.takes {
                Takes::Floats(ask) if gives_floats => ask,
                Takes::Labels(ask) if !gives_floats => ask,
                _ => continue,
            };
            match ask(self, node) {
                Ok(rewrite) => return Ok((rule, rewrite)),
                Err(other) => refusal = refusal.or(other),
            }
        }
        Err(refusal)
    }

    /// Does `work`, whose steps are those of `rule`. What it asks for meanwhile has rules of its own.
    fn under<T>(&mut self, rule: &Rule, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.rule.replace(rule.name);
        let result = work(self);
        self.rule = before;
        result
    }

    /// Refuses values for their type.
    pub(crate) fn no_kernel_for(&self, name: &str) -> Refusal {
        Refusal::of_operator(match self.types.get(name) {
            Some(data_type) => {
                format!("{} values have no kernel here", format!("{data_type:?}").to_lowercase())
            }
            None => "the type of its values is not known".to_string(),
        })
    }

    /// Refuses a node that could have been a step of ours, had it been linked to integers.
    fn apart(&self, node: &NodeProto) -> Refusal {
        if let Some(weight) = node.input.iter().find_map(|name| self.view.weight(name)) {
            return Refusal::of_values(format!(
                "weights of {} bits {} are multiplied as floats, and no step on integers is \
                 linked to it",
                weight.codes().width(),
                shared_by(weight.layout().granularity())
            ));
        }
        Refusal::of_values(match self.quantizes {
            true => "no step on integers is linked to it by nodes that have kernels",
            false => "no activation in the model is quantized",
        })
    }
}
