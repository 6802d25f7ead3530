//! From lowered units to a program: an order, regions for the float executor, and memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;

use fewbits_kernels::Buffer;
use fewbits_onnx::Model;
use fewbits_onnx::facts::{is_exact, is_random};
use fewbits_onnx::proto::{
    DataType, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

use crate::integer::lower::Lowering;
use crate::integer::program::{AnyStep, Place, Program, Unit};
use crate::integer::state::{Value, ValueId};
use crate::integer::steps::region::Region;
use crate::integer::steps::shape;
use crate::{FloatRunner, Result, RunOptions, Runner, RuntimeError, Tensor, ValueSpec, Values};

/// Something that runs: one of our own units, or a node left to the float executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Item {
    Unit(usize),
    Rest(usize),
}

/// Puts what the outputs need in an order, and gives it memory.
pub(crate) fn schedule(
    model: &Model,
    mut lowering: Lowering,
    constant: &HashSet<usize>,
    inputs: &[ValueSpec],
    outputs: &[ValueSpec],
    options: &RunOptions,
) -> Result<Program> {
    let graph = model.graph();
    let output_ids: Vec<ValueId> =
        outputs.iter().map(|o| lowering.tensors[o.name.as_str()]).collect();
    let flow = Flow::new(graph, &lowering, constant);
    let order = flow.order(&flow.live(&output_ids));
    let wanted: HashSet<ValueId> = order
        .iter()
        .filter(|item| matches!(item, Item::Unit(_)))
        .flat_map(|item| flow.reads[item].iter().copied())
        .chain(output_ids.iter().copied())
        .collect();
    // Runs of nodes that are left become one model each.
    let mut runs: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
    for item in &order {
        match *item {
            Item::Unit(unit) => match runs.last_mut() {
                Some((_, units)) => units.push(unit),
                None => runs.push((Vec::new(), vec![unit])),
            },
            Item::Rest(node) => match runs.last_mut() {
                Some((nodes, units)) if units.is_empty() => nodes.push(node),
                _ => runs.push((vec![node], Vec::new())),
            },
        }
    }
    let read_by: Vec<HashSet<ValueId>> = runs
        .iter()
        .map(|(nodes, _)| nodes.iter().flat_map(|&n| flow.reads[&Item::Rest(n)].clone()).collect())
        .collect();
    drop(flow);
    let folded = folded(model, &lowering, constant, &wanted)?;
    let own = runs.iter().flat_map(|(_, own)| own.iter().copied()).collect();
    lowering.account(&own, constant);
    let mut units: Vec<Option<Unit>> =
        std::mem::take(&mut lowering.units).into_iter().map(Some).collect();
    let mut ordered = Vec::new();
    for (i, (nodes, own)) in runs.into_iter().enumerate() {
        if !nodes.is_empty() {
            let later = |id: &ValueId| {
                wanted.contains(id) || read_by[i + 1..].iter().any(|reads| reads.contains(id))
            };
            ordered.push(region(model, &lowering, constant, nodes, later, options)?);
        }
        ordered.extend(own.into_iter().filter_map(|unit| units[unit].take()));
    }
    let inputs: Vec<(ValueSpec, ValueId)> = inputs
        .iter()
        .filter_map(|spec| Some((spec.clone(), *lowering.tensors.get(spec.name.as_str())?)))
        .collect();
    let mut constants = constants(&lowering)?;
    constants.extend(folded);
    constants.sort_by_key(|(id, ..)| *id);
    let known: HashSet<ValueId> = ordered
        .iter()
        .flat_map(|unit| &unit.outputs)
        .chain(inputs.iter().map(|(_, id)| id))
        .chain(constants.iter().map(|(id, ..)| id))
        .copied()
        .collect();
    if let Some((name, _)) =
        lowering.tensors.iter().find(|(_, id)| wanted.contains(id) && !known.contains(id))
    {
        return Err(RuntimeError::Load { reason: format!("nothing computes the value '{name}'") });
    }
    for unit in &mut ordered {
        let given = lowering.tensors.iter().filter(|(_, id)| unit.outputs.contains(id));
        unit.gives = given.map(|(name, _)| name.to_string()).collect();
    }
    let memory = Memory::assign(&lowering, &ordered, &inputs, &output_ids, &constants);
    Ok(Program {
        values: lowering
            .values
            .iter()
            .map(|known| Value { halo: known.halo, is_ints: known.is_ints, ..Value::default() })
            .collect(),
        slot_of: memory,
        units: ordered,
        constants,
        inputs,
        outputs: outputs.iter().cloned().zip(output_ids).collect(),
    })
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
struct Flow {
    producer: HashMap<ValueId, Item>,
    reads: HashMap<Item, Vec<ValueId>>,
}

impl Flow {
    fn new(graph: &GraphProto, lowering: &Lowering, constant: &HashSet<usize>) -> Flow {
        let mut flow = Flow { producer: HashMap::new(), reads: HashMap::new() };
        for (i, unit) in lowering.units.iter().enumerate() {
            for &output in &unit.outputs {
                flow.producer.insert(output, Item::Unit(i));
            }
            flow.reads.insert(Item::Unit(i), unit.inputs.clone());
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
    fn live(&self, outputs: &[ValueId]) -> BTreeSet<Item> {
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
    fn order(&self, live: &BTreeSet<Item>) -> Vec<Item> {
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

/// Nodes as a model of their own, with the constant nodes that they read.
fn region(
    model: &Model,
    lowering: &Lowering,
    constant: &HashSet<usize>,
    mut nodes: Vec<usize>,
    is_read_later: impl Fn(&ValueId) -> bool,
    options: &RunOptions,
) -> Result<Unit> {
    let graph = model.graph();
    let label = graph.node[nodes[0]].label().to_string();
    let what = names_of(graph, &nodes);
    let (count, why) = (nodes.len(), lowering.why(&nodes));
    let is_exact = nodes.iter().all(|&n| is_exact(&graph.node[n]));
    let own: HashSet<usize> = nodes.iter().copied().collect();
    // The constant nodes that these read, and those read by them.
    let producer: HashMap<&str, usize> = constant
        .iter()
        .flat_map(|&n| graph.node[n].output.iter().map(move |o| (o.as_str(), n)))
        .collect();
    let mut seen: HashSet<usize> = own.clone();
    let mut open = nodes.clone();
    while let Some(position) = open.pop() {
        graph.node[position].for_each_use(&mut |name| {
            if let Some(&needed) = producer.get(name)
                && seen.insert(needed)
            {
                nodes.push(needed);
                open.push(needed);
            }
        });
    }
    nodes.sort_unstable();
    let produced: HashSet<&str> =
        nodes.iter().flat_map(|&n| &graph.node[n].output).map(String::as_str).collect();
    let mut inputs: Vec<&str> = Vec::new();
    let mut constants: BTreeSet<&str> = BTreeSet::new();
    for &position in &nodes {
        graph.node[position].for_each_use(&mut |name| {
            if lowering.net.initializer(name).is_some() {
                constants.insert(name);
            } else if !produced.contains(name)
                && !inputs.contains(&name)
                && lowering.tensors.contains_key(name)
            {
                inputs.push(name);
            }
        });
    }
    // What constant nodes give is computed once, when the model is loaded.
    let outputs: Vec<&str> = nodes
        .iter()
        .filter(|n| own.contains(n))
        .flat_map(|&n| &graph.node[n].output)
        .map(String::as_str)
        .filter(|o| lowering.tensors.get(o).is_some_and(&is_read_later))
        .collect();
    let part = GraphProto {
        name: graph.name.clone(),
        node: nodes.iter().map(|&n| graph.node[n].clone()).collect(),
        initializer: constants
            .iter()
            .filter_map(|n| lowering.net.initializer(n).cloned())
            .collect(),
        input: inputs.iter().map(|n| declared(lowering, n)).collect(),
        output: outputs.iter().map(|n| declared(lowering, n)).collect(),
        ..GraphProto::default()
    };
    let mut part_model = Model::from_graph(part, model.opset());
    let proto: &mut ModelProto = part_model.proto_mut();
    proto.opset_import = model.proto().opset_import.clone();
    proto.ir_version = model.proto().ir_version;
    let options = RunOptions { threads: options.threads, ..RunOptions::default() };
    let runner = FloatRunner::new(&part_model, &options)?;
    let id = |name: &&str| lowering.tensors[*name];
    let (input_ids, output_ids): (Vec<_>, Vec<_>) =
        (inputs.iter().map(id).collect(), outputs.iter().map(id).collect());
    Ok(Unit {
        step: AnyStep::Region(Box::new(Region {
            runner,
            is_exact,
            inputs: inputs.iter().map(|n| n.to_string()).zip(input_ids.iter().copied()).collect(),
            outputs: output_ids.clone(),
        })),
        inputs: input_ids,
        outputs: output_ids,
        shares_memory: false,
        what,
        node: label,
        place: Place::Rten,
        gives: Vec::new(),
        nodes: count,
        why,
    })
}

/// `2 Add, Softmax`.
fn names_of(graph: &GraphProto, nodes: &[usize]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for node in nodes.iter().map(|&n| &graph.node[n]).map(NodeProto::op_type) {
        match counts.iter_mut().find(|(op, _)| *op == node) {
            Some((_, count)) => *count += 1,
            None => counts.push((node, 1)),
        }
    }
    let names: Vec<String> = counts
        .into_iter()
        .map(|(op, n)| if n == 1 { op.to_string() } else { format!("{n} {op}") })
        .collect();
    names.join(", ")
}

/// A value of a region, with its type if that is known, and without axes if it has none.
fn declared(lowering: &Lowering, name: &str) -> ValueInfoProto {
    match lowering.types.get(name) {
        Some(&data_type) => {
            let mut info = ValueInfoProto::tensor(name, data_type as i32, &[]);
            if let Some(t) = info.r#type.as_mut()
                && let Some(fewbits_onnx::proto::TypeValue::TensorType(t)) = t.value.as_mut()
                && lowering.ranks.get(name) != Some(&0)
            {
                t.shape = None;
            }
            info
        }
        None => ValueInfoProto { name: Some(name.to_string()), ..Default::default() },
    }
}

/// The initializers that our own steps read, or the graph gives out.
fn constants(lowering: &Lowering) -> Result<Vec<(ValueId, Value, Buffer)>> {
    let mut constants = Vec::new();
    for (name, &id) in &lowering.tensors {
        if let Some(tensor) = lowering.net.initializer(name)
            && let Some(tensor) = constant_tensor(tensor)?
        {
            constants.push(stored(id, &tensor)?);
        }
    }
    Ok(constants)
}

/// An initializer, unless it is of a type that runs do not have.
pub(crate) fn constant_tensor(tensor: &TensorProto) -> Result<Option<Tensor>> {
    let (shape, data_type) = (tensor.shape()?, tensor.element_type()?);
    Ok(match data_type {
        DataType::Float => Some(Tensor::new(shape, tensor.floats()?)?),
        DataType::Double => Some(Tensor::new(shape, tensor.doubles()?)?),
        DataType::String => Some(Tensor::new(shape, tensor.strings()?)?),
        DataType::Int64 | DataType::Int32 | DataType::Int8 | DataType::Uint8 | DataType::Bool => {
            Some(Tensor::new(shape, tensor.ints()?)?.cast(data_type)?)
        }
        _ => None,
    })
}

/// The values of constant nodes that our own steps read or the graph gives out, computed once.
fn folded(
    model: &Model,
    lowering: &Lowering,
    constant: &HashSet<usize>,
    wanted: &HashSet<ValueId>,
) -> Result<Vec<(ValueId, Value, Buffer)>> {
    let is_wanted =
        |name: &String| lowering.tensors.get(name.as_str()).is_some_and(|id| wanted.contains(id));
    let nodes: Vec<usize> = constant
        .iter()
        .copied()
        .filter(|&n| model.graph().node[n].output.iter().any(is_wanted))
        .collect();
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let options = RunOptions { threads: NonZeroUsize::new(1), ..RunOptions::default() };
    let unit = region(model, lowering, constant, nodes, |id| wanted.contains(id), &options)?;
    let AnyStep::Region(region) = &unit.step else { unreachable!("it was just made") };
    let tensors = region.runner.run(&[])?;
    region.outputs.iter().zip(&tensors).map(|(&id, (_, tensor))| stored(id, tensor)).collect()
}

/// A value that is known before the first run.
fn stored(id: ValueId, tensor: &Tensor) -> Result<(ValueId, Value, Buffer)> {
    let shape = shape(tensor.shape())?;
    Ok(match tensor.values() {
        Values::F32(floats) => {
            let mut buffer = Buffer::new(floats.len() * 4);
            buffer.f32s_mut().copy_from_slice(floats);
            (id, Value { shape, ..Value::default() }, buffer)
        }
        _ => (
            id,
            Value { shape, tensor: Some(tensor.clone()), ..Value::default() },
            Buffer::default(),
        ),
    })
}

/// Memory by the time in which values are needed: the slot that was freed last, which the caches
/// still hold, is used first.
struct Memory;

impl Memory {
    fn assign(
        lowering: &Lowering,
        order: &[Unit],
        inputs: &[(ValueSpec, ValueId)],
        outputs: &[ValueId],
        constants: &[(ValueId, Value, Buffer)],
    ) -> Vec<u32> {
        let count = lowering.values.len();
        let mut root: Vec<usize> = (0..count).collect();
        for unit in order.iter().filter(|u| u.shares_memory) {
            root[unit.outputs[0].index()] = root[unit.inputs[0].index()];
        }
        let mut last_use = vec![0; count];
        for (time, unit) in order.iter().enumerate() {
            for id in unit.inputs.iter().chain(&unit.outputs) {
                last_use[root[id.index()]] = time;
            }
        }
        for id in outputs.iter().chain(constants.iter().map(|(id, ..)| id)) {
            last_use[root[id.index()]] = usize::MAX;
        }
        let mut slot_of = vec![0u32; count];
        let mut next = 0;
        let mut free: Vec<u32> = Vec::new();
        let mut take = |free: &mut Vec<u32>| {
            free.pop().unwrap_or_else(|| {
                next += 1;
                next - 1
            })
        };
        for id in inputs.iter().map(|(_, id)| id).chain(constants.iter().map(|(id, ..)| id)) {
            slot_of[id.index()] = take(&mut free);
        }
        for (time, unit) in order.iter().enumerate() {
            for id in unit.outputs.iter().map(|id| id.index()).filter(|&id| root[id] == id) {
                slot_of[id] = take(&mut free);
            }
            let mut done: Vec<usize> =
                unit.inputs.iter().chain(&unit.outputs).map(|id| root[id.index()]).collect();
            done.sort_unstable();
            done.dedup();
            free.extend(done.into_iter().filter(|&id| last_use[id] == time).map(|id| slot_of[id]));
        }
        (0..count).map(|id| slot_of[root[id]]).collect()
    }
}
