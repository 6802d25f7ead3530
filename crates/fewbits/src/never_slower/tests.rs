//! Decisions on made-up times.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use fewbits_quant::{Bits, Granularity, Scheme};

use super::operator::Operator;
use super::*;
use crate::plan::{Becomes, PlannedActivation, PlannedTensor, Readers, Target};
use crate::progress::Silent;

/// Four products, one behind the other, whose weights are a, b, c and d.
fn chain() -> Model {
    let weight = |name: &str| TensorProto::from_f32(name, &[1, 1], &[1.0]);
    let product =
        |from: &str, weight: &str, to: &str| NodeProto::new("MatMul", &[from, weight], &[to]);
    let graph = GraphProto {
        node: vec![
            product("x", "a", "y1"),
            product("y1", "b", "y2"),
            product("y2", "c", "y3"),
            product("y3", "d", "y"),
        ],
        input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(1)])],
        output: vec![ValueInfoProto::tensor("y", 1, &[None, Some(1)])],
        initializer: ["a", "b", "c", "d"].map(weight).to_vec(),
        ..GraphProto::default()
    };
    Model::from_graph(graph, 17)
}

fn plan(activation: ActivationBecomes) -> Plan {
    let granularity = Granularity::Channel { axis: 1 };
    let scheme = Scheme::Symmetric { bits: Bits::EIGHT, granularity };
    let tensor = |name: &str| PlannedTensor {
        tensor: name.to_string(),
        shape: vec![1, 1],
        read_by: vec!["MatMul".to_string()],
        range: None,
        sqnr_db: None,
        range_method: Default::default(),
        rounding: Default::default(),
        scale_type: Default::default(),
        reduce_range: Default::default(),
        becomes: Becomes::Scheme(scheme),
    };
    let mut plan = Plan::new(["a", "b", "c", "d"].map(tensor).to_vec(), Target::default());
    plan.activations = ["x", "y1", "y2", "y3"]
        .map(|value| PlannedActivation {
            value: value.to_string(),
            readers: Readers::Products,
            becomes: activation.clone(),
        })
        .to_vec();
    plan
}

fn fixed_range() -> ActivationBecomes {
    let scheme = Scheme::Affine { bits: Bits::EIGHT, granularity: Granularity::Tensor };
    ActivationBecomes::Static { scheme, low: -1.0, high: 1.0, sqnr_db: None }
}

/// Times of operators on integers and in floats, by their weight, and what the whole model takes.
struct MadeUp<'a> {
    operators: HashMap<&'a str, (f64, f64)>,
    /// What a whole model takes in a round, by the weights that are on integers; none for the float
    /// model.
    model: &'a dyn Fn(Option<&HashSet<String>>, usize) -> f64,
    races: usize,
}

impl<'a> MadeUp<'a> {
    fn new(
        operators: &[(&'a str, f64, f64)],
        model: &'a dyn Fn(Option<&HashSet<String>>, usize) -> f64,
    ) -> MadeUp<'a> {
        let operators = operators.iter().map(|&(weight, i, f)| (weight, (i, f))).collect();
        MadeUp { operators, model, races: 0 }
    }
}

impl Stopwatch for MadeUp<'_> {
    fn operators(&mut self, _: &Plan, operators: &[Operator]) -> Result<Vec<OperatorTime>> {
        let time = |operator: &Operator| {
            let &(integers_us, float_us) = self.operators.get(operator.weight.as_str())?;
            Some(OperatorTime { operator: operator.clone(), integers_us, float_us })
        };
        Ok(operators.iter().filter_map(time).collect())
    }

    fn race(&mut self, a: Version, b: Version) -> Result<Vec<[f64; 2]>> {
        self.races += 1;
        let model = chain();
        let time = |version: Version, round: usize| match version {
            Version::Float => (self.model)(None, round),
            Version::Quantized(plan) => {
                let on_integers = operators(&model, plan).into_iter().map(|o| o.weight).collect();
                (self.model)(Some(&on_integers), round)
            }
        };
        Ok((0..ROUNDS).map(|round| [time(a, round), time(b, round)]).collect())
    }
}

fn decided(stopwatch: &mut MadeUp) -> (Plan, Vec<Slower>) {
    decide(&chain(), plan(fixed_range()), stopwatch, &Silent).unwrap()
}

/// The weights whose operators compute on integers.
fn on_integers(plan: &Plan) -> Vec<String> {
    operators(&chain(), plan).into_iter().map(|operator| operator.weight).collect()
}

/// Ten for each operator in floats; on integers what is given.
fn sum(on: Option<&HashSet<String>>, each: &[(&str, f64)]) -> f64 {
    let time = |(weight, integers): &(&str, f64)| match on {
        Some(on) if on.contains(*weight) => *integers,
        _ => 10.0,
    };
    each.iter().map(time).sum()
}

#[test]
fn what_is_faster_on_integers_stays_so_without_a_trial() {
    let model = |on: Option<&HashSet<String>>, _| sum(on, &[("a", 4.0), ("b", 4.0)]);
    let mut stopwatch = MadeUp::new(&[("a", 4.0, 10.0), ("b", 4.0, 10.0)], &model);
    let (plan, slower) = decided(&mut stopwatch);
    assert_eq!((slower, on_integers(&plan).len()), (Vec::new(), 4));
    // Only the float model raced.
    assert_eq!(stopwatch.races, 1);
}

#[test]
fn slower_operators_stay_float_and_are_named() {
    let each = [("a", 3.0), ("b", 14.0), ("c", 3.0), ("d", 12.0)];
    let model = |on: Option<&HashSet<String>>, _| sum(on, &each);
    let times = [("a", 3.0, 10.0), ("b", 14.0, 10.0), ("c", 3.0, 10.0), ("d", 12.0, 10.0)];
    let (plan, slower) = decided(&mut MadeUp::new(&times, &model));
    assert_eq!(on_integers(&plan), ["a", "c"]);
    let names: Vec<String> = slower.iter().map(Slower::to_string).collect();
    let why = "measured slower in integers on this machine: 14.0 µs, 10.0 µs in float";
    assert_eq!(names[0], format!("operator 'y2' stays float: {why}"));
    assert!(names[1].starts_with("operator 'y' "));
    // The weight and the activation that only it reads, with the reason.
    let kept: Vec<_> = plan.kept_float().map(|(t, why)| (t.tensor.as_str(), why)).collect();
    assert_eq!(kept[0], ("b", why));
    assert!(plan.float_activations().any(|float| float == ("y1", why)));
    assert_eq!(plan.float_activations().count(), 2);
}

#[test]
fn a_suspect_that_does_not_slow_the_whole_down_stays_on_integers() {
    // Alone `b` is slower, but the model is not faster without it; without `d` it is.
    let each = [("a", 3.0), ("b", 9.9), ("c", 3.0), ("d", 14.0)];
    let model = |on: Option<&HashSet<String>>, _| {
        let both = on.is_some_and(|on| !on.contains("b") && !on.contains("d"));
        sum(on, &each) + if both { 20.0 } else { 0.0 }
    };
    let times = [("b", 18.0, 10.0), ("d", 14.0, 10.0)];
    let (plan, slower) = decided(&mut MadeUp::new(&times, &model));
    assert_eq!(on_integers(&plan), ["a", "b", "c"]);
    assert!(matches!(&slower[..], [Slower::Operator { operator, .. }] if operator == "y"));
}

#[test]
fn noise_decides_nothing() {
    // The model without `b` is faster in four rounds of five.
    let model = |on: Option<&HashSet<String>>, round| match on {
        None => 100.0,
        Some(on) if on.contains("b") => 40.0,
        Some(_) => {
            if round == 3 {
                41.0
            } else {
                30.0
            }
        }
    };
    let (plan, slower) = decided(&mut MadeUp::new(&[("b", 12.0, 10.0)], &model));
    assert_eq!((on_integers(&plan).len(), slower.len()), (4, 0));
    assert!(!is_faster(&[[100.0, 99.0]; ROUNDS]), "less than noise");
    assert!(is_faster(&[[100.0, 97.0]; ROUNDS]));
    assert!(!is_faster(&[]));
}

#[test]
fn a_model_that_stays_slower_keeps_only_its_weights() {
    let model = |on: Option<&HashSet<String>>, _| match on {
        None => 50.0,
        Some(on) => 60.0 + on.len() as f64,
    };
    let times = [("a", 12.0, 10.0), ("b", 12.0, 10.0)];
    let (plan, slower) = decided(&mut MadeUp::new(&times, &model));
    assert_eq!(on_integers(&plan), Vec::<String>::new());
    assert_eq!(plan.quantized().count(), 4, "all weights are integers");
    assert_eq!(slower, [Slower::Model { integers_us: 62.0, float_us: 50.0 }]);
    assert!(slower[0].to_string().starts_with("only weights are quantized"));
    let why = "measured slower in integers on this machine: 62.0 µs, 50.0 µs in float";
    assert!(plan.float_activations().all(|(_, given)| given == why));
}

#[test]
fn a_plan_of_weights_alone_is_not_timed() {
    let never = |_: Option<&HashSet<String>>, _| -> f64 { panic!("nothing to time") };
    let mut stopwatch = MadeUp::new(&[], &never);
    let float = plan(ActivationBecomes::Float("as asked".to_string()));
    let (same, slower) = decide(&chain(), float.clone(), &mut stopwatch, &Silent).unwrap();
    assert_eq!((same, slower), (float, Vec::new()));
}

#[test]
fn an_activation_that_another_product_needs_stays_quantized() {
    let mut model = chain();
    model.graph_mut().node[1].input[0] = "x".to_string();
    for activation in [fixed_range(), ActivationBecomes::Dynamic] {
        let plan = plan(activation);
        let all = operators(&model, &plan);
        let first = leave_float(&model, plan, &all[0].weight, "why");
        assert!(first.float_activations().all(|(value, _)| value != "x"));
        let both = leave_float(&model, first, &all[1].weight, "why");
        assert!(both.float_activations().any(|float| float == ("x", "why")));
    }
}
