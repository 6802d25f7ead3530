//! Memory that kernels read and write: aligned for vectors, with room behind the end.

/// Bytes that a kernel may read behind the last one that counts.
pub const SLACK_BYTES: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// What lies behind the end of a buffer that was never resized: it has no memory of its own.
static NO_CONTENT: [u8; SLACK_BYTES] = [0; SLACK_BYTES];

/// Bytes at the start of a cache line, followed by [`SLACK_BYTES`] more.
///
/// Grows as needed and never shrinks, so a buffer that is used again and again allocates once.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len_bytes: usize,
}

macro_rules! views {
    ($($element:ty: $view:ident, $view_mut:ident;)*) => {$(
        #[doc = concat!("Returns the content as `", stringify!($element), "`, without the slack.")]
        pub fn $view(&self) -> &[$element] {
            let len = self.len_bytes / size_of::<$element>();
            // SAFETY: the lines hold len_bytes initialised bytes (none before the first `resize`), aligned to 64,
            // and every bit pattern is a value of this type.
            unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), len) }
        }

        #[doc = concat!("Returns the content as `", stringify!($element), "`, to change.")]
        pub fn $view_mut(&mut self) -> &mut [$element] {
            let len = self.len_bytes / size_of::<$element>();
            // SAFETY: as above, and the borrow is exclusive.
            unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
        }
    )*};
}

impl Buffer {
    /// Makes a buffer of `len_bytes` zeros.
    ///
    /// # Panics
    /// If there is no room for so many.
    pub fn new(len_bytes: usize) -> Buffer {
        let mut buffer = Buffer::default();
        buffer.resize(len_bytes);
        buffer
    }

    /// Makes the buffer `len_bytes` long. What it holds then is unspecified.
    ///
    /// # Panics
    /// If there is no room for so many.
    pub fn resize(&mut self, len_bytes: usize) {
        let with_slack = len_bytes.checked_add(SLACK_BYTES).expect("more bytes than memory has");
        let lines = with_slack.div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0; 64]));
        }
        self.len_bytes = len_bytes;
    }

    /// Returns the length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Returns the bytes and the slack behind them.
    pub fn with_slack(&self) -> &[u8] {
        if self.lines.is_empty() {
            return &NO_CONTENT;
        }
        // SAFETY: the lines are those of a `resize`, which makes room for the length and the slack behind it, and
        // they never become fewer; they are initialised.
        unsafe {
            std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len_bytes + SLACK_BYTES)
        }
    }

    views! {
        u8: u8s, u8s_mut;
        i8: i8s, i8s_mut;
        i32: i32s, i32s_mut;
        i64: i64s, i64s_mut;
        f32: f32s, f32s_mut;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_share_the_bytes_and_slack_lies_behind() {
        let mut buffer = Buffer::new(10);
        buffer.i32s_mut().copy_from_slice(&[1, -1]);
        assert_eq!(buffer.u8s(), [1, 0, 0, 0, 255, 255, 255, 255, 0, 0]);
        assert_eq!(buffer.with_slack().len(), 10 + SLACK_BYTES);
        assert_eq!(buffer.u8s().as_ptr() as usize % 64, 0);
    }

    #[test]
    fn a_buffer_that_was_never_resized_has_slack_too() {
        assert_eq!(Buffer::default().with_slack(), [0; SLACK_BYTES]);
        assert_eq!(std::mem::take(&mut Buffer::new(100)).len_bytes(), 100);
        let mut taken = Buffer::new(100);
        std::mem::take(&mut taken);
        assert_eq!(taken.with_slack().len(), SLACK_BYTES);
        assert!(taken.u8s().is_empty());
        assert_eq!(Buffer::new(0).with_slack().len(), SLACK_BYTES);
    }

    /// The slack must not make a small number of a large one.
    #[test]
    #[should_panic(expected = "more bytes than memory has")]
    fn lengths_near_the_largest_are_refused() {
        Buffer::new(usize::MAX - SLACK_BYTES + 1);
    }

    #[test]
    fn growing_moves_and_shrinking_keeps_the_memory() {
        let mut buffer = Buffer::new(1000);
        let before = buffer.u8s().as_ptr();
        buffer.resize(10);
        buffer.resize(1000);
        assert_eq!(buffer.u8s().as_ptr(), before);
    }
}
