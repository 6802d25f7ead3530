//! The example of every rule.

use std::panic::catch_unwind;

use crate::oracle::assert_example;

#[test]
fn the_example_of_every_rule_is_exact() {
    // All that fail are told, each behind its own panic.
    let failed: Vec<&str> = fewbits_ir::examples()
        .filter(|(_, example)| catch_unwind(|| assert_example(example)).is_err())
        .map(|(name, _)| name)
        .collect();
    assert!(failed.is_empty(), "the examples of {failed:?}");
}
