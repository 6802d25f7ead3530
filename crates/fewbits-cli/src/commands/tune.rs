use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use fewbits::output::{check_apart, check_output, write_file};
use fewbits::recipe::RangeChoice;
use fewbits::run::RunOptions;
use fewbits::tune::{Files, Request, Tuned, report};
use fewbits::{Bits, Model, Replace};
use serde::Serialize;

use crate::args::TuneArgs;
use crate::failure::{Failure, WORSE};
use crate::progress::Bar;
use crate::show;

/// Models listed before the rest is only counted.
const LISTED: usize = 20;

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

#[derive(Serialize)]
struct Report<'a> {
    /// None where no model was written.
    out: Option<&'a Path>,
    #[serde(flatten)]
    tuned: &'a Tuned,
}

pub fn tune(args: &TuneArgs, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let replace = if args.force { Replace::Existing } else { Replace::Never };
    let outputs = [Some(&args.output), args.report.as_ref(), args.resume.as_ref()];
    check_apart(&outputs.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())?;
    if let Some(report) = &args.report {
        check_output(report, &args.inputs(), replace)?;
    }
    let model = Model::open(&args.model)?;
    let data = args.data.dataset(&model)?;
    let calibration = args.data.calibration(&args.calibrate, &model)?;
    let recipe = args.recipe.unwrap_or(args.objective.recipe());
    let request = Request {
        target: args.target,
        objective: args.objective,
        activations: recipe.activations(RangeChoice::Measured, Bits::EIGHT),
        methods: Default::default(),
        metric: args.metric,
        max_drop: args.max_drop,
        data: &data,
        calibration: &calibration,
        time_limit: args.time_limit,
    };
    let files = Files { out: &args.output, replace, state: args.resume.as_deref() };
    let run = RunOptions { threads, ..RunOptions::default() };
    // A second Ctrl-C ends the process: what was found is in its place already.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this measurement; once more to stop at once");
    });
    let stop = || STOP.load(Ordering::Relaxed);
    let tuned = fewbits::tune::tune(&model, &request, &files, &run, &stop, &Bar::default())?;
    if let Some(page) = &args.report {
        write_file(page, report(&tuned, &model, &run)?.to_html().as_bytes(), replace)?;
    }
    if args.json {
        show::json(&Report { out: tuned.best.is_some().then_some(&args.output), tuned: &tuned });
    } else {
        print(args, &tuned);
    }
    show::notes(&tuned.notes);
    match tuned.best {
        Some(_) => Ok(ExitCode::SUCCESS),
        None => {
            eprintln!("{}", tuned.verdict);
            Ok(ExitCode::from(WORSE))
        }
    }
}

fn print(args: &TuneArgs, tuned: &Tuned) {
    let name = tuned.metric.to_string();
    let header = ["mean bits", name.as_str(), "drop", "agreement", "file bytes", "smaller", ""];
    let mut table = show::table(&header, 0);
    let float = &tuned.float;
    table.add_row([
        "float".to_string(),
        format!("{:.4}", float.metric),
        String::new(),
        String::new(),
        show::bytes(float.file_bytes),
        String::new(),
        String::new(),
    ]);
    let chosen = tuned.best.as_ref().map(|b| &b.checked);
    for point in tuned.points.iter().take(LISTED) {
        table.add_row([
            format!("{:.2}", point.bits),
            format!("{:.4}", point.metric),
            format!("{:.4}", point.drop),
            format!("{:.4}", point.agreement),
            show::bytes(point.file_bytes),
            format!("{:.1}×", float.file_bytes as f64 / point.file_bytes as f64),
            if chosen == Some(point) { "best" } else { "" }.to_string(),
        ]);
    }
    println!("{table}");
    if tuned.points.len() > LISTED {
        println!("… and {} more; --json lists all", tuned.points.len() - LISTED);
    }
    if tuned.best.is_some() {
        println!("{}: {}", args.output.display(), tuned.verdict);
    }
    if let Some(page) = &args.report {
        println!("The page is {}", page.display());
    }
}
