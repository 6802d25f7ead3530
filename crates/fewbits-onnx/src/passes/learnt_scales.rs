//! Weights of quantization-aware training become integers with the scales that were learnt: exporters leave them
//! as floats behind a `QuantizeLinear`.

use std::collections::HashSet;

use crate::Result;
use crate::graph::Index;
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

/// Carries out every `QuantizeLinear` of a constant to 8 bits; returns how many.
///
/// # Errors
/// If a constant is damaged.
pub fn fold_learnt(graph: &mut GraphProto) -> Result<usize> {
    let index = Index::new(graph);
    let overridable: HashSet<&str> = graph.input.iter().map(|input| input.name()).collect();
    let constant = |name: Option<&String>| {
        let name = name.filter(|name| !overridable.contains(name.as_str()))?;
        index.initializer(name)
    };
    let mut folded: Vec<(usize, TensorProto)> = Vec::new();
    for (position, node) in graph.node.iter().enumerate().filter(|(_, n)| n.is("QuantizeLinear")) {
        let zero_point = node.input.get(2).filter(|name| !name.is_empty());
        let (Some(values), Some(scale)) =
            (constant(node.input.first()), constant(node.input.get(1)))
        else {
            continue;
        };
        let zero = constant(zero_point);
        if zero.is_some() != zero_point.is_some() || index.is_output(&node.output[0]) {
            continue;
        }
        if let Some(tensor) = quantized(node, values, scale, zero)? {
            folded.push((position, tensor));
        }
    }
    let count = folded.len();
    for (position, tensor) in folded.into_iter().rev() {
        graph.node.remove(position);
        graph.initializer.push(tensor);
    }
    Ok(count)
}

/// What a node makes of its constants; none where it is in a form that is not known here.
fn quantized(
    node: &NodeProto,
    values: &TensorProto,
    scale: &TensorProto,
    zero_point: Option<&TensorProto>,
) -> Result<Option<TensorProto>> {
    let is_float = |tensor: &TensorProto| matches!(tensor.element_type(), Ok(DataType::Float));
    let data_type = match zero_point {
        Some(tensor) => tensor.element_type()?,
        None => DataType::try_from(node.int("output_dtype", 0) as i32)
            .ok()
            .filter(|&data_type| data_type != DataType::Undefined)
            .unwrap_or(DataType::Uint8),
    };
    let (low, high) = match data_type {
        DataType::Int8 => (-128, 127),
        DataType::Uint8 => (0, 255),
        _ => return Ok(None),
    };
    let shape = values.shape()?;
    if shape.len() < 2 || !is_float(values) || !is_float(scale) || node.int("block_size", 0) != 0 {
        return Ok(None);
    }
    let scales = scale.floats()?;
    let zeros = match zero_point {
        Some(tensor) => tensor.ints()?,
        None => vec![0; scales.len()],
    };
    let axis = node.int("axis", 1);
    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
    // Of one scale for all the axis says nothing.
    let (size, inner) = match usize::try_from(axis).ok().filter(|_| scales.len() > 1) {
        None => (1, 1),
        Some(axis) if shape.get(axis) == Some(&scales.len()) => {
            (shape[axis], shape[axis + 1..].iter().product())
        }
        Some(_) => return Ok(None),
    };
    if scales.is_empty() || zeros.len() != scales.len() {
        return Ok(None);
    }
    let code = |(place, x): (usize, f32)| {
        let channel = place / inner % size;
        // Half to even, and then the zero point: ONNX's rule.
        let rounded = f64::from((x / scales[channel]).round_ties_even());
        (rounded + zeros[channel] as f64).clamp(f64::from(low), f64::from(high)) as i16 as u8
    };
    let codes: Vec<u8> = values.floats()?.into_iter().enumerate().map(code).collect();
    Ok(Some(TensorProto::from_raw(&node.output[0], &shape, data_type, codes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::AttributeProto;

    fn codes(zero: Option<TensorProto>, scale: &[f32], axis: i64) -> Option<Vec<i64>> {
        let inputs: &[&str] = if zero.is_some() { &["w", "s", "z"] } else { &["w", "s"] };
        let node = NodeProto::new("QuantizeLinear", inputs, &["q"])
            .with(AttributeProto::of_int("axis", axis));
        let mut graph = GraphProto {
            node: vec![node],
            initializer: vec![
                TensorProto::from_f32("w", &[2, 2], &[0.5, 1.5, -300.0, 300.0]),
                TensorProto::from_f32("s", if scale.len() > 1 { &[2] } else { &[] }, scale),
            ],
            ..GraphProto::default()
        };
        graph.initializer.extend(zero);
        fold_learnt(&mut graph).unwrap();
        let found = graph.find_initializer("q")?;
        Some(found.ints().unwrap())
    }

    #[test]
    fn constants_are_quantized_as_onnx_says() {
        let zero = |value: i8| Some(TensorProto::from_i8("z", &[], &[value]));
        assert_eq!(codes(zero(0), &[1.0], 1), Some(vec![0, 2, -128, 127]));
        assert_eq!(codes(zero(3), &[1.0], 1), Some(vec![3, 5, -128, 127]));
        // Without a zero point they are unsigned.
        assert_eq!(codes(None, &[1.0], 1), Some(vec![0, 2, 0, 255]));
        let zeros = || Some(TensorProto::from_i8("z", &[2], &[0, 1]));
        assert_eq!(codes(zeros(), &[0.5, 3.0], 1), Some(vec![1, 1, -128, 101]));
        assert_eq!(codes(zeros(), &[0.5, 3.0], 0), Some(vec![1, 3, -99, 101]));
        assert_eq!(codes(zeros(), &[0.5, 3.0], 5), None);
    }
}
