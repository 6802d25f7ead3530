//! Every rule against its example.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::Program;
use crate::compile::lowered;
use crate::lower::Takes;
use crate::prepare::prepare_quantized;
use crate::program::{Backend, Step};
use crate::{F64Prologue, Result};

/// Rules that hand a value on as it is: no step has their name.
const AS_IT_IS: [&str; 2] = ["cast", "cast_of_labels"];

/// The steps of an example, without one of the rules if it is told.
fn steps(example: &Example, without: Option<&str>) -> Result<Vec<Step>> {
    let mut model = prepare_quantized(&example.model)?;
    let prologue = F64Prologue::cut(model.graph_mut())?;
    let rules = RULES.iter().filter(|rule| Some(rule.name) != without);
    let rules: &'static [Rule] = rules.copied().collect::<Vec<Rule>>().leak();
    let Program { once, steps, .. } = lowered(&model, prologue, rules)?;
    Ok(once.into_iter().chain(steps).collect())
}

/// What is wrong with the example of a rule, if it does not show what the rule does.
fn fault(rule: &Rule) -> Option<String> {
    let example = (rule.example)();
    let steps = match self::steps(&example, None) {
        Ok(steps) => steps,
        Err(error) => return Some(error.to_string()),
    };
    let is_left = |steps: &[Step]| steps.iter().any(|step| step.backend == Backend::Rten);
    let shows = match rule.takes {
        Takes::Nothing(why) => {
            let mut nodes = example.model.graph().node.iter();
            let told = nodes.find_map(|node| {
                let told = format!("{}: {}", node.op_type(), why(node));
                steps.iter().any(|step| step.why.contains(&told)).then_some(told)
            });
            told.is_some_and(|told| !told.ends_with(&crate::refusal::Refusal::other().to_string()))
        }
        _ if AS_IT_IS.contains(&rule.name) => {
            let without = self::steps(&example, Some(rule.name));
            !is_left(&steps) && without.is_ok_and(|steps| is_left(&steps))
        }
        _ => steps.iter().any(|step| step.rule.as_deref() == Some(rule.name)),
    };
    let made = |step: &Step| (step.rule.clone(), step.what.clone(), step.why.clone());
    let made = || steps.iter().map(made).collect::<Vec<_>>();
    (!shows).then(|| format!("makes {:?}", made()))
}

#[test]
fn every_rule_makes_a_step_of_its_example() {
    let faults: Vec<String> =
        RULES.iter().filter_map(|rule| Some(format!("{}: {}", rule.name, fault(rule)?))).collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), RULES.len(), faults.join("\n"));
}

#[test]
fn rules_that_make_no_step_are_no_others() {
    let made: BTreeSet<String> = examples()
        .flat_map(|(_, example)| steps(&example, None).unwrap())
        .filter_map(|step| step.rule)
        .collect();
    let others = RULES.iter().filter(|rule| !made.contains(rule.name));
    let others: Vec<&str> = others
        .filter(|rule| !matches!(rule.takes, Takes::Nothing(_)))
        .map(|rule| rule.name)
        .collect();
    assert_eq!(others, AS_IT_IS);
}

#[test]
fn every_rule_has_a_file_of_its_own() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules");
    let names: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), RULES.len(), "two rules have one name");
    let without: Vec<&&str> =
        names.iter().filter(|name| !folder.join(format!("{name}.rs")).is_file()).collect();
    assert!(without.is_empty(), "{without:?}");
    // No file makes a rule that stands in no table.
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let makes_one = name != "tests" && text.contains("const RULE: Rule");
        assert_eq!(makes_one, names.contains(name), "{name}");
    }
}
