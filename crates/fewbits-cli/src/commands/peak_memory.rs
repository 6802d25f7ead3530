//! The memory that a model needs is that of a process which does nothing but run it: this one
//! starts itself again to measure.

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use fewbits::Model;
use fewbits::measure::peak_rss_bytes;
use fewbits::run::{BATCH_ROWS, RunOptions, run_rows, runner};

use crate::args::{DataArgs, PeakMemoryArgs};
use crate::failure::Failure;

/// Rows that the measured process runs: what a batch needs does not depend on how many follow.
const MEASURED_ROWS: usize = BATCH_ROWS;

/// The hidden command: run, then print the peak in bytes.
pub fn peak_memory(
    args: &PeakMemoryArgs,
    threads: Option<NonZeroUsize>,
) -> Result<ExitCode, Failure> {
    let model = Model::open(&args.model)?;
    let data = args.data.dataset(&model)?;
    let runner = runner(&model, &RunOptions { threads, ..RunOptions::default() })?;
    run_rows(&runner, &data, 0..data.rows())?;
    let peak =
        peak_rss_bytes().ok_or_else(|| Failure::failed("this system does not tell peak memory"))?;
    println!("{peak}");
    Ok(ExitCode::SUCCESS)
}

/// The peak of a new process that runs the model at `path`; `None` if it cannot be measured.
pub fn of_child(path: &Path, data: &DataArgs, threads: Option<NonZeroUsize>) -> Option<u64> {
    let rows = data.read.limit.map_or(MEASURED_ROWS, |limit| limit.get().min(MEASURED_ROWS));
    let mut command = Command::new(std::env::current_exe().ok()?);
    command
        .arg("peak-memory")
        .arg(path)
        .arg("--data")
        .arg(&data.data)
        .arg("--limit")
        .arg(rows.to_string());
    if let Some(label) = &data.read.label {
        command.arg("--label").arg(label);
    }
    if let Some(normalize) = &data.read.normalize {
        command.arg("--normalize").arg(normalize.to_string());
    }
    for constant in &data.read.input {
        command.arg("--input").arg(constant.to_string());
    }
    if let Some(threads) = threads {
        command.arg("--threads").arg(threads.to_string());
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
