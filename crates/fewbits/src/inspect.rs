//! What a model holds: tensors, widths, bytes, ranges.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use fewbits_engine::{Backend, RunOptions, ValueSpec, input_specs};
use fewbits_onnx::facts::{QuantizedValue, ReadAs, quantized_values, scales_of_mat_mul_n_bits};
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{DataType, GraphProto};
use fewbits_onnx::qweight::WeightReader;
use fewbits_onnx::{Holder, Model};
use fewbits_quant::{Encoding, FloatFormat, Granularity, MX_BLOCK, NV_BLOCK, QTensor};
use serde::Serialize;

use crate::layers::{Role, constants};
use crate::not_finite::{NotFinite, not_finite};
use crate::prepare::{Prepared, prepare};
use crate::{Result, run};

/// A description of a model, its weights as the quantizer sees them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The file.
    pub path: Option<PathBuf>,
    /// Bytes of the file, external data included.
    pub file_bytes: u64,
    /// Bytes of all constant tensors in it.
    pub weight_bytes: u64,
    /// Where these bytes lie.
    pub stored: Vec<StoredInfo>,
    /// The version of the default operator set.
    pub opset: i64,
    /// The tool that wrote the file.
    pub producer: String,
    /// What the model takes.
    pub inputs: Vec<Value>,
    /// What it gives.
    pub outputs: Vec<Value>,
    /// How often each operator occurs in the file.
    pub operators: BTreeMap<String, usize>,
    /// Classical operators that were lowered to see their weights.
    pub lowered: Vec<String>,
    /// Operators that standard ones cannot express, and why.
    pub not_lowered: Vec<String>,
    /// What else preparation could not do, and why.
    pub notes: Vec<String>,
    /// The weights.
    pub tensors: Vec<TensorInfo>,
    /// The activations that are quantized with a scale of the file's.
    pub activations: Vec<ActivationInfo>,
    /// The entries of the file's metadata.
    pub metadata: BTreeMap<String, String>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Its element type, if declared.
    pub r#type: Option<String>,
    /// Its shape, free dimensions as `?`.
    pub shape: String,
}

/// Constants of one type in one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredInfo {
    /// `initializers` or attributes of `nodes` of the main graph, `subgraphs`, or `functions`.
    pub place: &'static str,
    /// The type of their elements, if it is one of ONNX's.
    pub r#type: Option<String>,
    /// How many there are.
    pub tensors: usize,
    /// The bytes that they take.
    pub bytes: u64,
}

/// A weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorInfo {
    /// Its name.
    pub tensor: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Bits an element.
    pub bits: u8,
    /// How it is represented.
    pub scheme: String,
    /// Bytes it takes, scales and zero points included.
    pub bytes: u64,
    /// The smallest value.
    pub min: f32,
    /// The largest value.
    pub max: f32,
    /// What it is to the model: a weight, a bias, or another constant.
    pub role: &'static str,
}

/// A quantized activation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActivationInfo {
    /// The float value that becomes integers.
    pub value: String,
    /// The element type of the integers.
    pub r#type: String,
    /// The step between two integers.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero_point: i64,
    /// The smallest value that is not cut off.
    pub min: f32,
    /// The largest value that is not cut off.
    pub max: f32,
}

/// How a model is run on this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Execution {
    /// The file.
    pub path: Option<PathBuf>,
    /// The kernels that were chosen: `scalar`, `neon`, `avx2`, `avx512vnni` or `amx`.
    pub cpu: &'static str,
    /// The steps, in the order in which they run.
    pub steps: Vec<StepInfo>,
    /// How many ONNX nodes depend on an input, in the form with QuantizeLinear and
    /// DequantizeLinear to which the forms of other tools are brought.
    pub nodes: usize,
    /// How many of these run in kernels of ours.
    pub own_nodes: usize,
    /// How many steps are left to rten.
    pub rten_regions: usize,
}

/// A step of the executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepInfo {
    /// The ONNX node that it stands for, or the first of them.
    pub node: String,
    /// What is computed in it.
    pub what: String,
    /// Where: `integers`, `floats` (in kernels of ours), or `rten`.
    pub r#where: &'static str,
    /// How many ONNX nodes it takes the place of.
    pub nodes: usize,
    /// Why it is left to rten.
    pub why: Vec<String>,
    /// Whether every CPU gives the same bits: rten cannot promise it where it rounds.
    pub exact: bool,
}

/// Describes how `model` is run on this machine.
///
/// # Errors
/// If the executor cannot run it.
pub fn execution(model: &Model) -> Result<Execution> {
    let options = RunOptions { threads: Some(NonZeroUsize::MIN), ..RunOptions::default() };
    let runner = run::runner(model, &options)?;
    let steps: Vec<StepInfo> = runner
        .fusions()
        .into_iter()
        .map(|step| StepInfo {
            node: step.node,
            what: step.what,
            r#where: match step.backend {
                Backend::Integers => "integers",
                Backend::Floats => "floats",
                Backend::Rten => "rten",
            },
            nodes: step.nodes,
            why: step.why,
            exact: step.is_exact,
        })
        .collect();
    let count = |steps: &mut dyn Iterator<Item = &StepInfo>| steps.map(|s| s.nodes).sum();
    Ok(Execution {
        path: model.path().map(|p| p.to_path_buf()),
        cpu: runner.cpu().level().name(),
        nodes: count(&mut steps.iter()),
        own_nodes: count(&mut steps.iter().filter(|s| s.r#where != "rten")),
        rten_regions: steps.iter().filter(|s| s.r#where == "rten").count(),
        steps,
    })
}

/// Describes `model`.
///
/// # Errors
/// If the model is damaged.
pub fn inspect(model: &Model) -> Result<Inspection> {
    let mut prepared = model.clone();
    let Prepared { lowered, mut notes, .. } = prepare(&mut prepared)?;
    notes.extend(not_finite(&prepared, |_| true)?.iter().map(NotFinite::to_string));
    let mut tensors = quantized(&prepared);
    tensors.extend(floats(&prepared, &tensors)?);
    let mut operators = BTreeMap::new();
    for node in &model.graph().node {
        let domain = if node.is_onnx() { String::new() } else { format!("{}.", node.domain()) };
        *operators.entry(format!("{domain}{}", node.op_type())).or_insert(0) += 1;
    }
    let value = |spec: ValueSpec| Value {
        shape: spec.shape_text(),
        r#type: spec.data_type.map(|t| format!("{t:?}").to_lowercase()),
        name: spec.name,
    };
    let metadata = &model.proto().metadata_props;
    Ok(Inspection {
        path: model.path().map(|p| p.to_path_buf()),
        file_bytes: model.file_bytes(),
        weight_bytes: model.weight_bytes(),
        stored: stored(model),
        opset: model.opset(),
        producer: model.proto().producer_name().to_string(),
        inputs: input_specs(model.graph()).into_iter().map(value).collect(),
        outputs: model.graph().output.iter().map(ValueSpec::new).map(value).collect(),
        operators,
        lowered: lowered.lowered,
        not_lowered: lowered
            .kept
            .iter()
            .map(|k| format!("{} ({}): {}", k.node, k.op, k.why))
            .collect(),
        notes,
        tensors,
        activations: activations(model.graph()),
        metadata: metadata.iter().map(|p| (p.key().to_string(), p.value().to_string())).collect(),
    })
}

/// Every constant of the file, added up by place and type.
fn stored(model: &Model) -> Vec<StoredInfo> {
    let mut sums: BTreeMap<(Holder, Option<DataType>), (usize, u64)> = BTreeMap::new();
    for stored in model.stored() {
        let (tensors, bytes) = sums.entry((stored.holder, stored.data_type)).or_default();
        *tensors += 1;
        *bytes += stored.bytes;
    }
    let info =
        |((holder, data_type), (tensors, bytes)): ((Holder, Option<DataType>), _)| StoredInfo {
            place: match holder {
                Holder::Initializers => "initializers",
                Holder::Nodes => "nodes",
                Holder::Subgraphs => "subgraphs",
                Holder::Functions => "functions",
            },
            r#type: data_type.map(|t| format!("{t:?}").to_lowercase()),
            tensors,
            bytes,
        };
    sums.into_iter().map(info).collect()
}

/// The bits that the widest integers among a model's weights need; 0 if there are none.
pub fn integer_bits(model: &Model) -> u8 {
    let reader = WeightReader::new(model.graph());
    reader.weights().map(|w| w.weight.codes().bits_needed()).max().unwrap_or(0)
}

fn quantized(model: &Model) -> Vec<TensorInfo> {
    let reader = WeightReader::new(model.graph());
    let info = |name: String, weight: QTensor| {
        let values = weight.dequantize();
        let (min, max) = range(&values);
        TensorInfo {
            tensor: name,
            shape: weight.layout().shape().to_vec(),
            bits: weight.codes().width(),
            scheme: scheme(&weight),
            bytes: weight.bytes() as u64,
            min,
            max,
            role: "weight",
        }
    };
    reader.weights().map(|w| info(w.name, w.weight)).collect()
}

/// What becomes of activations that have one constant scale.
fn activations(graph: &GraphProto) -> Vec<ActivationInfo> {
    let info = |QuantizedValue { value, data_type, scale, zero_point }| {
        let (least, most) = match data_type {
            DataType::Uint8 => (0, 255),
            DataType::Int8 => (-128, 127),
            DataType::Uint16 => (0, 65_535),
            DataType::Int16 => (-32_768, 32_767),
            _ => return None,
        };
        let float = |integer: i64| (integer - zero_point) as f32 * scale;
        Some(ActivationInfo {
            value: value.to_string(),
            r#type: format!("{data_type:?}").to_lowercase(),
            scale,
            zero_point,
            min: float(least),
            max: float(most),
        })
    };
    quantized_values(graph).into_iter().filter_map(info).collect()
}

fn scheme(weight: &QTensor) -> String {
    let (layout, coded) = (weight.layout(), weight.coded_scales());
    let block = |size: usize| matches!(layout.granularity(), Granularity::Group { size: s, .. } if s.get() == size);
    let (kind, own_scales) = match (weight.codes().encoding(), coded.map(|c| c.codes().encoding()))
    {
        (Encoding::Float(FloatFormat::E2m1), Some(Encoding::Float(FloatFormat::E4m3)))
            if block(NV_BLOCK) =>
        {
            ("nvfp4".to_string(), true)
        }
        (Encoding::Float(format), Some(Encoding::Exponent)) if block(MX_BLOCK) => {
            (format.mx_name().to_string(), true)
        }
        (Encoding::Float(format), _) => (format.to_string(), false),
        (Encoding::Unsigned, _) => ("affine".to_string(), false),
        (Encoding::TwosComplement, _) => ("symmetric".to_string(), false),
        (Encoding::Sign, _) => ("sign".to_string(), false),
        (Encoding::Exponent, _) => ("powers of two".to_string(), false),
    };
    let sharing = match layout.granularity() {
        Granularity::Tensor => "per tensor".to_string(),
        Granularity::Channel { axis } => format!("per channel (axis {axis})"),
        Granularity::Group { axis, size } => format!("groups of {size} (axis {axis})"),
    };
    let scales = match coded {
        Some(_) if own_scales => "",
        Some(_) => ", 8-bit scales",
        None => "",
    };
    format!("{kind}, {sharing}{scales}")
}

fn floats(model: &Model, quantized: &[TensorInfo]) -> Result<Vec<TensorInfo>> {
    let mut found = Vec::new();
    let nodes = model.graph().node.iter();
    let scales: HashSet<&str> =
        nodes.filter_map(scales_of_mat_mul_n_bits).map(String::as_str).collect();
    let index = Index::new(model.graph());
    let unpacking = WeightReader::new(model.graph()).nodes();
    for constant in constants(model.graph()) {
        let Some(tensor) = model.graph().find_initializer(&constant.tensor) else { continue };
        // The scales of quantized weights are counted with them.
        let is_parameter = constant.role == Role::Other
            && constant.read_as.iter().all(|r| matches!(r, ReadAs::Codes | ReadAs::Factor))
            && !quantized.is_empty();
        let unpacks = index.consumers(&constant.tensor).iter().all(|i| unpacking.contains(i));
        if is_parameter || unpacks || scales.contains(constant.tensor.as_str()) {
            continue;
        }
        let values = model.floats_released(tensor)?;
        let (min, max) = range(&values);
        let bytes = tensor.stored_bytes();
        found.push(TensorInfo {
            tensor: constant.tensor,
            bits: (8 * bytes).checked_div(values.len() as u64).unwrap_or(0) as u8,
            shape: constant.shape,
            scheme: "float".into(),
            bytes,
            min,
            max,
            role: match constant.role {
                Role::Weight(_) => "weight",
                Role::Bias => "bias",
                Role::Other => "constant",
            },
        });
    }
    Ok(found)
}

fn range(values: &[f32]) -> (f32, f32) {
    if values.iter().any(|value| value.is_nan()) {
        return (f32::NAN, f32::NAN);
    }
    let range =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    if values.is_empty() { (0.0, 0.0) } else { range }
}
