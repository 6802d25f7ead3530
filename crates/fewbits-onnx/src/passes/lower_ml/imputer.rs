//! `Imputer`: the values that stand for "missing" are replaced, with `IsNaN` or `Equal` and
//! `Where`.
//!
//! As in ONNX Runtime, imputed values count for each feature when there is one for each, else
//! the first counts for all.

use super::emit::{Emit, Why};
use crate::proto::{DataType, NodeProto, TensorProto};

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let input = emit.input(node)?;
    let floats = node.floats("imputed_value_floats");
    let ints = node.ints("imputed_value_int64s");
    let elem_type = emit.elem_type(input).unwrap_or(match floats.is_empty() {
        true => DataType::Int64,
        false => DataType::Float,
    });
    let features = emit.features(input);
    let fit = |count: usize| match features {
        Some(features) if features != count => 1,
        _ => count,
    };
    let missing = || Err(format!("it has no values to impute for an input of {elem_type:?}"));
    let (imputed, replaced) = match elem_type {
        DataType::Float | DataType::Double if !floats.is_empty() => {
            let values = &floats[..fit(floats.len())];
            let replaced = [node.float("replaced_value_float", 0.0)];
            let tensor = |name, values: &[f32], dims: &[usize]| match elem_type {
                DataType::Float => TensorProto::from_f32(name, dims, values),
                _ => {
                    let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
                    TensorProto::from_f64(name, dims, &wide)
                }
            };
            let imputed = tensor("imputed", values, &[values.len()]);
            let nan = replaced[0].is_nan();
            (imputed, (!nan).then(|| tensor("replaced", &replaced, &[])))
        }
        DataType::Int64 | DataType::Int32 if !ints.is_empty() => {
            let values = &ints[..fit(ints.len())];
            let replaced = [node.int("replaced_value_int64", 0)];
            let narrow = |v: &i64| {
                i32::try_from(*v).map_err(|_| format!("its value {v} does not fit its int32 input"))
            };
            let tensor = |name, values: &[i64], dims: &[usize]| match elem_type {
                DataType::Int64 => Ok(TensorProto::from_i64(name, dims, values)),
                _ => {
                    let values: Result<Vec<i32>, Why> = values.iter().map(narrow).collect();
                    Ok::<_, Why>(TensorProto::from_i32(name, dims, &values?))
                }
            };
            let imputed = tensor("imputed", values, &[values.len()])?;
            (imputed, Some(tensor("replaced", &replaced, &[])?))
        }
        _ => return missing(),
    };
    if imputed.dims != [1] && emit.rank(input).is_some_and(|r| r > 2) {
        return Err("its input has more than 2 dimensions; reshape it to rows".into());
    }
    let is_missing = match replaced {
        None => emit.op("IsNaN", &[input], "missing"),
        Some(replaced) => {
            if matches!(elem_type, DataType::Float | DataType::Double) {
                emit.need(11, "comparing floats")?;
            }
            let replaced = emit.add(replaced);
            emit.op("Equal", &[input, &replaced], "missing")
        }
    };
    let imputed = emit.add(imputed);
    let value = emit.op("Where", &[&is_missing, &imputed, input], "v");
    emit.finish(&value, node.output.first());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{lowered_ops, ml, why_kept};
    use super::*;
    use crate::proto::AttributeProto;

    fn imputer(values: &[f32], replaced: f32) -> NodeProto {
        ml("Imputer", &["x"], &["y"])
            .with(AttributeProto::of_floats("imputed_value_floats", values))
            .with(AttributeProto::of_float("replaced_value_float", replaced))
    }

    #[test]
    fn nan_is_found_by_isnan_and_other_values_by_equal() {
        let (_, ops) = lowered_ops(imputer(&[1.0, 2.0], f32::NAN), 17, DataType::Float);
        assert_eq!(ops, ["IsNaN", "Where"]);
        let (model, ops) = lowered_ops(imputer(&[1.0, 2.0, 3.0], 0.0), 17, DataType::Double);
        assert_eq!(ops, ["Equal", "Where"]);
        let imputed = model.graph().find_initializer("imputed").unwrap();
        assert_eq!(imputed.doubles().unwrap(), [1.0]);
    }

    #[test]
    fn values_of_another_type_and_old_opsets_are_named() {
        let why = why_kept(imputer(&[1.0], 0.0), 17, DataType::Int64);
        assert!(why.contains("Int64"), "{why}");
        let why = why_kept(imputer(&[1.0], 0.0), 10, DataType::Float);
        assert!(why.contains("opset 11"), "{why}");
    }
}
