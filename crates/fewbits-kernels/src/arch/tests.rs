use proptest::prelude::*;

use super::testing::tested_cpus;
use super::*;
use crate::gemm::nibbles;

/// Bytes that end where a page begins that cannot be read.
#[cfg(target_os = "linux")]
struct Guarded {
    pages: *mut libc::c_void,
    mapped: usize,
    bytes: *mut u8,
    len: usize,
}

#[cfg(target_os = "linux")]
impl Guarded {
    fn new(content: &[u8]) -> Guarded {
        const PAGE: usize = 4096;
        let readable = content.len().next_multiple_of(PAGE);
        let mapped = readable + PAGE;
        // SAFETY: fresh pages of which the last becomes unreadable; the content ends in front of
        // it, and fits.
        unsafe {
            let pages = libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(pages, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(pages.add(readable), PAGE, libc::PROT_NONE), 0);
            let bytes = pages.cast::<u8>().add(readable - content.len());
            bytes.copy_from_nonoverlapping(content.as_ptr(), content.len());
            Guarded { pages, mapped, bytes, len: content.len() }
        }
    }
}

#[cfg(target_os = "linux")]
impl std::ops::Deref for Guarded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `new` wrote these bytes.
        unsafe { std::slice::from_raw_parts(self.bytes, self.len) }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the pages are this value's.
        unsafe { libc::munmap(self.pages, self.mapped) };
    }
}

/// Elsewhere nothing guards them.
#[cfg(not(target_os = "linux"))]
struct Guarded(Vec<u8>);

#[cfg(not(target_os = "linux"))]
impl Guarded {
    fn new(content: &[u8]) -> Guarded {
        Guarded(content.to_vec())
    }
}

#[cfg(not(target_os = "linux"))]
impl std::ops::Deref for Guarded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Where rows start: a few apart, the last `odd` of them elsewhere.
fn rows() -> impl Strategy<Value = Vec<usize>> {
    let pitch = prop_oneof![Just(0), Just(1), Just(64), 0..200usize];
    let odd = prop_oneof![Just(0), Just(0), 0..32usize];
    (1..=TILE_ROWS, pitch, odd, 0..300usize, any::<bool>()).prop_map(
        |(count, pitch, odd, gap, descending)| {
            let start = |row| row * pitch + if row + odd >= count { gap } else { 0 };
            let mut rows: Vec<usize> = (0..count).map(start).collect();
            if descending {
                rows.reverse();
            }
            rows
        },
    )
}

/// Where runs start; the bytes of a run, half of the time those of whole tiles; and how many panels.
fn sizes() -> impl Strategy<Value = (Vec<usize>, usize, usize)> {
    let run_bytes =
        prop_oneof![(1..4usize).prop_map(|tiles| tiles * 64), (1..24usize).prop_map(|n| n * STEP)];
    (prop::collection::vec(0..500usize, 1..4), run_bytes, 1..=4usize)
}

/// The weights of each column of packed panels, added up.
fn column_sums(panels: &[u8], panel_bytes: usize) -> Vec<i32> {
    let mut sums = vec![0; panels.len() / panel_bytes * BYTE_PANEL];
    for (panel, sums) in panels.chunks_exact(panel_bytes).zip(sums.chunks_exact_mut(BYTE_PANEL)) {
        for (i, weights) in panel.chunks_exact(STEP).enumerate() {
            sums[i % BYTE_PANEL] += weights.iter().map(|&w| i32::from(w as i8)).sum::<i32>();
        }
    }
    sums
}

/// Whether some rows of the panels have the same sums.
fn same_sums(
    cpu: Cpu,
    rows: usize,
    panels: usize,
    sums: &Tile<i32>,
    wanted: &Tile<i32>,
) -> Result<(), TestCaseError> {
    for row in 0..rows {
        let columns = row * TILE_COLUMNS..row * TILE_COLUMNS + panels * BYTE_PANEL;
        prop_assert_eq!(&sums.0[columns.clone()], &wanted.0[columns], "{:?}, row {}", cpu, row);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// All kernels sum what the specification does, and read what `TileArgs::check` has seen only.
    #[test]
    fn tiles_are_those_of_the_specification(
        (starts, (runs, run_bytes, panels), seed) in (rows(), sizes(), any::<u8>())
    ) {
        let panel_bytes = runs.len() * run_bytes * BYTE_PANEL;
        let byte = |i: usize| (i * i + i / 7 * 31 + usize::from(seed)) as u8;
        let len = starts.iter().max().unwrap() + runs.iter().max().unwrap() + run_bytes;
        let input = Guarded::new(&(0..len).map(byte).collect::<Vec<u8>>());
        let weights = Guarded::new(&(0..panels * panel_bytes).map(byte).collect::<Vec<u8>>());
        let column_sums = column_sums(&weights, panel_bytes);
        for cpu in tested_cpus() {
            let kernel = Kernel::of(cpu);
            if !run_bytes.is_multiple_of(kernel.run_multiple()) {
                continue;
            }
            let mut session = kernel.session();
            // Twice, since a session remembers rows.
            for end in [starts.len(), starts.len() / 2 + 1, starts.len()] {
                let count = kernel.tile_rows(end).min(end);
                let args = TileArgs {
                    input: &input,
                    rows: &starts[..count],
                    runs: &runs,
                    run_bytes,
                    panels: &weights,
                    width: Width::Byte,
                    panel_len: panel_bytes,
                    column_sums: &column_sums,
                };
                let mut wanted = Tile([7; TILE_ROWS * TILE_COLUMNS]);
                scalar::sum(&args, panels, &mut wanted);
                let mut sums = Tile([9; TILE_ROWS * TILE_COLUMNS]);
                session.sum(&args, panels, &mut sums);
                same_sums(cpu, count, panels, &sums, &wanted)?;
            }
        }
    }

    /// Sums of weights of 4 bits are those of their bytes.
    #[test]
    fn nibbles_are_bytes((starts, (runs, run_bytes, panels), seed) in (rows(), sizes(), any::<u8>())) {
        let run_bytes = run_bytes.next_multiple_of(2 * STEP);
        let panel_len = runs.len() * run_bytes * BYTE_PANEL;
        let byte = |i: usize| (i * i + i / 7 * 31 + usize::from(seed)) as u8;
        let len = starts.iter().max().unwrap() + runs.iter().max().unwrap() + run_bytes;
        let input = Guarded::new(&(0..len).map(byte).collect::<Vec<u8>>());
        let weight = |i: usize| (byte(i) as i8 >> 4) as u8;
        let weights: Vec<u8> = (0..panels * panel_len).map(weight).collect();
        let packed = nibbles::pack(&weights);
        let packed = Guarded::new(packed.u8s());
        let column_sums = column_sums(&weights, panel_len);
        for cpu in tested_cpus() {
            let kernel = Kernel::of(cpu);
            for count in 1..=starts.len().min(kernel.nibble_rows()) {
                let args = TileArgs {
                    input: &input,
                    rows: &starts[..count],
                    runs: &runs,
                    run_bytes,
                    panels: &weights,
                    width: Width::Byte,
                    panel_len,
                    column_sums: &column_sums,
                };
                let mut wanted = Tile([7; TILE_ROWS * TILE_COLUMNS]);
                scalar::sum(&args, panels, &mut wanted);
                let mut sums = Tile([9; TILE_ROWS * TILE_COLUMNS]);
                let args = TileArgs { panels: &packed, width: Width::Nibble, ..args };
                kernel.session().sum(&args, panels, &mut sums);
                same_sums(cpu, count, panels, &sums, &wanted)?;
            }
        }
    }
}
