//! Graphs that nobody drew: those of seeds, made by the generator of the end-to-end tests.

use std::fs;
use std::path::{Path, PathBuf};

use super::cases::Files;
use crate::step::{Result, Step};
use crate::venv;

/// How many graphs: seeds from 0 on.
const COUNT: usize = 200;

/// A graph of a seed.
pub struct Graph {
    pub name: String,
    pub files: Files,
}

/// Makes the graphs of all seeds in a folder.
pub fn graphs(root: &Path, folder: &Path) -> Result<Vec<Graph>> {
    let python = venv::ensure(root)?;
    let folder: PathBuf = folder.join("random");
    // Of what an older generator made nothing may be left.
    let _ = fs::remove_dir_all(&folder);
    Step::new("Making random graphs", &python)
        .args(["-m", "random_graphs.export", "--seeds", &format!("0..{COUNT}")])
        .args(["--folder".as_ref(), folder.as_os_str()])
        .current_dir(&root.join("tests/python"))
        .run()?;
    let graph = |seed: usize| {
        let file = |name: &str| folder.join(seed.to_string()).join(name);
        let files = Files {
            model: file("model.onnx"),
            calibration: file("calibration.npz"),
            data: file("rows.npz"),
        };
        Graph { name: format!("random/{seed}"), files }
    };
    Ok((0..COUNT).map(graph).collect())
}
