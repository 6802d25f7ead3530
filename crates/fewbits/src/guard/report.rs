//! What the guard measured and did, in words.

use std::collections::HashSet;

use super::judge::{Judge, OutputSqnr, Reach, Verdict};
use super::{Guarded, Limits, MetricDrop, Otherwise};
use crate::metric::Metric;
use crate::plan::Plan;
use crate::{Error, Result};

/// Puts into words what was measured of the model that is written.
pub(super) fn report(
    guarded: &mut Guarded,
    plan: &Plan,
    judge: &Judge,
    verdict: &Verdict,
    limits: &Limits,
) -> Result<()> {
    if let (Some((baseline, limit)), Some(measured)) = (&judge.metric, &verdict.measured) {
        let metric = baseline.metric();
        if !Metric::allows(limit.max_drop, measured.drop) {
            let model = match limit.otherwise == Otherwise::Tell {
                true => "the model that was asked for does not keep",
                false => "no model with a layer in integers keeps",
            };
            return Err(Error::Worse {
                model,
                metric,
                before: baseline.value(),
                after: measured.metric,
                max_drop: limit.max_drop,
            });
        }
        let (before, after, drop) = (baseline.value(), measured.metric, measured.drop);
        guarded.drop = Some(MetricDrop { metric, before, after, drop });
    }
    if let Some((_, limit)) = &judge.outputs {
        let least = limit.db;
        let below = |db: &dyn Fn(&OutputSqnr) -> Option<f64>| -> Vec<String> {
            let named = verdict.outputs.iter().filter_map(|output| {
                let db = db(output).filter(|&db| db < least)?;
                Some(format!("'{}' {db:.1} dB", output.name))
            });
            named.collect()
        };
        let measured = below(&|output| output.db);
        if !measured.is_empty() {
            guarded.warnings.push(falls_short(least, &measured, guarded, limits));
        } else if verdict.lacks(Reach::Others) > 0.0 {
            let note = not_sure(least, &below(&|output| output.sure_db), guarded);
            guarded.notes.push(note);
        }
        let outputs = verdict.outputs.iter().map(|output| (output.name.clone(), output.db));
        guarded.output_sqnr_db = Some(outputs.collect());
    }
    if !guarded.left_float.is_empty() {
        let note = left_float_note(guarded, plan);
        guarded.notes.push(note);
    }
    Ok(())
}

fn falls_short(least: f64, below: &[String], guarded: &Guarded, limits: &Limits) -> String {
    let told = limits.min_sqnr.is_some_and(|l| l.otherwise == Otherwise::Tell);
    let why = match told {
        true => "it is written as it was asked for",
        false if limits.max_drop.is_some() => "no more of it was left float",
        false => "reaching it would leave less than half of the weights in integers",
    };
    format!(
        "outputs below {least} dB on {} calibration rows: {}; {why}; compare the model with the float one, or \
         keep more bits",
        guarded.rows,
        below.join(", ")
    )
}

/// That other rows could not be made sure of: those that were measured differ too much.
fn not_sure(least: f64, below: &[String], guarded: &Guarded) -> String {
    format!(
        "every output reaches {least} dB on {} calibration rows, but these differ so much that others may have \
         less: {}; compare the model with the float one on more rows",
        guarded.rows,
        below.join(", ")
    )
}

/// What stays float and what that brought, in one line.
fn left_float_note(guarded: &Guarded, plan: &Plan) -> String {
    let weights = plan.quantized().map(|(t, _)| t.tensor.as_str()).collect::<HashSet<_>>();
    let left = |of: &dyn Fn(&str) -> bool| {
        guarded.left_float.iter().flat_map(|left| &left.tensors).filter(|name| of(name)).count()
    };
    let of_weights = left(&|name| weights.contains(name));
    let of_activations = left(&|name| !weights.contains(name));
    let reached = guarded.output_sqnr_db.iter().flatten().map(|(name, db)| match db {
        Some(db) => format!("'{name}' {db:.1} dB"),
        None => format!("'{name}' equal"),
    });
    let mut reached: Vec<String> = reached.collect();
    reached
        .extend(guarded.drop.map(|d| format!("{} {:.4} from {:.4}", d.metric, d.after, d.before)));
    format!(
        "{of_weights} weights and {of_activations} activations stay float for accuracy: {} ({} models measured)",
        reached.join(", "),
        guarded.evaluations
    )
}
