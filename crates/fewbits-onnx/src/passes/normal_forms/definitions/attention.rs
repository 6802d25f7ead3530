//! `Attention` with what executors lack of it: scores as an output, windows, lengths beside a mask.

use super::loops::size;
use super::{Known, along};
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

/// Writes out an attention whose scores are wanted, that looks through a window, or that has lengths and a mask.
pub(super) fn attention(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let window = |side: &str| node.int(side, -1);
    let (left, right) = (window("left_window_size"), window("right_window_size"));
    let has_window =
        ["left_window_size", "right_window_size"].iter().any(|w| node.attr(w).is_some());
    let has_both = node.given_input(3).is_some() && node.given_input(6).is_some();
    (node.given_output(3).is_some() || has_window || has_both).then_some(())?;
    let heads = Heads::of(node, known)?;
    let [query, key, value] = [(0, heads.query), (1, heads.key), (2, heads.key)]
        .map(|(place, count)| heads.apart(&node.input[place], count, emit));
    let with_past = |past: usize, present: usize, new: String, emit: &mut Emit| {
        let all = match node.given_input(past) {
            Some(past) => emit.op_with("Concat", &[past, &new], along(2)),
            None => new,
        };
        if let Some(present) = node.given_output(present) {
            emit.op_as("Identity", &[&all], vec![], present);
        }
        all
    };
    let key = with_past(4, 1, key, emit);
    let value = with_past(5, 2, value, emit);
    let total = size(&key, 2, emit);
    let (key, value) = (heads.repeated(&key, emit), heads.repeated(&value, emit));
    let scale = emit.float(node.attr("scale").map_or(heads.scale, AttributeProto::f));
    let scaled = emit.op("Mul", &[&query, &scale]);
    let turned = vec![AttributeProto::of_ints("perm", &[0, 1, 3, 2])];
    let turned = emit.op_with("Transpose", &[&key], turned);
    let mut scores = vec![emit.op("MatMul", &[&scaled, &turned])];
    let capped = match node.float("softcap", 0.0) {
        0.0 => scores[0].clone(),
        cap => {
            let cap = emit.float(cap);
            let small = emit.op("Div", &[&scores[0], &cap]);
            let bounded = emit.op("Tanh", &[&small]);
            emit.op("Mul", &[&bounded, &cap])
        }
    };
    scores.push(capped.clone());
    let rows = size(&query, 2, emit);
    let hidden = Hidden { left, right, is_causal: node.int("is_causal", 0) != 0 };
    let mask = match node.given_input(3) {
        Some(mask) => Some(of_mask(mask, &total, known, emit)?),
        None => None,
    };
    let hidden = hidden.of(node, &rows, &total, emit);
    let bias = match (mask, hidden) {
        (Some(mask), Some(hidden)) => Some(emit.op("Add", &[&mask, &hidden])),
        (mask, hidden) => mask.or(hidden),
    };
    let biased = match &bias {
        Some(bias) => emit.op("Add", &[&capped, bias]),
        None => capped,
    };
    scores.push(biased.clone());
    let mut weights = emit.op_with("Softmax", &[&biased], along(-1));
    if let Some(bias) = &bias {
        // A row that sees nothing is 0.
        let keep = vec![AttributeProto::of_int("keepdims", 1)];
        let most = emit.on_axes("ReduceMax", bias, &[-1], known.opset, keep);
        let (nothing, zero) = (emit.float(f32::NEG_INFINITY), emit.float(0.0));
        let sees_nothing = emit.op("Equal", &[&most, &nothing]);
        weights = emit.op("Where", &[&sees_nothing, &zero, &weights]);
    }
    scores.push(weights.clone());
    if let Some(wanted) = node.given_output(3) {
        let mode = usize::try_from(node.int("qk_matmul_output_mode", 0)).ok()?;
        emit.op_as("Identity", &[scores.get(mode)?], vec![], wanted);
    }
    let mixed = emit.op("MatMul", &[&weights, &value]);
    heads.together(&mixed, node.given_output(0)?, emit);
    Some(())
}

/// How values are cut into heads.
struct Heads {
    query: i64,
    key: i64,
    /// Whether the heads of a value lie side by side in its last axis.
    are_joined: bool,
    /// What scores are multiplied by unless it is said.
    scale: f32,
}

impl Heads {
    fn of(node: &NodeProto, known: &Known) -> Option<Heads> {
        let inputs = node.input.get(..3)?;
        let single = |name: &String| {
            matches!(known.data_type(name), Some(DataType::Float | DataType::Float16))
        };
        inputs.iter().all(single).then_some(())?;
        let (query, key) = (known.dims(&inputs[0])?, known.dims(&inputs[1])?);
        let (query_heads, key_heads, size) = match (query.as_slice(), key.as_slice()) {
            (&[_, heads, _, size], &[_, key_heads, ..]) => {
                (i64::try_from(heads?).ok()?, i64::try_from(key_heads?).ok()?, size?)
            }
            (&[_, _, width], &[_, _, _]) => {
                let (heads, key_heads) = (node.int("q_num_heads", 0), node.int("kv_num_heads", 0));
                (heads, key_heads, width?.checked_div(usize::try_from(heads).ok()?)?)
            }
            _ => return None,
        };
        (query_heads >= 1 && key_heads >= 1 && query_heads % key_heads == 0).then_some(())?;
        Some(Heads {
            query: query_heads,
            key: key_heads,
            are_joined: query.len() == 3,
            scale: 1.0 / (size as f32).sqrt(),
        })
    }

    /// Puts the heads in front of the rows.
    fn apart(&self, value: &str, count: i64, emit: &mut Emit) -> String {
        if !self.are_joined {
            return value.to_string();
        }
        let cut = emit.reshape(value, &[0, 0, count, -1]);
        emit.op_with("Transpose", &[&cut], vec![AttributeProto::of_ints("perm", &[0, 2, 1, 3])])
    }

    /// Repeats the heads that several heads of queries share.
    fn repeated(&self, value: &str, emit: &mut Emit) -> String {
        let shared = self.query / self.key;
        if shared == 1 {
            return value.to_string();
        }
        let places: Vec<i64> = (0..self.query).map(|head| head / shared).collect();
        let places = emit.ints(&places);
        emit.op_with("Gather", &[value, &places], along(1))
    }

    /// The opposite of `apart`.
    fn together(&self, value: &str, output: &str, emit: &mut Emit) {
        if !self.are_joined {
            return emit.op_as("Identity", &[value], vec![], output);
        }
        let order = vec![AttributeProto::of_ints("perm", &[0, 2, 1, 3])];
        let turned = emit.op_with("Transpose", &[value], order);
        let joined = emit.ints(&[0, 0, -1]);
        emit.op_as("Reshape", &[&turned, &joined], vec![], output);
    }
}

/// A mask as numbers to add; where it is too short, nothing is seen.
fn of_mask(mask: &str, total: &str, known: &Known, emit: &mut Emit) -> Option<String> {
    let rank = usize::try_from(known.rank(mask)?).ok()?;
    (1..=4).contains(&rank).then_some(())?;
    let nothing = emit.float(f32::NEG_INFINITY);
    let numbers = match known.data_type(mask)? {
        DataType::Bool => {
            let zero = emit.float(0.0);
            emit.op("Where", &[mask, &zero, &nothing])
        }
        DataType::Float => mask.to_string(),
        DataType::Float16 => emit.cast(mask, DataType::Float),
        _ => return None,
    };
    let given = size(mask, rank as i64 - 1, emit);
    let missing = emit.op("Sub", &[total, &given]);
    let missing = emit.reshape(&missing, &[1]);
    let none = emit.ints(&vec![0; 2 * rank - 1]);
    let pads = emit.op_with("Concat", &[&none, &missing], along(0));
    Some(emit.op("Pad", &[&numbers, &pads, &nothing]))
}

/// What rows do not see by their place.
struct Hidden {
    left: i64,
    right: i64,
    is_causal: bool,
}

impl Hidden {
    /// Numbers to add, if anything is hidden: axes of batch, heads, rows and columns.
    fn of(&self, node: &NodeProto, rows: &str, total: &str, emit: &mut Emit) -> Option<String> {
        let (zero, one) = (emit.index(0), emit.index(1));
        let columns = emit.op("Range", &[&zero, total, &one]);
        let mut hidden = Vec::new();
        let lengths = node.given_input(6).map(|lengths| emit.reshape(lengths, &[-1, 1, 1, 1]));
        if self.is_causal || self.left >= 0 || self.right >= 0 {
            let places = emit.op("Range", &[&zero, rows, &one]);
            let places = emit.reshape(&places, &[-1, 1]);
            // Rows end where the keys do that are given.
            let first = match (&lengths, node.given_input(4)) {
                (Some(lengths), _) => emit.op("Sub", &[lengths, rows]),
                (None, Some(past)) => size(past, 2, emit),
                (None, None) => zero.clone(),
            };
            let places = emit.op("Add", &[&places, &first]);
            if self.is_causal {
                hidden.push(emit.op("Less", &[&places, &columns]));
            }
            for (size, from, to) in
                [(self.left, &places, &columns), (self.right, &columns, &places)]
            {
                if size >= 0 {
                    let apart = emit.op("Sub", &[from, to]);
                    let most = emit.index(size);
                    hidden.push(emit.op("Greater", &[&apart, &most]));
                }
            }
        }
        if let Some(lengths) = &lengths {
            let is_given = emit.op("Less", &[&columns, lengths]);
            hidden.push(emit.op("Not", &[&is_given]));
        }
        let either = |a: String, b: String| emit.op("Or", &[&a, &b]);
        let hidden = hidden.into_iter().reduce(either)?;
        let nothing = TensorProto::from_f32("", &[], &[f32::NEG_INFINITY]);
        let (nothing, zero) = (emit.constant(nothing), emit.float(0.0));
        Some(emit.op("Where", &[&hidden, &nothing, &zero]))
    }
}
