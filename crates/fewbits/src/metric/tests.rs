//! The expected numbers are scikit-learn 1.9.1's for the same arrays, each by the function that its
//! test names.

use std::mem::discriminant;

use fewbits_engine::{Tensor, Values};

use super::*;

/// Labels and predictions of three classes.
const THREE: [i64; 8] = [0, 2, 1, 1, 0, 2, 2, 1];
const THREE_PREDICTED: [i64; 8] = [0, 1, 1, 1, 2, 2, 2, 0];
/// The scores of three classes; their largest are 0 2 1 1 2 2 2 0.
const THREE_SCORES: [f32; 24] = [
    0.6, 0.3, 0.1, 0.2, 0.3, 0.5, 0.1, 0.8, 0.1, 0.3, 0.4, 0.3, 0.3, 0.2, 0.5, 0.1, 0.3, 0.6, 0.2,
    0.2, 0.6, 0.5, 0.3, 0.2,
];
/// Labels, predictions and scores (with ties) of two classes.
const TWO: [i64; 8] = [0, 1, 1, 0, 1, 0, 1, 1];
const TWO_PREDICTED: [i64; 8] = [0, 1, 0, 0, 1, 1, 1, 0];
const TWO_SCORES: [f32; 8] = [0.1, 0.9, 0.4, 0.4, 0.7, 0.7, 0.95, 0.3];

fn tensor(shape: &[usize], values: impl Into<Values>) -> Tensor {
    Tensor::new(shape.to_vec(), values).unwrap()
}

fn column(values: &[f32]) -> Tensor {
    tensor(&[values.len()], values.to_vec())
}

fn classes(values: &[i64]) -> Labels {
    LabelValues::Class(values.to_vec()).into()
}

fn numbers(values: &[f64]) -> Labels {
    LabelValues::Number(values.to_vec()).into()
}

fn words(values: &[&str]) -> Vec<String> {
    values.iter().map(|s| s.to_string()).collect()
}

fn names(values: &[&str]) -> Labels {
    LabelValues::Text(words(values)).into()
}

fn in_batches(
    metric: Metric,
    outputs: &[Tensor],
    labels: &Labels,
    size: usize,
) -> Result<f64, MetricError> {
    let mut accumulator = Accumulator::new(metric)?;
    for start in (0..labels.rows()).step_by(size) {
        let rows = start..start + size;
        let batch: Vec<Tensor> = outputs.iter().map(|o| o.slice_rows(rows.clone())).collect();
        accumulator.push(&batch, &labels.slice_rows(rows))?;
    }
    accumulator.finish()
}

/// The metric over all rows, which no way of cutting them into batches may change.
fn measure(metric: Metric, outputs: &[Tensor], labels: &Labels) -> Result<f64, MetricError> {
    let at_once = in_batches(metric, outputs, labels, labels.rows().max(1));
    for size in [1, 2, 3] {
        match (&at_once, in_batches(metric, outputs, labels, size)) {
            (Ok(a), Ok(b)) => assert!((a - b).abs() < 1e-12, "{metric} by {size}: {a} and {b}"),
            // Messages may quote the shapes of a batch.
            (Err(a), Err(b)) => assert_eq!(discriminant(a), discriminant(&b), "{metric} by {size}"),
            (a, b) => panic!("{metric} by {size}: {a:?} and {b:?}"),
        }
    }
    at_once
}

#[track_caller]
fn check(metric: Metric, outputs: &[Tensor], labels: &Labels, expected: f64) {
    let measured = measure(metric, outputs, labels).unwrap();
    assert!((measured - expected).abs() < 1e-9, "{metric}: {measured}, not {expected}");
}

#[track_caller]
fn refused(metric: Metric, outputs: &[Tensor], labels: &Labels, says: &str) {
    let error = measure(metric, outputs, labels).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn accuracy_is_that_of_a_label_output() {
    // accuracy_score(THREE, THREE_PREDICTED)
    let predicted = THREE_PREDICTED.to_vec();
    let narrow: Vec<i32> = THREE_PREDICTED.iter().map(|&x| x as i32).collect();
    check(Metric::Accuracy, &[tensor(&[8], predicted.clone())], &classes(&THREE), 0.625);
    check(Metric::Accuracy, &[tensor(&[8, 1], narrow)], &classes(&THREE), 0.625);
    // A label output is believed before the scores beside it, as scikit-learn's `predict` is.
    let both = [tensor(&[8, 3], THREE_SCORES.to_vec()), tensor(&[8], predicted)];
    check(Metric::Accuracy, &both, &classes(&THREE), 0.625);
    let yes: Vec<bool> = TWO_PREDICTED.iter().map(|&x| x == 1).collect();
    check(Metric::Accuracy, &[tensor(&[8], yes)], &classes(&TWO), 0.625);
    // Labels that a CSV file wrote as 0.0 and 1.0.
    let floats: Vec<f64> = TWO.iter().map(|&x| x as f64).collect();
    check(Metric::Accuracy, &[tensor(&[8], TWO_PREDICTED.to_vec())], &numbers(&floats), 0.625);
}

#[test]
fn accuracy_is_that_of_the_largest_score() {
    // accuracy_score(THREE, THREE_SCORES.argmax(1)), of probabilities and of logits
    let doubles: Vec<f64> = THREE_SCORES.iter().map(|&x| f64::from(x)).collect();
    let logits: Vec<f32> = THREE_SCORES.iter().map(|x| x.ln() * 10.0).collect();
    check(Metric::Accuracy, &[tensor(&[8, 3], THREE_SCORES.to_vec())], &classes(&THREE), 0.75);
    check(Metric::Accuracy, &[tensor(&[8, 3], doubles)], &classes(&THREE), 0.75);
    check(Metric::Accuracy, &[tensor(&[8, 3], logits)], &classes(&THREE), 0.75);
    // Of equal scores the first counts, as NumPy's argmax has it.
    check(Metric::Accuracy, &[tensor(&[2, 2], vec![0.5f32; 4])], &classes(&[0, 1]), 0.5);
}

#[test]
fn a_row_of_nan_scores_is_wrong_and_one_nan_is_passed_over() {
    let scores = vec![f32::NAN, f32::NAN, f32::NAN, 0.2, f32::NEG_INFINITY, f32::NEG_INFINITY];
    check(Metric::Accuracy, &[tensor(&[3, 2], scores)], &classes(&[0, 1, 0]), 2.0 / 3.0);
    check(Metric::Accuracy, &[column(&[f32::NAN, 0.9])], &classes(&[0, 1]), 0.5);
}

#[test]
fn accuracy_of_single_scores_finds_the_threshold() {
    // accuracy_score(TWO, TWO_SCORES > 0.5)
    check(Metric::Accuracy, &[column(&TWO_SCORES)], &classes(&TWO), 0.625);
    check(Metric::Accuracy, &[tensor(&[8, 1], TWO_SCORES.to_vec())], &classes(&TWO), 0.625);
    // accuracy_score(TWO, logits > 0): above 0.5 it would be 0.625. Batches of only positive
    // logits must not be taken for probabilities.
    let logits = [-2.0, 0.3, -0.1, 0.4, 1.5, -0.2, 2.0, 0.2];
    check(Metric::Accuracy, &[column(&logits)], &classes(&TWO), 0.75);
    let signs: Vec<i64> = TWO.iter().map(|&x| 2 * x - 1).collect();
    check(Metric::Accuracy, &[column(&logits)], &classes(&signs), 0.75);
    let cats = TWO.map(|x| if x == 0 { "cat" } else { "dog" });
    check(Metric::Accuracy, &[column(&logits)], &names(&cats), 0.75);
    // Rows of one class alone.
    check(Metric::Accuracy, &[column(&[0.2, 0.9])], &classes(&[1, 1]), 0.5);
    check(Metric::Accuracy, &[column(&[0.2, 0.9])], &classes(&[0, 0]), 0.5);
    check(Metric::Accuracy, &[column(&[-2.0, 3.0])], &classes(&[-1, -1]), 0.5);
}

#[test]
fn text_labels_are_compared_as_text_and_as_the_numbers_they_spell() {
    // accuracy_score(list("bacab"), list("bacca")) and f1_score of the same, average="macro"
    let (labels, predicted) = (["b", "a", "c", "a", "b"], ["b", "a", "c", "c", "a"]);
    let output = [tensor(&[5], words(&predicted))];
    check(Metric::Accuracy, &output, &names(&labels), 0.6);
    check(Metric::F1, &output, &names(&labels), 0.611_111_111_111_111);
    let spelled: Vec<String> = THREE.iter().map(i64::to_string).collect();
    let labels = LabelValues::Text(spelled.clone()).into();
    check(Metric::Accuracy, &[tensor(&[8], THREE_PREDICTED.to_vec())], &labels, 0.625);
    check(Metric::Accuracy, &[tensor(&[8], spelled)], &classes(&THREE_PREDICTED), 0.625);
}

#[test]
fn classes_without_a_common_name_are_refused_rather_than_all_wrong() {
    let scores = [tensor(&[2, 2], vec![0.1f32, 0.9, 0.8, 0.2])];
    refused(Metric::Accuracy, &scores, &names(&["cat", "dog"]), "labels that are class numbers");
    let text = [tensor(&[2], words(&["cat", "dog"]))];
    refused(Metric::F1, &text, &classes(&[0, 1]), "labels that are class names");
    let single = [column(&[0.1, 0.9, 0.4])];
    refused(Metric::Accuracy, &single, &classes(&[0, 1, 2]), "labels of two classes");
}

#[test]
fn f1_is_binary_of_two_classes_and_macro_of_more() {
    // f1_score(TWO, TWO_PREDICTED); f1_score(…, average="macro") of the others
    check(Metric::F1, &[tensor(&[8], TWO_PREDICTED.to_vec())], &classes(&TWO), 2.0 / 3.0);
    check(Metric::F1, &[column(&TWO_SCORES)], &classes(&TWO), 2.0 / 3.0);
    let three = [tensor(&[8], THREE_PREDICTED.to_vec())];
    check(Metric::F1, &three, &classes(&THREE), 0.611_111_111_111_111);
    let scores = [tensor(&[8, 3], THREE_SCORES.to_vec())];
    check(Metric::F1, &scores, &classes(&THREE), 0.719_047_619_047_619);
    // f1_score(list("abab"), list("abbb"), pos_label="b")
    let text = [tensor(&[4], words(&["a", "b", "b", "b"]))];
    check(Metric::F1, &text, &names(&["a", "b", "a", "b"]), 0.8);
}

#[test]
fn auc_counts_ties_half() {
    // roc_auc_score(TWO, TWO_SCORES)
    let expected = 0.733_333_333_333_333_3;
    check(Metric::Auc, &[column(&TWO_SCORES)], &classes(&TWO), expected);
    let pairs: Vec<f32> = TWO_SCORES.iter().flat_map(|&s| [1.0 - s, s]).collect();
    let label_and_scores = [tensor(&[8], TWO_PREDICTED.to_vec()), tensor(&[8, 2], pairs)];
    check(Metric::Auc, &label_and_scores, &classes(&TWO), expected);
    let text = TWO.map(|x| if x == 0 { "no" } else { "yes" });
    check(Metric::Auc, &[column(&TWO_SCORES)], &names(&text), expected);
    check(Metric::Auc, &[column(&[0.0, -0.0])], &classes(&[0, 1]), 0.5);
    check(Metric::Auc, &[column(&[0.5; 4])], &classes(&[0, 1, 0, 1]), 0.5);
}

#[test]
fn auc_keeps_the_order_of_doubles() {
    let close = tensor(&[2], vec![0.5f64, 0.5 + 1e-12]);
    check(Metric::Auc, &[close], &classes(&[0, 1]), 1.0);
}

#[test]
fn auc_of_several_classes_is_the_mean_of_one_against_the_rest() {
    // roc_auc_score(THREE, THREE_SCORES, multi_class="ovr", average="macro")
    let (scores, expected) = ([tensor(&[8, 3], THREE_SCORES.to_vec())], 0.913_888_888_888_888_9);
    check(Metric::Auc, &scores, &classes(&THREE), expected);
    // Classes that are not numbered from 0 stand for the columns in their order.
    check(Metric::Auc, &scores, &classes(&THREE.map(|x| x + 1)), expected);
    let text = THREE.map(|x| ["ant", "bee", "cow"][x as usize]);
    check(Metric::Auc, &scores, &names(&text), expected);
}

#[test]
fn auc_refuses_what_it_cannot_rank() {
    let scores = [tensor(&[8, 3], THREE_SCORES.to_vec())];
    refused(Metric::Auc, &[column(&TWO_SCORES)], &classes(&THREE), "labels of two classes");
    refused(Metric::Auc, &[column(&TWO_SCORES)], &classes(&[1; 8]), "at least two classes");
    refused(Metric::Auc, &scores, &classes(&TWO.map(|x| x * 7)), "class numbers below 3");
    refused(Metric::Auc, &[column(&[f32::NAN, 1.0])], &classes(&[0, 1]), "not finite");
    let labels_only = [tensor(&[8], TWO_PREDICTED.to_vec())];
    refused(Metric::Auc, &labels_only, &classes(&TWO), "needs float scores");
}

#[test]
fn regression_errors_are_those_of_scikit_learn() {
    // r2_score, mean_absolute_error and root_mean_squared_error of (labels, values)
    let labels = numbers(&[3.0, -0.5, 2.0, 7.0, 4.25]);
    let values = [2.5f32, 0.0, 2.0, 8.0, 4.0];
    for output in [column(&values), tensor(&[5, 1], values.to_vec())] {
        let output = [output];
        check(Metric::R2, &output, &labels, 0.949_104_234_527_687_3);
        check(Metric::Mae, &output, &labels, 0.45);
        check(Metric::Rmse, &output, &labels, 0.559_016_994_374_947_5);
    }
    check(Metric::Mae, &[column(&[1.5, 2.0])], &classes(&[1, 4]), 1.25);
}

#[test]
fn regression_errors_of_several_columns_are_averaged() {
    let labels = [0.5, 1.0, -1.0, 1.0, 7.0, -6.0, 2.0, 3.0];
    let labels = Labels::new(vec![4, 2], LabelValues::Number(labels.to_vec())).unwrap();
    let values = [0.0f32, 2.0, -1.0, 2.0, 8.0, -5.0, 2.5, 2.0];
    let output = [tensor(&[4, 2], values.to_vec())];
    check(Metric::R2, &output, &labels, 0.936_493_862_735_862_1);
    check(Metric::Mae, &output, &labels, 0.75);
    check(Metric::Rmse, &output, &labels, 0.806_186_217_847_897_2);
}

#[test]
fn r2_of_constant_labels_is_one_or_zero() {
    // r2_score([2, 2], [2, 2]) and r2_score([2, 2], [2, 3])
    check(Metric::R2, &[column(&[2.0, 2.0])], &numbers(&[2.0, 2.0]), 1.0);
    check(Metric::R2, &[column(&[2.0, 3.0])], &numbers(&[2.0, 2.0]), 0.0);
}

#[test]
fn r2_does_not_cancel_far_from_zero() {
    // r2_score([1e9 + 1, 1e9 + 2, 1e9 + 3], [1e9 + 1, 1e9 + 2, 1e9 + 4])
    let at = |x: f64| 1e9 + x;
    let output = [tensor(&[3], vec![at(1.0), at(2.0), at(4.0)])];
    check(Metric::R2, &output, &numbers(&[at(1.0), at(2.0), at(3.0)]), 0.5);
}

#[test]
fn perplexity_is_the_exponential_of_the_log_loss() {
    // exp(log_loss([0, 1, 2, 1], softmax(logits, axis=1), labels=[0, 1, 2]))
    let logits = vec![2.0f32, 1.0, 0.1, 0.5, 2.5, -1.0, 1.0, 1.0, 1.0, -2.0, 0.0, 3.0];
    let expected = 3.257_472_007_916_169;
    let tolerant = |outputs: &[Tensor], labels: &Labels| {
        let measured = measure(Metric::Perplexity, outputs, labels).unwrap();
        // 0.1 is not exact in float32.
        assert!((measured - expected).abs() < 1e-7, "{measured}");
    };
    tolerant(&[tensor(&[4, 3], logits.clone())], &classes(&[0, 1, 2, 1]));
    let tokens = Labels::new(vec![2, 2], LabelValues::Class(vec![0, 1, 2, 1])).unwrap();
    tolerant(&[tensor(&[2, 2, 3], logits.clone())], &tokens);
    // A negative id is padding.
    let padded = [logits.clone(), vec![9.0, -9.0, 0.0]].concat();
    tolerant(&[tensor(&[5, 3], padded)], &classes(&[0, 1, 2, 1, -100]));
    let doubles: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    tolerant(&[tensor(&[4, 3], doubles)], &classes(&[0, 1, 2, 1]));
}

#[test]
fn perplexity_is_stable_for_huge_logits() {
    let huge = [tensor(&[2, 2], vec![1e4f32, 1e4, -1e4, -1e4])];
    check(Metric::Perplexity, &huge, &classes(&[0, 1]), 2.0);
    let sure = [tensor(&[1, 2], vec![1e4f32, -1e4])];
    check(Metric::Perplexity, &sure, &classes(&[0]), 1.0);
    // Wrong with all certainty: e^20000 is past any float.
    refused(Metric::Perplexity, &sure, &classes(&[1]), "not finite");
}

#[test]
fn perplexity_refuses_ids_past_the_vocabulary_and_other_labels() {
    let logits = [tensor(&[2, 2], vec![0.0f32; 4])];
    refused(Metric::Perplexity, &logits, &classes(&[0, 2]), "not 2");
    refused(Metric::Perplexity, &logits, &numbers(&[0.0, 1.0]), "integer token ids");
    refused(Metric::Perplexity, &logits, &classes(&[-1, -1]), "of no rows");
    refused(Metric::Perplexity, &[column(&[0.0; 2])], &classes(&[0, 1]), "needs float logits");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let output = [column(&[1.0, 2.0])];
    for (metric, _) in NAMES.iter().filter(|(m, _)| *m != Metric::Agreement) {
        let none = Accumulator::new(*metric).unwrap().finish();
        assert_eq!(none, Err(MetricError::NoRows { metric: *metric }));
        let scores = [tensor(&[2, 2], vec![1.0f32; 4])];
        let mut accumulator = Accumulator::new(*metric).unwrap();
        let lengths = accumulator.push(&scores, &classes(&[0, 1, 1])).unwrap_err();
        assert!(matches!(lengths, MetricError::Length { .. }), "{metric}: {lengths}");
        let nothing = accumulator.push(&[], &classes(&[0, 1])).unwrap_err();
        assert!(matches!(nothing, MetricError::Outputs { .. }), "{metric}: {nothing}");
    }
    for metric in [Metric::R2, Metric::Mae, Metric::Rmse] {
        refused(metric, &output, &names(&["a", "b"]), "numbers as labels");
        refused(metric, &[column(&[f32::NAN, 1.0])], &numbers(&[0.5, 1.0]), "not finite");
        refused(metric, &[column(&[f32::INFINITY, 1.0])], &numbers(&[0.5, 1.0]), "not finite");
    }
    assert_eq!(Accumulator::new(Metric::Agreement).unwrap_err(), MetricError::TwoModels);
}

fn agreement(a: &[Tensor], b: &[Tensor]) -> Result<f64, MetricError> {
    let of_batches = |size: usize| {
        let mut agreement = Agreement::default();
        for start in (0..a[0].rows()).step_by(size) {
            let cut = |all: &[Tensor]| -> Vec<Tensor> {
                all.iter().map(|o| o.slice_rows(start..start + size)).collect()
            };
            agreement.push(&cut(a), &cut(b))?;
        }
        agreement.finish()
    };
    let at_once = of_batches(a[0].rows().max(1));
    assert_eq!(at_once, of_batches(1));
    at_once
}

#[test]
fn agreement_is_the_fraction_of_equal_predictions() {
    let (a, b) = ([tensor(&[8], THREE.to_vec())], [tensor(&[8], THREE_PREDICTED.to_vec())]);
    assert_eq!(agreement(&a, &b), Ok(0.625));
    // One model with a label output, the other with scores alone: both predict class numbers.
    let scores = [tensor(&[8, 3], THREE_SCORES.to_vec())];
    assert_eq!(agreement(&a, &scores), Ok(0.75));
    let text = |values: &[&str]| [tensor(&[values.len()], words(values))];
    assert_eq!(agreement(&text(&["a", "b"]), &text(&["a", "c"])), Ok(0.5));
    // Probabilities agree on one side of a half.
    assert_eq!(agreement(&[column(&[0.1, 0.6])], &[column(&[0.49, 0.4])]), Ok(0.5));
}

#[test]
fn quantities_agree_within_a_hundredth_of_their_range() {
    let first = [0.0f32, 50.0, 100.0, 10.0];
    let second = [0.9f32, 51.1, 99.1, 10.0];
    assert_eq!(agreement(&[column(&first)], &[column(&second)]), Ok(0.75));
    // The unit and the offset do not matter.
    let moved = |v: [f32; 4]| [column(&v.map(|x| x * 1000.0 - 5e4))];
    assert_eq!(agreement(&moved(first), &moved(second)), Ok(0.75));
    let unsure = [column(&[f32::NAN, f32::INFINITY, 5.0])];
    assert_eq!(agreement(&unsure, &unsure), Ok(2.0 / 3.0));
}

#[test]
fn agreement_refuses_other_kinds_and_lengths() {
    let (class, text) = ([tensor(&[1], vec![0i64])], [tensor(&[1], words(&["a"]))]);
    let kinds = agreement(&class, &text).unwrap_err();
    assert_eq!(kinds, MetricError::Kinds { a: "class numbers", b: "class names" });
    let longer = [tensor(&[2], vec![0i64, 1])];
    let length = Agreement::default().push(&class, &longer).unwrap_err();
    assert_eq!(length, MetricError::Length { predictions: 2, labels: 1 });
    let none = Agreement::default().finish();
    assert_eq!(none, Err(MetricError::NoRows { metric: Metric::Agreement }));
    let nothing = Agreement::default().push(&[], &class).unwrap_err();
    assert!(matches!(nothing, MetricError::Outputs { .. }));
}

#[test]
fn the_default_follows_the_labels_and_the_outputs() {
    let label = || tensor(&[3], vec![0i64, 1, 2]);
    let one_float = || column(&[0.0; 3]);
    let scores = || tensor(&[3, 3], vec![0.0f32; 9]);
    let tokens = Labels::new(vec![3, 2], LabelValues::Class(vec![0; 6])).unwrap();
    let logits = tensor(&[3, 2, 5], vec![0.0f32; 30]);
    let columns = Labels::new(vec![3, 3], LabelValues::Number(vec![1.0; 9])).unwrap();
    let cases = [
        (names(&["a", "b", "a"]), vec![one_float()], Metric::Accuracy),
        (classes(&[0, 1, 2]), vec![scores()], Metric::Accuracy),
        (classes(&[0, 1, 2]), vec![label()], Metric::Accuracy),
        (classes(&[0, 1, 1]), vec![one_float()], Metric::Accuracy),
        (classes(&[10, 25, 31]), vec![one_float()], Metric::R2),
        (tokens, vec![logits], Metric::Perplexity),
        (numbers(&[0.0, 1.0, 2.0]), vec![label(), scores()], Metric::Accuracy),
        (numbers(&[0.0, 1.0, 2.0]), vec![scores()], Metric::Accuracy),
        (numbers(&[0.0, 1.0, 2.0]), vec![one_float()], Metric::R2),
        (numbers(&[0.5, 1.0, 2.0]), vec![one_float()], Metric::R2),
        (columns, vec![scores()], Metric::R2),
    ];
    for (labels, outputs, expected) in cases {
        assert_eq!(Metric::default_for(&labels, &outputs), expected, "{labels:?}, {outputs:?}");
    }
}

#[test]
fn a_drop_is_positive_where_it_got_worse() {
    for (metric, name) in NAMES {
        let lower = matches!(metric, Metric::Mae | Metric::Rmse | Metric::Perplexity);
        assert_eq!(metric.higher_is_better(), !lower, "{name}");
        let (before, after) = if lower { (1.0, 1.5) } else { (1.5, 1.0) };
        assert_eq!(metric.drop(before, after), 0.5, "{name}");
        assert_eq!(metric.drop(after, before), -0.5, "{name}");
        assert_eq!(name.parse::<Metric>(), Ok(metric));
        assert_eq!(name.to_uppercase().parse::<Metric>(), Ok(metric));
        assert_eq!(metric.to_string(), name);
        assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{name}\""));
    }
    let error = "f2".parse::<Metric>().unwrap_err().to_string();
    assert!(error.contains("'f2'") && error.contains("accuracy, f1"), "{error}");
}
