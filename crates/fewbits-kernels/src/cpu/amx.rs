//! Whether AMX may be used: the CPU must have it, and the system must let this process.

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;
/// Bytes of a row of a tile.
pub(crate) const ROW_BYTES: usize = 64;

/// Whether this CPU has AMX for bytes, and the kernel lets this process use it.
#[cfg(target_os = "linux")]
pub(crate) fn permitted() -> bool {
    use std::sync::OnceLock;

    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        // It is refused where a thread's stack for signals is too small for the tiles.
        // SAFETY: the call takes two integers, and refuses what it does not know.
        present()
            && unsafe {
                libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0
            }
    })
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn permitted() -> bool {
    false
}

/// Whether this CPU has AMX for bytes, with tiles of the size used here, and the system saves them.
#[cfg(target_os = "linux")]
pub(crate) fn present() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    #[target_feature(enable = "xsave")]
    fn enabled_state() -> u64 {
        // SAFETY: register 0 exists wherever the system has enabled xsave.
        unsafe { _xgetbv(0) }
    }

    const OSXSAVE: u32 = 1 << 27;
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_CONFIG_AND_DATA: u64 = 1 << 17 | 1 << 18;
    const PALETTES: u32 = 0x1D;

    if __cpuid(0).eax < PALETTES
        || __cpuid(1).ecx & OSXSAVE == 0
        || __cpuid_count(7, 0).edx & TILE_AND_INT8 != TILE_AND_INT8
    {
        return false;
    }
    // SAFETY: the system has enabled xsave.
    let enabled = unsafe { enabled_state() };
    let palette = __cpuid_count(PALETTES, 1);
    let (row_bytes, tiles, rows) = (palette.ebx & 0xFFFF, palette.ebx >> 16, palette.ecx & 0xFFFF);
    enabled & TILE_CONFIG_AND_DATA == TILE_CONFIG_AND_DATA
        && __cpuid_count(PALETTES, 0).eax >= 1
        && (row_bytes as usize, tiles, rows as usize) == (ROW_BYTES, 8, ROWS)
}
