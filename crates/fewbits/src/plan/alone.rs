//! What a weight takes in a file.

use fewbits_onnx::Model;
use fewbits_onnx::proto::{GraphProto, NodeProto, TensorProto};
use fewbits_onnx::qweight::{QWeightWriter, ReadBy, WeightForm};
use fewbits_quant::QTensor;

use crate::Result;

/// A weight and the operators that read it, as a model of their own in which other forms are weighed.
pub(crate) struct Alone {
    model: Model,
    name: String,
    float_bytes: u64,
    rest_bytes: u64,
}

impl Alone {
    /// Takes a float weight out of a model.
    pub fn new(model: &Model, weight: &TensorProto) -> Alone {
        let name = weight.name();
        let node = model.graph().node.iter().filter(|node| reads(node, name)).cloned().collect();
        let graph = GraphProto { node, initializer: vec![weight.clone()], ..GraphProto::default() };
        let alone = Model::from_graph(graph, model.opset());
        let float_bytes = weight.stored_bytes();
        let rest_bytes = (alone.to_bytes().len() as u64).saturating_sub(float_bytes);
        Alone { model: alone, name: name.to_string(), float_bytes, rest_bytes }
    }

    /// The bytes of its floats.
    pub fn float_bytes(&self) -> u64 {
        self.float_bytes
    }

    /// The bytes of its integers, of their parameters, and of the operators that make floats of them.
    ///
    /// # Errors
    /// If they cannot be written at the model's opset.
    pub fn bytes_as(&self, weight: QTensor, form: WeightForm) -> Result<u64> {
        let mut model = self.model.clone();
        let mut writer = QWeightWriter::new(&mut model, form);
        // Of both forms the larger one.
        writer.replace(&self.name, weight, ReadBy::Floats)?;
        writer.finish();
        Ok((model.to_bytes().len() as u64).saturating_sub(self.rest_bytes))
    }
}

fn reads(node: &NodeProto, name: &str) -> bool {
    let mut reads = false;
    node.for_each_use(&mut |used| reads |= used == name);
    reads
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbits_quant::{Bits, Granularity, Scheme, quantize};

    #[test]
    fn the_bytes_are_those_of_the_file() {
        let values: Vec<f32> = (0..640).map(|i| (i % 13) as f32 - 6.0).collect();
        let graph = GraphProto {
            node: vec![
                NodeProto::new("MatMul", &["x", "w"], &["y"]),
                NodeProto::new("Relu", &["y"], &["z"]),
            ],
            initializer: vec![TensorProto::from_f32("w", &[64, 10], &values)],
            ..GraphProto::default()
        };
        let model = Model::from_graph(graph, 13);
        let alone = Alone::new(&model, &model.graph().initializer[0]);
        assert_eq!(alone.float_bytes(), 2560);
        let of = |bits: u8| {
            let bits = Bits::new(bits).unwrap();
            let scheme = Scheme::Symmetric { bits, granularity: Granularity::Channel { axis: 1 } };
            let weight = quantize(&values, &[64, 10], scheme).unwrap();
            let mut whole = model.clone();
            let mut writer = QWeightWriter::new(&mut whole, WeightForm::Newest);
            writer.replace("w", weight.clone(), ReadBy::Floats).unwrap();
            writer.finish();
            let saved = model.to_bytes().len() - whole.to_bytes().len();
            let bytes = alone.bytes_as(weight, WeightForm::Newest).unwrap();
            assert_eq!(alone.float_bytes() - bytes, saved as u64);
            bytes
        };
        assert!(of(3) < of(8) && of(7) == of(8));
    }
}
