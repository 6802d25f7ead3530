//! `LinearClassifier`: `MatMul`, `Add`, a transform, and an `ArgMax` for the label.
//!
//! As ONNX Runtime does it:
//! - the label comes from the scores before the transform, the first of equal scores wins;
//! - one row of coefficients is a binary model: the label is the second class where the score is
//!   above zero, the probabilities are `[1 - p, p]`, and of the transforms only LOGISTIC applies;
//! - without class labels, one row gives the labels 0 and 1 and the bare scores `[N, 1]`, which
//!   LOGISTIC does not change.
//!
//! A binary model whose two rows are mirrored, as scikit-learn's converter writes them, keeps one: minus
//! its score, and its score, are the two, to the bit.

use super::emit::{Emit, Why};
use crate::MODEL_DOMAIN_ML;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

/// From so many features on a column of bytes takes more than the operators that do without it.
const LEAST_FEATURES: usize = 10;

/// A logistic regression of two classes, 0 and 1, as scikit-learn's converter writes it: with the scores of both.
pub fn logistic_classifier(
    [input, label, probabilities]: [&str; 3],
    coefficients: &[f32],
    intercept: f32,
) -> NodeProto {
    let both = |values: &[f32]| -> Vec<f32> {
        values.iter().map(|v| -v).chain(values.iter().copied()).collect()
    };
    let node = NodeProto::new("LinearClassifier", &[input], &[label, probabilities])
        .with(AttributeProto::of_ints("classlabels_ints", &[0, 1]))
        .with(AttributeProto::of_floats("coefficients", &both(coefficients)))
        .with(AttributeProto::of_floats("intercepts", &both(&[intercept])))
        .with(AttributeProto::of_int("multi_class", 0))
        .with(AttributeProto::of_string("post_transform", "LOGISTIC"));
    NodeProto { domain: Some(MODEL_DOMAIN_ML.to_string()), ..node }
}

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let input = emit.input(node)?;
    let intercepts = node.floats("intercepts");
    let classes = intercepts.len();
    if classes == 0 {
        return Err("it has no intercepts, which say how many classes there are".into());
    }
    let labels = Labels::of(node);
    let transform = node.string("post_transform", "NONE");
    if classes == 1 {
        return lower_one_row(node, emit, input, &labels, &transform);
    }
    if labels.len() != classes {
        return Err(format!("it has {} labels for {classes} classes", labels.len()));
    }
    let transform = standard_transform(&transform)?;
    let coefficients = node.floats("coefficients");
    let scores = match second_of_mirrored(coefficients, intercepts) {
        Some((row, intercept)) => emit.mirrored(input, row, intercept)?,
        None => emit.linear(input, coefficients, intercepts, classes)?,
    };
    let argmax = vec![AttributeProto::of_int("axis", 1), AttributeProto::of_int("keepdims", 0)];
    let best = emit.op_with("ArgMax", &[&scores], "best", argmax);
    let probabilities = match transform {
        Some(op) => emit.op(op, &[&scores], "p"),
        None => scores,
    };
    emit.finish(&probabilities, node.output.get(1));
    let label = labels.at(&best, emit);
    emit.finish(&label, node.output.first());
    Ok(())
}

/// The second of two rows of coefficients, and its intercept, where the first is minus the second and one
/// column takes fewer bytes than two, whatever they become.
fn second_of_mirrored<'a>(coefficients: &'a [f32], intercepts: &[f32]) -> Option<(&'a [f32], f32)> {
    let &[first_intercept, intercept] = intercepts else { return None };
    let (first, second) = coefficients.split_at(coefficients.len() / 2);
    let mirrored = first.len() == second.len()
        && first_intercept == -intercept
        && first.iter().zip(second).all(|(&a, &b)| a == -b);
    (mirrored && second.len() >= LEAST_FEATURES).then_some((second, intercept))
}

fn lower_one_row(
    node: &NodeProto,
    emit: &mut Emit,
    input: &str,
    labels: &Labels,
    transform: &str,
) -> Result<(), Why> {
    if !matches!(labels.len(), 0 | 2) {
        return Err(format!("it has one row of coefficients and {} labels", labels.len()));
    }
    if transform == "PROBIT" {
        standard_transform(transform)?;
    }
    let scores = emit.linear(input, node.floats("coefficients"), node.floats("intercepts"), 1)?;
    let zero = emit.floats("zero", &[], &[0.0]);
    let positive = emit.op("Greater", &[&scores, &zero], "positive");
    let positive = emit.cast(&positive, DataType::Int64);
    let flat = emit.ints("flat", &[-1]);
    let best = emit.op("Reshape", &[&positive, &flat], "best");
    if labels.len() == 0 {
        emit.finish(&scores, node.output.get(1));
        emit.finish(&best, node.output.first());
        return Ok(());
    }
    let p = match transform {
        "LOGISTIC" => emit.op("Sigmoid", &[&scores], "p"),
        _ => scores,
    };
    let one = emit.floats("one", &[], &[1.0]);
    let other = emit.op("Sub", &[&one, &p], "q");
    let axis = vec![AttributeProto::of_int("axis", 1)];
    let both = emit.op_with("Concat", &[&other, &p], "both", axis);
    emit.finish(&both, node.output.get(1));
    let label = labels.at(&best, emit);
    emit.finish(&label, node.output.first());
    Ok(())
}

/// The operator that does a `post_transform` over several scores.
pub(super) fn standard_transform(name: &str) -> Result<Option<&'static str>, Why> {
    match name {
        "NONE" => Ok(None),
        "LOGISTIC" => Ok(Some("Sigmoid")),
        "SOFTMAX" => Ok(Some("Softmax")),
        other => Err(format!(
            "its post_transform {other} has no standard operator; export the model with NONE, \
             LOGISTIC or SOFTMAX"
        )),
    }
}

/// The names of the classes.
enum Labels {
    Ints(Vec<i64>),
    Strings(Vec<String>),
}

impl Labels {
    fn of(node: &NodeProto) -> Labels {
        let strings = node.strings("classlabels_strings");
        match strings.is_empty() {
            true => Labels::Ints(node.ints("classlabels_ints").to_vec()),
            false => Labels::Strings(strings),
        }
    }

    fn len(&self) -> usize {
        match self {
            Labels::Ints(labels) => labels.len(),
            Labels::Strings(labels) => labels.len(),
        }
    }

    /// The labels of class numbers. Where they are the numbers themselves, nothing is added.
    fn at(&self, numbers: &str, emit: &mut Emit) -> String {
        let table = match self {
            Labels::Ints(labels) if labels.iter().copied().eq(0..labels.len() as i64) => {
                return numbers.to_string();
            }
            Labels::Ints(labels) => emit.ints("classes", labels),
            Labels::Strings(labels) => {
                emit.add(TensorProto::from_strings("classes", &[labels.len()], labels))
            }
        };
        emit.gather(&table, numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{lowered_ops, ml, model, why_kept};
    use super::super::lower_ml;
    use super::*;
    use crate::proto::ValueInfoProto;

    fn classifier(rows: usize) -> NodeProto {
        let coefficients: Vec<f32> = (0..2 * rows).map(|v| v as f32).collect();
        ml("LinearClassifier", &["x"], &["label", "probabilities"])
            .with(AttributeProto::of_floats("coefficients", &coefficients))
            .with(AttributeProto::of_floats("intercepts", &vec![0.5; rows]))
    }

    #[test]
    fn two_rows_become_a_matmul_with_a_transposed_weight() {
        let node = classifier(2)
            .with(AttributeProto::of_ints("classlabels_ints", &[0, 1]))
            .with(AttributeProto::of_string("post_transform", "LOGISTIC"));
        let (model, ops) = lowered_ops(node, 17, DataType::Float);
        assert_eq!(ops, ["MatMul", "Add", "ArgMax", "Sigmoid"]);
        let weight = model.graph().find_initializer("coef").unwrap();
        assert_eq!(weight.dims, [2, 2]);
        assert_eq!(weight.floats().unwrap(), [0.0, 2.0, 1.0, 3.0]);
        assert_eq!(model.graph().node[2].output, ["label"]);
        assert_eq!(model.graph().node[3].output, ["probabilities"]);
    }

    #[test]
    fn one_of_two_mirrored_rows_is_kept() {
        let classifier = |features: usize, intercepts: [f32; 2]| {
            let row: Vec<f32> = (0..features).map(|v| v as f32 - 3.0).collect();
            let rows: Vec<f32> = row.iter().map(|v| -v).chain(row.iter().copied()).collect();
            ml("LinearClassifier", &["x"], &["label", "probabilities"])
                .with(AttributeProto::of_floats("coefficients", &rows))
                .with(AttributeProto::of_floats("intercepts", &intercepts))
                .with(AttributeProto::of_ints("classlabels_ints", &[0, 1]))
                .with(AttributeProto::of_string("post_transform", "LOGISTIC"))
        };
        let lowered = |node| {
            let mut model = model(vec![node], 17);
            model.graph_mut().input[0] = ValueInfoProto::tensor("x", 1, &[None, None]);
            lower_ml(&mut model).unwrap();
            model
        };
        let one = lowered(classifier(20, [-0.5, 0.5]));
        let ops: Vec<&str> = one.graph().node.iter().map(|n| n.op_type()).collect();
        assert_eq!(ops, ["Gemm", "Neg", "Concat", "ArgMax", "Sigmoid"]);
        assert_eq!(one.graph().find_initializer("coef").unwrap().dims, [20, 1]);
        let two = lowered(classifier(20, [-0.5, 0.6]));
        assert_eq!(two.graph().find_initializer("coef").unwrap().dims, [20, 2]);
        assert!(one.to_bytes().len() + 60 < two.to_bytes().len());
        // Of few features the operators would take more than the column.
        let few = lowered(classifier(4, [-0.5, 0.5]));
        assert_eq!(few.graph().find_initializer("coef").unwrap().dims, [4, 2]);
    }

    #[test]
    fn names_of_classes_are_gathered_last() {
        let mut names = AttributeProto::of_string("classlabels_strings", "");
        names.s = None;
        names.strings = vec!["a".into(), "b".into(), "c".into()];
        let (model, ops) = lowered_ops(classifier(3).with(names), 17, DataType::Double);
        assert_eq!(ops, ["Cast", "MatMul", "Add", "ArgMax", "Gather"]);
        assert_eq!(model.graph().node[2].output, ["probabilities"]);
        assert_eq!(model.graph().node[4].output, ["label"]);
    }

    #[test]
    fn one_row_compares_with_zero() {
        let node = classifier(1)
            .with(AttributeProto::of_ints("classlabels_ints", &[3, 7]))
            .with(AttributeProto::of_string("post_transform", "LOGISTIC"));
        let (_, ops) = lowered_ops(node, 17, DataType::Float);
        assert_eq!(
            ops,
            ["MatMul", "Add", "Greater", "Cast", "Reshape", "Sigmoid", "Sub", "Concat", "Gather"]
        );
    }

    #[test]
    fn what_has_no_standard_form_is_named() {
        let probit = classifier(2)
            .with(AttributeProto::of_ints("classlabels_ints", &[0, 1]))
            .with(AttributeProto::of_string("post_transform", "PROBIT"));
        assert!(why_kept(probit, 17, DataType::Float).contains("PROBIT"));
        assert!(why_kept(classifier(2), 17, DataType::Float).contains("0 labels"));
    }
}
