//! Rules, by which nodes become steps.

use fewbits_kernels::bytes::QuantizeTo;
use fewbits_onnx::proto::NodeProto;

use crate::example::Example;
use crate::lower::Lowering;
use crate::program::ValueId;
use crate::refusal::Refusal;

/// A way to compute a node.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    /// What it is called: the name of its file.
    pub name: &'static str,
    pub takes: Takes,
    /// Makes the smallest graph on which it shows what it does.
    pub example: fn() -> Example,
}

/// What a rule computes, and from what.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// Bytes from bytes.
    ToBytes(for<'a> fn(&mut Lowering<'a>, &Wanted<'a>) -> Result<ValueId, Refusal>),
    /// Floats, or what ONNX has as integers, from bytes: it takes the bytes before a node as they are
    /// lowered for whoever reads them.
    FromBytes(for<'a> fn(&mut Lowering<'a>, &'a NodeProto) -> Result<ValueId, Refusal>),
    /// What the other executor cannot compute, wherever it stands.
    Anywhere(Asked),
    /// Floats, where [`choose_float_nodes`](Lowering::choose_float_nodes) lets them.
    Floats(Asked),
    /// The integers of labels, where floats are chosen.
    Labels(Asked),
    /// Nothing: it only says why a node by itself is no step.
    Nothing(fn(&NodeProto) -> Refusal),
}

/// A way to compute a node, which changes nothing while it is only asked for.
pub(crate) type Asked = for<'a> fn(&Lowering<'a>, &'a NodeProto) -> Result<Rewrite<'a>, Refusal>;

/// What is done for a node once all checks hold: it cannot be refused any more.
pub(crate) type Rewrite<'a> = Box<dyn FnOnce(&mut Lowering<'a>) -> ValueId + 'a>;

/// The bytes that are wanted of what a node gives.
pub(crate) struct Wanted<'a> {
    pub node: &'a NodeProto,
    /// The float value that the node gives.
    pub name: &'a str,
    pub to: QuantizeTo,
    /// The clips between node and QuantizeLinear, in words.
    pub behind: String,
}
