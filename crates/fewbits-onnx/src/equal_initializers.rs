//! Initializers that repeat another one.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::proto::{GraphProto, TensorProto};

/// Payloads are told apart by so many of their first bytes before they are compared as a whole.
const HEAD_BYTES: usize = 64;

/// Drops initializers that repeat another one, and lets their readers share it: weights under several
/// names, shapes, axes, zero points.
pub fn share_equal_initializers(graph: &mut GraphProto) {
    let fixed: HashSet<String> =
        graph.input.iter().chain(&graph.output).map(|v| v.name().to_string()).collect();
    // Of each shape, type and head the positions of those kept.
    let mut alike: HashMap<(Vec<i64>, i32, Bytes), Vec<usize>> = HashMap::new();
    let mut kept: Vec<TensorProto> = Vec::with_capacity(graph.initializer.len());
    let mut renames = HashMap::new();
    for tensor in std::mem::take(&mut graph.initializer) {
        if fixed.contains(tensor.name()) {
            kept.push(tensor);
            continue;
        }
        let payload = tensor.raw_data.clone().unwrap_or_default();
        let head = payload.slice(..payload.len().min(HEAD_BYTES));
        let alike = alike.entry((tensor.dims.clone(), tensor.data_type(), head)).or_default();
        match alike.iter().map(|&i| &kept[i]).find(|first| same_content(first, &tensor)) {
            Some(first) => {
                renames.insert(tensor.name().to_string(), first.name().to_string());
            }
            None => {
                alike.push(kept.len());
                kept.push(tensor);
            }
        }
    }
    graph.initializer = kept;
    for (from, to) in renames {
        graph.replace_uses(&from, &to);
    }
}

/// Whether two tensors of one shape and type hold the same, in whichever field.
pub fn same_content(a: &TensorProto, b: &TensorProto) -> bool {
    let lists = |t: &TensorProto| {
        (t.float_data.len(), t.int32_data.len(), t.int64_data.len(), t.double_data.len())
    };
    if a.is_external() || b.is_external() || lists(a) != lists(b) {
        return false;
    }
    // By their bits: a NaN is itself, and zeros have signs.
    let floats = a.float_data.iter().zip(&b.float_data).all(|(x, y)| x.to_bits() == y.to_bits());
    let doubles = a.double_data.iter().zip(&b.double_data).all(|(x, y)| x.to_bits() == y.to_bits());
    floats
        && doubles
        && a.int32_data == b.int32_data
        && a.int64_data == b.int64_data
        && a.uint64_data == b.uint64_data
        && a.string_data == b.string_data
        && a.raw_data() == b.raw_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{NodeProto, ValueInfoProto};

    fn graph(nodes: Vec<NodeProto>) -> GraphProto {
        GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(2)])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None, Some(2)])],
            initializer: vec![
                TensorProto::from_f32("w", &[1], &[1.0]),
                TensorProto::from_f32("unused", &[1], &[1.0]),
            ],
            ..GraphProto::default()
        }
    }

    #[test]
    fn equal_initializers_are_shared_whatever_their_size_and_form() {
        let mut g = graph(vec![NodeProto::new("Concat", &["a", "b", "c", "d", "e", "f"], &["y"])]);
        let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let typed = |name: &str| TensorProto {
            raw_data: None,
            float_data: values.clone(),
            ..TensorProto::from_f32(name, &[1000], &values)
        };
        let mut other = values.clone();
        other[999] = -1.0;
        g.initializer = vec![
            TensorProto::from_f32("a", &[1000], &values),
            TensorProto::from_f32("b", &[1000], &values),
            TensorProto::from_f32("c", &[1000], &other),
            typed("d"),
            typed("e"),
            TensorProto::from_f32("f", &[10, 100], &values),
        ];
        share_equal_initializers(&mut g);
        assert_eq!(g.node[0].input, ["a", "a", "c", "d", "d", "f"]);
        assert_eq!(g.initializer.len(), 4);
    }

    #[test]
    fn equal_small_initializers_are_shared() {
        let mut g = graph(vec![NodeProto::new("Add", &["w", "unused"], &["y"])]);
        share_equal_initializers(&mut g);
        assert_eq!(g.node[0].input, ["w", "w"]);
        assert_eq!(g.initializer.len(), 1);
    }
}
