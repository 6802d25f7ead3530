//! How long work tells what it has done.

/// Receives steps of long work. The command line draws a bar; libraries may ignore it.
pub trait Progress: Sync {
    /// Work of `total` steps begins.
    fn start(&self, what: &str, total: u64);
    /// `steps` more are done.
    fn advance(&self, steps: u64);
    /// The work is done.
    fn finish(&self);
    /// The work goes on, but without something; `message` is one line.
    fn warn(&self, message: &str);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _what: &str, _total: u64) {}
    fn advance(&self, _steps: u64) {}
    fn finish(&self) {}
    fn warn(&self, _message: &str) {}
}
