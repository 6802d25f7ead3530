//! A lookup in a constant table moves behind the operators that only shape its result, so that
//! strings appear at the very end of the graph, and goes where it gives each index itself.

use crate::Result;
use crate::facts::Facts;
use crate::graph::{Index, Names};
use crate::proto::{AttributeProto, DataType, GraphProto, TensorProto};

/// Moves every such lookup as far back as it goes.
pub(super) fn gather_last(graph: &mut GraphProto, names: &mut Names) -> Result<()> {
    let mut position = 0;
    while position < graph.node.len() {
        // What moved may lie anywhere now, and each move takes a node away or a lookup further.
        position = if move_back(graph, names, position)? { 0 } else { position + 1 };
    }
    drop_counting_tables(graph)
}

/// The table of the lookup at `position`: a constant vector.
fn table(graph: &GraphProto, position: usize) -> Option<&TensorProto> {
    let node = &graph.node[position];
    if !node.is("Gather") || node.int("axis", 0) != 0 {
        return None;
    }
    if node.input.len() != 2 || node.output.len() != 1 {
        return None;
    }
    let is_input = graph.input.iter().any(|i| i.name() == node.input[0]);
    graph.find_initializer(&node.input[0]).filter(|t| t.dims.len() == 1 && !is_input)
}

/// Moves the lookup at `position` behind its only reader, if that only shapes or casts.
fn move_back(graph: &mut GraphProto, names: &mut Names, position: usize) -> Result<bool> {
    let Some(table) = table(graph, position) else { return Ok(false) };
    let index = Index::new(graph);
    let output = &graph.node[position].output[0];
    let &[reader] = index.consumers(output) else { return Ok(false) };
    // Graph outputs are no consumers, and subgraphs read by name.
    if index.is_output(output) || graph.node[reader].input.first() != Some(output) {
        return Ok(false);
    }
    let next = &graph.node[reader];
    if !next.is_onnx() || next.output.len() != 1 {
        return Ok(false);
    }
    match next.op_type() {
        "Cast" => {
            let Some(cast) = cast_table(table, next.int("to", 0))? else { return Ok(false) };
            let cast = TensorProto { name: Some(names.fresh(table.name())), ..cast };
            graph.node[position].input[0] = cast.name().to_string();
            graph.initializer.push(cast);
            graph.node[position].output = graph.node.remove(reader).output;
        }
        "Identity" => {
            graph.node[position].output = graph.node.remove(reader).output;
        }
        "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
            let shaped = names.fresh("i");
            let mut lookup = graph.node.remove(position);
            let next = &mut graph.node[reader - 1];
            next.input[0] = std::mem::replace(&mut lookup.input[1], shaped.clone());
            lookup.output = std::mem::replace(&mut next.output, vec![shaped]);
            graph.node.insert(reader, lookup);
            join_shapes(graph, reader - 1);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A table with its elements cast to `to`, where that is exact.
fn cast_table(table: &TensorProto, to: i64) -> Result<Option<TensorProto>> {
    let from = table.element_type()?;
    if from as i64 == to {
        return Ok(Some(table.clone()));
    }
    if from == DataType::Int32 && to == DataType::Int64 as i64 {
        let values = table.ints()?;
        return Ok(Some(TensorProto::from_i64("", &[values.len()], &values)));
    }
    Ok(None)
}

/// Lets the `Reshape` at `position` read what a `Reshape` before it read, and an `ArgMax` before
/// it drop the axis that it would drop.
fn join_shapes(graph: &mut GraphProto, position: usize) {
    let node = &graph.node[position];
    let shape = node.input.get(1).and_then(|name| graph.find_initializer(name));
    let Some(shape) = shape.and_then(|t| t.ints().ok()) else { return };
    if !node.is("Reshape") || shape.contains(&0) {
        return;
    }
    let index = Index::new(graph);
    let Some(producer) = index.producer(&node.input[0]) else { return };
    let before = &graph.node[producer];
    let only_reader =
        index.consumers(&node.input[0]).len() == 1 && !index.is_output(&node.input[0]);
    let Some(source) = before.input.first().cloned() else { return };
    if before.is("Reshape") {
        graph.node[position].input[0] = source;
        if !only_reader {
            return join_shapes(graph, position);
        }
        graph.node.remove(producer);
        return join_shapes(graph, position - 1);
    }
    let of_rows = before.is("ArgMax")
        && before.int("axis", 0) == 1
        && before.int("keepdims", 1) == 1
        && Facts::of(graph).rank(&source) == Some(2);
    if of_rows && only_reader && shape == [-1] {
        let output = graph.node[position].output.clone();
        let argmax = &mut graph.node[producer];
        argmax.attribute.retain(|a| a.name() != "keepdims");
        argmax.attribute.push(AttributeProto::of_int("keepdims", 0));
        argmax.output = output;
        graph.node.remove(position);
    }
}

/// Makes an `Identity` of every lookup in `0, 1, 2, ...`; the clean-up drops it.
fn drop_counting_tables(graph: &mut GraphProto) -> Result<()> {
    let facts = Facts::of(graph);
    for position in 0..graph.node.len() {
        let Some(table) = table(graph, position) else { continue };
        if table.element_type()? != DataType::Int64
            || facts.data_type(&graph.node[position].input[1]) != Some(DataType::Int64)
            || !table.ints()?.into_iter().eq(0..table.dims[0])
        {
            continue;
        }
        let node = &mut graph.node[position];
        node.op_type = Some("Identity".into());
        node.attribute.clear();
        node.input.remove(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::model;
    use super::*;
    use crate::proto::NodeProto;

    #[test]
    fn a_lookup_that_gives_its_index_goes_with_casts_and_shapes() {
        let mut m = model(
            vec![
                NodeProto::new("ArgMax", &["x"], &["i"]).with(AttributeProto::of_int("axis", 1)),
                NodeProto::new("Gather", &["classes", "i"], &["l"]),
                NodeProto::new("Reshape", &["l", "flat"], &["r"]),
                NodeProto::new("Cast", &["r"], &["y"]).with(AttributeProto::of_int("to", 7)),
            ],
            17,
        );
        m.graph_mut().initializer = vec![
            TensorProto::from_i32("classes", &[2], &[0, 1]),
            TensorProto::from_i64("flat", &[1], &[-1]),
        ];
        let mut names = Names::new(m.graph());
        gather_last(m.graph_mut(), &mut names).unwrap();
        let ops: Vec<&str> = m.graph().node.iter().map(|n| n.op_type()).collect();
        assert_eq!(ops, ["ArgMax", "Identity"]);
    }

    #[test]
    fn a_result_that_others_read_stays_where_it_is() {
        let mut m = model(
            vec![
                NodeProto::new("Gather", &["t", "x"], &["l"]),
                NodeProto::new("Reshape", &["l", "flat"], &["r"]),
                NodeProto::new("Concat", &["r", "l"], &["y"]),
            ],
            17,
        );
        m.graph_mut().initializer = vec![
            TensorProto::from_strings("t", &[1], &["a"]),
            TensorProto::from_i64("flat", &[1], &[-1]),
        ];
        let before = m.graph().clone();
        let mut names = Names::new(m.graph());
        gather_last(m.graph_mut(), &mut names).unwrap();
        assert_eq!(*m.graph(), before);
    }
}
