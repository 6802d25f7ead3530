//! Runs passes over a model file: `pass IN.onnx OUT.onnx PASS...`, and `pass --changes`, which lists
//! what an upgrade of the operator set rewrites, one operator and version a line.
//!
//! The passes: `fold_batch_norm`, `upgrade_opset=N`, `cleanup`.

use std::path::Path;
use std::process::ExitCode;

use fewbits_onnx::passes::{cleanup, fold_batch_norm, upgrade_opset};
use fewbits_onnx::{Model, Replace, SaveOptions};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [flag] if flag == "--changes" => {
            for (op, version) in upgrade_opset::changes() {
                println!("{op} {version}");
            }
            ExitCode::SUCCESS
        }
        [input, output, passes @ ..] => match run(Path::new(input), Path::new(output), passes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: pass IN.onnx OUT.onnx PASS...");
            ExitCode::from(2)
        }
    }
}

fn run(input: &Path, output: &Path, passes: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let mut model = Model::open(input)?;
    for pass in passes {
        match pass.split_once('=').unwrap_or((pass, "")) {
            ("fold_batch_norm", "") => {
                let report = fold_batch_norm::fold_batch_norm(model.graph_mut());
                println!("folded {}, spelt out {}", report.folded, report.scaled);
                for (node, why) in report.kept {
                    println!("kept {node}: {why}");
                }
            }
            ("upgrade_opset", version) => {
                upgrade_opset::upgrade_opset(&mut model, version.parse()?)?;
            }
            ("cleanup", "") => cleanup::cleanup(model.graph_mut()),
            _ => return Err(format!("no pass is called '{pass}'").into()),
        }
    }
    model.save(output, SaveOptions { replace: Replace::Existing, ..SaveOptions::default() })?;
    Ok(())
}
