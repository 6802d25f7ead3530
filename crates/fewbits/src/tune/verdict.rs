//! What a search came to, in words.

use super::{Best, Request, Tuned};

/// What a reader must know.
pub(super) fn notes(tuned: &Tuned, request: &Request) -> Vec<String> {
    let mut notes = Vec::new();
    if request.data.path() == request.calibration.path() {
        notes.push(
            "the drop was measured on the data that sensitivities come from: measure it on other \
             data before you rely on it"
                .to_string(),
        );
    }
    if let Some(Best { checked, .. }) = &tuned.best
        && let Some((_, high)) = checked.drop_interval
        && high > tuned.max_drop
    {
        notes.push(format!(
            "{} rows are too few for the claim: with 95 % confidence the drop is at most {high:.4}, \
             not {}",
            tuned.rows, tuned.max_drop
        ));
    }
    let checked = tuned.best.as_ref().map(|best| &best.checked);
    notes.extend(checked.and_then(|checked| checked.worst_output.as_ref()?.note()));
    notes.extend(tuned.slower.iter().map(ToString::to_string));
    notes
}

/// All of it in one sentence.
pub(super) fn verdict(tuned: &Tuned) -> String {
    let measured = match tuned.points.len() {
        1 => "1 model measured".to_string(),
        n => format!("{n} models measured"),
    };
    let rest = if tuned.complete { "nothing left to try" } else { "stopped before the end" };
    let Some(Best { checked, .. }) = &tuned.best else {
        return format!(
            "no model with fewer bits stays within the drop of {} allowed; nothing was written; \
             {measured}, {rest}",
            tuned.max_drop
        );
    };
    let interval = match checked.drop_interval {
        Some((low, high)) => format!(" (95 % interval {low:.4} to {high:.4})"),
        None => String::new(),
    };
    let speed = tuned.float.latency_ms.map_or(String::new(), |float| {
        format!("; a call takes {:.3} ms, the float model's {float:.3} ms", checked.latency_ms)
    });
    let direction = if checked.drop >= 0.0 { "worse" } else { "better" };
    format!(
        "{} {:.4} became {:.4}, {:.4} {direction}{interval}; the file is {:.1} times smaller, its \
         weights have {:.1} bits on average{speed}; {measured}, {rest}",
        tuned.metric,
        tuned.float.metric,
        checked.metric,
        checked.drop.abs(),
        tuned.float.file_bytes as f64 / checked.file_bytes as f64,
        checked.bits,
    )
}
