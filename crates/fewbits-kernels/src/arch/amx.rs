//! AMX: matrix products in tiles.

use crate::arch::TileArgs;
use crate::gemm::Tile;

/// Whether this CPU has AMX for bytes, and the kernel lets this process use it.
pub(crate) fn permitted() -> bool {
    false
}

/// Fills the first `rows` rows and `panels` panels of `sums`.
///
/// # Safety
/// [`permitted`] must have said yes, and `args` must have been checked for `rows` and `panels`.
pub(crate) unsafe fn sum(_: &TileArgs, _: usize, _: usize, _: &mut Tile<i32>) {}
