//! What methods propose that leave the outputs of the float model as they are.

use std::collections::HashMap;

use fewbits_onnx::graph::Index;
use fewbits_quant::{Scheme, is_below_scales, symmetric_max};

use super::{Activations, Planner};
use crate::Result;
use crate::calibrate::Channels;
use crate::methods::{
    Allowance, Methods, PerOutput, Proposal, WeightSteps, Without, awq, equalization, smoothquant,
};
use crate::plan::{ActivationScheme, Edit, GranularityKind, Method, WeightScheme};
use crate::progress::Progress;

/// Whether so few bits are left that what rounding does is worth a search. One bit is a sign.
pub(super) fn is_narrow(scheme: Scheme) -> bool {
    match scheme {
        Scheme::Affine { bits, .. } | Scheme::Symmetric { bits, .. } => {
            (2..8).contains(&bits.get())
        }
        Scheme::FixedPoint { .. }
        | Scheme::Float { .. }
        | Scheme::Mx { .. }
        | Scheme::NvFp4 { .. } => false,
    }
}

impl Planner<'_> {
    /// What a method would do that leaves the outputs as they are: AWQ where activations stay float,
    /// the others where they become integers.
    /// Nothing where a weight could not be quantized any more afterwards.
    pub(super) fn propose(
        &self,
        method: Method,
        channels: &Channels,
        without: Without,
        progress: &dyn Progress,
    ) -> Result<Proposal> {
        let proposal = self.proposed(method, channels, without)?;
        if let Some(why) = self.spoiled_by(&proposal)? {
            progress.warn(&format!("{method} is left out: {why}"));
            return Ok(Proposal::default());
        }
        Ok(proposal)
    }

    /// Which weight a proposal makes one that cannot be quantized, and why.
    fn spoiled_by(&self, proposal: &Proposal) -> Result<Option<String>> {
        if proposal.edits.is_empty() {
            return Ok(None);
        }
        let adjusted = self.adjusted(&proposal.edits)?;
        let graph = adjusted.graph();
        let index = Index::new(graph);
        for adjustment in &proposal.edits {
            let Edit::Multiply { tensor: name, .. } = &adjustment.edit else { continue };
            let Some(tensor) = index.initializer(name) else { continue };
            let values = adjusted.floats_released(tensor)?;
            if let Some(element) = values.iter().position(|value| !value.is_finite()) {
                return Ok(Some(format!("element {element} of '{name}' would be infinite")));
            }
            let planned = self.weights.quantized().any(|(planned, _)| planned.tensor == *name);
            let magnitude = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            if planned && is_below_scales((-magnitude, magnitude)) {
                return Ok(Some(format!("'{name}' would be so small that no scale holds it")));
            }
        }
        Ok(None)
    }

    fn proposed(&self, method: Method, channels: &Channels, without: Without) -> Result<Proposal> {
        // Digits after the point are those of the weights as they are.
        let Some(bits) = self.request.weights.bits() else { return Ok(Proposal::default()) };
        let levels = match self.request.activations {
            Activations::Float if method == Method::Awq => return self.propose_awq(without),
            Activations::Float => return Ok(Proposal::default()),
            Activations::Dynamic => ActivationScheme::UNSIGNED.levels(),
            Activations::Static { bits, .. } => self.activation_scheme(bits).levels(),
        };
        let steps = WeightSteps {
            // One bit: the mean magnitude with a sign. Half the widest weight is taken for it, so
            // that the integers lie as far apart as the widest weight is from zero.
            steps: f32::from(symmetric_max(bits)),
            per_output: match self.request.weights.granularity() {
                GranularityKind::Tensor => PerOutput::Shared,
                _ => PerOutput::Own,
            },
        };
        let products = self.weights.products(self.model);
        match method {
            Method::Equalization => {
                equalization::equalize(self.model, &products, channels, levels, steps)
            }
            Method::SmoothQuant => {
                let graph = self.model.graph();
                let index = Index::new(graph);
                let pairs = equalization::pairs(graph, &index, &products);
                let equalized = pairs.iter().map(|p| p.value.as_str()).collect();
                smoothquant::smooth(
                    self.model,
                    &products,
                    channels,
                    &equalized,
                    levels,
                    steps,
                    &self.allowance(without),
                )
            }
            Method::Awq | Method::BiasCorrection => Ok(Proposal::default()),
        }
    }

    /// What a method may add.
    pub(super) fn allowance(&self, without: Without) -> Allowance<'_> {
        let activations = self.request.activations.activation_use();
        match self.request.methods {
            Methods::Only(_) => Allowance::Any,
            Methods::Measured => Allowance::of(&self.weights, self.model, activations, without),
        }
    }

    /// At 8 bits little is lost by rounding: AWQ must be asked for.
    fn propose_awq(&self, without: Without) -> Result<Proposal> {
        let planned = self.weights.tensors.iter();
        let integers = planned.filter_map(|t| Some((t.tensor.as_str(), t.integers()?)));
        let asked = matches!(self.request.methods, Methods::Only(_));
        let integers: HashMap<&str, WeightScheme> =
            integers.filter(|(_, integers)| asked || is_narrow(integers.scheme)).collect();
        match self.learning() {
            Some(learning) if !integers.is_empty() => {
                awq::scale(self.model, &integers, learning, &self.allowance(without))
            }
            _ => Ok(Proposal::default()),
        }
    }
}
