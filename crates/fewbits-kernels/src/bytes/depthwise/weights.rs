//! The weights of depthwise convolution, laid out for its kernels.

/// The weights of a depthwise convolution with one output a channel, `[rows * columns, channels]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepthwiseWeights {
    /// Widened beforehand: the products are taken of pairs of 16 bits.
    taps: Vec<i16>,
    /// The same by fours, `[quads, channels]`, in the order of [`DepthwiseWeights::quads`].
    quads: Vec<[i8; 4]>,
    channels: usize,
    kernel: [usize; 2],
}

impl DepthwiseWeights {
    /// Packs `[channels, rows, columns]`, as ONNX has them.
    ///
    /// # Panics
    /// If `weights` is of another length.
    pub fn new(weights: &[i8], channels: usize, kernel: [usize; 2]) -> DepthwiseWeights {
        let count = kernel[0] * kernel[1];
        assert_eq!(weights.len(), channels * count);
        let taps = (0..count * channels)
            .map(|i| i16::from(weights[i % channels * count + i / channels]))
            .collect();
        let mut packed = DepthwiseWeights { taps, quads: Vec::new(), channels, kernel };
        packed.quads = packed
            .quads()
            .flat_map(|quad| {
                (0..channels).map(move |channel| {
                    quad.map(|tap| {
                        tap.map_or(0, |[y, x]| weights[channel * count + y * kernel[1] + x])
                    })
                })
            })
            .collect();
        packed
    }

    /// The taps, row and column, by fours. Columns of three are filled up to four, so that each
    /// quad is a column.
    pub(super) fn quads(&self) -> impl Iterator<Item = [Option<[usize; 2]>; 4]> + use<> {
        let [rows, columns] = self.kernel;
        let padded = if rows == 3 { 4 } else { rows };
        let tap = move |i: usize| {
            Some([i % padded, i / padded]).filter(|t| t[0] < rows && t[1] < columns)
        };
        (0..(padded * columns).div_ceil(4))
            .map(move |quad| std::array::from_fn(|i| tap(4 * quad + i)))
    }

    /// The quad numbered `quad` of the channels from `first` on.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn quad(&self, quad: usize, first: usize) -> &[[i8; 4]] {
        &self.quads[quad * self.channels + first..]
    }

    /// Returns the number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns rows and columns of the kernel.
    pub fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    /// The tap numbered `tap` of `N` channels from `first` on.
    #[inline(always)]
    pub(super) fn tap<const N: usize>(&self, tap: usize, first: usize) -> &[i16; N] {
        self.taps[tap * self.channels + first..].first_chunk().expect("a whole block")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_three_are_quads_and_others_follow_each_other() {
        let weights = DepthwiseWeights::new(&[1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6], 2, [3, 2]);
        assert_eq!(weights.tap::<2>(1, 0), &[2, -2]);
        assert_eq!(weights.quads, [[1, 3, 5, 0], [-1, -3, -5, 0], [2, 4, 6, 0], [-2, -4, -6, 0]]);
        let weights = DepthwiseWeights::new(&[1, 2, 3, 4, 5], 1, [5, 1]);
        assert_eq!(weights.quads, [[1, 2, 3, 4], [5, 0, 0, 0]]);
    }
}
