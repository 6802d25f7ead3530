//! A hash to see that bytes changed.

/// FNV-1a, 64 bits, as 16 digits: enough to see a change, not to hold off an attack.
pub fn fnv1a(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_gives_its_published_values() {
        let cases: [(&[u8], &str); 3] = [
            (b"", "cbf29ce484222325"),
            (b"a", "af63dc4c8601ec8c"),
            (b"foobar", "85944171f73967e8"),
        ];
        for (bytes, hash) in cases {
            assert_eq!(fnv1a(bytes), hash);
        }
    }
}
