//! A product of bytes with constant weights: a matrix, or a convolution.

use std::ops::Range;

use fewbits_kernels::bytes::{AddScales, QuantizeTo, Requantize, Window, image_to_floats};
use fewbits_kernels::float::{self, Function};
use fewbits_kernels::gemm::{
    self, AddBytes, AddFloats, Dequantize, Grid, Input, Output, PackedWeights, RowStrides,
};
use fewbits_kernels::{Buffer, ImageLayout};

use fewbits_ir::Layout;
use crate::steps::Kernel;
use crate::state::{ByteScale, DynamicScratch, Shape, State, ValueId, image_layout};
use crate::steps::elementwise::{Binary, Operator};
use crate::steps::float::FloatBinary;
use crate::steps::quantize::Quantize;
use crate::steps::windowed;
use crate::{Result, RuntimeError};

/// The step.
pub(crate) struct Product {
    pub input: ValueId,
    pub output: ValueId,
    /// One for each group of channels.
    pub weights: Vec<PackedWeights>,
    /// Of a convolution.
    pub conv: Option<Conv>,
    /// Whether scale and zero point of the input come with it. Then `bias` is the sum of each
    /// column's weights with its sign changed, and `scale` that of the weights.
    pub dynamic: bool,
    /// For each column, in units of the sums.
    pub bias: Vec<i32>,
    /// For each column: what a sum is multiplied by.
    pub scale: Vec<f32>,
    pub epilogue: Epilogue,
}

/// How a convolution moves over images.
pub(crate) struct Conv {
    pub window: Window,
    /// Padding at the end.
    pub end: [usize; 2],
    /// Terms of the weights, each of which goes over the window.
    pub terms: usize,
    /// Whether the pixels of a row of the window are one run.
    pub joined: bool,
    /// Of one that ends in floats: takes them pixel by pixel, before they become planes.
    pub pixels: Option<ValueId>,
}

/// What becomes of the sums.
pub(crate) enum Epilogue {
    Bytes {
        to: QuantizeTo,
        add: Option<Residual>,
    },
    Floats {
        /// Added to each column.
        offset: Option<Vec<f32>>,
        function: Option<Function>,
        /// Added last.
        add: Option<FloatResidual>,
        /// How the floats become bytes.
        quantize: Option<QuantizeTo>,
    },
}

impl Epilogue {
    /// Floats, and nothing done with them yet.
    pub(crate) fn floats(offset: Option<Vec<f32>>) -> Epilogue {
        Epilogue::Floats { offset, function: None, add: None, quantize: None }
    }
}

/// Bytes that are added to the product.
pub(crate) struct Residual {
    pub other: ValueId,
    /// Takes the product where shapes differ.
    pub product: ValueId,
    pub scale: ByteScale,
    pub to: QuantizeTo,
}

/// Floats that are added to the product.
pub(crate) struct FloatResidual {
    pub other: ValueId,
    /// Takes the product where shapes differ.
    pub product: ValueId,
    /// Takes the sum where shapes differ and it is quantized.
    pub sum: ValueId,
}

/// What sums are corrected by, and what they are worth, for each column.
#[derive(Clone, Copy)]
struct Corrections<'a> {
    bias: &'a [i32],
    scale: &'a [f32],
}

/// Some columns of a product, where their rows lie, and those of what is added to them.
struct Part {
    columns: Range<usize>,
    walk: RowStrides,
    other: RowStrides,
}

impl Product {
    fn columns(&self) -> usize {
        self.scale.len()
    }

    fn matrix(&self, state: &mut State, aside: Option<ValueId>) -> Result<()> {
        let weights = &self.weights[0];
        let shape = state.shape(self.input);
        let depth = weights.run_bytes();
        if shape.last() != depth {
            return Err(RuntimeError::Run {
                reason: format!("a product of rows of {depth} was given the shape {shape:?}"),
            });
        }
        let mut scratch = std::mem::take(&mut state.scratch.dynamic);
        let corrections = self.corrections(state, &mut scratch)?;
        let out_shape = shape.with_last(self.columns());
        let runs = [0, 0];
        let target = aside.unwrap_or(self.output);
        let mut out = state.take(target, out_shape, out_shape.len() * self.element_bytes(aside));
        let walk = RowStrides::of_matrix(self.columns());
        let part = Part { columns: 0..self.columns(), walk, other: walk };
        gemm::multiply(
            weights,
            Grid::of_matrix(shape.rows()),
            &Input {
                bytes: state.buffer(self.input).with_slack(),
                rows: RowStrides::of_matrix(depth),
                runs: &runs[..weights.runs()],
            },
            self.part_of(state, &mut out, part, corrections, aside),
            state.threads,
        );
        state.scratch.dynamic = scratch;
        state.give(target, out);
        Ok(())
    }

    /// What the sums of a run are corrected by; `scratch` takes what follows from the input.
    fn corrections<'a>(
        &'a self,
        state: &State,
        scratch: &'a mut DynamicScratch,
    ) -> Result<Corrections<'a>> {
        if !self.dynamic {
            return Ok(Corrections { bias: &self.bias, scale: &self.scale });
        }
        let ByteScale { scale, zero_point } = state.value(self.input).dynamic.ok_or_else(|| {
            RuntimeError::Run { reason: "bytes came without their scale".to_string() }
        })?;
        scratch.bias.clear();
        scratch.bias.extend(self.bias.iter().map(|b| b.wrapping_mul(i32::from(zero_point))));
        scratch.scale.clear();
        scratch.scale.extend(self.scale.iter().map(|s| scale * s));
        Ok(Corrections { bias: &scratch.bias, scale: &scratch.scale })
    }

    /// Where the kernels put a part of the product, and what they do with the sums before.
    fn part_of<'a>(
        &'a self,
        state: &'a State,
        out: &'a mut Buffer,
        part: Part,
        corrections: Corrections<'a>,
        aside: Option<ValueId>,
    ) -> Output<'a> {
        let Part { columns, walk, other } = part;
        let bias = &corrections.bias[columns.clone()];
        let scale = &corrections.scale[columns.clone()];
        match &self.epilogue {
            Epilogue::Bytes { to, add } => {
                let add = add.as_ref().filter(|_| aside.is_none());
                let add = add.map(|add| add.bytes(state, other));
                let requantize = Requantize { bias, scale, to: *to };
                Output::Bytes { bytes: out.u8s_mut(), rows: walk, requantize, add }
            }
            Epilogue::Floats { offset, function, add, quantize } => {
                let add = add.as_ref().filter(|_| aside.is_none());
                let add = add.map(|add| AddFloats { other: state.floats(add.other), rows: other });
                let offset = offset.as_ref().map(|offset| &offset[columns]);
                let dequantize = Dequantize { bias, scale, offset, function: *function, add };
                match quantize.filter(|_| aside.is_none()) {
                    None => Output::Floats { floats: out.f32s_mut(), rows: walk, dequantize },
                    Some(to) => {
                        Output::Quantized { bytes: out.u8s_mut(), rows: walk, dequantize, to }
                    }
                }
            }
        }
    }

    fn element_bytes(&self, aside: Option<ValueId>) -> usize {
        match self.epilogue {
            Epilogue::Bytes { .. } => 1,
            Epilogue::Floats { quantize: Some(_), .. } if aside.is_none() => 1,
            Epilogue::Floats { .. } => 4,
        }
    }

    fn convolution(&self, conv: &Conv, state: &mut State, aside: Option<ValueId>) -> Result<()> {
        let window = &conv.window;
        let from = state.image(self.input);
        let out_shape = windowed(state.shape(self.input), self.columns(), window, conv.end)?;
        let groups = self.weights.len();
        let group_channels =
            self.weights[0].run_bytes() / if conv.joined { window.kernel[1] } else { 1 };
        if from.channels != groups * group_channels {
            return Err(RuntimeError::Run {
                reason: format!(
                    "a convolution of {} channels was given images of {}",
                    groups * group_channels,
                    from.channels
                ),
            });
        }
        let mut scratch = std::mem::take(&mut state.scratch.dynamic);
        let corrections = self.corrections(state, &mut scratch)?;
        let target = conv.pixels.or(aside).unwrap_or(self.output);
        let to = image_layout(out_shape.dims(), state.value(target).halo);
        let mut out = state.take(target, out_shape, to.len_bytes() * self.element_bytes(aside));
        let grid = Grid { images: to.images, height: to.height, width: to.width };
        let columns = self.columns() / groups;
        let mut runs = std::mem::take(&mut state.scratch.offsets);
        runs.clear();
        for _ in 0..conv.terms {
            for y in 0..window.kernel[0] {
                let row = y * window.dilation[0] * from.row_pitch();
                let taps = if conv.joined { 1 } else { window.kernel[1] };
                runs.extend((0..taps).map(|x| row + x * window.dilation[1] * from.channels));
            }
        }
        let walk = RowStrides::of_windows(&from, window);
        let out_walk = RowStrides::of_image(&to);
        let other_walk =
            self.added_image(state).map_or(out_walk, |image| RowStrides::of_image(&image));
        for (group, weights) in self.weights.iter().enumerate() {
            let behind =
                |walk: RowStrides, by: usize| RowStrides { start: walk.start + by, ..walk };
            let first = group * columns;
            let part = Part {
                columns: first..first + columns,
                walk: behind(out_walk, first),
                other: behind(other_walk, first),
            };
            gemm::multiply(
                weights,
                grid,
                &Input {
                    bytes: state.buffer(self.input).with_slack(),
                    rows: behind(walk, group * group_channels),
                    runs: &runs,
                },
                self.part_of(state, &mut out, part, corrections, aside),
                state.threads,
            );
        }
        if let Epilogue::Bytes { to: bytes_to, add } = &self.epilogue {
            let add = add.as_ref().filter(|_| aside.is_none());
            let halo = add.map_or(bytes_to.zero_point, |add| add.to.zero_point);
            to.fill_halo(out.u8s_mut(), halo);
        }
        state.scratch.offsets = runs;
        state.scratch.dynamic = scratch;
        state.give(target, out);
        if let Some(pixels) = conv.pixels {
            to_planes(state, pixels, self.output);
        }
        Ok(())
    }

    /// How the bytes lie that a convolution adds.
    fn added_image(&self, state: &State) -> Option<ImageLayout> {
        match &self.epilogue {
            Epilogue::Bytes { add: Some(add), .. } => Some(state.image(add.other)),
            _ => None,
        }
    }

    /// The shape of the product.
    fn shape(&self, state: &State) -> Result<Shape> {
        let from = state.shape(self.input);
        match &self.conv {
            None => Ok(from.with_last(self.columns())),
            Some(conv) => windowed(from, self.columns(), &conv.window, conv.end),
        }
    }

    fn compute(&self, state: &mut State, aside: Option<ValueId>) -> Result<()> {
        match &self.conv {
            None => self.matrix(state, aside),
            Some(conv) => self.convolution(conv, state, aside),
        }
    }

    /// Adds bytes of another shape: the product first, then the sum.
    fn add_apart(&self, to: QuantizeTo, add: &Residual, state: &mut State) -> Result<()> {
        self.compute(state, Some(add.product))?;
        let scales = AddScales {
            a_scale: to.scale,
            a_zero_point: to.zero_point,
            b_scale: add.scale.scale,
            b_zero_point: add.scale.zero_point,
            to: add.to,
        };
        let form = if self.conv.is_some() { Form::Image } else { Layout::RowMajor };
        let inputs = [add.product, add.other];
        Binary { inputs, output: self.output, operator: Operator::Add, scales, form }.run(state)
    }

    /// Adds floats of another shape: the product first, then the sum.
    fn add_floats_apart(
        &self,
        quantize: Option<QuantizeTo>,
        add: &FloatResidual,
        state: &mut State,
    ) -> Result<()> {
        self.compute(state, Some(add.product))?;
        let sum = if quantize.is_some() { add.sum } else { self.output };
        let inputs = [add.product, add.other];
        FloatBinary { inputs, output: sum, operation: float::Binary::Add }.run(state)?;
        let Some(QuantizeTo { scale, zero_point, .. }) = quantize else { return Ok(()) };
        let scale = ByteScale { scale, zero_point };
        Quantize { input: sum, output: self.output, scale, form: Layout::RowMajor }.run(state)
    }
}

impl Residual {
    /// What the kernels add; its rows lie as `walk` says.
    fn bytes<'a>(&self, state: &'a State, walk: RowStrides) -> AddBytes<'a> {
        AddBytes {
            other: state.bytes(self.other),
            rows: walk,
            other_zero_point: self.scale.zero_point,
            other_scale: self.scale.scale,
            to: self.to,
        }
    }
}

/// Lays floats out as ONNX has them: each channel a plane.
fn to_planes(state: &mut State, pixels: ValueId, output: ValueId) {
    let (cpu, threads) = (state.cpu, state.threads);
    let (shape, layout) = (state.shape(pixels), state.image(pixels));
    let mut out = state.take(output, shape, shape.len() * 4);
    let (size, input) = (layout.image_pitch(), state.floats(pixels));
    threads.rows(out.f32s_mut(), size, 1, |first, out| {
        for (i, out) in out.chunks_exact_mut(size.max(1)).enumerate() {
            image_to_floats(cpu, &input[(first + i) * size..][..size], &layout, out);
        }
    });
    state.give(output, out);
}

impl Kernel for Product {
    fn run(&self, state: &mut State) -> Result<()> {
        match &self.epilogue {
            Epilogue::Bytes { to, add: Some(add) }
                if state.shape(add.other) != self.shape(state)? =>
            {
                self.add_apart(*to, add, state)
            }
            Epilogue::Floats { add: Some(add), quantize, .. }
                if state.shape(add.other) != self.shape(state)? =>
            {
                self.add_floats_apart(*quantize, add, state)
            }
            _ => self.compute(state, None),
        }
    }
}
