//! Sums and products of bytes.

use fewbits_ir::op::{BytesBinary, BytesOperator};
use fewbits_ir::{Layout, MAX_RANK, RuntimeError, Shape, ValueId};
use fewbits_kernels::bytes::{add, mul};

use crate::Result;
use crate::state::{State, image_layout};
use crate::steps::Kernel;

/// Add or Mul.
pub(crate) struct Binary {
    pub inputs: [ValueId; 2],
    pub output: ValueId,
    pub op: BytesBinary,
    /// How the bytes of all three lie.
    pub layout: Layout,
}

/// Where the element with the ONNX index `(i, j, ..)` lies: `start + i * strides[0] + ..`.
struct Strides {
    start: usize,
    strides: [usize; MAX_RANK],
}

impl Strides {
    /// Of a value of `shape` among values of `rank` axes; axes of size 1 repeat.
    fn new(state: &State, id: ValueId, shape: Shape, layout: Layout, rank: usize) -> Strides {
        let dims = shape.dims();
        let mut strides = [0; MAX_RANK];
        let missing = rank - dims.len();
        let mut start = 0;
        match layout {
            Layout::RowMajor => {
                let mut pitch = 1;
                for (axis, &size) in dims.iter().enumerate().rev() {
                    strides[missing + axis] = pitch;
                    pitch *= size;
                }
            }
            Layout::ChannelsLast(_) => {
                let layout = image_layout(dims, state.value(id).halo);
                start = layout.start();
                let all = [layout.image_pitch(), 1, layout.row_pitch(), layout.channels];
                strides[..2].copy_from_slice(&all[..2]);
                strides[2..rank].copy_from_slice(&all[6 - rank..]);
            }
        }
        for (axis, &size) in dims.iter().enumerate() {
            if size == 1 {
                strides[missing + axis] = 0;
            }
        }
        Strides { start, strides }
    }

    fn at(&self, index: &[usize]) -> usize {
        self.start + index.iter().zip(&self.strides).map(|(i, s)| i * s).sum::<usize>()
    }
}

impl Kernel for Binary {
    fn run(&self, state: &mut State) -> Result<()> {
        let [a, b] = self.inputs;
        let (a_shape, b_shape) = (state.shape(a), state.shape(b));
        let shape = a_shape.broadcast(b_shape)?;
        let rank = shape.dims().len();
        let kernel = match self.op.operator {
            BytesOperator::Add => add,
            BytesOperator::Mul => mul,
        };
        let cpu = state.cpu;
        if self.layout.is_channels_last()
            && (a_shape.dims().len() != rank || b_shape.dims().len() != rank)
        {
            return Err(RuntimeError::Run {
                reason: format!("images of shapes {a_shape:?} and {b_shape:?} do not go together"),
            });
        }
        let layout = image_layout(shape.dims(), state.value(self.output).halo);
        let len = if self.layout.is_channels_last() { layout.len_bytes() } else { shape.len() };
        let mut out = state.take(self.output, shape, len);
        let (left, right) = (state.bytes(a), state.bytes(b));
        if a_shape == b_shape && !self.layout.is_channels_last() {
            kernel(cpu, left, right, self.op.scales, out.u8s_mut());
        } else if a_shape == b_shape {
            let (from_a, from_b) = (state.image(a), state.image(b));
            let width = layout.width * layout.channels;
            for image in 0..layout.images {
                for y in 0..layout.height {
                    let left = &left[from_a.offset(image, y, 0)..][..width];
                    let right = &right[from_b.offset(image, y, 0)..][..width];
                    let to = &mut out.u8s_mut()[layout.offset(image, y, 0)..][..width];
                    kernel(cpu, left, right, self.op.scales, to);
                }
            }
        } else {
            let place = |id, shape| Strides::new(state, id, shape, self.layout, rank);
            let (from_a, from_b) = (place(a, a_shape), place(b, b_shape));
            let to = place(self.output, shape);
            // Of images the second axis, whose elements lie side by side.
            let inner = if self.layout.is_channels_last() { 1 } else { rank.saturating_sub(1) };
            let size = shape.dims().get(inner).copied().unwrap_or(1);
            let mut row_a = vec![0; size];
            let mut row_b = vec![0; size];
            let mut index = [0; MAX_RANK];
            for _ in 0..shape.len() / size.max(1) {
                let index_now = &index[..rank];
                let gather = |row: &mut [u8], from: &Strides, bytes: &[u8]| {
                    let stride = from.strides.get(inner).copied().unwrap_or(0);
                    let start = from.at(index_now);
                    row.iter_mut().enumerate().for_each(|(i, x)| *x = bytes[start + i * stride]);
                };
                gather(&mut row_a, &from_a, left);
                gather(&mut row_b, &from_b, right);
                let start = to.at(index_now);
                kernel(cpu, &row_a, &row_b, self.op.scales, &mut out.u8s_mut()[start..][..size]);
                for axis in (0..rank).rev().filter(|&axis| axis != inner) {
                    index[axis] += 1;
                    if index[axis] < shape.dims()[axis] {
                        break;
                    }
                    index[axis] = 0;
                }
            }
        }
        if self.layout.is_channels_last() {
            layout.fill_halo(out.u8s_mut(), self.op.scales.to.zero_point);
        }
        state.give(self.output, out);
        Ok(())
    }
}
