use std::num::NonZeroUsize;
use std::process::ExitCode;

use crate::args::DemoArgs;
use crate::failure::Failure;

pub fn demo(_args: &DemoArgs, _threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    Err(Failure::failed("wip"))
}
