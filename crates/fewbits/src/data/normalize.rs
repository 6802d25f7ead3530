use std::str::FromStr;

use super::DataError;

/// How the integers of an image become floats: `(x / 255 − mean) / std`, for each channel.
///
/// Written `MEAN,STD`, or `m1,m2,m3/s1,s2,s3` with a value for each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    /// `(mean, std)` of each channel; one pair serves any number of channels.
    channels: Vec<(f64, f64)>,
}

impl Normalize {
    /// A normalization by the `(mean, std)` of each channel.
    ///
    /// # Errors
    /// Without a channel, and if a number is not finite or a deviation is not positive.
    pub fn new(channels: Vec<(f64, f64)>) -> Result<Normalize, DataError> {
        let sound = |&(mean, std): &(f64, f64)| mean.is_finite() && std.is_finite() && std > 0.0;
        if channels.is_empty() || !channels.iter().all(sound) {
            let reason = "means must be finite and deviations positive".to_string();
            return Err(DataError::Normalize { reason });
        }
        Ok(Normalize { channels })
    }

    /// `(mean, std)` of each channel; a single pair serves any number of channels.
    pub fn channels(&self) -> &[(f64, f64)] {
        &self.channels
    }

    /// The float for the integer `x` by a channel's `(mean, std)`, rounded once.
    pub(super) fn apply((mean, std): (f64, f64), x: f64) -> f32 {
        ((x / 255.0 - mean) / std) as f32
    }
}

impl FromStr for Normalize {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Normalize, DataError> {
        let refuse = || DataError::Normalize {
            reason: format!("'{text}' is not MEAN,STD or m1,m2,m3/s1,s2,s3, such as 0.286,0.353"),
        };
        let numbers = |list: &str| {
            list.split(',')
                .map(|n| n.trim().parse::<f64>())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| refuse())
        };
        let (means, stds) = match text.split_once('/') {
            Some((means, stds)) => (numbers(means)?, numbers(stds)?),
            None => match numbers(text)?[..] {
                [mean, std] => (vec![mean], vec![std]),
                _ => return Err(refuse()),
            },
        };
        if means.len() != stds.len() {
            return Err(refuse());
        }
        Normalize::new(means.into_iter().zip(stds).collect())
    }
}

impl std::fmt::Display for Normalize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let join = |pick: fn(&(f64, f64)) -> f64| {
            self.channels().iter().map(|c| pick(c).to_string()).collect::<Vec<_>>().join(",")
        };
        let separator = if self.channels().len() == 1 { "," } else { "/" };
        write!(f, "{}{separator}{}", join(|c| c.0), join(|c| c.1))
    }
}
