//! What is known of ONNX's operators, and of the values of a graph by it.
//!
//! Of values: [`operators`] is the one table of what operators give and take; [`types`] follows it through
//! a graph; [`check`] finds what contradicts it. [`shapes`] holds the axes of a node's results, [`values`] the
//! elements of those that hold sizes, and [`mod@sizes`] follows both; an axis of [`extents`] has a size, or a
//! symbol that says which others have the same. [`kinds`] and [`mod@folds`] are further properties of operators, [`ml`] those of
//! `ai.onnx.ml`; [`rows`] tells which values have their rows from the same rows of the inputs, [`mixing`] which surely
//! have not.
//!
//! Of operators, as quantizing asks it: [`products`], [`constants`] (what a constant is to who reads it),
//! [`norms`], [`integers`] (what computes on integers between products), [`scaling`] (what gives factors of
//! channels on), [`missing`] (what takes NaN). An operator is named there, in passes, and where it is lowered,
//! and nowhere else: `cargo xtask operator-names`.

mod axes;
mod check;
mod constants;
pub(crate) mod einsum;
mod extents;
mod folds;
mod fused;
mod gives;
mod integers;
mod kinds;
mod missing;
mod mixing;
mod ml;
mod names;
mod nbits;
mod norms;
mod operators;
mod places;
mod products;
mod quantized;
mod rows;
mod scaling;
mod shapes;
mod sizes;
mod types;
mod values;
mod windows;

pub(crate) use axes::has_axes_input;
pub use axes::{Along, Axes};
pub use check::{Mismatch, mismatches};
pub use constants::ReadAs;
pub use extents::{Element, Extent, Extents, Known, Symbol};
pub use folds::{Conversion, conversion, folds};
pub use integers::IntegerForm;
pub use kinds::{
    Kind, Moved, has_common_scales, held_tensor, is_convolution, is_exact, is_random, kind, moved,
    moves, rounds_to_integers,
};
pub use missing::takes_missing;
pub use mixing::mixes_rows;
pub use names::operator_names;
pub use nbits::{is_mat_mul_n_bits, scales_of_mat_mul_n_bits};
pub use norms::{ScaleAndShift, layer_norm};
pub use places::place;
pub use products::{
    BiasPlace, OnIntegers, ProductForm, WeightLies, bias_behind, bias_of, convolves,
};
pub use quantized::{QuantizedValue, quantized_values};
pub use rows::{CommonScales, rows_are_apart};
pub use scaling::Scaling;
pub use shapes::{Dims, elements, result_dims};
pub use sizes::Sizes;
pub use types::{ElementTypes, result_type};
pub(crate) use types::{element_types, types_inside};
pub use windows::Windows;

use self::shapes::known_sizes;
use self::sizes::Shapes;
use crate::proto::{DataType, GraphProto};

/// The element types and axes of the values of a graph, as far as they are known, and the integers of those that
/// hold sizes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    types: ElementTypes,
    shapes: Shapes,
    /// The sizes in `shapes` that are known, for those who ask for no others.
    sizes: Sizes,
}

impl Facts {
    /// Follows the nodes of a graph, which must be sorted.
    pub fn of(graph: &GraphProto) -> Facts {
        Facts::beside(graph, [])
    }

    /// The same, where the axes of some values are known from elsewhere, as those of weights that nodes unpack.
    pub fn beside(graph: &GraphProto, others: impl IntoIterator<Item = (String, Dims)>) -> Facts {
        let types = element_types(graph);
        let shapes = Shapes::of(graph, &types, others);
        let known = shapes.extents.iter();
        let sizes = known.map(|(name, extents)| (name.clone(), known_sizes(extents))).collect();
        Facts { types, shapes, sizes }
    }

    /// All element types that are known.
    pub fn types(&self) -> &ElementTypes {
        &self.types
    }

    /// All axes that are known.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The element type of a value.
    pub fn data_type(&self, name: &str) -> Option<DataType> {
        self.types.get(name).copied()
    }

    /// The sizes of the axes of a value, if their number is known.
    pub fn dims(&self, name: &str) -> Option<&[Option<usize>]> {
        self.sizes.get(name).map(Vec::as_slice)
    }

    /// The same, with the symbols of sizes that are not known: each has one.
    pub fn extents(&self, name: &str) -> Option<&[Extent]> {
        self.shapes.extents.get(name).map(Vec::as_slice)
    }

    /// The elements of a value of integers that has one axis or none and holds sizes or a few constants.
    pub fn elements(&self, name: &str) -> Option<&[Element]> {
        self.shapes.elements.get(name).map(Vec::as_slice)
    }

    /// The number of axes of a value.
    pub fn rank(&self, name: &str) -> Option<usize> {
        self.dims(name).map(<[_]>::len)
    }
}

impl Known for Facts {
    fn extents(&self, name: &str) -> Option<Extents> {
        self.extents(name).map(<[_]>::to_vec)
    }

    fn elements(&self, name: &str) -> Option<Vec<Element>> {
        self.elements(name).map(<[_]>::to_vec)
    }
}
