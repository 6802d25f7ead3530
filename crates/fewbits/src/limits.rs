//! What the integers of a model's weights must keep to, so that runtimes compute what the file means.
//!
//! Two things come between a file and what onnxruntime makes of it on a CPU with AVX2 and no VNNI. Its
//! products of unsigned and signed bytes add pairs in 16 bits, which saturate. And its optimizer turns the
//! float bias of a product of integers into int32, which saturates where the scale of a channel's weights
//! is tiny. Both are decided by the weights' integers and scales: [`fewbits_quant::Limits`].

use std::collections::{BTreeMap, HashMap, HashSet};

use fewbits_onnx::Model;
use fewbits_onnx::facts::{OnIntegers, ProductForm, WeightLies, bias_of};
use fewbits_onnx::graph::Index;
use fewbits_onnx::passes::qdq::{ActivationParams, ActivationStorage};
use fewbits_onnx::proto::{GraphProto, NodeProto};
use fewbits_onnx::same_content;
use fewbits_quant::{Granularity, Limits, PairLimit, Scheme, SumOrder};
use rayon::prelude::*;
use serde::Serialize;

use crate::adjust::adjust;
use crate::plan::{ActivationBecomes, BiasForm, Plan, PlannedTensor, ReduceRange, Reduced};
use crate::{Error, Result};

/// The largest integer that a bias becomes: room is left for the sum of products beside it.
const LARGEST_BIAS: f64 = (1u32 << 29) as f64;

/// The limits of every weight that has some, by name.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct WeightLimits(BTreeMap<String, Limits>);

/// Those of every other weight.
static FREE: Limits = Limits { pairs: PairLimit::Free, least_scale: Vec::new() };

impl WeightLimits {
    /// The limits that the products of an adjusted model set to the weights of `plan`.
    ///
    /// # Errors
    /// If the plan names a value that the model does not have, or a bias cannot be read.
    pub fn new(model: &Model, plan: &Plan) -> Result<WeightLimits> {
        let planned: HashMap<&str, &PlannedTensor> = plan
            .tensors
            .iter()
            .filter(|t| t.becomes.scheme().is_some())
            .map(|t| (t.tensor.as_str(), t))
            .collect();
        let products = Products::new(model, plan)?;
        let mut limits = WeightLimits::default();
        for planned in planned.values().filter(|t| t.reduce_range == ReduceRange::All) {
            limits.entry(planned).pairs = PairLimit::SevenBits;
        }
        for (position, node) in model.graph().node.iter().enumerate() {
            let weight = node.input.get(1).and_then(|w| planned.get(w.as_str()));
            let (Some(&planned), Some(form)) = (weight, ProductForm::of(node)) else { continue };
            let in_16_bits = plan.target.adds_pairs_in_16_bits()
                && planned.reduce_range == ReduceRange::Auto
                && products.reads_unsigned_bytes(node, form);
            if in_16_bits {
                limits.entry(planned).add(sum_orders(form.weight, &planned.shape));
            }
            if plan.target.bias() == BiasForm::Integer {
                let least = products.least_scales(position, form, planned)?;
                if least.iter().any(|&scale| scale > 0.0) {
                    limits.entry(planned).raise(least);
                }
            }
        }
        limits.share_among_equal(model.graph(), plan);
        Ok(limits)
    }

    /// Gives weights that are equal the same limits: they stay equal, and are written once.
    fn share_among_equal(&mut self, graph: &GraphProto, plan: &Plan) {
        let index = Index::new(graph);
        let limited: Vec<(String, Limits)> =
            self.0.iter().map(|(name, limits)| (name.clone(), limits.clone())).collect();
        for (name, limits) in limited {
            let planned = plan.tensors.iter().find(|planned| planned.tensor == name);
            let (Some(planned), Some(tensor)) = (planned, index.initializer(&name)) else {
                continue;
            };
            let others = plan.tensors.iter().filter(|other| other.tensor != name);
            for other in others.filter(|other| other.becomes == planned.becomes) {
                let equal = index.initializer(&other.tensor).is_some_and(|other| {
                    other.dims == tensor.dims
                        && other.data_type == tensor.data_type
                        && same_content(other, tensor)
                });
                if equal {
                    self.entry(other).join(&limits);
                }
            }
        }
    }

    /// The limits of one weight.
    pub fn of(&self, tensor: &str) -> &Limits {
        self.0.get(tensor).unwrap_or(&FREE)
    }

    fn entry(&mut self, planned: &PlannedTensor) -> &mut Limits {
        self.0.entry(planned.tensor.clone()).or_default()
    }
}

/// Adding what one more reader asks for.
trait Extend {
    fn add(&mut self, orders: Vec<SumOrder>);
    fn raise(&mut self, least: Vec<f32>);
    fn join(&mut self, other: &Limits);
}

impl Extend for Limits {
    fn add(&mut self, orders: Vec<SumOrder>) {
        if self.pairs == PairLimit::Free {
            self.pairs = PairLimit::Sums(Vec::new());
        }
        if let PairLimit::Sums(known) = &mut self.pairs {
            for order in orders {
                if !known.contains(&order) {
                    known.push(order);
                }
            }
        }
    }

    fn raise(&mut self, least: Vec<f32>) {
        self.least_scale.resize(least.len().max(self.least_scale.len()), 0.0);
        for (known, least) in self.least_scale.iter_mut().zip(least) {
            *known = known.max(least);
        }
    }

    fn join(&mut self, other: &Limits) {
        match &other.pairs {
            PairLimit::Free => {}
            PairLimit::Sums(orders) => self.add(orders.clone()),
            PairLimit::SevenBits => self.pairs = PairLimit::SevenBits,
        }
        self.raise(other.least_scale.clone());
    }
}

/// The orders in which kernels go through the sum of a product with a weight of this shape.
///
/// onnxruntime computes convolutions with channels first or last. Of an odd number of channels other
/// libraries pad those of each tap, so that its last one stands alone.
fn sum_orders(lies: WeightLies, shape: &[usize]) -> Vec<SumOrder> {
    let rank = shape.len();
    match lies {
        WeightLies::Convolution if rank > 2 => {
            let taps: Vec<usize> = (2..rank).collect();
            let channels_first = SumOrder::new([vec![1], taps.clone()].concat());
            let channels_last = SumOrder::new([taps, vec![1]].concat());
            let is_padded = shape[1] > 1 && !shape[1].is_multiple_of(2);
            let padded = is_padded.then(|| SumOrder::new(vec![1]));
            [channels_first, channels_last].into_iter().chain(padded).collect()
        }
        _ => vec![SumOrder::new(vec![lies.axes(rank).reduction.unwrap_or(0)])],
    }
}

/// What a plan makes of the inputs of products.
struct Products<'a> {
    graph: &'a GraphProto,
    index: Index<'a>,
    fixed: HashMap<String, ActivationParams>,
    dynamic: HashSet<&'a str>,
}

impl<'a> Products<'a> {
    fn new(model: &'a Model, plan: &'a Plan) -> Result<Products<'a>> {
        let dynamic = plan.activations.iter().filter(|a| a.becomes == ActivationBecomes::Dynamic);
        Ok(Products {
            graph: model.graph(),
            index: Index::new(model.graph()),
            fixed: plan.activation_params()?,
            dynamic: dynamic.map(|a| a.value.as_str()).collect(),
        })
    }

    /// Whether a kernel multiplies the weight of `node` by unsigned bytes, of which all 8 bits are used.
    fn reads_unsigned_bytes(&self, node: &NodeProto, form: ProductForm) -> bool {
        if form.on_integers == OnIntegers::Never {
            return false;
        }
        let value = node.input[0].as_str();
        let fixed = self.fixed.get(value).is_some_and(|params| {
            params.storage == ActivationStorage::Unsigned && params.bits == 8
        });
        let is_dynamic = self.dynamic.contains(value) && !form.weight.is_convolution();
        fixed || (is_dynamic && form.on_integers == OnIntegers::Yes)
    }

    /// The least scales of the weight of the product at a position with which its bias fits int32; none
    /// where it has no bias that a runtime makes an integer.
    fn least_scales(
        &self,
        product: usize,
        form: ProductForm,
        planned: &PlannedTensor,
    ) -> Result<Vec<f32>> {
        let nodes = &self.graph.node;
        let Some(params) = self.fixed.get(&nodes[product].input[0]) else { return Ok(Vec::new()) };
        let bias = bias_of(self.graph, &self.index, product)
            .and_then(|(reader, place)| self.index.initializer(&nodes[reader].input[place]));
        let Some(bias) = bias else { return Ok(Vec::new()) };
        let least = |bias: f32| match bias.is_finite() {
            true => (f64::from(bias.abs()) / f64::from(params.scale) / LARGEST_BIAS) as f32,
            false => 0.0,
        };
        let least: Vec<f32> = bias.floats()?.into_iter().map(least).collect();
        let channels = match form.weight {
            // Groups share those of its axis.
            WeightLies::TransposedConvolution => None,
            lies => lies.axes(planned.shape.len()).channel,
        };
        Ok(match planned.becomes.scheme().map(Scheme::granularity) {
            Some(Granularity::Tensor) => vec![least.into_iter().fold(0.0, f32::max)],
            Some(Granularity::Channel { axis })
                if Some(axis) == channels && least.len() == planned.shape[axis] =>
            {
                least
            }
            _ => Vec::new(),
        })
    }
}

/// The channels of a prepared model's weights that use fewer integers than they could, and why.
///
/// # Errors
/// If the plan does not fit the model.
pub fn reduced(prepared: &Model, plan: &Plan) -> Result<Vec<Reduced>> {
    let mut model = prepared.clone();
    adjust(&mut model, &plan.adjustments)?;
    let limits = WeightLimits::new(&model, plan)?;
    let limited: Vec<&PlannedTensor> =
        plan.tensors.iter().filter(|t| limits.0.contains_key(&t.tensor)).collect();
    let found = limited.into_par_iter().map(|planned| of_one(&model, planned, &limits));
    Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn of_one(
    model: &Model,
    planned: &PlannedTensor,
    limits: &WeightLimits,
) -> Result<Option<Reduced>> {
    let (Some(integers), Some(tensor)) =
        (planned.integers(), model.graph().find_initializer(&planned.tensor))
    else {
        return Ok(None);
    };
    let shape = tensor.shape()?;
    if shape != planned.shape {
        return Ok(None);
    }
    let free = integers
        .quantize(&model.floats_released(tensor)?, &shape, None, &FREE)
        .map_err(|source| Error::Quant { tensor: planned.tensor.clone(), source })?;
    let limits = limits.of(&planned.tensor);
    let pairs = Limits { pairs: limits.pairs.clone(), ..FREE.clone() };
    let bias = Limits { least_scale: limits.least_scale.clone(), ..FREE.clone() };
    let wide = match limits.pairs {
        PairLimit::SevenBits => "7 bits are asked for",
        PairLimit::Free | PairLimit::Sums(_) => "pairs of products could saturate 16 bits",
    };
    let mut channels = Vec::new();
    let mut why: Vec<&str> = Vec::new();
    for (limits, because) in [(pairs, wide), (bias, "a bias would not fit int32")] {
        let broken = limits.broken(&free);
        if !broken.is_empty() {
            channels.extend(broken);
            why.push(because);
        }
    }
    channels.sort_unstable();
    channels.dedup();
    let why = why.join("; ");
    let tensor = planned.tensor.clone();
    Ok((!channels.is_empty()).then_some(Reduced { tensor, channels, why }))
}
