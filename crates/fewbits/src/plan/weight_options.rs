//! What is asked of weights: a scheme, a width and a granularity that go with each other.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use fewbits_quant::{
    Bits, FloatFormat, FractionBits, Granularity, MX_BLOCK, NV_BLOCK, ScaleType, Scheme,
};

use super::{ActivationUse, Width};
use crate::hint::Setting;
use crate::layers::Axes;

/// What the user asks of weights: a scheme with a width and a granularity that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightOptions {
    numbers: Numbers,
    granularity: GranularityKind,
    scales: ScaleType,
}

/// What elements become: a kind of scheme with a width that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    Affine(Bits),
    Symmetric(Bits),
    FixedPoint(FractionBits),
    Float(FloatFormat),
    Mx(FloatFormat),
    NvFp4,
}

impl Numbers {
    /// Those of a kind, of this width where it leaves the choice, or of 8 bits.
    fn new(scheme: SchemeKind, width: Option<Width>) -> std::result::Result<Numbers, String> {
        let own = |numbers, bits: Bits| match width {
            Some(asked) if asked != Width::from(bits) => {
                Err(format!("{scheme} has {bits} bits, not {asked}; leave {} out", Setting::Bits))
            }
            _ => Ok(numbers),
        };
        let bits = || width.map_or(Ok(Bits::EIGHT), Width::bits);
        match scheme {
            SchemeKind::Affine => bits().map(Numbers::Affine),
            SchemeKind::Symmetric => bits().map(Numbers::Symmetric),
            SchemeKind::FixedPoint => {
                let digits = width.map_or(FractionBits::EIGHT, Width::fraction_bits);
                Ok(Numbers::FixedPoint(digits))
            }
            SchemeKind::Float(format) => own(Numbers::Float(format), format.bits()),
            SchemeKind::Mx(format) => own(Numbers::Mx(format), format.bits()),
            SchemeKind::NvFp4 => own(Numbers::NvFp4, FloatFormat::E2m1.bits()),
        }
    }

    fn of(scheme: Scheme) -> Numbers {
        match scheme {
            Scheme::Affine { bits, .. } => Numbers::Affine(bits),
            Scheme::Symmetric { bits, .. } => Numbers::Symmetric(bits),
            Scheme::FixedPoint { fraction_bits } => Numbers::FixedPoint(fraction_bits),
            Scheme::Float { format, .. } => Numbers::Float(format),
            Scheme::Mx { format, .. } => Numbers::Mx(format),
            Scheme::NvFp4 { .. } => Numbers::NvFp4,
        }
    }

    fn kind(self) -> SchemeKind {
        match self {
            Numbers::Affine(_) => SchemeKind::Affine,
            Numbers::Symmetric(_) => SchemeKind::Symmetric,
            Numbers::FixedPoint(_) => SchemeKind::FixedPoint,
            Numbers::Float(format) => SchemeKind::Float(format),
            Numbers::Mx(format) => SchemeKind::Mx(format),
            Numbers::NvFp4 => SchemeKind::NvFp4,
        }
    }

    fn width(self) -> Width {
        match self {
            Numbers::Affine(bits) | Numbers::Symmetric(bits) => bits.into(),
            Numbers::FixedPoint(digits) => digits.into(),
            Numbers::Float(format) | Numbers::Mx(format) => format.bits().into(),
            Numbers::NvFp4 => FloatFormat::E2m1.bits().into(),
        }
    }

    /// The bits of an element; `None` for fixed point, where they follow from the values.
    fn bits(self) -> Option<Bits> {
        match self {
            Numbers::FixedPoint(_) => None,
            _ => self.width().bits().ok(),
        }
    }
}

impl Default for WeightOptions {
    fn default() -> Self {
        WeightOptions {
            numbers: Numbers::Symmetric(Bits::EIGHT),
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
    /// If the scheme takes no such width, or has blocks of its own.
    pub fn new(
        scheme: SchemeKind,
        width: Option<Width>,
        granularity: Option<GranularityKind>,
    ) -> std::result::Result<WeightOptions, String> {
        let numbers = Numbers::new(scheme, width)?;
        let blocks = scheme.block().and_then(NonZeroUsize::new).map(GranularityKind::Group);
        if let (Some(own), Some(asked)) = (blocks, granularity)
            && own != asked
        {
            return Err(format!(
                "{scheme} is {own}, not {asked}; leave {} out",
                Setting::Granularity
            ));
        }
        let granularity = blocks.or(granularity).unwrap_or_default();
        Ok(WeightOptions { numbers, granularity, scales: ScaleType::F32 })
    }

    /// The same with scales of this type, where a tensor has so many that this saves bytes.
    ///
    /// # Errors
    /// If the scheme has a type of its own.
    pub fn with_scales(self, scales: ScaleType) -> std::result::Result<WeightOptions, String> {
        match self.scheme().block() {
            Some(_) if scales != ScaleType::F32 => Err(format!(
                "{} has 8-bit scales of its own; leave {} out",
                self.scheme(),
                Setting::Scales
            )),
            _ => Ok(WeightOptions { scales, ..self }),
        }
    }

    /// The same with another width.
    ///
    /// # Errors
    /// If the scheme does not take it.
    pub fn with_width(self, width: Width) -> std::result::Result<WeightOptions, String> {
        Ok(WeightOptions { numbers: Numbers::new(self.scheme(), Some(width))?, ..self })
    }

    /// What asks for a scheme with scales of this type.
    pub fn of(scheme: Scheme, scales: ScaleType) -> WeightOptions {
        WeightOptions {
            numbers: Numbers::of(scheme),
            granularity: match scheme.granularity() {
                Granularity::Tensor => GranularityKind::Tensor,
                Granularity::Channel { .. } => GranularityKind::Channel,
                Granularity::Group { size, .. } => GranularityKind::Group(size),
            },
            scales,
        }
    }

    /// The bits of an element; for fixed point the digits after the point.
    pub fn width(&self) -> Width {
        self.numbers.width()
    }

    /// The bits of an element; `None` for fixed point, where they follow from the values.
    pub fn bits(&self) -> Option<Bits> {
        self.numbers.bits()
    }

    /// The kind of scheme.
    pub fn scheme(&self) -> SchemeKind {
        self.numbers.kind()
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
        let (scheme, scales) = (self.scheme(), self.scales);
        if activations == ActivationUse::Float {
            None
        } else if scheme.float_format().is_some() {
            Some(format!(
                "{scheme} weights are multiplied as floats; use {}",
                Setting::Recipe.to("weights")
            ))
        } else if scales != ScaleType::F32 {
            Some(format!(
                "products of integers take no {scales} scales; use {}",
                Setting::Recipe.to("weights")
            ))
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
        match self.numbers {
            Numbers::Affine(bits) => Scheme::Affine { bits, granularity },
            Numbers::Symmetric(bits) => Scheme::Symmetric { bits, granularity },
            Numbers::FixedPoint(fraction_bits) => Scheme::FixedPoint { fraction_bits },
            Numbers::Float(format) => Scheme::Float { format, granularity },
            Numbers::Mx(format) => Scheme::Mx { format, axis },
            Numbers::NvFp4 => Scheme::NvFp4 { axis },
        }
    }

    /// The type that so many scales of a tensor are stored in: the one asked for where it saves bytes.
    pub(super) fn scales_of(&self, count: usize) -> ScaleType {
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

#[cfg(test)]
mod tests {
    use fewbits_quant::WeightRange;

    use super::*;

    fn bits(n: u8) -> Option<Width> {
        Width::new(n)
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
        assert_eq!((Some(nv.width()), Some(nv.granularity())), (bits(4), group(16)));
        assert_eq!(WeightOptions::new(SchemeKind::NvFp4, bits(4), group(16)), Ok(nv));
        let fp8 = SchemeKind::Float(FloatFormat::E4m3);
        for (scheme, bits, granularity) in [
            (SchemeKind::NvFp4, None, group(32)),
            (SchemeKind::NvFp4, bits(8), None),
            (SchemeKind::Mx(FloatFormat::E4m3), None, Some(GranularityKind::Channel)),
            (fp8, bits(4), None),
            (fp8, bits(12), None),
        ] {
            let why = WeightOptions::new(scheme, bits, granularity).unwrap_err();
            assert!(why.contains("leave "), "{why}");
        }
        assert!(
            nv.with_scales(ScaleType::U8).is_err() && nv.with_width(Bits::EIGHT.into()).is_err()
        );
        let fp8 = WeightOptions::new(fp8, None, group(32)).unwrap();
        assert_eq!(fp8.with_scales(ScaleType::F16).unwrap().scales(), ScaleType::F16);
        assert_eq!(fp8.with_width(Bits::EIGHT.into()), Ok(fp8));
    }

    #[test]
    fn only_fixed_point_takes_more_than_eight_bits() {
        for scheme in [SchemeKind::Symmetric, SchemeKind::Affine] {
            let why = WeightOptions::new(scheme, bits(9), None).unwrap_err();
            assert!(why.contains("fixed-point"), "{why}");
        }
        let fixed = WeightOptions::new(SchemeKind::FixedPoint, bits(15), None).unwrap();
        assert_eq!(Some(fixed.width()), bits(15));
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
            assert_eq!((asks.scheme(), asks.width()), (kind, options.width()));
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

    #[test]
    fn plans_may_spell_ranges_as_options_do() {
        for spelled in ["\"min_max\"", "\"minmax\""] {
            let range: WeightRange = serde_json::from_str(spelled).unwrap();
            assert_eq!((range, range.to_string()), (WeightRange::MinMax, "minmax".to_string()));
        }
        assert_eq!(serde_json::to_string(&WeightRange::MinMax).unwrap(), "\"min_max\"");
    }
}
