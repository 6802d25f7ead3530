use std::num::NonZeroUsize;
use std::process::ExitCode;

use fewbits::output::{check_output, write_file};
use fewbits::plan::WeightOptions;
use fewbits::recipe::Recipe;
use fewbits::run::RunOptions;
use fewbits::sweep::{Sweep, SweepOptions, report, sweep as measure};
use fewbits::{Model, Replace};

use crate::args::SweepArgs;
use crate::failure::Failure;
use crate::progress::Bar;
use crate::show;

pub fn sweep(args: &SweepArgs, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let replace = if args.force { Replace::Existing } else { Replace::Never };
    if let Some(page) = &args.report {
        check_output(page, &args.inputs(), replace)?;
    }
    let scheme = args.how.scheme;
    if scheme.float_format().is_some() {
        return Err(Failure::usage(format!(
            "{scheme} has a width of its own, there is nothing to sweep; use quantize --scheme {scheme}"
        )));
    }
    for &width in args.bits.as_slice() {
        WeightOptions::new(scheme, Some(width), None).map_err(Failure::usage)?;
    }
    let source = Model::open(&args.model)?;
    let data = args.data.dataset(&source)?;
    let calibrate = |path| args.data.calibration(path, &source);
    let calibration = args.calibrate.as_deref().map(calibrate).transpose()?;
    let unasked = if calibration.is_some() { Recipe::Static } else { Recipe::Weights };
    let recipe = args.recipe.unwrap_or(unasked);
    let request = args.how.request(recipe, None, calibration.as_ref())?;
    let options = SweepOptions {
        metric: args.metric,
        run: RunOptions { threads, ..RunOptions::default() },
        folder: args.output.as_deref(),
        replace,
    };
    let sweep = measure(&source, &request, &args.bits, &data, &options, &Bar::default())?;
    if let Some(page) = &args.report {
        write_file(page, report(&sweep, &source)?.to_html().as_bytes(), replace)?;
    }
    if args.json {
        show::json(&sweep);
    } else {
        print(&sweep);
        show::notes(&sweep.notes);
        if let Some(folder) = &args.output {
            println!("The models are in {}", folder.display());
        }
        if let Some(page) = &args.report {
            println!("The page is {}", page.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(sweep: &Sweep) {
    let metric = sweep.metric.to_string();
    let header =
        ["bits", &metric, "drop", "agreement", "weight bytes", "file bytes", "smaller", "one call"];
    let mut table = show::table(&header, 1);
    let float = &sweep.float;
    table.add_row([
        "float".to_string(),
        format!("{:.4}", float.metric),
        String::new(),
        String::new(),
        show::bytes(float.weight_bytes),
        show::bytes(float.file_bytes),
        String::new(),
        show::milliseconds(float.latency_ms),
    ]);
    for point in &sweep.points {
        table.add_row([
            point.bits.to_string(),
            format!("{:.4}", point.metric),
            // No minus before what rounds to nothing.
            format!("{:.4}", point.drop).replace("-0.0000", "0.0000"),
            format!("{:.2} %", 100.0 * point.agreement),
            show::bytes(point.weight_bytes),
            show::bytes(point.file_bytes),
            format!("{:.1} x", float.file_bytes as f64 / point.file_bytes.max(1) as f64),
            show::milliseconds(point.latency_ms),
        ]);
    }
    println!("{table}");
    println!("{} rows. {}", sweep.rows, sweep.verdict);
}
