//! A product of bytes with constant weights: a matrix, or a convolution.

use fewbits_kernels::bytes::{QuantizeTo, Window};
use fewbits_kernels::gemm::{
    self, AddBytes, Dequantize, Grid, Input, Output, PackedWeights, Requantize, Walk,
};

use crate::integer::program::Step;
use crate::integer::state::{ByteScale, State, ValueId, image_layout};
use crate::integer::steps::windowed;
use crate::{Result, RuntimeError};

/// The step.
pub(crate) struct Product {
    pub input: ValueId,
    pub output: ValueId,
    /// One for each group of channels.
    pub weights: Vec<PackedWeights>,
    /// Of a convolution.
    pub conv: Option<Conv>,
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
}

/// What becomes of the sums.
pub(crate) enum Epilogue {
    Bytes { to: QuantizeTo, add: Option<Residual> },
    Floats { offset: Option<Vec<f32>> },
}

/// Bytes that are added to the product.
pub(crate) struct Residual {
    pub other: ValueId,
    pub scale: ByteScale,
    pub to: QuantizeTo,
}

impl Product {
    fn columns(&self) -> usize {
        self.scale.len()
    }

    fn matrix(&self, state: &mut State) -> Result<()> {
        let weights = &self.weights[0];
        let shape = state.shape(self.input);
        let depth = weights.run_bytes();
        if shape.last() != depth {
            return Err(RuntimeError::Run {
                reason: format!("a product of rows of {depth} was given the shape {shape:?}"),
            });
        }
        let out_shape = shape.with_last(self.columns());
        let grid = Grid::of_matrix(shape.rows());
        let out_walk = Walk::of_matrix(self.columns());
        let runs = [0, 0];
        let element = self.element_bytes();
        let mut out = state.take(self.output, out_shape, out_shape.len() * element);
        let input = Input {
            bytes: state.buffer(self.input).with_slack(),
            walk: Walk::of_matrix(depth),
            runs: &runs[..weights.runs()],
        };
        let output = match &self.epilogue {
            Epilogue::Bytes { to, add } => {
                let add = match add {
                    Some(add) => Some(self.add(add, state, Walk::of_matrix(self.columns()))?),
                    None => None,
                };
                let requantize = Requantize { bias: &self.bias, scale: &self.scale, to: *to, add };
                Output::Bytes { bytes: out.u8s_mut(), walk: out_walk, requantize }
            }
            Epilogue::Floats { offset } => Output::Floats {
                floats: out.f32s_mut(),
                walk: out_walk,
                dequantize: Dequantize {
                    bias: &self.bias,
                    scale: &self.scale,
                    offset: offset.as_deref(),
                },
            },
        };
        gemm::multiply(weights, grid, &input, output, state.threads);
        state.give(self.output, out);
        Ok(())
    }

    fn element_bytes(&self) -> usize {
        match self.epilogue {
            Epilogue::Bytes { .. } => 1,
            Epilogue::Floats { .. } => 4,
        }
    }

    /// The residual, whose rows lie as `walk` says.
    fn add<'a>(&self, add: &Residual, state: &'a State, walk: Walk) -> Result<AddBytes<'a>> {
        let (have, want) = (state.shape(add.other), state.shape(self.output));
        if have != want {
            return Err(RuntimeError::Run {
                reason: format!("a value of shape {have:?} is added to one of shape {want:?}"),
            });
        }
        Ok(AddBytes {
            other: state.bytes(add.other),
            walk,
            other_zero_point: add.scale.zero_point,
            other_scale: add.scale.scale,
            to: add.to,
        })
    }

    fn convolution(&self, conv: &Conv, state: &mut State) -> Result<()> {
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
        let to = image_layout(out_shape.dims(), state.value(self.output).halo);
        let mut out = state.take(self.output, out_shape, to.len_bytes());
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
        let Epilogue::Bytes { to: bytes_to, add } = &self.epilogue else {
            unreachable!("convolutions end in bytes")
        };
        let other_walk = add.as_ref().map(|add| Walk::of_image(&state.image(add.other)));
        for (group, weights) in self.weights.iter().enumerate() {
            let behind = |walk: Walk, by: usize| Walk { start: walk.start + by, ..walk };
            let part = group * columns..(group + 1) * columns;
            let add = match (add, other_walk) {
                (Some(add), Some(walk)) => Some(self.add(add, state, behind(walk, part.start))?),
                _ => None,
            };
            let walk = Walk::of_windows(&from, window.pads_begin, window.stride);
            gemm::multiply(
                weights,
                grid,
                &Input {
                    bytes: state.buffer(self.input).with_slack(),
                    walk: behind(walk, group * group_channels),
                    runs: &runs,
                },
                Output::Bytes {
                    bytes: out.u8s_mut(),
                    walk: behind(Walk::of_image(&to), part.start),
                    requantize: Requantize {
                        bias: &self.bias[part.clone()],
                        scale: &self.scale[part],
                        to: *bytes_to,
                        add,
                    },
                },
                state.threads,
            );
        }
        let halo = add.as_ref().map_or(bytes_to.zero_point, |add| add.to.zero_point);
        to.fill_halo(out.u8s_mut(), halo);
        state.scratch.offsets = runs;
        state.give(self.output, out);
        Ok(())
    }
}

impl Step for Product {
    fn run(&self, state: &mut State) -> Result<()> {
        match &self.conv {
            None => self.matrix(state),
            Some(conv) => self.convolution(conv, state),
        }
    }
}
