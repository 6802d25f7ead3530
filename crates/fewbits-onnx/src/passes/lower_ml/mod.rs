//! wip
use crate::{Model, Result};
/// wip
#[derive(Default)]
pub struct Lowered {
    /** l */
    pub lowered: Vec<String>,
    /** k */
    pub kept: Vec<Kept>,
}
/// wip
pub struct Kept {
    /** n */
    pub node: String,
    /** o */
    pub op: String,
    /** w */
    pub why: String,
}
/// wip
pub fn lower_ml(_model: &mut Model) -> Result<Lowered> {
    Ok(Lowered::default())
}
