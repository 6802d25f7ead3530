//! `Binarizer`: one where a value is above the threshold, else zero, in the input's type.

use super::emit::{Emit, Why};
use crate::proto::{DataType, NodeProto, TensorProto};

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let input = emit.input(node)?;
    let threshold = node.float("threshold", 0.0);
    let elem_type = emit.elem_type(input).unwrap_or(DataType::Float);
    // An integer is above a threshold where it is above the integer below it.
    let below = threshold.floor();
    let tensor = match elem_type {
        DataType::Float => TensorProto::from_f32("threshold", &[], &[threshold]),
        DataType::Double => TensorProto::from_f64("threshold", &[], &[f64::from(threshold)]),
        DataType::Int64 => TensorProto::from_i64("threshold", &[], &[below as i64]),
        DataType::Int32 => TensorProto::from_i32("threshold", &[], &[below as i32]),
        other => return Err(format!("its input has type {other:?}; cast it to a float")),
    };
    let threshold = emit.add(tensor);
    let above = emit.op("Greater", &[input, &threshold], "above");
    let value = emit.cast(&above, elem_type);
    emit.finish(&value, node.output.first());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{lowered_ops, ml, why_kept};
    use super::*;
    use crate::proto::AttributeProto;

    #[test]
    fn the_threshold_has_the_type_of_the_input() {
        let node =
            ml("Binarizer", &["x"], &["y"]).with(AttributeProto::of_float("threshold", -0.5));
        let (_, ops) = lowered_ops(node.clone(), 17, DataType::Float);
        assert_eq!(ops, ["Greater", "Cast"]);
        let (model, _) = lowered_ops(node.clone(), 17, DataType::Int64);
        assert_eq!(model.graph().initializer[0].ints().unwrap(), [-1]);
        assert_eq!(model.graph().node[1].int("to", 0), DataType::Int64 as i64);
        assert!(why_kept(node, 17, DataType::String).contains("String"));
    }
}
