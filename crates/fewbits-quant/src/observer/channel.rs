//! What every channel of a tensor holds.

use crate::{Layout, QuantError, Result, Span};

/// Watches the largest magnitude and the mean of every channel of one tensor.
///
/// The largest magnitudes are what SmoothQuant weighs (Xiao et al. 2023, "SmoothQuant: Accurate
/// and Efficient Post-Training Quantization for Large Language Models", eq. 4: `max(|X_j|)`); the
/// means are what bias correction needs (Nagel et al. 2019, "Data-Free Quantization Through
/// Weight Equalization and Bias Correction", section 4.2: `E[x]`).
///
/// Sums are rounded to f64: their last digits may depend on the order of the batches.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelObserver {
    channels: Vec<Channel>,
    not_finite: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Channel {
    abs_max: f32,
    sum: f64,
    finite: u64,
}

impl Channel {
    /// Adds values and returns how many were not finite.
    fn add(&mut self, values: &[f32]) -> u64 {
        let (mut most, mut sum) = ([0f32; 8], [0f64; 8]);
        let (chunks, tail) = values.as_chunks::<8>();
        for chunk in chunks {
            for lane in 0..8 {
                let magnitude = chunk[lane].abs();
                most[lane] = if magnitude > most[lane] { magnitude } else { most[lane] };
                sum[lane] += f64::from(chunk[lane]);
            }
        }
        let total = sum.iter().sum::<f64>() + tail.iter().map(|&x| f64::from(x)).sum::<f64>();
        // No sum of f32 overflows an f64: it is finite if all values are.
        if !total.is_finite() {
            return values.iter().map(|&x| u64::from(!self.add_one(x))).sum();
        }
        let tail_most = tail.iter().fold(0f32, |a, x| a.max(x.abs()));
        self.abs_max = most.iter().fold(self.abs_max.max(tail_most), |a, &b| a.max(b));
        self.sum += total;
        self.finite += values.len() as u64;
        0
    }

    /// Adds a value and returns whether it was finite.
    fn add_one(&mut self, x: f32) -> bool {
        let finite = x.is_finite();
        if finite {
            self.abs_max = self.abs_max.max(x.abs());
            self.sum += f64::from(x);
            self.finite += 1;
        }
        finite
    }
}

impl ChannelObserver {
    /// Nothing seen yet of a tensor with so many channels.
    pub fn new(channels: usize) -> ChannelObserver {
        ChannelObserver { channels: vec![Channel::default(); channels], not_finite: 0 }
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
        let ChannelObserver { channels, not_finite } = self;
        layout.for_each_run(|run, span| match span {
            Span::One(channel) => *not_finite += channels[channel].add(&values[run]),
            Span::Each(first) => {
                let channels = &mut channels[first..first + run.len()];
                for (channel, &x) in channels.iter_mut().zip(&values[run]) {
                    *not_finite += u64::from(!channel.add_one(x));
                }
            }
        });
        Ok(())
    }

    /// Adds what another observer saw; the same as having observed it here.
    ///
    /// # Errors
    /// If the other has another number of channels.
    pub fn merge(&mut self, other: &ChannelObserver) -> Result<()> {
        self.check_channels(other.channels.len())?;
        self.not_finite += other.not_finite;
        for (a, b) in self.channels.iter_mut().zip(&other.channels) {
            a.abs_max = a.abs_max.max(b.abs_max);
            a.sum += b.sum;
            a.finite += b.finite;
        }
        Ok(())
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The largest finite magnitude of each channel, 0 where nothing was seen.
    pub fn abs_max(&self) -> Vec<f32> {
        self.channels.iter().map(|c| c.abs_max).collect()
    }

    /// The mean of the finite values of each channel, 0 where nothing was seen.
    pub fn means(&self) -> Vec<f64> {
        self.channels.iter().map(|c| c.sum / c.finite.max(1) as f64).collect()
    }

    /// NaNs and infinities seen; they are in no channel.
    pub fn count_not_finite(&self) -> u64 {
        self.not_finite
    }

    fn check_channels(&self, given: usize) -> Result<()> {
        match given == self.channels.len() {
            true => Ok(()),
            false => Err(QuantError::Channels { expected: self.channels.len(), given }),
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
        assert_eq!((last.abs_max(), last.count_not_finite()), (vec![2.0, 6.0], 1));
        assert_eq!(last.means(), [1.5, 4.0 / 3.0]);
        let mut first = ChannelObserver::new(3);
        first.observe(&values, &layout(&[3, 2], 0)).unwrap();
        assert_eq!((first.abs_max(), first.means()), (vec![4.0, 2.0, 6.0], vec![-1.5, 2.0, 6.0]));
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
