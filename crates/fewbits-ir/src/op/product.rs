//! Products of bytes with constant weights.

use std::ops::RangeInclusive;
use std::sync::Arc;

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::{QuantizeTo, Window};
use fewbits_kernels::float::{Binary, Function};
use fewbits_quant::QTensor;
use serde::{Deserialize, Serialize};

use super::windows::{image_size, window_taps};
use super::{ByteScale, Computed, f32s, floats, input, shape, u8s};
use crate::shape::{Broadcast, Shape};
use crate::{Result, RuntimeError, Tensor};

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

impl Product {
    /// How many values it reads.
    pub(super) fn inputs(&self) -> RangeInclusive<usize> {
        match self.epilogue {
            Epilogue::Bytes { add: Some(_), .. } | Epilogue::Floats { adds_input: true, .. } => {
                2..=2
            }
            _ => 1..=1,
        }
    }

    /// How many values it gives, those on the way included.
    pub(super) fn outputs(&self) -> RangeInclusive<usize> {
        match self.epilogue {
            Epilogue::Bytes { add: Some(_), .. } => 2..=2,
            Epilogue::Floats { adds_input: true, quantize: Some(_), .. } => 3..=3,
            Epilogue::Floats { adds_input: true, quantize: None, .. } => 2..=3,
            _ => 1..=1,
        }
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

/// The sums of a product, in the order of ONNX.
struct Sums {
    values: Vec<i32>,
    shape: Shape,
    /// How many sums of an output lie side by side.
    inner: usize,
}

/// The zero point of the bytes that go in, and what their scale multiplies sums by.
fn parameters(product: &Product, input: &Computed) -> Result<(i32, Option<f32>)> {
    match product.activations {
        Activations::Static { zero_point } => Ok((i32::from(zero_point), None)),
        Activations::Dynamic => {
            let ByteScale { scale, zero_point } = input.dynamic.ok_or_else(|| {
                RuntimeError::Run { reason: "bytes came without their scale".to_string() }
            })?;
            Ok((i32::from(zero_point), Some(scale)))
        }
    }
}

pub(super) fn matmul(product: &Product, inputs: &[&Computed]) -> Result<Vec<Computed>> {
    let from = input(inputs, 0)?;
    let (zero_point, scale) = parameters(product, inputs[0])?;
    let (depth, columns) = (product.weights.depth(), product.weights.columns());
    let from_shape = shape(from)?;
    if from_shape.last() != depth {
        let reason = format!("a product of rows of {depth} was given the shape {from_shape:?}");
        return Err(RuntimeError::Run { reason });
    }
    let weights = product.weights.ints();
    let mut values = Vec::with_capacity(from_shape.rows() * columns);
    for row in u8s(from)?.chunks_exact(depth) {
        for (weights, &bias) in weights.chunks_exact(depth).zip(&product.bias) {
            let products =
                row.iter().zip(weights).map(|(&q, &w)| (i32::from(q) - zero_point) * i32::from(w));
            values.push(products.fold(bias, i32::wrapping_add));
        }
    }
    let sums = Sums { values, shape: from_shape.with_last(columns), inner: 1 };
    finished(product, sums, scale, inputs)
}

pub(super) fn conv(conv: &Conv, inputs: &[&Computed]) -> Result<Vec<Computed>> {
    let product = &conv.product;
    let from = input(inputs, 0)?;
    let (zero_point, scale) = parameters(product, inputs[0])?;
    let filters = product.weights.columns();
    let to = shape(from)?.windowed(filters, &conv.window)?;
    let (channels, group_channels) = (from.shape()[1], product.weights.tensor.layout().shape()[1]);
    if channels != group_channels * conv.groups {
        let reason = format!(
            "a convolution of {} channels was given images of {channels}",
            group_channels * conv.groups
        );
        return Err(RuntimeError::Run { reason });
    }
    let [height, width] = image_size(from.shape());
    let [out_height, out_width] = image_size(to.dims());
    let (weights, depth) = (product.weights.ints(), product.weights.depth());
    let taps = conv.window.kernel[0] * conv.window.kernel[1];
    let bytes = u8s(from)?;
    let mut values = Vec::with_capacity(to.len());
    for image in 0..from.shape()[0] {
        for filter in 0..filters {
            let first = filter / (filters / conv.groups) * group_channels;
            let weights = &weights[filter * depth..][..depth];
            for at in (0..out_height).flat_map(|y| (0..out_width).map(move |x| [y, x])) {
                let mut sum = product.bias[filter];
                for (tap, place) in window_taps(&conv.window, at, [height, width]).enumerate() {
                    // What is outside the image is zero.
                    let Some((y, x)) = place else { continue };
                    for channel in 0..group_channels {
                        let plane = (image * channels + first + channel) * height * width;
                        let q = i32::from(bytes[plane + y * width + x]) - zero_point;
                        let w = i32::from(weights[channel * taps + tap]);
                        sum = sum.wrapping_add(q * w);
                    }
                }
                values.push(sum);
            }
        }
    }
    let sums = Sums { values, shape: to, inner: out_height * out_width };
    finished(product, sums, scale, inputs)
}

/// What becomes of the sums, and what is computed on the way.
fn finished(
    product: &Product,
    sums: Sums,
    input_scale: Option<f32>,
    inputs: &[&Computed],
) -> Result<Vec<Computed>> {
    let Sums { values, shape: from, inner } = sums;
    let columns = product.scale.len();
    let column = |i: usize| i / inner % columns;
    let scaled = |i: usize, sum: i32| {
        let scale = product.scale[column(i)];
        sum as f32 * input_scale.map_or(scale, |input_scale| input_scale * scale)
    };
    let sums = values.iter().enumerate();
    let tensor = |to: Shape, bytes: Vec<u8>| Tensor::new(to.dims().to_vec(), bytes);
    match &product.epilogue {
        Epilogue::Bytes { to, add } => {
            let steps = QuantizeTo { scale: 1.0, ..*to };
            let bytes: Vec<u8> = sums.map(|(i, &sum)| steps.byte(scaled(i, sum))).collect();
            let Some(add) = add else { return Ok(vec![tensor(from, bytes)?.into()]) };
            let (own, other) = (ByteScale::of(*to), input(inputs, 1)?);
            let sum_shape = from.broadcast(shape(other)?)?;
            let at = [Broadcast::new(from, sum_shape), Broadcast::new(shape(other)?, sum_shape)];
            let other = u8s(other)?;
            let sum = |i: usize| {
                let (a, b) = (bytes[at[0].at(i)], other[at[1].at(i)]);
                add.to.byte(own.float(a) + add.scale.float(b))
            };
            let sums = tensor(sum_shape, (0..sum_shape.len()).map(sum).collect())?;
            Ok(vec![sums.into(), tensor(from, bytes)?.into()])
        }
        Epilogue::Floats { offset, function, adds_input, quantize } => {
            let float = |(i, &sum): (usize, &i32)| {
                let float = scaled(i, sum);
                let float = match offset {
                    Some(offset) => float + offset[column(i)],
                    None => float,
                };
                function.map_or(float, |function| function.at(float))
            };
            let product = Tensor::new(from.dims().to_vec(), sums.map(float).collect::<Vec<_>>())?;
            let mut floats = product.clone();
            let mut on_the_way = Vec::new();
            if *adds_input {
                let add = Binary::Add;
                floats = floats::binary(add, &product, input(inputs, 1)?)?;
                on_the_way.extend([product.into(), floats.clone().into()]);
            }
            let output = match quantize {
                Some(to) => {
                    let bytes = f32s(&floats)?.iter().map(|&x| to.byte(x)).collect();
                    tensor(shape(&floats)?, bytes)?
                }
                None => floats,
            };
            Ok([vec![output.into()], on_the_way].concat())
        }
    }
}
