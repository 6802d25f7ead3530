//! A progress bar on standard error, for work that takes longer than a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use fewbits::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that ends before this is not worth a bar.
const PATIENCE: Duration = Duration::from_millis(700);

/// Draws a bar with the time left; nothing where standard error is not a terminal. Warnings are
/// printed, and kept for reports.
#[derive(Default)]
pub struct Bar {
    state: Mutex<Option<State>>,
    warnings: Mutex<Vec<String>>,
}

impl Bar {
    /// The warnings so far, in their order.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().expect("no bar panics while it is held").clone()
    }
}

struct State {
    bar: ProgressBar,
    begun: Instant,
    shown: bool,
}

impl Progress for Bar {
    fn start(&self, what: &str, total: u64) {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len}  {eta} left");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(what.to_string());
        let state = State { bar, begun: Instant::now(), shown: false };
        *self.state.lock().expect("no bar panics while it is held") = Some(state);
    }

    fn advance(&self, steps: u64) {
        if let Some(state) = self.state.lock().expect("no bar panics while it is held").as_mut() {
            if !state.shown && state.begun.elapsed() > PATIENCE {
                state.bar.set_draw_target(ProgressDrawTarget::stderr());
                state.shown = true;
            }
            state.bar.inc(steps);
        }
    }

    fn finish(&self) {
        if let Some(state) = self.state.lock().expect("no bar panics while it is held").take() {
            state.bar.finish_and_clear();
        }
    }

    fn warn(&self, message: &str) {
        eprintln!("warning: {message}");
        self.warnings.lock().expect("no bar panics while it is held").push(message.to_string());
    }
}
