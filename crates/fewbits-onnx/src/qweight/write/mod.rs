//! Writing quantized weights into a model.

mod dequantize;
mod emit;
mod floats;
mod integers;
mod lookup;
mod nbits;

use fewbits_quant::{Granularity, QTensor};

use crate::MICROSOFT;
use crate::equal_initializers::share_equal_initializers;
use crate::graph::Names;
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};
use crate::{Model, OnnxError, Result};

/// The newest opset whose forms of weights are plain.
const PLAIN_OPSET: i64 = 13;

/// What the integers of weights may be written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightForm {
    /// The packed types and the blocks of the model's opset, and bit slices.
    #[default]
    Newest,
    /// As the newest, and products of groups of 4 bits with `MatMulNBits` of `com.microsoft`.
    NBits,
    /// The packed types and the blocks of the model's opset; whole bytes for what has no type.
    NewestUnsliced,
    /// What opset 13 has, whatever the model's: no packed types and no blocks, but bit slices.
    Plain,
}

/// What computes with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBy {
    /// A product of integers: runtimes know it by the `DequantizeLinear` of its weight.
    Integers,
    /// Products of floats, or look-ups.
    Floats,
}

impl WeightForm {
    /// Whether floats of a weight that only products of floats read are computed by operators that
    /// runtimes fold when they load the model.
    ///
    /// onnxruntime folds no `DequantizeLinear`. Between a constant of one scale, or of one a channel, and a
    /// `MatMul` it makes both `MatMulNBits`, which rounds the *activations* to 8 bits; elsewhere it
    /// dequantizes at every call, which may take longer than the product. Blocks of fewer than 8 bits stay
    /// as they are: there the rounding costs less than the weights do, and gains speed and memory.
    fn folds(self, weight: &QTensor) -> bool {
        let in_blocks = matches!(weight.layout().granularity(), Granularity::Group { .. });
        matches!(self, WeightForm::Newest | WeightForm::NBits)
            && (weight.codes().width() >= 8 || !in_blocks)
    }

    /// The opset whose forms may be used in a model of `opset`.
    fn usable(self, opset: i64) -> i64 {
        match self {
            WeightForm::Plain => opset.min(PLAIN_OPSET),
            WeightForm::Newest | WeightForm::NBits | WeightForm::NewestUnsliced => opset,
        }
    }
}

/// Replaces float initializers by quantized ones, then edits the graph once in [`finish`].
///
/// [`finish`]: QWeightWriter::finish
pub struct QWeightWriter<'a> {
    model: &'a mut Model,
    /// The opset whose forms may be used.
    opset: i64,
    form: WeightForm,
    names: Names,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Nodes of the model, by position, and what takes their place.
    replaced: Vec<(usize, Vec<NodeProto>)>,
}

impl<'a> QWeightWriter<'a> {
    /// Starts editing `model`.
    pub fn new(model: &'a mut Model, form: WeightForm) -> QWeightWriter<'a> {
        let names = Names::new(model.graph());
        let opset = form.usable(model.opset());
        QWeightWriter {
            model,
            opset,
            form,
            names,
            nodes: Vec::new(),
            initializers: Vec::new(),
            replaced: Vec::new(),
        }
    }

    /// Why integers of this width cannot be written at the model's opset, if so.
    pub fn obstacle(opset: i64, width: u8) -> Option<String> {
        let needed = if width == 8 { 7 } else { 11 };
        (opset < needed).then(|| {
            format!("{width}-bit weights need opset {needed}, the model has {opset}; export it with a newer opset")
        })
    }

    /// Whether the model has an initializer of this name.
    pub fn has(&self, name: &str) -> bool {
        self.model.graph().find_initializer(name).is_some()
    }

    /// Replaces the initializer `name` by `weight`.
    ///
    /// # Errors
    /// If the model has no such initializer, it is damaged, or the opset is too old for the width.
    pub fn replace(&mut self, name: &str, weight: QTensor, read_by: ReadBy) -> Result<()> {
        let data_type = match self.model.graph().find_initializer(name) {
            Some(tensor) => tensor.element_type()?,
            None => {
                return Err(OnnxError::Node {
                    node: name.to_string(),
                    op: "initializer".into(),
                    reason: "the model has no weight of this name; inspect lists those it has"
                        .into(),
                });
            }
        };
        if let Some(reason) = Self::obstacle(self.opset, weight.codes().width()) {
            return Err(OnnxError::Node { node: name.to_string(), op: "weight".into(), reason });
        }
        let lookups = self.lookups(name, &weight, data_type);
        if !lookups.is_empty() {
            self.remove_initializer(name);
            self.look_up(weight, name, lookups);
            return Ok(());
        }
        let products = self.products(name, &weight, data_type);
        if !products.is_empty() {
            self.remove_initializer(name);
            self.multiply(weight, name, products);
            return Ok(());
        }
        let floats =
            if data_type == DataType::Float { name.to_string() } else { self.names.fresh("f") };
        self.dequantize(weight, read_by, &floats);
        if data_type != DataType::Float {
            self.cast(&floats, data_type, name);
        }
        self.remove_initializer(name);
        Ok(())
    }

    fn remove_initializer(&mut self, name: &str) {
        let graph = self.model.graph_mut();
        graph.initializer.retain(|t| t.name() != name);
        graph.input.retain(|i| i.name() != name);
    }

    /// Puts the new nodes before all others.
    pub fn finish(mut self) {
        let foreign = |nodes: &[NodeProto]| nodes.iter().any(|node| node.domain() == MICROSOFT);
        if self.replaced.iter().any(|(_, steps)| foreign(steps)) {
            self.model.import_domain(MICROSOFT, 1);
        }
        let graph: &mut GraphProto = self.model.graph_mut();
        // From the back, so that positions stay true.
        self.replaced.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
        for (position, steps) in self.replaced {
            graph.node.splice(position..=position, steps);
        }
        graph.node.splice(0..0, self.nodes);
        graph.initializer.extend(self.initializers);
        share_equal_initializers(graph);
    }
}
