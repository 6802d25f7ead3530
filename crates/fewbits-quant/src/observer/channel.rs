//! What every channel of a tensor holds.

use crate::{Layout, QuantError, Result, Span};

/// Watches the range, the mean and the power of every channel of one tensor.
///
/// The ranges are what SmoothQuant and equalization weigh (Xiao et al. 2023, "SmoothQuant: Accurate
/// and Efficient Post-Training Quantization for Large Language Models", eq. 4: `max(|X_j|)`); the
/// means are what bias correction needs (Nagel et al. 2019, "Data-Free Quantization Through
/// Weight Equalization and Bias Correction", section 4.2: `E[x]`).
///
/// Sums are rounded to f64: their last digits may depend on the order of the batches.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelObserver {
    // One entry a channel in each, so that a row of channels is added lane by lane.
    low: Vec<f32>,
    high: Vec<f32>,
    sum: Vec<f64>,
    sum_of_squares: Vec<f64>,
    finite: Vec<u64>,
    not_finite: u64,
}

/// What was seen of one channel; all zero if nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ChannelSeen {
    /// The smallest finite value.
    pub low: f32,
    /// The largest finite value.
    pub high: f32,
    /// The mean of the finite values.
    pub mean: f64,
    /// The mean of their squares.
    pub mean_square: f64,
}

impl ChannelSeen {
    /// The largest magnitude.
    pub fn abs_max(&self) -> f32 {
        self.high.max(-self.low)
    }

    /// What would have been seen had every value been multiplied by `factor`, a positive one.
    pub fn scaled(&self, factor: f32) -> ChannelSeen {
        let wide = f64::from(factor);
        ChannelSeen {
            low: self.low * factor,
            high: self.high * factor,
            mean: self.mean * wide,
            mean_square: self.mean_square * wide * wide,
        }
    }
}

impl ChannelObserver {
    /// Nothing seen yet of a tensor with so many channels.
    pub fn new(channels: usize) -> ChannelObserver {
        ChannelObserver {
            low: vec![f32::INFINITY; channels],
            high: vec![f32::NEG_INFINITY; channels],
            sum: vec![0.0; channels],
            sum_of_squares: vec![0.0; channels],
            finite: vec![0; channels],
            not_finite: 0,
        }
    }

    /// Adds the values of one batch, row-major as `layout` says; its granularity is that of
    /// channels, its other axes may differ from batch to batch.
    ///
    /// # Errors
    /// If the layout has another number of elements than there are values, or another number of
    /// channels than this observer. Nothing is added then.
    pub fn observe(&mut self, values: &[f32], layout: &Layout) -> Result<()> {
        if values.len() != layout.elements() {
            return Err(QuantError::Length {
                shape: layout.shape().to_vec(),
                values: values.len(),
            });
        }
        self.check_channels(layout.params())?;
        layout.for_each_run(|run, span| {
            let values = &values[run];
            // No early exit: it would keep the loop from being done lane by lane.
            let finite = values.iter().fold(true, |all, x| all & x.is_finite());
            match span {
                Span::One(channel) if finite => self.add_run(channel, values),
                Span::Each(first) if finite => self.add_row(first, values),
                Span::One(channel) => values.iter().for_each(|&x| self.add_one(channel, x)),
                Span::Each(first) => {
                    values.iter().zip(first..).for_each(|(&x, channel)| self.add_one(channel, x));
                }
            }
        });
        Ok(())
    }

    /// Finite values of one channel, in eight lanes: a single sum is one long dependency.
    fn add_run(&mut self, channel: usize, values: &[f32]) {
        let (chunks, tail) = values.as_chunks::<8>();
        let (mut low, mut high) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
        let (mut sum, mut squares) = ([0f64; 8], [0f64; 8]);
        for chunk in chunks {
            for lane in 0..8 {
                let x = chunk[lane];
                low[lane] = low[lane].min(x);
                high[lane] = high[lane].max(x);
                sum[lane] += f64::from(x);
                squares[lane] += f64::from(x) * f64::from(x);
            }
        }
        self.low[channel] = low.iter().chain(tail).copied().fold(self.low[channel], f32::min);
        self.high[channel] = high.iter().chain(tail).copied().fold(self.high[channel], f32::max);
        let tail = tail.iter().map(|&x| f64::from(x));
        self.sum[channel] += sum.iter().sum::<f64>() + tail.clone().sum::<f64>();
        self.sum_of_squares[channel] +=
            squares.iter().sum::<f64>() + tail.map(|x| x * x).sum::<f64>();
        self.finite[channel] += values.len() as u64;
    }

    /// One finite value for each channel from `first` on.
    fn add_row(&mut self, first: usize, values: &[f32]) {
        let channels = first..first + values.len();
        let (low, high) = (&mut self.low[channels.clone()], &mut self.high[channels.clone()]);
        for ((&x, low), high) in values.iter().zip(low).zip(high) {
            *low = low.min(x);
            *high = high.max(x);
        }
        let (sum, squares) =
            (&mut self.sum[channels.clone()], &mut self.sum_of_squares[channels.clone()]);
        for ((&x, sum), squares) in values.iter().zip(sum).zip(squares) {
            let x = f64::from(x);
            *sum += x;
            *squares += x * x;
        }
        self.finite[channels].iter_mut().for_each(|n| *n += 1);
    }

    fn add_one(&mut self, channel: usize, x: f32) {
        if x.is_finite() {
            self.add_row(channel, &[x]);
        } else {
            self.not_finite += 1;
        }
    }

    /// Adds what another observer saw; the same as having observed it here.
    ///
    /// # Errors
    /// If the other has another number of channels.
    pub fn merge(&mut self, other: &ChannelObserver) -> Result<()> {
        self.check_channels(other.channels())?;
        self.not_finite += other.not_finite;
        for c in 0..self.channels() {
            self.low[c] = self.low[c].min(other.low[c]);
            self.high[c] = self.high[c].max(other.high[c]);
            self.sum[c] += other.sum[c];
            self.sum_of_squares[c] += other.sum_of_squares[c];
            self.finite[c] += other.finite[c];
        }
        Ok(())
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.low.len()
    }

    /// What was seen of each channel.
    pub fn seen(&self) -> Vec<ChannelSeen> {
        let channel = |c: usize| match self.finite[c] {
            0 => ChannelSeen::default(),
            n => ChannelSeen {
                low: self.low[c],
                high: self.high[c],
                mean: self.sum[c] / n as f64,
                mean_square: self.sum_of_squares[c] / n as f64,
            },
        };
        (0..self.channels()).map(channel).collect()
    }

    /// NaNs and infinities seen; they are in no channel.
    pub fn count_not_finite(&self) -> u64 {
        self.not_finite
    }

    fn check_channels(&self, given: usize) -> Result<()> {
        match given == self.channels() {
            true => Ok(()),
            false => Err(QuantError::Channels { expected: self.channels(), given }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Granularity;
    use proptest::prelude::*;

    fn layout(shape: &[usize], axis: usize) -> Layout {
        Layout::new(shape, Granularity::Channel { axis }).unwrap()
    }

    #[test]
    fn channels_are_watched_apart_along_any_axis() {
        let values = [1.0, -4.0, 2.0, 2.0, f32::NAN, 6.0];
        let mut last = ChannelObserver::new(2);
        last.observe(&values, &layout(&[3, 2], 1)).unwrap();
        let seen = |o: &ChannelObserver| -> Vec<(f32, f32, f64, f64)> {
            o.seen().iter().map(|c| (c.low, c.high, c.mean, c.mean_square)).collect()
        };
        assert_eq!(last.count_not_finite(), 1);
        assert_eq!(seen(&last), [(1.0, 2.0, 1.5, 2.5), (-4.0, 6.0, 4.0 / 3.0, 56.0 / 3.0)]);
        let mut first = ChannelObserver::new(4);
        first.observe(&[&values[..], &[0.0, -0.0]].concat(), &layout(&[4, 2], 0)).unwrap();
        let expected = [(-4.0, 1.0, -1.5, 8.5), (2.0, 2.0, 2.0, 4.0), (6.0, 6.0, 6.0, 36.0)];
        assert_eq!(seen(&first)[..3], expected);
        assert_eq!(ChannelObserver::new(1).seen(), [ChannelSeen::default()]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut o = ChannelObserver::new(2);
        let error = o.observe(&[1.0; 6], &layout(&[2, 3], 1)).unwrap_err();
        assert_eq!(error, QuantError::Channels { expected: 2, given: 3 });
        assert!(o.observe(&[1.0; 5], &layout(&[2, 3], 0)).is_err());
        assert!(o.merge(&ChannelObserver::new(3)).is_err());
        assert_eq!(o, ChannelObserver::new(2));
    }

    proptest! {
        // Integers: their sums are exact.
        #[test]
        fn merging_equals_observing_both(
            a in prop::collection::vec(-99i8..99, 24), b in prop::collection::vec(-99i8..99, 36), axis in 0usize..2,
        ) {
            let floats = |v: &[i8]| v.iter().map(|&x| f32::from(x)).collect::<Vec<f32>>();
            // Channels of 6, then of 9, after and before the other axis.
            let shape = |n: usize| if axis == 0 { [4, n] } else { [n, 4] };
            let (mut both, mut left, mut right) =
                (ChannelObserver::new(4), ChannelObserver::new(4), ChannelObserver::new(4));
            both.observe(&floats(&b), &layout(&shape(9), axis)).unwrap();
            both.observe(&floats(&a), &layout(&shape(6), axis)).unwrap();
            left.observe(&floats(&a), &layout(&shape(6), axis)).unwrap();
            right.observe(&floats(&b), &layout(&shape(9), axis)).unwrap();
            left.merge(&right).unwrap();
            prop_assert_eq!(left, both);
        }
    }
}
