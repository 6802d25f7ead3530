//! Errors on their way out: one line, and the exit code that scripts rely on.

use std::any::Any;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::error::ErrorKind;

/// Done, but the result is worse than allowed.
pub const WORSE: u8 = 3;
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Why a command ends early.
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Something went wrong: exit code 1.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure { code: FAILED, message: message.into() }
    }

    /// The command line makes no sense: exit code 2.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: USAGE, message: message.into() }
    }

    /// Prints the error as one line.
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {}", one_line(&self.message));
        ExitCode::from(self.code)
    }
}

impl<E: Into<fewbits::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        let error = error.into();
        let code = if matches!(error, fewbits::Error::Worse { .. }) { WORSE } else { FAILED };
        Failure { code, message: error.to_string() }
    }
}

/// Reports what the argument parser found: help and version as they are, errors as one line.
pub fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print!("{}", error.render().ansi());
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{}", error.render().ansi());
            return ExitCode::from(USAGE);
        }
        _ => {}
    }
    let text = error.render().to_string();
    // The first paragraph says what is wrong, the rest repeats the usage.
    let paragraph: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).collect();
    let message = paragraph.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    Failure::usage(format!("{message}; try --help")).report()
}

/// What the last panic said and where, for [`panicked`].
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Keeps panics from printing: a library may catch its own, and [`panicked`] reports the rest.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = panic.to_string();
        }
    }));
}

/// Reports a panic: a fault of fewbits or of a library it uses, or standard output that takes no more, which
/// `println!` panics about. Whoever closes it, as `head` does, has seen enough.
pub fn panicked(panic: &(dyn Any + Send)) -> ExitCode {
    let said = panic.downcast_ref::<String>().map_or("", String::as_str);
    let failure = match said.strip_prefix("failed printing to stdout: ") {
        Some(why) if why.starts_with("Broken pipe") => return ExitCode::from(FAILED),
        Some(why) => Failure::failed(format!("cannot write to standard output: {why}")),
        None => {
            let said = LAST_PANIC.lock().map(|last| last.clone()).unwrap_or_default();
            Failure::failed(format!("internal error, please report it with the model: {said}"))
        }
    };
    failure.report()
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
