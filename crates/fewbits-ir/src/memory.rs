//! Where the values of a program lie while it runs.

use crate::program::ValueId;

/// What a step needs of memory.
pub struct Uses<'a> {
    /// What it reads.
    pub inputs: &'a [ValueId],
    /// What it writes.
    pub outputs: &'a [ValueId],
    /// Whether its first output lies where its first input lies.
    pub shares_memory: bool,
}

/// Gives each of `count` values a slot, by the time in which values are needed: the slot that was freed
/// last, which the caches still hold, is used first. What is `fed` has a slot from the begin, what is
/// `kept` for ever.
pub fn slots(count: usize, steps: &[Uses], fed: &[ValueId], kept: &[ValueId]) -> Vec<u32> {
    let mut root: Vec<usize> = (0..count).collect();
    for step in steps.iter().filter(|step| step.shares_memory) {
        root[step.outputs[0].index()] = root[step.inputs[0].index()];
    }
    let mut last_use = vec![0; count];
    for (time, step) in steps.iter().enumerate() {
        for id in step.inputs.iter().chain(step.outputs) {
            last_use[root[id.index()]] = time;
        }
    }
    for id in kept {
        last_use[root[id.index()]] = usize::MAX;
    }
    let mut slot_of = vec![0u32; count];
    let mut next = 0;
    let mut free: Vec<u32> = Vec::new();
    let mut take = |free: &mut Vec<u32>| {
        free.pop().unwrap_or_else(|| {
            next += 1;
            next - 1
        })
    };
    for id in fed {
        slot_of[id.index()] = take(&mut free);
    }
    for (time, step) in steps.iter().enumerate() {
        for id in step.outputs.iter().map(|id| id.index()).filter(|&id| root[id] == id) {
            slot_of[id] = take(&mut free);
        }
        let mut done: Vec<usize> =
            step.inputs.iter().chain(step.outputs).map(|id| root[id.index()]).collect();
        done.sort_unstable();
        done.dedup();
        free.extend(done.into_iter().filter(|&id| last_use[id] == time).map(|id| slot_of[id]));
    }
    (0..count).map(|id| slot_of[root[id]]).collect()
}
