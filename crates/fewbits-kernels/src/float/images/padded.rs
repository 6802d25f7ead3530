//! Padded copies of some rows of images, in which every window is a few runs of neighbours.

use std::ops::Range;

use crate::Cpu;
use crate::bytes::Window;
use crate::cpu::per_cpu;

/// Floats behind the copies that may be read: vectors are read whole at the end of a row, too.
pub const SLACK: usize = 16;

/// How the copies lie: `[image, channel, row, column modulo stride, column / stride]`.
///
/// So what a tap reads for neighbouring windows lies side by side, whatever the stride.
#[derive(Clone, Copy)]
pub struct Padded {
    window: Window,
    /// Rows and columns of the images.
    size: [usize; 2],
    phase_pitch: usize,
    rows: usize,
    channels: usize,
}

impl Padded {
    /// Copies of `channels` channels of images of `size`, of which `rows` rows of `width` windows
    /// are computed at a time.
    pub fn new(
        window: Window,
        size: [usize; 2],
        channels: usize,
        rows: usize,
        width: usize,
    ) -> Padded {
        let columns = (width - 1) * window.stride[1] + window.extent(1);
        let rows = (rows - 1) * window.stride[0] + window.extent(0);
        Padded { window, size, phase_pitch: columns.div_ceil(window.stride[1]), rows, channels }
    }

    /// From a row to the next.
    pub fn row_pitch(&self) -> usize {
        self.phase_pitch * self.window.stride[1]
    }

    /// From a channel to the next.
    pub fn channel_pitch(&self) -> usize {
        self.rows * self.row_pitch()
    }

    /// From an image to the next.
    pub fn image_pitch(&self) -> usize {
        self.channels * self.channel_pitch()
    }

    /// From a row of windows to the next.
    pub fn step(&self) -> usize {
        self.window.stride[0] * self.row_pitch()
    }

    /// Where the taps of the first window lie: channels, rows, columns.
    pub fn taps(&self) -> Vec<usize> {
        let Window { kernel, stride, dilation, .. } = self.window;
        let mut taps = Vec::with_capacity(self.channels * kernel[0] * kernel[1]);
        for channel in 0..self.channels {
            for y in 0..kernel[0] {
                let row = channel * self.channel_pitch() + y * dilation[0] * self.row_pitch();
                taps.extend((0..kernel[1]).map(|x| x * dilation[1]).map(|column| {
                    row + column % stride[1] * self.phase_pitch + column / stride[1]
                }));
            }
        }
        taps
    }

    /// Copies what the windows from row `first` on read; `planes` are those channels of the images
    /// in `input`, one behind the other, and `padding` is what lies around them.
    pub fn fill(
        &self,
        cpu: Cpu,
        input: &[f32],
        planes: impl Iterator<Item = Range<usize>>,
        first: usize,
        padding: f32,
        copies: &mut [f32],
    ) {
        // All at once: borders are of one or two elements, and a fill is a call.
        copies.fill(padding);
        for (planes, image) in planes.zip(copies.chunks_exact_mut(self.image_pitch())) {
            let area = self.size[0] * self.size[1];
            let planes = &input[planes.start * area..planes.end * area];
            fill_image(cpu, self, planes, first * self.window.stride[0], image);
        }
    }

    /// Copies a row of an image to where it lies between its borders.
    #[inline(always)]
    fn row(&self, row: &[f32], copy: &mut [f32]) {
        let left = self.window.pads_begin[1];
        if self.window.stride[1] == 1 {
            let left = left.min(copy.len());
            every::<1>(row, &mut copy[left..]);
            return;
        }
        let stride = self.window.stride[1];
        for (phase, copy) in copy.chunks_exact_mut(self.phase_pitch).enumerate() {
            // The first column of the image in this phase.
            let before = left.saturating_sub(phase).div_ceil(stride);
            let column = before * stride + phase - left;
            let (Some(row), Some(copy)) = (row.get(column..), copy.get_mut(before..)) else {
                continue;
            };
            match stride {
                2 => every::<2>(row, copy),
                _ => copy.iter_mut().zip(row.iter().step_by(stride)).for_each(|(c, &x)| *c = x),
            }
        }
    }
}

per_cpu! {
    /// Copies the rows from number `top` of the padded channels on.
    fn fill_image(padded: &Padded, planes: &[f32], top: usize, copies: &mut [f32]) {
        let [height, width] = padded.size;
        let copies = copies.chunks_exact_mut(padded.channel_pitch());
        for (plane, copy) in planes.chunks_exact((height * width).max(1)).zip(copies) {
            for (row, copy) in copy.chunks_exact_mut(padded.row_pitch()).enumerate() {
                let y = (top + row).checked_sub(padded.window.pads_begin[0]);
                if let Some(y) = y.filter(|&y| y < height) {
                    padded.row(&plane[y * width..][..width], copy);
                }
            }
        }
    }
}

/// Every `N`th value: a constant step becomes shuffles of vectors.
#[inline(always)]
fn every<const N: usize>(row: &[f32], copy: &mut [f32]) {
    let (groups, rest) = row.as_chunks::<N>();
    let len = groups.len().min(copy.len());
    match len {
        16.. => chunks::<N, 16>(&groups[..len], copy),
        8.. => chunks::<N, 8>(&groups[..len], copy),
        4.. => chunks::<N, 4>(&groups[..len], copy),
        _ => chunks::<N, 1>(&groups[..len], copy),
    }
    if let (Some(copy), Some(&value)) = (copy.get_mut(groups.len()), rest.first()) {
        *copy = value;
    }
}

/// The first of each group, `LEN` or more of them; the last `LEN` come a second time rather than one
/// by one.
#[inline(always)]
fn chunks<const N: usize, const LEN: usize>(groups: &[[f32; N]], copy: &mut [f32]) {
    for start in (0..groups.len()).step_by(LEN) {
        let start = start.min(groups.len() - LEN);
        let groups: &[[f32; N]; LEN] = groups[start..].first_chunk().expect("as many are left");
        let copy: &mut [f32; LEN] = copy[start..].first_chunk_mut().expect("as many as groups");
        for i in 0..LEN {
            copy[i] = groups[i][0];
        }
    }
}
