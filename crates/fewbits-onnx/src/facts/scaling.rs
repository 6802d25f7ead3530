//! What becomes of a positive factor for each channel of what an operator reads.

use crate::proto::NodeProto;

/// How an operator gives such a factor on, so that `f(s x) = s f(x)` for every channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// Element by element.
    Elements,
    /// Over windows of each channel of an image.
    Windows,
    /// Over all of each channel of an image.
    WholeChannels,
    /// Over the axes that it names.
    NamedAxes,
    /// Only the axes change: which is that of the channels may not be seen any more.
    Reshapes,
    /// As long as no element comes to lie beyond a bound.
    WithinBounds,
    /// Where what is added has the factor, too.
    Sum,
}

const SCALINGS: [(&str, Scaling); 11] = [
    ("Relu", Scaling::Elements),
    ("LeakyRelu", Scaling::Elements),
    ("MaxPool", Scaling::Windows),
    ("AveragePool", Scaling::Windows),
    ("GlobalAveragePool", Scaling::WholeChannels),
    ("GlobalMaxPool", Scaling::WholeChannels),
    ("ReduceMean", Scaling::NamedAxes),
    ("Flatten", Scaling::Reshapes),
    ("Squeeze", Scaling::Reshapes),
    ("Clip", Scaling::WithinBounds),
    ("Add", Scaling::Sum),
];

impl Scaling {
    /// That of a node; none if it gives no factor on.
    pub fn of(node: &NodeProto) -> Option<Scaling> {
        let op = node.op_type();
        SCALINGS.iter().find(|(known, _)| node.is_onnx() && *known == op).map(|&(_, how)| how)
    }
}
