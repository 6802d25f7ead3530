//! How much each tensor costs alone.

use super::WIDTH;
use super::svg::Svg;
use crate::report::format;
use crate::report::{Report, Sensitivity};

/// The heights of a tensor's name, of a bar and the words above it, and of the space behind.
const NAME: f64 = 19.0;
const BAR: f64 = 8.0;
const BAR_WORDS: f64 = 16.0;
const GAP: f64 = 6.0;
const SPACE: f64 = 9.0;
/// So many bars are drawn, the largest first; all are in the table.
const MOST_BARS: usize = 16;
/// Letters of a name that fit.
const NAME_LETTERS: usize = 54;
/// The longest bar, which leaves room for its number.
const LONGEST: f64 = WIDTH - 58.0;

/// The tensors that cost most alone, worst first, one bar a scheme. `None` where nothing is known.
pub(in crate::report) fn sensitivity_bars(report: &Report) -> Option<String> {
    let tensors = worst_first(&report.sensitivity);
    if tensors.is_empty() {
        return None;
    }
    let one_scheme = report.sensitivity.iter().all(|s| s.scheme == report.sensitivity[0].scheme);
    let height_of = |bars: usize| {
        let words = if one_scheme { 0.0 } else { BAR_WORDS };
        NAME + bars as f64 * (words + BAR + GAP) + SPACE
    };
    let finite = tensors.iter().flatten().map(|s| s.relative_error).filter(|e| e.is_finite());
    let longest = finite.fold(0.0, f64::max);
    let length = |error: f64| match error.is_finite() {
        true if longest > 0.0 => LONGEST * error.max(0.0) / longest,
        true => 0.0,
        // As bad as can be.
        false => LONGEST,
    };

    let height = tensors.iter().map(|t| height_of(t.len())).sum();
    let title = "Error of the outputs when one tensor alone is quantized";
    let mut svg = Svg::new(WIDTH, height, title, &in_words(report, &tensors));
    let mut top = 0.0;
    for schemes in &tensors {
        let name = format::shortened(&schemes[0].tensor, NAME_LETTERS);
        svg.text("label", (0.0, top + 12.0), &name);
        let mut y = top + NAME;
        for s in schemes {
            if !one_scheme {
                svg.text("mark", (0.0, y + 9.0), &format::shortened(&s.scheme, NAME_LETTERS));
                y += BAR_WORDS;
            }
            svg.rect("track", (0.0, y), LONGEST, BAR);
            svg.text("label end", (WIDTH, y + BAR), &format::percent(s.relative_error));
            svg.rect("bar", (0.0, y), length(s.relative_error), BAR);
            y += BAR + GAP;
        }
        top += height_of(schemes.len());
    }
    Some(svg.finish())
}

/// The sensitivities tensor by tensor, those first that cost most, as many as are drawn.
fn worst_first(all: &[Sensitivity]) -> Vec<Vec<&Sensitivity>> {
    // What is not a number is worst.
    let badness = |s: &Sensitivity| {
        if s.relative_error.is_nan() { f64::INFINITY } else { s.relative_error }
    };
    let mut sorted: Vec<&Sensitivity> = all.iter().collect();
    sorted.sort_by(|a, b| badness(b).total_cmp(&badness(a)));
    let mut tensors: Vec<Vec<&Sensitivity>> = Vec::new();
    for s in sorted.into_iter().take(MOST_BARS) {
        match tensors.iter_mut().find(|t| t[0].tensor == s.tensor) {
            Some(tensor) => tensor.push(s),
            None => tensors.push(vec![s]),
        }
    }
    tensors
}

fn in_words(report: &Report, tensors: &[Vec<&Sensitivity>]) -> String {
    let drawn = tensors.iter().map(Vec::len).sum::<usize>();
    let mut words: Vec<String> = tensors
        .iter()
        .flatten()
        .map(|s| format!("{} as {}: {}", s.tensor, s.scheme, format::percent(s.relative_error)))
        .collect();
    if report.sensitivity.len() > drawn {
        words.push(format!("and {} smaller ones, in the table", report.sensitivity.len() - drawn));
    }
    format!("{}.", words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(tensor: &str, scheme: &str, relative_error: f64) -> Sensitivity {
        let (tensor, scheme) = (tensor.to_string(), scheme.to_string());
        Sensitivity { tensor, scheme, file_bytes_saved: 1, relative_error, drop: None }
    }

    #[test]
    fn what_costs_most_comes_first_beside_the_same_tensor() {
        let all = [costs("a", "2", 0.1), costs("b", "2", f64::NAN), costs("a", "4", 0.01)];
        let names: Vec<Vec<&str>> = worst_first(&all)
            .iter()
            .map(|t| t.iter().map(|s| s.tensor.as_str()).collect())
            .collect();
        assert_eq!(names, [vec!["b"], vec!["a", "a"]]);
    }
}
