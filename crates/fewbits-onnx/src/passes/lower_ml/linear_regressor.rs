//! `LinearRegressor`: `MatMul`, `Add` and a transform.
//!
//! As in ONNX Runtime, intercepts count only when there is one for each target, and a single
//! target is never transformed but by PROBIT.

use super::emit::{Emit, Why};
use super::linear_classifier::standard_transform;
use crate::proto::NodeProto;

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let targets = usize::try_from(node.int("targets", 1)).unwrap_or(0);
    let transform = match node.string("post_transform", "NONE").as_str() {
        name if targets == 1 && name != "PROBIT" => None,
        name => standard_transform(name)?,
    };
    let intercepts = match node.floats("intercepts") {
        of_targets if of_targets.len() == targets => of_targets,
        _ => &[],
    };
    let input = emit.input(node)?;
    let mut value = emit.linear(input, node.floats("coefficients"), intercepts, targets)?;
    if let Some(op) = transform {
        value = emit.op(op, &[&value], "t");
    }
    emit.finish(&value, node.output.first());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{lowered_ops, ml, why_kept};
    use super::*;
    use crate::proto::{AttributeProto, DataType};

    fn regressor(coefficients: &[f32], targets: i64) -> NodeProto {
        ml("LinearRegressor", &["x"], &["y"])
            .with(AttributeProto::of_floats("coefficients", coefficients))
            .with(AttributeProto::of_int("targets", targets))
    }

    #[test]
    fn intercepts_are_added_when_there_is_one_a_target() {
        let node = regressor(&[1.0, 2.0, 3.0, 4.0], 2);
        let (_, ops) = lowered_ops(node.clone(), 17, DataType::Float);
        assert_eq!(ops, ["MatMul"]);
        let node = node
            .with(AttributeProto::of_floats("intercepts", &[1.0, 2.0]))
            .with(AttributeProto::of_string("post_transform", "SOFTMAX"));
        let (model, ops) = lowered_ops(node, 17, DataType::Int64);
        assert_eq!(ops, ["Cast", "MatMul", "Add", "Softmax"]);
        assert_eq!(model.graph().node[3].output, ["y"]);
    }

    #[test]
    fn coefficients_that_do_not_fit_are_named() {
        assert!(why_kept(regressor(&[1.0; 3], 2), 17, DataType::Float).contains("equal rows"));
        assert!(why_kept(regressor(&[1.0; 3], 1), 17, DataType::Float).contains("2 features"));
        assert!(why_kept(regressor(&[1.0; 2], -1), 17, DataType::Float).contains("equal rows"));
    }
}
