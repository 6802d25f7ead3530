use std::num::NonZeroUsize;
use std::process::ExitCode;

use fewbits::cut::of_runner;
use fewbits::data::{Arrays, Cut, DataOptions, Dataset, input_specs, warning_of_missing};
use fewbits::output::{Format, Outputs, check_output};
use fewbits::progress::Progress;
use fewbits::run::{BATCH_ROWS, RunOptions, run_rows, runner};
use fewbits::{Model, Replace};
use serde_json::json;

use crate::args::{BatchSize, RunArgs};
use crate::failure::Failure;
use crate::progress::Bar;
use crate::show;

pub fn run(args: &RunArgs, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let replace = if args.force { Replace::Existing } else { Replace::Never };
    let format = Format::of(&args.output)?;
    check_output(&args.output, &[&args.model, &args.data.data], replace)?;
    let model = Model::open(&args.model)?;
    let arrays = match args.batch {
        Some(BatchSize::Whole) => Arrays::OneCall,
        _ => Arrays::Examples,
    };
    if arrays == Arrays::OneCall && args.data.read.limit.is_some() {
        return Err(Failure::usage(
            "--limit counts rows, and --batch whole has none; give one of them",
        ));
    }
    let options = DataOptions { arrays, ..args.data.read.options() };
    let data = Dataset::read(&args.data.data, &input_specs(model.graph()), &options)?;
    show::warn(warning_of_missing(&data, model.graph())?);
    let size = match args.batch {
        Some(BatchSize::Rows(rows)) => rows.get(),
        _ => BATCH_ROWS,
    };
    let runner = runner(&model, &RunOptions { threads, ..RunOptions::default() })?;
    let cut = if data.rows() > size { of_runner(&data, &runner) } else { Cut::Anywhere };
    let data = match (args.batch, cut) {
        // Who asks for a number of rows means it.
        (Some(_), Cut::Nowhere) => data,
        (_, cut) => data.with_cut(cut),
    };
    let bar = Bar::default();
    bar.start("running", data.rows() as u64);
    let mut outputs = Outputs::cut(data.cut());
    for rows in data.batches(size) {
        let count = rows.len() as u64;
        outputs.push(run_rows(&runner, &data, rows)?);
        bar.advance(count);
    }
    bar.finish();
    outputs.write(&args.output, format, replace)?;
    if args.json {
        show::json(&json!({ "out": args.output, "rows": data.rows(), "outputs": outputs.names() }));
    } else {
        println!(
            "{}: {} rows of {}",
            args.output.display(),
            data.rows(),
            outputs.names().join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}
