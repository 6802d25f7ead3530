//! Col2Im.

use serde::{Deserialize, Serialize};

use super::{Padding, WindowsOfAnyRank, f32s, i64s, refused};
use crate::shape::places;
use crate::{Result, Tensor};

/// Blocks of images, `[images, channels * taps, blocks]`, added up where they lie: what a convolution took
/// apart. The second input is the size of the images, the third that of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Col2Im {
    /// How blocks lie in the images.
    pub windows: WindowsOfAnyRank,
}

/// Pixels of an image: more is taken for an error in what is asked for.
const MOST_PIXELS: usize = 1 << 28;

impl Col2Im {
    pub(super) fn compute(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let [columns, image, block] = inputs else {
            return Err(refused("Col2Im needs columns, the size of images and that of blocks"));
        };
        let sizes = |tensor: &Tensor| -> Result<Vec<usize>> {
            let sizes = i64s(tensor)?.iter().map(|&size| usize::try_from(size).ok());
            sizes.collect::<Option<_>>().ok_or_else(|| refused("Col2Im is told a negative size"))
        };
        let (image, kernel) = (sizes(image)?, sizes(block)?);
        let unfit = || {
            let shape = columns.shape();
            refused(format!("columns of {shape:?} are no blocks of {kernel:?} of images {image:?}"))
        };
        let count = |sizes: &[usize]| sizes.iter().try_fold(1_usize, |n, &s| n.checked_mul(s));
        let pixels = count(&image).filter(|&n| n <= MOST_PIXELS).ok_or_else(unfit)?;
        let taps = count(&kernel).filter(|&taps| taps > 0).ok_or_else(unfit)?;
        let &[images, depth, blocks] = columns.shape() else { return Err(unfit()) };
        if image.len() != kernel.len() || !depth.is_multiple_of(taps) {
            return Err(unfit());
        }
        let axes = self.windows.axes(&image, &kernel)?;
        let out: Vec<usize> = axes.iter().map(|axis| axis.out).collect();
        let channels = depth / taps;
        let planes = images.checked_mul(channels).ok_or_else(unfit)?;
        let all = planes.checked_mul(pixels).filter(|&n| n <= MOST_PIXELS).ok_or_else(unfit)?;
        if count(&out) != Some(blocks) {
            return Err(unfit());
        }
        let values = f32s(columns)?;
        let mut sums = vec![0.0_f32; all];
        for (plane, tap) in (0..planes).flat_map(|plane| (0..taps).map(move |tap| (plane, tap))) {
            let tap_at = places(tap, &kernel);
            for block in 0..blocks {
                let at = places(block, &out);
                let mut place = axes.iter().zip(at.iter().zip(&tap_at));
                let place = place.try_fold(0_usize, |place, (axis, (i, t))| {
                    let along = (i * axis.stride + t * axis.dilation).checked_sub(axis.pad)?;
                    (along < axis.size).then_some(place * axis.size + along)
                });
                // What lies outside the image is lost.
                if let Some(place) = place {
                    sums[plane * pixels + place] += values[(plane * taps + tap) * blocks + block];
                }
            }
        }
        Tensor::new([&[images, channels], &image[..]].concat(), sums)
    }

    /// Blocks that lie as these attributes of a node say.
    pub(crate) fn new(pads: Vec<usize>, strides: Vec<usize>, dilations: Vec<usize>) -> Col2Im {
        let padding = Padding::Given(pads);
        Col2Im { windows: WindowsOfAnyRank { padding, strides, dilations, groups: 1 } }
    }
}
