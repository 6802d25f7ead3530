//! Positions that only fill up a batch of sequences.
//!
//! What a transformer computes there is seen by nobody: attention leaves it out, and so must
//! whoever measures ranges or errors.

use std::ops::Range;

use fewbits_engine::{Tensor, Values};

/// The names under which models take a mask that is 1 where a token is and 0 where none is.
pub(crate) const MASK_NAMES: [&str; 2] = ["attention_mask", "input_mask"];

/// The positions of a batch that hold tokens, where some do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    rows: usize,
    length: usize,
    /// Runs of positions, counted through all rows.
    runs: Vec<Range<usize>>,
}

impl Tokens {
    /// Reads the mask among the inputs of a call; `None` if there is none or it leaves nothing out.
    pub fn of(inputs: &[(String, Tensor)]) -> Option<Tokens> {
        let (_, mask) = inputs.iter().find(|(name, _)| MASK_NAMES.contains(&name.as_str()))?;
        let [rows, length] = *mask.shape() else { return None };
        let mask = mask.to_f64()?;
        if !mask.iter().all(|&m| m == 0.0 || m == 1.0) || !mask.contains(&0.0) {
            return None;
        }
        let mut runs: Vec<Range<usize>> = Vec::new();
        for position in (0..mask.len()).filter(|&i| mask[i] == 1.0) {
            match runs.last_mut() {
                Some(run) if run.end == position => run.end += 1,
                _ => runs.push(position..position + 1),
            }
        }
        Some(Tokens { rows, length, runs })
    }

    /// The elements of a tensor of `shape` that belong to tokens; `None` where the tensor is not one
    /// of positions, `[rows, length, ..]` or `[rows * length, ..]`.
    fn elements(&self, shape: &[usize]) -> Option<Vec<Range<usize>>> {
        // Four axes are those of attention heads, whose second is not the length.
        let inner: usize = match *shape {
            [rows, length] | [rows, length, _] if (rows, length) == (self.rows, self.length) => {
                shape[2..].iter().product()
            }
            [positions] | [positions, _] if positions == self.rows * self.length => {
                shape[1..].iter().product()
            }
            _ => return None,
        };
        Some(self.runs.iter().map(|run| run.start * inner..run.end * inner).collect())
    }

    /// Of every tensor the elements that belong to tokens, one after the other; tensors that are
    /// not FLOAT as they are.
    pub fn only(&self, tensors: &[Tensor]) -> Vec<Tensor> {
        let only = |tensor: &Tensor| {
            let Values::F32(values) = tensor.values() else { return tensor.clone() };
            let Some(parts) = self.elements(tensor.shape()) else { return tensor.clone() };
            let kept: Vec<f32> =
                parts.into_iter().flat_map(|part| values[part].iter().copied()).collect();
            Tensor::new(vec![kept.len()], kept).expect("the length is that of the values")
        };
        tensors.iter().map(only).collect()
    }
}

/// Calls `visit` with the shape and the values of each part of a tensor that belongs to tokens, in
/// order; with the whole where nothing is known to be padding.
pub fn for_each_part<E>(
    tokens: Option<&Tokens>,
    shape: &[usize],
    values: &[f32],
    mut visit: impl FnMut(&[usize], &[f32]) -> Result<(), E>,
) -> Result<(), E> {
    let Some(parts) = tokens.and_then(|t| t.elements(shape)) else { return visit(shape, values) };
    let positions: usize = tokens.map_or(0, |t| t.rows * t.length);
    let inner = values.len() / positions.max(1);
    for part in parts {
        visit(&[part.len() / inner.max(1), inner], &values[part])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let mask = Tensor::new(vec![2, 3], vec![1i64, 1, 0, 1, 0, 0]).unwrap();
        Tokens::of(&[("attention_mask".to_string(), mask)]).unwrap()
    }

    fn floats(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::new(shape.to_vec(), (0..count).map(|i| i as f32).collect::<Vec<f32>>()).unwrap()
    }

    fn kept(shape: &[usize]) -> Vec<f32> {
        let stripped = tokens().only(&[floats(shape)]);
        let Values::F32(values) = stripped[0].values() else { unreachable!() };
        let mut visited = Vec::new();
        let all = floats(shape);
        let Values::F32(of_all) = all.values() else { unreachable!() };
        let visit = |_: &[usize], part: &[f32]| {
            visited.extend_from_slice(part);
            Ok::<_, ()>(())
        };
        for_each_part(Some(&tokens()), shape, of_all, visit).unwrap();
        assert_eq!(&visited, values);
        visited
    }

    #[test]
    fn padding_is_left_out_of_tensors_of_positions() {
        assert_eq!(kept(&[2, 3]), [0.0, 1.0, 3.0]);
        assert_eq!(kept(&[2, 3, 2]), [0.0, 1.0, 2.0, 3.0, 6.0, 7.0]);
        assert_eq!(kept(&[6, 2]), kept(&[2, 3, 2]));
        assert_eq!(kept(&[2, 4]).len(), 8);
        assert_eq!(kept(&[2, 3, 2, 2]).len(), 24);
    }

    #[test]
    fn a_mask_must_be_one() {
        let with = |name: &str, values: Vec<i64>| {
            Tokens::of(&[(name.to_string(), Tensor::new(vec![1, 2], values).unwrap())])
        };
        assert!(with("attention_mask", vec![1, 0]).is_some());
        assert_eq!(with("attention_mask", vec![1, 1]), None);
        assert_eq!(with("attention_mask", vec![5, 0]), None);
        assert_eq!(with("input_ids", vec![1, 0]), None);
    }
}
