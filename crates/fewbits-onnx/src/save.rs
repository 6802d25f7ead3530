//! Writing a model: whole or not at all, and without holding it twice in memory.
//!
//! The messages around the weights are encoded in memory, each weight's payload goes straight to
//! the file. Protobuf allows the fields of a message in any order, so the graph is written last
//! and, within it, each initializer's `raw_data` last.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::proto::{DataLocation, GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use crate::temporary::{publish, remove_left_over, temporary};
use crate::{Model, OnnxError, Result};

/// Above this many bytes of weights they go to a file beside the model: protobuf readers stop at
/// 2 GiB, and some count the messages' overhead against it.
pub const EXTERNAL_DATA_THRESHOLD_BYTES: u64 = 3 << 29;

/// Tensors below this size stay in the model even when the others go to a file of their own:
/// shapes and scalars are wanted by readers before the weights are.
const EXTERNAL_TENSOR_MIN_BYTES: usize = 1024;

/// External tensors start at multiples of this, so that readers can map them.
const EXTERNAL_ALIGNMENT_BYTES: u64 = 4096;

const GRAPH_FIELD: u64 = 7;
const INITIALIZER_FIELD: u64 = 5;
const RAW_DATA_FIELD: u64 = 9;

/// Where weights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ExternalData {
    /// Into the model, or beside it above [`EXTERNAL_DATA_THRESHOLD_BYTES`].
    #[default]
    Automatic,
    /// Always into a file `<model>.data` beside it.
    Beside,
}

/// How to save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SaveOptions {
    /// Where weights go.
    pub external_data: ExternalData,
    /// Whether an existing file may be replaced.
    pub replace: Replace,
}

/// Whether an existing output may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Replace {
    /// An existing file is an error.
    #[default]
    Never,
    /// An existing file is replaced, once the new one is complete.
    Existing,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Bytes of the model, those of its external data included.
    pub file_bytes: u64,
    /// The file that holds the weights, if not the model itself.
    pub external_data: Option<PathBuf>,
}

impl Model {
    /// Writes the model to `path`: to temporary files beside it, renamed when complete.
    ///
    /// # Errors
    /// If a file cannot be written, or stands there and may not be replaced. Nothing is left behind then.
    pub fn save(&self, path: &Path, options: SaveOptions) -> Result<Saved> {
        let external = match options.external_data {
            ExternalData::Beside => true,
            ExternalData::Automatic => self.weight_bytes() > EXTERNAL_DATA_THRESHOLD_BYTES,
        };
        let cannot_write = |source| OnnxError::Write { path: path.to_path_buf(), source };
        let file_name = path
            .file_name()
            .ok_or_else(|| cannot_write(io::Error::other("it is not a file name")))?;
        let data_name = format!("{}.data", file_name.to_string_lossy());
        let data_path = path.with_file_name(&data_name);
        if options.replace == Replace::Never {
            let outputs = [Some(path), external.then_some(data_path.as_path())];
            if let Some(taken) = outputs.into_iter().flatten().find(|p| p.exists()) {
                return Err(OnnxError::Exists { path: taken.to_path_buf() });
            }
        }
        // A run that was killed may have written weights beside where this one does not.
        remove_left_over(&data_path);
        let mut proto = self.proto().clone();
        let mut file_bytes = 0;
        let mut data = None;
        if external {
            let file = temporary(&data_path).map_err(cannot_write)?;
            file_bytes +=
                move_outside(&mut proto, &data_name, file.as_file()).map_err(cannot_write)?;
            data = Some(file);
        }
        let file = temporary(path).map_err(cannot_write)?;
        let mut out = BufWriter::new(file.as_file());
        file_bytes += write_model(&proto, &mut out).map_err(cannot_write)?;
        out.flush().map_err(cannot_write)?;
        drop(out);
        // The weights first: a model whose data file is missing would be a half result.
        if let Some(data) = data {
            publish(data, &data_path).map_err(cannot_write)?;
        }
        publish(file, path).map_err(cannot_write)?;
        Ok(Saved { file_bytes, external_data: external.then_some(data_path) })
    }

    /// Bytes of the file that the model would be with its weights inside, without making it.
    pub fn encoded_bytes(&self) -> u64 {
        write_model(self.proto(), &mut io::sink()).expect("writing to nowhere does not fail")
    }

    /// The model as the bytes of a file, weights included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_model(self.proto(), &mut bytes).expect("writing to memory does not fail");
        bytes
    }

    /// The model as the bytes of a file without its large weights, and those as external data: each
    /// payload under the location that the bytes name. Payloads that nobody else holds are moved,
    /// not copied.
    pub fn into_parts(mut self) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
        let mut payloads = Vec::new();
        let mut initializers = std::mem::take(&mut self.graph_mut().initializer);
        for tensor in &mut initializers {
            let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= EXTERNAL_TENSOR_MIN_BYTES)
            else {
                continue;
            };
            let location = format!("{}.data", payloads.len());
            make_external(tensor, &location, 0, raw.len());
            let payload = if raw.is_unique() { Vec::from(raw) } else { self.bytes_released(&raw) };
            payloads.push((location, payload));
        }
        self.graph_mut().initializer = initializers;
        (self.to_bytes(), payloads)
    }
}

/// Moves the payloads of large initializers to `file`; returns its length in bytes.
fn move_outside(proto: &mut ModelProto, location: &str, file: &std::fs::File) -> io::Result<u64> {
    let mut out = BufWriter::new(file);
    let mut offset = 0u64;
    let graph = proto.graph.as_mut().expect("a model has a graph");
    for tensor in &mut graph.initializer {
        let raw = match &tensor.raw_data {
            Some(raw) if raw.len() >= EXTERNAL_TENSOR_MIN_BYTES => raw.clone(),
            _ => continue,
        };
        let start = offset.next_multiple_of(EXTERNAL_ALIGNMENT_BYTES);
        out.write_all(&vec![0; (start - offset) as usize])?;
        out.write_all(&raw)?;
        offset = start + raw.len() as u64;
        tensor.raw_data = None;
        make_external(tensor, location, start, raw.len());
    }
    out.flush()?;
    Ok(offset)
}

/// Says where the payload of `tensor` is.
fn make_external(tensor: &mut TensorProto, location: &str, offset: u64, length: usize) {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_string()),
        value: Some(value),
    };
    tensor.data_location = Some(DataLocation::External as i32);
    tensor.external_data = vec![
        entry("location", location.to_string()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
}

/// One initializer, split into its small head and its payload.
struct Split {
    head: Vec<u8>,
    raw: Option<Bytes>,
}

impl Split {
    fn new(tensor: &TensorProto) -> Split {
        let mut head = tensor.clone();
        let raw = head.raw_data.take();
        Split { head: head.encode_to_vec(), raw }
    }

    fn encoded_len(&self) -> u64 {
        let raw = self.raw.as_ref().map_or(0, |raw| field_len(RAW_DATA_FIELD, raw.len() as u64));
        self.head.len() as u64 + raw
    }
}

/// Bytes of a length-delimited field with its header.
fn field_len(field: u64, content: u64) -> u64 {
    (encoded_len_varint(field << 3 | 2) + encoded_len_varint(content)) as u64 + content
}

fn write_header(field: u64, content: u64, out: &mut impl Write) -> io::Result<()> {
    let mut header = Vec::with_capacity(12);
    encode_varint(field << 3 | 2, &mut header);
    encode_varint(content, &mut header);
    out.write_all(&header)
}

fn write_model(proto: &ModelProto, out: &mut impl Write) -> io::Result<u64> {
    let graph = proto.graph.as_ref().expect("a model has a graph");
    let initializers: Vec<Split> = graph.initializer.iter().map(Split::new).collect();
    // Clones of messages share their payloads: nothing large is copied here.
    let graph_head = GraphProto { initializer: Vec::new(), ..graph.clone() }.encode_to_vec();
    let model_head = ModelProto { graph: None, ..proto.clone() }.encode_to_vec();
    let graph_len = graph_head.len() as u64
        + initializers.iter().map(|t| field_len(INITIALIZER_FIELD, t.encoded_len())).sum::<u64>();

    out.write_all(&model_head)?;
    write_header(GRAPH_FIELD, graph_len, out)?;
    out.write_all(&graph_head)?;
    for tensor in &initializers {
        write_header(INITIALIZER_FIELD, tensor.encoded_len(), out)?;
        out.write_all(&tensor.head)?;
        if let Some(raw) = &tensor.raw {
            write_header(RAW_DATA_FIELD, raw.len() as u64, out)?;
            out.write_all(raw)?;
        }
    }
    Ok(model_head.len() as u64 + field_len(GRAPH_FIELD, graph_len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::NodeProto;

    fn model() -> Model {
        let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let graph = GraphProto {
            node: vec![NodeProto::new("Add", &["x", "w"], &["y"])],
            name: Some("g".into()),
            initializer: vec![
                TensorProto::from_f32("w", &[10, 100], &values),
                TensorProto::from_i64("s", &[1], &[3]),
            ],
            ..GraphProto::default()
        };
        Model::from_graph(graph, 17)
    }

    #[test]
    fn streamed_bytes_decode_to_the_same_model() {
        let model = model();
        let bytes = model.to_bytes();
        let read = Model::from_bytes(Bytes::from(bytes)).unwrap();
        assert_eq!(read.proto(), model.proto());
    }

    #[test]
    fn parts_hold_large_payloads_apart() {
        let (bytes, payloads) = model().into_parts();
        let [(location, payload)] = payloads.as_slice() else { panic!("one tensor is large") };
        assert_eq!(payload.len(), 4000);
        let read = ModelProto::decode(bytes.as_slice()).unwrap();
        let initializers = &read.graph.unwrap().initializer;
        assert_eq!(initializers[0].external_data[0].value(), location);
        assert!(initializers[1].external_data.is_empty());
    }

    #[test]
    fn external_data_is_written_beside_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let options = SaveOptions { external_data: ExternalData::Beside, ..Default::default() };
        let saved = model().save(&path, options).unwrap();
        assert_eq!(saved.external_data, Some(folder.path().join("m.onnx.data")));
        let on_disk = |p: &Path| std::fs::metadata(p).unwrap().len();
        assert_eq!(saved.file_bytes, on_disk(&path) + on_disk(&folder.path().join("m.onnx.data")));
        let read = Model::open(&path).unwrap();
        assert_eq!(
            read.graph().find_initializer("w").unwrap().floats().unwrap(),
            model().graph().find_initializer("w").unwrap().floats().unwrap()
        );
        // Neither file is replaced without leave.
        assert!(matches!(model().save(&path, options), Err(OnnxError::Exists { .. })));
        // A shortened data file is told, not read past its end.
        std::fs::write(folder.path().join("m.onnx.data"), [0; 100]).unwrap();
        assert!(matches!(Model::open(&path), Err(OnnxError::ExternalData { .. })));
    }

    #[test]
    fn a_failed_save_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("m.onnx");
        assert!(matches!(
            model().save(&path, SaveOptions::default()),
            Err(OnnxError::Write { .. })
        ));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
