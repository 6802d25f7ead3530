use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;

use fewbits::Model;
use fewbits::compare::{CompareOptions, Comparison};
use fewbits::run::RunOptions;

use crate::args::CompareArgs;
use crate::commands::peak_memory;
use crate::failure::{Failure, WORSE};
use crate::progress::Bar;
use crate::show;

pub fn compare(args: &CompareArgs, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let (a, b) = (Model::open(&args.a)?, Model::open(&args.b)?);
    let data = args.data.dataset(&a)?;
    let peak_memory = |path: &Path| peak_memory::of_child(path, &args.data, threads);
    let options = CompareOptions {
        metric: args.metric,
        run: RunOptions { threads, ..RunOptions::default() },
        peak_memory: Some(&peak_memory),
        max_drop: args.max_drop,
    };
    let comparison = fewbits::compare::compare(&a, &b, &data, &options, &Bar::default())?;
    show::notes(&comparison.notes);
    if args.json {
        show::json(&comparison);
    } else {
        print(&comparison);
    }
    match args.max_drop.and_then(|max_drop| comparison.refusal(max_drop)) {
        Some(why) => {
            eprintln!("{why}");
            Ok(ExitCode::from(WORSE))
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

pub fn print(comparison: &Comparison) {
    let (a, b) = (&comparison.a, &comparison.b);
    let mut table = show::table(&["", "a", "b", "b / a"], 1);
    let ratio = |a: f64, b: f64| if a > 0.0 { format!("{:.3}", b / a) } else { "–".to_string() };
    let bytes = |what: &str, a: u64, b: u64| {
        [what.to_string(), show::bytes(a), show::bytes(b), ratio(a as f64, b as f64)]
    };
    let (name_a, name_b) = (show::file_name(&a.path), show::file_name(&b.path));
    table.add_row(["model".to_string(), name_a, name_b, String::new()]);
    table.add_row([
        comparison.metric.to_string(),
        format!("{:.4}", a.metric),
        format!("{:.4}", b.metric),
        String::new(),
    ]);
    table.add_row(bytes("file bytes", a.file_bytes, b.file_bytes));
    table.add_row(bytes("weight bytes", a.weight_bytes, b.weight_bytes));
    table.add_row([
        "one call (median)".to_string(),
        show::milliseconds(a.latency_ms.median),
        show::milliseconds(b.latency_ms.median),
        ratio(a.latency_ms.median, b.latency_ms.median),
    ]);
    table.add_row([
        "energy a call".to_string(),
        show::joules(a.energy_j),
        show::joules(b.energy_j),
        match (a.energy_j, b.energy_j) {
            (Some(a), Some(b)) => ratio(a, b),
            _ => "–".to_string(),
        },
    ]);
    table.add_row([
        "peak memory".to_string(),
        show::megabytes(a.peak_rss_bytes),
        show::megabytes(b.peak_rss_bytes),
        match (a.peak_rss_bytes, b.peak_rss_bytes) {
            (Some(a), Some(b)) => ratio(a as f64, b as f64),
            _ => "–".to_string(),
        },
    ]);
    println!("{table}");
    let sqnr =
        comparison.sqnr_db.map_or("outputs equal".to_string(), |db| format!("SQNR {db:.1} dB"));
    println!(
        "{} rows; largest output error {:.3e}; {sqnr}",
        comparison.rows, comparison.max_abs_error
    );
    println!("{}", comparison.energy_note);
    println!("{}", comparison.verdict);
}
