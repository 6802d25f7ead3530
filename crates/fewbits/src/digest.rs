//! The hashes that tell files, data and plans apart.

use std::io;
use std::path::Path;

/// Identifies a file: the first 64 bits of its BLAKE3 hash, in hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn digest_of_file(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    // Read, not mapped: mapped pages would count as this process's memory.
    let mut file = std::fs::File::open(path)?;
    hasher.update_reader(&mut file)?;
    Ok(short_digest(&hasher.finalize()))
}

/// Cuts a hash to its first 64 bits: enough to tell files apart, short enough for small models.
pub(crate) fn short_digest(hash: &blake3::Hash) -> String {
    hash.to_hex()[..16].to_string()
}
