//! The hashes of one case: its written files, and their outputs at every level of kernels.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::cases::{Calibrated, Case, Files, VARIANTS, Variant};
use super::random::Graph;
use super::stored::{GRAPH, Stored};
use crate::hash::fnv1a;
use crate::step::Result;

/// What `FEWBITS_CPU` may name.
const LEVELS: [&str; 5] = ["scalar", "neon", "avx2", "avx512vnni", "amx"];
/// What the program says of a level that this CPU lacks.
const LACKING: &str = "this CPU offers";
/// In the place of the hash of a file that the program refuses to write.
const REFUSED: &str = "refused";
/// The ways in which random graphs are quantized, by name.
const OF_RANDOM_GRAPHS: [&str; 4] = ["weights", "dynamic", "static", "4-bit"];

/// A model with its data, as it is measured.
struct Subject<'a> {
    name: &'a str,
    files: &'a Files,
    data_options: &'static [&'static str],
}

/// The program, the levels of this CPU, and a folder for what is written.
pub struct Measure {
    binary: PathBuf,
    levels: Vec<&'static str>,
    folder: PathBuf,
}

impl Measure {
    /// Finds out which levels there are.
    pub fn new(binary: &Path, root: &Path) -> Result<Measure> {
        let folder = root.join("target/golden");
        fs::create_dir_all(&folder)
            .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        let mut measure = Measure { binary: binary.to_path_buf(), levels: Vec::new(), folder };
        let model = root.join("tests/fixtures/notebook/model.onnx");
        for level in LEVELS {
            let answer = measure.inspect(level, &model)?;
            if answer.status.success() {
                measure.levels.push(level);
            } else if !error_of(&answer).contains(LACKING) {
                return Err(format!("FEWBITS_CPU={level}: {}", error_of(&answer)));
            }
        }
        Ok(measure)
    }

    /// The levels of this CPU.
    pub fn levels(&self) -> &[&'static str] {
        &self.levels
    }

    /// The folder for what is written.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Hashes the float model's outputs and all that is made of it.
    pub fn case(&self, case: &Case, files: &Files, found: &mut Stored) -> Result<()> {
        let name = case.name();
        println!("    {name}");
        let subject = Subject { name: &name, files, data_options: case.data_options };
        self.outputs(&subject, "float", &files.model, found)?;
        for variant in VARIANTS.iter().filter(|variant| !case.depends_on_cpu(variant)) {
            self.variant(&subject, variant, found)?;
        }
        Ok(())
    }

    /// The same of a random graph, with a hash of the graph: another CPU may find another one of its seed valid.
    pub fn random_graph(&self, graph: &Graph, found: &mut Stored) -> Result<()> {
        let Graph { name, files } = graph;
        let subject = Subject { name, files, data_options: &[] };
        found.insert(format!("{name} {GRAPH}"), fnv1a(&read(&files.model)?));
        self.outputs(&subject, "float", &files.model, found)?;
        // What is calibrated is as exact as the float model.
        let is_exact = self.is_exact(&files.model)?;
        let wanted = |variant: &&Variant| {
            let written_here = is_exact || variant.calibrated == Calibrated::No;
            OF_RANDOM_GRAPHS.contains(&variant.name) && written_here
        };
        VARIANTS
            .iter()
            .filter(wanted)
            .try_for_each(|variant| self.variant(&subject, variant, found))
    }

    /// Hashes the file of a variant, and its outputs.
    fn variant(&self, subject: &Subject, variant: &Variant, found: &mut Stored) -> Result<()> {
        let name = format!("{} {} file", subject.name, variant.name);
        let out = self.folder.join("quantized.onnx");
        let Some(bytes) = self.quantize(subject, variant, &out)? else {
            found.insert(name, REFUSED.into());
            return Ok(());
        };
        found.insert(name, fnv1a(&bytes));
        self.outputs(subject, variant.name, &out, found)
    }

    /// The bytes of the file, if the program writes it.
    fn quantize(
        &self,
        subject: &Subject,
        variant: &Variant,
        out: &Path,
    ) -> Result<Option<Vec<u8>>> {
        let mut words = words(&["quantize", "--force"]);
        words.extend([subject.files.model.clone().into(), "-o".into(), out.into()]);
        words.extend(variant.options.iter().map(OsString::from));
        if variant.calibrated != Calibrated::No {
            words.extend(["--calibrate".into(), subject.files.calibration.clone().into()]);
            words.extend(subject.data_options.iter().map(OsString::from));
        }
        let answer = self.fewbits(None, &words)?;
        match answer.status.code() {
            Some(0) => Ok(Some(read(out)?)),
            Some(1) if error_of(&answer).starts_with("error: ") => Ok(None),
            _ => Err(format!("{} {}: {}", subject.name, variant.name, error_of(&answer))),
        }
    }

    /// Whether every step of a model is exact: floats that are left to rten differ by CPU.
    fn is_exact(&self, model: &Path) -> Result<bool> {
        let steps = self.inspect(self.levels[0], model)?;
        let text = String::from_utf8_lossy(&steps.stdout);
        let some = |exact: &str| text.contains(exact);
        Ok(steps.status.success() && some("\"exact\":true") && !some("\"exact\":false"))
    }

    /// The hash of the outputs of a model that is exact.
    fn outputs(
        &self,
        subject: &Subject,
        variant: &str,
        model: &Path,
        found: &mut Stored,
    ) -> Result<()> {
        if !self.is_exact(model)? {
            return Ok(());
        }
        let name = format!("{} {variant}", subject.name);
        let out = self.folder.join("outputs.npz");
        let mut first: Option<String> = None;
        for level in &self.levels {
            let mut words = words(&["run", "--force"]);
            words.extend([model.into(), "-o".into(), out.clone().into()]);
            words.extend(["--data".into(), subject.files.data.clone().into()]);
            words.extend(subject.data_options.iter().map(OsString::from));
            let answer = self.fewbits(Some(level), &words)?;
            if !answer.status.success() {
                return Err(format!("{name} at level {level}: {}", error_of(&answer)));
            }
            let hash = fnv1a(&read(&out)?);
            match &first {
                None => first = Some(hash),
                Some(same) if *same == hash => {}
                Some(_) => {
                    let scalar = self.levels[0];
                    return Err(format!(
                        "{name}: the outputs at level {level} are not those at {scalar}"
                    ));
                }
            }
        }
        found.insert(format!("{name} outputs"), first.unwrap_or_default());
        Ok(())
    }

    fn inspect(&self, level: &str, model: &Path) -> Result<Output> {
        let mut words = words(&["inspect", "--runtime", "--json"]);
        words.push(model.into());
        self.fewbits(Some(level), &words)
    }

    fn fewbits(&self, level: Option<&str>, words: &[OsString]) -> Result<Output> {
        Command::new(&self.binary)
            .args(words)
            .env("FEWBITS_CPU", level.unwrap_or_default())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{} cannot be started: {error}", self.binary.display()))
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// The last line of what a command says on standard error.
fn error_of(answer: &Output) -> String {
    let text = String::from_utf8_lossy(&answer.stderr);
    text.lines().last().unwrap_or("failed without a word").to_owned()
}
