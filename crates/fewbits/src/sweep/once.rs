//! Progress of the same work at several widths.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::progress::Progress;

/// Passes everything on, but each warning only once: every width would repeat it.
pub struct Once<'a> {
    inner: &'a dyn Progress,
    said: Mutex<HashSet<String>>,
}

impl<'a> Once<'a> {
    pub fn new(inner: &'a dyn Progress) -> Once<'a> {
        Once { inner, said: Mutex::default() }
    }
}

impl Progress for Once<'_> {
    fn start(&self, what: &str, total: u64) {
        self.inner.start(what, total);
    }

    fn advance(&self, steps: u64) {
        self.inner.advance(steps);
    }

    fn finish(&self) {
        self.inner.finish();
    }

    fn warn(&self, message: &str) {
        if self.said.lock().expect("nobody panics while it is held").insert(message.to_string()) {
            self.inner.warn(message);
        }
    }
}
