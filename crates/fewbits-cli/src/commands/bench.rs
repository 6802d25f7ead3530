use std::num::NonZeroUsize;
use std::process::ExitCode;

use fewbits::Model;
use fewbits::bench::{Bench, BenchOptions};
use fewbits::data::{Dataset, input_specs};

use crate::args::BenchArgs;
use crate::failure::Failure;
use crate::show;

pub fn bench(args: &BenchArgs, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let model = Model::open(&args.model)?;
    let against = args.against.as_deref().map(Model::open).transpose()?;
    let specs = input_specs(model.graph());
    let data = match &args.data {
        Some(data) => Some(Dataset::read(data, &specs, &args.read.options())?),
        None => None,
    };
    let options = BenchOptions { threads, batch: args.batch, budget: args.seconds };
    let bench = fewbits::bench::bench(&model, against.as_ref(), data.as_ref(), &options)?;
    show::notes(&bench.notes);
    if args.json {
        show::json(&bench);
    } else {
        print(&bench);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(bench: &Bench) {
    let mut table = show::table(
        &["model", "one call (median)", "8 of 10 calls", "rows a second", "energy a call", "speed"],
        1,
    );
    for timed in std::iter::once(&bench.a).chain(&bench.b) {
        table.add_row([
            show::file_name(&timed.path),
            show::milliseconds(timed.median_ms),
            format!("{} .. {}", show::milliseconds(timed.p10_ms), show::milliseconds(timed.p90_ms)),
            format!("{:.1}", timed.rows_per_second),
            show::joules(timed.energy_j),
            format!("{:.2}", bench.a.median_ms / timed.median_ms),
        ]);
    }
    println!("{table}");
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    println!(
        "{} a call, {}, {}{}",
        count(bench.batch, "row"),
        count(bench.threads, "thread"),
        count(bench.a.calls, "call"),
        if bench.b.is_some() { " of each in turn" } else { "" },
    );
    println!("{}", bench.energy_note);
}
