//! Attention of one head.

use super::binary::{Binary, binary_in_place};
use super::product::{pack, packed_len, times_packed};
use super::softmax::softmax;
use super::strided::{Dims, Strided, StridedMut, at_least};
use crate::Cpu;

/// Queries that are worked on together: few enough for their scores to stay in the cache, and a
/// multiple of the rows that the product takes at once, at every level.
const QUERIES: usize = 24;

/// What is added to the scores before the softmax.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// Nothing.
    None,
    /// One number a key, for all queries alike.
    Row(&'a [f32]),
    /// One number a key for each query, and the distance from one query's to the next one's.
    Full(&'a [f32], usize),
}

/// One head: softmax(`q` `k`ᵀ * `scale` + `mask`) `v`.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The number of queries: rows of `q`.
    pub queries: usize,
    /// The number of keys, at least one: rows of `k` and `v`.
    pub keys: usize,
    /// The columns of `q` and `k`.
    pub depth: usize,
    /// The columns of `v`.
    pub value_depth: usize,
    /// The queries.
    pub q: Strided<'a>,
    /// The keys.
    pub k: Strided<'a>,
    /// The values.
    pub v: Strided<'a>,
    /// The factor of the scores, multiplied after the product.
    pub scale: f32,
    /// What is added to the scores, after the factor.
    pub mask: Mask<'a>,
}

/// Computes a head, with the bits of [`matmul`](super::matmul), `Mul`, `Add`,
/// [`softmax`](super::softmax()) and [`matmul`](super::matmul) in turn, to as many rows as queries and
/// `value_depth` columns.
///
/// `scratch` grows as needed, and may be used again for anything.
///
/// # Panics
/// If there are no keys, or a slice is too short.
pub fn attend(cpu: Cpu, attention: &Attention, mut out: StridedMut, scratch: &mut Vec<f32>) {
    let Attention { queries, keys, depth, value_depth, q, k, v, scale, mask } = *attention;
    let lens = [
        packed_len(depth, keys),
        packed_len(keys, value_depth),
        QUERIES.min(queries) * keys,
        q.copied_len(queries, depth),
    ];
    let scratch = at_least(scratch, lens.iter().sum());
    let (packed_keys, rest) = scratch.split_at_mut(lens[0]);
    let (packed_values, rest) = rest.split_at_mut(lens[1]);
    let (scores, copy) = rest.split_at_mut(lens[2]);
    pack(cpu, depth, keys, k.transposed(), packed_keys);
    pack(cpu, keys, value_depth, v, packed_values);
    let q = q.straightened(queries, depth, copy);
    for first in (0..queries).step_by(QUERIES) {
        let rows = QUERIES.min(queries - first);
        let scores = &mut scores[..rows * keys];
        let dims = Dims { m: rows, k: depth, n: keys };
        let to = StridedMut::rows(scores, keys);
        times_packed(cpu, dims, q.from(first, 0), packed_keys, to);
        binary_in_place(cpu, Binary::Mul, scores, &[scale]);
        match mask {
            Mask::None => {}
            Mask::Row(mask) => binary_in_place(cpu, Binary::Add, scores, &mask[..keys]),
            Mask::Full(mask, pitch) => {
                for (i, scores) in scores.chunks_exact_mut(keys).enumerate() {
                    let mask = &mask[(first + i) * pitch..][..keys];
                    binary_in_place(cpu, Binary::Add, scores, mask);
                }
            }
        }
        softmax(cpu, scores, keys);
        let dims = Dims { m: rows, k: keys, n: value_depth };
        times_packed(cpu, dims, Strided::rows(scores, keys), packed_values, out.from(first, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::broadcast::binary;
    use crate::float::product::matmul;
    use crate::float::testing::{at_every_level, noise, same_bits};

    /// The head as a graph of single operations, with the whole mask.
    fn composed(cpu: Cpu, head: &Attention, mask: Option<&[f32]>) -> Vec<f32> {
        let Attention { queries, keys, depth, value_depth, q, k, v, scale, .. } = *head;
        let scratch = &mut Vec::new();
        let mut scores = vec![0.0; queries * keys];
        let dims = Dims { m: queries, k: depth, n: keys };
        let to = StridedMut::rows(&mut scores, keys);
        matmul(cpu, dims, q, k.transposed(), to, scratch);
        let mut scaled = scores.clone();
        binary(cpu, Binary::Mul, &scores, &[scale], &mut scaled);
        if let Some(mask) = mask {
            binary(cpu, Binary::Add, &scaled.clone(), mask, &mut scaled);
        }
        softmax(cpu, &mut scaled, keys);
        let mut out = vec![0.0; queries * value_depth];
        let shares = Strided::rows(&scaled, keys);
        let dims = Dims { m: queries, k: keys, n: value_depth };
        matmul(cpu, dims, shares, v, StridedMut::rows(&mut out, value_depth), scratch);
        out
    }

    fn naive(head: &Attention, mask: &[f32]) -> Vec<f64> {
        let at = |x: Strided, i, j| f64::from(x.values[x.start + i * x.row + j * x.col]);
        let mut out = Vec::new();
        for i in 0..head.queries {
            let powers: Vec<f64> = (0..head.keys)
                .map(|j| {
                    let dot: f64 =
                        (0..head.depth).map(|p| at(head.q, i, p) * at(head.k, j, p)).sum();
                    (dot * f64::from(head.scale) + f64::from(mask[i * head.keys + j])).exp()
                })
                .collect();
            let total: f64 = powers.iter().sum();
            out.extend((0..head.value_depth).map(|c| {
                powers.iter().enumerate().map(|(j, p)| p * at(head.v, j, c)).sum::<f64>() / total
            }));
        }
        out
    }

    #[test]
    fn heads_are_the_graph_of_their_parts_at_every_level() {
        let sizes =
            [(1, 1, 1, 1), (3, 17, 15, 33), (25, 33, 16, 7), (49, 130, 32, 32), (0, 5, 3, 2)];
        for (queries, keys, depth, value_depth) in sizes {
            // The heads lie side by side in one matrix, as projections leave them.
            let pitch = 3 * depth.max(value_depth) + 2;
            let values = noise(queries.max(keys) * pitch, 1);
            let full = noise(queries * keys, 2);
            let all = Strided::rows(&values, pitch);
            for (mask, whole) in [
                (Mask::None, None),
                (Mask::Row(&full[..keys.min(full.len())]), Some(&full[..keys.min(full.len())])),
                (Mask::Full(&full, keys), Some(&full[..])),
            ] {
                let head = Attention {
                    queries,
                    keys,
                    depth,
                    value_depth,
                    q: all.from(0, 1),
                    k: all.from(0, depth),
                    v: all.from(0, pitch - value_depth),
                    scale: 0.3,
                    mask,
                };
                let (start, out_pitch) = (2, value_depth + 1);
                let got = at_every_level(|cpu| {
                    let mut out = vec![7.0; start + queries * out_pitch];
                    let to = StridedMut { values: &mut out, start, row: out_pitch };
                    attend(cpu, &head, to, &mut Vec::new());
                    let rows = out[start..].chunks(out_pitch);
                    rows.flat_map(|row| row[..value_depth].to_vec()).collect()
                });
                assert!(same_bits(&got, &composed(Cpu::SCALAR, &head, whole)));
                let mask = whole.unwrap_or(&[0.0]);
                let mask: Vec<f32> = mask.iter().copied().cycle().take(queries * keys).collect();
                for (got, wanted) in got.iter().zip(naive(&head, &mask)) {
                    assert!((f64::from(*got) - wanted).abs() < 1e-5, "{got} {wanted}");
                }
            }
        }
    }

    #[test]
    fn turned_queries_are_straightened() {
        let values = noise(600, 3);
        let rows = Strided::rows(&values, 10);
        let turned = Strided { row: 1, col: 30, ..rows };
        let head = Attention {
            queries: 30,
            keys: 9,
            depth: 10,
            value_depth: 5,
            q: turned,
            k: turned,
            v: rows,
            scale: 1.0,
            mask: Mask::None,
        };
        let got = at_every_level(|cpu| {
            let mut out = vec![0.0; 150];
            attend(cpu, &head, StridedMut::rows(&mut out, 5), &mut Vec::new());
            out
        });
        assert!(same_bits(&got, &composed(Cpu::SCALAR, &head, None)));
    }
}
