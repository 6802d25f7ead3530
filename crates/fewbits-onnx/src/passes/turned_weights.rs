//! A `Transpose` of a constant matrix of bytes is carried out.
//!
//! One copy of a quantized weight serves products that read it both ways, and a runtime turns it when it loads
//! the model.

use crate::Result;
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

/// Makes an initializer of every constant matrix of bytes that is turned.
///
/// # Errors
/// If a constant's payload is damaged.
pub fn turn_integer_weights(graph: &mut GraphProto) -> Result<()> {
    let mut turned = Vec::new();
    for node in &graph.node {
        let ([input], [output]) = (node.input.as_slice(), node.output.as_slice()) else { continue };
        let turns = node.is("Transpose") && matches!(node.ints("perm"), [] | [1, 0]);
        let Some(tensor) = graph.initializer.iter().find(|t| turns && t.name() == input) else {
            continue;
        };
        let data_type = tensor.element_type()?;
        let (&[rows, columns], DataType::Int8 | DataType::Uint8) =
            (tensor.shape()?.as_slice(), data_type)
        else {
            continue;
        };
        let bytes: Vec<u8> = tensor.ints()?.into_iter().map(|code| code as u8).collect();
        let column = |column: usize| (0..rows).map(move |row| row * columns + column);
        let bytes = (0..columns).flat_map(column).map(|at| bytes[at]).collect();
        turned.push(TensorProto::from_raw(output, &[columns, rows], data_type, bytes));
    }
    let is_turned = |node: &NodeProto| turned.iter().any(|t| node.output == [t.name()]);
    graph.node.retain(|node| !is_turned(node));
    graph.initializer.append(&mut turned);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_matrices_of_bytes_are_turned() {
        let mut graph = GraphProto {
            node: ["bytes", "floats", "x"]
                .map(|from| NodeProto::new("Transpose", &[from], &[&format!("{from} turned")]))
                .to_vec(),
            initializer: vec![
                TensorProto::from_i8("bytes", &[2, 3], &[1, 2, 3, -4, -5, -6]),
                TensorProto::from_f32("floats", &[2, 1], &[1.0, 2.0]),
            ],
            ..GraphProto::default()
        };
        turn_integer_weights(&mut graph).unwrap();
        assert_eq!(graph.node.len(), 2);
        let turned = graph.find_initializer("bytes turned").unwrap();
        assert_eq!(turned.dims, [3, 2]);
        assert_eq!(turned.ints().unwrap(), [1, -4, 2, -5, 3, -6]);
    }
}
