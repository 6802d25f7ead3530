//! What of a model can be quantized: its float constants and what each is to the nodes that read it, and the
//! products of activations by weights.

mod constant;
mod product;

pub use constant::{Axes, Constant, Role, Use, UseForm, constants};
pub(crate) use product::own_vector;
pub use product::{ChannelAxis, Product, ProductKind, is_product, products};
