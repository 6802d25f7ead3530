//! Sums and products of two activations.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::AddScales;
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::rules::Wanted;
use crate::integer::lower::{Bytes, Form, Lowering};
use crate::integer::program::AnyStep;
use crate::integer::refusal::{Refusal, input, only};
use crate::integer::state::ValueId;
use crate::integer::steps::elementwise::{Binary, Operator};
use crate::integer::steps::product::{Epilogue, Residual};

impl<'a> Lowering<'a> {
    /// Adds or multiplies bytes.
    pub(super) fn binary(&mut self, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
        let Wanted { node, to, .. } = *wanted;
        only(&["Add", "Mul"], node)?;
        let (a_name, b_name) = (input(node, 0)?, input(node, 1)?);
        let (a, b) = (self.source(a_name)?, self.source(b_name)?);
        let operator = if node.is("Add") { Operator::Add } else { Operator::Mul };
        if operator == Operator::Add {
            for ((name, product), other) in [((b_name, b), a), ((a_name, a), b)] {
                if let Some(id) = self.residual(name, product, other, wanted) {
                    return Ok(id);
                }
            }
        }
        let image = self.same_rank(node) && [a, b].iter().any(|x| self.form(x.id) == Form::Image);
        let form = if image { Form::Image } else { Form::Plain };
        let (left, right) = (self.in_form(a, form, node), self.in_form(b, form, node));
        let scales = AddScales {
            a_scale: a.ty.scale.scale,
            a_zero_point: a.ty.scale.zero_point,
            b_scale: b.ty.scale.scale,
            b_zero_point: b.ty.scale.zero_point,
            to,
        };
        let what = format!("{}{}", node.op_type(), wanted.behind);
        Ok(self.step(form, &[left, right], what, node, |output| Binary {
            inputs: [left, right],
            output,
            operator,
            scales,
            form,
        }))
    }

    /// Whether both operands are known to have as many axes: as images their axes must be the same.
    fn same_rank(&self, node: &NodeProto) -> bool {
        let mut ranks = node.input.iter().map(|name| self.ranks.get(name.as_str()));
        matches!((ranks.next(), ranks.next()), (Some(Some(a)), Some(Some(b))) if a == b)
    }

    /// Adds `other` where `product`, behind the float value `name`, is computed, if nothing else
    /// reads it.
    fn residual(
        &mut self,
        name: &str,
        product: Bytes,
        other: Bytes,
        wanted: &Wanted<'a>,
    ) -> Option<ValueId> {
        let Wanted { node, to, .. } = *wanted;
        let (_, dequantize) = self.net.producer(name)?;
        let q = dequantize.input.first()?;
        let alone = dequantize.is("DequantizeLinear")
            && self.net.has_one_use(name)
            && self.net.has_one_use(q)
            && !self.shared.contains(&product.id)
            && product.id != other.id;
        alone.then_some(())?;
        let id = product.id;
        let unit = self.values[id.index()].unit?;
        match &self.units[unit].step {
            AnyStep::Product(step)
                if step.output == id
                    && matches!(step.epilogue, Epilogue::Bytes { add: None, .. }) => {}
            _ => return None,
        }
        let form = self.form(id);
        (form == Form::Plain || self.same_rank(node)).then_some(())?;
        let other_id = match form {
            Form::Image => self.as_image(other, Halo::default(), node),
            Form::Plain => self.in_form(other, Form::Plain, node),
        };
        let product = self.value(form);
        let output = self.fuse(id, form, &format!(" + Add{}", wanted.behind));
        let unit = &mut self.units[unit];
        unit.inputs.push(other_id);
        unit.outputs.push(product);
        if let AnyStep::Product(step) = &mut unit.step
            && let Epilogue::Bytes { add, .. } = &mut step.epilogue
        {
            *add = Some(Residual { other: other_id, product, scale: other.ty.scale, to });
        }
        Some(output)
    }
}
