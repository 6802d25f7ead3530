//! Equations of `Einsum`.

use std::collections::HashSet;

use super::axes::Along;
use crate::proto::NodeProto;

/// Stands for the axes of an ellipsis.
pub(crate) const ELLIPSIS: char = '.';

/// An equation: the labels of the axes of each operand and of the result.
pub(crate) struct Equation {
    pub operands: Vec<Vec<char>>,
    pub result: Vec<char>,
}

impl Equation {
    /// That of a node; none if it is in no form that is known here.
    pub fn of(node: &NodeProto) -> Option<Equation> {
        if !node.is("Einsum") {
            return None;
        }
        let text: String = node.string("equation", "").split_whitespace().collect();
        let text = text.replace("...", &ELLIPSIS.to_string());
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text.as_str(), None),
        };
        let operands: Vec<Vec<char>> = left.split(',').map(|term| term.chars().collect()).collect();
        let result = match right {
            Some(right) => right.chars().collect(),
            None => implied(&operands),
        };
        let is_known = |term: &Vec<char>| {
            let labels: HashSet<&char> = term.iter().collect();
            labels.len() == term.len()
                && term.iter().all(|label| label.is_ascii_alphabetic() || *label == ELLIPSIS)
        };
        let known = operands.iter().chain([&result]).all(is_known);
        (known && operands.len() == node.input.len()).then_some(Equation { operands, result })
    }
}

/// The result where none is written: what occurs once, in the order of the alphabet.
fn implied(operands: &[Vec<char>]) -> Vec<char> {
    let all: Vec<char> = operands.iter().flatten().copied().collect();
    let once = |label: &char| all.iter().filter(|other| *other == label).count() == 1;
    let mut result: Vec<char> = all.iter().copied().filter(|l| *l != ELLIPSIS && once(l)).collect();
    result.sort_unstable();
    if all.contains(&ELLIPSIS) {
        result.insert(0, ELLIPSIS);
    }
    result
}

/// Along what a constant operand of an `Einsum` lies that is multiplied and summed: its channels are the last axis
/// that only it brings into the result, and its sum is over the first axis that the result lacks.
pub(super) fn weight(node: &NodeProto, input: usize) -> Option<Along> {
    let equation = Equation::of(node)?;
    let term = equation.operands.get(input).filter(|term| !term.contains(&ELLIPSIS))?;
    let others = |label: &char| {
        let mut others = equation.operands.iter().enumerate().filter(|(i, _)| *i != input);
        others.any(|(_, term)| term.contains(label))
    };
    let channel = |label: &char| equation.result.contains(label) && !others(label);
    let summed = |label: &char| !equation.result.contains(label);
    Some(Along {
        channel: term.iter().rposition(channel).map(usize::cast_signed),
        reduction: term.iter().position(summed)?.cast_signed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::AttributeProto;

    #[test]
    fn scales_follow_the_axes_of_the_equation() {
        let along = |channel, reduction| Some(Along { channel, reduction });
        for (equation, input, expected) in [
            ("bij,bjk->bik", 1, along(Some(2), 1)),
            ("kj,bj->bk", 0, along(Some(0), 1)),
            ("bij,j->bi", 1, along(None, 0)),
            ("bij,b->bij", 1, None),
            ("bij,...->bij", 1, None),
        ] {
            let node = NodeProto::new("Einsum", &["x", "w"], &["y"])
                .with(AttributeProto::of_string("equation", equation));
            assert_eq!(weight(&node, input), expected, "{equation}");
        }
    }
}
