//! What a model predicts, read from its outputs.

use fewbits_engine::{Tensor, Values};
use fewbits_onnx::proto::DataType;

/// The class of a row whose outputs are all NaN. It equals no label.
pub const NO_CLASS: i64 = i64::MIN;

/// What a model predicts, one element for each row (for each token, where the output has rank 3).
#[derive(Clone, Debug, PartialEq)]
pub enum Predictions {
    /// Class numbers: of a label output, or the position of the largest score.
    Class(Vec<i64>),
    /// Class names.
    Text(Vec<String>),
    /// The only score of a binary classifier, or the value of a regression.
    Score(Vec<f64>),
}

impl Predictions {
    /// The number of predictions.
    pub fn len(&self) -> usize {
        match self {
            Predictions::Class(v) => v.len(),
            Predictions::Text(v) => v.len(),
            Predictions::Score(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `class numbers`, `class names` or `numbers`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Predictions::Class(_) => "class numbers",
            Predictions::Text(_) => "class names",
            Predictions::Score(_) => "numbers",
        }
    }
}

/// What a model that gave `outputs` predicts: its label output if it has one (integers or
/// strings of shape `[N]` or `[N, 1]`); else the position of the largest score of the first float
/// output of shape `[N, C]` or `[N, T, C]`, C > 1; else the first float output of one column.
/// `None` if there is no such output.
pub fn predictions(outputs: &[Tensor]) -> Option<Predictions> {
    if let Some(label) = label_output(outputs) {
        return Some(match label.values() {
            Values::Str(v) => Predictions::Text(v.clone()),
            Values::I64(v) => Predictions::Class(v.clone()),
            Values::I32(v) => Predictions::Class(v.iter().map(|&x| i64::from(x)).collect()),
            Values::Bool(v) => Predictions::Class(v.iter().map(|&x| i64::from(x)).collect()),
            _ => return None,
        });
    }
    if let Some(scores) = score_output(outputs) {
        let classes = scores.shape().last().copied()?;
        return Some(Predictions::Class(match scores.values() {
            Values::F32(v) => v
                .chunks_exact(classes)
                .map(|row| largest(row.iter().map(|&x| f64::from(x))))
                .collect(),
            Values::F64(v) => {
                v.chunks_exact(classes).map(|row| largest(row.iter().copied())).collect()
            }
            _ => return None,
        }));
    }
    number_output(outputs).and_then(Tensor::to_f64).map(Predictions::Score)
}

/// Integers or strings, one for each row.
pub(super) fn label_output(outputs: &[Tensor]) -> Option<&Tensor> {
    outputs.iter().find(|output| {
        let label = matches!(
            output.data_type(),
            DataType::Int64 | DataType::Int32 | DataType::Bool | DataType::String
        );
        label && matches!(output.shape(), [_] | [_, 1])
    })
}

/// Scores, logits or probabilities of several classes, for each row or each token.
pub(crate) fn score_output(outputs: &[Tensor]) -> Option<&Tensor> {
    outputs.iter().find(|o| is_float(o) && matches!(o.shape(), [_, n] | [_, _, n] if *n > 1))
}

/// One float for each row.
pub(super) fn number_output(outputs: &[Tensor]) -> Option<&Tensor> {
    outputs.iter().find(|o| is_float(o) && matches!(o.shape(), [_] | [_, 1]))
}

pub(super) fn is_float(output: &Tensor) -> bool {
    matches!(output.data_type(), DataType::Float | DataType::Double)
}

/// The position of the largest number, the first of equals; NaN is never the largest.
fn largest(row: impl Iterator<Item = f64>) -> i64 {
    let mut best = (NO_CLASS, f64::NEG_INFINITY);
    for (i, x) in row.enumerate() {
        if x > best.1 || (best.0 == NO_CLASS && !x.is_nan()) {
            best = (i as i64, x);
        }
    }
    best.0
}

/// The types and shapes of outputs, for messages.
pub(super) fn described(outputs: &[Tensor]) -> String {
    let each = outputs.iter().map(|o| format!("{:?} {:?}", o.data_type(), o.shape()));
    each.collect::<Vec<_>>().join(", ")
}
