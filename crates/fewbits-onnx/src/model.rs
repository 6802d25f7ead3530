//! A model file: mapped, decoded, checked, its external data resolved.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fewbits_kernels::MappedFile;
use prost::Message;

use crate::proto::{
    DataLocation, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
};
use crate::{OnnxError, Result};

/// The domain of ONNX Runtime's own operators.
pub(crate) const MICROSOFT: &str = "com.microsoft";

/// The domain of ONNX's operators for classical machine learning.
pub const MODEL_DOMAIN_ML: &str = "ai.onnx.ml";

/// The lowest IR version that carries `opset` of the default domain, after the specification's
/// table.
pub fn ir_version_of_opset(opset: i64) -> i64 {
    match opset {
        ..=8 => 3,
        9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}

/// Bytes read between two releases of mapped memory.
const RELEASE_STEP_BYTES: usize = 4 << 20;

/// An ONNX model in memory. Weights of a model read from a file are borrowed from its map, so a
/// clone is cheap.
#[derive(Clone)]
pub struct Model {
    proto: ModelProto,
    path: Option<PathBuf>,
    maps: Vec<Arc<MappedFile>>,
    /// Of a model decoded from memory, the bytes of its file.
    memory_bytes: u64,
}

/// Lets [`Bytes`] own a share of a map.
struct Shared(Arc<MappedFile>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}

fn map(path: &Path) -> std::io::Result<(Arc<MappedFile>, Bytes)> {
    let map = Arc::new(MappedFile::open(path)?);
    Ok((map.clone(), Bytes::from_owner(Shared(map))))
}

impl Model {
    /// Opens a model file: maps it, decodes it, resolves external data and checks that every
    /// tensor holds what its shape asks for.
    ///
    /// # Errors
    /// If it cannot be read, is no model, or is damaged, as is what it has beside it: with the tensor where one is wrong.
    pub fn open(path: &Path) -> Result<Model> {
        let unreadable = |source| OnnxError::Read { path: path.to_path_buf(), source };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        let file = path.display().to_string();
        if metadata.is_dir() {
            return Err(OnnxError::NotOnnx { file, reason: "it is a folder".into() });
        }
        if metadata.len() == 0 {
            return Err(OnnxError::NotOnnx { file, reason: "it is empty".into() });
        }
        let (mapped, bytes) = map(path).map_err(unreadable)?;
        let mut model = Model::decode(bytes, &file)?;
        model.path = Some(path.to_path_buf());
        model.maps.push(mapped);
        model.resolve_external(path.parent().unwrap_or(Path::new("")))?;
        model.check_tensors()?;
        Ok(model)
    }

    /// Decodes a model from memory. External data cannot be resolved from here and is refused.
    ///
    /// # Errors
    /// If they are no model, or a damaged one, or some of its data lie in other files.
    pub fn from_bytes(bytes: Bytes) -> Result<Model> {
        let memory_bytes = bytes.len() as u64;
        let mut model = Model { memory_bytes, ..Model::decode(bytes, "model bytes")? };
        model.for_each_tensor(&mut |tensor| {
            if tensor.is_external() {
                return Err(OnnxError::ExternalData {
                    tensor: tensor.name().to_string(),
                    location: external_entry(tensor, "location").unwrap_or_default().to_string(),
                    reason: "the model came from memory, not from a folder".into(),
                });
            }
            Ok(())
        })?;
        model.check_tensors()?;
        Ok(model)
    }

    /// A model of one graph, with one opset of the default domain.
    pub fn from_graph(graph: GraphProto, opset: i64) -> Model {
        Model {
            proto: ModelProto {
                ir_version: Some(ir_version_of_opset(opset)),
                opset_import: vec![OperatorSetIdProto {
                    domain: Some(String::new()),
                    version: Some(opset),
                }],
                producer_name: Some("fewbits".into()),
                graph: Some(graph),
                ..ModelProto::default()
            },
            path: None,
            maps: Vec::new(),
            memory_bytes: 0,
        }
    }

    fn decode(bytes: Bytes, file: &str) -> Result<Model> {
        let not_onnx = |reason: String| OnnxError::NotOnnx { file: file.to_string(), reason };
        let proto = ModelProto::decode(bytes).map_err(|e| not_onnx(e.to_string()))?;
        if proto.graph.is_none() {
            return Err(not_onnx("it has no graph".into()));
        }
        if proto.opset_import.is_empty() {
            return Err(not_onnx("it names no operator set".into()));
        }
        Ok(Model { proto, path: None, maps: Vec::new(), memory_bytes: 0 })
    }

    /// The messages of the model.
    pub fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// The messages of the model, to edit.
    pub fn proto_mut(&mut self) -> &mut ModelProto {
        &mut self.proto
    }

    /// The main graph.
    pub fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("checked when the model was made")
    }

    /// The main graph, to edit.
    pub fn graph_mut(&mut self) -> &mut GraphProto {
        self.proto.graph.as_mut().expect("checked when the model was made")
    }

    /// Where the model was read from.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The version of the default operator set, or 0 when the model does not import it.
    pub fn opset(&self) -> i64 {
        self.proto
            .opset_import
            .iter()
            .filter(|import| import.is_default())
            .map(OperatorSetIdProto::version)
            .max()
            .unwrap_or(0)
    }

    /// Imports operators of another domain, if the model does not yet.
    pub fn import_domain(&mut self, domain: &str, version: i64) {
        if self.proto.opset_import.iter().all(|o| o.domain() != domain) {
            self.proto.opset_import.push(OperatorSetIdProto {
                domain: Some(domain.to_string()),
                version: Some(version),
            });
        }
    }

    /// Sets the entry `key` of `metadata_props`.
    pub fn set_metadata(&mut self, key: &str, value: &str) {
        self.proto.metadata_props.retain(|p| p.key() != key);
        self.proto.metadata_props.push(StringStringEntryProto {
            key: Some(key.to_string()),
            value: Some(value.to_string()),
        });
    }

    /// The entry `key` of `metadata_props`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.proto.metadata_props.iter().find(|p| p.key() == key).map(|p| p.value())
    }

    /// Bytes of the files that the model was read from, external data included, or of the file in
    /// memory that it was decoded from; 0 for a model made in memory.
    pub fn file_bytes(&self) -> u64 {
        let mapped = self.maps.iter().map(|map| map.as_ref().as_ref().len() as u64);
        self.memory_bytes + mapped.sum::<u64>()
    }

    /// The values of a float tensor, its mapped memory given back while it is read.
    ///
    /// # Errors
    /// If it holds no floats, or not as many as its shape asks for.
    pub fn floats_released(&self, tensor: &TensorProto) -> Result<Vec<f32>> {
        tensor.check()?;
        let raw = tensor.raw_data();
        if raw.is_empty() {
            return tensor.floats();
        }
        let mut values = Vec::with_capacity(tensor.element_count()?);
        for part in raw.chunks(RELEASE_STEP_BYTES) {
            tensor.extend_floats(part, &mut values)?;
            for map in &self.maps {
                map.release(part);
            }
        }
        Ok(values)
    }

    /// A copy of a payload, its mapped memory given back while it is read.
    pub(crate) fn bytes_released(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(payload.len());
        for part in payload.chunks(RELEASE_STEP_BYTES) {
            bytes.extend_from_slice(part);
            for map in &self.maps {
                map.release(part);
            }
        }
        bytes
    }

    fn for_each_tensor(
        &mut self,
        visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>,
    ) -> Result<()> {
        self.graph_mut().for_each_tensor_mut(visit)?;
        let mut bodies = self.proto.functions.iter_mut().flat_map(|function| &mut function.node);
        bodies.try_for_each(|node| node.for_each_tensor_mut(visit))
    }

    fn check_tensors(&mut self) -> Result<()> {
        self.for_each_tensor(&mut |tensor| tensor.check())
    }

    /// Maps the files that tensors name and makes each payload a slice of its map.
    fn resolve_external(&mut self, folder: &Path) -> Result<()> {
        let mut files: HashMap<String, Bytes> = HashMap::new();
        let mut maps = Vec::new();
        self.for_each_tensor(&mut |tensor| {
            if !tensor.is_external() {
                return Ok(());
            }
            let location = external_entry(tensor, "location").unwrap_or_default().to_string();
            let name = tensor.name().to_string();
            let wrong = |reason: String| OnnxError::ExternalData {
                tensor: name.clone(),
                location: location.clone(),
                reason,
            };
            if !files.contains_key(&location) {
                let path = contained(folder, &location).ok_or_else(|| {
                    OnnxError::ExternalEscapes { tensor: name.clone(), location: location.clone() }
                })?;
                let (mapped, bytes) = map(&path).map_err(|e| wrong(e.to_string()))?;
                maps.push(mapped);
                files.insert(location.clone(), bytes);
            }
            let file = &files[&location];
            let number = |key: &str| -> Result<Option<usize>> {
                external_entry(tensor, key)
                    .map(|v| {
                        v.parse().map_err(|_| wrong(format!("its {key} '{v}' is not a number")))
                    })
                    .transpose()
            };
            let offset = number("offset")?.unwrap_or(0);
            let available = file.len().checked_sub(offset).ok_or_else(|| {
                wrong(format!("its offset {offset} lies past the end of the file"))
            })?;
            let length = number("length")?.unwrap_or(available);
            if length > available {
                return Err(wrong(format!("{length} bytes asked for, {available} there")));
            }
            tensor.raw_data = Some(file.slice(offset..offset + length));
            tensor.external_data.clear();
            tensor.data_location = Some(DataLocation::Default as i32);
            Ok(())
        })?;
        self.maps.extend(maps);
        Ok(())
    }
}

fn external_entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    tensor.external_data.iter().find(|e| e.key() == key).map(|e| e.value())
}

/// The path of `location` inside `folder`, or `None` if it could lie elsewhere: an absolute path,
/// one with `..`, or a symbolic link that leads out.
fn contained(folder: &Path, location: &str) -> Option<PathBuf> {
    let relative = Path::new(location);
    let plain = !location.is_empty()
        && relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain {
        return None;
    }
    let path = folder.join(relative);
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(real), Ok(folder)) => real.starts_with(folder).then_some(path),
        // It does not exist: let opening it say so.
        _ => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_locations_are_refused() {
        let folder = std::env::temp_dir();
        for location in ["/etc/passwd", "../secret", "a/../../b", ""] {
            assert_eq!(contained(&folder, location), None, "{location}");
        }
        assert!(contained(&folder, "weights.bin").is_some());
    }

    #[test]
    fn bytes_that_are_not_a_model_are_refused() {
        for bytes in [&b""[..], b"PK\x03\x04 not a model", b"\x08\x08"] {
            assert!(matches!(
                Model::from_bytes(Bytes::copy_from_slice(bytes)),
                Err(OnnxError::NotOnnx { .. })
            ));
        }
    }
}
