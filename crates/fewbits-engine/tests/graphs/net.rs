//! How far two runners are apart on small quantized graphs.

use std::num::NonZeroUsize;

use fewbits_engine::{Engine, FloatRunner, RunOptions, Tensor, Values};
use fewbits_ir::example::{FLOAT, Net};
use fewbits_onnx::Model;

use crate::oracle::assert_exact;

pub type Named = Vec<(String, Tensor)>;

pub fn engine(model: &Model, threads: usize) -> Engine {
    let options = RunOptions { threads: NonZeroUsize::new(threads), ..RunOptions::default() };
    Engine::new(model, &options).unwrap()
}

pub fn float_runner(model: &Model) -> FloatRunner {
    let options = RunOptions { threads: NonZeroUsize::new(1), ..RunOptions::default() };
    FloatRunner::new(model, &options).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    match tensor.values() {
        Values::F32(v) => v.clone(),
        Values::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
        Values::I8(v) => v.iter().map(|&x| f32::from(x)).collect(),
        Values::I64(v) => v.iter().map(|&x| x as f32).collect(),
        values => panic!("outputs of {:?}", values.data_type()),
    }
}

/// Asserts that outputs are of the same names, types and shapes, that no float is further than `most`
/// apart and no byte than one, nor the mean of all than a fifth of that.
#[track_caller]
pub fn assert_close(ours: &Named, wanted: &Named, most: f32) {
    assert_within(ours, wanted, most, 1.0);
}

/// The same with a bound for bytes.
#[track_caller]
pub fn assert_within(ours: &Named, wanted: &Named, most: f32, bytes: f32) {
    assert_eq!(ours.len(), wanted.len());
    for ((name, a), (wanted_name, b)) in ours.iter().zip(wanted) {
        assert_eq!(name, wanted_name);
        assert_eq!((a.shape(), a.data_type()), (b.shape(), b.data_type()), "{name}");
        let most = if a.data_type() as i32 == FLOAT { most } else { bytes };
        let (a, b) = (numbers(a), numbers(b));
        let apart: Vec<f32> = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).collect();
        if let Some(worst) = (0..apart.len()).max_by(|&i, &j| apart[i].total_cmp(&apart[j])) {
            let mean = apart.iter().sum::<f32>() / apart.len() as f32;
            assert!(
                apart[worst] <= most * 1.001 + 1e-5 && mean <= most / 5.0 + 1e-5,
                "{name}: element {worst} of {} is {}, not {}; {mean} apart in the mean, {most} at most",
                apart.len(),
                a[worst],
                b[worst],
            );
        }
    }
}

/// Runs a net, and asserts that [it is exact](assert_exact).
#[track_caller]
pub fn assert_runs(net: &Net, inputs: &Named) -> Named {
    assert_exact(&net.model(), inputs)
}
