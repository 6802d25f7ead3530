//! Products of two float values, and attention.

use fewbits_ir::op::{self, FloatMatMul, Heads};
use fewbits_ir::{MAX_RANK, RuntimeError, Shape, ValueId};
use fewbits_kernels::broadcast_sizes;
use fewbits_kernels::float::{self, Dims, Mask, Strided, StridedMut, attend, matmul};

use crate::Result;
use crate::state::State;
use crate::steps::{Io, Kernel, with_scratch};

/// A value, its axes in another order if a permutation is given.
struct View {
    id: ValueId,
    permutation: Option<Vec<usize>>,
}

impl View {
    /// Joins the first inputs of a step with their permutations.
    fn of<const N: usize>(permutations: [Option<Vec<usize>>; N], io: &Io) -> [View; N] {
        let mut ids = io.inputs.iter().copied();
        permutations.map(|permutation| {
            let id = ids.next().unwrap_or(io.output());
            View { id, permutation }
        })
    }
}

/// A view with the shapes of this run.
#[derive(Clone, Copy)]
struct Matrices<'a> {
    values: &'a [f32],
    dims: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
    rank: usize,
}

impl<'a> Matrices<'a> {
    fn new(state: &'a State, view: &View) -> Result<Matrices<'a>> {
        Matrices::of(state.floats(view.id), state.shape(view.id), view.permutation.as_deref())
    }

    fn of(values: &'a [f32], shape: Shape, permutation: Option<&[usize]>) -> Result<Matrices<'a>> {
        let rank = shape.dims().len();
        let fault = || RuntimeError::Run {
            reason: format!("a value of shape {shape:?} is no stack of matrices"),
        };
        if rank < 2 {
            return Err(fault());
        }
        let mut pitches = [1; MAX_RANK];
        for axis in (0..rank - 1).rev() {
            pitches[axis] = pitches[axis + 1] * shape.dims()[axis + 1];
        }
        let (mut dims, mut strides) = ([0; MAX_RANK], [0; MAX_RANK]);
        for axis in 0..rank {
            let from = match permutation {
                Some(permutation) if permutation.len() == rank => permutation[axis],
                Some(_) => return Err(fault()),
                None => axis,
            };
            dims[axis] = *shape.dims().get(from).ok_or_else(fault)?;
            strides[axis] = pitches[from];
        }
        Ok(Matrices { values, dims, strides, rank })
    }

    fn rows(&self) -> usize {
        self.dims[self.rank - 2]
    }

    fn columns(&self) -> usize {
        self.dims[self.rank - 1]
    }

    /// The sizes of the axes before the matrices.
    fn batch(&self) -> &[usize] {
        &self.dims[..self.rank - 2]
    }

    /// The matrix at `index` of a batch of `rank` axes; axes of size 1 repeat.
    fn at(&self, index: &[usize]) -> Strided<'a> {
        let missing = index.len() + 2 - self.rank;
        let start =
            (0..self.rank - 2)
                .map(|axis| {
                    if self.dims[axis] == 1 {
                        0
                    } else {
                        index[missing + axis] * self.strides[axis]
                    }
                })
                .sum();
        let (row, col) = (self.strides[self.rank - 2], self.strides[self.rank - 1]);
        Strided { values: self.values, start, row, col }
    }
}

/// The sizes of a batch that several stacks of matrices have in common.
#[derive(Clone, Copy)]
struct Batch {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Batch {
    fn new(stacks: &[&Matrices]) -> Result<Batch> {
        let mut batch = Batch { dims: [1; MAX_RANK], rank: 0 };
        for stack in stacks {
            let (before, own) = (batch, stack.batch());
            let sizes = broadcast_sizes(before.dims(), own);
            batch.rank = sizes.len();
            for (dim, size) in batch.dims.iter_mut().zip(sizes) {
                *dim = size.ok_or_else(|| RuntimeError::Run {
                    reason: format!(
                        "stacks of {:?} and {own:?} matrices do not go together",
                        before.dims()
                    ),
                })?;
            }
        }
        Ok(batch)
    }

    fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    fn index(&self, mut number: usize) -> [usize; MAX_RANK] {
        let mut index = [0; MAX_RANK];
        for axis in (0..self.rank).rev() {
            index[axis] = number % self.dims[axis];
            number /= self.dims[axis];
        }
        index
    }
}

/// Computes `rows` x `columns` products for every member of a batch, shared among threads: `work`
/// gets the index, the first row and the number of rows, and where to put them.
fn for_each_matrix(
    state: &State,
    batch: &Batch,
    rows: usize,
    columns: usize,
    heads: Heads,
    out: &mut [f32],
    work: impl Fn(&[usize], usize, usize, &mut [f32], usize, usize) + Sync,
) {
    let threads = state.threads;
    let rank = batch.rank;
    match heads {
        Heads::Apart => {
            threads.rows(out, rows * columns, 1, |first, out| {
                for (i, out) in out.chunks_exact_mut((rows * columns).max(1)).enumerate() {
                    work(&batch.index(first + i)[..rank], 0, rows, out, 0, columns);
                }
            });
        }
        Heads::Together => {
            let count = batch.dims[rank - 1];
            let width = count * columns;
            for (item, out) in out.chunks_exact_mut((rows * width).max(1)).enumerate() {
                threads.rows(out, width, 24, |first, out| {
                    for head in 0..count {
                        let index = batch.index(item * count + head);
                        let rows = out.len() / width;
                        work(&index[..rank], first, rows, out, head * columns, width);
                    }
                });
            }
        }
    }
}

fn shape_of(batch: &Batch, rows: usize, columns: usize, heads: Heads) -> Result<Shape> {
    let mut dims = batch.dims().to_vec();
    match heads {
        Heads::Apart => dims.extend([rows, columns]),
        Heads::Together => {
            let count = dims.pop().ok_or_else(|| RuntimeError::Run {
                reason: "a product of matrices has no heads".to_string(),
            })?;
            dims.extend([rows, count, columns]);
        }
    }
    Shape::new(&dims)
}

/// MatMul of two values.
pub(crate) struct FloatProduct {
    a: View,
    b: View,
    output: ValueId,
    heads: Heads,
}

impl FloatProduct {
    pub(crate) fn new(op: FloatMatMul, io: &Io) -> FloatProduct {
        let [a, b] = View::of(op.permutations, io);
        FloatProduct { a, b, output: io.output(), heads: op.heads }
    }
}

impl Kernel for FloatProduct {
    fn run(&self, state: &mut State) -> Result<()> {
        let cpu = state.cpu;
        let (a, b) = (Matrices::new(state, &self.a)?, Matrices::new(state, &self.b)?);
        let batch = Batch::new(&[&a, &b])?;
        let (rows, depth, columns) = (a.rows(), a.columns(), b.columns());
        if b.rows() != depth {
            return Err(RuntimeError::Run {
                reason: format!(
                    "{rows}x{depth} and {}x{columns} matrices cannot be multiplied",
                    b.rows()
                ),
            });
        }
        let out_shape = shape_of(&batch, rows, columns, self.heads)?;
        let mut out = state.take(self.output, out_shape, out_shape.len() * 4);
        // The views again: `take` needed the state.
        let (a, b) = (Matrices::new(state, &self.a)?, Matrices::new(state, &self.b)?);
        for_each_matrix(
            state,
            &batch,
            rows,
            columns,
            self.heads,
            out.f32s_mut(),
            |index, first, count, out, start, pitch| {
                let left = a.at(index).from(first, 0);
                let dims = Dims { m: count, k: depth, n: columns };
                let out = StridedMut { values: out, start, row: pitch };
                with_scratch(|scratch| matmul(cpu, dims, left, b.at(index), out, scratch));
            },
        );
        state.give(self.output, out);
        Ok(())
    }
}

/// softmax(q kᵀ · scale + mask) v for each head; `k` is given with its rows and columns exchanged.
pub(crate) struct Attention {
    q: View,
    k: View,
    v: View,
    scale: f32,
    mask: Option<ValueId>,
    output: ValueId,
    heads: Heads,
}

impl Attention {
    pub(crate) fn new(op: op::Attention, io: &Io) -> Attention {
        let op::Attention { permutations, scale, heads } = op;
        let [q, k, v] = View::of(permutations, io);
        let (mask, output) = (io.inputs.get(3).copied(), io.output());
        Attention { q, k, v, scale, mask, output, heads }
    }

    fn views<'a>(&self, state: &'a State) -> Result<(Matrices<'a>, Matrices<'a>, Matrices<'a>)> {
        Ok((
            Matrices::new(state, &self.q)?,
            Matrices::new(state, &self.k)?,
            Matrices::new(state, &self.v)?,
        ))
    }
}

impl Kernel for Attention {
    fn run(&self, state: &mut State) -> Result<()> {
        let cpu = state.cpu;
        let (q, k, v) = self.views(state)?;
        let batch = Batch::new(&[&q, &k, &v])?;
        let (queries, depth, keys, width) = (q.rows(), q.columns(), k.columns(), v.columns());
        if k.rows() != depth || v.rows() != keys || keys == 0 {
            return Err(RuntimeError::Run {
                reason: format!(
                    "attention of {queries}x{depth} queries, {}x{keys} keys and {}x{width} values",
                    k.rows(),
                    v.rows()
                ),
            });
        }
        if let Some(id) = self.mask {
            let shape = state.shape(id);
            let missing = (batch.rank + 2).checked_sub(shape.dims().len());
            let sizes = batch.dims().iter().copied().chain([queries, keys]);
            let fits = missing.is_some_and(|missing| {
                shape.dims().iter().zip(sizes.skip(missing)).all(|(&d, size)| d == size || d == 1)
            });
            if !fits {
                return Err(RuntimeError::Run {
                    reason: format!("a mask of shape {shape:?} does not fit the scores"),
                });
            }
        }
        let out_shape = shape_of(&batch, queries, width, self.heads)?;
        let mut out = state.take(self.output, out_shape, out_shape.len() * 4);
        let (q, k, v) = self.views(state)?;
        // One number for all keys of a query is repeated for each.
        let mut repeated = Vec::new();
        let mask = match self.mask {
            None => None,
            Some(id) => {
                let (mut shape, mut values) = (state.shape(id), state.floats(id));
                if shape.dims().len() < 2 {
                    shape = Shape::new(&[1, shape.last()])?;
                }
                if shape.last() != keys {
                    repeated.extend(values.iter().flat_map(|&x| std::iter::repeat_n(x, keys)));
                    (shape, values) = (shape.with_last(keys), repeated.as_slice());
                }
                Some(Matrices::of(values, shape, None)?)
            }
        };
        for_each_matrix(
            state,
            &batch,
            queries,
            width,
            self.heads,
            out.f32s_mut(),
            |index, first, count, out, start, pitch| {
                let mask = match &mask {
                    Some(mask) => {
                        let rows = mask.at(index);
                        match mask.rows() {
                            1 => Mask::Row(&mask.values[rows.start..][..keys]),
                            _ => {
                                Mask::Full(&mask.values[rows.start + first * rows.row..], rows.row)
                            }
                        }
                    }
                    None => Mask::None,
                };
                let attention = float::Attention {
                    queries: count,
                    keys,
                    depth,
                    value_depth: width,
                    q: q.at(index).from(first, 0),
                    k: k.at(index).transposed(),
                    v: v.at(index),
                    scale: self.scale,
                    mask,
                };
                let out = StridedMut { values: out, start, row: pitch };
                with_scratch(|scratch| attend(cpu, &attention, out, scratch));
            },
        );
        state.give(self.output, out);
        Ok(())
    }
}
