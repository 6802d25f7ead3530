//! How operators between products compute on integers.

use crate::proto::NodeProto;

/// What an operator does with integers that it reads and gives instead of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerForm {
    /// It moves or selects them: what it gives has the scale of what it reads.
    Moves,
    /// It puts those of all inputs side by side, which must have one scale.
    Joins,
    /// It computes elements of all inputs with each other, each value with a scale of its own.
    Combines,
    /// It takes means of them, with a scale of their own.
    Averages,
    /// It cuts them off, as the saturation of a quantization does anyway.
    Saturates,
}

const FORMS: [(&str, IntegerForm); 13] = [
    ("MaxPool", IntegerForm::Moves),
    ("Reshape", IntegerForm::Moves),
    ("Flatten", IntegerForm::Moves),
    ("Transpose", IntegerForm::Moves),
    ("Squeeze", IntegerForm::Moves),
    ("Unsqueeze", IntegerForm::Moves),
    ("Concat", IntegerForm::Joins),
    ("Add", IntegerForm::Combines),
    ("Mul", IntegerForm::Combines),
    ("AveragePool", IntegerForm::Averages),
    ("GlobalAveragePool", IntegerForm::Averages),
    ("Relu", IntegerForm::Saturates),
    ("Clip", IntegerForm::Saturates),
];

impl IntegerForm {
    /// That of a node that is no product; none where it has to read and give floats.
    pub fn of(node: &NodeProto) -> Option<IntegerForm> {
        let op = node.op_type();
        FORMS.iter().find(|(known, _)| node.is_onnx() && *known == op).map(|&(_, form)| form)
    }

    /// Whether what it reads and what it gives have one scale.
    pub fn shares_scale(self) -> bool {
        matches!(self, IntegerForm::Moves | IntegerForm::Joins)
    }

    /// The inputs of such a node that hold values; further ones are shapes, axes and bounds.
    pub fn values(self, node: &NodeProto) -> &[String] {
        match self {
            IntegerForm::Joins | IntegerForm::Combines => &node.input,
            _ => &node.input[..node.input.len().min(1)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_from_shapes() {
        let of = |op: &str| {
            let node = NodeProto::new(op, &["x", "shape"], &["y"]);
            IntegerForm::of(&node).map(|form| form.values(&node).len())
        };
        assert_eq!(
            ["Reshape", "Concat", "Add", "Sigmoid"].map(of),
            [Some(1), Some(2), Some(2), None]
        );
        let empty = NodeProto::new("Clip", &[], &["y"]);
        assert!(IntegerForm::Saturates.values(&empty).is_empty());
    }
}
