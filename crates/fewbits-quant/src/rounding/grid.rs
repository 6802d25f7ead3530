//! The values that each weight of a matrix may become.

use crate::pairs::{Pair, bounds_beside, project};
use crate::{Encoding, Hessian, Limits, Matrix, QTensor, Span, round_half_even};

/// The grids of a matrix, row by row.
pub struct Grid {
    codes: Codes,
    steps: Vec<Step>,
    /// The integers of the weights as they are quantized so far.
    plain: Vec<i16>,
    pairs: Pairs,
}

/// The pairs that each row has, whose integers must not be too large together.
#[derive(Default)]
struct Pairs {
    lists: Vec<Vec<Pair>>,
    /// Of each column those that it makes a pair with; empty where there are no pairs.
    partners: Vec<Vec<u32>>,
}

impl Pairs {
    fn new(lists: Vec<Vec<Pair>>, columns: usize) -> Pairs {
        if lists.is_empty() {
            return Pairs::default();
        }
        let mut partners = vec![Vec::new(); columns];
        for &(first, second) in lists.iter().flatten() {
            partners[first as usize].push(second);
            partners[second as usize].push(first);
        }
        Pairs { lists, partners }
    }
}

/// The integers of a scheme.
#[derive(Clone, Copy)]
enum Codes {
    /// From `low` to `high`.
    Between { low: f32, high: f32 },
    /// -1 and 1.
    Sign,
}

/// The grid of one weight: `(code - zero_point) * scale`.
#[derive(Clone, Copy)]
pub struct Step {
    pub scale: f32,
    pub zero_point: f32,
}

/// Some rows of a [`Grid`].
#[derive(Clone, Copy)]
pub struct GridRows<'a> {
    codes: Codes,
    steps: &'a [Step],
    plain: &'a [i16],
    pairs: &'a Pairs,
}

impl Grid {
    /// The grids that the parameters of `quantized` make of its elements, within `limits`.
    pub fn new(quantized: &QTensor, matrix: Matrix, limits: &Limits) -> Grid {
        let (params, width) = (quantized.params(), quantized.codes().width());
        let step = |param: usize| Step {
            scale: params.scale[param],
            zero_point: f32::from(params.zero_point_of(param)),
        };
        let mut steps = Vec::with_capacity(quantized.codes().len());
        quantized.layout().for_each_run(|run, span| match span {
            Span::One(param) => steps.extend(run.map(|_| step(param))),
            Span::Each(first) => steps.extend((first..).take(run.len()).map(step)),
        });
        let codes = match quantized.codes().encoding() {
            Encoding::Sign => Codes::Sign,
            Encoding::Float(_) | Encoding::Exponent => {
                unreachable!("small floats are rounded to nearest")
            }
            Encoding::Unsigned => Codes::Between { low: 0.0, high: (1u32 << width) as f32 - 1.0 },
            Encoding::TwosComplement => {
                let high = (1u32 << (width - 1)) as f32 - 1.0;
                Codes::Between { low: -high, high }
            }
        };
        let lists = limits.column_pairs(quantized, matrix);
        Grid {
            codes,
            steps: matrix.to_rows(&steps),
            plain: matrix.to_rows(&quantized.codes().unpack()),
            pairs: Pairs::new(lists, matrix.columns()),
        }
    }

    /// The grids of `elements` weights after another.
    pub fn chunks(&self, elements: usize) -> impl Iterator<Item = GridRows<'_>> {
        let rows = self.steps.chunks(elements).zip(self.plain.chunks(elements));
        rows.map(|(steps, plain)| GridRows { codes: self.codes, steps, plain, pairs: &self.pairs })
    }
}

impl<'a> GridRows<'a> {
    /// The grids of the rows behind the first `rows`, so many weights each.
    pub fn skip_rows(self, rows: usize, columns: usize) -> GridRows<'a> {
        let first = rows * columns;
        GridRows { steps: &self.steps[first..], plain: &self.plain[first..], ..self }
    }

    /// The integers, without zero points, that the others of a row leave to a column: `row` begins with
    /// them, those that are not rounded yet being zero.
    #[inline]
    pub fn bounds(self, column: usize, row: &[i16]) -> (f32, f32) {
        match self.pairs.partners.get(column) {
            Some(partners) => {
                let (low, high) = bounds_beside(partners.iter().map(|&p| row[p as usize]));
                (f32::from(low), f32::from(high))
            }
            None => (f32::NEG_INFINITY, f32::INFINITY),
        }
    }

    /// The integer of weight number `i` nearest to `x` within `bounds`, and what it stands for: the
    /// arithmetic of rounding to nearest.
    #[inline]
    pub fn nearest(self, i: usize, x: f32, bounds: (f32, f32)) -> (i16, f32) {
        let Step { scale, zero_point } = self.steps[i];
        let steps = match self.codes {
            Codes::Between { low, high } => {
                let (low, high) =
                    ((low - zero_point).max(bounds.0), (high - zero_point).min(bounds.1));
                round_half_even((x / scale).clamp(low, high))
            }
            Codes::Sign => 1f32.copysign(x),
        };
        ((steps + zero_point) as i32 as i16, steps * scale)
    }

    /// Mends the pairs of all rows, whose integers are to be near to `weights`.
    fn mend(self, weights: &[f32], codes: &mut [i16], columns: usize) {
        if self.pairs.lists.is_empty() {
            return;
        }
        for (row, codes) in codes.chunks_exact_mut(columns).enumerate() {
            let target = |column: usize| {
                let i = row * columns + column;
                (weights[i] / self.steps[i].scale, 1.0)
            };
            project(codes, &self.pairs.lists, target);
        }
    }

    /// The two neighbours of each weight; `None` for one bit, which has but a sign.
    pub fn choices(self, weights: &[f32]) -> Option<Vec<Choice>> {
        let Codes::Between { low, high } = self.codes else { return None };
        let choice = |(&weight, &step): (&f32, &Step)| {
            let (low, high) = (low - step.zero_point, high - step.zero_point);
            // What lies outside is saturated, up and down.
            let steps = (weight / step.scale).clamp(low - 1.0, high + 1.0);
            Choice { weight, step, below: steps.floor(), rest: steps - steps.floor(), low, high }
        };
        Some(weights.iter().zip(self.steps).map(choice).collect())
    }

    /// The error in the outputs that codes make, row by row.
    pub fn row_errors(self, weights: &[f32], codes: &[i16], hessian: &Hessian) -> Vec<f64> {
        let pairs = weights.iter().zip(codes).zip(self.steps);
        let differences =
            pairs.map(|((&x, &code), step)| x - (f32::from(code) - step.zero_point) * step.scale);
        hessian.row_errors(&differences.collect::<Vec<f32>>())
    }
}

/// A weight between two neighbours of its grid.
pub struct Choice {
    weight: f32,
    step: Step,
    /// In steps from zero: the neighbour below, how far above it the weight lies, and the ends.
    below: f32,
    rest: f32,
    low: f32,
    high: f32,
}

impl Choice {
    /// How far the weight lies above the neighbour below it, in steps.
    pub fn rest(&self) -> f32 {
        self.rest
    }

    fn steps(&self, up: f32) -> f32 {
        let steps = self.below + up;
        let steps = if steps > self.low { steps } else { self.low };
        if steps < self.high { steps } else { self.high }
    }

    /// The weight less what it becomes that far `up` from the neighbour below.
    pub fn difference(&self, up: f32) -> f32 {
        self.weight - self.steps(up) * self.step.scale
    }

    /// By how much more it becomes per step up: nothing where it is saturated.
    pub fn slope(&self, up: f32) -> f32 {
        let steps = self.below + up;
        if steps >= self.low && steps <= self.high { self.step.scale } else { 0.0 }
    }

    /// The integer of the neighbour below (0) or above (1).
    pub fn code(&self, up: f32) -> i16 {
        (self.steps(up) + self.step.zero_point) as i32 as i16
    }
}

/// The best codes found so far of every row.
pub struct Best<'a> {
    weights: &'a [f32],
    grid: GridRows<'a>,
    hessian: &'a Hessian,
    codes: Vec<i16>,
    errors: Vec<f64>,
}

impl<'a> Best<'a> {
    /// Those of the grid.
    pub fn plain(weights: &'a [f32], grid: GridRows<'a>, hessian: &'a Hessian) -> Best<'a> {
        let codes = grid.plain.to_vec();
        let errors = grid.row_errors(weights, &codes, hessian);
        Best { weights, grid, hessian, codes, errors }
    }

    /// The error of every row.
    pub fn errors(&self) -> &[f64] {
        &self.errors
    }

    /// Takes over the rows of `codes` that make a smaller error, once their pairs are mended.
    pub fn offer(&mut self, mut codes: Vec<i16>) {
        let columns = self.hessian.columns();
        self.grid.mend(self.weights, &mut codes, columns);
        let errors = self.grid.row_errors(self.weights, &codes, self.hessian);
        let rows = self.codes.chunks_exact_mut(columns).zip(codes.chunks_exact(columns));
        for (((row, new), least), error) in rows.zip(&mut self.errors).zip(errors) {
            if error < *least {
                row.copy_from_slice(new);
                *least = error;
            }
        }
    }

    /// The codes.
    pub fn codes(self) -> Vec<i16> {
        self.codes
    }
}
