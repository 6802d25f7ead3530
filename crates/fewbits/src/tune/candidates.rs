//! What every weight may become.

use std::num::NonZeroUsize;

use fewbits_onnx::Model;
use fewbits_quant::{Bits, QTensor, Rounding, WeightRange};
use rayon::prelude::*;

use crate::layers::{Axes, constants};
use crate::plan::{
    ActivationUse, Alone, GranularityKind, Plan, SchemeKind, WeightOptions, WeightScheme,
};
use crate::progress::Progress;
use crate::sensitivity::Candidate;
use crate::{Error, Result, WeightLimits};

/// Widths that are tried, from the widest.
const WIDTHS: [u8; 7] = [8, 7, 6, 5, 4, 3, 2];
/// Groups are tried for integers of at most so many bits: above, a scale a channel is enough.
const WIDEST_IN_GROUPS: u8 = 4;
/// Elements of a group.
const GROUP_SIZES: [usize; 3] = [64, 32, 16];

/// A weight and what it may become.
pub struct Candidates {
    /// The weight's position in the plan.
    pub position: usize,
    /// What it may become, from the most bytes to the fewest.
    pub options: Vec<Candidate>,
    /// Its bytes in the file as a float.
    pub float_bytes: u64,
}

/// The candidates of every weight that `plan` quantizes: of all those that the target and the
/// activations allow the ones for which none with fewer bytes has less noise.
///
/// # Errors
/// If a weight cannot be read.
pub fn candidates(
    model: &Model,
    plan: &Plan,
    activations: ActivationUse,
    limits: &WeightLimits,
    progress: &dyn Progress,
) -> Result<Vec<Candidates>> {
    let constants = constants(model.graph());
    let axes = |tensor: &str| {
        let constant = constants.iter().find(|c| c.tensor == tensor)?;
        activations.axes_of(constant)
    };
    let weights: Vec<(usize, &str, Axes)> = plan
        .tensors
        .iter()
        .enumerate()
        .filter(|(_, t)| t.becomes.scheme().is_some())
        .filter_map(|(i, t)| Some((i, t.tensor.as_str(), axes(&t.tensor)?)))
        .collect();
    progress.start("listing candidates", weights.len() as u64);
    let found = weights
        .into_par_iter()
        .map(|(position, tensor, axes)| {
            let found = of_one(model, plan, activations, limits, tensor, axes)?;
            progress.advance(1);
            Ok(Candidates { position, ..found })
        })
        .filter(|found| found.as_ref().map_or(true, |found| !found.options.is_empty()))
        .collect();
    progress.finish();
    found
}

fn of_one(
    model: &Model,
    plan: &Plan,
    activations: ActivationUse,
    limits: &WeightLimits,
    name: &str,
    axes: Axes,
) -> Result<Candidates> {
    let graph = model.graph();
    let weight = graph.find_initializer(name).ok_or_else(|| Error::PlanMismatch {
        reason: format!("the model has no constant tensor '{name}'"),
    })?;
    let (shape, values) = (weight.shape()?, model.floats_released(weight)?);
    let alone = Alone::new(model, weight);
    let float_bytes = alone.float_bytes();
    let longest = axes.reduction.and_then(|axis| shape.get(axis)).copied().unwrap_or(0);
    let mut options: Vec<(WeightScheme, u64, f64)> = Vec::new();
    for weights in possible(longest, activations) {
        if plan.target.obstacle(&weights, activations).is_some() {
            continue;
        }
        let scheme = weights.scheme_for(axes, shape.len());
        // Where the step is small, ranges and rounding need no search and scales are worth their bytes.
        let (range_method, rounding, scale_type) = match weights.width().get() {
            8 => Default::default(),
            _ => (WeightRange::Mse, Rounding::Gptq, plan.target.narrow_scales(activations)),
        };
        let becomes = WeightScheme { scheme, range_method, rounding, scale_type };
        if options.iter().any(|(known, ..)| *known == becomes) {
            continue;
        }
        let quantized = becomes
            .quantize(&values, &shape, None, limits.of(name))
            .map_err(|source| Error::Quant { tensor: name.to_string(), source })?;
        let noise = noise(&values, &quantized);
        let bytes = alone.bytes_as(quantized, plan.target.weights(activations))?;
        options.push((becomes, bytes, noise));
    }
    // From the fewest bytes on, what lowers the noise.
    options.sort_by(|a, b| a.1.cmp(&b.1).then(a.2.total_cmp(&b.2)));
    let mut least = f64::INFINITY;
    options.retain(|&(_, bytes, noise)| {
        let better = noise < least && bytes < float_bytes;
        least = least.min(noise);
        better
    });
    let candidate =
        |(becomes, bytes, _)| Candidate { becomes, file_bytes_saved: float_bytes - bytes };
    let options = options.into_iter().rev().map(candidate).collect();
    Ok(Candidates { position: 0, options, float_bytes })
}

/// All kinds of integers for a weight whose products sum over `longest` elements.
fn possible(longest: usize, activations: ActivationUse) -> Vec<WeightOptions> {
    let mut possible = Vec::new();
    for bits in WIDTHS.iter().filter_map(|&bits| Bits::new(bits)) {
        let mut add = |scheme, granularity| {
            possible.extend(WeightOptions::new(scheme, Some(bits.into()), Some(granularity)));
        };
        add(SchemeKind::Symmetric, GranularityKind::Channel);
        // Products of integers have a scale a channel and no zero points in their weights.
        if activations != ActivationUse::Float {
            continue;
        }
        if bits.get() <= WIDEST_IN_GROUPS {
            add(SchemeKind::Affine, GranularityKind::Channel);
            for size in GROUP_SIZES.into_iter().filter(|&size| size < longest) {
                let size = NonZeroUsize::new(size).expect("groups are not empty");
                add(SchemeKind::Symmetric, GranularityKind::Group(size));
                add(SchemeKind::Affine, GranularityKind::Group(size));
            }
        }
    }
    possible
}

/// The sum of the squares of what rounding changed.
fn noise(values: &[f32], quantized: &QTensor) -> f64 {
    let error = |(x, q): (&f32, f32)| f64::from(x - q) * f64::from(x - q);
    values.iter().zip(quantized.dequantize()).map(error).sum()
}
