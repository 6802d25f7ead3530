//! `Scaler`: `(x - offset) * scale`, the steps that change nothing left out.

use super::emit::{Emit, Why};
use crate::proto::{DataType, NodeProto, TensorProto};

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let input = emit.input(node)?;
    let (offset, scale) = (node.floats("offset"), node.floats("scale"));
    let count = scale.len();
    if count == 0 || offset.len() != count {
        return Err(format!(
            "it has {} offsets and {count} scales; export the model again",
            offset.len()
        ));
    }
    if count > 1 {
        if let Some(features) = emit.features(input).filter(|&f| f != count) {
            return Err(format!("it scales {count} features and its input has {features}"));
        }
        if emit.rank(input).is_some_and(|r| r > 2) {
            return Err("its input has more than 2 dimensions; reshape it to rows".into());
        }
    }
    // Doubles are scaled as doubles and rounded once, as ONNX Runtime does it.
    let double = emit.elem_type(input) == Some(DataType::Double);
    let mut value = if double { input.to_string() } else { emit.cast(input, DataType::Float) };
    let steps = [("Sub", "offset", offset, 0.0), ("Mul", "scale", scale, 1.0)];
    for (op, name, values, neutral) in steps {
        if values.iter().all(|&v| v == neutral) {
            continue;
        }
        let values = match values.iter().all(|v| v == &values[0]) {
            true => &values[..1],
            false => values,
        };
        let operand = if double {
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            emit.add(TensorProto::from_f64(name, &[wide.len()], &wide))
        } else {
            emit.floats(name, &[values.len()], values)
        };
        value = emit.op(op, &[&value, &operand], "x");
    }
    if double {
        value = emit.cast(&value, DataType::Float);
    }
    emit.finish(&value, node.output.first());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{lowered_ops, ml, why_kept};
    use super::*;
    use crate::proto::AttributeProto;

    fn scaler(offset: &[f32], scale: &[f32]) -> NodeProto {
        ml("Scaler", &["x"], &["y"])
            .with(AttributeProto::of_floats("offset", offset))
            .with(AttributeProto::of_floats("scale", scale))
    }

    #[test]
    fn steps_that_change_nothing_are_left_out() {
        let ops = |offset, scale| lowered_ops(scaler(offset, scale), 17, DataType::Float).1;
        assert_eq!(ops(&[1.0, 2.0], &[3.0, 4.0]), ["Sub", "Mul"]);
        assert_eq!(ops(&[0.0, 0.0], &[3.0, 4.0]), ["Mul"]);
        assert_eq!(ops(&[1.0], &[1.0]), ["Sub"]);
        assert_eq!(ops(&[0.0], &[1.0]), ["Identity"]);
    }

    #[test]
    fn other_types_become_float_where_the_original_does_it() {
        let ops = |input| lowered_ops(scaler(&[1.0], &[2.0]), 17, input).1;
        assert_eq!(ops(DataType::Int64), ["Cast", "Sub", "Mul"]);
        assert_eq!(ops(DataType::Double), ["Sub", "Mul", "Cast"]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_named() {
        assert!(why_kept(scaler(&[1.0], &[1.0, 2.0]), 17, DataType::Float).contains("1 offsets"));
        assert!(why_kept(scaler(&[1.0; 3], &[2.0; 3]), 17, DataType::Float).contains("3 features"));
    }
}
