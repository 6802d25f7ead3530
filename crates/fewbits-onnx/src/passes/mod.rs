//! What edits a graph, one pass a file.

pub mod cleanup;
pub mod constants;
pub mod dynamic;
<<<<<<< HEAD
pub mod float_products;
=======
pub mod exact_products;
>>>>>>> cd17c0d (Leave no product of bytes to the float executor: exact in every form on every CPU)
pub mod fold_batch_norm;
pub mod lower_ml;
pub mod own_shapes;
pub mod qdq;
mod same_sizes;
pub mod section;
pub mod single_precision;
pub mod to_qdq;
pub mod upgrade_opset;
