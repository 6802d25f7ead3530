//! How nodes become steps: one rule a file, tried in the order of [`RULES`].
//!
//! A rule checks all that it needs before it changes anything, and says why it refuses a node. A
//! pattern that is only faster, as an Add inside the product before it, is no rule: where it is not
//! found there is nothing to be told.

mod arg_max;
mod attention;
mod average_pool;
mod bytes_binary;
mod bytes_concat;
mod cast;
mod cast_of_labels;
mod col2im;
mod conv;
mod conv_integer;
mod cum_prod;
mod dequantize;
mod det;
mod dynamic;
mod dynamic_conv;
mod dynamic_conv_bias;
mod dynamic_matmul;
mod dynamic_quantize;
mod float_binary;
mod float_concat;
mod float_conv;
mod float_matmul;
mod float_pool;
mod float_transpose;
mod float_view;
mod floats_of_integers;
mod function;
mod gather;
mod give_out;
mod global_average;
mod halves;
mod integer_arithmetic;
mod labels;
mod lut;
mod matmul_constant;
mod matmul_integer;
mod matmul_to_bytes;
mod matmul_to_floats;
mod matrix;
mod move_bytes;
mod non_max_suppression;
mod norm;
mod reduce;
mod requantize;
mod resize;
mod roi_align;
mod softmax;
mod spelled_out;
mod threshold;
mod view_of_labels;
mod window;

use fewbits_kernels::bytes::QuantizeTo;
use fewbits_onnx::facts::is_mat_mul_n_bits;
use fewbits_onnx::proto::NodeProto;

use crate::lower::Lowering;
use crate::program::ValueId;
use crate::refusal::Refusal;
use crate::view::shared_by;

pub(crate) use float_transpose::permutation;
pub(crate) use matmul_constant::keeps_codes;
pub(crate) use threshold::is_inside_threshold;
pub(crate) use window::pool_window;

/// A way to compute a node.
pub(crate) struct Rule {
    /// What it is called: the name of its file.
    pub name: &'static str,
    pub takes: Takes,
}

/// What a rule computes, and from what.
pub(crate) enum Takes {
    /// Bytes from bytes.
    ToBytes(for<'a> fn(&mut Lowering<'a>, &Wanted<'a>) -> Result<ValueId, Refusal>),
    /// Floats, or what ONNX has as integers, from bytes: it takes the bytes before a node as they are
    /// lowered for whoever reads them.
    FromBytes(for<'a> fn(&mut Lowering<'a>, &'a NodeProto) -> Result<ValueId, Refusal>),
    /// What the other executor cannot compute, wherever it stands.
    Anywhere(Asked),
    /// Floats, where [`choose_float_nodes`](Lowering::choose_float_nodes) lets them.
    Floats(Asked),
    /// The integers of labels, where floats are chosen.
    Labels(Asked),
}

/// A way to compute a node, which changes nothing while it is only asked for.
pub(crate) type Asked = for<'a> fn(&Lowering<'a>, &'a NodeProto) -> Result<Rewrite<'a>, Refusal>;

/// What is done for a node once all checks hold: it cannot be refused any more.
pub(crate) type Rewrite<'a> = Box<dyn FnOnce(&mut Lowering<'a>) -> ValueId + 'a>;

/// The bytes that are wanted of what a node gives.
pub(crate) struct Wanted<'a> {
    pub node: &'a NodeProto,
    /// The float value that the node gives.
    pub name: &'a str,
    pub to: QuantizeTo,
    /// The clips between node and QuantizeLinear, in words.
    pub behind: String,
}

/// All rules, in the order in which they are tried.
pub(crate) const RULES: [Rule; 47] = [
    requantize::RULE,
    conv::RULE,
    matmul_to_bytes::RULE,
    lut::RULE,
    bytes_binary::RULE,
    average_pool::RULE,
    global_average::RULE,
    bytes_concat::RULE,
    move_bytes::RULE,
    dequantize::RULE,
    give_out::RULE,
    matmul_to_floats::RULE,
    matmul_integer::RULE,
    conv_integer::RULE,
    integer_arithmetic::RULE,
    floats_of_integers::RULE,
    halves::RULE,
    dynamic_matmul::RULE,
    dynamic_conv::RULE,
    dynamic_conv_bias::RULE,
    dynamic_quantize::RULE,
    resize::RULE,
    col2im::RULE,
    det::RULE,
    roi_align::RULE,
    non_max_suppression::RULE,
    cum_prod::RULE,
    gather::RULE,
    function::RULE,
    matmul_constant::RULE,
    float_matmul::RULE,
    float_conv::RULE,
    float_pool::RULE,
    global_average::OF_FLOATS,
    norm::RULE,
    softmax::RULE,
    reduce::RULE,
    cast::RULE,
    float_concat::RULE,
    float_transpose::RULE,
    float_view::RULE,
    float_binary::RULE,
    arg_max::RULE,
    labels::RULE,
    threshold::RULE,
    cast_of_labels::RULE,
    view_of_labels::RULE,
];

impl<'a> Lowering<'a> {
    /// Computes what is `wanted` by the first rule that does.
    pub(crate) fn bytes_of(&mut self, position: usize, wanted: &Wanted<'a>) -> Option<ValueId> {
        RULES.iter().find_map(|rule| match rule.takes {
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
        for rule in &RULES {
            let made = match rule.takes {
                Takes::FromBytes(compute) => self.under(rule, |lowering| compute(lowering, node)),
                Takes::Anywhere(ask) => ask(self, node).map(|rewrite| self.under(rule, rewrite)),
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
        for rule in &RULES {
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
