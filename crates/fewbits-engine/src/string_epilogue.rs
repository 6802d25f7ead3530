//! Strings, which rten does not have: the labels that a classifier looks up at its very end.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::facts::{Moved, moved};
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use fewbits_ir::{Tensor, Values};

use crate::{Result, RuntimeError};

/// The part of a graph that works on strings, cut off to be run after the rest.
pub(crate) struct StringEpilogue {
    nodes: Vec<NodeProto>,
    tables: HashMap<String, Tensor>,
}

impl StringEpilogue {
    /// Cuts the nodes that read or write strings out of `graph` and makes the values they need
    /// outputs of what remains.
    pub(crate) fn cut(graph: &mut GraphProto) -> Result<StringEpilogue> {
        let mut strings: HashSet<String> = HashSet::new();
        let mut tables = HashMap::new();
        for tensor in graph.initializer.iter().filter(|t| t.data_type() == DataType::String as i32)
        {
            strings.insert(tensor.name().to_string());
            tables.insert(
                tensor.name().to_string(),
                Tensor::new(tensor.shape()?, tensor.strings()?)?,
            );
        }
        if let Some(input) = graph
            .input
            .iter()
            .find(|i| i.data_type() == Some(DataType::String) && !tables.contains_key(i.name()))
        {
            return Err(RuntimeError::Load {
                reason: format!(
                    "input '{}' holds strings, which the executor does not have",
                    input.name()
                ),
            });
        }
        let (mut text, mut numeric) = (Vec::new(), Vec::new());
        for node in std::mem::take(&mut graph.node) {
            if node.input.iter().any(|i| strings.contains(i)) {
                strings.extend(node.output.iter().cloned());
                text.push(node);
            } else {
                numeric.push(node);
            }
        }
        graph.node = numeric;
        let mut wanted = Vec::new();
        if !text.is_empty() {
            let index = Index::new(graph);
            for input in text.iter().flat_map(|n| &n.input).filter(|i| !strings.contains(*i)) {
                if let Some(constant) = index.initializer(input) {
                    tables.insert(input.clone(), Tensor::new(constant.shape()?, constant.ints()?)?);
                } else if !wanted.contains(input) {
                    wanted.push(input.clone());
                }
            }
        }
        graph.initializer.retain(|t: &TensorProto| t.data_type() != DataType::String as i32);
        graph.output.retain(|o| !strings.contains(o.name()));
        for name in &wanted {
            if !graph.is_output(name) {
                graph
                    .output
                    .push(ValueInfoProto { name: Some(name.clone()), ..Default::default() });
            }
        }
        Ok(StringEpilogue { nodes: text, tables })
    }

    /// Computes the strings from what the numeric part gave; adds them to `values`.
    pub(crate) fn run(&self, values: &mut HashMap<String, Tensor>) -> Result<()> {
        for node in &self.nodes {
            let output = self.step(node, values)?;
            values.insert(node.output[0].clone(), output);
        }
        Ok(())
    }

    fn step(&self, node: &NodeProto, values: &HashMap<String, Tensor>) -> Result<Tensor> {
        let input = |i: usize| {
            let name = node.input.get(i)?;
            self.tables.get(name).or_else(|| values.get(name))
        };
        let ints = |i: usize| -> Option<Vec<i64>> {
            Some(input(i)?.to_f64()?.into_iter().map(|v| v as i64).collect())
        };
        let computed = match moved(node) {
            Some(Moved::LookedUp) => {
                input(0).zip(input(1)).zip(ints(1)).and_then(|((table, index), picks)| {
                    let Values::Str(words) = table.values() else { return None };
                    let picked: Option<Vec<String>> = picks
                        .into_iter()
                        .map(|i| if i < 0 { i + words.len() as i64 } else { i })
                        .map(|i| words.get(usize::try_from(i).ok()?).cloned())
                        .collect();
                    // Along the only axis of a table.
                    (table.shape().len() == 1)
                        .then_some(Tensor::new(index.shape().to_vec(), picked?))
                })
            }
            Some(Moved::Same) => input(0).map(|t| Ok(t.clone())),
            Some(Moved::Reshaped) => input(0).zip(ints(1)).map(|(t, shape)| reshape(t, &shape)),
            Some(Moved::Flat) => input(0).map(|t| reshape(t, &[-1])),
            None => None,
        };
        computed.unwrap_or_else(|| {
            Err(RuntimeError::Run {
                reason: format!(
                    "node '{}' ({}) on strings is not supported",
                    node.label(),
                    node.op_type()
                ),
            })
        })
    }
}

fn reshape(tensor: &Tensor, shape: &[i64]) -> Result<Tensor> {
    let known: i64 = shape.iter().filter(|&&d| d > 0).product();
    let resolved = shape
        .iter()
        .map(|&d| if d < 0 { tensor.len() / (known.max(1) as usize) } else { d as usize })
        .collect();
    tensor.clone().reshaped(resolved)
}
