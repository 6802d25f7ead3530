//! The rules by which nodes become steps of ours, in the order in which they are tried.
//!
//! A rule checks all that it needs before it changes anything, and says why it refuses a node. A
//! pattern that is only faster, as an Add inside the product before it, is no rule: where it is not
//! found there is nothing to be told.

use fewbits_kernels::bytes::QuantizeTo;
use fewbits_onnx::facts::is_mat_mul_n_bits;
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::Lowering;
use crate::integer::net::shared_by;
use crate::integer::refusal::Refusal;
use crate::integer::state::ValueId;

/// The bytes that are wanted of what a node gives.
pub(super) struct Wanted<'a> {
    pub node: &'a NodeProto,
    /// The float value that the node gives.
    pub name: &'a str,
    pub to: QuantizeTo,
    /// The clips between node and QuantizeLinear, in words.
    pub behind: String,
}

/// What is done for a node once all checks hold: it cannot be refused any more.
pub(super) type Rewrite<'a> = Box<dyn FnOnce(&mut Lowering<'a>) -> ValueId + 'a>;

/// A way to compute a node, which changes nothing while it is only asked for.
pub(super) type Rule<'a> = fn(&Lowering<'a>, &'a NodeProto) -> Result<Rewrite<'a>, Refusal>;

/// A way to compute floats, or what ONNX has as integers, from bytes: it takes the bytes before a node
/// as they are lowered for whoever reads them.
type FromBytes<'a> = fn(&mut Lowering<'a>, &'a NodeProto) -> Result<ValueId, Refusal>;

/// A way to compute a node from bytes to bytes.
type ToBytes<'a> = fn(&mut Lowering<'a>, &Wanted<'a>) -> Result<ValueId, Refusal>;

impl<'a> Lowering<'a> {
    /// Those from bytes to bytes.
    const TO_BYTES: [ToBytes<'a>; 9] = [
        Self::requantized_source,
        Self::convolution_to_bytes,
        Self::matrix_to_bytes,
        Self::function_table,
        Self::binary,
        Self::average_pool,
        Self::global_average_pool,
        Self::concat,
        Self::moved_to_bytes,
    ];

    /// Those from bytes to floats, or to integers that others read.
    const FROM_BYTES: [FromBytes<'a>; 3] =
        [Self::dequantized, Self::given_out, Self::matrix_to_floats];

    /// Those for what the float executor cannot compute, wherever it stands.
    const BEYOND_FLOATS: [Rule<'a>; 8] = [
        Self::integer_product,
        Self::integer_arithmetic,
        Self::floats_of_integers,
        Self::halves_of_floats,
        Self::dynamic_product,
        Self::dynamic_convolution_with_bias,
        Self::dynamic_quantize,
        Self::resize,
    ];

    /// Those for floats, where [`choose_float_nodes`](Self::choose_float_nodes) lets them.
    const OF_FLOATS: [Rule<'a>; 15] = [
        Self::embedding,
        Self::function,
        Self::constant_product,
        Self::float_product,
        Self::float_convolution,
        Self::float_pool,
        Self::float_global_average,
        Self::norm,
        Self::softmax,
        Self::reduction,
        Self::cast,
        Self::float_concat,
        Self::float_transpose,
        Self::float_view,
        Self::float_binary,
    ];

    /// Those for the integers of labels, where floats are chosen.
    const OF_LABELS: [Rule<'a>; 5] = [
        Self::arg_max,
        Self::label_of,
        Self::above_threshold,
        Self::cast_of_labels,
        Self::view_of_labels,
    ];

    /// Computes what is `wanted` by the first rule that does.
    pub(super) fn bytes_of(&mut self, position: usize, wanted: &Wanted<'a>) -> Option<ValueId> {
        Self::TO_BYTES.iter().find_map(|rule| {
            let result = rule(self, wanted);
            self.noted(position, result)
        })
    }

    /// Makes a node a step of ours by the first rule that takes it, where what it gives is not wanted as
    /// bytes.
    pub(super) fn own_step(&mut self, position: usize, node: &'a NodeProto) -> Option<ValueId> {
        let from_bytes = Self::FROM_BYTES.iter().find_map(|rule| {
            let result = rule(self, node);
            self.noted(position, result)
        });
        if from_bytes.is_some() {
            return from_bytes;
        }
        for rule in Self::BEYOND_FLOATS {
            let result = rule(self, node);
            if let Some(rewrite) = self.noted(position, result) {
                return Some(rewrite(self));
            }
        }
        let result = self.float_step(node).and_then(|rewrite| {
            if self.own_float.contains(&position) { Ok(rewrite) } else { Err(self.apart(node)) }
        });
        let rewrite = self.noted(position, result)?;
        Some(rewrite(self))
    }

    /// Finds the first rule by which floats or labels are computed.
    pub(super) fn float_step(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        if !node.is_onnx() && !is_mat_mul_n_bits(node) {
            let why = format!("operators of {} have no kernel here", node.domain());
            return Err(Refusal::of_operator(why));
        }
        let output = node.output.first().map_or("", String::as_str);
        let (rules, mut refusal) = match self.is_float(output) {
            true => (&Self::OF_FLOATS[..], Refusal::other()),
            false => (&Self::OF_LABELS[..], self.no_kernel_for(output)),
        };
        for rule in rules {
            match rule(self, node) {
                Ok(rewrite) => return Ok(rewrite),
                Err(other) => refusal = refusal.or(other),
            }
        }
        Err(refusal)
    }

    /// Refuses values for their type.
    pub(super) fn no_kernel_for(&self, name: &str) -> Refusal {
        Refusal::of_operator(match self.types.get(name) {
            Some(data_type) => {
                format!("{} values have no kernel here", format!("{data_type:?}").to_lowercase())
            }
            None => "the type of its values is not known".to_string(),
        })
    }

    /// Refuses a node that could have been a step of ours, had it been linked to integers.
    fn apart(&self, node: &NodeProto) -> Refusal {
        if let Some(weight) = node.input.iter().find_map(|name| self.net.weight(name)) {
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
