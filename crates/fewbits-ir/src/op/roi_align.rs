//! RoiAlign (He et al. 2017, "Mask R-CNN", section 3).

use serde::{Deserialize, Serialize};

use super::{f32s, i64s, refused};
use crate::{Result, Tensor};

/// The features of images `[images, channels, height, width]` inside regions `[regions, 4]`, whose images the
/// third input says: averages or maxima of samples between pixels, `out` of them for each region.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoiAlign {
    /// What becomes of the samples of a part.
    pub pooling: RoiPooling,
    /// Where pixels are.
    pub pixels: Pixels,
    /// Rows and columns of parts.
    pub out: [usize; 2],
    /// Samples of a part along each axis; as many as it has pixels if 0.
    pub samples: usize,
    /// What the numbers of regions are multiplied by.
    #[serde(with = "fewbits_kernels::exact_f32")]
    pub spatial_scale: f32,
}

/// Samples of a region: more is taken for an error in what is asked for.
const MOST_SAMPLES: usize = 1 << 24;

/// What becomes of the samples of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoiPooling {
    /// Their average.
    Average,
    /// The greatest weighted pixel of all.
    Max,
}

/// Where the pixels of images are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pixels {
    /// Their centre is at one half.
    HalfPixel,
    /// They are at whole numbers, and no region is smaller than one.
    OutputHalfPixel,
}

/// A pixel and its weight in a sample.
type Neighbours = [(usize, f32); 4];

impl RoiAlign {
    pub(super) fn compute(self, inputs: &[&Tensor]) -> Result<Tensor> {
        let [features, regions, images] = inputs else {
            return Err(refused("RoiAlign needs features, regions, and the images of these"));
        };
        let (&[count, channels, height, width], &[number, 4]) = (features.shape(), regions.shape())
        else {
            let (a, b) = (features.shape(), regions.shape());
            return Err(refused(format!("features of shape {a:?} and regions of shape {b:?}")));
        };
        let images = i64s(images)?;
        if images.len() != number {
            return Err(refused(format!("{number} regions, and {} images of them", images.len())));
        }
        let (values, plane) = (f32s(features)?, height * width);
        if plane == 0 && number > 0 {
            return Err(refused("regions of images without pixels"));
        }
        let mut out = Vec::with_capacity(number * channels * self.out[0] * self.out[1]);
        for (region, &image) in f32s(regions)?.chunks_exact(4).zip(images) {
            let image = usize::try_from(image).ok().filter(|&image| image < count);
            let image = image.ok_or_else(|| refused(format!("a region of no image of {count}")))?;
            let parts =
                self.parts([region[0], region[1], region[2], region[3]], [height, width])?;
            for channel in 0..channels {
                let pixels = &values[(image * channels + channel) * plane..][..plane];
                out.extend(parts.iter().map(|samples| self.pooled(samples, pixels)));
            }
        }
        Tensor::new(vec![number, channels, self.out[0], self.out[1]], out)
    }

    fn pooled(self, samples: &[Neighbours], pixels: &[f32]) -> f32 {
        let weighted = |&(at, weight): &(usize, f32)| weight * pixels[at];
        match self.pooling {
            RoiPooling::Average => {
                let sum: f32 = samples.iter().map(|of| of.iter().map(weighted).sum::<f32>()).sum();
                sum / samples.len().max(1) as f32
            }
            RoiPooling::Max => {
                samples.iter().flatten().map(weighted).reduce(f32::max).unwrap_or(0.0)
            }
        }
    }

    /// The samples of each part of a region `[x1, y1, x2, y2]`.
    fn parts(self, [x1, y1, x2, y2]: [f32; 4], size: [usize; 2]) -> Result<Vec<Vec<Neighbours>>> {
        let offset = if self.pixels == Pixels::HalfPixel { 0.5 } else { 0.0 };
        let place = |x: f32| x * self.spatial_scale - offset;
        let begin = [place(y1), place(x1)];
        let mut extent = [place(y2) - begin[0], place(x2) - begin[1]];
        if self.pixels == Pixels::OutputHalfPixel {
            extent = extent.map(|extent| extent.max(1.0));
        }
        let part = [0, 1].map(|axis| extent[axis] / self.out[axis] as f32);
        let samples = [0, 1].map(|axis| match self.samples {
            0 => part[axis].ceil().max(0.0) as usize,
            samples => samples,
        });
        let counts = [self.out[0], self.out[1], samples[0], samples[1]];
        let count = counts.iter().try_fold(1_usize, |all, &count| all.checked_mul(count));
        if count.is_none_or(|count| count > MOST_SAMPLES) {
            return Err(refused("a region has more samples than fit"));
        }
        let along = |axis: usize, at: usize, sample: usize| {
            let step = part[axis] / samples[axis] as f32;
            begin[axis] + at as f32 * part[axis] + (sample as f32 + 0.5) * step
        };
        let mut parts = Vec::with_capacity(self.out[0] * self.out[1]);
        for (i, j) in (0..self.out[0]).flat_map(|i| (0..self.out[1]).map(move |j| (i, j))) {
            let all = (0..samples[0]).flat_map(|y| (0..samples[1]).map(move |x| (y, x)));
            parts.push(
                all.map(|(y, x)| neighbours([along(0, i, y), along(1, j, x)], size)).collect(),
            );
        }
        Ok(parts)
    }
}

/// The four pixels around a position and their weights; nothing beyond a pixel outside of the image.
fn neighbours(at: [f32; 2], size: [usize; 2]) -> Neighbours {
    let inside = |axis: usize| (-1.0..=size[axis] as f32).contains(&at[axis]);
    if !(inside(0) && inside(1)) {
        return [(0, 0.0); 4];
    }
    let [(y, y_next, dy), (x, x_next, dx)] = [0, 1].map(|axis| {
        let (last, at) = (size[axis] - 1, at[axis].max(0.0));
        let low = at as usize;
        if low >= last { (last, last, 0.0) } else { (low, low + 1, at - low as f32) }
    });
    let width = size[1];
    [
        (y * width + x, (1.0 - dy) * (1.0 - dx)),
        (y * width + x_next, (1.0 - dy) * dx),
        (y_next * width + x, dy * (1.0 - dx)),
        (y_next * width + x_next, dy * dx),
    ]
}
