use std::collections::{BTreeMap, BTreeSet};

use super::{Metric, MetricError, NO_CLASS};
use crate::data::{LabelValues, Labels};

/// A label or a predicted class; numbers compare as numbers however they are held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Number(i64),
    Text(String),
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClassCounts {
    pub labels: u64,
    pub predicted: u64,
    pub right: u64,
}

impl Class {
    pub fn from_text(text: &str) -> Class {
        text.parse().map_or_else(|_| Class::Text(text.to_string()), Class::Number)
    }

    fn from_number(x: f64) -> Class {
        let whole = x.fract() == 0.0 && x.abs() < 2f64.powi(53);
        if whole { Class::Number(x as i64) } else { Class::Text(x.to_string()) }
    }

    /// The classes of all labels.
    pub fn of_labels(labels: &Labels) -> Vec<Class> {
        match labels.values() {
            LabelValues::Class(v) => v.iter().map(|&x| Class::Number(x)).collect(),
            LabelValues::Text(v) => v.iter().map(|x| Class::from_text(x)).collect(),
            LabelValues::Number(v) => v.iter().map(|&x| Class::from_number(x)).collect(),
        }
    }
}

pub(super) fn count(counts: &mut BTreeMap<Class, ClassCounts>, label: Class, predicted: Class) {
    let right = u64::from(label == predicted);
    counts.entry(predicted).or_default().predicted += 1;
    let label = counts.entry(label).or_default();
    label.labels += 1;
    label.right += right;
}

/// Counts the classes that single scores mean.
pub(super) fn count_scores(
    metric: Metric,
    counts: &mut BTreeMap<Class, ClassCounts>,
    scores: Vec<(f64, Class)>,
) -> Result<(), MetricError> {
    let labels: BTreeSet<&Class> = scores.iter().map(|(_, label)| label).collect();
    let two = TwoClasses::of(metric, scores.iter().map(|(score, _)| *score), labels)?;
    for (score, label) in scores {
        count(counts, label, two.class(score));
    }
    Ok(())
}

/// Which classes the scores of a model of one score a row mean: the greater of two above 0.5 where
/// all scores are probabilities, above 0 otherwise.
pub(super) struct TwoClasses {
    threshold: f64,
    low: Class,
    high: Class,
}

impl TwoClasses {
    /// From all scores and the labels that occur.
    pub fn of(
        metric: Metric,
        mut scores: impl Iterator<Item = f64>,
        labels: BTreeSet<&Class>,
    ) -> Result<TwoClasses, MetricError> {
        let threshold = if scores.all(|s| (0.0..=1.0).contains(&s)) { 0.5 } else { 0.0 };
        let (low, high) = match Vec::from_iter(labels).as_slice() {
            &[low, high] => (low.clone(), high.clone()),
            // One class alone does not show the other's name; 0 and 1 are the usual ones.
            [Class::Number(-1)] => (Class::Number(-1), Class::Number(1)),
            [] | [Class::Number(_)] => (Class::Number(0), Class::Number(1)),
            other => {
                let needed = format!(
                    "labels of two classes for a model of one score a row, not {}",
                    other.len()
                );
                return Err(MetricError::Labels { metric, needed });
            }
        };
        Ok(TwoClasses { threshold, low, high })
    }

    pub fn class(&self, score: f64) -> Class {
        match score {
            score if score.is_nan() => Class::Number(NO_CLASS),
            score if score > self.threshold => self.high.clone(),
            _ => self.low.clone(),
        }
    }
}

/// Refuses labels that are names where the model predicts numbers, and the reverse: every row
/// would count as wrong, whatever the model does.
pub(super) fn comparable(
    metric: Metric,
    counts: &BTreeMap<Class, ClassCounts>,
) -> Result<(), MetricError> {
    let kinds = |rows: fn(&ClassCounts) -> u64| {
        let of =
            counts.iter().filter(|(class, c)| **class != Class::Number(NO_CLASS) && rows(c) > 0);
        let (numbers, names): (Vec<_>, Vec<_>) =
            of.partition(|(class, _)| matches!(class, Class::Number(_)));
        (!numbers.is_empty(), !names.is_empty())
    };
    let needed = match (kinds(|c| c.labels), kinds(|c| c.predicted)) {
        ((false, true), (true, false)) => "labels that are class numbers, as the model predicts",
        ((true, false), (false, true)) => "labels that are class names, as the model predicts",
        _ => return Ok(()),
    };
    Err(MetricError::Labels { metric, needed: needed.to_string() })
}

/// F1 of the greater of two classes, or the mean over any other number of classes, of those that
/// occur. Counts are in the order of the classes.
pub(super) fn f1(counts: &[ClassCounts]) -> f64 {
    // 2PR/(P+R) with P = right/predicted and R = right/labels.
    let one = |c: &ClassCounts| 2.0 * c.right as f64 / (c.labels + c.predicted) as f64;
    match counts {
        [_, greater] => one(greater),
        _ => {
            let each = counts.iter().filter(|c| c.labels + c.predicted > 0).map(one);
            let (sum, classes) = each.fold((0.0, 0.0), |(sum, n), f1| (sum + f1, n + 1.0));
            sum / classes
        }
    }
}
