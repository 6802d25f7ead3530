//! How a convolution or a pooling moves its window.

use super::extents::Extent;
use crate::proto::NodeProto;

/// The window of a node along each spatial axis.
pub struct Windows {
    axes: Vec<Window>,
}

/// A window along one axis.
struct Window {
    /// From its first tap to its last.
    extent: usize,
    stride: usize,
    padding: Padding,
}

/// What is added before and behind an axis.
#[derive(Clone, Copy)]
enum Padding {
    Given(usize, usize),
    /// As much as makes one result for every stride, an odd one behind.
    SameUpper,
    /// The same, an odd one before.
    SameLower,
}

impl Windows {
    /// Those of a node with a kernel of this size; none if it says what no node can.
    pub fn of(node: &NodeProto, kernel: &[usize]) -> Option<Windows> {
        let rank = kernel.len();
        let each = |name: &str| -> Option<Vec<usize>> {
            match node.ints(name) {
                [] => Some(vec![1; rank]),
                ints => ints.iter().map(|&i| usize::try_from(i).ok()).collect(),
            }
        };
        let (strides, dilations) = (each("strides")?, each("dilations")?);
        let given: Vec<usize> = match node.ints("pads") {
            [] => vec![0; 2 * rank],
            pads => pads.iter().map(|&p| usize::try_from(p).ok()).collect::<Option<_>>()?,
        };
        let auto_pad = node.string("auto_pad", "NOTSET");
        (strides.len() == rank && dilations.len() == rank && given.len() == 2 * rank)
            .then_some(())?;
        let window = |axis: usize| {
            let stride = Some(strides[axis]).filter(|&stride| stride > 0)?;
            let extent =
                kernel[axis].checked_sub(1)?.checked_mul(dilations[axis])?.checked_add(1)?;
            let padding = match auto_pad.as_str() {
                "SAME_UPPER" => Padding::SameUpper,
                "SAME_LOWER" => Padding::SameLower,
                "VALID" => Padding::Given(0, 0),
                _ => Padding::Given(given[axis], given[rank + axis]),
            };
            Some(Window { extent, stride, padding })
        };
        Some(Windows { axes: (0..rank).map(window).collect::<Option<_>>()? })
    }

    /// How many results there are along each axis of such sizes.
    pub fn counts(&self, sizes: &[usize]) -> Option<Vec<usize>> {
        self.axes.iter().zip(sizes).map(|(window, &size)| window.count(size)).collect()
    }

    /// The same, as far as the sizes are known.
    pub(super) fn extents(&self, sizes: &[Extent]) -> Vec<Extent> {
        if self.axes.len() != sizes.len() {
            return vec![Extent::Unknown; sizes.len()];
        }
        let count = |(window, &size): (&Window, &Extent)| match size {
            Extent::Is(size) => window.count(size).into(),
            size if window.keeps_sizes() => size,
            _ => Extent::Unknown,
        };
        self.axes.iter().zip(sizes).map(count).collect()
    }

    /// The padding in the order of ONNX, all that is before and then all that is behind; none where it
    /// depends on sizes that are not known.
    pub fn pads(&self, sizes: &[Option<usize>]) -> Option<Vec<usize>> {
        let size = |axis: usize| sizes.get(axis).copied().flatten();
        let pads = self.axes.iter().enumerate().map(|(axis, window)| window.pads(size(axis)));
        let pads: Vec<(usize, usize)> = pads.collect::<Option<_>>()?;
        Some(pads.iter().map(|pad| pad.0).chain(pads.iter().map(|pad| pad.1)).collect())
    }
}

impl Window {
    fn count(&self, size: usize) -> Option<usize> {
        let (before, behind) = self.pads(Some(size))?;
        let padded = size.checked_add(before)?.checked_add(behind)?;
        (padded.checked_sub(self.extent)? / self.stride).checked_add(1)
    }

    /// Whether there are as many results as elements, whatever their number.
    fn keeps_sizes(&self) -> bool {
        let added = self.pads(None).and_then(|(before, behind)| before.checked_add(behind));
        self.stride == 1 && added == Some(self.extent - 1)
    }

    fn pads(&self, size: Option<usize>) -> Option<(usize, usize)> {
        let total = || match self.stride {
            // Whatever the size.
            1 => Some(self.extent - 1),
            stride => {
                let size = size?;
                let steps = size.div_ceil(stride).checked_sub(1)?;
                let wanted = steps.checked_mul(stride)?.checked_add(self.extent)?;
                Some(wanted.saturating_sub(size))
            }
        };
        match self.padding {
            Padding::Given(before, behind) => Some((before, behind)),
            Padding::SameUpper => total().map(|total| (total / 2, total - total / 2)),
            Padding::SameLower => total().map(|total| (total - total / 2, total / 2)),
        }
    }
}
