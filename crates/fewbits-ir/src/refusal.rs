//! Why no step of ours computes a node.

use std::borrow::Cow;
use std::fmt;

use fewbits_onnx::proto::NodeProto;

/// A rule's answer where it does not compute a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The node that stays for it, if that is another than the one asked for.
    pub node: Option<usize>,
    reach: Reach,
    why: Cow<'static, str>,
    help: Option<&'static str>,
}

/// How far a rule came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// The rule is for other operators.
    Nowhere,
    /// No rule is for the operator, or for values of this type.
    Operator,
    /// The values around the node are not what the rule takes.
    Values,
    /// There is no kernel for the node as it is.
    Node,
}

impl Refusal {
    fn new(reach: Reach, why: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { node: None, reach, why: why.into(), help: None }
    }

    /// Refuses a node that the rule is not for.
    pub(crate) fn other() -> Refusal {
        Refusal::new(Reach::Nowhere, "the operator has no integer or float kernel here")
    }

    /// Refuses a node for its operator, or for the type of its values.
    pub(crate) fn of_operator(why: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Reach::Operator, why)
    }

    /// Refuses a node for the values around it.
    pub(crate) fn of_values(why: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Reach::Values, why)
    }

    /// Refuses a node for what it says, or for its constants.
    pub(crate) fn of_node(why: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Reach::Node, why)
    }

    /// Adds what would help.
    pub(crate) fn help(self, help: &'static str) -> Refusal {
        Refusal { help: Some(help), ..self }
    }

    /// Makes it the answer about the node at `position`, which becomes a step only together with `with`,
    /// the one that is refused.
    pub(crate) fn of_both(self, position: usize, with: &NodeProto) -> Refusal {
        let why = format!("'{}' behind it: {}", with.label(), self.why);
        Refusal { node: Some(position), why: why.into(), ..self }
    }

    /// Chooses the one of two that tells more: that of the rule which came farther, or was tried later.
    pub(crate) fn or(self, later: Refusal) -> Refusal {
        if later.reach >= self.reach { later } else { self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        self.help.map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

/// Refuses a node unless something about it `holds`.
pub(crate) fn check(holds: bool, why: &'static str) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::of_node(why)) }
}

/// Refuses nodes of other operators than these of ONNX.
pub(crate) fn only(operators: &[&str], node: &NodeProto) -> Result<(), Refusal> {
    match operators.iter().any(|operator| node.is(operator)) {
        true => Ok(()),
        false => Err(Refusal::other()),
    }
}

/// Finds the name of an input that a node must have.
pub(crate) fn input(node: &NodeProto, at: usize) -> Result<&str, Refusal> {
    node.given_input(at).ok_or(Refusal::of_node("an input is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_came_farthest_is_told_and_of_two_the_later() {
        let [operator, values, node] = [
            Refusal::of_operator("operator"),
            Refusal::of_values("values"),
            Refusal::of_node("node"),
        ];
        assert_eq!(operator.clone().or(Refusal::other()), operator);
        assert_eq!(operator.clone().or(values.clone()), values);
        assert_eq!(node.clone().or(values.clone()), node);
        assert_eq!(values.clone().or(operator), values);
        assert_eq!(node.or(Refusal::of_node("later")), Refusal::of_node("later"));
    }

    #[test]
    fn help_stands_behind_the_reason() {
        assert_eq!(
            Refusal::of_node("it is odd").help("make it even").to_string(),
            "it is odd; make it even"
        );
        assert_eq!(Refusal::of_node("it is odd").to_string(), "it is odd");
    }
}
