//! `FeatureVectorizer`: the inputs side by side as FLOAT, each cut or filled with zeros to its
//! width in `inputdimensions`.
//!
//! An input whose width is not known is taken to have the one that the node names.

use super::emit::{Emit, Why};
use crate::proto::{AttributeProto, NodeProto};

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let widths = node.ints("inputdimensions");
    if widths.is_empty() || widths.len() != node.input.len() {
        return Err(format!("it has {} inputs and {} widths", node.input.len(), widths.len()));
    }
    let mut parts = Vec::with_capacity(widths.len());
    for (n, &width) in widths.iter().enumerate() {
        let input = emit.nth_input(node, n)?;
        let rows = emit.rows(input)?;
        let given = emit.features(input).map_or(width, |f| f as i64);
        parts.push(match given - width {
            0 => rows,
            surplus if surplus > 0 => {
                emit.need(10, "cutting an input")?;
                let (start, end) = (emit.ints("start", &[0]), emit.ints("end", &[width]));
                let axis = emit.ints("axis", &[1]);
                emit.op("Slice", &[&rows, &start, &end, &axis], "cut")
            }
            surplus => {
                emit.need(11, "filling an input with zeros")?;
                let pads = emit.ints("pads", &[0, 0, 0, -surplus]);
                emit.op("Pad", &[&rows, &pads], "filled")
            }
        });
    }
    let value = match parts.as_slice() {
        [only] => only.clone(),
        _ => {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            emit.op_with("Concat", &parts, "f", vec![AttributeProto::of_int("axis", 1)])
        }
    };
    emit.finish(&value, node.output.first());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{lowered_ops, ml, why_kept};
    use super::*;
    use crate::proto::DataType;

    fn vectorizer(widths: &[i64]) -> NodeProto {
        ml("FeatureVectorizer", &["x", "x"], &["y"])
            .with(AttributeProto::of_ints("inputdimensions", widths))
    }

    #[test]
    fn inputs_are_fitted_and_joined() {
        let ops = |widths, input| lowered_ops(vectorizer(widths), 17, input).1;
        assert_eq!(ops(&[2, 2], DataType::Float), ["Concat"]);
        assert_eq!(ops(&[1, 3], DataType::Float), ["Slice", "Pad", "Concat"]);
        assert_eq!(ops(&[2, 2], DataType::Int64), ["Cast", "Cast", "Concat"]);
        assert!(why_kept(vectorizer(&[2]), 17, DataType::Float).contains("1 widths"));
    }
}
