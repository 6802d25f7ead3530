//! A read-only memory map of a file.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::{Mmap, MmapOptions};

/// A file's bytes, mapped read-only.
///
/// The map is private: writing to the file is not possible through it. Another process that
/// truncates the file while it is mapped makes the next access to the missing pages fail with
/// `SIGBUS`; fewbits never does so itself, since outputs are written beside and renamed.
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file at `path`.
    ///
    /// # Errors
    /// If it cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private. The remaining obligation, that the file is
        // not changed underneath, cannot be enforced on any operating system; see the type's
        // documentation for what happens and why fewbits does not cause it.
        let map = unsafe { MmapOptions::new().map(&file)? };
        Ok(MappedFile { map })
    }

    /// Gives the memory behind `bytes` back to the system, if `bytes` lies inside this map.
    ///
    /// The bytes stay readable: the next access reads them from the file again. Reading a large
    /// file once from front to back with `release` behind the reader keeps the resident memory
    /// small.
    pub fn release(&self, bytes: &[u8]) {
        let start = (bytes.as_ptr() as usize).wrapping_sub(self.map.as_ptr() as usize);
        let inside = start.checked_add(bytes.len()).is_some_and(|end| end <= self.map.len());
        if !inside || bytes.is_empty() {
            return;
        }
        #[cfg(unix)]
        {
            // SAFETY: `DontNeed` on a private, read-only, file-backed map drops clean pages
            // only; a later access reads the same bytes from the file. The range was checked
            // to lie inside the map.
            let advised = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    start,
                    bytes.len(),
                )
            };
            // Advice that is not taken costs memory, never correctness.
            let _ = advised;
        }
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_read_the_same_again() {
        let path = std::env::temp_dir().join(format!("fewbits-map-{}", std::process::id()));
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let map = MappedFile::open(&path).unwrap();
        assert_eq!(map.as_ref(), content);
        map.release(&map.as_ref()[10_000..90_000]);
        assert_eq!(map.as_ref(), content);
        map.release(&content); // not inside the map: nothing happens
        std::fs::remove_file(&path).unwrap();
    }
}
