//! The command line: arguments, progress and tables. What it does is in the `fewbits` library.

mod args;
mod commands;
mod failure;
mod hints;
mod progress;
mod show;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    failure::quiet_panics();
    fewbits::keep_freed_blocks();
    fewbits::hint::spell_hints(hints::as_flag);
    let parse_and_run = || match Cli::try_parse() {
        Ok(cli) => run(cli).unwrap_or_else(|failure| failure.report()),
        Err(error) => failure::usage(&error),
    };
    std::panic::catch_unwind(parse_and_run).unwrap_or_else(|panic| failure::panicked(&*panic))
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .build_global()
            .map_err(|e| Failure::failed(format!("cannot start {threads} threads: {e}")))?;
    }
    let threads = cli.threads;
    match cli.command {
        Command::Demo(args) => commands::demo::demo(&args, threads),
        Command::Inspect(args) => commands::inspect::inspect(&args),
        Command::Quantize(args) => commands::quantize::quantize(&args, threads),
        Command::Compare(args) => commands::compare::compare(&args, threads),
        Command::Sweep(args) => commands::sweep::sweep(&args, threads),
        Command::Tune(args) => commands::tune::tune(&args, threads),
        Command::Run(args) => commands::run::run(&args, threads),
        Command::Bench(args) => commands::bench::bench(&args, threads),
        Command::PeakMemory(args) => commands::peak_memory::peak_memory(&args, threads),
    }
}
