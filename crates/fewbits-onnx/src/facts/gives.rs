//! How the element type of a result follows from a node.

use crate::proto::DataType;

/// The element type of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// That of an input.
    Input(usize),
    /// Always this one.
    Is(DataType),
    /// What an attribute says, which must be there.
    Says(&'static str),
    /// What an attribute says, or this one where it is not there.
    SaysOr(&'static str, DataType),
    /// What an attribute says, or that of an input.
    SaysOrInput(&'static str, usize),
    /// That of the tensor in an attribute, or this one.
    TensorOr(&'static str, DataType),
    /// That of a `Constant`.
    Constant,
    /// That of the zero point: `QuantizeLinear`.
    ZeroPoint,
    /// That of a classifier's labels.
    Label,
    /// That of the entries of a `LabelEncoder`.
    Entry,
    /// Not a tensor, or nothing that the operator alone decides.
    Unknown,
}
