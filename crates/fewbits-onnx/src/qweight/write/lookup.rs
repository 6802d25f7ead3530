//! Tables that rows are looked up in.

use fewbits_quant::{Encoding, Granularity, QTensor};

use super::QWeightWriter;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

impl QWeightWriter<'_> {
    /// The positions of the `Gather` nodes that look rows up in `name`, if nothing else reads it
    /// and rows can be dequantized after the look-up.
    pub(super) fn lookups(&self, name: &str, weight: &QTensor, data_type: DataType) -> Vec<usize> {
        let by_row = matches!(
            weight.layout().granularity(),
            Granularity::Tensor | Granularity::Channel { axis: 0 }
        );
        let graph = self.model.graph();
        // Those of small floats are folded as a whole: no look-up of the opset reads their types.
        if !by_row
            || matches!(weight.codes().encoding(), Encoding::Float(_))
            || data_type != DataType::Float
            || weight.layout().shape().len() != 2
            || graph.is_output(name)
        {
            return Vec::new();
        }
        let mut readers = Vec::new();
        for (i, node) in graph.node.iter().enumerate() {
            let mut uses = 0;
            node.for_each_use(&mut |used| uses += usize::from(used == name));
            if uses == 0 {
                continue;
            }
            let looks_up = node.is("Gather")
                && node.int("axis", 0) == 0
                && node.input.first().is_some_and(|i| i == name);
            if !(looks_up && uses == 1) {
                return Vec::new();
            }
            readers.push(i);
        }
        readers
    }

    /// Looks integers up and dequantizes the rows found: a table dequantized as a whole would cost
    /// every call the size of the vocabulary. The integers take the table's name.
    pub(super) fn look_up(&mut self, weight: QTensor, name: &str, lookups: Vec<usize>) {
        let params = weight.params().clone();
        let coded_scales = weight.coded_scales().cloned();
        let rows = match weight.layout().granularity() {
            Granularity::Tensor => Vec::new(),
            _ => vec![params.scale.len(), 1],
        };
        // Sub-byte types cannot be looked up everywhere.
        let integer_type = match (weight.codes().width(), weight.codes().encoding()) {
            (9.., _) => DataType::Int16,
            (_, Encoding::Unsigned) => DataType::Uint8,
            _ => DataType::Int8,
        };
        let sliced = self.slices(weight.codes()) && weight.codes().width() != 8;
        let shape = weight.layout().shape().to_vec();
        let (width, codes) = (weight.codes().width(), weight.into_codes());
        let table = if sliced {
            let data_type = if width > 8 { DataType::Float } else { integer_type };
            self.unpacked(codes, data_type, &shape)
        } else {
            let bytes = match width {
                8 => codes.into_bytes(),
                9.. => codes.unpack().into_iter().flat_map(i16::to_le_bytes).collect(),
                _ => codes.unpack().into_iter().map(|code| code as u8).collect(),
            };
            self.initializers.push(TensorProto::from_raw(name, &shape, integer_type, bytes));
            name.to_string()
        };
        let scale = self.scales(&rows, &params.scale, coded_scales.as_ref());
        let zero_point: Vec<f32> = params.zero_point.iter().map(|&z| f32::from(z)).collect();
        let zero_point = (!zero_point.is_empty())
            .then(|| self.constant("z", |n| TensorProto::from_f32(n, &rows, &zero_point)));
        for position in lookups {
            let node = self.model.graph().node[position].clone();
            let (index, output) = (node.input[1].clone(), node.output[0].clone());
            let mut steps = Vec::new();
            let mut look = |writer: &mut Self, param: &str| {
                if rows.is_empty() && param != table {
                    return param.to_string();
                }
                let found = writer.names.fresh("e");
                steps.push(NodeProto::new("Gather", &[param, &index], &[&found]));
                found
            };
            let found = look(self, &table);
            let scale = look(self, &scale);
            let zero_point = zero_point.as_ref().map(|z| look(self, z));
            let mut q = self.names.fresh("e");
            steps.push(
                NodeProto::new("Cast", &[&found], &[&q])
                    .with(AttributeProto::of_int("to", DataType::Float as i64)),
            );
            if let Some(zero_point) = zero_point {
                let centred = self.names.fresh("e");
                steps.push(NodeProto::new("Sub", &[&q, &zero_point], &[&centred]));
                q = centred;
            }
            steps.push(NodeProto::new("Mul", &[&q, &scale], &[&output]));
            self.replaced.push((position, steps));
        }
    }
}
