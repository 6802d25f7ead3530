//! `ArrayFeatureExtractor`: `Gather` on the last axis, with the indices in one row.
//!
//! A vector gives one row, `[1, indices]`. A value of unknown rank is taken for a matrix.

use super::emit::{Emit, Why};
use crate::proto::{AttributeProto, NodeProto, TensorProto};

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let data = emit.input(node)?;
    let indices = emit.nth_input(node, 1)?;
    let vector = match emit.rank(data) {
        Some(0) => return Err(format!("its input '{data}' is a single value")),
        rank => rank == Some(1),
    };
    let row: &[i64] = if vector { &[1, -1] } else { &[-1] };
    let indices = match emit.constant(indices) {
        Some(tensor) => {
            let values = tensor.ints().map_err(|e| e.to_string())?;
            let dims = if vector { vec![1, values.len()] } else { vec![values.len()] };
            emit.add(TensorProto::from_i64("columns", &dims, &values))
        }
        None if emit.rank(indices) == Some(1) && !vector => indices.to_string(),
        None => {
            let shape = emit.ints("row", row);
            emit.op("Reshape", &[indices, &shape], "columns")
        }
    };
    let value = if vector {
        emit.gather(data, &indices)
    } else {
        emit.op_with("Gather", &[data, &indices], "c", vec![AttributeProto::of_int("axis", -1)])
    };
    emit.finish(&value, node.output.first());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{ml, model};
    use super::*;
    use crate::passes::lower_ml::lower_ml;

    #[test]
    fn constant_indices_become_a_vector() {
        let mut m = model(vec![ml("ArrayFeatureExtractor", &["x", "i"], &["y"])], 17);
        m.graph_mut().initializer.push(TensorProto::from_i64("i", &[], &[1]));
        lower_ml(&mut m).unwrap();
        assert_eq!(m.graph().node.len(), 1);
        assert_eq!(m.graph().node[0].int("axis", 0), -1);
        assert_eq!(m.graph().initializer.len(), 1);
        assert_eq!(m.graph().initializer[0].dims, [1]);
    }

    #[test]
    fn labels_of_the_best_class_are_an_argmax_and_a_gather() {
        let mut m = model(
            vec![
                NodeProto::new("ArgMax", &["x"], &["i"]).with(AttributeProto::of_int("axis", 1)),
                ml("ArrayFeatureExtractor", &["classes", "i"], &["l"]),
                NodeProto::new("Reshape", &["l", "flat"], &["y"]),
            ],
            17,
        );
        m.graph_mut().initializer = vec![
            TensorProto::from_strings("classes", &[2], &["no", "yes"]),
            TensorProto::from_i64("flat", &[1], &[-1]),
        ];
        lower_ml(&mut m).unwrap();
        let ops: Vec<&str> = m.graph().node.iter().map(|n| n.op_type()).collect();
        assert_eq!(ops, ["ArgMax", "Gather"]);
        assert_eq!(m.graph().node[0].int("keepdims", 1), 0);
        assert_eq!(m.graph().node[1].output, ["y"]);
    }

    #[test]
    fn classes_that_count_from_zero_are_the_argmax_itself() {
        let to_int64 = AttributeProto::of_int("to", 7);
        let mut m = model(
            vec![
                NodeProto::new("ArgMax", &["x"], &["i"]).with(AttributeProto::of_int("axis", 1)),
                ml("ArrayFeatureExtractor", &["classes", "i"], &["l"]),
                NodeProto::new("Reshape", &["l", "flat"], &["r"]),
                NodeProto::new("Cast", &["r"], &["y"]).with(to_int64),
            ],
            17,
        );
        m.graph_mut().initializer = vec![
            TensorProto::from_i32("classes", &[2], &[0, 1]),
            TensorProto::from_i64("flat", &[1], &[-1]),
        ];
        lower_ml(&mut m).unwrap();
        assert_eq!(m.graph().node.len(), 1);
        assert_eq!(m.graph().node[0].output, ["y"]);
        assert!(m.graph().initializer.is_empty());
    }
}
