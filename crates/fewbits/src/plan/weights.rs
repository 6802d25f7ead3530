//! The recipe `weights`: every weight becomes integers, activations stay float.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use fewbits_onnx::Model;
use fewbits_onnx::qweight::QWeightWriter;
use fewbits_quant::{
    Bits, Granularity, Layout, PackedInts, Scheme, check, is_below_scales, sqnr_db,
};
use rayon::prelude::*;

use super::{Becomes, Plan, PlannedTensor, Target};
use crate::progress::Progress;
use crate::weights::{Axes, Constant, Role, constants};
use crate::{Error, Result};

/// What the user asks of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightOptions {
    /// Width of the integers; for fixed point the digits after the point.
    pub bits: Bits,
    /// The kind of scheme.
    pub scheme: SchemeKind,
    /// What shares a scale.
    pub granularity: GranularityKind,
}

impl Default for WeightOptions {
    fn default() -> Self {
        WeightOptions {
            bits: Bits::EIGHT,
            scheme: SchemeKind::Symmetric,
            granularity: GranularityKind::Channel,
        }
    }
}

/// A kind of scheme, before a tensor is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemeKind {
    /// With zero points.
    Affine,
    /// Without.
    #[default]
    Symmetric,
    /// With a scale of a power of two, as the seed's notebook does.
    FixedPoint,
}

impl FromStr for SchemeKind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "affine" => Ok(SchemeKind::Affine),
            "symmetric" => Ok(SchemeKind::Symmetric),
            "fixed-point" => Ok(SchemeKind::FixedPoint),
            _ => Err("schemes are affine, symmetric and fixed-point".into()),
        }
    }
}

/// A granularity, before a tensor and its axes are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GranularityKind {
    /// One scale a tensor.
    Tensor,
    /// One scale an output channel.
    #[default]
    Channel,
    /// One scale for every so many elements along the axis that a product sums over.
    Group(NonZeroUsize),
}

impl FromStr for GranularityKind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "tensor" => Ok(GranularityKind::Tensor),
            "channel" => Ok(GranularityKind::Channel),
            _ => text
                .strip_prefix("group=")
                .and_then(|size| size.parse().ok())
                .map(GranularityKind::Group)
                .ok_or_else(|| {
                    "granularities are tensor, channel and group=N, for example group=32".into()
                }),
        }
    }
}

impl fmt::Display for GranularityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GranularityKind::Tensor => write!(f, "tensor"),
            GranularityKind::Channel => write!(f, "channel"),
            GranularityKind::Group(size) => write!(f, "group={size}"),
        }
    }
}

impl WeightOptions {
    /// What asks for a scheme.
    pub fn of(scheme: Scheme) -> WeightOptions {
        WeightOptions {
            bits: scheme.bits(),
            scheme: match scheme {
                Scheme::Affine { .. } => SchemeKind::Affine,
                Scheme::Symmetric { .. } => SchemeKind::Symmetric,
                Scheme::FixedPoint { .. } => SchemeKind::FixedPoint,
            },
            granularity: match scheme.granularity() {
                Granularity::Tensor => GranularityKind::Tensor,
                Granularity::Channel { .. } => GranularityKind::Channel,
                Granularity::Group { size, .. } => GranularityKind::Group(size),
            },
        }
    }

    /// The scheme of a weight with these axes.
    pub(crate) fn scheme_for(&self, axes: Axes) -> Scheme {
        let granularity = match (self.granularity, axes) {
            (GranularityKind::Channel, Axes { channel: Some(axis), .. }) => {
                Granularity::Channel { axis }
            }
            (GranularityKind::Group(size), Axes { reduction: Some(axis), .. }) => {
                Granularity::Group { axis, size }
            }
            _ => Granularity::Tensor,
        };
        match self.scheme {
            SchemeKind::Affine => Scheme::Affine { bits: self.bits, granularity },
            SchemeKind::Symmetric => Scheme::Symmetric { bits: self.bits, granularity },
            SchemeKind::FixedPoint => Scheme::FixedPoint { fraction_bits: self.bits },
        }
    }
}

/// About what the operator that turns a weight's integers into floats takes in a file.
const DEQUANTIZE_BYTES: usize = 64;

/// Plans every weight of a prepared model.
pub fn plan_weights(
    model: &Model,
    options: &WeightOptions,
    target: Target,
    progress: &dyn Progress,
) -> Result<Plan> {
    let constants = constants(model.graph());
    progress.start("planning", constants.len() as u64);
    let tensors = constants
        .into_par_iter()
        .map(|constant| {
            let Decided { becomes, range, sqnr_db } = decide(model, options, target, &constant)?;
            progress.advance(1);
            let Constant { tensor, shape, read_by, .. } = constant;
            let (range_method, rounding, scale_type) = Default::default();
            Ok(PlannedTensor {
                tensor,
                shape,
                read_by,
                range,
                sqnr_db,
                range_method,
                rounding,
                scale_type,
                becomes,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    progress.finish();
    Ok(Plan::new(tensors, target))
}

/// What one tensor becomes, and what that does to it.
struct Decided {
    becomes: Becomes,
    range: Option<(f32, f32)>,
    sqnr_db: Option<f32>,
}

fn decide(
    model: &Model,
    options: &WeightOptions,
    target: Target,
    constant: &Constant,
) -> Result<Decided> {
    let float = |why: &str| {
        let becomes = Becomes::Float(why.to_string());
        Ok(Decided { becomes, range: None, sqnr_db: None })
    };
    let Constant { tensor: name, shape, .. } = constant;
    let axes = match constant.role {
        Role::Weight(axes) => axes,
        Role::Bias => {
            return float("a bias: a small part of the file; int32 beside products of integers");
        }
        Role::Other => return float("no product or convolution reads it as a weight"),
    };
    let is_table = constant.read_by.iter().any(|op| op == "Gather");
    if let Some(why) = target.why_float_tables().filter(|_| is_table) {
        return float(why);
    }
    let graph = model.graph();
    if graph.input.iter().any(|i| i.name() == *name) {
        return float("an input that the caller may replace");
    }
    let scheme = options.scheme_for(axes);
    let tensor = graph.find_initializer(name).expect("a constant is an initializer");
    let values = model.floats_released(tensor)?;
    if values.is_empty() {
        return float("it is empty");
    }
    if let Err(why) = check(&values, shape, scheme) {
        return float(&why.to_string());
    }
    let range = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    if is_below_scales(range) {
        return float("its values are so small that a scale of them would be subnormal");
    }
    if let Some(why) = QWeightWriter::obstacle(model.opset(), widest(scheme)) {
        return float(&why);
    }
    let refused = |source| Error::Quant { tensor: name.clone(), source };
    let layout = Layout::new(shape, scheme.granularity()).map_err(refused)?;
    let params_bytes = layout.params() * if options.scheme == SchemeKind::Affine { 5 } else { 4 };
    let code_bytes = (values.len() * usize::from(scheme.bits().get())).div_ceil(8);
    if code_bytes + params_bytes + DEQUANTIZE_BYTES >= tensor.stored_bytes() as usize {
        return float("too small: scales and operators would take more than integers save");
    }
    let sqnr_db = sqnr_db(&values, shape, scheme).map_err(refused)?;
    Ok(Decided { becomes: Becomes::Scheme(scheme), range: Some(range), sqnr_db })
}

/// The width that decides how integers are written; those of fixed point may be of any.
fn widest(scheme: Scheme) -> u8 {
    match scheme {
        Scheme::FixedPoint { .. } => PackedInts::MAX_WIDTH,
        scheme => scheme.bits().get(),
    }
}
