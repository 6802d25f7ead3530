//! Batch normalization at inference is a factor and a shift for each channel, and the linear
//! operator before it takes both: `s * (W x + b) + t = (s W) x + (s b + t)`.
//!
//! One that has no such operator before it becomes a `Mul` and an `Add`.

use std::collections::HashSet;

use super::constants::constants_to_initializers;
use crate::facts::Facts;
use crate::graph::{Index, Names};
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

/// The default of the attribute `epsilon`.
const EPSILON: f32 = 1e-5;

/// What [`fold_batch_norm`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchNorms {
    /// Nodes that went into the weights of the operator before them.
    pub folded: usize,
    /// Nodes that became a `Mul` and an `Add`.
    pub scaled: usize,
    /// Nodes left as they were, and why.
    pub kept: Vec<(String, &'static str)>,
}

/// Folds every `BatchNormalization` of the main graph into the `Conv`, `ConvTranspose`, `Gemm` or
/// `MatMul` before it, a constant `Add` between them included.
///
/// A folded weight or bias keeps its name unless something else reads it too; then a copy is
/// changed. Products are computed in `f64` and stored as FLOAT. An initializer that is an input of
/// the graph may be replaced by the caller, so it is not a constant here.
pub fn fold_batch_norm(graph: &mut GraphProto) -> BatchNorms {
    let mut report = BatchNorms::default();
    let norms: Vec<String> = graph
        .node
        .iter()
        .filter(|n| n.is("BatchNormalization"))
        .filter_map(|n| n.output.first().cloned())
        .collect();
    if norms.is_empty() {
        return report;
    }
    constants_to_initializers(graph);
    let facts = Facts::of(graph);
    let mut names = Names::new(graph);
    let mut orphans = HashSet::new();
    for output in norms {
        let at = graph.node.iter().position(|n| n.output.first() == Some(&output));
        let at = at.expect("a pass over one node does not remove another normalization");
        let label = graph.node[at].label().to_string();
        let norm = match Norm::read(graph, at) {
            Ok(norm) => norm,
            Err(why) => {
                report.kept.push((label, why));
                continue;
            }
        };
        let params: Vec<String> = graph.node[at].input[1..].to_vec();
        if let Some(fold) = Fold::find(graph, &norm, &facts) {
            orphans.extend(fold.apply(graph, &norm, &mut names));
            report.folded += 1;
        } else if let Err(why) = norm.spell_out(graph, &facts, &mut names) {
            report.kept.push((label, why));
            continue;
        } else {
            report.scaled += 1;
        }
        orphans.extend(params);
    }
    let index = Index::new(graph);
    orphans.retain(|name| index.consumers(name).is_empty() && !index.is_output(name));
    drop(index);
    graph.initializer.retain(|t| !orphans.contains(t.name()));
    graph.value_info.retain(|v| !orphans.contains(v.name()));
    report
}

/// A constant FLOAT tensor that no caller can replace.
fn constant<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a TensorProto> {
    let tensor = graph.find_initializer(name)?;
    let replaceable = graph.input.iter().any(|i| i.name() == name);
    (tensor.data_type() == DataType::Float as i32 && !replaceable).then_some(tensor)
}

fn values(tensor: &TensorProto) -> Option<Vec<f64>> {
    Some(tensor.floats().ok()?.into_iter().map(f64::from).collect())
}

/// A normalization as what it computes: `scale[c] * x + shift[c]`.
struct Norm {
    position: usize,
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Norm {
    fn read(graph: &GraphProto, position: usize) -> Result<Norm, &'static str> {
        let node = &graph.node[position];
        let trains = node.int("training_mode", 0) != 0
            || node.output.iter().skip(1).any(|name| !name.is_empty());
        if trains {
            return Err("it computes the statistics of the batch");
        }
        if node.int("spatial", 1) == 0 {
            return Err("it has parameters for every position");
        }
        let param = |slot: usize| {
            node.input.get(slot).and_then(|name| constant(graph, name)).and_then(values)
        };
        let params = (param(1), param(2), param(3), param(4));
        let (Some(gamma), Some(beta), Some(mean), Some(variance)) = params else {
            return Err("its parameters are not FLOAT constants");
        };
        if [&beta, &mean, &variance].iter().any(|p| p.len() != gamma.len()) {
            return Err("its parameters differ in length");
        }
        let epsilon = f64::from(node.float("epsilon", EPSILON));
        let scale: Vec<f64> =
            gamma.iter().zip(&variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        let shift: Vec<f64> =
            beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        if !scale.iter().chain(&shift).all(|&v| (v as f32).is_finite()) {
            return Err("its parameters overflow");
        }
        Ok(Norm { position, scale, shift })
    }

    fn channels(&self) -> usize {
        self.scale.len()
    }

    /// Replaces the node by a `Mul` and an `Add`.
    fn spell_out(
        &self,
        graph: &mut GraphProto,
        facts: &Facts,
        names: &mut Names,
    ) -> Result<(), &'static str> {
        let node = &graph.node[self.position];
        let (input, output) = (node.input[0].clone(), node.output[0].clone());
        let rank = facts.rank(&input).or_else(|| facts.rank(&output)).filter(|&r| r >= 2);
        let rank = rank.ok_or("the rank of its input is not known")?;
        let narrow = |t: i32| t == DataType::Float16 as i32 || t == DataType::Bfloat16 as i32;
        let is_float = match facts.data_type(&input).or_else(|| facts.data_type(&output)) {
            Some(data_type) => data_type == DataType::Float,
            None => !graph.initializer.iter().any(|t| narrow(t.data_type())),
        };
        if !is_float {
            return Err("its input is not FLOAT");
        }
        let mut shape = vec![1; rank];
        shape[1] = self.channels();
        let constant = |name: String, values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            TensorProto::from_f32(&name, &shape, &values)
        };
        let scale = constant(names.fresh(&format!("{output}_scale")), &self.scale);
        let shift = constant(names.fresh(&format!("{output}_shift")), &self.shift);
        let scaled = names.fresh(&format!("{output}_scaled"));
        let nodes = [
            NodeProto::new("Mul", &[&input, scale.name()], &[&scaled]),
            NodeProto::new("Add", &[&scaled, shift.name()], &[&output]),
        ];
        graph.node.splice(self.position..=self.position, nodes);
        graph.initializer.extend([scale, shift]);
        Ok(())
    }
}

/// A constant `Add` between the linear operator and the normalization.
struct ConstantAdd {
    position: usize,
    slot: usize,
}

/// The linear operator that takes a normalization, and its new constants.
struct Fold {
    linear: usize,
    add: Option<ConstantAdd>,
    weight: TensorProto,
    bias: Vec<f32>,
}

impl Fold {
    /// Follows the graph backwards from the normalization; `None` if nothing can take it.
    fn find(graph: &GraphProto, norm: &Norm, facts: &Facts) -> Option<Fold> {
        let index = Index::new(graph);
        // Who produces a value that one node reads and nobody else.
        let sole = |value: &str| {
            let only = index.consumers(value).len() == 1 && !index.is_output(value);
            index.producer(value).filter(|_| only)
        };
        let mut linear = sole(graph.node[norm.position].input.first()?)?;
        let mut add = None;
        if graph.node[linear].is("Add") {
            let node = &graph.node[linear];
            let slot =
                (0..node.input.len()).find(|&i| constant(graph, &node.input[i]).is_some())?;
            add = Some(ConstantAdd { position: linear, slot });
            linear = sole(node.input.get(1 - slot)?)?;
        }
        let node = &graph.node[linear];
        let weight = constant(graph, node.input.get(1)?)?;
        let dims = weight.shape().ok()?;
        let view = Channels::of(node, &dims, facts)?;
        if view.groups * view.size != norm.channels() {
            return None;
        }
        let scaled = view.scaled(&weight.floats().ok()?, &norm.scale)?;
        let mut bias = vec![0.0; norm.channels()];
        if let Some(name) = node.given_input(2) {
            let factor = if node.is("Gemm") { f64::from(node.float("beta", 1.0)) } else { 1.0 };
            // One number a channel, as an addition to a matrix would be.
            per_channel(constant(graph, name)?, 2, &mut bias, factor)?;
        }
        if let Some(add) = &add {
            let name = &graph.node[add.position].input[add.slot];
            per_channel(constant(graph, name)?, view.rank, &mut bias, 1.0)?;
        }
        let bias: Vec<f32> = bias
            .iter()
            .zip(norm.scale.iter().zip(&norm.shift))
            .map(|(b, (scale, shift))| (b * scale + shift) as f32)
            .collect();
        let finite = scaled.iter().chain(&bias).all(|v| v.is_finite());
        let weight = TensorProto::from_f32(weight.name(), &dims, &scaled);
        finite.then_some(Fold { linear, add, weight, bias })
    }

    /// Edits the graph; returns the names of the values and constants that may be unused now.
    fn apply(self, graph: &mut GraphProto, norm: &Norm, names: &mut Names) -> Vec<String> {
        let mut orphans = Vec::new();
        let output = graph.node[norm.position].output[0].clone();
        let weight_name = self.weight.name().to_string();
        graph.node[self.linear].input[1] = put(graph, names, self.weight);

        let is_product = graph.node[self.linear].is("MatMul");
        let own_bias = graph.node[self.linear].input.get(2).filter(|n| !n.is_empty()).cloned();
        let added = self.add.as_ref().map(|a| graph.node[a.position].input[a.slot].clone());
        let named = TensorProto::from_f32(
            own_bias.as_ref().or(added.as_ref()).map_or("", String::as_str),
            &[self.bias.len()],
            &self.bias,
        );
        let bias = match named.name() {
            "" => {
                let name = names.fresh(&bias_name(&weight_name));
                graph.initializer.push(TensorProto { name: Some(name.clone()), ..named });
                name
            }
            _ => put(graph, names, named),
        };
        if is_product {
            // The addition stays, or takes the normalization's place.
            let add = self.add.map_or(norm.position, |a| a.position);
            let product = graph.node[self.linear].output[0].clone();
            orphans.extend(graph.node[add].output.first().filter(|o| **o != output).cloned());
            let name = graph.node[add].name.take();
            let node = NodeProto::new("Add", &[&product, &bias], &[&output]);
            graph.node[add] = NodeProto { name, ..node };
            if add != norm.position {
                graph.node.remove(norm.position);
            }
            orphans.extend(added);
            return orphans;
        }
        let linear = &mut graph.node[self.linear];
        linear.input.resize(3, String::new());
        linear.input[2] = bias;
        linear.attribute.retain(|a| a.name() != "beta");
        orphans.push(std::mem::replace(&mut linear.output[0], output));
        let mut done = vec![norm.position];
        if let Some(add) = &self.add {
            orphans.extend(graph.node[add.position].output.iter().cloned());
            done.push(add.position);
        }
        done.sort_unstable();
        for position in done.into_iter().rev() {
            graph.node.remove(position);
        }
        orphans.extend(added);
        orphans
    }
}

/// Replaces the initializer of the tensor's name if one node alone reads it, else adds a copy;
/// returns the name.
fn put(graph: &mut GraphProto, names: &mut Names, mut tensor: TensorProto) -> String {
    let index = Index::new(graph);
    let shared = index.consumers(tensor.name()).len() != 1 || index.is_output(tensor.name());
    drop(index);
    if shared {
        tensor.name = Some(names.fresh(tensor.name()));
    }
    let name = tensor.name().to_string();
    match graph.initializer.iter_mut().find(|t| t.name() == name) {
        Some(old) => *old = tensor,
        None => graph.initializer.push(tensor),
    }
    name
}

/// `conv.weight` has the bias `conv.bias`.
fn bias_name(weight: &str) -> String {
    match weight.strip_suffix("weight") {
        Some(stem) => format!("{stem}bias"),
        None => format!("{weight}_bias"),
    }
}

/// Adds `factor` times a constant to `bias`, if it is one number or one for each channel of an
/// output of `rank` dimensions with the channels at axis 1.
fn per_channel(constant: &TensorProto, rank: usize, bias: &mut [f64], factor: f64) -> Option<()> {
    let dims = constant.shape().ok()?;
    let given = values(constant)?;
    if dims.len() > rank {
        return None;
    }
    let channel_axis = (dims.len() + 1).checked_sub(rank);
    let aligned = given.len() == bias.len()
        && channel_axis.is_some_and(|axis| dims.get(axis) == Some(&given.len()));
    match given.as_slice() {
        [one] => bias.iter_mut().for_each(|b| *b += factor * one),
        many if aligned => {
            bias.iter_mut().zip(many).for_each(|(b, v)| *b += factor * v);
        }
        _ => return None,
    }
    Some(())
}

/// Where a weight holds its output channels: `[outer, size, inner]`, `outer` falling into `groups`
/// that have channels of their own.
struct Channels {
    outer: usize,
    size: usize,
    inner: usize,
    groups: usize,
    /// Dimensions of the operator's output, whose axis 1 is the channels.
    rank: usize,
}

impl Channels {
    fn of(node: &NodeProto, dims: &[usize], facts: &Facts) -> Option<Channels> {
        let at = |axis: usize, groups: usize, rank: usize| {
            let (before, rest) = dims.split_at_checked(axis)?;
            let (&size, after) = rest.split_first()?;
            let (outer, inner) = (before.iter().product(), after.iter().product());
            (groups > 0 && outer % groups == 0).then_some(Channels {
                outer,
                size,
                inner,
                groups,
                rank,
            })
        };
        if !node.is_onnx() {
            return None;
        }
        match node.op_type() {
            "Conv" if dims.len() >= 3 => at(0, 1, dims.len()),
            "ConvTranspose" if dims.len() >= 3 => {
                at(1, usize::try_from(node.int("group", 1)).ok()?, dims.len())
            }
            "Gemm" if dims.len() == 2 => at(if node.int("transB", 0) == 0 { 1 } else { 0 }, 1, 2),
            // Only of a matrix are the columns axis 1.
            "MatMul" if dims.len() == 2 => {
                let known = facts.rank(&node.input[0]).or_else(|| facts.rank(&node.output[0]));
                (known? == 2).then(|| at(1, 1, 2)).flatten()
            }
            _ => None,
        }
    }

    fn scaled(&self, weight: &[f32], scale: &[f64]) -> Option<Vec<f32>> {
        let block = self.size * self.inner;
        if block == 0 || weight.len() != self.outer * block {
            return None;
        }
        let outer_per_group = self.outer / self.groups;
        let mut scaled = Vec::with_capacity(weight.len());
        for (o, block) in weight.chunks(block).enumerate() {
            let first = o / outer_per_group * self.size;
            for (c, run) in block.chunks(self.inner).enumerate() {
                scaled.extend(run.iter().map(|&w| (f64::from(w) * scale[first + c]) as f32));
            }
        }
        Some(scaled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, ValueInfoProto};

    /// `scale = [2, -1]`, `shift = [3, 5]`.
    fn norm(input: &str, output: &str) -> NodeProto {
        NodeProto::new("BatchNormalization", &[input, "g", "b", "m", "v"], &[output])
            .with(AttributeProto::of_float("epsilon", 0.0))
    }

    fn graph(nodes: Vec<NodeProto>, weights: Vec<TensorProto>, dims: &[Option<i64>]) -> GraphProto {
        let mut initializer = vec![
            TensorProto::from_f32("g", &[2], &[4.0, -3.0]),
            TensorProto::from_f32("b", &[2], &[1.0, 2.0]),
            TensorProto::from_f32("m", &[2], &[-1.0, 3.0]),
            TensorProto::from_f32("v", &[2], &[4.0, 9.0]),
        ];
        initializer.extend(weights);
        GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, dims)],
            output: vec![ValueInfoProto::tensor("y", 1, &vec![None; dims.len()])],
            initializer,
            ..GraphProto::default()
        }
    }

    fn floats(graph: &GraphProto, name: &str) -> Vec<f32> {
        graph.find_initializer(name).expect(name).floats().unwrap()
    }

    const IMAGE: [Option<i64>; 4] = [None, Some(1), None, None];

    #[test]
    fn a_convolution_without_bias_takes_scale_and_shift() {
        let weight = TensorProto::from_f32("c.weight", &[2, 1, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
        let nodes = vec![NodeProto::new("Conv", &["x", "c.weight"], &["t"]), norm("t", "y")];
        let mut g = graph(nodes, vec![weight], &IMAGE);
        assert_eq!(fold_batch_norm(&mut g).folded, 1);
        assert_eq!(g.node.len(), 1);
        assert_eq!(g.node[0].input, ["x", "c.weight", "c.bias"]);
        assert_eq!(g.node[0].output, ["y"]);
        assert_eq!(floats(&g, "c.weight"), [2.0, 4.0, -3.0, -4.0]);
        assert_eq!(floats(&g, "c.bias"), [3.0, 5.0]);
        assert_eq!(g.initializer.len(), 2, "the parameters are gone");
    }

    #[test]
    fn transposed_convolutions_have_channels_in_every_group() {
        // [inputs 2, outputs per group 1, 1, 1], two groups.
        let weight = TensorProto::from_f32("w", &[2, 1, 1, 1], &[1.0, 10.0]);
        let bias = TensorProto::from_f32("wb", &[2], &[1.0, 1.0]);
        let nodes = vec![
            NodeProto::new("ConvTranspose", &["x", "w", "wb"], &["t"])
                .with(AttributeProto::of_int("group", 2)),
            norm("t", "y"),
        ];
        let mut g = graph(nodes, vec![weight, bias], &[None, Some(2), None, None]);
        assert_eq!(fold_batch_norm(&mut g).folded, 1);
        assert_eq!(floats(&g, "w"), [2.0, -10.0]);
        assert_eq!(floats(&g, "wb"), [5.0, 4.0]);
    }

    #[test]
    fn products_of_matrices_take_it_with_and_without_an_addition() {
        let weight = || TensorProto::from_f32("w", &[1, 2], &[1.0, 2.0]);
        let product = || NodeProto::new("MatMul", &["x", "w"], &["t"]);
        let rows = [None, Some(1)];
        let mut g = graph(vec![product(), norm("t", "y")], vec![weight()], &rows);
        assert_eq!(fold_batch_norm(&mut g).folded, 1);
        assert_eq!((floats(&g, "w"), floats(&g, "w_bias")), (vec![2.0, -2.0], vec![3.0, 5.0]));
        assert_eq!(g.node[1].op_type(), "Add");

        let add = NodeProto::new("Add", &["k", "t"], &["u"]);
        let constant = TensorProto::from_f32("k", &[1, 2], &[10.0, 20.0]);
        let nodes = vec![product(), add, norm("u", "y")];
        let mut g = graph(nodes, vec![weight(), constant.clone()], &rows);
        assert_eq!(fold_batch_norm(&mut g).folded, 1);
        assert_eq!(g.node[1].input, ["t", "k"]);
        assert_eq!(floats(&g, "k"), [23.0, -15.0]);

        // Of a sequence, axis 1 is not the columns.
        let dims = [None, Some(2), Some(1)];
        let mut g = graph(vec![product(), norm("t", "y")], vec![weight()], &dims);
        let report = fold_batch_norm(&mut g);
        assert_eq!((report.folded, report.scaled), (0, 1));
    }

    #[test]
    fn gemm_has_its_factors() {
        let weight = TensorProto::from_f32("w", &[2, 1], &[1.0, 2.0]);
        let bias = TensorProto::from_f32("c", &[2], &[1.0, 1.0]);
        let gemm = NodeProto::new("Gemm", &["x", "w", "c"], &["t"])
            .with(AttributeProto::of_int("transB", 1))
            .with(AttributeProto::of_float("alpha", 0.5))
            .with(AttributeProto::of_float("beta", 10.0));
        let mut g = graph(vec![gemm, norm("t", "y")], vec![weight, bias], &[None, Some(1)]);
        assert_eq!(fold_batch_norm(&mut g).folded, 1);
        assert_eq!((floats(&g, "w"), floats(&g, "c")), (vec![2.0, -2.0], vec![23.0, -5.0]));
        assert_eq!((g.node[0].float("alpha", 1.0), g.node[0].float("beta", 1.0)), (0.5, 1.0));
    }

    #[test]
    fn shared_weights_are_copied_and_read_results_are_left() {
        let weight = || TensorProto::from_f32("w", &[2, 1, 1, 1], &[1.0, 2.0]);
        let conv = |to: &str| NodeProto::new("Conv", &["x", "w"], &[to]);
        let join = NodeProto::new("Add", &["n", "o"], &["y"]);
        let nodes = vec![conv("t"), norm("t", "n"), conv("o"), join.clone()];
        let mut g = graph(nodes, vec![weight()], &IMAGE);
        assert_eq!(fold_batch_norm(&mut g).folded, 1);
        assert_eq!((floats(&g, "w"), floats(&g, "w_1")), (vec![1.0, 2.0], vec![2.0, -2.0]));

        let nodes = vec![conv("o"), norm("o", "n"), join];
        let mut g = graph(nodes, vec![weight()], &IMAGE);
        let report = fold_batch_norm(&mut g);
        assert_eq!((report.folded, report.scaled), (0, 1));
        assert_eq!(floats(&g, "n_shift"), [3.0, 5.0]);
        assert_eq!(g.find_initializer("n_scale").unwrap().dims, [1, 2, 1, 1]);
    }

    #[test]
    fn training_and_unknown_ranks_stay() {
        let trains = norm("x", "y").with(AttributeProto::of_int("training_mode", 1));
        let mut g = graph(vec![trains], vec![], &IMAGE);
        let report = fold_batch_norm(&mut g);
        assert_eq!((report.kept.len(), g.node[0].op_type()), (1, "BatchNormalization"));
        let mystery = NodeProto { domain: Some("x".into()), ..NodeProto::new("M", &["x"], &["t"]) };
        let mut g = graph(vec![mystery, norm("t", "y")], vec![], &IMAGE);
        g.output[0] = ValueInfoProto { name: Some("y".into()), ..ValueInfoProto::default() };
        assert_eq!(fold_batch_norm(&mut g).kept[0].1, "the rank of its input is not known");
    }
}
