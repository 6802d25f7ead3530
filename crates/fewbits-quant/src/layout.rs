//! Which elements share a parameter, as runs over row-major memory.

use std::ops::Range;

use crate::{Granularity, QuantError, Result};

/// How the elements of a tensor map to its scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Vec<usize>,
    granularity: Granularity,
    /// Product of the axes before, the axis itself, and after.
    outer: usize,
    axis: usize,
    inner: usize,
}

/// The parameters of a run of consecutive elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// All elements of the run use this parameter.
    One(usize),
    /// The first element uses this parameter, each next one the next.
    Each(usize),
}

impl Span {
    /// The parameters that lie `count` behind these.
    fn behind(self, count: usize) -> Span {
        match self {
            Span::One(param) => Span::One(param + count),
            Span::Each(first) => Span::Each(first + count),
        }
    }

    /// The parameter of the run's element number `i`.
    pub fn param(self, i: usize) -> usize {
        match self {
            Span::One(param) => param,
            Span::Each(first) => first + i,
        }
    }
}

impl Layout {
    /// The layout of a tensor of `shape`.
    ///
    /// # Errors
    /// If the granularity names an axis that the shape does not have.
    pub fn new(shape: &[usize], granularity: Granularity) -> Result<Layout> {
        let (outer, axis, inner) = match granularity {
            Granularity::Tensor => (1, 1, shape.iter().product()),
            Granularity::Channel { axis } | Granularity::Group { axis, .. } => {
                let length =
                    *shape.get(axis).ok_or(QuantError::Axis { axis, rank: shape.len() })?;
                (shape[..axis].iter().product(), length, shape[axis + 1..].iter().product())
            }
        };
        Ok(Layout { shape: shape.to_vec(), granularity, outer, axis, inner })
    }

    /// The tensor's shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What shares a scale.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.outer * self.axis * self.inner
    }

    /// The shape of the scales as ONNX wants it: none for a tensor, one axis for channels, the
    /// tensor's own rank for groups.
    pub fn param_shape(&self) -> Vec<usize> {
        match self.granularity {
            Granularity::Tensor => Vec::new(),
            Granularity::Channel { .. } => vec![self.axis],
            Granularity::Group { axis, size } => {
                let mut shape = self.shape.clone();
                shape[axis] = self.axis.div_ceil(size.get());
                shape
            }
        }
    }

    /// The shape in which scales broadcast to the tensor's shape, those of groups once repeated along
    /// their axis.
    pub fn spread_shape(&self) -> Vec<usize> {
        match self.granularity {
            Granularity::Channel { axis } => {
                let mut shape = vec![1; self.shape.len() - axis];
                shape[0] = self.axis;
                shape
            }
            Granularity::Tensor | Granularity::Group { .. } => self.param_shape(),
        }
    }

    /// The number of scales.
    pub fn params(&self) -> usize {
        self.param_shape().iter().product()
    }

    /// Calls `visit` with every run of consecutive elements, in memory order.
    pub fn for_each_run(&self, mut visit: impl FnMut(Range<usize>, Span)) {
        if self.elements() == 0 {
            return;
        }
        match self.granularity {
            Granularity::Tensor => visit(0..self.elements(), Span::One(0)),
            Granularity::Channel { .. } if self.inner == 1 => {
                for start in (0..self.elements()).step_by(self.axis) {
                    visit(start..start + self.axis, Span::Each(0));
                }
            }
            Granularity::Channel { .. } => {
                for (row, start) in (0..self.elements()).step_by(self.inner).enumerate() {
                    visit(start..start + self.inner, Span::One(row % self.axis));
                }
            }
            Granularity::Group { size, .. } if self.inner == 1 => {
                let groups = self.axis.div_ceil(size.get());
                for outer in 0..self.outer {
                    for group in 0..groups {
                        let start = group * size.get();
                        let end = (start + size.get()).min(self.axis);
                        let row = outer * self.axis;
                        visit(row + start..row + end, Span::One(outer * groups + group));
                    }
                }
            }
            Granularity::Group { size, .. } => {
                let groups = self.axis.div_ceil(size.get());
                for (row, start) in (0..self.elements()).step_by(self.inner).enumerate() {
                    let (outer, index) = (row / self.axis, row % self.axis);
                    let param = (outer * groups + index / size.get()) * self.inner;
                    visit(start..start + self.inner, Span::Each(param));
                }
            }
        }
    }

    /// Calls `visit` with every run of consecutive elements of one row along the first axis; runs count
    /// from the start of the row. A tensor has at least one axis.
    pub fn for_each_run_of_row(&self, row: usize, mut visit: impl FnMut(Range<usize>, Span)) {
        let width = self.shape[1..].iter().product();
        // A row is a tensor of its own, whose parameters begin with `first`.
        let mut as_tensor = |granularity, first: usize| {
            let layout = Layout::new(&self.shape[1..], granularity).expect("an axis of the row");
            layout.for_each_run(|run, span| visit(run, span.behind(first * layout.params())));
        };
        match self.granularity {
            Granularity::Tensor => as_tensor(Granularity::Tensor, 0),
            Granularity::Channel { axis: 0 } => as_tensor(Granularity::Tensor, row),
            Granularity::Channel { axis } => as_tensor(Granularity::Channel { axis: axis - 1 }, 0),
            Granularity::Group { axis: 0, .. } if width == 0 => {}
            Granularity::Group { axis: 0, size } => {
                visit(0..width, Span::Each(row / size.get() * width));
            }
            Granularity::Group { axis, size } => {
                as_tensor(Granularity::Group { axis: axis - 1, size }, row);
            }
        }
    }

    /// The number of elements that share each parameter.
    pub fn elements_per_param(&self) -> Vec<usize> {
        let mut counts = vec![0; self.params()];
        self.for_each_run(|run, span| match span {
            Span::One(param) => counts[param] += run.len(),
            Span::Each(first) => counts[first..first + run.len()].iter_mut().for_each(|c| *c += 1),
        });
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    /// The definition: the parameter of one element, from its coordinates.
    fn param_of(shape: &[usize], granularity: Granularity, element: usize) -> usize {
        let mut rest = element;
        let mut coordinates = vec![0; shape.len()];
        for (c, &d) in coordinates.iter_mut().zip(shape).rev() {
            (*c, rest) = (rest % d, rest / d);
        }
        match granularity {
            Granularity::Tensor => 0,
            Granularity::Channel { axis } => coordinates[axis],
            Granularity::Group { axis, size } => {
                coordinates[axis] /= size.get();
                let mut shape = shape.to_vec();
                shape[axis] = shape[axis].div_ceil(size.get());
                coordinates.iter().zip(&shape).fold(0, |index, (&c, &d)| index * d + c)
            }
        }
    }

    proptest! {
        #[test]
        fn runs_cover_every_element_once_with_its_parameter(
            shape in prop::collection::vec(1usize..6, 1..4), axis in 0usize..3, size in 1usize..7, kind in 0..3,
        ) {
            let axis = axis % shape.len();
            let granularity = match kind {
                0 => Granularity::Tensor,
                1 => Granularity::Channel { axis },
                _ => Granularity::Group { axis, size: NonZeroUsize::new(size).unwrap() },
            };
            let layout = Layout::new(&shape, granularity).unwrap();
            let mut next = 0;
            layout.for_each_run(|run, span| {
                assert_eq!(run.start, next);
                next = run.end;
                for (i, element) in run.enumerate() {
                    let param = match span { Span::One(p) => p, Span::Each(p) => p + i };
                    assert_eq!(param, param_of(&shape, granularity, element));
                }
            });
            prop_assert_eq!(next, shape.iter().product::<usize>());
            prop_assert_eq!(layout.elements_per_param().iter().sum::<usize>(), next);
            // Row by row it is the same.
            let width = next / shape[0];
            for row in 0..shape[0] {
                let mut next = 0;
                layout.for_each_run_of_row(row, |run, span| {
                    assert_eq!(run.start, next);
                    next = run.end;
                    for (i, element) in run.enumerate() {
                        let param = param_of(&shape, granularity, row * width + element);
                        assert_eq!(span.param(i), param);
                    }
                });
                prop_assert_eq!(next, width);
            }
        }
    }

    #[test]
    fn an_axis_that_is_not_there_is_refused() {
        let error = Layout::new(&[2, 3], Granularity::Channel { axis: 2 }).unwrap_err();
        assert_eq!(error, QuantError::Axis { axis: 2, rank: 2 });
    }

    #[test]
    fn empty_tensors_have_no_runs() {
        let layout = Layout::new(&[0, 3], Granularity::Channel { axis: 1 }).unwrap();
        layout.for_each_run(|_, _| panic!("no run expected"));
        let layout = Layout::new(&[3, 0], Granularity::Channel { axis: 0 }).unwrap();
        layout.for_each_run_of_row(2, |_, _| panic!("no run expected"));
    }
}
