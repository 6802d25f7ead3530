//! One command, announced before it runs and named when it fails.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A failure is a sentence for the person at the terminal.
pub type Result<T> = std::result::Result<T, String>;

/// A command that prints what it is about to do.
pub struct Step {
    title: String,
    command: Command,
}

impl Step {
    /// `program` run with no standard input, under a title such as "Building the binary".
    pub fn new(title: &str, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self { title: title.to_owned(), command }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets the folder that the command runs in.
    pub fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Sets one environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs the command with its output shown, and prints how long it took.
    ///
    /// # Errors
    /// When it cannot be started or exits with anything but 0; the message holds the command.
    pub fn run(mut self) -> Result<()> {
        let line = command_line(&self.command);
        println!("==> {}: {line}", self.title);
        let begun = Instant::now();
        let status = self.command.status();
        println!("==> {}: {:.0} s", self.title, begun.elapsed().as_secs_f64());
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("`{line}` failed: {status}")),
            Err(error) => Err(format!("`{line}` cannot be started: {error}")),
        }
    }
}

/// The command as one would type it, without quoting.
fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_names_its_command() {
        let error = Step::new("Failing", "false").args(["--now"]).run().unwrap_err();
        assert!(error.starts_with("`false --now` failed"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Step::new("Missing", "no-such-program").run().unwrap_err();
        assert!(error.starts_with("`no-such-program` cannot be started"), "{error}");
    }
}
