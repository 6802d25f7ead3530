//! Long work: on a thread of its own, without the interpreter lock, and ended by Ctrl-C.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use fewbits::progress::Progress;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::{internal, raised};

/// How often Python is asked whether Ctrl-C was pressed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Of the working thread: a program's main thread has as much.
const STACK_BYTES: usize = 8 << 20;

/// What unwinds the working thread after Ctrl-C. It is no panic: nothing is printed.
struct Interrupted;

/// How far the work is, seen from both threads.
#[derive(Default)]
pub struct Watched {
    state: Mutex<State>,
    interrupted: AtomicBool,
}

#[derive(Clone, Default)]
struct State {
    what: String,
    done: u64,
    total: u64,
    warnings: Vec<String>,
}

impl Watched {
    /// Whether Ctrl-C was pressed.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn step(&self, change: impl FnOnce(&mut State)) {
        if self.is_interrupted() {
            resume_unwind(Box::new(Interrupted));
        }
        self.with(change);
    }
}

impl Progress for Watched {
    fn start(&self, what: &str, total: u64) {
        self.step(|state| {
            state.what = what.to_string();
            (state.done, state.total) = (0, total);
        });
    }

    fn advance(&self, steps: u64) {
        self.step(|state| state.done += steps);
    }

    fn finish(&self) {
        self.step(|state| state.done = state.total);
    }

    fn warn(&self, message: &str) {
        self.with(|state| state.warnings.push(message.to_string()));
    }
}

/// Does `work`. `watch` is an object with `show(what, done, total)`, called from time to time, and
/// `warn(message)`, called at the end for each warning.
///
/// # Errors
/// Those of the work; KeyboardInterrupt after Ctrl-C; RuntimeError for a panic.
pub fn interruptible<T: Send>(
    watch: &Bound<'_, PyAny>,
    work: impl FnOnce(&Watched) -> fewbits::Result<T> + Send,
) -> PyResult<T> {
    let py = watch.py();
    let watched = Watched::default();
    let (sender, receiver) = channel();
    let outcome = std::thread::scope(|scope| -> PyResult<_> {
        let watched = &watched;
        let run = move || {
            let _ = sender.send(catch_unwind(AssertUnwindSafe(|| work(watched))));
        };
        std::thread::Builder::new()
            .name("fewbits".to_string())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, run)
            .map_err(|e| PyRuntimeError::new_err(format!("no thread for the work: {e}")))?;
        let mut receiver = receiver;
        let mut interrupt = None;
        loop {
            let waiting = &mut receiver;
            match py.detach(move || waiting.recv_timeout(LOOK_EVERY)) {
                Ok(outcome) => match interrupt {
                    Some(error) => return Err(error),
                    None => return Ok(outcome),
                },
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PyRuntimeError::new_err("the working thread is gone"));
                }
                Err(RecvTimeoutError::Timeout) if interrupt.is_none() => {
                    let State { what, done, total, .. } = watched.with(|state| state.clone());
                    let shown = py
                        .check_signals()
                        .and_then(|()| watch.call_method1("show", (what, done, total)));
                    if let Err(error) = shown {
                        watched.interrupted.store(true, Ordering::Relaxed);
                        interrupt = Some(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    })?;
    let value = match outcome {
        Ok(result) => raised(result)?,
        Err(panic) => return Err(internal(&*panic)),
    };
    for warning in watched.with(|state| std::mem::take(&mut state.warnings)) {
        watch.call_method1("warn", (warning,))?;
    }
    Ok(value)
}

/// Does work that is over soon, without the interpreter lock.
///
/// # Errors
/// Those of the work; RuntimeError for a panic.
pub fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> fewbits::Result<T> + Send,
) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(result) => raised(result),
        Err(panic) => Err(internal(&*panic)),
    }
}
