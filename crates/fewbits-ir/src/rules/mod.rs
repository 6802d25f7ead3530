//! How nodes become steps: one rule a file, tried in the order of [`RULES`].
//!
//! A rule checks all that it needs before it changes anything, and says why it refuses a node. A
//! pattern that is only faster, as an Add inside the product before it, is no rule: where it is not
//! found there is nothing to be told. Each has an example, the smallest graph on which it shows what it does:
//! tests run them all.

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
mod global_average_of_floats;
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

use crate::example::Example;
use crate::lower::Rule;

pub(crate) use matmul_constant::keeps_codes;
pub(crate) use threshold::is_inside_threshold;

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
    global_average_of_floats::RULE,
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

/// Finds an example of each rule, by which it is shown and tested, in the order in which they are tried.
pub fn examples() -> impl Iterator<Item = (&'static str, Example)> {
    RULES.iter().map(|rule| (rule.name, (rule.example)()))
}

#[cfg(test)]
mod tests;
