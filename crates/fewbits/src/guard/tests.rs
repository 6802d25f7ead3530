//! Whole models under guard.

use fewbits_engine::{Tensor, input_specs};
use fewbits_onnx::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::judge::UNLIKE_DB;
use super::*;
use crate::apply::Checkpoint;
use crate::data::DataOptions;
use crate::methods::Methods;
use crate::plan::WeightOptions;
use crate::progress::Silent;
use crate::quantize::{Planned, Speed};
use crate::recipe::{Activations, Observed, RangeChoice, Request};

const WIDTH: usize = 64;

/// Numbers between -1 and 1 that look random.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// `fine = x a`, `poor = x b` and the place of its largest value; each column of `b` has one entry that
/// takes the scale from the others, for an input that is nearly zero.
fn two_outputs() -> Model {
    let a = noise(WIDTH * WIDTH, 1);
    let mut b = noise(WIDTH * WIDTH, 2);
    b[..WIDTH].fill(1e4);
    let weight = |name: &str, values: &[f32]| TensorProto::from_f32(name, &[WIDTH, WIDTH], values);
    let output = |name: &str, data_type| {
        ValueInfoProto::tensor(name, data_type, &[None, Some(WIDTH as i64)])
    };
    let mut label = NodeProto::new("ArgMax", &["poor"], &["label"]);
    label.attribute.push(fewbits_onnx::proto::AttributeProto::of_int("axis", 1));
    let graph = GraphProto {
        node: vec![
            NodeProto::new("MatMul", &["x", "a"], &["fine"]),
            NodeProto::new("MatMul", &["x", "b"], &["poor"]),
            label,
        ],
        input: vec![output("x", 1)],
        output: vec![
            output("fine", 1),
            output("poor", 1),
            ValueInfoProto::tensor("label", 7, &[None, Some(1)]),
        ],
        initializer: vec![weight("a", &a), weight("b", &b)],
        ..GraphProto::default()
    };
    Model::from_graph(graph, 17)
}

fn rows(model: &Model) -> Dataset {
    let mut x = noise(32 * WIDTH, 3);
    x.iter_mut().step_by(WIDTH).for_each(|first| *first *= 1e-6);
    let x = ("x".to_string(), Tensor::new(vec![32, WIDTH], x).unwrap());
    let specs = input_specs(model.graph());
    Dataset::from_arrays(&specs, vec![x], None, &DataOptions::default()).unwrap()
}

fn request(data: &Dataset) -> Request<'_> {
    Request {
        target: Default::default(),
        weights: WeightOptions::default(),
        rounding: Default::default(),
        reduce_range: Default::default(),
        integer_weights: Default::default(),
        activations: Activations::Static {
            range: RangeChoice::default(),
            bits: fewbits_quant::Bits::EIGHT,
        },
        methods: Methods::Only(Vec::new()),
        data: Some(data),
    }
}

fn guarded(model: &Model, data: &Dataset, limits: &Limits) -> Result<(Plan, Guarded)> {
    let planned = Planned::by_recipe(
        model,
        &request(data),
        &mut Observed::default(),
        Checkpoint::default(),
        &RunOptions::default(),
        &Silent,
    )?;
    let (planned, settled) = planned.settled(limits, Speed::AsPlanned, &Silent)?;
    Ok((planned.plan().clone(), settled.guarded))
}

fn least(db: f64, data: &Dataset, otherwise: Otherwise) -> Limits<'_> {
    Limits { min_sqnr: Some(MinSqnr { db, data, otherwise }), max_drop: None }
}

#[test]
fn the_layer_that_costs_most_stays_float_and_is_named() {
    let model = two_outputs();
    let data = rows(&model);
    let (plan, guarded) =
        guarded(&model, &data, &least(20.0, &data, Otherwise::LeaveFloat)).unwrap();
    let kept: Vec<(&str, &str)> =
        plan.kept_float().map(|(t, why)| (t.tensor.as_str(), why)).collect();
    assert!(
        matches!(kept[..], [("b", why)] if why.contains("'poor' to ") && why.ends_with(" dB")),
        "{kept:?}"
    );
    let sqnr = guarded.output_sqnr_db.unwrap();
    // Of labels there is no error.
    assert_eq!(sqnr.keys().collect::<Vec<_>>(), ["fine", "poor"]);
    assert!(sqnr.values().all(|db| db.unwrap() >= 20.0), "{sqnr:?}");
    assert_eq!((guarded.warnings.len(), guarded.notes.len(), guarded.rows), (0, 1, 32));
    assert!(guarded.evaluations <= MOST_EVALUATIONS);
}

#[test]
fn what_holds_stays_as_it_is_planned() {
    let model = two_outputs();
    let data = rows(&model);
    let none = guarded(&model, &data, &Limits::default()).unwrap();
    let low = guarded(&model, &data, &least(-100.0, &data, Otherwise::LeaveFloat)).unwrap();
    assert_eq!(none.0, low.0);
    assert_eq!((none.1.output_sqnr_db, none.1.evaluations), (None, 0));
    assert_eq!((low.1.evaluations, low.1.left_float), (1, Vec::new()));
}

/// The SQNR of the worst output.
fn worst(guarded: &Guarded) -> f64 {
    let sqnr = guarded.output_sqnr_db.as_ref().unwrap().values();
    sqnr.flatten().copied().fold(f64::INFINITY, f64::min)
}

#[test]
fn rows_unlike_the_measured_ones_are_provided_for() {
    let model = two_outputs();
    let data = rows(&model);
    let of = |db| guarded(&model, &data, &least(db, &data, Otherwise::LeaveFloat)).unwrap().1;
    let asked = worst(&of(-100.0)) - 1.0;
    // The measured rows reach it as they are.
    let guarded = of(asked);
    assert!(!guarded.left_float.is_empty());
    assert!(worst(&guarded) >= asked + UNLIKE_DB);
    assert!(guarded.notes.iter().all(|note| !note.contains("others may have less")));
}

#[test]
fn what_other_rows_may_lack_is_told() {
    let model = two_outputs();
    let data = rows(&model);
    let of = |db| guarded(&model, &data, &least(db, &data, Otherwise::LeaveFloat)).unwrap().1;
    // No model reaches more with half of the weights in integers, and its rows differ.
    let most = worst(&of(90.0));
    let guarded = of(most - 1e-6);
    assert!(guarded.warnings.is_empty(), "{:?}", guarded.warnings);
    let told = |note: &&String| note.contains("others may have less: 'fine' ");
    assert_eq!(guarded.notes.iter().filter(told).count(), 1, "{:?}", guarded.notes);
}

#[test]
fn what_was_asked_for_is_only_told() {
    let model = two_outputs();
    let data = rows(&model);
    let plain = guarded(&model, &data, &Limits::default()).unwrap().0;
    let (plan, guarded) = guarded(&model, &data, &least(20.0, &data, Otherwise::Tell)).unwrap();
    assert_eq!(plan, plain);
    assert!(matches!(&guarded.warnings[..], [w] if w.contains("'poor'") && !w.contains("'fine'")));
}

#[test]
fn half_of_the_weights_stay_integers() {
    let model = two_outputs();
    let data = rows(&model);
    // Rounding to 8 bits does not reach this: both weights would have to be float.
    let (plan, guarded) =
        guarded(&model, &data, &least(90.0, &data, Otherwise::LeaveFloat)).unwrap();
    assert_eq!(plan.quantized().count(), 1);
    assert!(guarded.warnings[0].contains("less than half"), "{:?}", guarded.warnings);
}

#[test]
fn a_drop_that_nothing_keeps_is_an_error() {
    let model = two_outputs();
    let data = rows(&model);
    let drop = |max_drop| MaxDrop {
        data: &data,
        metric: Some(Metric::Agreement),
        max_drop,
        otherwise: Otherwise::LeaveFloat,
    };
    let of = |max_drop| Limits { min_sqnr: None, max_drop: Some(drop(max_drop)) };
    let error = guarded(&model, &data, &of(-1.0)).unwrap_err();
    assert!(matches!(error, Error::Worse { .. }));
    assert!(error.to_string().contains("nothing is written"));
    let (plan, guarded) = guarded(&model, &data, &of(0.2)).unwrap();
    assert!(plan.quantized().count() >= 1);
    assert!(guarded.drop.unwrap().drop <= 0.2);
}
