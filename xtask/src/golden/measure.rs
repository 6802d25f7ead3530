//! The hashes of one case: its written files, and their outputs at every level of kernels.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::cases::{Calibrated, Case, Files, VARIANTS, Variant};
use super::stored::Stored;
use crate::hash::fnv1a;
use crate::step::Result;

/// What `FEWBITS_CPU` may name.
const LEVELS: [&str; 5] = ["scalar", "neon", "avx2", "avx512vnni", "amx"];
/// What the program says of a level that this CPU lacks.
const LACKING: &str = "this CPU offers";
/// In the place of the hash of a file that the program refuses to write.
const REFUSED: &str = "refused";

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

    /// Hashes the float model's outputs and all that is made of it.
    pub fn case(&self, case: &Case, files: &Files, found: &mut Stored) -> Result<()> {
        let name = case.name();
        println!("    {name}");
        self.outputs(&format!("{name} float"), case, &files.model, files, found)?;
        for variant in VARIANTS.iter().filter(|variant| !case.depends_on_cpu(variant)) {
            let name = format!("{name} {}", variant.name);
            let out = self.folder.join("quantized.onnx");
            let Some(bytes) = self.quantize(case, files, variant, &out)? else {
                found.insert(format!("{name} file"), REFUSED.into());
                continue;
            };
            found.insert(format!("{name} file"), fnv1a(&bytes));
            self.outputs(&name, case, &out, files, found)?;
        }
        Ok(())
    }

    /// The bytes of the file, if the program writes it.
    fn quantize(
        &self,
        case: &Case,
        files: &Files,
        variant: &Variant,
        out: &Path,
    ) -> Result<Option<Vec<u8>>> {
        let mut words = words(&["quantize", "--force"]);
        words.extend([files.model.clone().into(), "-o".into(), out.into()]);
        words.extend(variant.options.iter().map(OsString::from));
        if variant.calibrated != Calibrated::No {
            words.extend(["--calibrate".into(), files.calibration.clone().into()]);
            words.extend(case.data_options.iter().map(OsString::from));
        }
        let answer = self.fewbits(None, &words)?;
        match answer.status.code() {
            Some(0) => Ok(Some(read(out)?)),
            Some(1) if error_of(&answer).starts_with("error: ") => Ok(None),
            _ => Err(format!("{} {}: {}", case.name(), variant.name, error_of(&answer))),
        }
    }

    /// The hash of the outputs, where every step is exact: floats that are left to rten differ by CPU.
    fn outputs(
        &self,
        name: &str,
        case: &Case,
        model: &Path,
        files: &Files,
        found: &mut Stored,
    ) -> Result<()> {
        let steps = self.inspect(self.levels[0], model)?;
        let text = String::from_utf8_lossy(&steps.stdout);
        if !steps.status.success()
            || !text.contains("\"exact\":true")
            || text.contains("\"exact\":false")
        {
            return Ok(());
        }
        let out = self.folder.join("outputs.npz");
        let mut first: Option<String> = None;
        for level in &self.levels {
            let mut words = words(&["run", "--force"]);
            words.extend([model.into(), "-o".into(), out.clone().into()]);
            words.extend(["--data".into(), files.data.clone().into()]);
            words.extend(case.data_options.iter().map(OsString::from));
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
