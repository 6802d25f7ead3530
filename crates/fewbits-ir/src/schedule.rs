//! The order of steps, in which what is left to another executor stays together.

use std::collections::{BTreeSet, HashMap, HashSet};

use fewbits_onnx::facts::is_random;
use fewbits_onnx::proto::GraphProto;

use crate::lower::Lowering;
use crate::program::ValueId;

/// Something that runs: a step, or a node left to another executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    Step(usize),
    Rest(usize),
}

/// The nodes that depend on no input of the graph.
pub(crate) fn constant_nodes(graph: &GraphProto) -> HashSet<usize> {
    let mut known: HashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    let mut constant = HashSet::new();
    for (position, node) in graph.node.iter().enumerate() {
        let mut all = !is_random(node);
        node.for_each_use(&mut |name| all &= known.contains(name));
        if all {
            constant.insert(position);
            known.extend(node.output.iter().map(String::as_str));
        }
    }
    constant
}

/// Who computes what from what.
pub(crate) struct Flow {
    producer: HashMap<ValueId, Item>,
    pub reads: HashMap<Item, Vec<ValueId>>,
}

impl Flow {
    pub(crate) fn new(graph: &GraphProto, lowering: &Lowering, constant: &HashSet<usize>) -> Flow {
        let mut flow = Flow { producer: HashMap::new(), reads: HashMap::new() };
        for (i, step) in lowering.steps.iter().enumerate() {
            for &output in &step.outputs {
                flow.producer.insert(output, Item::Step(i));
            }
            flow.reads.insert(Item::Step(i), step.inputs.clone());
        }
        let constants: HashSet<&str> =
            constant.iter().flat_map(|&n| &graph.node[n].output).map(String::as_str).collect();
        for &position in lowering.rest.iter().filter(|&n| !constant.contains(n)) {
            let node = &graph.node[position];
            for output in &node.output {
                if let Some(&id) = lowering.tensors.get(output.as_str()) {
                    flow.producer.insert(id, Item::Rest(position));
                }
            }
            let mut reads = Vec::new();
            node.for_each_use(&mut |name| {
                let id = lowering.tensors.get(name).filter(|_| !constants.contains(name));
                reads.extend(id);
            });
            flow.reads.insert(Item::Rest(position), reads);
        }
        flow
    }

    /// What the outputs need.
    pub(crate) fn live(&self, outputs: &[ValueId]) -> BTreeSet<Item> {
        let mut live = BTreeSet::new();
        let mut open: Vec<ValueId> = outputs.to_vec();
        while let Some(id) = open.pop() {
            if let Some(&item) = self.producer.get(&id)
                && live.insert(item)
            {
                open.extend(&self.reads[&item]);
            }
        }
        live
    }

    /// An order in which nodes that are left stay together as far as they can.
    pub(crate) fn order(&self, live: &BTreeSet<Item>) -> Vec<Item> {
        let mut waiting: HashMap<Item, usize> = HashMap::new();
        let mut readers: HashMap<Item, Vec<Item>> = HashMap::new();
        for &item in live {
            let needs: HashSet<Item> =
                self.reads[&item].iter().filter_map(|id| self.producer.get(id).copied()).collect();
            waiting.insert(item, needs.len());
            for need in needs {
                readers.entry(need).or_default().push(item);
            }
        }
        let mut ready: BTreeSet<Item> =
            live.iter().copied().filter(|item| waiting[item] == 0).collect();
        let mut order: Vec<Item> = Vec::with_capacity(live.len());
        while !ready.is_empty() {
            let is_rest = |item: &Item| matches!(item, Item::Rest(_));
            let rest_now = order.last().is_some_and(is_rest);
            let next = ready
                .iter()
                .copied()
                .find(|item| is_rest(item) == rest_now)
                .unwrap_or_else(|| *ready.first().expect("not empty"));
            ready.remove(&next);
            order.push(next);
            for reader in readers.get(&next).into_iter().flatten() {
                let needs = waiting.get_mut(reader).expect("every reader waits");
                *needs -= 1;
                if *needs == 0 {
                    ready.insert(*reader);
                }
            }
        }
        order
    }
}
