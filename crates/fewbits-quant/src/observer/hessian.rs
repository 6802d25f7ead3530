//! What the inputs of a product do together.

use fewbits_kernels::Cpu;
use fewbits_kernels::float::{Dims, Strided, StridedMut, matmul};
use rayon::prelude::*;

use crate::{QuantError, Result};

/// Rows of inputs whose products are summed in f32 before the sum is added up in f64.
const ROWS: usize = 256;

/// Rows of H that are computed at a time, by one thread.
const STRIP: usize = 64;

/// Rows of differences weighed at a time, and how many products are summed in f32 meanwhile.
const WEIGHED: usize = 64;
const SUMMED: usize = 256;

/// Sums up `H = Σ x xᵀ` over the inputs `x` of one matrix: the Hessian of its squared output error
/// without the factor 2 (Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for
/// Generative Pre-trained Transformers", section 3: `H = 2 X Xᵀ`).
///
/// Memory: four bytes for each pair of columns, and 256 rows. Sums depend on the rows and their
/// order alone, not on batches or threads; only [`merge`](HessianObserver::merge) rounds otherwise.
#[derive(Clone, Debug)]
pub struct HessianObserver {
    columns: usize,
    rows: u64,
    /// Of each strip of rows of H the part from its diagonal on: H is symmetric.
    strips: Vec<Vec<f64>>,
    sum: Vec<f64>,
    /// Rows seen that are not in the strips yet, fewer than [`ROWS`].
    pending: Vec<f32>,
}

impl HessianObserver {
    /// Nothing seen yet of a matrix with so many columns.
    pub fn new(columns: usize) -> HessianObserver {
        let strip = |first: usize| vec![0.0; STRIP.min(columns - first) * (columns - first)];
        HessianObserver {
            columns,
            rows: 0,
            strips: (0..columns).step_by(STRIP).map(strip).collect(),
            sum: vec![0.0; columns],
            pending: Vec::new(),
        }
    }

    /// Adds rows of inputs, `[n, columns]` row-major; those of a convolution are its windows, in
    /// the order of im2col.
    ///
    /// # Errors
    /// If these are no whole rows; nothing is added then.
    pub fn observe(&mut self, rows: &[f32]) -> Result<()> {
        let count = rows.len().checked_div(self.columns).unwrap_or(0);
        if count * self.columns != rows.len() {
            return Err(QuantError::Length {
                shape: vec![count, self.columns],
                values: rows.len(),
            });
        }
        let mut rest = rows;
        while !rest.is_empty() {
            let room = ROWS * self.columns - self.pending.len();
            let (taken, left) = rest.split_at(room.min(rest.len()));
            self.pending.extend_from_slice(taken);
            rest = left;
            if self.pending.len() == ROWS * self.columns {
                self.add_pending();
            }
        }
        for row in rows.chunks_exact(self.columns.max(1)) {
            self.sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        self.rows += count as u64;
        Ok(())
    }

    /// Moves the rows that wait into the sums.
    fn add_pending(&mut self) {
        let columns = self.columns;
        let count = self.pending.len().checked_div(columns).unwrap_or(0);
        let inputs = Strided::rows(&self.pending, columns);
        let add = |(products, scratch): &mut (Vec<f32>, Vec<f32>),
                   (i, strip): (usize, &mut Vec<f64>)| {
            let (first, width) = (i * STRIP, columns - i * STRIP);
            let height = strip.len() / width;
            let inputs = inputs.from(0, first);
            products.resize(strip.len(), 0.0);
            let (cpu, turned) = (cpu(), inputs.transposed());
            let dims = Dims { m: height, k: count, n: width };
            let out = StridedMut::rows(products, width);
            matmul(cpu, dims, turned, inputs, out, scratch);
            strip.iter_mut().zip(products).for_each(|(sum, x)| *sum += f64::from(*x));
        };
        if count > 0 {
            self.strips.par_iter_mut().enumerate().for_each_init(Default::default, add);
        }
        self.pending.clear();
    }

    /// Adds what another observer saw; up to rounding the same as having observed it here.
    ///
    /// # Errors
    /// If the other is one of another number of columns.
    pub fn merge(&mut self, other: &HessianObserver) -> Result<()> {
        if other.columns != self.columns {
            let (expected, given) = (self.columns, other.columns);
            return Err(QuantError::Channels { expected, given });
        }
        self.add_pending();
        for (strip, other) in self.strips.iter_mut().zip(&other.strips) {
            strip.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
        }
        self.pending.extend_from_slice(&other.pending);
        self.sum.iter_mut().zip(&other.sum).for_each(|(sum, x)| *sum += x);
        self.rows += other.rows;
        Ok(())
    }

    /// The Hessian of all rows seen.
    ///
    /// # Errors
    /// If there were none, or one held a NaN, an infinity or numbers whose squares overflow.
    pub fn finish(mut self) -> Result<Hessian> {
        if self.rows == 0 {
            return Err(QuantError::NoRows);
        }
        self.add_pending();
        let (columns, rows) = (self.columns, self.rows);
        let mut sums = vec![0f32; columns * columns];
        for (i, strip) in self.strips.iter().enumerate() {
            let first = i * STRIP;
            for (row, values) in (first..).zip(strip.chunks_exact(columns - first)) {
                for (column, &x) in (row..).zip(&values[row - first..]) {
                    sums[row * columns + column] = x as f32;
                    sums[column * columns + row] = x as f32;
                }
            }
        }
        if let Some(place) = sums.iter().position(|x| !x.is_finite()) {
            // A column with a NaN spoils its row of H, the first spoilt one from its diagonal on.
            let column = (place / columns.max(1)).max(place % columns.max(1));
            let value = sums[column * columns + column] / rows as f32;
            return Err(QuantError::Input { column, value });
        }
        let means = self.sum.iter().map(|&x| (x / rows as f64) as f32).collect();
        Ok(Hessian { columns, rows_seen: rows, sums, means })
    }
}

/// What the inputs of a matrix do together: how much the error of each pair of weights counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Hessian {
    columns: usize,
    rows_seen: u64,
    /// `H = Σ x xᵀ`, whole.
    sums: Vec<f32>,
    means: Vec<f32>,
}

impl Hessian {
    /// The inputs that each output reads.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The rows of inputs that were summed.
    pub fn rows_seen(&self) -> u64 {
        self.rows_seen
    }

    /// The mean of each input.
    pub fn means(&self) -> &[f32] {
        &self.means
    }

    /// The mean square of each input: the diagonal of H over the rows.
    pub fn mean_squares(&self) -> Vec<f32> {
        let rows = self.rows_seen as f32;
        self.diagonal().map(|x| x / rows).collect()
    }

    /// H, row by row.
    pub(crate) fn sums(&self) -> &[f32] {
        &self.sums
    }

    pub(crate) fn diagonal(&self) -> impl Iterator<Item = f32> + Clone {
        self.sums.iter().step_by(self.columns + 1).copied()
    }

    /// The squared error that differences of weights, `[n, columns]` row-major, make in the
    /// outputs, summed over the rows seen and over the outputs: `Σ d H dᵀ` over the rows `d`. The
    /// objective that all methods of rounding are compared by.
    ///
    /// # Errors
    /// If these are no whole rows.
    pub fn error(&self, differences: &[f32]) -> Result<f64> {
        let rows = differences.len().checked_div(self.columns).unwrap_or(0);
        if rows * self.columns != differences.len() {
            let shape = vec![rows, self.columns];
            return Err(QuantError::Length { shape, values: differences.len() });
        }
        Ok(self.row_errors(differences).iter().sum())
    }

    /// `d H dᵀ` of each row `d`.
    pub(crate) fn row_errors(&self, differences: &[f32]) -> Vec<f64> {
        let columns = self.columns;
        let weigh = |rows: &[f32]| {
            let count = rows.len() / columns;
            let (mut products, mut scratch) = (vec![0f32; rows.len()], Vec::new());
            let mut errors = vec![0f64; count];
            for first in (0..columns).step_by(SUMMED) {
                let depth = SUMMED.min(columns - first);
                let left = Strided::rows(rows, columns).from(0, first);
                let right = Strided::rows(&self.sums, columns).from(first, 0);
                let dims = Dims { m: count, k: depth, n: columns };
                let out = StridedMut::rows(&mut products, columns);
                matmul(cpu(), dims, left, right, out, &mut scratch);
                let pairs = rows.chunks_exact(columns).zip(products.chunks_exact(columns));
                for (error, (d, product)) in errors.iter_mut().zip(pairs) {
                    let terms = d.iter().zip(product).map(|(&d, &p)| f64::from(d) * f64::from(p));
                    *error += terms.sum::<f64>();
                }
            }
            errors
        };
        differences.par_chunks((WEIGHED * columns).max(1)).flat_map_iter(weigh).collect()
    }
}

/// Where products are computed; every level gives the same bits. What is wrong with a level that
/// was asked for is told where models are run.
pub(crate) fn cpu() -> Cpu {
    Cpu::chosen().unwrap_or(Cpu::SCALAR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Integers: their sums and means are exact.
    fn rows(count: usize, columns: usize, seed: usize) -> Vec<f32> {
        let value = |i: usize| ((i + seed) * 7919 % 23) as f32 - 11.0;
        (0..count * columns).map(value).collect()
    }

    fn seen(columns: usize, batches: &[&[f32]]) -> HessianObserver {
        let mut observer = HessianObserver::new(columns);
        batches.iter().for_each(|batch| observer.observe(batch).unwrap());
        observer
    }

    #[test]
    fn the_sums_are_those_of_the_definition() {
        let (count, columns) = (ROWS + 44, STRIP + 9);
        let rows = rows(count, columns, 1);
        let hessian = seen(columns, &[&rows]).finish().unwrap();
        assert_eq!((hessian.columns(), hessian.rows_seen()), (columns, count as u64));
        for (i, j) in (0..columns).flat_map(|i| (0..columns).map(move |j| (i, j))) {
            let sum: f32 = rows.chunks(columns).map(|x| x[i] * x[j]).sum();
            assert_eq!(hessian.sums[i * columns + j], sum);
        }
        let mean = rows.iter().step_by(columns).sum::<f32>() / count as f32;
        assert_eq!(hessian.means()[0], mean);
        let square = rows.iter().step_by(columns).map(|x| x * x).sum::<f32>() / count as f32;
        assert_eq!(hessian.mean_squares()[0], square);
    }

    #[test]
    fn the_error_is_that_of_the_outputs() {
        let (count, columns, outputs) = (300, SUMMED + 5, WEIGHED + 3);
        let rows = rows(count, columns, 2);
        let hessian = seen(columns, &[&rows]).finish().unwrap();
        let differences: Vec<f32> =
            (0..outputs * columns).map(|i| (i * 31 % 17) as f32 / 64.0 - 0.125).collect();
        let mut wanted = 0.0;
        for d in differences.chunks(columns) {
            for x in rows.chunks(columns) {
                let output: f64 = d.iter().zip(x).map(|(&d, &x)| f64::from(d * x)).sum();
                wanted += output * output;
            }
        }
        let error = hessian.error(&differences).unwrap();
        assert!((error / wanted - 1.0).abs() < 1e-5, "{error} for {wanted}");
        assert!(hessian.error(&differences[1..]).is_err());
        assert_eq!(hessian.error(&[]), Ok(0.0));
    }

    #[test]
    fn inputs_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            for (row, column) in [(0, 0), (5, 2), (299, 69)] {
                let mut rows = rows(300, 70, 3);
                rows[row * 70 + column] = bad;
                let error = seen(70, &[&rows]).finish().unwrap_err();
                assert!(matches!(error, QuantError::Input { column: c, .. } if c == column));
            }
        }
        assert_eq!(HessianObserver::new(3).finish(), Err(QuantError::NoRows));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut observer = HessianObserver::new(3);
        assert!(observer.observe(&[1.0; 4]).is_err());
        assert!(observer.merge(&HessianObserver::new(2)).is_err());
        assert_eq!(observer.finish(), Err(QuantError::NoRows));
        assert!(HessianObserver::new(0).observe(&[1.0]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn batches_threads_and_merging_change_nothing(
            columns in 1usize..150, counts in prop::collection::vec(0usize..300, 1..4),
        ) {
            let batches = |factor: f32| -> Vec<Vec<f32>> {
                let batch = |(i, &n)| rows(n, columns, i).iter().map(|x| x * factor).collect();
                counts.iter().enumerate().map(batch).collect()
            };
            // Sums that are rounded.
            let rounded = batches(0.1);
            let parts: Vec<&[f32]> = rounded.iter().map(|b| &b[..]).collect();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let alone = pool.install(|| seen(columns, &parts).finish());
            prop_assert_eq!(alone, seen(columns, &[&rounded.concat()]).finish());
            let exact = batches(1.0);
            let mut merged = HessianObserver::new(columns);
            for part in &exact {
                merged.merge(&seen(columns, &[part])).unwrap();
            }
            prop_assert_eq!(merged.finish(), seen(columns, &[&exact.concat()]).finish());
        }
    }
}
