//! Layers with states, a step a turn of a loop: those that executors lack, or take for others.

use super::loops::{Loop, Made, Turn, reversed, size, turn};
use super::{Known, along};
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

/// An `RNN`, a `GRU` or an `LSTM`, unless executors have it as it is.
pub(super) fn layer(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let cell = match node.op_type() {
        "RNN" => Cell::Simple,
        "GRU" if node.int("linear_before_reset", 0) != 0 => Cell::GatedBefore,
        "GRU" => Cell::Gated,
        _ => Cell::Long,
    };
    let batch_first = node.int("layout", 0) != 0;
    let is_lacking = matches!(cell, Cell::Simple | Cell::Gated)
        || batch_first
        || node.given_input(4).is_some()
        || node.given_input(7).is_some();
    let unknown = ["clip", "activation_alpha", "activation_beta"];
    let is_plain = unknown.iter().all(|name| node.attr(name).is_none())
        && node.int("input_forget", 0) == 0
        && known.opset >= 13;
    let (x, weights, recurrent) =
        (node.given_input(0)?, node.given_input(1)?, node.given_input(2)?);
    (is_lacking && is_plain && known.data_type(x)? == DataType::Float).then_some(())?;
    let hidden = match node.int("hidden_size", 0) {
        // It need not be said where the weights tell.
        0 => i64::try_from((*known.dims(recurrent)?.last()?)?).ok()?,
        hidden => hidden,
    };
    let directions: &[bool] = match node.string("direction", "forward").as_str() {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        _ => return None,
    };
    let names = node.strings("activations");
    let functions = match names.is_empty() {
        true => cell.functions().repeat(directions.len()),
        false => names.iter().map(|name| function(name)).collect::<Option<_>>()?,
    };
    (functions.len() == cell.functions().len() * directions.len()).then_some(())?;
    let x = if batch_first { transposed(x, &[1, 0, 2], emit) } else { x.to_string() };
    let lengths = node.given_input(4).map(|lengths| emit.cast(lengths, DataType::Int64));
    let layer = Layer { cell, hidden, lengths, count: size(&x, 0, emit), x };
    let (mut all, mut ends) = (Vec::new(), vec![Vec::new(); cell.states()]);
    for (direction, is_backward) in directions.iter().enumerate() {
        let place = emit.index(direction as i64);
        let of_direction =
            |value: &str, emit: &mut Emit| emit.op_with("Gather", &[value, &place], along(0));
        let state = |at: usize, emit: &mut Emit| match node.given_input(5 + at) {
            Some(states) if batch_first => {
                let states = transposed(states, &[1, 0, 2], emit);
                of_direction(&states, emit)
            }
            Some(states) => of_direction(states, emit),
            None => layer.zeros(emit),
        };
        let sides = [weights, recurrent].map(|weights| {
            let weights = of_direction(weights, emit);
            transposed(&weights, &[1, 0], emit)
        });
        let one = OneWay {
            weights: sides[0].clone(),
            recurrent: sides[1].clone(),
            bias: node.given_input(3).map(|bias| of_direction(bias, emit)),
            peepholes: node.given_input(7).map(|peepholes| of_direction(peepholes, emit)),
            states: (0..cell.states()).map(|at| state(at, emit)).collect(),
            functions: &functions[direction * cell.functions().len()..],
            is_backward: *is_backward,
        };
        let (stacked, states) = layer.run(&one, emit)?;
        all.push(stacked);
        states.into_iter().zip(&mut ends).for_each(|(state, ends)| ends.push(state));
    }
    if let Some(output) = node.given_output(0) {
        let order: &[i64] = if batch_first { &[2, 0, 1, 3] } else { &[0, 1, 2, 3] };
        joined(&all, 1, order, output, emit);
    }
    for (at, ends) in ends.iter().enumerate() {
        if let Some(output) = node.given_output(1 + at) {
            let order: &[i64] = if batch_first { &[1, 0, 2] } else { &[0, 1, 2] };
            joined(ends, 0, order, output, emit);
        }
    }
    Some(())
}

/// What is computed in a step.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    /// `RNN`.
    Simple,
    /// `GRU`.
    Gated,
    /// `GRU` whose reset gate comes behind the product.
    GatedBefore,
    /// `LSTM`.
    Long,
}

impl Cell {
    /// The functions of ONNX's defaults.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Cell::Simple => &["Tanh"],
            Cell::Gated | Cell::GatedBefore => &["Sigmoid", "Tanh"],
            Cell::Long => &["Sigmoid", "Tanh", "Tanh"],
        }
    }

    fn states(self) -> usize {
        if self == Cell::Long { 2 } else { 1 }
    }

    fn gates(self) -> i64 {
        match self {
            Cell::Simple => 1,
            Cell::Gated | Cell::GatedBefore => 3,
            Cell::Long => 4,
        }
    }
}

/// The operator of a function of a layer.
fn function(name: &str) -> Option<&'static str> {
    let known = ["Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"];
    known.into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

/// What the directions have in common.
struct Layer {
    cell: Cell,
    hidden: i64,
    /// Steps, batch and features.
    x: String,
    /// How many steps there are.
    count: String,
    /// How many each row has of its own.
    lengths: Option<String>,
}

/// One direction.
struct OneWay<'a> {
    weights: String,
    recurrent: String,
    bias: Option<String>,
    peepholes: Option<String>,
    states: Vec<String>,
    functions: &'a [&'static str],
    is_backward: bool,
}

impl Layer {
    /// States of 0 for each row.
    fn zeros(&self, emit: &mut Emit) -> String {
        let (shape, batch, hidden) =
            (emit.op("Shape", &[&self.x]), emit.ints(&[1]), emit.ints(&[self.hidden]));
        let batch = emit.op_with("Gather", &[&shape, &batch], along(0));
        let shape = emit.op_with("Concat", &[&batch, &hidden], along(0));
        let zero = AttributeProto::of_tensor("value", TensorProto::from_f32("", &[1], &[0.0]));
        emit.op_with("ConstantOfShape", &[&shape], vec![zero])
    }

    /// A sequence from behind, where each row begins at its own end.
    fn turned(&self, sequence: &str, emit: &mut Emit) -> String {
        match &self.lengths {
            Some(lengths) => {
                let axes = [("time_axis", 0), ("batch_axis", 1)];
                let axes = axes.map(|(name, axis)| AttributeProto::of_int(name, axis)).to_vec();
                emit.op_with("ReverseSequence", &[sequence, lengths], axes)
            }
            None => reversed(sequence, emit),
        }
    }

    /// The states of every step, and those at the end.
    fn run(&self, one: &OneWay, emit: &mut Emit) -> Option<(String, Vec<String>)> {
        let x = if one.is_backward { self.turned(&self.x, emit) } else { self.x.clone() };
        let mut fed = emit.op("MatMul", &[&x, &one.weights]);
        let width = self.cell.gates() * self.hidden;
        let biases = one
            .bias
            .as_ref()
            .map(|bias| [0, width].map(|first| slice(bias, 0, first, first + width, emit)));
        let late = self.cell == Cell::GatedBefore;
        if let Some([of_inputs, of_states]) = &biases {
            fed = emit.op("Add", &[&fed, of_inputs]);
            if !late {
                fed = emit.op("Add", &[&fed, of_states]);
            }
        }
        let late = biases.filter(|_| late).map(|[_, of_states]| of_states);
        let states = self.cell.states();
        let outputs: Vec<String> = (0..=states).map(|_| emit.fresh()).collect();
        let step = turn(states, emit);
        let whole = Loop { count: &self.count, states: &one.states, outputs: &outputs };
        whole.write(Vec::new(), step, emit, |turn, emit| {
            let now = emit.op_with("Gather", &[&fed, &turn.number], along(0));
            let next = self.step(one, &now, late.as_deref(), turn, emit);
            Some(self.within_lengths(next, turn, emit))
        })?;
        let (stacked, ends) = outputs.split_last()?;
        let stacked = match one.is_backward {
            true => self.turned(stacked, emit),
            false => stacked.clone(),
        };
        Some((stacked, ends.to_vec()))
    }

    /// The next states.
    fn step(
        &self,
        one: &OneWay,
        now: &str,
        late: Option<&str>,
        turn: &Turn,
        emit: &mut Emit,
    ) -> Vec<String> {
        let hidden = self.hidden;
        let gate = |value: &str, at: i64, emit: &mut Emit| {
            slice(value, 1, at * hidden, (at + 1) * hidden, emit)
        };
        let before = turn.states[0].as_str();
        let [first, second, third] = [0, 1, 2].map(|at| one.functions.get(at).copied());
        let (first, second) = (first.unwrap_or("Tanh"), second.unwrap_or("Tanh"));
        match self.cell {
            Cell::Simple => {
                let recurrent = emit.op("MatMul", &[before, &one.recurrent]);
                let sum = emit.op("Add", &[now, &recurrent]);
                vec![emit.op(first, &[&sum])]
            }
            Cell::Gated | Cell::GatedBefore => {
                let gates = slice(&one.recurrent, 1, 0, 2 * hidden, emit);
                let candidate = gate(&one.recurrent, 2, emit);
                let mut recurrent = emit.op("MatMul", &[before, &gates]);
                if let Some(late) = late {
                    let late = slice(late, 0, 0, 2 * hidden, emit);
                    recurrent = emit.op("Add", &[&recurrent, &late]);
                }
                let fed = slice(now, 1, 0, 2 * hidden, emit);
                let sum = emit.op("Add", &[&fed, &recurrent]);
                let both = emit.op(first, &[&sum]);
                let (update, reset) = (gate(&both, 0, emit), gate(&both, 1, emit));
                let recurrent = match self.cell {
                    Cell::GatedBefore => {
                        let mut product = emit.op("MatMul", &[before, &candidate]);
                        if let Some(late) = late {
                            let late = slice(late, 0, 2 * hidden, 3 * hidden, emit);
                            product = emit.op("Add", &[&product, &late]);
                        }
                        emit.op("Mul", &[&reset, &product])
                    }
                    _ => {
                        let kept = emit.op("Mul", &[&reset, before]);
                        emit.op("MatMul", &[&kept, &candidate])
                    }
                };
                let fed = gate(now, 2, emit);
                let sum = emit.op("Add", &[&fed, &recurrent]);
                let new = emit.op(second, &[&sum]);
                // (1 - update) new + update before
                let apart = emit.op("Sub", &[before, &new]);
                let moved = emit.op("Mul", &[&update, &apart]);
                vec![emit.op("Add", &[&new, &moved])]
            }
            Cell::Long => {
                let cell = turn.states[1].as_str();
                let recurrent = emit.op("MatMul", &[before, &one.recurrent]);
                let sums = emit.op("Add", &[now, &recurrent]);
                let open = |sum: String, at: i64, cell: &str, emit: &mut Emit| {
                    let sum = match &one.peepholes {
                        Some(peepholes) => {
                            let weight = slice(peepholes, 0, at * hidden, (at + 1) * hidden, emit);
                            let seen = emit.op("Mul", &[&weight, cell]);
                            emit.op("Add", &[&sum, &seen])
                        }
                        None => sum,
                    };
                    emit.op(first, &[&sum])
                };
                // The gates lie as input, output, forget and cell; peepholes alike.
                let [input, output, forget, new] = [0, 1, 2, 3].map(|at| gate(&sums, at, emit));
                let input = open(input, 0, cell, emit);
                let forget = open(forget, 2, cell, emit);
                let new = emit.op(second, &[&new]);
                let (kept, added) =
                    (emit.op("Mul", &[&forget, cell]), emit.op("Mul", &[&input, &new]));
                let next = emit.op("Add", &[&kept, &added]);
                let output = open(output, 1, &next, emit);
                let shown = emit.op(third.unwrap_or("Tanh"), &[&next]);
                vec![emit.op("Mul", &[&output, &shown]), next]
            }
        }
    }

    /// Keeps the states of rows that have ended, and shows 0 for them.
    fn within_lengths(&self, next: Vec<String>, turn: &Turn, emit: &mut Emit) -> Made {
        let Some(lengths) = &self.lengths else {
            let stacked = emit.op("Identity", &[&next[0]]);
            return Made { states: next, stacked: vec![stacked] };
        };
        let goes_on = emit.op("Less", &[&turn.number, lengths]);
        let column = emit.reshape(&goes_on, &[-1, 1]);
        let zero = emit.float(0.0);
        let stacked = vec![emit.op("Where", &[&column, &next[0], &zero])];
        let pairs = next.iter().zip(&turn.states);
        let states = pairs.map(|(next, before)| emit.op("Where", &[&column, next, before]));
        Made { states: states.collect(), stacked }
    }
}

fn transposed(value: &str, order: &[i64], emit: &mut Emit) -> String {
    emit.op_with("Transpose", &[value], vec![AttributeProto::of_ints("perm", order)])
}

/// What lies between two places of an axis.
fn slice(value: &str, axis: i64, from: i64, to: i64, emit: &mut Emit) -> String {
    let [from, to, axis] = [from, to, axis].map(|number| emit.ints(&[number]));
    emit.op("Slice", &[value, &from, &to, &axis])
}

/// The values of all directions, along a new axis, with their axes in this order.
fn joined(values: &[String], axis: i64, order: &[i64], output: &str, emit: &mut Emit) {
    let axes = emit.ints(&[axis]);
    let values: Vec<String> =
        values.iter().map(|value| emit.op("Unsqueeze", &[value, &axes])).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let joined = emit.op_with("Concat", &values, along(axis));
    let order = vec![AttributeProto::of_ints("perm", order)];
    emit.op_as("Transpose", &[&joined], order, output);
}
