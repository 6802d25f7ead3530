//! The recipe `weights`: every weight becomes integers or small floats, activations stay float.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use fewbits_onnx::Model;
use fewbits_onnx::qweight::QWeightWriter;
use fewbits_quant::{
    Bits, FloatFormat, Granularity, Layout, MX_BLOCK, NV_BLOCK, PackedInts, ScaleType, Scheme,
    check, is_below_scales, sqnr_db,
};
use rayon::prelude::*;

use super::{ActivationUse, Becomes, Plan, PlannedTensor, Target};
use crate::progress::Progress;
use crate::weights::{Axes, Constant, Role, constants};
use crate::{Error, Result};

/// What the user asks of weights: a scheme with a width and a granularity that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightOptions {
    bits: Bits,
    scheme: SchemeKind,
    granularity: GranularityKind,
    scales: ScaleType,
}

impl Default for WeightOptions {
    fn default() -> Self {
        WeightOptions {
            bits: Bits::EIGHT,
            scheme: SchemeKind::default(),
            granularity: GranularityKind::default(),
            scales: ScaleType::default(),
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
    /// Small floats.
    Float(FloatFormat),
    /// Small floats in the blocks of the OCP Microscaling formats.
    Mx(FloatFormat),
    /// E2M1 floats in the blocks of NVFP4.
    NvFp4,
}

impl SchemeKind {
    const ALL: [SchemeKind; 10] = [
        SchemeKind::Affine,
        SchemeKind::Symmetric,
        SchemeKind::FixedPoint,
        SchemeKind::Float(FloatFormat::E4m3),
        SchemeKind::Float(FloatFormat::E5m2),
        SchemeKind::Float(FloatFormat::E2m1),
        SchemeKind::Mx(FloatFormat::E4m3),
        SchemeKind::Mx(FloatFormat::E5m2),
        SchemeKind::Mx(FloatFormat::E2m1),
        SchemeKind::NvFp4,
    ];

    /// The small floats that elements become; `None` where they become integers.
    pub fn float_format(self) -> Option<FloatFormat> {
        match self {
            SchemeKind::Affine | SchemeKind::Symmetric | SchemeKind::FixedPoint => None,
            SchemeKind::Float(format) | SchemeKind::Mx(format) => Some(format),
            SchemeKind::NvFp4 => Some(FloatFormat::E2m1),
        }
    }

    /// Elements of a block, where the scheme says how many.
    fn block(self) -> Option<usize> {
        match self {
            SchemeKind::Mx(_) => Some(MX_BLOCK),
            SchemeKind::NvFp4 => Some(NV_BLOCK),
            _ => None,
        }
    }
}

impl fmt::Display for SchemeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemeKind::Affine => f.write_str("affine"),
            SchemeKind::Symmetric => f.write_str("symmetric"),
            SchemeKind::FixedPoint => f.write_str("fixed-point"),
            SchemeKind::Float(format) => format.fmt(f),
            SchemeKind::Mx(format) => f.write_str(format.mx_name()),
            SchemeKind::NvFp4 => f.write_str("nvfp4"),
        }
    }
}

impl FromStr for SchemeKind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = SchemeKind::ALL.into_iter().find(|kind| kind.to_string() == text);
        found.ok_or_else(|| {
            format!("schemes are {}", SchemeKind::ALL.map(|kind| kind.to_string()).join(", "))
        })
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
    /// A scheme, with 8 bits and a scale a channel where nothing else is asked for and the scheme
    /// leaves the choice.
    ///
    /// # Errors
    /// If the scheme has another width, or blocks of its own.
    pub fn new(
        scheme: SchemeKind,
        bits: Option<Bits>,
        granularity: Option<GranularityKind>,
    ) -> std::result::Result<WeightOptions, String> {
        let own_bits = scheme.float_format().map(FloatFormat::bits);
        if let (Some(own), Some(asked)) = (own_bits, bits)
            && own != asked
        {
            return Err(format!("{scheme} has {own} bits, not {asked}; leave --bits out"));
        }
        let blocks = scheme.block().and_then(NonZeroUsize::new).map(GranularityKind::Group);
        if let (Some(own), Some(asked)) = (blocks, granularity)
            && own != asked
        {
            return Err(format!("{scheme} is {own}, not {asked}; leave --granularity out"));
        }
        Ok(WeightOptions {
            bits: own_bits.or(bits).unwrap_or(Bits::EIGHT),
            scheme,
            granularity: blocks.or(granularity).unwrap_or_default(),
            scales: ScaleType::F32,
        })
    }

    /// The same with scales of this type, where a tensor has so many that this saves bytes.
    ///
    /// # Errors
    /// If the scheme has a type of its own.
    pub fn with_scales(self, scales: ScaleType) -> std::result::Result<WeightOptions, String> {
        match self.scheme.block() {
            Some(_) if scales != ScaleType::F32 => {
                Err(format!("{} has 8-bit scales of its own; leave --scales out", self.scheme))
            }
            _ => Ok(WeightOptions { scales, ..self }),
        }
    }

    /// The same with another width.
    ///
    /// # Errors
    /// If the scheme has one of its own.
    pub fn with_bits(self, bits: Bits) -> std::result::Result<WeightOptions, String> {
        let granularity = Some(self.granularity);
        WeightOptions::new(self.scheme, Some(bits), granularity)?.with_scales(self.scales)
    }

    /// What asks for a scheme with scales of this type.
    pub fn of(scheme: Scheme, scales: ScaleType) -> WeightOptions {
        WeightOptions {
            bits: scheme.bits(),
            scheme: match scheme {
                Scheme::Affine { .. } => SchemeKind::Affine,
                Scheme::Symmetric { .. } => SchemeKind::Symmetric,
                Scheme::FixedPoint { .. } => SchemeKind::FixedPoint,
                Scheme::Float { format, .. } => SchemeKind::Float(format),
                Scheme::Mx { format, .. } => SchemeKind::Mx(format),
                Scheme::NvFp4 { .. } => SchemeKind::NvFp4,
            },
            granularity: match scheme.granularity() {
                Granularity::Tensor => GranularityKind::Tensor,
                Granularity::Channel { .. } => GranularityKind::Channel,
                Granularity::Group { size, .. } => GranularityKind::Group(size),
            },
            scales,
        }
    }

    /// Width of the numbers; for fixed point the digits after the point.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// The kind of scheme.
    pub fn scheme(&self) -> SchemeKind {
        self.scheme
    }

    /// What shares a scale.
    pub fn granularity(&self) -> GranularityKind {
        self.granularity
    }

    /// The type of scales.
    pub fn scales(&self) -> ScaleType {
        self.scales
    }

    /// Why weights like these cannot stand beside such activations, and what can.
    pub fn obstacle(&self, activations: ActivationUse) -> Option<String> {
        let (scheme, scales) = (self.scheme, self.scales);
        if activations == ActivationUse::Float {
            None
        } else if scheme.float_format().is_some() {
            Some(format!("{scheme} weights are multiplied as floats; use --recipe weights"))
        } else if scales != ScaleType::F32 {
            Some(format!("products of integers take no {scales} scales; use --recipe weights"))
        } else {
            None
        }
    }

    /// The scheme of a weight with these axes and so many of them.
    pub(crate) fn scheme_for(&self, axes: Axes, rank: usize) -> Scheme {
        let granularity = match (self.granularity, axes) {
            (GranularityKind::Channel, Axes { channel: Some(axis), .. }) => {
                Granularity::Channel { axis }
            }
            (GranularityKind::Group(size), Axes { reduction: Some(axis), .. }) => {
                Granularity::Group { axis, size }
            }
            _ => Granularity::Tensor,
        };
        // Of a vector all elements are summed up.
        let axis = axes.reduction.unwrap_or(rank.saturating_sub(1));
        match self.scheme {
            SchemeKind::Affine => Scheme::Affine { bits: self.bits, granularity },
            SchemeKind::Symmetric => Scheme::Symmetric { bits: self.bits, granularity },
            SchemeKind::FixedPoint => Scheme::FixedPoint { fraction_bits: self.bits },
            SchemeKind::Float(format) => Scheme::Float { format, granularity },
            SchemeKind::Mx(format) => Scheme::Mx { format, axis },
            SchemeKind::NvFp4 => Scheme::NvFp4 { axis },
        }
    }

    /// The type that so many scales of a tensor are stored in: the one asked for where it saves bytes.
    fn scales_of(&self, count: usize) -> ScaleType {
        let saved = match self.scales {
            ScaleType::F32 => 0,
            ScaleType::F16 => 2 * count,
            ScaleType::U8 => 3 * count,
        };
        let operators = match self.scales {
            ScaleType::F32 | ScaleType::F16 => WIDENING_BYTES,
            ScaleType::U8 => SCALING_BYTES,
        };
        if saved > operators { self.scales } else { ScaleType::F32 }
    }
}

/// About what the operator that widens scales of 16 bits takes in a file.
const WIDENING_BYTES: usize = 40;
/// About what the operators that scale scales of 8 bits take, and their constants.
const SCALING_BYTES: usize = 256;
/// About what the operators that repeat the scales of blocks take.
const REPEATING_BYTES: usize = 200;

/// About what the operator that turns a weight's integers into floats takes in a file.
const DEQUANTIZE_BYTES: usize = 64;

/// Plans every weight of a prepared model for such activations beside them.
///
/// # Errors
/// If a weight cannot be read.
pub fn plan_weights(
    model: &Model,
    options: &WeightOptions,
    activations: ActivationUse,
    target: Target,
    progress: &dyn Progress,
) -> Result<Plan> {
    let constants = constants(model.graph());
    progress.start("planning", constants.len() as u64);
    let tensors = constants
        .into_par_iter()
        .map(|constant| {
            let Decided { becomes, range, sqnr_db } =
                decide(model, options, activations, target, &constant)?;
            progress.advance(1);
            let Constant { tensor, shape, read_by, .. } = constant;
            let layout =
                becomes.scheme().and_then(|scheme| Layout::new(&shape, scheme.granularity()).ok());
            let scale_type = layout.map_or(ScaleType::F32, |l| options.scales_of(l.params()));
            let (range_method, rounding) = Default::default();
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
    activations: ActivationUse,
    target: Target,
    constant: &Constant,
) -> Result<Decided> {
    let float = |why: &str| {
        let becomes = Becomes::Float(why.to_string());
        Ok(Decided { becomes, range: None, sqnr_db: None })
    };
    let Constant { tensor: name, shape, .. } = constant;
    let Some(axes) = constant.axes_beside(activations) else {
        return float(match constant.role {
            Role::Bias => "a bias: a small part of the file; int32 beside products of integers",
            _ => "no product or convolution reads it as a weight",
        });
    };
    let is_table = constant.read_by.iter().any(|op| op == "Gather");
    if let Some(why) = target.why_float_tables().filter(|_| is_table) {
        return float(why);
    }
    let graph = model.graph();
    if graph.input.iter().any(|i| i.name() == *name) {
        return float("an input that the caller may replace");
    }
    let scheme = options.scheme_for(axes, shape.len());
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
    let param_bytes = match options.scheme {
        SchemeKind::Affine => 5,
        SchemeKind::Mx(_) | SchemeKind::NvFp4 => 1,
        _ => 4,
    };
    let params_bytes = layout.params() * param_bytes;
    let code_bytes = (values.len() * usize::from(scheme.bits().get())).div_ceil(8);
    // Small floats, which alone have tables, come with float activations.
    let form = target.weights(ActivationUse::Float);
    let operator_bytes = DEQUANTIZE_BYTES
        + QWeightWriter::table_bytes(scheme, form, model.opset())
        + match (scheme.float_format(), scheme.granularity()) {
            (Some(_), Granularity::Group { .. }) => REPEATING_BYTES,
            _ => 0,
        };
    if code_bytes + params_bytes + operator_bytes >= tensor.stored_bytes() as usize {
        return float("too small: scales and operators would take more than fewer bits save");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(n: u8) -> Option<Bits> {
        Bits::new(n)
    }

    #[test]
    fn schemes_have_names() {
        for kind in SchemeKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("fp8".parse::<SchemeKind>().is_err());
    }

    #[test]
    fn a_format_fixes_width_and_blocks() {
        let group = |n| Some(GranularityKind::Group(NonZeroUsize::new(n).unwrap()));
        let nv = WeightOptions::new(SchemeKind::NvFp4, None, None).unwrap();
        assert_eq!((nv.bits(), Some(nv.granularity())), (Bits::FOUR, group(16)));
        assert_eq!(WeightOptions::new(SchemeKind::NvFp4, bits(4), group(16)), Ok(nv));
        let fp8 = SchemeKind::Float(FloatFormat::E4m3);
        for (scheme, bits, granularity) in [
            (SchemeKind::NvFp4, None, group(32)),
            (SchemeKind::NvFp4, bits(8), None),
            (SchemeKind::Mx(FloatFormat::E4m3), None, Some(GranularityKind::Channel)),
            (fp8, bits(4), None),
        ] {
            let why = WeightOptions::new(scheme, bits, granularity).unwrap_err();
            assert!(why.contains("leave --"), "{why}");
        }
        assert!(nv.with_scales(ScaleType::U8).is_err() && nv.with_bits(Bits::EIGHT).is_err());
        let fp8 = WeightOptions::new(fp8, None, group(32)).unwrap();
        assert_eq!(fp8.with_scales(ScaleType::F16).unwrap().scales(), ScaleType::F16);
        assert_eq!(fp8.with_bits(Bits::EIGHT), Ok(fp8));
    }

    #[test]
    fn weights_of_a_scheme_ask_for_it() {
        let axes = Axes { channel: Some(1), reduction: Some(0) };
        for kind in SchemeKind::ALL {
            let options = WeightOptions::new(kind, None, None).unwrap();
            let scheme = options.scheme_for(axes, 2);
            let expected = match kind {
                // It has one scale, whatever is asked for.
                SchemeKind::FixedPoint => GranularityKind::Tensor,
                _ => options.granularity(),
            };
            let asks = WeightOptions::of(scheme, ScaleType::F32);
            assert_eq!((asks.scheme(), asks.bits()), (kind, options.bits()));
            assert_eq!(asks.granularity(), expected);
        }
    }

    #[test]
    fn narrow_scales_are_for_activations_that_stay_float() {
        let options = WeightOptions::default();
        let narrow = options.with_scales(ScaleType::U8).unwrap();
        let small = WeightOptions::new(SchemeKind::Mx(FloatFormat::E2m1), None, None).unwrap();
        for (options, refused) in [(options, false), (narrow, true), (small, true)] {
            assert_eq!(options.obstacle(ActivationUse::Float), None);
            assert_eq!(options.obstacle(ActivationUse::Static).is_some(), refused);
        }
        // Where they save less than their operators take, they stay.
        assert_eq!(narrow.scales_of(50), ScaleType::F32);
        assert_eq!(narrow.scales_of(500), ScaleType::U8);
    }
}
