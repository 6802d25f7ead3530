//! What activations are to become.

use crate::layers::{Axes, Constant};

/// What activations are to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationUse {
    /// They stay float.
    Float,
    /// Integers with a scale measured at every call.
    Dynamic,
    /// Integers with a scale that is fixed beforehand.
    Static,
}

impl ActivationUse {
    /// Tells the axes that the scales of a weight follow beside such activations; none where the constant is no
    /// weight.
    pub fn axes_of(self, constant: &Constant) -> Option<Axes> {
        match self {
            ActivationUse::Float => constant.axes(),
            ActivationUse::Dynamic | ActivationUse::Static => constant.axes_on_integers(),
        }
    }
}
