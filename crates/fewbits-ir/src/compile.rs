//! From the steps of a graph to its program.

use std::collections::HashSet;
use std::mem::take;

use fewbits_onnx::Model;
use fewbits_onnx::facts::CommonScales;

use crate::fallback::fallback;
use crate::lower::{Lowering, Rule};
use crate::program::{Constant, Fact, Program, Step, ValueId};
use crate::rules::RULES;
use crate::schedule::{Flow, Item, constant_nodes};
use crate::tensor::constant_tensor;
use crate::view::GraphView;
use crate::{F64Prologue, Result, RuntimeError, input_specs, output_specs, prepare, rows};

/// Bytes of stack for lowering, which follows the graph from its outputs: a frame for each node of
/// the longest path.
const STACK_BYTES: usize = 256 << 20;

impl Program {
    /// Lowers a model, whatever form it has.
    ///
    /// # Errors
    /// If it holds an operator that no executor has, by name, or is damaged.
    pub fn new(model: &Model) -> Result<Program> {
        Program::of_prepared(prepare::prepare_quantized(model)?)
    }

    /// Lowers what was prepared.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn of_prepared(mut model: Model) -> Result<Program> {
        let prologue = F64Prologue::cut(model.graph_mut())?;
        // Where there are no threads the stack must do as it is.
        if cfg!(target_family = "wasm") {
            return lowered(&model, prologue, &RULES);
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || lowered(&model, prologue, &RULES))
                .map_err(|e| RuntimeError::Load { reason: format!("no thread: {e}") })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Finds the nodes, by their positions, that steps here compute wherever they stand: what other executors make of
/// them does not count.
pub fn own_nodes(model: &Model) -> HashSet<usize> {
    let graph = model.graph();
    let lowering = Lowering::new(GraphView::new(graph, model.opset()), &RULES);
    let nodes = graph.node.iter().enumerate();
    nodes.filter(|(_, node)| lowering.is_taken_anywhere(node)).map(|(at, _)| at).collect()
}

/// Lowers what was prepared, by some rules.
pub(crate) fn lowered(
    model: &Model,
    prologue: F64Prologue,
    rules: &'static [Rule],
) -> Result<Program> {
    let graph = model.graph();
    let view = GraphView::new(graph, model.opset());
    let known = rows::known(&view);
    let are_apart = rows::are_apart(&view, CommonScales::Mix);
    let mut lowering = Lowering::new(view, rules);
    let constant = constant_nodes(graph);
    lowering.choose_integer_products(&constant);
    lowering.choose_integer_arithmetic()?;
    lowering.choose_float_nodes(&constant);
    for input in &graph.input {
        lowering.tensor(input.name());
    }
    for output in &graph.output {
        lowering.tensor(output.name());
    }
    let (specs, output_specs) = (input_specs(graph), output_specs(graph));
    let outputs: Vec<ValueId> =
        output_specs.iter().map(|output| lowering.tensors[output.name.as_str()]).collect();
    let (once, steps) = steps(model, &mut lowering, &constant, &outputs);
    let inputs: Vec<_> = specs
        .iter()
        .filter_map(|spec| Some((spec.clone(), *lowering.tensors.get(spec.name.as_str())?)))
        .collect();
    let constants = constants(&lowering)?;
    lowering.tell_facts();
    // Where another executor rounds, last bits may depend on the rows of a call.
    let is_cut = are_apart && steps.iter().all(|step| step.op.is_exact());
    let program = Program {
        prologue,
        values: take(&mut lowering.values),
        once,
        steps,
        constants,
        inputs,
        outputs: output_specs.into_iter().zip(outputs).collect(),
        rows: known,
        is_cut,
        weight_bytes: model.weight_bytes() as usize,
    };
    program.check()?;
    Ok(program)
}

/// The steps that run once and those of every run, in their order.
fn steps(
    model: &Model,
    lowering: &mut Lowering,
    constant: &HashSet<usize>,
    outputs: &[ValueId],
) -> (Vec<Step>, Vec<Step>) {
    let flow = Flow::new(model.graph(), lowering, constant);
    let order = flow.order(&flow.live(outputs));
    let wanted: HashSet<ValueId> = order
        .iter()
        .filter(|item| matches!(item, Item::Step(_)))
        .flat_map(|item| flow.reads[item].iter().copied())
        .chain(outputs.iter().copied())
        .collect();
    // Runs of nodes that are left become one model each.
    let mut runs: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
    for item in &order {
        match *item {
            Item::Step(step) => match runs.last_mut() {
                Some((_, steps)) => steps.push(step),
                None => runs.push((Vec::new(), vec![step])),
            },
            Item::Rest(node) => match runs.last_mut() {
                Some((nodes, steps)) if steps.is_empty() => nodes.push(node),
                _ => runs.push((vec![node], Vec::new())),
            },
        }
    }
    let read_by: Vec<HashSet<ValueId>> = runs
        .iter()
        .map(|(nodes, _)| nodes.iter().flat_map(|&n| flow.reads[&Item::Rest(n)].clone()).collect())
        .collect();
    // The values of constant nodes that steps read or the graph gives out.
    let is_wanted =
        |name: &String| lowering.tensors.get(name.as_str()).is_some_and(|id| wanted.contains(id));
    let graph = model.graph();
    let mut folded: Vec<usize> =
        constant.iter().copied().filter(|&n| graph.node[n].output.iter().any(is_wanted)).collect();
    folded.sort_unstable();
    let mut once = Vec::new();
    if !folded.is_empty() {
        once.push(fallback(model, lowering, constant, folded, |id| wanted.contains(id)));
    }
    let own = runs.iter().flat_map(|(_, own)| own.iter().copied()).collect();
    lowering.account(&own, constant);
    let mut made: Vec<Option<Step>> = take(&mut lowering.steps).into_iter().map(Some).collect();
    let mut steps = Vec::new();
    for (i, (nodes, own)) in runs.into_iter().enumerate() {
        if !nodes.is_empty() {
            let later = |id: &ValueId| {
                wanted.contains(id) || read_by[i + 1..].iter().any(|reads| reads.contains(id))
            };
            steps.push(fallback(model, lowering, constant, nodes, later));
        }
        steps.extend(own.into_iter().filter_map(|step| made[step].take()));
    }
    (once, steps)
}

/// The initializers that steps read, or the graph gives out.
fn constants(lowering: &Lowering) -> Result<Vec<Constant>> {
    let mut constants = Vec::new();
    for (name, &id) in &lowering.tensors {
        if let Some(tensor) = lowering.view.initializer(name)
            && let Some(tensor) = constant_tensor(tensor)?
        {
            constants.push(Constant { id, tensor });
        }
    }
    constants.sort_by_key(|constant| constant.id);
    Ok(constants)
}

impl Lowering<'_> {
    /// Tells of every value what the graph knows of it.
    fn tell_facts(&mut self) {
        let mut names: Vec<(&str, ValueId)> =
            self.tensors.iter().map(|(name, &id)| (*name, id)).collect();
        names.sort_unstable();
        for (name, id) in names.into_iter().chain(self.quantized_values()) {
            let value = &mut self.values[id.index()];
            value.names.push(name.to_string());
            value.fact = Fact {
                data_type: self.types.get(name).copied(),
                dims: self.view.facts.sizes().get(name).cloned(),
            };
        }
    }
}
