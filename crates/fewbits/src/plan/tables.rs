//! Tables that rows are looked up in.
//!
//! What a look-up gives is all that a token or a position is to the model: what rounding a row loses,
//! nothing makes up for, where the errors of a product's weights even out in its sums. And a row costs
//! no time. So below 8 bits a table that only look-ups read keeps 8, unless fewer measure no worse; and
//! tables of sines and cosines, which are read by position (rotary embeddings, Vaswani et al. 2017,
//! "Attention Is All You Need", section 3.5), stay float: they are small, and all layers depend on them.

use fewbits_quant::Bits;

use super::{GranularityKind, SchemeKind, WeightOptions};

/// The width of tables.
const BITS: Bits = Bits::EIGHT;
/// How far from a wave a column of a table may be, as a part of its largest value.
const NEAR: f32 = 0.01;
/// So many rows are needed to tell a wave.
const LEAST_ROWS: usize = 8;
/// Rows that are looked at.
const MOST_ROWS: usize = 256;

/// What is asked of a table where `options` is asked of weights.
pub(super) fn options(options: &WeightOptions) -> WeightOptions {
    let of_integers = matches!(options.scheme(), SchemeKind::Affine | SchemeKind::Symmetric);
    if !of_integers || options.bits().is_none_or(|bits| bits >= BITS) {
        return *options;
    }
    // A scale a row is fine enough for so many bits.
    let granularity = match options.granularity() {
        GranularityKind::Group(_) => GranularityKind::Channel,
        other => other,
    };
    WeightOptions::new(options.scheme(), Some(BITS.into()), Some(granularity))
        .and_then(|wider| wider.with_scales(options.scales()))
        .unwrap_or(*options)
}

/// Whether every column of a table of `rows` rows is a wave that the row's number goes through: then
/// `x[p - 1] + x[p + 1] = 2 cos(w) x[p]` with one `w` for all `p`.
pub(super) fn is_of_waves(values: &[f32], rows: usize) -> bool {
    let columns = values.len() / rows.max(1);
    let looked_at = rows.min(MOST_ROWS);
    if looked_at < LEAST_ROWS || columns == 0 {
        return false;
    }
    let mut moves = false;
    (0..columns).all(|column| {
        let x: Vec<f32> = (0..looked_at).map(|row| values[row * columns + column]).collect();
        moves |= x.iter().any(|&value| value != x[0]);
        is_wave(&x)
    }) && moves
}

fn is_wave(x: &[f32]) -> bool {
    let beside = |p: usize| f64::from(x[p - 1]) + f64::from(x[p + 1]);
    let inner = 1..x.len() - 1;
    let power: f64 = inner.clone().map(|p| f64::from(x[p]).powi(2)).sum();
    let both: f64 = inner.clone().map(|p| f64::from(x[p]) * beside(p)).sum();
    let twice_cosine = if power > 0.0 { (both / power).clamp(-2.0, 2.0) } else { 0.0 };
    let largest = x.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let near = f64::from(NEAR * largest);
    inner.into_iter().all(|p| (beside(p) - twice_cosine * f64::from(x[p])).abs() <= near)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Width;

    /// A table of `rows` rows of 16 columns.
    fn table(rows: usize, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        (0..rows * 16).map(|i| value(i / 16, i % 16)).collect()
    }

    fn angle(row: usize, column: usize) -> f32 {
        row as f32 * 10_000f32.powf(-((column / 2) as f32) / 8.0)
    }

    #[test]
    fn sines_and_cosines_are_told_from_what_was_learned() {
        let rotary = table(64, |row, column| angle(row, 2 * (column % 8)).cos());
        let positions = table(512, |row, column| match column % 2 {
            0 => angle(row, column).sin(),
            _ => angle(row, column).cos(),
        });
        let scaled = table(2048, |row, column| 0.7 * angle(row, column).sin());
        for (waves, rows) in [(rotary, 64), (positions, 512), (scaled, 2048)] {
            assert!(is_of_waves(&waves, rows), "{rows} rows");
        }
        let learned = table(91, |row, column| ((row * 131 + column * 17) % 97) as f32 / 97.0 - 0.5);
        let smooth = table(91, |row, column| {
            angle(row, column).sin() + 0.1 * ((row * 7 + column) % 5) as f32
        });
        assert!(!is_of_waves(&learned, 91) && !is_of_waves(&smooth, 91));
        // Nothing can be told from a few rows, or where nothing moves.
        assert!(!is_of_waves(&table(4, |row, column| angle(row, column).cos()), 4));
        assert!(!is_of_waves(&table(64, |_, _| 0.5), 64));
        assert!(!is_of_waves(&[], 0));
    }

    #[test]
    fn a_table_has_8_bits_where_fewer_are_asked_for() {
        let of = |scheme: &str, bits: u8, granularity: &str| {
            let granularity = Some(granularity.parse().unwrap());
            WeightOptions::new(scheme.parse().unwrap(), Width::new(bits), granularity).unwrap()
        };
        assert_eq!(options(&of("affine", 2, "group=16")), of("affine", 8, "channel"));
        assert_eq!(options(&of("symmetric", 4, "tensor")), of("symmetric", 8, "tensor"));
        for same in [of("affine", 8, "group=16"), of("fixed-point", 4, "channel")] {
            assert_eq!(options(&same), same);
        }
    }
}
