//! What people are told of nodes that are left to the float executor: what the rules answered.

use crate::lower::Lowering;
use crate::refusal::Refusal;

impl Lowering<'_> {
    /// Keeps the refusal of a rule for the node at `position`, to be told if the node is left.
    pub(crate) fn noted<T>(&mut self, position: usize, result: Result<T, Refusal>) -> Option<T> {
        match result {
            Ok(made) => Some(made),
            Err(refusal) => {
                let position = refusal.node.unwrap_or(position);
                let known = self.refusals.remove(&position).unwrap_or_else(Refusal::other);
                self.refusals.insert(position, known.or(refusal));
                None
            }
        }
    }

    /// Tells why nodes were left to the float executor, each reason once.
    pub(crate) fn why(&self, nodes: &[usize]) -> Vec<String> {
        let mut reasons: Vec<String> = Vec::new();
        for position in nodes {
            let refusal = self.refusals.get(position).cloned().unwrap_or_else(Refusal::other);
            let reason = format!("{}: {refusal}", self.view.graph.node[*position].op_type());
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons
    }
}
