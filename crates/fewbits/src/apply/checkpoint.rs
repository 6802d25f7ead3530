//! A checkpoint: layers whose integers are found, so that no work is done twice: what a trial rounded is written, and what
//! a killed run had finished is read from its file.
//!
//! The file begins with a line of JSON that says what it belongs to; the layers follow, one behind the
//! other, each with the hash of its bytes. A layer whose writing was cut short is found out by that, and
//! done again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fewbits_onnx::{Model, Replace};
use fewbits_quant::{Encoding, Granularity, Layout, PackedInts, QTensor, QuantParams};
use serde::{Deserialize, Serialize};

use super::source_digest;
use crate::data::Dataset;
use crate::digest::short_digest;
use crate::limits::WeightLimits;
use crate::output::write_file;
use crate::plan::Plan;
use crate::{Error, Result};

/// The format of these files.
const FORMAT: u32 = 1;
/// Bytes of a hash.
const HASH: usize = blake3::OUT_LEN;

/// The layers that are finished, of one model on the same data, in memory and perhaps in a file.
#[derive(Default)]
pub struct Checkpoint(Mutex<Layers>);

#[derive(Default)]
struct Layers {
    /// By what decides about their integers, and by the weight.
    layers: HashMap<(String, String), QTensor>,
    file: Option<(PathBuf, File)>,
}

/// What a file belongs to.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    fewbits_layers: u32,
    key: String,
}

/// What comes before the bytes of a layer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    rounding: String,
    tensor: String,
    layer: Described,
}

/// What the bytes of a quantized tensor are: scales, zero points, integers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    shape: Vec<usize>,
    granularity: Granularity,
    width: u8,
    encoding: Encoding,
    zero_points: bool,
    /// Scales that are quantized in turn; otherwise they are floats.
    scales: Option<Box<Described>>,
}

impl Checkpoint {
    /// Goes on from `path`, or begins a new file there. `asked` is all that decides what becomes of
    /// `source` on `data`.
    ///
    /// # Errors
    /// If the file cannot be read or written, or belongs to another model, other data or something else
    /// that was asked for.
    pub fn open(path: &Path, source: &Model, data: &Dataset, asked: &str) -> Result<Checkpoint> {
        let mut hasher = blake3::Hasher::new();
        let source = source_digest(source)?.unwrap_or_default();
        let (data, rows) = (data.digest()?, data.rows().to_string());
        for part in [env!("CARGO_PKG_VERSION"), &source, &data, &rows, asked] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Checkpoint::open_with(path, &short_digest(&hasher.finalize()))
    }

    fn open_with(path: &Path, key: &str) -> Result<Checkpoint> {
        let failed = |source| Error::Io { path: path.to_path_buf(), source };
        let header = Header { fewbits_layers: FORMAT, key: key.to_string() };
        if !path.exists() {
            let line = serde_json::to_string(&header).expect("a header is plain") + "\n";
            write_file(path, line.as_bytes(), Replace::Never)?;
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        let wrong = |reason: &str| Error::LayersState {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        };
        let line = bytes.iter().position(|&b| b == b'\n').map(|end| &bytes[..end]);
        let found: Header = line
            .and_then(|line| serde_json::from_slice(line).ok())
            .ok_or_else(|| wrong("it holds no finished layers"))?;
        if found.fewbits_layers != FORMAT {
            return Err(wrong(&format!(
                "its format is {}, this fewbits reads {FORMAT}",
                found.fewbits_layers
            )));
        }
        if found != header {
            return Err(wrong("it belongs to another model, other data or other options"));
        }
        let mut layers = HashMap::new();
        let mut rest = &bytes[line.map_or(0, <[u8]>::len) + 1..];
        while let Some((key, layer, behind)) = read(rest) {
            layers.insert(key, layer);
            rest = behind;
        }
        let mut file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        file.set_len((bytes.len() - rest.len()) as u64).map_err(failed)?;
        file.flush().map_err(failed)?;
        let file = Some((path.to_path_buf(), file));
        Ok(Checkpoint(Mutex::new(Layers { layers, file })))
    }

    /// The layers of one plan with these limits.
    pub(super) fn of_plan(&self, plan: &Plan, limits: &WeightLimits) -> PlanCheckpoint<'_> {
        // Neither what was tried nor, beside the limits, the target and activations make a difference
        // to integers.
        let decides = serde_json::to_vec(&(&plan.adjustments, &plan.tensors, limits));
        let hash = blake3::hash(&decides.expect("a plan holds nothing that JSON lacks"));
        PlanCheckpoint { finished: self, rounding: short_digest(&hash) }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Layers> {
        self.0.lock().expect("nobody panics while it is held")
    }
}

/// The finished layers of one plan.
pub(super) struct PlanCheckpoint<'a> {
    finished: &'a Checkpoint,
    /// Identifies all that decides about the integers.
    rounding: String,
}

impl PlanCheckpoint<'_> {
    /// The integers of a weight, if they are finished.
    pub fn get(&self, tensor: &str) -> Option<QTensor> {
        self.finished.kept().layers.get(&(self.rounding.clone(), tensor.to_string())).cloned()
    }

    /// Keeps the integers of a weight.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep(&self, tensor: &str, layer: &QTensor) -> Result<()> {
        let mut kept = self.finished.kept();
        if let Some((path, file)) = &mut kept.file {
            let failed = |source| Error::Io { path: path.clone(), source };
            file.write_all(&record(&self.rounding, tensor, layer)).map_err(failed)?;
        }
        kept.layers.insert((self.rounding.clone(), tensor.to_string()), layer.clone());
        Ok(())
    }
}

/// The bytes of a layer: the length of its head, the head, what it describes, and the hash of all of them.
fn record(rounding: &str, tensor: &str, layer: &QTensor) -> Vec<u8> {
    let head = Head {
        rounding: rounding.to_string(),
        tensor: tensor.to_string(),
        layer: Described::of(layer),
    };
    let head = serde_json::to_vec(&head).expect("a head is plain");
    let mut bytes = (head.len() as u32).to_le_bytes().to_vec();
    bytes.extend(head);
    append(layer, &mut bytes);
    let hash = blake3::hash(&bytes);
    bytes.extend(hash.as_bytes());
    bytes
}

/// The bytes that [`Described`] describes.
fn append(layer: &QTensor, bytes: &mut Vec<u8>) {
    match layer.coded_scales() {
        Some(scales) => append(scales, bytes),
        None => bytes.extend(layer.params().scale.iter().flat_map(|scale| scale.to_le_bytes())),
    }
    bytes.extend(&layer.params().zero_point);
    bytes.extend(layer.codes().bytes());
}

/// The first layer of `bytes`, the name that it is kept by, and what lies behind; none if it is not whole.
fn read(bytes: &[u8]) -> Option<((String, String), QTensor, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (head, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let head: Head = serde_json::from_slice(head).ok()?;
    let (layer, rest) = head.layer.read(rest)?;
    let (hash, behind) = rest.split_first_chunk::<HASH>()?;
    let whole = blake3::hash(&bytes[..bytes.len() - rest.len()]) == *hash;
    whole.then_some(((head.rounding, head.tensor), layer, behind))
}

impl Described {
    fn of(tensor: &QTensor) -> Described {
        Described {
            shape: tensor.layout().shape().to_vec(),
            granularity: tensor.layout().granularity(),
            width: tensor.codes().width(),
            encoding: tensor.codes().encoding(),
            zero_points: !tensor.params().zero_point.is_empty(),
            scales: tensor.coded_scales().map(|scales| Box::new(Described::of(scales))),
        }
    }

    /// The tensor at the start of `bytes`, and what lies behind it.
    fn read(self, bytes: &[u8]) -> Option<(QTensor, &[u8])> {
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        // No product is empty; of others the scales need not be as few as the elements. What is rounded
        // to small floats is never kept.
        let shape =
            Some(&self.shape).filter(|_| elements > 0 && self.encoding.floats().is_none())?;
        let layout = Layout::new(shape, self.granularity).ok()?;
        let params = layout.params();
        let mut coded_scales = None;
        let mut scale = Vec::new();
        let rest = match self.scales {
            Some(scales) => {
                let (coded, rest) = scales.read(bytes)?;
                coded_scales = Some(coded);
                rest
            }
            None => {
                let (floats, rest) = bytes.split_at_checked(params.checked_mul(4)?)?;
                scale.extend(floats.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)));
                rest
            }
        };
        let (zero_point, rest) =
            rest.split_at_checked(if self.zero_points { params } else { 0 })?;
        let width = (1..=PackedInts::MAX_WIDTH).contains(&self.width).then_some(self.width)?;
        let coded = elements.div_ceil(8).checked_mul(8 * usize::from(width))?.div_ceil(8);
        let coded = if width == 8 { elements } else { coded };
        let (codes, rest) = rest.split_at_checked(coded)?;
        let codes = PackedInts::from_bytes(codes.to_vec(), elements, width, self.encoding)?;
        let zero_point = zero_point.to_vec();
        let tensor = match coded_scales {
            Some(scales) => QTensor::with_coded_scales(layout, scales, zero_point, codes)?,
            None => QTensor::new(layout, QuantParams { scale, zero_point }, codes)?,
        };
        Some((tensor, rest))
    }
}

#[cfg(test)]
mod tests {
    use fewbits_quant::{Bits, ScaleType, Scheme, quantize};

    use super::*;
    use crate::plan::Target;

    fn layers() -> Vec<(String, QTensor)> {
        let values: Vec<f32> = (0..60).map(|i| (i * 7 % 23) as f32 - 9.0).collect();
        let mut layers = Vec::new();
        let group = Granularity::Group { axis: 0, size: 4.try_into().unwrap() };
        for bits in [1, 3, 4, 8] {
            let bits = Bits::new(bits).unwrap();
            for granularity in [Granularity::Tensor, Granularity::Channel { axis: 1 }, group] {
                for scheme in
                    [Scheme::Affine { bits, granularity }, Scheme::Symmetric { bits, granularity }]
                {
                    for scales in [ScaleType::F32, ScaleType::U8] {
                        let layer = quantize(&values, &[10, 6], scheme).unwrap();
                        layers.push((format!("{scheme}, {scales}"), layer.with_scales(scales)));
                    }
                }
            }
        }
        layers
    }

    fn found(path: &Path) -> usize {
        let plan = Plan::new(Vec::new(), Target::default());
        let finished = Checkpoint::open_with(path, "a").unwrap();
        let of_plan = finished.of_plan(&plan, &WeightLimits::default());
        layers().iter().filter(|(name, layer)| of_plan.get(name).as_ref() == Some(layer)).count()
    }

    #[test]
    fn layers_are_read_back_as_they_were_wherever_the_file_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let plan = Plan::new(Vec::new(), Target::default());
        let finished = Checkpoint::open_with(&path, "a").unwrap();
        let layers = layers();
        let mut ends = vec![std::fs::metadata(&path).unwrap().len() as usize];
        for (name, layer) in &layers {
            finished.of_plan(&plan, &WeightLimits::default()).keep(name, layer).unwrap();
            ends.push(std::fs::metadata(&path).unwrap().len() as usize);
        }
        let whole = std::fs::read(&path).unwrap();
        for end in (ends[0]..=whole.len()).step_by(13).chain([whole.len()]) {
            std::fs::write(&path, &whole[..end]).unwrap();
            let complete = ends.iter().filter(|&&e| e <= end).count() - 1;
            assert_eq!(found(&path), complete);
            // What was cut is gone, and the next layer is found behind the others.
            assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, ends[complete]);
        }
        // One that is damaged takes those behind it along.
        let mut damaged = whole.clone();
        damaged[ends[3] + 50] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(found(&path), 3);
        let finished = Checkpoint::open_with(&path, "a").unwrap();
        finished.of_plan(&plan, &WeightLimits::default()).keep(&layers[3].0, &layers[3].1).unwrap();
        assert_eq!(found(&path), 4);
    }

    #[test]
    fn other_plans_have_other_layers() {
        let finished = Checkpoint::default();
        let mut plan = Plan::new(Vec::new(), Target::default());
        let (name, layer) = layers().remove(0);
        finished.of_plan(&plan, &WeightLimits::default()).keep(&name, &layer).unwrap();
        plan.target = Target::Generic;
        assert_eq!(finished.of_plan(&plan, &WeightLimits::default()).get(&name), Some(layer));
        plan.adjustments.push(crate::plan::Adjustment {
            method: crate::plan::Method::Awq,
            edit: crate::plan::Edit::MultiplyForProducts { value: "x".into() },
            values: vec![2.0],
        });
        assert_eq!(finished.of_plan(&plan, &WeightLimits::default()).get(&name), None);
    }

    #[test]
    fn what_is_no_state_or_that_of_something_else_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let refused =
            |key: &str| Checkpoint::open_with(&path, key).err().map(|error| error.to_string());
        assert_eq!(refused("a"), None);
        assert!(refused("b").unwrap().contains("another model"));
        std::fs::write(&path, "{\"fewbits_layers\":2,\"key\":\"a\"}\n").unwrap();
        assert!(refused("a").unwrap().contains("format"));
        for junk in ["", "\n", "{}\n", "x", "{\"fewbits_tune\":1}"] {
            std::fs::write(&path, junk).unwrap();
            assert!(refused("a").unwrap().contains("no finished layers"), "{junk}");
        }
    }
}
