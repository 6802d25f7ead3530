//! Lowers the `ai.onnx.ml` operators of a model file: `lower_ml IN.onnx OUT.onnx`.
//!
//! Prints what was lowered and what was left, one node a line.

use std::path::Path;
use std::process::ExitCode;

use fewbits_onnx::passes::lower_ml::lower_ml;
use fewbits_onnx::{Model, OnnxError, Replace, SaveOptions};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("usage: lower_ml IN.onnx OUT.onnx");
        return ExitCode::from(2);
    };
    match run(Path::new(input), Path::new(output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(input: &Path, output: &Path) -> Result<(), OnnxError> {
    let mut model = Model::open(input)?;
    let report = lower_ml(&mut model)?;
    for node in &report.lowered {
        println!("lowered {node}");
    }
    for kept in &report.kept {
        println!("kept {} ({}): {}", kept.node, kept.op, kept.why);
    }
    let options = SaveOptions { replace: Replace::Existing, ..SaveOptions::default() };
    model.save(output, options)?;
    Ok(())
}
