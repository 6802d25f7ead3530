//! What a search has measured, kept in a file so that it can go on after it was stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fewbits_onnx::Replace;
use serde::{Deserialize, Serialize};

use crate::evaluate::WorstOutput;
use crate::never_slower::Slower;
use crate::output::write_file;
use crate::plan::Plan;
use crate::sensitivity::Sensitivity;
use crate::{Error, Result};

/// The format of state files.
const FORMAT: u32 = 1;

/// What was measured of one plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The mean width of the weights' integers.
    pub bits: f64,
    /// The task metric.
    pub metric: f64,
    /// How much worse that is than the float model's.
    pub drop: f64,
    /// The ends of the drop's confidence interval, where the metric has one.
    pub drop_interval: Option<(f64, f64)>,
    /// What accuracy would drop if the float model's probabilities were right.
    pub expected_regret: Option<f64>,
    /// The fraction of rows on which both models predict the same.
    pub agreement: f64,
    /// The float output that is farthest from the float model's; none if all are equal.
    #[serde(default)]
    pub worst_output: Option<WorstOutput>,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the constant tensors in it.
    pub weight_bytes: u64,
    /// The median time of a call with one row, in milliseconds.
    pub latency_ms: f64,
}

/// Everything that a search has measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    fewbits_tune: u32,
    /// Identifies the model, the data and what was asked for.
    key: String,
    /// What weights cost alone, by their names.
    pub sensitivity: BTreeMap<String, Sensitivity>,
    /// What was measured of plans, by their digests.
    pub checked: BTreeMap<String, Checked>,
    /// The median time of a call of the float model with one row, in milliseconds.
    pub float_latency_ms: Option<f64>,
    /// Where time is the objective: the plan without what measured slower on integers.
    pub base: Option<Plan>,
    /// What that is.
    pub slower: Vec<Slower>,
    /// The microseconds that operators take on integers and in floats, by the names of their weights.
    pub times_us: BTreeMap<String, (f64, f64)>,
    /// How far the outputs move if one weight or activation becomes integers, by their names.
    pub divergence: BTreeMap<String, f64>,
}

/// A state and the file that it is kept in, if any.
pub struct SearchFile {
    /// The state.
    pub state: State,
    file: Option<PathBuf>,
    /// Whether the file was there before.
    pub found: bool,
}

impl SearchFile {
    /// Reads the state of an earlier search from `file`, or begins a new one.
    ///
    /// # Errors
    /// If the file cannot be read, or belongs to another search.
    pub fn open(file: Option<&Path>, key: &str) -> Result<SearchFile> {
        let fresh = State { fewbits_tune: FORMAT, key: key.to_string(), ..State::default() };
        let Some(path) = file else {
            return Ok(SearchFile { state: fresh, file: None, found: false });
        };
        let file = Some(path.to_path_buf());
        if !path.exists() {
            return Ok(SearchFile { state: fresh, file, found: false });
        }
        let wrong = |reason: &str| Error::TuneState {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        };
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        let state: State = serde_json::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
        if state.fewbits_tune != FORMAT {
            return Err(wrong(&format!(
                "its format is {}, this fewbits reads {FORMAT}",
                state.fewbits_tune
            )));
        }
        if state.key != key {
            return Err(wrong("it belongs to another model, other data or other options"));
        }
        Ok(SearchFile { state, file, found: true })
    }

    /// Writes the state to its file, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let text =
            serde_json::to_string(&self.state).expect("a state holds nothing that JSON lacks");
        write_file(path, text.as_bytes(), Replace::Existing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut kept = SearchFile::open(Some(&path), "a").unwrap();
        assert!(!kept.found);
        let checked = Checked {
            bits: 4.3,
            metric: 0.1 + 0.2,
            drop: 1e-17,
            drop_interval: Some((-0.1, 1.0 / 3.0)),
            expected_regret: None,
            agreement: 1.0,
            worst_output: None,
            file_bytes: 3,
            weight_bytes: 2,
            latency_ms: 0.7,
        };
        kept.state.checked.insert("p".into(), checked);
        kept.save().unwrap();
        let again = SearchFile::open(Some(&path), "a").unwrap();
        assert!(again.found);
        assert_eq!(again.state, kept.state);
    }

    #[test]
    fn another_search_and_damage_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        SearchFile::open(Some(&path), "a").unwrap().save().unwrap();
        let error = SearchFile::open(Some(&path), "b").err().unwrap().to_string();
        assert!(error.contains("another model") && error.contains("state.json"), "{error}");
        std::fs::write(&path, "{").unwrap();
        assert!(SearchFile::open(Some(&path), "a").is_err());
        let before = State { key: "a".into(), ..State::default() };
        std::fs::write(&path, serde_json::to_string(&before).unwrap()).unwrap();
        assert!(SearchFile::open(Some(&path), "a").err().unwrap().to_string().contains("format"));
    }
}
