//! `LabelEncoder`: the input compared with every key, the number of the key that matches, and
//! one `Gather` from `[default, values...]`.
//!
//! As in ONNX Runtime, the first of equal keys wins, and NaN is a key only from version 4 of the
//! operator on; such keys are left.

use super::emit::{Emit, Reduced, Why};
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let input = emit.input(node)?;
    emit.need(11, "lowering it")?;
    let (keys, values, default) = match node.attr("classes_strings") {
        Some(classes) => first_version(node, classes, emit.elem_type(input)),
        None => {
            let values = List::of(node, "values")?;
            let default = default_of(node, &values)?;
            (List::of(node, "keys")?, values, default)
        }
    };
    if keys.len() != values.len() || keys.len() == 0 {
        return Err(format!("it has {} keys and {} values", keys.len(), values.len()));
    }
    if let List::Strings(_) = keys {
        emit.need(19, "comparing strings")?;
    }
    if keys.has_nan() {
        return Err("NaN is among its keys; impute missing values before it".into());
    }
    let (keys, table) = keys.first_of_equal(values, default);

    let count = keys.len();
    let keys = emit.add(keys.tensor("keys"));
    let numbers: Vec<i64> = (1..=count as i64).collect();
    let numbers = emit.ints("numbers", &numbers);
    let none = emit.add(TensorProto::from_i64("none", &[], &[0]));
    let table = emit.add(table.tensor("values"));
    let column = emit.unsqueeze_last(input);
    let equal = emit.op("Equal", &[&column, &keys], "equal");
    let matching = emit.op("Where", &[&equal, &numbers, &none], "matching");
    let number = emit.reduce("ReduceSum", &matching, -1, Reduced::Dropped);
    let value = emit.gather(&table, &number);
    emit.finish(&value, node.output.first());
    Ok(())
}

/// Version 1 maps a list of strings to their positions, or back, as the input's type asks.
fn first_version(
    node: &NodeProto,
    classes: &AttributeProto,
    input: Option<DataType>,
) -> (List, List, List) {
    let strings = List::Strings(classes.strings.clone());
    let positions = List::Ints((0..strings.len() as i64).collect());
    if input == Some(DataType::String) {
        (strings, positions, List::Ints(vec![node.int("default_int64", -1)]))
    } else {
        let default = node.string("default_string", "_Unused");
        (positions, strings, List::Strings(vec![default.into()]))
    }
}

fn default_of(node: &NodeProto, values: &List) -> Result<List, Why> {
    if let Some(tensor) = node.tensor("default_tensor").filter(|t| t.data_type() != 0) {
        let default = List::of_tensor(tensor)?;
        let same = std::mem::discriminant(&default) == std::mem::discriminant(values);
        return match same && default.len() == 1 {
            true => Ok(default),
            false => Err("its default is not one value of the type of its values".into()),
        };
    }
    Ok(match values {
        List::Ints(_) => List::Ints(vec![node.int("default_int64", -1)]),
        List::Floats(_) => List::Floats(vec![node.float("default_float", -0.0)]),
        List::Doubles(_) => List::Doubles(vec![-0.0]),
        List::Strings(_) => List::Strings(vec![node.string("default_string", "_Unused").into()]),
    })
}

/// Keys or values, of one of the types that the operator knows.
#[derive(Clone)]
enum List {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Strings(Vec<bytes::Bytes>),
}

impl List {
    /// The attribute of `node` that starts with `name`.
    fn of(node: &NodeProto, name: &str) -> Result<List, Why> {
        if let Some(tensor) = node.tensor(&format!("{name}_tensor")) {
            return List::of_tensor(tensor);
        }
        if let Some(ints) = node.attr(&format!("{name}_int64s")) {
            return Ok(List::Ints(ints.ints.clone()));
        }
        if let Some(floats) = node.attr(&format!("{name}_floats")) {
            return Ok(List::Floats(floats.floats.clone()));
        }
        if let Some(strings) = node.attr(&format!("{name}_strings")) {
            return Ok(List::Strings(strings.strings.clone()));
        }
        Err(format!("it has no {name}; export the model again"))
    }

    fn of_tensor(tensor: &TensorProto) -> Result<List, Why> {
        let wrong = |e: crate::OnnxError| e.to_string();
        match tensor.element_type().map_err(wrong)? {
            DataType::Int64 => tensor.ints().map(List::Ints).map_err(wrong),
            DataType::Float => tensor.floats().map(List::Floats).map_err(wrong),
            DataType::Double => tensor.doubles().map(List::Doubles).map_err(wrong),
            DataType::String => {
                tensor.check().map_err(wrong)?;
                Ok(List::Strings(tensor.string_data.clone()))
            }
            other => Err(format!("its keys or values of type {other:?} are not supported")),
        }
    }

    fn len(&self) -> usize {
        match self {
            List::Ints(v) => v.len(),
            List::Floats(v) => v.len(),
            List::Doubles(v) => v.len(),
            List::Strings(v) => v.len(),
        }
    }

    fn has_nan(&self) -> bool {
        match self {
            List::Floats(v) => v.iter().any(|v| v.is_nan()),
            List::Doubles(v) => v.iter().any(|v| v.is_nan()),
            List::Ints(_) | List::Strings(_) => false,
        }
    }

    /// These keys without those that repeat an earlier one, and the table of what they stand
    /// for, the default first.
    fn first_of_equal(self, values: List, mut table: List) -> (List, List) {
        let first: Vec<usize> = match &self {
            List::Ints(v) => firsts(v),
            List::Floats(v) => firsts(v),
            List::Doubles(v) => firsts(v),
            List::Strings(v) => firsts(v),
        };
        let values = values.pick(&first);
        match (&mut table, values) {
            (List::Ints(table), List::Ints(values)) => table.extend(values),
            (List::Floats(table), List::Floats(values)) => table.extend(values),
            (List::Doubles(table), List::Doubles(values)) => table.extend(values),
            (List::Strings(table), List::Strings(values)) => table.extend(values),
            _ => unreachable!("the default was made of the values' type"),
        }
        (self.pick(&first), table)
    }

    fn pick(&self, at: &[usize]) -> List {
        match self {
            List::Ints(v) => List::Ints(at.iter().map(|&i| v[i]).collect()),
            List::Floats(v) => List::Floats(at.iter().map(|&i| v[i]).collect()),
            List::Doubles(v) => List::Doubles(at.iter().map(|&i| v[i]).collect()),
            List::Strings(v) => List::Strings(at.iter().map(|&i| v[i].clone()).collect()),
        }
    }

    fn tensor(&self, name: &str) -> TensorProto {
        let dims = [self.len()];
        match self {
            List::Ints(v) => TensorProto::from_i64(name, &dims, v),
            List::Floats(v) => TensorProto::from_f32(name, &dims, v),
            List::Doubles(v) => TensorProto::from_f64(name, &dims, v),
            List::Strings(v) => {
                let mut tensor = TensorProto::from_strings::<&str>(name, &dims, &[]);
                tensor.string_data = v.clone();
                tensor
            }
        }
    }
}

/// The positions of the values that no earlier one equals.
fn firsts<T: PartialEq>(values: &[T]) -> Vec<usize> {
    (0..values.len()).filter(|&i| !values[..i].contains(&values[i])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{lowered_ops, ml, why_kept};
    use super::*;

    fn encoder(keys: AttributeProto, values: AttributeProto) -> NodeProto {
        ml("LabelEncoder", &["x"], &["y"]).with(keys).with(values)
    }

    #[test]
    fn the_first_of_equal_keys_wins_and_the_default_comes_first() {
        let node = encoder(
            AttributeProto::of_ints("keys_int64s", &[4, 4, 9]),
            AttributeProto::of_floats("values_floats", &[0.5, 1.5, 2.5]),
        );
        let (model, ops) = lowered_ops(node, 17, DataType::Int64);
        assert_eq!(ops, ["Unsqueeze", "Equal", "Where", "ReduceSum", "Gather"]);
        let of = |name| model.graph().find_initializer(name).unwrap();
        assert_eq!(of("keys").ints().unwrap(), [4, 9]);
        assert_eq!(of("values").floats().unwrap(), [-0.0, 0.5, 2.5]);
    }

    #[test]
    fn the_first_version_goes_both_ways() {
        let node = ml("LabelEncoder", &["x"], &["y"]).with(AttributeProto {
            name: Some("classes_strings".into()),
            strings: vec!["a".into(), "b".into()],
            ..AttributeProto::default()
        });
        let (model, _) = lowered_ops(node.clone(), 12, DataType::Int64);
        let table = model.graph().find_initializer("values").unwrap().strings().unwrap();
        assert_eq!(table, ["_Unused", "a", "b"]);
        assert!(why_kept(node.clone(), 18, DataType::String).contains("opset 19"));
        lowered_ops(node, 19, DataType::String);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let keys = AttributeProto::of_floats("keys_floats", &[f32::NAN]);
        let values = AttributeProto::of_ints("values_int64s", &[1]);
        assert!(why_kept(encoder(keys, values.clone()), 17, DataType::Float).contains("NaN"));
        let keys = AttributeProto::of_ints("keys_int64s", &[1, 2]);
        assert!(why_kept(encoder(keys, values), 17, DataType::Int64).contains("2 keys"));
    }
}
