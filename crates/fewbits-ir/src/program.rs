//! A program: steps in an order, and the values that they work on.

use fewbits_kernels::Halo;
use fewbits_onnx::proto::DataType;
use serde::{Deserialize, Serialize};

use crate::op::{ByteScale, Op};
use crate::{F64Prologue, RowsKnown, Tensor, ValueSpec};

/// A value of a program, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueId(pub u32);

impl ValueId {
    /// The position.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a value before a program runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// The names that it has in the ONNX graph.
    pub names: Vec<String>,
    /// Its element type and sizes in the ONNX graph.
    pub fact: Fact,
    /// How its elements lie.
    pub layout: Layout,
    /// What its bytes stand for, if it is an activation in bytes.
    pub quantization: Option<Quantization>,
}

/// What is known of the elements of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Their type.
    #[serde(with = "crate::stored::data_type::optional")]
    pub data_type: Option<DataType>,
    /// The sizes of the axes; `None` for one that depends on what is fed.
    pub dims: Option<Vec<Option<usize>>>,
}

/// How the elements of a value lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// As ONNX orders them: the last axis is the fastest.
    #[default]
    RowMajor,
    /// Images, their channels last, with a halo around them that holds the zero point.
    ChannelsLast(Halo),
}

impl Layout {
    /// Images without a halo.
    pub const IMAGES: Layout = Layout::ChannelsLast(Halo { top: 0, left: 0, bottom: 0, right: 0 });

    /// Whether channels are last.
    pub fn is_channels_last(self) -> bool {
        matches!(self, Layout::ChannelsLast(_))
    }

    /// The halo; none as ONNX orders elements.
    pub fn halo(self) -> Halo {
        match self {
            Layout::RowMajor => Halo::default(),
            Layout::ChannelsLast(halo) => halo,
        }
    }
}

/// What bytes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// The same in every run.
    Static(ByteScale),
    /// Scale and zero point come with the bytes.
    Dynamic,
}

/// A step with what it reads and writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What is computed.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<ValueId>,
    /// What it gives first; then what it may compute on the way.
    pub outputs: Vec<ValueId>,
    /// What people call it: `Conv + Relu`.
    pub what: String,
    /// The ONNX node that it stands for, or the first of them.
    pub node: String,
    /// The rule that made it; of a fallback none.
    pub rule: Option<String>,
    /// Where it computes.
    pub backend: Backend,
    /// How many ONNX nodes it takes the place of, those that depend on no input left out.
    pub nodes: usize,
    /// Why these are left to another executor, one reason a kind of node; empty for what is not.
    pub why: Vec<String>,
}

/// Where a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// On integers, or between integers and floats, in kernels of ours.
    Integers,
    /// On floats, in kernels of ours: the same bits on every CPU.
    Floats,
    /// In rten: where it rounds, the last bits may depend on the CPU.
    Rten,
}

/// A value that is the same in every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Constant {
    /// The value.
    pub id: ValueId,
    /// What it is.
    pub tensor: Tensor,
}

/// Steps in the order in which they run, and what they work on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// What callers feed, and what is done with it in 64 bits first.
    pub prologue: F64Prologue,
    /// The values.
    pub values: Vec<Value>,
    /// What is computed once, of constants alone, before the first run.
    pub once: Vec<Step>,
    /// What every run computes.
    pub steps: Vec<Step>,
    /// The values that no step computes.
    pub constants: Vec<Constant>,
    /// What steps take of what is fed.
    pub inputs: Vec<(ValueSpec, ValueId)>,
    /// What a run gives.
    pub outputs: Vec<(ValueSpec, ValueId)>,
    /// What is known of the rows of a batch.
    pub rows: RowsKnown,
    /// Whether the rows of a batch may be computed apart, to the same bits.
    pub is_cut: bool,
    /// What the weights of the model take.
    pub weight_bytes: usize,
}

impl Program {
    /// The value at `id`.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }
}
