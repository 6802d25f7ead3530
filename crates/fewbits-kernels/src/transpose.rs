//! Tiles of bytes or floats change rows and columns.

/// Rows and columns of a tile.
pub(crate) const SIDE: usize = 16;

/// Row `i` becomes column `i`.
///
/// The number of an element has four bits of row and four of column. Interleaving the halves of the
/// tile turns these bits round by one, and vectors can do that; four times swaps row and column.
#[inline(always)]
pub(crate) fn transpose<T: Copy + Default>(tile: &[[T; SIDE]; SIDE]) -> [[T; SIDE]; SIDE] {
    let mut from = *tile;
    for _ in 0..4 {
        let mut to = [[T::default(); SIDE]; SIDE];
        {
            let to = to.as_flattened_mut();
            let (low, high) = from.as_flattened().split_at(SIDE * SIDE / 2);
            for i in 0..SIDE * SIDE / 2 {
                to[2 * i] = low[i];
                to[2 * i + 1] = high[i];
            }
        }
        from = to;
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let tile = std::array::from_fn(|i| std::array::from_fn(|j| (SIDE * i + j) as u8));
        let wanted = std::array::from_fn(|i| std::array::from_fn(|j| (SIDE * j + i) as u8));
        assert_eq!(transpose(&tile), wanted);
    }
}
