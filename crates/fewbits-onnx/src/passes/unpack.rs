//! Quantized weights become the floats that they stand for.

use std::collections::HashSet;

use crate::graph::Names;
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};
use crate::qweight::{ReadWeight, WeightReader};

/// Replaces the operators that unpack and dequantize such weights by initializers of FLOAT. What a product reads as
/// packed integers stays.
pub fn unpack_weights(graph: &mut GraphProto, which: impl Fn(&ReadWeight) -> bool) {
    let mut names = Names::new(graph);
    let given: HashSet<&str> =
        graph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
    let is_given =
        |found: &ReadWeight| found.lookup.is_some() || given.contains(found.name.as_str());
    let mut weights: Vec<TensorProto> = Vec::new();
    let mut lookups = Vec::new();
    for found in WeightReader::new(graph).weights().filter(|found| is_given(found) && which(found))
    {
        let name = match found.lookup {
            None => found.name,
            Some((position, index)) => {
                let table = names.fresh("table");
                lookups.push((position, table.clone(), index));
                table
            }
        };
        let shape = found.weight.layout().shape();
        weights.push(TensorProto::from_f32(&name, shape, &found.weight.dequantize()));
    }
    for (position, table, index) in lookups {
        let output = graph.node[position].output[0].clone();
        graph.node[position] = NodeProto::new("Gather", &[&table, &index], &[&output]);
    }
    let gone: HashSet<&str> = weights.iter().map(TensorProto::name).collect();
    for node in &mut graph.node {
        node.output.iter_mut().filter(|o| gone.contains(o.as_str())).for_each(String::clear);
    }
    // What produced them is dead now.
    graph.node.retain(|n| n.output.iter().any(|o| !o.is_empty()));
    graph.initializer.extend(weights);
}

/// Whether a weight has integers of 8 bits and is read as FLOAT.
pub fn is_of_bytes(found: &ReadWeight) -> bool {
    let codes = found.weight.codes();
    codes.width() == 8 && codes.encoding().floats().is_none() && found.data_type == DataType::Float
}
