//! The axes of weights, and where operators that work along axes have them.

/// The axes along which a weight lies; negative ones count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Along {
    /// None where every axis is summed over or shared with another value.
    pub(super) channel: Option<isize>,
    pub(super) reduction: isize,
}

/// The axes of a weight that matter to its scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    /// The axis of output channels, each of which may have its own scale.
    pub channel: Option<usize>,
    /// The axis that the product sums over, along which groups are formed.
    pub reduction: Option<usize>,
}

impl Along {
    /// The axes of a weight of so many.
    pub fn axes(self, rank: usize) -> Axes {
        let on = |axis: isize| {
            let first = if axis < 0 { rank } else { 0 };
            first.checked_add_signed(axis).filter(|&axis| rank > 1 && axis < rank)
        };
        Axes { channel: self.channel.and_then(on), reduction: on(self.reduction) }
    }
}

/// Tells whether an operator has its axes as an input; otherwise they are an attribute.
pub(crate) fn has_axes_input(op: &str, opset: i64) -> bool {
    match op {
        "ReduceSum" => opset >= 13,
        op if op.starts_with("Reduce") => opset >= 18,
        _ => opset >= 13,
    }
}
