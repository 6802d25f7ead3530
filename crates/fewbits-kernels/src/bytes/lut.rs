//! Any function of one byte: a table of its 256 values.

use crate::cpu::per_cpu;

per_cpu! {
    /// Computes `out[i] = table[input[i]]`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn look_up(table: &[u8; 256], input: &[u8], out: &mut [u8]) {
        assert_eq!(input.len(), out.len());
        // Eight at a time: memory is read and written once for all of them.
        let (inputs, input_rest) = input.as_chunks::<8>();
        let (outs, out_rest) = out.as_chunks_mut::<8>();
        for (out, &input) in outs.iter_mut().zip(inputs) {
            let indices = u64::from_le_bytes(input);
            let mut found = 0;
            for i in 0..8 {
                found |= u64::from(table[usize::from((indices >> (8 * i)) as u8)]) << (8 * i);
            }
            *out = found.to_le_bytes();
        }
        for (out, &index) in out_rest.iter_mut().zip(input_rest) {
            *out = table[usize::from(index)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;

    #[test]
    fn every_byte_is_looked_up() {
        let table: [u8; 256] = std::array::from_fn(|i| (i * 37 + 11) as u8);
        for len in [0, 1, 7, 8, 9, 31, 256, 300] {
            let input: Vec<u8> = (0..len).map(|i| (i * 5) as u8).collect();
            let wanted: Vec<u8> = input.iter().map(|&i| table[usize::from(i)]).collect();
            for cpu in Cpu::available() {
                let mut out = vec![0; len];
                look_up(cpu, &table, &input, &mut out);
                assert_eq!(out, wanted);
            }
        }
    }
}
