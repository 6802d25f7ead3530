use std::num::NonZeroUsize;

use fewbits_quant::{
    Bits, FloatFormat, FractionBits, Granularity, PackedInts, QTensor, QuantParams, ScaleType,
    Scheme, quantize,
};

use super::{QWeightWriter, ReadBy, WeightForm, WeightReader, fields};
use crate::Model;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};

fn model(shape: &[usize], opset: i64, data_type: DataType) -> (Model, Vec<f32>) {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0).collect();
    let weight = match data_type {
        DataType::Double => TensorProto::from_f64(
            "w",
            shape,
            &values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(),
        ),
        _ => TensorProto::from_f32("w", shape, &values),
    };
    let graph = GraphProto {
        node: vec![NodeProto::new("MatMul", &["x", "w"], &["y"])],
        name: Some("g".into()),
        input: vec![ValueInfoProto::tensor("x", data_type as i32, &[None, Some(shape[0] as i64)])],
        output: vec![ValueInfoProto::tensor("y", data_type as i32, &[None, None])],
        initializer: vec![weight],
        ..GraphProto::default()
    };
    (Model::from_graph(graph, opset), values)
}

fn schemes() -> Vec<Scheme> {
    let group = |size| Granularity::Group { axis: 0, size: NonZeroUsize::new(size).unwrap() };
    let mut all = Vec::new();
    for bits in Bits::all() {
        for granularity in [
            Granularity::Tensor,
            Granularity::Channel { axis: 0 },
            Granularity::Channel { axis: 1 },
            group(4),
            group(5),
        ] {
            all.push(Scheme::Symmetric { bits, granularity });
            all.push(Scheme::Affine { bits, granularity });
        }
    }
    // With more digits the weights of these tests need more than 16 bits.
    let digits = FractionBits::all().filter(|digits| digits.get() <= 10);
    all.extend(digits.map(|fraction_bits| Scheme::FixedPoint { fraction_bits }));
    all.extend(float_schemes());
    all
}

fn float_schemes() -> Vec<Scheme> {
    let group = |size| Granularity::Group { axis: 0, size: NonZeroUsize::new(size).unwrap() };
    let mut all = vec![Scheme::NvFp4 { axis: 0 }, Scheme::NvFp4 { axis: 1 }];
    for format in FloatFormat::ALL {
        for granularity in [
            Granularity::Tensor,
            Granularity::Channel { axis: 0 },
            Granularity::Channel { axis: 1 },
            group(4),
            group(5),
        ] {
            all.push(Scheme::Float { format, granularity });
        }
        all.extend([0, 1].map(|axis| Scheme::Mx { format, axis }));
    }
    all
}

const READERS: [ReadBy; 2] = [ReadBy::Integers, ReadBy::Floats];

fn round_trip(mut model: Model, weight: &QTensor, read_by: ReadBy) -> (Model, QTensor, DataType) {
    let mut writer = QWeightWriter::new(&mut model, WeightForm::Newest);
    writer.replace("w", weight.clone(), read_by).unwrap();
    writer.finish();
    let bytes = model.to_bytes();
    let model = Model::from_bytes(bytes.into()).unwrap();
    let mut found: Vec<_> = WeightReader::new(model.graph()).weights().collect();
    assert_eq!(found.len(), 1);
    let found = found.remove(0);
    assert_eq!(found.name, "w");
    (model, found.weight, found.data_type)
}

#[test]
fn every_scheme_reads_back_at_every_opset() {
    for opset in [11, 13, 17, 21, 25] {
        // Too small to be packed, packed, and packed with a tail.
        for shape in [[8, 6], [64, 40], [45, 65]] {
            let (model, values) = model(&shape, opset, DataType::Float);
            for scheme in schemes() {
                let weight = quantize(&values, &shape, scheme).unwrap();
                for read_by in READERS {
                    let (_, read, data_type) = round_trip(model.clone(), &weight, read_by);
                    assert_eq!(read.dequantize(), weight.dequantize(), "{scheme} at opset {opset}");
                    assert_eq!(read.layout().shape(), shape);
                    assert_eq!(data_type, DataType::Float);
                }
            }
        }
    }
}

fn coded(weight: &QTensor) -> Option<(&PackedInts, &QuantParams)> {
    weight.coded_scales().map(|scales| (scales.codes(), scales.params()))
}

#[test]
fn small_floats_and_coded_scales_read_back_as_they_were() {
    for opset in [13, 19, 21, 25] {
        for shape in [[8, 6], [64, 40], [45, 65]] {
            let (model, values) = model(&shape, opset, DataType::Float);
            for scheme in float_schemes() {
                let weight = quantize(&values, &shape, scheme).unwrap();
                let (_, read, _) = round_trip(model.clone(), &weight, ReadBy::Floats);
                // Of a group that is longer than its axis the size is lost.
                assert_eq!(read.codes(), weight.codes(), "{scheme} at opset {opset}");
                assert_eq!(read.params(), weight.params(), "{scheme} at opset {opset}");
                assert_eq!(coded(&read), coded(&weight), "{scheme}");
            }
            for scheme in schemes() {
                for scales in [ScaleType::F16, ScaleType::U8] {
                    let weight = quantize(&values, &shape, scheme).unwrap().with_scales(scales);
                    for read_by in READERS {
                        let (_, read, _) = round_trip(model.clone(), &weight, read_by);
                        assert_eq!(read.dequantize(), weight.dequantize(), "{scheme} at {opset}");
                        assert_eq!(coded(&read), coded(&weight), "{scheme}");
                    }
                }
            }
        }
    }
}

#[test]
fn blocks_of_other_tools_are_read() {
    let (model, values) = model(&[64, 40], 24, DataType::Float);
    let quantized = |scheme| quantize(&values, &[64, 40], scheme).unwrap();
    let mx = quantized(Scheme::Mx { format: FloatFormat::E2m1, axis: 0 });
    let nv = quantized(Scheme::NvFp4 { axis: 0 });
    for (weight, block, scale_type) in
        [(mx, 32, DataType::Float8e8m0), (nv, 16, DataType::Float8e4m3fn)]
    {
        let scales = weight.coded_scales().unwrap();
        let codes =
            TensorProto::from_raw("q", &[64, 40], DataType::Float4e2m1, fields(weight.codes(), 4));
        let bytes = scales.codes().bytes().to_vec();
        let narrow = TensorProto::from_raw("n", &[64 / block, 40], scale_type, bytes);
        let of_scales = TensorProto::from_f32("o", &[], &scales.params().scale);
        let blocks = |scale| {
            NodeProto::new("DequantizeLinear", &["q", scale], &["w"])
                .with(AttributeProto::of_int("axis", 0))
                .with(AttributeProto::of_int("block_size", block as i64))
        };
        let mut graph = model.graph().clone();
        let nodes = match scale_type {
            DataType::Float8e8m0 => vec![blocks("n")],
            _ => vec![NodeProto::new("DequantizeLinear", &["n", "o"], &["s"]), blocks("s")],
        };
        graph.node.splice(0..0, nodes);
        graph.initializer = vec![codes, narrow, of_scales];
        let found: Vec<_> = WeightReader::new(&graph).weights().collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].weight, weight);
    }
}

#[test]
fn one_group_for_all_is_one_scale() {
    let (model, values) = model(&[32, 1], 17, DataType::Float);
    let format = FloatFormat::E2m1;
    let granularity = Granularity::Group { axis: 0, size: NonZeroUsize::new(32).unwrap() };
    for scheme in [
        Scheme::Symmetric { bits: Bits::EIGHT, granularity },
        Scheme::Affine { bits: Bits::new(4).unwrap(), granularity },
        Scheme::Float { format, granularity },
        Scheme::Mx { format, axis: 0 },
    ] {
        for read_by in READERS {
            let weight = quantize(&values, &[32, 1], scheme).unwrap();
            let (_, read, _) = round_trip(model.clone(), &weight, read_by);
            assert_eq!(read.dequantize(), weight.dequantize(), "{scheme}");
        }
    }
}

#[test]
fn doubles_are_cast_behind_the_weight() {
    let (model, values) = model(&[8, 6], 17, DataType::Double);
    let scheme =
        Scheme::Symmetric { bits: Bits::EIGHT, granularity: Granularity::Channel { axis: 1 } };
    let weight = quantize(&values, &[8, 6], scheme).unwrap();
    let (model, read, data_type) = round_trip(model, &weight, ReadBy::Floats);
    assert_eq!(read, weight);
    assert_eq!(data_type, DataType::Double);
    assert!(model.graph().node.iter().any(|n| n.is("Cast") && n.output[0] == "w"));
}

#[test]
fn narrow_widths_take_the_bytes_that_they_should() {
    let (model, values) = model(&[64, 32], 17, DataType::Float);
    for bits in Bits::all().filter(|&b| b.get() < 7) {
        let scheme = Scheme::Symmetric { bits, granularity: Granularity::Tensor };
        let weight = quantize(&values, &[64, 32], scheme).unwrap();
        let (model, ..) = round_trip(model.clone(), &weight, ReadBy::Floats);
        let packed = model.graph().initializer.iter().map(TensorProto::stored_bytes).max().unwrap();
        assert_eq!(packed, 64 * 32 / 8 * u64::from(bits.get()));
    }
}

#[test]
fn an_opset_without_the_operators_is_told() {
    let (mut model, values) = model(&[64, 40], 9, DataType::Float);
    let scheme = |bits| Scheme::Symmetric {
        bits: Bits::new(bits).unwrap(),
        granularity: Granularity::Tensor,
    };
    let mut writer = QWeightWriter::new(&mut model, WeightForm::Newest);
    let narrow = quantize(&values, &[64, 40], scheme(3)).unwrap();
    assert!(
        writer.replace("w", narrow, ReadBy::Floats).unwrap_err().to_string().contains("opset 11")
    );
    writer.replace("w", quantize(&values, &[64, 40], scheme(8)).unwrap(), ReadBy::Floats).unwrap();
    writer.finish();
    assert_eq!(WeightReader::new(model.graph()).weights().count(), 1);
}

#[test]
fn tables_are_looked_up_before_they_are_dequantized() {
    let values: Vec<f32> = (0..100 * 16).map(|i| (i % 37) as f32 - 18.0).collect();
    let graph = GraphProto {
        node: vec![
            NodeProto::new("Gather", &["table", "ids"], &["y"]),
            NodeProto::new("Gather", &["table", "more"], &["z"]),
        ],
        name: Some("g".into()),
        input: ["ids", "more"].map(|n| ValueInfoProto::tensor(n, 7, &[None])).to_vec(),
        output: ["y", "z"].map(|n| ValueInfoProto::tensor(n, 1, &[None, Some(16)])).to_vec(),
        initializer: vec![TensorProto::from_f32("table", &[100, 16], &values)],
        ..GraphProto::default()
    };
    for scheme in schemes() {
        let by_row =
            matches!(scheme.granularity(), Granularity::Tensor | Granularity::Channel { axis: 0 })
                && scheme.float_format().is_none();
        let mut model = Model::from_graph(graph.clone(), 21);
        let weight = quantize(&values, &[100, 16], scheme).unwrap();
        let mut writer = QWeightWriter::new(&mut model, WeightForm::Newest);
        writer.replace("table", weight.clone(), ReadBy::Floats).unwrap();
        writer.finish();
        let found: Vec<_> = WeightReader::new(model.graph()).weights().collect();
        assert_eq!(found.len(), if by_row { 2 } else { 1 }, "{scheme}");
        for read in found {
            assert_eq!(read.lookup.is_some(), by_row);
            assert_eq!(read.weight.dequantize(), weight.dequantize(), "{scheme}");
        }
    }
}

#[test]
fn what_products_of_floats_read_is_folded() {
    let (model, values) = model(&[64, 40], 21, DataType::Float);
    let dequantizes = |granularity, bits, form, read_by| {
        let scheme = Scheme::Affine { bits: Bits::new(bits).unwrap(), granularity };
        let mut model = model.clone();
        let mut writer = QWeightWriter::new(&mut model, form);
        let weight = quantize(&values, &[64, 40], scheme).unwrap();
        writer.replace("w", weight, read_by).unwrap();
        writer.finish();
        model.graph().node.iter().any(|node| node.is("DequantizeLinear"))
    };
    let blocks = Granularity::Group { axis: 0, size: NonZeroUsize::new(16).unwrap() };
    for form in [WeightForm::Newest, WeightForm::NBits] {
        for bits in 1..=8 {
            for whole in [Granularity::Tensor, Granularity::Channel { axis: 1 }] {
                assert!(dequantizes(whole, bits, form, ReadBy::Integers), "{bits}");
                assert!(!dequantizes(whole, bits, form, ReadBy::Floats), "{bits}");
            }
        }
        assert!(!dequantizes(blocks, 8, form, ReadBy::Floats));
    }
    assert!(dequantizes(blocks, 4, WeightForm::Newest, ReadBy::Floats));
    for form in [WeightForm::NewestUnsliced, WeightForm::Plain] {
        assert!(dequantizes(Granularity::Tensor, 8, form, ReadBy::Floats));
    }
}

/// Types and attributes that opset 13 lacks, and operators that unpack bit slices.
fn newer_and_sliced(graph: &GraphProto) -> (bool, bool) {
    let packed = [DataType::Int4, DataType::Uint4, DataType::Int2, DataType::Uint2];
    let has_packed = graph.initializer.iter().any(|t| packed.contains(&t.element_type().unwrap()));
    let in_blocks = graph.node.iter().any(|n| n.int("block_size", 0) != 0);
    (has_packed || in_blocks, graph.node.iter().any(|n| n.is("BitShift")))
}

#[test]
fn forms_keep_to_what_they_may_use() {
    let read_by = |node: NodeProto, values: &[f32]| GraphProto {
        node: vec![node],
        name: Some("g".into()),
        input: vec![ValueInfoProto::tensor("x", 1, &[None, None])],
        output: vec![ValueInfoProto::tensor("y", 1, &[None, None])],
        initializer: vec![TensorProto::from_f32("w", &[80, 64], values)],
        ..GraphProto::default()
    };
    let values: Vec<f32> = (0..80 * 64).map(|i| (i * 37 % 101) as f32 / 7.0 - 7.0).collect();
    let readers = [["x", "w"], ["w", "x"]].map(|i| ("MatMul", i));
    let mut used = std::collections::HashMap::new();
    for (op, inputs) in readers.into_iter().chain([("Gather", ["w", "x"])]) {
        let graph = read_by(NodeProto::new(op, &inputs, &["y"]), &values);
        for form in [WeightForm::Newest, WeightForm::NewestUnsliced, WeightForm::Plain] {
            for scheme in schemes() {
                let mut model = Model::from_graph(graph.clone(), 25);
                let weight = quantize(&values, &[80, 64], scheme).unwrap();
                let mut writer = QWeightWriter::new(&mut model, form);
                writer.replace("w", weight.clone(), ReadBy::Floats).unwrap();
                writer.finish();
                let (newer, sliced) = newer_and_sliced(model.graph());
                assert!(!newer || form != WeightForm::Plain, "{op}, {scheme}");
                assert!(!sliced || form != WeightForm::NewestUnsliced, "{op}, {scheme}");
                let seen: &mut (bool, bool) = used.entry(format!("{form:?}")).or_default();
                *seen = (seen.0 || newer, seen.1 || sliced);
                let found: Vec<_> = WeightReader::new(model.graph()).weights().collect();
                assert_eq!(found.len(), 1, "{op}, {form:?}, {scheme}");
                assert_eq!(found[0].weight.dequantize(), weight.dequantize(), "{op}, {scheme}");
            }
        }
    }
    // Each form uses what it may.
    assert_eq!(used["Newest"], (true, true));
    assert_eq!(used["NewestUnsliced"], (true, false));
    assert_eq!(used["Plain"], (false, true));
}

mod nbits {
    use fewbits_quant::{PackedInts, QuantParams};
    use proptest::prelude::*;

    use super::*;
    use crate::passes::to_qdq::unpack_nbits;
    use crate::proto::AttributeProto;

    /// A product of `x` and the weight `w`, of this shape and summed over this axis.
    fn product(shape: [usize; 2], axis: usize) -> Model {
        let node = match axis {
            0 => NodeProto::new("MatMul", &["x", "w"], &["y"]),
            _ => NodeProto::new("Gemm", &["x", "w"], &["y"])
                .with(AttributeProto::of_int("transB", 1)),
        };
        let elements = shape[0] * shape[1];
        let graph = GraphProto {
            node: vec![node],
            name: Some("g".into()),
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(shape[axis] as i64)])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None, None])],
            initializer: vec![TensorProto::from_f32("w", &shape, &vec![0.0; elements])],
            ..GraphProto::default()
        };
        Model::from_graph(graph, 21)
    }

    fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
        (0..values.len())
            .map(|i| {
                let rows = values.len() / columns;
                values[i % rows * columns + i / rows]
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_unpacked(
            k in 1usize..80, n in 1usize..10, log_size in 4u32..8, axis in 0usize..2, affine: bool,
            seed in prop::collection::vec(0i16..16, 800),
        ) {
            let shape = if axis == 0 { [k, n] } else { [n, k] };
            let size = NonZeroUsize::new(1 << log_size).unwrap();
            let layout = fewbits_quant::Layout::new(&shape, Granularity::Group { axis, size }).unwrap();
            let params = layout.params();
            let (shift, encoding) = match affine {
                true => (0, fewbits_quant::Encoding::Unsigned),
                false => (8, fewbits_quant::Encoding::TwosComplement),
            };
            let codes: Vec<i16> = seed[..k * n].iter().map(|c| c - shift).collect();
            let zero_point = if affine { (0..params).map(|i| (i * 7 % 16) as u8).collect() } else { Vec::new() };
            // Halves: scales may be written as f16.
            let scale = (0..params).map(|i| 0.5 * (i + 1) as f32).collect();
            let weight = QTensor::new(
                layout, QuantParams { scale, zero_point }, PackedInts::pack(&codes, 4, encoding),
            ).unwrap();
            let floats = weight.dequantize();

            let mut model = product(shape, axis);
            let mut writer = QWeightWriter::new(&mut model, WeightForm::NBits);
            writer.replace("w", weight, ReadBy::Floats).unwrap();
            writer.finish();
            let mut model = Model::from_bytes(model.to_bytes().into()).unwrap();
            prop_assert_eq!(model.graph().node.last().unwrap().op_type(), "MatMulNBits");
            let columns_last = if axis == 0 { floats } else { transposed(&floats, k) };

            let found: Vec<_> = WeightReader::new(model.graph()).weights().collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].name, "w");
            prop_assert_eq!(found[0].weight.layout().shape(), &[k, n]);
            prop_assert_eq!(&found[0].weight.dequantize(), &columns_last);

            prop_assert_eq!(unpack_nbits(&mut model).nodes, 1);
            let unpacked = &model.graph().node.last().unwrap().input[1];
            let unpacked = model.graph().find_initializer(unpacked).unwrap();
            prop_assert_eq!(unpacked.floats().unwrap(), columns_last);
        }
    }

    #[test]
    fn damaged_weights_are_not_read() {
        let (mut model, values) = model(&[64, 40], 21, DataType::Float);
        let size = NonZeroUsize::new(32).unwrap();
        let scheme = Scheme::Affine {
            bits: Bits::new(4).unwrap(),
            granularity: Granularity::Group { axis: 0, size },
        };
        let mut writer = QWeightWriter::new(&mut model, WeightForm::NBits);
        writer.replace("w", quantize(&values, &[64, 40], scheme).unwrap(), ReadBy::Floats).unwrap();
        writer.finish();
        let count = |model: &Model| WeightReader::new(model.graph()).weights().count();
        assert_eq!(count(&model), 1);
        for (name, value) in [("K", 65), ("N", -1), ("N", 1 << 40), ("block_size", 0), ("bits", 3)]
        {
            let mut damaged = model.clone();
            let node = damaged.graph_mut().node.last_mut().unwrap();
            node.attribute.retain(|a| a.name() != name);
            node.attribute.push(AttributeProto::of_int(name, value));
            assert_eq!(count(&damaged), 0, "{name} = {value}");
            assert_eq!(unpack_nbits(&mut damaged).kept.len(), 1, "{name} = {value}");
        }
    }
}
