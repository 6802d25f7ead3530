//! `OneHotEncoder`: the input compared with every category, on a new last axis.
//!
//! With `zeros=0` the original refuses categories that it does not know; here their row is zero.

use std::collections::HashSet;
use std::hash::Hash;

use super::emit::{Emit, Why};
use crate::proto::{DataType, NodeProto, TensorProto};

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let input = emit.input(node)?;
    emit.need(11, "lowering it")?;
    let (ints, strings) = (node.ints("cats_int64s"), node.strings("cats_strings"));
    if repeats(ints) || repeats(&strings) {
        return Err("a category is listed twice; export the model again".into());
    }
    let of_strings = match emit.elem_type(input) {
        Some(elem_type) => elem_type == DataType::String,
        None => ints.is_empty(),
    };
    let (value, categories) = match of_strings {
        true if !strings.is_empty() && ints.is_empty() => {
            emit.need(19, "comparing strings")?;
            let categories = TensorProto::from_strings("categories", &[strings.len()], &strings);
            (input.to_string(), categories)
        }
        false if !ints.is_empty() && strings.is_empty() => (
            emit.cast(input, DataType::Int64),
            TensorProto::from_i64("categories", &[ints.len()], ints),
        ),
        _ => return Err("its categories are not of its input's type".into()),
    };
    let categories = emit.add(categories);
    let column = emit.unsqueeze_last(&value);
    let equal = emit.op("Equal", &[&column, &categories], "equal");
    let hot = emit.cast(&equal, DataType::Float);
    emit.finish(&hot, node.output.first());
    Ok(())
}

fn repeats<T: Eq + Hash>(values: &[T]) -> bool {
    values.iter().collect::<HashSet<_>>().len() < values.len()
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{lowered_ops, ml, why_kept};
    use super::*;
    use crate::proto::{AttributeProto, AttributeType};

    fn of_ints(values: &[i64]) -> NodeProto {
        ml("OneHotEncoder", &["x"], &["y"]).with(AttributeProto::of_ints("cats_int64s", values))
    }

    #[test]
    fn integers_are_compared_on_a_new_axis() {
        let (_, ops) = lowered_ops(of_ints(&[3, 7]), 12, DataType::Int64);
        assert_eq!(ops, ["Unsqueeze", "Equal", "Cast"]);
        let (_, ops) = lowered_ops(of_ints(&[3, 7]), 13, DataType::Float);
        assert_eq!(ops, ["Cast", "Unsqueeze", "Equal", "Cast"]);
    }

    #[test]
    fn strings_need_opset_19() {
        let node = ml("OneHotEncoder", &["x"], &["y"]).with(AttributeProto {
            name: Some("cats_strings".into()),
            r#type: Some(AttributeType::Strings as i32),
            strings: vec!["a".into(), "b".into()],
            ..AttributeProto::default()
        });
        assert!(why_kept(node.clone(), 18, DataType::String).contains("opset 19"));
        lowered_ops(node.clone(), 19, DataType::String);
        assert!(why_kept(node, 19, DataType::Int64).contains("type"));
        assert!(why_kept(of_ints(&[1, 1]), 19, DataType::Int64).contains("twice"));
    }
}
