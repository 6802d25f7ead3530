//! What the windows of a convolution read, one behind the other (im2col).

use fewbits_onnx::facts;
use fewbits_onnx::proto::NodeProto;

/// How a convolution moves, in any number of spatial axes.
pub struct Windows {
    /// Of the input: channels, then the spatial axes.
    channels: usize,
    size: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    /// Windows along each axis.
    count: Vec<usize>,
}

impl Windows {
    /// Those of a `Conv` node with a kernel of this size over inputs of this shape; `None` if the
    /// node says what no `Conv` can.
    pub fn of(node: &NodeProto, kernel: &[usize], input: &[usize]) -> Option<Windows> {
        let [_, channels, size @ ..] = input else { return None };
        let axes = kernel.len();
        if size.len() != axes {
            return None;
        }
        let each = |name: &str, default: usize| -> Option<Vec<usize>> {
            match node.ints(name) {
                [] => Some(vec![default; axes]),
                ints => ints.iter().map(|&i| usize::try_from(i).ok()).collect(),
            }
        };
        let (strides, dilations) = (each("strides", 1)?, each("dilations", 1)?);
        let windows = facts::Windows::of(node, kernel)?;
        let known: Vec<Option<usize>> = size.iter().copied().map(Some).collect();
        let pads = windows.pads(&known)?;
        let count = windows.counts(size)?;
        let (channels, size, kernel) = (*channels, size.to_vec(), kernel.to_vec());
        Some(Windows { channels, size, kernel, strides, dilations, pads, count })
    }

    /// Windows of an image.
    pub fn per_image(&self) -> usize {
        self.count.iter().product()
    }

    /// Adds what window number `window` of `image` reads of the channels of a group, `first` and
    /// the ones behind it, to `row`: channel by channel, taps in the order of the weight, zeros for
    /// padding.
    pub fn read(
        &self,
        image: &[f32],
        window: usize,
        channels: std::ops::Range<usize>,
        row: &mut Vec<f32>,
    ) {
        let axes = self.kernel.len();
        let taps: usize = self.kernel.iter().product();
        let plane: usize = self.size.iter().product();
        // Where each tap lies in a plane; the same for all channels.
        let mut places: Vec<Option<usize>> = Vec::with_capacity(taps);
        for tap in 0..taps {
            let (mut tap, mut window) = (tap, window);
            let (mut place, mut pitch) = (Some(0), 1);
            for axis in (0..axes).rev() {
                let (at, of_window) = (tap % self.kernel[axis], window % self.count[axis]);
                (tap, window) = (tap / self.kernel[axis], window / self.count[axis]);
                let padded = of_window * self.strides[axis] + at * self.dilations[axis];
                let inside = padded.checked_sub(self.pads[axis]).filter(|&x| x < self.size[axis]);
                place = place.and_then(|place| Some(place + inside? * pitch));
                pitch *= self.size[axis];
            }
            places.push(place);
        }
        debug_assert!(channels.end <= self.channels);
        for channel in channels {
            let plane = &image[channel * plane..][..plane];
            row.extend(places.iter().map(|place| place.map_or(0.0, |place| plane[place])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbits_onnx::proto::AttributeProto;

    fn read(node: &NodeProto, kernel: &[usize], input: &[usize], window: usize) -> Vec<f32> {
        let windows = Windows::of(node, kernel, input).unwrap();
        let image: Vec<f32> = (1..=input[1..].iter().product()).map(|i| i as f32).collect();
        let mut row = Vec::new();
        windows.read(&image, window, 0..input[1], &mut row);
        row
    }

    #[test]
    fn windows_read_channels_and_taps_in_the_order_of_weights() {
        let plain = NodeProto::new("Conv", &["x", "w"], &["y"]);
        assert_eq!(
            read(&plain, &[2, 2], &[1, 2, 3, 3], 3),
            [5.0, 6.0, 8.0, 9.0, 14.0, 15.0, 17.0, 18.0]
        );
        let padded = plain.clone().with(AttributeProto::of_ints("pads", &[1, 1, 0, 0]));
        assert_eq!(read(&padded, &[2, 2], &[1, 1, 3, 3], 0), [0.0, 0.0, 0.0, 1.0]);
        let strided = plain.clone().with(AttributeProto::of_ints("strides", &[2]));
        let strided = strided.with(AttributeProto::of_ints("dilations", &[2]));
        assert_eq!(read(&strided, &[2], &[1, 1, 7], 1), [3.0, 5.0]);
        assert_eq!(Windows::of(&strided, &[2], &[1, 1, 7]).unwrap().per_image(), 3);
    }

    #[test]
    fn padding_that_keeps_the_size_is_worked_out() {
        let same = |how| {
            let node = NodeProto::new("Conv", &["x", "w"], &["y"]);
            node.with(AttributeProto::of_string("auto_pad", how))
        };
        assert_eq!(read(&same("SAME_UPPER"), &[2], &[1, 1, 3], 2), [3.0, 0.0]);
        assert_eq!(read(&same("SAME_LOWER"), &[2], &[1, 1, 3], 0), [0.0, 1.0]);
        assert_eq!(Windows::of(&same("VALID"), &[2], &[1, 1, 3]).unwrap().per_image(), 2);
    }

    #[test]
    fn a_kernel_larger_than_its_input_has_no_windows() {
        let plain = NodeProto::new("Conv", &["x", "w"], &["y"]);
        assert!(Windows::of(&plain, &[4], &[1, 1, 3]).is_none());
        assert!(Windows::of(&plain, &[2, 2], &[1, 1, 3]).is_none());
    }
}
