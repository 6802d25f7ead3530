//! What edits a graph, one pass a file.

pub mod byte_arithmetic;
pub mod cleanup;
pub mod constants;
pub mod double_heads;
pub mod dynamic;
pub mod einsum;
mod emit;
pub mod exact_products;
pub mod exact_quantization;
pub mod first_of_equals;
pub mod float_products;
pub mod fold_batch_norm;
pub mod hoist;
pub mod inline;
pub mod learnt_scales;
pub mod lower_ml;
pub mod lower_opset;
pub mod normal_forms;
pub mod own_shapes;
pub mod qdq;
pub mod section;
pub mod single_precision;
pub mod to_qdq;
pub mod turned_weights;
pub mod unfuse;
pub mod unpack;
pub mod upgrade_opset;
