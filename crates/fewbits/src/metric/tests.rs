//! Expected values are scikit-learn's and SciPy's on the same numbers.

use fewbits_runtime::Tensor;

use super::*;

fn classes(values: &[i64]) -> Labels {
    LabelValues::Class(values.to_vec()).into()
}

fn labels_of(shape: &[usize], values: LabelValues) -> Labels {
    Labels::new(shape.to_vec(), values).unwrap()
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape.to_vec(), values.to_vec()).unwrap()
}

fn doubles(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::new(shape.to_vec(), values.to_vec()).unwrap()
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::new(vec![values.len()], values.to_vec()).unwrap()
}

/// The metric of one output fed in two batches, split after `at` rows.
fn measured(
    metric: Metric,
    output: &Tensor,
    labels: &Labels,
    at: usize,
) -> Result<f64, MetricError> {
    let mut accumulator = Accumulator::new(metric)?;
    for range in [0..at, at..labels.rows()] {
        accumulator.push(&[output.slice_rows(range.clone())], &labels.slice_rows(range))?;
    }
    accumulator.finish()
}

fn close(found: Result<f64, MetricError>, expected: f64) {
    let found = found.unwrap();
    assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
}

const Y2: [i64; 8] = [0, 1, 1, 0, 1, 0, 1, 1];
const Y3: [i64; 8] = [0, 1, 2, 2, 1, 0, 2, 1];

#[test]
fn accuracy_and_f1() {
    let predicted = ints(&[0, 1, 0, 0, 1, 1, 1, 0]);
    // accuracy_score(y, p); f1_score(y, p)
    close(measured(Metric::Accuracy, &predicted, &classes(&Y2), 3), 0.625);
    close(measured(Metric::F1, &predicted, &classes(&Y2), 3), 2.0 / 3.0);
    // f1_score(y, p, average='macro')
    let predicted = ints(&[0, 2, 2, 1, 1, 0, 2, 0]);
    close(measured(Metric::F1, &predicted, &classes(&Y3), 5), 0.6222222222222222);
}

#[test]
fn auc_counts_ties_half() {
    // roc_auc_score(y, s)
    let scores = [0.1, 0.4, 0.4, 0.2, 0.8, 0.4, 0.9, 0.3];
    close(measured(Metric::Auc, &doubles(&[8, 1], &scores), &classes(&Y2), 4), 0.8666666666666667);
    let both: Vec<f64> = scores.iter().flat_map(|s| [1.0 - s, *s]).collect();
    close(measured(Metric::Auc, &doubles(&[8, 2], &both), &classes(&Y2), 4), 0.8666666666666667);
    // roc_auc_score(y, p, multi_class='ovr')
    let scores = [
        0.7, 0.2, 0.1, 0.2, 0.5, 0.3, 0.1, 0.3, 0.6, 0.4, 0.4, 0.2, 0.3, 0.3, 0.4, 0.5, 0.1, 0.4,
        0.2, 0.2, 0.6, 0.1, 0.8, 0.1,
    ];
    close(measured(Metric::Auc, &doubles(&[8, 3], &scores), &classes(&Y3), 2), 0.9);
    let one_class = measured(Metric::Auc, &doubles(&[2], &[0.1, 0.2]), &classes(&[1, 1]), 1);
    assert!(matches!(one_class, Err(MetricError::Labels { .. })));
}

#[test]
fn regression() {
    let labels: Labels = LabelValues::Number(vec![3.0, -0.5, 2.0, 7.0]).into();
    let output = floats(&[4, 1], &[2.5, 0.0, 2.0, 8.0]);
    // r2_score, mean_absolute_error, root_mean_squared_error
    close(measured(Metric::R2, &output, &labels, 1), 0.9486081370449679);
    close(measured(Metric::Mae, &output, &labels, 1), 0.5);
    close(measured(Metric::Rmse, &output, &labels, 1), 0.6123724356957945);
    // The same functions on two columns, which they average.
    let labels = labels_of(&[3, 2], LabelValues::Number(vec![0.5, 1.0, -1.0, 1.0, 7.0, -6.0]));
    let output = floats(&[3, 2], &[0.0, 2.0, -1.0, 2.0, 8.0, -5.0]);
    close(measured(Metric::R2, &output, &labels, 2), 0.9368005266622779);
    close(measured(Metric::Rmse, &output, &labels, 2), 0.8227486121839513);
    close(measured(Metric::Mae, &output, &labels, 2), 0.75);
    let constant: Labels = LabelValues::Number(vec![2.0, 2.0]).into();
    close(measured(Metric::R2, &floats(&[2], &[2.0, 2.0]), &constant, 1), 1.0);
    close(measured(Metric::R2, &floats(&[2], &[2.0, 3.0]), &constant, 1), 0.0);
    let broken = measured(Metric::R2, &floats(&[2], &[f32::NAN, 3.0]), &constant, 1);
    assert_eq!(broken, Err(MetricError::NotFinite { metric: Metric::R2 }));
}

#[test]
fn perplexity_is_stable_and_skips_padding() {
    // exp(mean(-log_softmax(logits)[label]))
    let logits = [1.0, 2.0, 3.0, 1000.0, 0.0, -1000.0, 0.5, 0.5, 0.5, -3.0, 4.0, 1.0];
    let labels = labels_of(&[2, 2], LabelValues::Class(vec![2, 0, 1, 2]));
    close(
        measured(Metric::Perplexity, &floats(&[2, 2, 3], &logits), &labels, 1),
        3.1233884860144934,
    );
    let padded = labels_of(&[1, 2], LabelValues::Class(vec![-100, 1]));
    close(
        measured(Metric::Perplexity, &floats(&[1, 2, 2], &[9.0, 1.0, 0.0, 0.0]), &padded, 1),
        2.0,
    );
    let past = labels_of(&[1, 2], LabelValues::Class(vec![0, 2]));
    let refused = measured(Metric::Perplexity, &floats(&[1, 2, 2], &[0.0; 4]), &past, 1);
    assert!(matches!(refused, Err(MetricError::Labels { .. })));
}

#[test]
fn predictions_prefer_labels_then_scores_then_numbers() {
    let scores = floats(&[3, 2], &[0.2, 0.8, f32::NAN, 0.1, f32::NAN, f32::NAN]);
    assert_eq!(
        predictions(std::slice::from_ref(&scores)),
        Some(Predictions::Class(vec![1, 1, NO_CLASS]))
    );
    assert_eq!(predictions(&[scores, ints(&[5, 6, 7])]), Some(Predictions::Class(vec![5, 6, 7])));
    let text = Tensor::new(vec![1, 1], vec!["cat".to_string()]).unwrap();
    assert_eq!(predictions(&[text]), Some(Predictions::Text(vec!["cat".into()])));
    assert_eq!(
        predictions(&[floats(&[2, 1], &[0.5, 2.0])]),
        Some(Predictions::Score(vec![0.5, 2.0]))
    );
    assert_eq!(predictions(&[floats(&[1, 2, 2, 2], &[0.0; 8])]), None);
    // Equal scores: the first, as argmax has it; all −∞ still predicts.
    let ties = floats(&[2, 2], &[1.0, 1.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
    assert_eq!(predictions(&[ties]), Some(Predictions::Class(vec![0, 0])));
}

#[test]
fn single_scores_are_cut_at_a_half_or_at_zero() {
    let y = classes(&[0, 1, 1, 0]);
    close(measured(Metric::Accuracy, &floats(&[4, 1], &[0.2, 0.7, 0.4, 0.1]), &y, 1), 0.75);
    // Only the last batch shows that these are no probabilities.
    close(measured(Metric::Accuracy, &floats(&[4, 1], &[-0.2, 0.7, 0.4, -3.0]), &y, 1), 1.0);
    close(measured(Metric::Accuracy, &floats(&[4, 1], &[0.2, 0.7, 0.4, -3.0]), &y, 1), 0.75);
    let signs = classes(&[-1, 1, 1, -1]);
    close(measured(Metric::Accuracy, &floats(&[4], &[-0.2, 0.7, 0.4, -3.0]), &signs, 2), 1.0);
}

#[test]
fn labels_compare_as_values() {
    let named: Labels = LabelValues::Text(vec!["cat".into(), "dog".into()]).into();
    let text = Tensor::new(vec![2, 1], vec!["cat".to_string(), "cat".to_string()]).unwrap();
    close(measured(Metric::Accuracy, &text, &named, 1), 0.5);
    let digits: Labels = LabelValues::Text(vec!["1".into(), "2".into()]).into();
    close(measured(Metric::Accuracy, &ints(&[1, 2]), &digits, 1), 1.0);
    let whole: Labels = LabelValues::Number(vec![1.0, 2.5]).into();
    close(measured(Metric::Accuracy, &ints(&[1, 2]), &whole, 1), 0.5);
}

#[test]
fn agreement_of_classes_probabilities_and_quantities() {
    let of = |a: &[Tensor], b: &[Tensor]| {
        let mut agreement = Agreement::default();
        agreement.push(a, b)?;
        agreement.finish()
    };
    close(of(&[ints(&[1, 2, 3, 4])], &[ints(&[1, 2, 3, 5])]), 0.75);
    close(of(&[floats(&[2, 1], &[0.1, 0.6])], &[floats(&[2, 1], &[0.4, 0.4])]), 0.5);
    // The range is 10, so a difference of 0.1 agrees.
    close(of(&[doubles(&[3], &[0.0, 5.0, 10.0])], &[doubles(&[3], &[0.05, 5.2, 10.0])]), 2.0 / 3.0);
    assert!(matches!(of(&[ints(&[1])], &[floats(&[1], &[1.0])]), Err(MetricError::Kinds { .. })));
    assert!(matches!(of(&[ints(&[1])], &[ints(&[1, 2])]), Err(MetricError::Length { .. })));
    assert!(Agreement::default().finish().is_err());
    assert_eq!(Accumulator::new(Metric::Agreement).unwrap_err(), MetricError::TwoModels);
}

#[test]
fn defaults_follow_labels_and_outputs() {
    let number: Labels = LabelValues::Number(vec![1.0, 2.5]).into();
    let whole: Labels = LabelValues::Number(vec![1.0, 0.0]).into();
    let one = || [floats(&[2, 1], &[0.0; 2])];
    assert_eq!(Metric::default_for(&number, &one()), Metric::R2);
    assert_eq!(Metric::default_for(&whole, &one()), Metric::R2);
    assert_eq!(Metric::default_for(&whole, &[ints(&[0, 1])]), Metric::Accuracy);
    assert_eq!(Metric::default_for(&classes(&[0, 1]), &one()), Metric::Accuracy);
    assert_eq!(Metric::default_for(&classes(&[151, 75, 141]), &one()), Metric::R2);
    let ids = labels_of(&[1, 2], LabelValues::Class(vec![0, 1]));
    assert_eq!(Metric::default_for(&ids, &[floats(&[1, 2, 3], &[0.0; 6])]), Metric::Perplexity);
}

#[test]
fn names_go_both_ways() {
    for (metric, name) in NAMES {
        assert_eq!(name.parse(), Ok(metric));
        assert_eq!(metric.to_string(), name);
        assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{name}\""));
    }
    assert!("top5".parse::<Metric>().is_err());
    assert!(Metric::F1.drop(0.9, 0.8) > 0.0 && Metric::Perplexity.drop(5.0, 6.0) > 0.0);
}

#[test]
fn what_does_not_match_is_refused() {
    let mut accuracy = Accumulator::new(Metric::Accuracy).unwrap();
    let length = accuracy.push(&[ints(&[1, 2])], &classes(&[1]));
    assert_eq!(length, Err(MetricError::Length { predictions: 2, labels: 1 }));
    assert_eq!(accuracy.finish(), Err(MetricError::NoRows { metric: Metric::Accuracy }));
    let named: Labels = LabelValues::Text(vec!["cat".into()]).into();
    let text = measured(Metric::Mae, &floats(&[1], &[1.0]), &named, 1);
    assert!(matches!(text, Err(MetricError::Labels { .. })));
}
