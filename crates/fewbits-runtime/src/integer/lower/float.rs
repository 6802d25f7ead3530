//! Our own steps in f32: what stands between integer products in a transformer or a perceptron.

use std::collections::HashSet;

use fewbits_kernels::float::{Binary, Function};
use fewbits_onnx::proto::NodeProto;
use fewbits_onnx::qweight::is_mat_mul_n_bits;

use crate::integer::lower::function::{function_of, name_of};
use crate::integer::lower::movement::permutation;
use crate::integer::lower::{Form, Lowering};
use crate::integer::program::AnyStep;
use crate::integer::state::ValueId;
use crate::integer::steps::binary_of_bytes::BinaryOfBytes;
use crate::integer::steps::float::{
    Elementwise, FloatBinary, LayerNorm, Reduce, Reduction, Softmax,
};
use crate::integer::steps::movement::{Concat, Transpose};
use crate::integer::steps::product::{Epilogue, FloatResidual};

/// The operators that start or end integers.
const ANCHORS: [&str; 5] =
    ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"];

impl<'a> Lowering<'a> {
    /// Chooses which float nodes become our own steps: those that are linked to integers or to a
    /// convolution of ours by nodes that can all be ours, or all nodes of the graph. Others go to the
    /// float executor, so that values are not handed to and fro.
    pub(crate) fn choose_float_nodes(&mut self, constant: &HashSet<usize>) {
        let graph = self.net.graph;
        let is_product = |name: &String| {
            let producer = self.net.producer(name);
            producer.is_some_and(|(_, n)| n.is("MatMulInteger") || n.is("ConvInteger"))
        };
        // The Cast of sums belongs to the product.
        let is_anchor = |node: &NodeProto| {
            ANCHORS.iter().any(|op| node.is(op)) || (node.is("Cast") && is_product(&node.input[0]))
        };
        let candidates: HashSet<usize> = (0..graph.node.len())
            .filter(|i| !constant.contains(i) && self.can_be_ours(&graph.node[*i]))
            .collect();
        let anchors = (0..graph.node.len()).filter(|i| {
            let node = &graph.node[*i];
            // Convolutions of floats are worth it: ours take half the time.
            let is_convolution = node.is("Conv") && candidates.contains(i);
            // So are products by integers that stay what they are.
            let is_product = candidates.contains(i) && self.keeps_codes(node);
            !constant.contains(i) && (is_anchor(node) || is_convolution || is_product)
        });
        let mut reached: HashSet<usize> = anchors.collect();
        let all = (0..graph.node.len())
            .all(|i| constant.contains(&i) || candidates.contains(&i) || reached.contains(&i));
        if all {
            self.own_float = candidates;
            return;
        }
        let mut open: Vec<usize> = reached.iter().copied().collect();
        while let Some(position) = open.pop() {
            let node = &graph.node[position];
            let before = node.input.iter().filter_map(|name| self.net.index.producer(name));
            let behind = node.output.iter().flat_map(|o| self.net.index.consumers(o)).copied();
            for next in before.chain(behind) {
                if candidates.contains(&next) && reached.insert(next) {
                    open.push(next);
                }
            }
        }
        self.own_float = reached;
    }

    /// Whether a step of ours computes this node, if its values are floats.
    pub(super) fn can_be_ours(&self, node: &NodeProto) -> bool {
        let Some(output) = node.output.first() else { return false };
        if is_mat_mul_n_bits(node) {
            return self.is_float(output) && self.is_constant_product(node);
        }
        if !node.is_onnx() {
            return false;
        }
        if !self.is_float(output) {
            return self.is_label_node(node);
        }
        match node.op_type() {
            "MatMul" => node.input.iter().all(|name| self.rank(name).is_some_and(|r| r >= 2)),
            "Gemm" => node.int("transA", 0) == 0,
            "LayerNormalization" => self.is_last_axis(node, -1) && node.output.len() == 1,
            "Softmax" => self.softmax_is_last(node),
            "Transpose" => permutation(node).is_some(),
            "Concat" => true,
            "Gather" => self.is_embedding(node),
            "Cast" => self.is_float(&node.input[0]) || self.reads_integers_of_ours(node),
            "ReduceSum" | "ReduceMean" | "ReduceMax" => self.reduction(node).is_some(),
            "Conv" | "MaxPool" | "AveragePool" | "GlobalAveragePool" => {
                self.is_float_images_node(node)
            }
            _ => {
                binary_of(node).is_some()
                    || function_of(self, node).is_some()
                    || self.new_shape(node).is_some()
            }
        }
    }

    fn rank(&self, name: &str) -> Option<usize> {
        self.ranks.get(name).copied()
    }

    /// Whether a node's `axis` is the last of its input.
    pub(super) fn is_last_axis(&self, node: &NodeProto, default: i64) -> bool {
        let axis = node.int("axis", default);
        axis == -1 || self.rank(&node.input[0]).is_some_and(|rank| axis + 1 == rank as i64)
    }

    /// Joins the last `axes` axes; they stay as 1 unless the node says otherwise.
    pub(super) fn reduce(
        &mut self,
        node: &'a NodeProto,
        reduction: Reduction,
        axes: usize,
    ) -> ValueId {
        let keep_axes = node.int("keepdims", 1) != 0;
        let input = self.tensor(&node.input[0]);
        self.step(Form::Plain, &[input], node.op_type(), node, |output| Reduce {
            input,
            output,
            reduction,
            axes,
            keep_axes,
        })
    }

    /// What a node does with the last axes, if it reduces these alone, and how many.
    fn reduction(&self, node: &NodeProto) -> Option<(Reduction, usize)> {
        let axes = match node.input.get(1) {
            Some(name) => self.net.ints(name)?,
            None => node.ints("axes").to_vec(),
        };
        // Counted from the end.
        let mut axes: Vec<i64> = axes
            .into_iter()
            .map(|axis| match axis {
                ..0 => Some(axis),
                _ => Some(axis - self.rank(&node.input[0])? as i64),
            })
            .collect::<Option<_>>()?;
        axes.sort_unstable();
        let count = axes.len();
        (count > 0 && axes.into_iter().eq(-(count as i64)..0)).then_some(())?;
        let reduction = match node.op_type() {
            "ReduceSum" => Reduction::Sum,
            "ReduceMean" => Reduction::Mean,
            _ => Reduction::Max,
        };
        Some((reduction, count))
    }

    fn softmax_is_last(&self, node: &NodeProto) -> bool {
        // Before opset 13 all axes from `axis` on were one.
        self.is_last_axis(node, if self.net.opset >= 13 { -1 } else { 1 })
    }

    /// A float node as a step of ours.
    pub(super) fn float_node(&mut self, name: &'a str, node: &'a NodeProto) -> Option<ValueId> {
        let (position, _) = self.net.producer(name)?;
        self.own_float.contains(&position).then_some(())?;
        if self.is_embedding(node) {
            return self.embedding(node);
        }
        if let Some((function, input)) = self.function_at(node) {
            return Some(self.elementwise(input, function, node));
        }
        match node.op_type() {
            "Conv" | "MaxPool" | "AveragePool" | "GlobalAveragePool" => self.float_images(node),
            "LayerNormalization" => {
                let (gain, _) = self.net.floats(node.input.get(1)?)?;
                let bias = match node.input.get(2).map_or("", String::as_str) {
                    "" => Vec::new(),
                    name => self.net.floats(name)?.0,
                };
                let epsilon = node.float("epsilon", 1e-5);
                let input = self.tensor(&node.input[0]);
                Some(self.step(Form::Plain, &[input], node.op_type(), node, |output| LayerNorm {
                    input,
                    output,
                    gain,
                    bias,
                    epsilon,
                }))
            }
            "Cast" => Some(self.tensor(&node.input[0])),
            "Concat" => {
                let axis = node.attr("axis")?.i();
                let inputs: Vec<ValueId> = node.input.iter().map(|n| self.tensor(n)).collect();
                let parts = inputs.clone();
                Some(self.step(Form::Plain, &inputs, "Concat", node, |output| Concat {
                    inputs: parts,
                    output,
                    axis,
                    form: Form::Plain,
                    halo: 0,
                    element_bytes: 4,
                }))
            }
            "ReduceSum" | "ReduceMean" | "ReduceMax" => {
                let (reduction, axes) = self.reduction(node)?;
                Some(self.reduce(node, reduction, axes))
            }
            "Softmax" => {
                let input = self.tensor(&node.input[0]);
                Some(self.step(Form::Plain, &[input], "Softmax", node, |output| Softmax {
                    input,
                    output,
                }))
            }
            "Transpose" => {
                let permutation = permutation(node)?;
                if let Some(id) = self.transposed_product(&node.input[0], &permutation) {
                    return Some(id);
                }
                let input = self.tensor(&node.input[0]);
                Some(self.step(Form::Plain, &[input], "Transpose", node, |output| Transpose {
                    input,
                    output,
                    permutation,
                    element_bytes: 4,
                }))
            }
            _ => {
                if let Some(to) = self.new_shape(node) {
                    let input = self.tensor(&node.input[0]);
                    return Some(self.reshape(input, to, node));
                }
                let operation = binary_of(node)?;
                Some(self.float_binary(operation, node))
            }
        }
    }

    /// A function of each element; inside the product that gives them, if one does.
    fn elementwise(&mut self, name: &'a str, function: Function, node: &'a NodeProto) -> ValueId {
        if let Some((_, before)) = self.net.producer(name)
            && self.is_read_only_by(name, node)
            && let Some(id) = self.binary_of_bytes(before, Some(function))
        {
            return id;
        }
        let input = self.tensor(name);
        if self.is_read_only_by(name, node)
            && let Some(product) = self.product_of(input)
            && let Epilogue::Floats { function: open @ None, add: None, quantize: None, .. } =
                &mut product.epilogue
        {
            *open = Some(function);
            return self.fuse(input, Form::Plain, &format!(" + {}", name_of(function, node)));
        }
        if self.is_read_only_by(name, node)
            && let Some(convolution) = self.convolution_of(input)
            && let open @ None = &mut convolution.function
        {
            *open = Some(function);
            return self.fuse(input, Form::Plain, &format!(" + {}", name_of(function, node)));
        }
        self.step(Form::Plain, &[input], name_of(function, node), node, |output| Elementwise {
            input,
            output,
            function,
        })
    }

    /// An operator on two values that are bytes, and a function of its result: in one pass, since
    /// floats of images take more time to write and read than to compute.
    fn binary_of_bytes(
        &mut self,
        node: &'a NodeProto,
        function: Option<Function>,
    ) -> Option<ValueId> {
        let operation = binary_of(node).filter(|_| node.is_onnx())?;
        let [a, b] = node.input.as_slice() else { return None };
        (self.is_source(a) && self.is_source(b)).then_some(())?;
        let (a, b) = (self.source(a)?, self.source(b)?);
        let form = self.form(a.id);
        (self.form(b.id) == form).then_some(())?;
        let what = match function {
            Some(function) => format!("{} + {function:?}", node.op_type()),
            None => node.op_type().to_string(),
        };
        let inputs = [(a.id, a.ty.scale), (b.id, b.ty.scale)];
        Some(self.step(Form::Plain, &[a.id, b.id], what, node, |output| BinaryOfBytes {
            inputs,
            output,
            operation,
            function,
            form,
        }))
    }

    fn float_binary(&mut self, operation: Binary, node: &'a NodeProto) -> ValueId {
        if let Some(id) = self.binary_of_bytes(node, None) {
            return id;
        }
        let (a_name, b_name) = (node.input[0].as_str(), node.input[1].as_str());
        let (a, b) = (self.tensor(a_name), self.tensor(b_name));
        if operation == Binary::Add {
            for ((name, id), (other_name, other)) in
                [((a_name, a), (b_name, b)), ((b_name, b), (a_name, a))]
            {
                if let Some(sum) = self.added_to_product(name, id, other_name, other) {
                    return sum;
                }
            }
        }
        self.step(Form::Plain, &[a, b], node.op_type(), node, |output| FloatBinary {
            inputs: [a, b],
            output,
            operation,
        })
    }

    /// Adds `other` inside the product that gives `id`, if nothing else reads it.
    fn added_to_product(
        &mut self,
        name: &str,
        id: ValueId,
        other_name: &str,
        other: ValueId,
    ) -> Option<ValueId> {
        // More axes than the product has would be axes of the sum.
        let rank = self.rank(name).unwrap_or(1);
        let row = self.net.floats(other_name).filter(|(_, shape)| {
            shape.len() <= 1
                || (shape.len() <= rank && shape[..shape.len() - 1].iter().all(|&d| d == 1))
        });
        let is_constant = self.net.initializer(other_name).is_some();
        let product = self.open_product(name, id)?;
        let columns = product.scale.len();
        let Epilogue::Floats { offset, function, add: None, quantize: None } =
            &mut product.epilogue
        else {
            return None;
        };
        if let Some((values, _)) = row
            && offset.is_none()
            && function.is_none()
            && values.len() == columns
        {
            *offset = Some(values);
            return Some(self.fuse(id, Form::Plain, " + Add"));
        }
        (id != other && !is_constant).then_some(())?;
        let residual =
            FloatResidual { other, product: self.value(Form::Plain), sum: self.value(Form::Plain) };
        let output = self.fuse(id, Form::Plain, " + Add");
        let unit = self.values[output.index()].unit?;
        let unit = &mut self.units[unit];
        unit.inputs.push(other);
        unit.outputs.extend([residual.product, residual.sum]);
        if let AnyStep::Product(product) = &mut unit.step
            && let Epilogue::Floats { add, .. } = &mut product.epilogue
        {
            *add = Some(residual);
        }
        Some(output)
    }
}

fn binary_of(node: &NodeProto) -> Option<Binary> {
    (node.input.len() == 2).then_some(())?;
    Some(match node.op_type() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        _ => return None,
    })
}
