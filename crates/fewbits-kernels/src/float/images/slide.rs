//! A window over one channel: what its taps hold is joined, tap by tap.

/// How many windows of a row are computed at once.
pub const LANES: usize = 16;
/// How many rows of windows: as many chains of additions are under way.
const ROWS: usize = 4;

/// How rows of windows lie over one channel.
///
/// Not with slices in it: as arguments of their own the compiler knows that they do not overlap.
#[derive(Clone, Copy)]
pub struct WindowRows {
    /// From a row of windows to the next.
    pub step: usize,
    /// Windows of a row.
    pub width: usize,
}

/// Joins the taps of every window of `[rows, width]`, to `out`.
///
/// Tap number `t` of the window in row `y` and column `x` is `copy[taps[t] + y * step + x]`.
#[inline(always)]
pub fn slide(
    copy: &[f32],
    taps: &[usize],
    by: WindowRows,
    start: f32,
    join: impl Fn(f32, usize, f32) -> f32 + Copy,
    finish: impl Fn(f32) -> f32 + Copy,
    out: &mut [f32],
) {
    let WindowRows { step, width } = by;
    let rows = out.len() / width;
    let mut y = 0;
    while y + ROWS <= rows {
        let out = &mut out[y * width..][..ROWS * width];
        some_rows::<ROWS>(&copy[y * step..], taps, by, start, join, finish, out);
        y += ROWS;
    }
    for y in y..rows {
        let out = &mut out[y * width..][..width];
        some_rows::<1>(&copy[y * step..], taps, by, start, join, finish, out);
    }
}

/// Joins the taps of `ROWS` rows of windows.
#[inline(always)]
fn some_rows<const ROWS: usize>(
    copy: &[f32],
    taps: &[usize],
    by: WindowRows,
    start: f32,
    join: impl Fn(f32, usize, f32) -> f32,
    finish: impl Fn(f32) -> f32,
    out: &mut [f32],
) {
    let WindowRows { step, width } = by;
    for x in (0..width).step_by(LANES) {
        let mut joined = [[start; LANES]; ROWS];
        for (t, tap) in taps.iter().enumerate() {
            for (y, joined) in joined.iter_mut().enumerate() {
                let values = &copy[tap + y * step + x..][..LANES];
                for (joined, &value) in joined.iter_mut().zip(values) {
                    *joined = join(*joined, t, value);
                }
            }
        }
        for (y, joined) in joined.iter_mut().enumerate() {
            joined.iter_mut().for_each(|value| *value = finish(*value));
            let out = &mut out[y * width + x..(y + 1) * width];
            // A copy of constant length is no call.
            match out.first_chunk_mut() {
                Some(out) => *out = *joined,
                None => out.copy_from_slice(&joined[..out.len()]),
            }
        }
    }
}
