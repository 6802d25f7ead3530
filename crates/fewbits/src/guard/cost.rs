//! What each unit of a plan costs: the noise that it alone, and nothing else, brings to each output.

use fewbits_engine::RunOptions;
use fewbits_onnx::Model;

use super::unit::Unit;
use crate::adjust::adjust;
use crate::data::Dataset;
use crate::methods::bias_correction;
use crate::plan::{ActivationBecomes, Plan};
use crate::progress::Progress;
use crate::sensitivity::{Change, output_noise};
use crate::{Result, WeightLimits};

/// Noise beyond this is as bad as can be; what is infinite could not be added up.
const MOST_NOISE: f64 = 1e9;

/// The noise over the signal of each output, one entry an output.
pub(super) type Noise = Vec<f64>;

/// Measures every unit on the rows of `sample`, in the float model otherwise. Biases are not corrected there
/// but for the weight that is measured.
///
/// # Errors
/// If the model cannot be run node by node.
pub(super) fn measured(
    prepared: &Model,
    adjusted: &Model,
    plan: &Plan,
    units: &[Unit],
    sample: &Dataset,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Vec<Noise>> {
    let asked: Vec<(String, Change)> =
        units.iter().flat_map(|unit| unit.changes(adjusted, plan)).collect();
    let limits = WeightLimits::new(adjusted, plan)?;
    let mut uncorrected = prepared.clone();
    adjust(&mut uncorrected, &bias_correction::others(&plan.adjustments))?;
    let found = output_noise(&uncorrected, &asked, &limits, sample, run, progress)?;
    let outputs = adjusted.graph().output.len();
    let of_unit = |unit: &Unit| {
        let mut noise = vec![0.0f64; outputs];
        let names = unit.names();
        // Values with one scale are mostly the same values, handed on: the noise comes in once.
        for (_, of_tensor) in found.iter().filter(|(name, _)| names.contains(&name.as_str())) {
            for (noise, of_tensor) in noise.iter_mut().zip(of_tensor) {
                *noise = noise.max(if of_tensor.is_nan() { MOST_NOISE } else { *of_tensor });
            }
        }
        noise.iter().map(|noise| noise.min(MOST_NOISE)).collect()
    };
    Ok(units.iter().map(of_unit).collect())
}

/// The noise of each tensor itself, as the plan knows it, for want of what it does to the outputs.
pub(super) fn of_tensors(plan: &Plan, units: &[Unit]) -> Vec<Noise> {
    let of_unit = |unit: &Unit| {
        let db = match unit {
            Unit::Weight { tensor, .. } => {
                plan.tensors.iter().find(|t| t.tensor == *tensor).and_then(|t| t.sqnr_db)
            }
            Unit::Activations { values } => {
                let planned = plan.activations.iter().filter(|a| values.contains(&a.value));
                let db = planned.filter_map(|a| match a.becomes {
                    ActivationBecomes::Static { sqnr_db, .. } => sqnr_db,
                    _ => None,
                });
                db.min_by(f32::total_cmp)
            }
        };
        vec![db.map_or(0.0, |db| 10f64.powf(f64::from(db) / -10.0))]
    };
    units.iter().map(of_unit).collect()
}

/// The units in the order of their shares in the noise of the outputs that `count`, the largest first.
pub(super) fn order(noise: &[Noise], counts: &dyn Fn(usize) -> bool) -> Vec<usize> {
    let outputs = noise.first().map_or(0, Vec::len);
    let total = |output: usize| noise.iter().map(|noise| noise[output]).sum::<f64>();
    let weights: Vec<f64> = (0..outputs)
        .map(|output| match total(output) {
            total if total > 0.0 && counts(output) => 1.0 / total,
            _ => 0.0,
        })
        .collect();
    let share = |unit: usize| noise[unit].iter().zip(&weights).map(|(n, w)| n * w).sum::<f64>();
    let mut order: Vec<usize> = (0..noise.len()).collect();
    order.sort_by(|&a, &b| share(b).total_cmp(&share(a)).then(a.cmp(&b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outputs_that_count_give_the_order() {
        let noise = [vec![0.1, 0.3], vec![0.3, 0.0], vec![0.0, 0.1]];
        assert_eq!(order(&noise, &|output| output == 0), [1, 0, 2]);
        assert_eq!(order(&noise, &|output| output == 1), [0, 2, 1]);
        assert_eq!(order(&noise, &|_| true), [0, 1, 2]);
    }

    #[test]
    fn an_output_of_a_small_scale_counts_as_much() {
        // Shares, not sums: the noise of the first output is a thousandfold.
        let noise = [vec![100.0, 0.0], vec![60.0, 0.01], vec![0.0, 0.09]];
        assert_eq!(order(&noise, &|_| true), [2, 0, 1]);
    }
}
