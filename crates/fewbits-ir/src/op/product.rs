//! Products of bytes with constant weights.

use std::sync::Arc;

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::{QuantizeTo, Window};
use fewbits_kernels::float::Function;
use fewbits_quant::QTensor;
use serde::{Deserialize, Serialize};

use crate::op::ByteScale;

/// Which axis of the weights the outputs of a product are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputAxis {
    /// As of `Conv`, and of `Gemm` with `transB`.
    First,
    /// As of `MatMul`.
    Last,
}

/// The integer weights of a product: those of each output, less their zero point, within ±256.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// As they are stored. Their scales are in those of the product.
    #[serde(with = "crate::stored::qtensor")]
    pub tensor: Arc<QTensor>,
    /// Where its outputs are.
    pub outputs: OutputAxis,
}

/// A product of bytes and constant weights: exact sums of int32, and what becomes of them.
///
/// The sum of an output is that of `(byte - zero_point) * (weight - its zero point)`, plus its bias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// The constant factor.
    pub weights: Weights,
    /// What the bytes are less.
    pub activations: Activations,
    /// For each output, in units of the sums.
    #[serde(with = "crate::stored::per_column")]
    pub bias: Vec<i32>,
    /// For each output, what a sum is multiplied by.
    #[serde(with = "crate::stored::per_column")]
    pub scale: Vec<f32>,
    /// What becomes of the sums.
    pub epilogue: Epilogue,
}

/// The parameters of the bytes that go into a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// The same for every run; their scale is in those of the product.
    Static {
        /// The byte of zero.
        zero_point: u8,
    },
    /// Scale and zero point come with the bytes: sums are multiplied by that scale, too.
    Dynamic,
}

/// What becomes of the sums of a product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Epilogue {
    /// `round(sum * scale) + zero_point`, ties to even.
    Bytes {
        /// The bytes that come out; its scale counts only where something is added.
        to: QuantizeTo,
        /// The second input, which is added to these bytes; the second output are the bytes before.
        add: Option<AddBytes>,
    },
    /// `function(sum * scale + offset) + other`.
    Floats {
        /// For each output.
        #[serde(with = "crate::stored::per_column::optional")]
        offset: Option<Vec<f32>>,
        /// A function of the float.
        function: Option<Function>,
        /// Whether the second input is added last; the second output are the floats before, the third
        /// their sum.
        adds_input: bool,
        /// How the floats become bytes.
        quantize: Option<QuantizeTo>,
    },
}

impl Epilogue {
    /// Floats, and nothing done with them yet.
    pub fn floats(offset: Option<Vec<f32>>) -> Epilogue {
        Epilogue::Floats { offset, function: None, adds_input: false, quantize: None }
    }
}

/// Bytes that are added to those of a product.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddBytes {
    /// What they stand for.
    pub scale: ByteScale,
    /// How the sum becomes bytes.
    pub to: QuantizeTo,
}

/// A convolution of bytes `[images, channels, ..]` with weights `[filters, channels of a group, ..]`, of one
/// or two spatial axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// The sums over windows.
    pub product: Product,
    /// How windows move.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
}

impl Conv {
    /// The halo that holds the padding.
    pub fn halo(&self) -> Halo {
        let ([top, left], [bottom, right]) = (self.window.pads_begin, self.window.pads_end);
        Halo { top, left, bottom, right }
    }

    /// Whether each channel has a window of its own, which gives bytes: these have kernels of their own,
    /// which add nothing.
    pub fn is_depthwise(&self) -> bool {
        let shape = self.product.weights.tensor.layout().shape();
        let each = shape[1] == 1 && self.groups == shape[0] && self.groups > 1;
        each && matches!(self.product.epilogue, Epilogue::Bytes { .. })
            && self.product.weights.terms() == 1
    }
}

impl Weights {
    /// How many outputs there are.
    pub fn columns(&self) -> usize {
        let shape = self.tensor.layout().shape();
        match self.outputs {
            OutputAxis::First => shape[0],
            OutputAxis::Last => shape[shape.len() - 1],
        }
    }

    /// The products that each output is a sum of.
    pub fn depth(&self) -> usize {
        self.tensor.layout().elements().checked_div(self.columns()).unwrap_or(0)
    }

    /// The weights less their zero points, those of an output together: `[outputs, depth]`.
    pub fn ints(&self) -> Vec<i16> {
        let (codes, params) = (self.tensor.codes().unpack(), self.tensor.params());
        let (columns, depth) = (self.columns(), self.depth());
        let zero_point = |column: usize| match params.zero_point.len() {
            1 => params.zero_point_of(0),
            _ => params.zero_point_of(column),
        };
        match self.outputs {
            OutputAxis::First => codes
                .chunks_exact(depth.max(1))
                .enumerate()
                .flat_map(|(column, codes)| codes.iter().map(move |&c| c - zero_point(column)))
                .collect(),
            OutputAxis::Last => (0..columns)
                .flat_map(|column| {
                    let codes = codes.iter().skip(column).step_by(columns.max(1));
                    codes.map(move |&c| c - zero_point(column))
                })
                .collect(),
        }
    }

    /// How many terms of 8 bits the weights need: 1 or 2.
    pub fn terms(&self) -> usize {
        let small = self.ints().iter().all(|&w| i8::try_from(w).is_ok());
        if small { 1 } else { 2 }
    }
}
