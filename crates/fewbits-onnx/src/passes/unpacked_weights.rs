//! Operators that unpack and dequantize weights give way to the floats that these stand for.

use crate::Model;
use crate::graph::Names;
use crate::proto::{NodeProto, TensorProto};
use crate::qweight::WeightReader;

/// Replaces every quantized weight of the main graph by a float initializer.
pub fn unpack_weights(model: &mut Model) {
    let mut names = Names::new(model.graph());
    let mut weights: Vec<TensorProto> = Vec::new();
    let mut lookups = Vec::new();
    for found in WeightReader::new(model.graph()).weights() {
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
    let graph = model.graph_mut();
    for (position, table, index) in lookups {
        let output = graph.node[position].output[0].clone();
        graph.node[position] = NodeProto::new("Gather", &[&table, &index], &[&output]);
    }
    for weight in &weights {
        for node in &mut graph.node {
            node.output.iter_mut().filter(|o| *o == weight.name()).for_each(String::clear);
        }
    }
    // What produced them is dead now.
    graph.node.retain(|n| n.output.iter().any(|o| !o.is_empty()));
    graph.initializer.extend(weights);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::GraphProto;

    #[test]
    fn a_weight_becomes_its_floats() {
        let graph = GraphProto {
            node: vec![
                NodeProto::new("DequantizeLinear", &["q", "s"], &["w"]),
                NodeProto::new("MatMul", &["x", "w"], &["y"]),
            ],
            initializer: vec![
                TensorProto::from_i8("q", &[2, 1], &[2, -4]),
                TensorProto::from_f32("s", &[], &[0.5]),
            ],
            ..GraphProto::default()
        };
        let mut model = Model::from_graph(graph, 17);
        unpack_weights(&mut model);
        assert_eq!(model.graph().node.len(), 1);
        let weight = model.graph().find_initializer("w").unwrap();
        assert_eq!(weight.floats().unwrap(), [1.0, -2.0]);
    }
}
