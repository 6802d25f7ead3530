//! Weights in the order of the kernels.

use fewbits_kernels::Cpu;
use fewbits_kernels::gemm::PackedWeights;

/// Columns that a kernel computes together.
const TOGETHER: usize = 16;

/// Weights on their way to the kernels: `[columns, depth]`.
pub(super) struct Unpacked {
    ints: Vec<i16>,
    columns: usize,
    /// How many terms of 8 bits they need: 1 or 2.
    pub terms: usize,
}

impl Unpacked {
    pub(super) fn of(ints: Vec<i16>, columns: usize) -> Unpacked {
        let small = ints.iter().all(|&w| i8::try_from(w).is_ok());
        Unpacked { ints, columns, terms: if small { 1 } else { 2 } }
    }

    fn depth(&self) -> usize {
        self.ints.len() / self.columns.max(1)
    }

    /// Packs the weights, for each group; `runs` of a dot product.
    ///
    /// Integers beyond 8 bits (unsigned weights with a zero point) are two terms, each of 8 bits,
    /// which the same activations are multiplied by.
    pub(super) fn packed(&self, cpu: Cpu, groups: usize, runs: usize) -> Vec<PackedWeights> {
        let (columns, depth, terms) = (self.columns / groups, self.depth(), self.terms);
        let packed = |ints: &[i16]| {
            let mut both = Vec::with_capacity(ints.len() * terms);
            for column in ints.chunks_exact(depth) {
                both.extend(column.iter().map(|&w| w.clamp(-128, 127) as i8));
                if terms == 2 {
                    both.extend(column.iter().map(|&w| (w - w.clamp(-128, 127)) as i8));
                }
            }
            PackedWeights::new(cpu, &both, columns, runs * terms, depth / runs)
        };
        self.ints.chunks_exact(columns * depth).map(packed).collect()
    }

    /// Groups of few filters side by side, with zeros between them: a kernel computes so many columns at
    /// once that most would be empty. Gives the groups that are left.
    pub(super) fn join_groups(&mut self, groups: usize) -> usize {
        let filters = self.columns / groups;
        let fit = |count: &usize| count * filters <= TOGETHER && groups.is_multiple_of(*count);
        let Some(count) = (2..=TOGETHER).rev().find(fit) else { return groups };
        let depth = self.depth();
        let mut ints = vec![0; self.ints.len() * count];
        let columns = self.ints.chunks_exact(depth.max(1));
        let joined = ints.chunks_exact_mut((depth * count).max(1));
        for (filter, (from, to)) in columns.zip(joined).enumerate() {
            let place = filter / filters.max(1) % count;
            to[place * depth..][..depth].copy_from_slice(from);
        }
        self.ints = ints;
        groups / count
    }

    /// From `[filters, channels, window]` to `[filters, window, channels]`.
    pub(super) fn turn_channels_last(&mut self, window: usize) {
        let channels = self.depth() / window.max(1);
        let mut ints = Vec::with_capacity(self.ints.len());
        for filter in self.ints.chunks_exact((channels * window).max(1)) {
            for tap in 0..window {
                ints.extend((0..channels).map(|c| filter[c * window + tap]));
            }
        }
        self.ints = ints;
    }
}
