//! `Normalizer`: every row divided by its norm; a row whose norm is zero stays.
//!
//! As in ONNX Runtime, MAX is the greatest value, not the greatest magnitude, so it can be
//! negative.

use super::emit::{Emit, Why};
use crate::proto::{DataType, NodeProto};

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let input = emit.input(node)?;
    if emit.rank(input).is_some_and(|r| r == 0 || r > 2) {
        return Err("its input is neither a vector nor a matrix; reshape it to rows".into());
    }
    let norm = node.string("norm", "MAX");
    if norm == "L1" && is_softmax_of_rows(emit, input) {
        // The rows add up to one already.
        emit.finish(input, node.output.first());
        return Ok(());
    }
    let value = emit.cast(input, DataType::Float);
    let op = match norm.as_str() {
        "MAX" => "ReduceMax",
        "L1" => "ReduceL1",
        "L2" => "ReduceL2",
        other => return Err(format!("its norm {other} is unknown; use MAX, L1 or L2")),
    };
    let norm = emit.reduce_features(op, &value);
    let divisor = if op == "ReduceMax" {
        let one = emit.floats("one", &[], &[1.0]);
        let nonzero = emit.cast(&norm, DataType::Bool);
        emit.op("Where", &[&nonzero, &norm, &one], "d")
    } else {
        // Not below the smallest normal number: zeros stay zeros.
        let tiny = emit.floats("tiny", &[], &[f32::MIN_POSITIVE]);
        emit.op("Max", &[&norm, &tiny], "d")
    };
    let quotient = emit.op("Div", &[&value, &divisor], "n");
    emit.finish(&quotient, node.output.first());
    Ok(())
}

fn is_softmax_of_rows(emit: &Emit, value: &str) -> bool {
    emit.rank(value) == Some(2)
        && emit.producer(value).is_some_and(|producer| {
            let last_axis = if emit.opset() < 13 { 1 } else { -1 };
            producer.is("Softmax") && matches!(producer.int("axis", last_axis), 1 | -1)
        })
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{lowered_ops, ml, model, why_kept};
    use super::*;
    use crate::passes::lower_ml::lower_ml;
    use crate::proto::AttributeProto;

    fn normalizer(norm: &str) -> NodeProto {
        ml("Normalizer", &["x"], &["y"]).with(AttributeProto::of_string("norm", norm))
    }

    #[test]
    fn axes_are_an_attribute_or_an_input() {
        let (model, ops) = lowered_ops(normalizer("L1"), 17, DataType::Float);
        assert_eq!(ops, ["ReduceL1", "Max", "Div"]);
        assert_eq!(model.graph().node[0].ints("axes"), [-1]);
        let (model, ops) = lowered_ops(normalizer("L2"), 18, DataType::Int64);
        assert_eq!(ops, ["Cast", "ReduceL2", "Max", "Div"]);
        assert_eq!(model.graph().node[1].input.len(), 2);
    }

    #[test]
    fn a_greatest_value_of_zero_divides_by_one() {
        let (_, ops) = lowered_ops(normalizer("MAX"), 17, DataType::Float);
        assert_eq!(ops, ["ReduceMax", "Cast", "Where", "Div"]);
    }

    #[test]
    fn a_softmax_is_normal_already() {
        let mut m = model(
            vec![
                NodeProto::new("Softmax", &["x"], &["p"]),
                ml("Normalizer", &["p"], &["y"]).with(AttributeProto::of_string("norm", "L1")),
            ],
            17,
        );
        lower_ml(&mut m).unwrap();
        assert_eq!(m.graph().node.len(), 1);
        assert_eq!(m.graph().node[0].output, ["y"]);
    }

    #[test]
    fn unknown_norms_are_named() {
        assert!(why_kept(normalizer("L3"), 17, DataType::Float).contains("L3"));
    }
}
