//! Loops over a sequence: what `Scan` does, and layers with states.

use super::{Known, along};
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// What lies farther away than any end.
const BEYOND: i64 = i32::MAX as i64;

/// The size of an axis, a scalar.
pub(super) fn size(value: &str, axis: i64, emit: &mut Emit) -> String {
    let (shape, at) = (emit.op("Shape", &[value]), emit.index(axis));
    emit.op_with("Gather", &[&shape, &at], along(0))
}

/// A value the other way round along its first axis.
pub(super) fn reversed(value: &str, emit: &mut Emit) -> String {
    let [last, end, axis, back] = [-1, -BEYOND, 0, -1].map(|number| emit.ints(&[number]));
    emit.op("Slice", &[value, &last, &end, &axis, &back])
}

/// What a step of a loop works on.
pub(super) struct Turn {
    /// Which it is, a scalar.
    pub number: String,
    pub states: Vec<String>,
}

/// What a step of a loop makes.
pub(super) struct Made {
    pub states: Vec<String>,
    /// What is stacked over all steps.
    pub stacked: Vec<String>,
}

/// A loop in the making.
pub(super) struct Loop<'a> {
    /// How many steps there are, a scalar.
    pub count: &'a str,
    /// What the states are before the first.
    pub states: &'a [String],
    /// What is given at the end: the states, then what is stacked.
    pub outputs: &'a [String],
}

impl Loop<'_> {
    /// Adds it; `step` adds the nodes of one step.
    pub fn write(
        &self,
        initializer: Vec<TensorProto>,
        turn: Turn,
        emit: &mut Emit,
        step: impl FnOnce(&Turn, &mut Emit) -> Option<Made>,
    ) -> Option<()> {
        let (going, still) = (emit.fresh(), emit.fresh());
        let (nodes, made) = emit.inside(|emit| {
            let made = step(&turn, emit);
            emit.op_as("Identity", &[&going], vec![], &still);
            made
        });
        let made = made?;
        let mut input = vec![
            ValueInfoProto::tensor(&turn.number, DataType::Int64 as i32, &[]),
            ValueInfoProto::tensor(&going, DataType::Bool as i32, &[]),
        ];
        input.extend(turn.states.iter().map(|name| unknown(name)));
        let given = [&still].into_iter().chain(&made.states).chain(&made.stacked);
        let body = GraphProto {
            name: Some("step".to_string()),
            node: nodes,
            initializer,
            output: given.map(|name| unknown(name)).collect(),
            input,
            ..GraphProto::default()
        };
        let inputs: Vec<&str> =
            [self.count, ""].into_iter().chain(self.states.iter().map(String::as_str)).collect();
        let outputs: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let node = NodeProto::new("Loop", &inputs, &outputs);
        emit.push(node.with(AttributeProto::of_graph("body", body)));
        Some(())
    }
}

/// A value that nothing is declared of.
fn unknown(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_string()), ..ValueInfoProto::default() }
}

/// A `Scan`, whose results are stacked along their first axes.
pub(super) fn scan(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    (known.opset >= 9).then_some(())?;
    let body = node.attr("body")?.g.as_ref()?;
    let scanned = usize::try_from(node.attr("num_scan_inputs")?.i()).ok()?;
    let states = node.input.len().checked_sub(scanned)?;
    let stacked = body.output.len().checked_sub(states)?;
    let is_plain = node.ints("scan_output_axes").iter().all(|&axis| axis == 0)
        && scanned >= 1
        && body.input.len() == node.input.len()
        && node.output.len() == states + stacked;
    is_plain.then_some(())?;
    let at = |list: &str, place: usize| node.ints(list).get(place).copied().unwrap_or(0);
    let sequences = &node.input[states..];
    let count = match at("scan_input_axes", 0) {
        axis @ 0.. => size(&sequences[0], axis, emit),
        _ => return None,
    };
    let one = emit.index(1);
    let last = emit.op("Sub", &[&count, &one]);
    let named = |name: &String| if name.is_empty() { emit.fresh() } else { name.clone() };
    let outputs: Vec<String> = node.output.iter().map(named).collect();
    // What is stacked backwards is turned behind the loop.
    let is_turned =
        |place: usize| place >= states && at("scan_output_directions", place - states) != 0;
    let given: Vec<String> = (0..outputs.len())
        .map(|place| if is_turned(place) { emit.fresh() } else { outputs[place].clone() })
        .collect();
    let turn = Turn {
        number: emit.fresh(),
        states: body.input[..states].iter().map(|info| info.name().to_string()).collect(),
    };
    let whole = Loop { count: &count, states: &node.input[..states], outputs: &given };
    whole.write(body.initializer.clone(), turn, emit, |turn, emit| {
        for (place, info) in body.input[states..].iter().enumerate() {
            let from_behind = at("scan_input_directions", place) != 0;
            let number = match from_behind {
                true => emit.op("Sub", &[&last, &turn.number]),
                false => turn.number.clone(),
            };
            let axis = along(at("scan_input_axes", place));
            emit.op_as("Gather", &[&sequences[place], &number], axis, info.name());
        }
        body.node.iter().for_each(|node| emit.push(node.clone()));
        let mut names = body.output.iter().map(|info| info.name().to_string());
        let states = names.by_ref().take(states).collect();
        Some(Made { states, stacked: names.collect() })
    })?;
    for place in (0..outputs.len()).filter(|&place| is_turned(place)) {
        let turned = reversed(&given[place], emit);
        emit.op_as("Identity", &[&turned], vec![], &outputs[place]);
    }
    Some(())
}

/// Names for a step with so many states.
pub(super) fn turn(states: usize, emit: &mut Emit) -> Turn {
    Turn { number: emit.fresh(), states: (0..states).map(|_| emit.fresh()).collect() }
}
