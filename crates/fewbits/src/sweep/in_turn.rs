//! Progress of two works at once: one bar at a time.

use std::sync::Mutex;

use crate::progress::Progress;

/// The steps of two works, of which the second is told from where the first is finished. Warnings of
/// both are passed on at once.
pub struct InTurn<'a> {
    inner: &'a dyn Progress,
    second: Mutex<Second>,
}

/// What is known of the second work.
#[derive(Default)]
struct Second {
    told: bool,
    /// What it does, the steps of that, and how many of them are done.
    current: Option<(String, u64, u64)>,
}

/// The work that is told first.
pub struct First<'a>(&'a InTurn<'a>);

/// The work that is told when the first is finished.
pub struct Then<'a>(&'a InTurn<'a>);

impl<'a> InTurn<'a> {
    pub fn new(inner: &'a dyn Progress) -> InTurn<'a> {
        InTurn { inner, second: Mutex::default() }
    }

    pub fn first(&self) -> First<'_> {
        First(self)
    }

    pub fn then(&self) -> Then<'_> {
        Then(self)
    }

    /// Changes what is known of the second work, and then tells `inner` if it is to be told.
    fn second(&self, change: impl FnOnce(&mut Second), tell: impl FnOnce(&dyn Progress)) {
        let mut second = self.second.lock().expect("nobody panics while it is held");
        change(&mut second);
        if second.told {
            tell(self.inner);
        }
    }
}

impl Progress for First<'_> {
    fn start(&self, what: &str, total: u64) {
        self.0.inner.start(what, total);
    }

    fn advance(&self, steps: u64) {
        self.0.inner.advance(steps);
    }

    fn finish(&self) {
        self.0.inner.finish();
        let mut second = self.0.second.lock().expect("nobody panics while it is held");
        second.told = true;
        if let Some((what, total, done)) = &second.current {
            self.0.inner.start(what, *total);
            self.0.inner.advance(*done);
        }
    }

    fn warn(&self, message: &str) {
        self.0.inner.warn(message);
    }
}

impl Progress for Then<'_> {
    fn start(&self, what: &str, total: u64) {
        let change = |second: &mut Second| second.current = Some((what.to_string(), total, 0));
        self.0.second(change, |inner| inner.start(what, total));
    }

    fn advance(&self, steps: u64) {
        let change = |second: &mut Second| {
            if let Some((_, _, done)) = &mut second.current {
                *done += steps;
            }
        };
        self.0.second(change, |inner| inner.advance(steps));
    }

    fn finish(&self) {
        self.0.second(|second| second.current = None, |inner| inner.finish());
    }

    fn warn(&self, message: &str) {
        self.0.inner.warn(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        fn push(&self, line: String) {
            self.0.lock().unwrap().push(line);
        }
    }

    impl Progress for Told {
        fn start(&self, what: &str, total: u64) {
            self.push(format!("{what} {total}"));
        }

        fn advance(&self, steps: u64) {
            self.push(format!("+{steps}"));
        }

        fn finish(&self) {
            self.push("done".into());
        }

        fn warn(&self, message: &str) {
            self.push(message.into());
        }
    }

    #[test]
    fn the_second_work_is_told_from_the_end_of_the_first_on() {
        let told = Told::default();
        let both = InTurn::new(&told);
        let (first, then) = (both.first(), both.then());
        first.start("a", 9);
        then.start("b", 3);
        then.advance(3);
        then.finish();
        first.advance(4);
        then.start("c", 7);
        then.advance(2);
        then.warn("careful");
        then.advance(1);
        first.finish();
        then.advance(4);
        then.finish();
        let told = told.0.into_inner().unwrap();
        assert_eq!(told, ["a 9", "+4", "careful", "done", "c 7", "+3", "+4", "done"]);
    }
}
