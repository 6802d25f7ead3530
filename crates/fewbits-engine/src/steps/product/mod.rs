//! A product of bytes with constant weights: a matrix, or a convolution.

mod unpacked;

use std::ops::Range;

use fewbits_ir::op::{
    self, Activations, AddBytes, ByteScale, BytesBinary, BytesOperator, Epilogue,
};
use fewbits_ir::{Layout, RuntimeError, Shape, ValueId};
use fewbits_kernels::bytes::{AddScales, QuantizeTo, Requantize, Window, image_to_floats};
use fewbits_kernels::float;
use fewbits_kernels::gemm::{
    self, AddFloats, Dequantize, Grid, Input, Output, PackedWeights, RowStrides,
};
use fewbits_kernels::{Buffer, Cpu, ImageLayout};

use crate::Result;
use crate::state::{DynamicScratch, State, image_layout};
use crate::steps::bytes_binary::Binary;
use crate::steps::float::FloatBinary;
use crate::steps::product::unpacked::Unpacked;
use crate::steps::quantize::Quantize;
use crate::steps::{Io, Kernel};

/// The step.
pub(crate) struct Product {
    io: Io,
    /// One for each group of channels.
    weights: Vec<PackedWeights>,
    conv: Option<Conv>,
    activations: Activations,
    /// For each column, in units of the sums: the bias. Of static activations what their zero point added is
    /// taken off in it.
    bias: Vec<i32>,
    /// For each column, the sum of its weights with its sign changed: times the zero point of dynamic
    /// activations, what that added.
    negative_sums: Vec<i32>,
    /// For each column: what a sum is multiplied by.
    scale: Vec<f32>,
    epilogue: Epilogue,
}

/// How a convolution moves over images.
struct Conv {
    window: Window,
    /// Terms of the weights, each of which goes over the window.
    terms: usize,
    /// Whether the pixels of a row of the window are one run.
    joined: bool,
}

/// The sum of each column with its sign changed.
fn negative_sums(ints: &[i16], columns: usize) -> Vec<i32> {
    let depth = ints.len().checked_div(columns).unwrap_or(0).max(1);
    let sum = |column: &[i16]| -column.iter().map(|&w| i32::from(w)).sum::<i32>();
    ints.chunks_exact(depth).map(sum).collect()
}

/// The bias of a product, and of static activations what their zero point added taken off.
pub(crate) fn corrected(product: &op::Product, ints: &[i16]) -> Vec<i32> {
    let Activations::Static { zero_point } = product.activations else {
        return product.bias.clone();
    };
    let sums = negative_sums(ints, product.bias.len());
    let corrections = sums.iter().map(|sum| i32::from(zero_point) * sum);
    corrections.zip(&product.bias).map(|(correction, &b)| correction.wrapping_add(b)).collect()
}

impl Product {
    /// Packs a product of matrices.
    pub(crate) fn matmul(cpu: Cpu, product: op::Product, io: Io) -> Product {
        let (ints, columns) = (product.weights.ints(), product.weights.columns());
        let (bias, negative_sums) = (corrected(&product, &ints), negative_sums(&ints, columns));
        let weights = Unpacked::of(ints, columns).packed(cpu, 1, 1);
        let op::Product { activations, scale, epilogue, .. } = product;
        Product { io, weights, conv: None, activations, bias, negative_sums, scale, epilogue }
    }

    /// Packs a convolution.
    pub(crate) fn conv(cpu: Cpu, conv: op::Conv, io: Io) -> Product {
        let op::Conv { product, window, mut groups } = conv;
        let (ints, columns) = (product.weights.ints(), product.weights.columns());
        let (bias, negative_sums) = (corrected(&product, &ints), negative_sums(&ints, columns));
        let mut unpacked = Unpacked::of(ints, columns);
        let op::Product { activations, scale, epilogue, .. } = product;
        if activations == Activations::Dynamic {
            groups = unpacked.join_groups(groups);
        }
        let [rows, taps] = window.kernel;
        unpacked.turn_channels_last(rows * taps);
        // Neighbouring pixels lie side by side unless the window skips some or sees a group.
        let joined = window.dilation[1] == 1 && groups == 1;
        let runs = if joined { rows } else { rows * taps };
        let weights = unpacked.packed(cpu, groups, runs);
        let conv = Some(Conv { window, terms: unpacked.terms, joined });
        Product { io, weights, conv, activations, bias, negative_sums, scale, epilogue }
    }
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
    rows: RowStrides,
    other: RowStrides,
}

impl Product {
    fn columns(&self) -> usize {
        self.scale.len()
    }

    fn matrix(&self, state: &mut State, aside: Option<ValueId>) -> Result<()> {
        let weights = &self.weights[0];
        let shape = state.shape(self.io.input());
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
        let target = aside.unwrap_or(self.io.output());
        let mut out = state.take(target, out_shape, out_shape.len() * self.element_bytes(aside));
        let rows = RowStrides::of_matrix(self.columns());
        let part = Part { columns: 0..self.columns(), rows, other: rows };
        gemm::multiply(
            weights,
            Grid::of_matrix(shape.rows()),
            &Input {
                bytes: state.buffer(self.io.input()).with_slack(),
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
        if self.activations != Activations::Dynamic {
            return Ok(Corrections { bias: &self.bias, scale: &self.scale });
        }
        let ByteScale { scale, zero_point } =
            state.value(self.io.input()).dynamic.ok_or_else(|| RuntimeError::Run {
                reason: "bytes came without their scale".to_string(),
            })?;
        scratch.bias.clear();
        let sums = self.negative_sums.iter().map(|sum| sum.wrapping_mul(i32::from(zero_point)));
        scratch.bias.extend(sums.zip(&self.bias).map(|(sum, &bias)| sum.wrapping_add(bias)));
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
        let Part { columns, rows, other } = part;
        let bias = &corrections.bias[columns.clone()];
        let scale = &corrections.scale[columns.clone()];
        match &self.epilogue {
            Epilogue::Bytes { to, add } => {
                let add = add.as_ref().filter(|_| aside.is_none());
                let add = add.map(|add| gemm::AddBytes {
                    other: state.bytes(self.other()),
                    rows: other,
                    other_zero_point: add.scale.zero_point,
                    other_scale: add.scale.scale,
                    to: add.to,
                });
                let requantize = Requantize { bias, scale, to: *to };
                Output::Bytes { bytes: out.u8s_mut(), rows, requantize, add }
            }
            Epilogue::Floats { offset, function, adds_input, quantize } => {
                let adds = *adds_input && aside.is_none();
                let add =
                    adds.then(|| AddFloats { other: state.floats(self.other()), rows: other });
                let offset = offset.as_ref().map(|offset| &offset[columns]);
                let dequantize = Dequantize { bias, scale, offset, function: *function, add };
                match quantize.filter(|_| aside.is_none()) {
                    None => Output::Floats { floats: out.f32s_mut(), rows, dequantize },
                    Some(to) => Output::Quantized { bytes: out.u8s_mut(), rows, dequantize, to },
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
        let from = state.image(self.io.input());
        let out_shape = state.shape(self.io.input()).windowed(self.columns(), window)?;
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
        // Floats are computed pixel by pixel, before they become planes.
        let pixels = match self.epilogue {
            Epilogue::Floats { .. } => self.io.outputs.get(1).copied(),
            Epilogue::Bytes { .. } => None,
        };
        let target = pixels.or(aside).unwrap_or(self.io.output());
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
        let windows = RowStrides::of_windows(&from, window);
        let rows = RowStrides::of_image(&to);
        let other = self.added_image(state).map_or(rows, |image| RowStrides::of_image(&image));
        for (group, weights) in self.weights.iter().enumerate() {
            let behind =
                |rows: RowStrides, by: usize| RowStrides { start: rows.start + by, ..rows };
            let first = group * columns;
            let part = Part {
                columns: first..first + columns,
                rows: behind(rows, first),
                other: behind(other, first),
            };
            gemm::multiply(
                weights,
                grid,
                &Input {
                    bytes: state.buffer(self.io.input()).with_slack(),
                    rows: behind(windows, group * group_channels),
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
        if let Some(pixels) = pixels {
            to_planes(state, pixels, self.io.output());
        }
        Ok(())
    }

    /// How the bytes lie that a convolution adds.
    fn added_image(&self, state: &State) -> Option<ImageLayout> {
        match &self.epilogue {
            Epilogue::Bytes { add: Some(_), .. } => Some(state.image(self.other())),
            _ => None,
        }
    }

    /// The shape of the product.
    fn shape(&self, state: &State) -> Result<Shape> {
        let from = state.shape(self.io.input());
        match &self.conv {
            None => Ok(from.with_last(self.columns())),
            Some(conv) => from.windowed(self.columns(), &conv.window),
        }
    }

    fn compute(&self, state: &mut State, aside: Option<ValueId>) -> Result<()> {
        match &self.conv {
            None => self.matrix(state, aside),
            Some(conv) => self.convolution(conv, state, aside),
        }
    }

    /// What is added.
    fn other(&self) -> ValueId {
        self.io.inputs[1]
    }

    /// Adds bytes of another shape: the product first, then the sum.
    fn add_apart(&self, to: QuantizeTo, add: &AddBytes, state: &mut State) -> Result<()> {
        let product = self.io.outputs[1];
        self.compute(state, Some(product))?;
        let scales = AddScales {
            a_scale: to.scale,
            a_zero_point: to.zero_point,
            b_scale: add.scale.scale,
            b_zero_point: add.scale.zero_point,
            to: add.to,
        };
        let op = BytesBinary { operator: BytesOperator::Add, scales };
        let layout = if self.conv.is_some() { Layout::IMAGES } else { Layout::RowMajor };
        let inputs = [product, self.other()];
        Binary { inputs, output: self.io.output(), op, layout }.run(state)
    }

    /// Adds floats of another shape: the product first, then the sum.
    fn add_floats_apart(&self, quantize: Option<QuantizeTo>, state: &mut State) -> Result<()> {
        let (product, output) = (self.io.outputs[1], self.io.output());
        self.compute(state, Some(product))?;
        let sum = if quantize.is_some() { self.io.outputs[2] } else { output };
        let inputs = [product, self.other()];
        FloatBinary { inputs, output: sum, operation: float::Binary::Add }.run(state)?;
        let Some(to) = quantize else { return Ok(()) };
        let (scale, layout) = (ByteScale::of(to), Layout::RowMajor);
        Quantize { input: sum, output, scale, layout }.run(state)
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
                if state.shape(self.other()) != self.shape(state)? =>
            {
                self.add_apart(*to, add, state)
            }
            Epilogue::Floats { adds_input: true, quantize, .. }
                if state.shape(self.other()) != self.shape(state)? =>
            {
                self.add_floats_apart(*quantize, state)
            }
            _ => self.compute(state, None),
        }
    }
}
