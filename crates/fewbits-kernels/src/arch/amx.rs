//! AMX: matrix products in tiles.

/// Whether this CPU has AMX for bytes, and the kernel lets this process use it.
pub(crate) fn permitted() -> bool {
    false
}
