//! The runtimes that a file can be written for.
//!
//! What each takes, and what it computes on integers, was measured on small models or, for
//! TensorRT, read in its documentation: docs/targets.md.

use std::fmt;
use std::str::FromStr;

use fewbits_onnx::qweight::WeightForm;
use fewbits_quant::ScaleType;
use serde::{Deserialize, Serialize};

use super::{
    ActivationKind, ActivationUse, GranularityKind, PlacementExtent, SchemeKind, WeightOptions,
};
use crate::hint::Setting;

/// A runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Any runtime that knows ONNX's operators, those of newer opsets where they save bytes.
    #[default]
    Onnx,
    /// onnxruntime on CPUs, with an operator of its own where that is a gain.
    OnnxRuntime,
    /// OpenVINO on CPUs.
    OpenVino,
    /// TensorRT.
    TensorRt,
    /// tract.
    Tract,
    /// Any runtime that knows ONNX's operators of opset 13.
    Generic,
}

/// How biases of integer products are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasForm {
    /// As int32, with the product of the scales.
    Integer,
    /// As they are.
    Float,
}

impl Target {
    const ALL: [Target; 6] = [
        Target::Onnx,
        Target::OnnxRuntime,
        Target::OpenVino,
        Target::TensorRt,
        Target::Tract,
        Target::Generic,
    ];

    pub(crate) fn is_default(&self) -> bool {
        *self == Target::default()
    }

    /// The kind of integers for activations.
    pub fn activations(self) -> ActivationKind {
        match self {
            // It takes no other type and no zero point.
            Target::TensorRt => ActivationKind::Signed,
            _ => ActivationKind::Unsigned,
        }
    }

    /// How far quantized values reach from the products that read them.
    pub fn extent(self) -> PlacementExtent {
        match self {
            // It fuses what follows a product into it, unless a quantization stands between.
            Target::TensorRt => PlacementExtent::ProductInputs,
            _ => PlacementExtent::Whole,
        }
    }

    /// How biases of integer products are stored.
    pub fn bias(self) -> BiasForm {
        match self {
            // Its DequantizeLinear takes no int32.
            Target::TensorRt => BiasForm::Float,
            _ => BiasForm::Integer,
        }
    }

    /// Whether kernels that compute its files may add pairs of products of unsigned and signed bytes in
    /// 16 bits.
    pub fn adds_pairs_in_16_bits(self) -> bool {
        match self {
            // On CPUs with AVX2 and no VNNI; of other runtimes nothing is known.
            Target::Onnx | Target::OnnxRuntime | Target::OpenVino | Target::Generic => true,
            // Signed by signed bytes on GPUs; floats.
            Target::TensorRt | Target::Tract => false,
        }
    }

    /// How integers of weights are written.
    pub fn weights(self, activations: ActivationUse) -> WeightForm {
        match (self, activations) {
            (Target::OnnxRuntime, ActivationUse::Float) => WeightForm::NBits,
            (Target::Onnx | Target::OnnxRuntime, _) => WeightForm::Newest,
            // It computes the unpacking of bit-sliced integers wrongly.
            (Target::OpenVino, _) => WeightForm::NewestUnsliced,
            (Target::TensorRt | Target::Tract | Target::Generic, _) => WeightForm::Plain,
        }
    }

    /// The narrowest scales of weights that it opens without loss of speed. They are widened by an
    /// operator that onnxruntime folds; whether others do was not measured.
    pub fn narrow_scales(self, activations: ActivationUse) -> ScaleType {
        match (self, activations) {
            (Target::Onnx | Target::OnnxRuntime, ActivationUse::Float) => ScaleType::F16,
            _ => ScaleType::F32,
        }
    }

    /// Why tables of embeddings stay float, if they do.
    pub fn why_float_tables(self) -> Option<&'static str> {
        (self == Target::TensorRt).then_some("TensorRT looks nothing up in integers")
    }

    /// The opset that such weights ask for beyond what every target needs: 19 has floats of 8 bits, 21
    /// integers of 4 bits, and `DequantizeLinear` in blocks.
    pub fn opset_for(self, weights: &WeightOptions) -> i64 {
        let small_floats = weights.scheme().float_format().is_some();
        match (self, weights.width().get(), weights.granularity()) {
            (Target::OpenVino, 4, _) => 21,
            (Target::Onnx | Target::OnnxRuntime | Target::OpenVino, ..) if small_floats => 19,
            (Target::Onnx | Target::OnnxRuntime, _, GranularityKind::Group(_)) => 21,
            _ => 0,
        }
    }

    /// Whether files whose activations are `activations` are better written in the older opset that
    /// [`lower_opset`](fewbits_onnx::passes::lower_opset::lower_opset) brings them to.
    pub fn prefers_older_opset(self, activations: ActivationUse) -> bool {
        // Where onnxruntime opens signed activations of opset 21 and more it may refuse the file.
        self.activations() == ActivationKind::Signed && activations == ActivationUse::Static
    }

    /// Why what was asked for makes no sense for the target, and what does.
    pub fn obstacle(self, weights: &WeightOptions, activations: ActivationUse) -> Option<String> {
        if let Some(why) = weights.obstacle(activations) {
            return Some(why);
        }
        let bits = weights.width().get();
        let small_floats = weights.scheme().float_format().is_some();
        let symmetric = Setting::Scheme.to(SchemeKind::Symmetric);
        let why = match (self, activations) {
            (Target::OpenVino, ActivationUse::Dynamic) => {
                format!(
                    "it computes dynamic quantization in float, slower than the float model; use {} or weights",
                    Setting::Recipe.to("static")
                )
            }
            (Target::OpenVino, ActivationUse::Static) if bits != 8 => {
                format!(
                    "it computes on integers only with weights of 8 bits; use {}, or {}",
                    Setting::Bits.to(8),
                    Setting::Recipe.to("weights")
                )
            }
            (Target::OpenVino, _) if !matches!(bits, 4 | 8) => {
                format!("it unpacks bit-sliced weights wrongly; use {} or 4", Setting::Bits.to(8))
            }
            (Target::TensorRt, ActivationUse::Dynamic) => {
                format!("it has no DynamicQuantizeLinear; use {}", Setting::Recipe.to("static"))
            }
            (Target::TensorRt, _) if small_floats => {
                format!("no test of small floats ran there; use {symmetric}")
            }
            (Target::Tract, _) if small_floats => {
                format!(
                    "no test of small floats ran there; use {symmetric}, or {}",
                    Setting::Target.to(Target::Generic)
                )
            }
            (Target::TensorRt | Target::Tract, _) if weights.scales() != ScaleType::F32 => {
                format!(
                    "no test of narrow scales ran there; use {}",
                    Setting::Scales.to(ScaleType::F32)
                )
            }
            (Target::TensorRt, _) if bits != 8 => {
                format!("it loads weights of 8 bits; use {}", Setting::Bits.to(8))
            }
            (Target::TensorRt, _) if weights.scheme() != SchemeKind::Symmetric => {
                format!("it takes no zero points; use {symmetric}")
            }
            (Target::TensorRt, _) if matches!(weights.granularity(), GranularityKind::Group(_)) => {
                format!(
                    "it takes 8-bit weights per tensor or channel; use {}",
                    Setting::Granularity.to(GranularityKind::Channel)
                )
            }
            _ => return None,
        };
        Some(format!("{}: {why}", Setting::Target.to(self)))
    }

    /// What the user should know although it can be done.
    pub fn warning(self, activations: ActivationUse) -> Option<String> {
        match (self, activations) {
            (Target::Tract, ActivationUse::Static | ActivationUse::Dynamic) => Some(format!(
                "tract gains no speed from quantized activations, it loses some; {} is as small and as fast as float",
                Setting::Recipe.to("weights")
            )),
            (Target::TensorRt, _) => Some(
                "files for TensorRT follow its documentation; no test of fewbits runs it"
                    .to_string(),
            ),
            _ => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Onnx => "onnx",
            Target::OnnxRuntime => "onnxruntime",
            Target::OpenVino => "openvino",
            Target::TensorRt => "tensorrt",
            Target::Tract => "tract",
            Target::Generic => "generic",
        })
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        Target::ALL
            .into_iter()
            .find(|t| t.to_string() == text)
            .ok_or_else(|| format!("targets are {}", Target::ALL.map(|t| t.to_string()).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names() {
        for target in Target::ALL {
            assert_eq!(target.to_string().parse(), Ok(target));
            assert_eq!(serde_json::to_value(target).unwrap(), target.to_string());
        }
        assert!("cuda".parse::<Target>().is_err());
    }

    #[test]
    fn what_a_target_cannot_do_is_refused_with_the_way_out() {
        let options = |bits: u8| {
            WeightOptions::default()
                .with_width(fewbits_quant::Bits::new(bits).unwrap().into())
                .unwrap()
        };
        for target in Target::ALL {
            assert_eq!(target.obstacle(&options(8), ActivationUse::Float), None);
        }
        let refused = |target: Target, bits: u8, activations: ActivationUse| {
            target.obstacle(&options(bits), activations).is_some_and(|why| why.contains("use "))
        };
        assert!(refused(Target::OpenVino, 3, ActivationUse::Float));
        assert!(!refused(Target::OpenVino, 4, ActivationUse::Float));
        assert!(refused(Target::OpenVino, 8, ActivationUse::Dynamic));
        assert!(refused(Target::TensorRt, 8, ActivationUse::Dynamic));
        assert!(refused(Target::TensorRt, 4, ActivationUse::Float));
        assert!(!refused(Target::Generic, 3, ActivationUse::Dynamic));
        for scheme in ["fp8-e4m3", "mxfp4"] {
            let floats = WeightOptions::new(scheme.parse().unwrap(), None, None).unwrap();
            for target in Target::ALL {
                let tried = !matches!(target, Target::TensorRt | Target::Tract);
                let obstacle = target.obstacle(&floats, ActivationUse::Float);
                assert_eq!(obstacle.is_none(), tried, "{target}");
                assert!(obstacle.is_none_or(|why| why.contains("use ")));
            }
        }
    }
}
