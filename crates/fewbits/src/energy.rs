//! Joules of a call, from the energy counters of the processor packages.
//!
//! Linux shows them as [powercap](https://docs.kernel.org/power/powercap/powercap.html) zones, those
//! of AMD under the same names as Intel's. What is told is all that the packages took while the calls
//! ran: idle power is not taken off, and memory and the rest of the machine are not in it. Where no
//! counter can be read there is no figure, and the reason is told.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fewbits_engine::{Runner, Tensor};

use crate::Result;

/// Where Linux shows the counters.
pub const POWERCAP: &str = "/sys/class/powercap";

/// Turns that each model takes, so that whatever else the machine does falls on all of them alike.
const TURNS: usize = 4;
/// How long a turn is. Counters move about every millisecond: a turn is known to a hundredth.
const TURN: Duration = Duration::from_millis(200);

/// The joules of a call of each model, or why there are none.
#[derive(Clone, Debug, PartialEq)]
pub enum Energy {
    /// Joules of one call, one figure a model.
    PerCall(Vec<f64>),
    /// The reason, as a sentence.
    NotAvailable(String),
}

impl Energy {
    /// The joules of a call of one of the models; `None` where they are not available.
    pub fn of(&self, model: usize) -> Option<f64> {
        match self {
            Energy::PerCall(joules) => joules.get(model).copied(),
            Energy::NotAvailable(_) => None,
        }
    }

    /// What a reader of the figures must know.
    pub fn note(&self) -> String {
        match self {
            Energy::PerCall(_) => {
                "energy is that of the processor packages; idle power is not taken off".to_string()
            }
            Energy::NotAvailable(why) => format!("energy is not available on this machine: {why}"),
        }
    }
}

/// Measures the energy of calls of several models in turn; `root` is the folder of the counters,
/// [`POWERCAP`].
///
/// # Errors
/// If a model cannot be run on its inputs.
pub fn energy(
    runners: &[&dyn Runner],
    inputs: &[&[(String, Tensor)]],
    root: &Path,
) -> Result<Energy> {
    match Counters::open(root) {
        Ok(counters) => per_call(&counters, runners, inputs, TURN),
        Err(why) => Ok(Energy::NotAvailable(why)),
    }
}

fn per_call(
    counters: &Counters,
    runners: &[&dyn Runner],
    inputs: &[&[(String, Tensor)]],
    turn: Duration,
) -> Result<Energy> {
    let mut spent = vec![(0.0, 0u64); runners.len()];
    for _ in 0..TURNS {
        for ((runner, inputs), (joules, calls)) in runners.iter().zip(inputs).zip(&mut spent) {
            let lost = || Energy::NotAvailable("a counter could no longer be read".to_string());
            let Some(before) = counters.read() else { return Ok(lost()) };
            let begun = Instant::now();
            loop {
                runner.run(inputs)?;
                *calls += 1;
                if begun.elapsed() >= turn {
                    break;
                }
            }
            let Some(after) = counters.read() else { return Ok(lost()) };
            *joules += counters.joules(&before, &after);
        }
    }
    // Virtual machines may show counters that stand still.
    if spent.iter().any(|(joules, _)| *joules <= 0.0) {
        return Ok(Energy::NotAvailable("the powercap counters do not move".to_string()));
    }
    Ok(Energy::PerCall(spent.iter().map(|(joules, calls)| joules / *calls as f64).collect()))
}

/// The counters of all packages.
struct Counters(Vec<Counter>);

struct Counter {
    file: PathBuf,
    /// In microjoules: the counter begins again at 0 behind it.
    range_uj: u64,
}

impl Counters {
    /// Finds the counters, or tells why there are none. One that cannot be read makes all of no
    /// use: a part of the packages would be a made-up figure for the whole.
    fn open(root: &Path) -> std::result::Result<Counters, String> {
        let none = || "no readable powercap counters".to_string();
        let zones = root.read_dir().map_err(|_| none())?;
        let mut zones: Vec<PathBuf> = zones.filter_map(|zone| Some(zone.ok()?.path())).collect();
        zones.sort();
        let mut counters = Vec::new();
        for zone in zones.into_iter().filter(|zone| is_package(zone)) {
            let file = zone.join("energy_uj");
            let range_uj = number(&zone.join("max_energy_range_uj"));
            let (Some(range_uj), Some(_)) = (range_uj, number(&file)) else {
                return Err(format!("{}, {} needs a right to read it", none(), file.display()));
            };
            counters.push(Counter { file, range_uj });
        }
        if counters.is_empty() { Err(none()) } else { Ok(Counters(counters)) }
    }

    /// What each counter shows, in microjoules.
    fn read(&self) -> Option<Vec<u64>> {
        self.0.iter().map(|counter| number(&counter.file)).collect()
    }

    fn joules(&self, before: &[u64], after: &[u64]) -> f64 {
        let each = self.0.iter().zip(before.iter().zip(after));
        let microjoules =
            each.map(|(counter, (&before, &after))| match after.checked_sub(before) {
                Some(passed) => passed,
                None => counter.range_uj.saturating_sub(before) + after,
            });
        microjoules.sum::<u64>() as f64 / 1e6
    }
}

/// Whether a zone is a whole package, `intel-rapl:0` named `package-0`: cores and memory
/// (`intel-rapl:0:1`) are parts of one, `psys` holds all of them, and `intel-rapl-mmio:0` is the same
/// package once more.
fn is_package(zone: &Path) -> bool {
    let folder = zone.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let Some(("intel-rapl", number)) = folder.split_once(':') else { return false };
    let name = read_to_string(zone.join("name")).unwrap_or_default();
    !number.contains(':') && name.trim().starts_with("package")
}

fn number(file: &Path) -> Option<u64> {
    read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, write};

    use fewbits_engine::ValueSpec;
    use tempfile::TempDir;

    use super::*;

    fn zone(root: &TempDir, folder: &str, name: &str, energy_uj: u64) -> PathBuf {
        let zone = root.path().join(folder);
        create_dir(&zone).unwrap();
        write(zone.join("name"), format!("{name}\n")).unwrap();
        write(zone.join("max_energy_range_uj"), "10000\n").unwrap();
        write(zone.join("energy_uj"), format!("{energy_uj}\n")).unwrap();
        zone
    }

    /// Every call moves the counters of these zones on.
    struct Consumer(Vec<PathBuf>, u64);

    impl Runner for Consumer {
        fn inputs(&self) -> &[ValueSpec] {
            &[]
        }

        fn outputs(&self) -> &[ValueSpec] {
            &[]
        }

        fn run(&self, _: &[(String, Tensor)]) -> fewbits_engine::Result<Vec<(String, Tensor)>> {
            for zone in &self.0 {
                let file = zone.join("energy_uj");
                let energy_uj = (number(&file).unwrap() + self.1) % 10_000;
                write(file, energy_uj.to_string()).unwrap();
            }
            Ok(Vec::new())
        }
    }

    fn measured(root: &TempDir, models: &[Consumer]) -> Energy {
        let runners: Vec<&dyn Runner> = models.iter().map(|model| model as &dyn Runner).collect();
        let inputs: Vec<&[(String, Tensor)]> = vec![&[]; models.len()];
        let counters = Counters::open(root.path()).unwrap();
        per_call(&counters, &runners, &inputs, Duration::ZERO).unwrap()
    }

    #[test]
    fn packages_are_added_up_and_nothing_else() {
        let root = TempDir::new().unwrap();
        let mut all = vec![
            zone(&root, "intel-rapl:0", "package-0", 0),
            zone(&root, "intel-rapl:1", "package-1", 500),
        ];
        all.push(zone(&root, "intel-rapl:0:0", "core", 0));
        all.push(zone(&root, "intel-rapl:2", "psys", 0));
        all.push(zone(&root, "intel-rapl-mmio:0", "package-0", 0));
        create_dir(root.path().join("intel-rapl")).unwrap();
        let models = [Consumer(all.clone(), 1000), Consumer(all, 30)];
        let energy = measured(&root, &models);
        let (a, b) = (energy.of(0).unwrap(), energy.of(1).unwrap());
        assert!((a - 2e-3).abs() < 1e-12 && (b - 6e-5).abs() < 1e-12, "{energy:?}");
        assert!(energy.note().contains("idle power is not taken off"));
    }

    #[test]
    fn a_counter_that_begins_again_has_not_lost_anything() {
        let root = TempDir::new().unwrap();
        let package = zone(&root, "intel-rapl:0", "package-0", 9_900);
        let energy = measured(&root, &[Consumer(vec![package], 4_000)]);
        assert!((energy.of(0).unwrap() - 4e-3).abs() < 1e-12, "{energy:?}");
    }

    #[test]
    fn there_is_no_figure_without_counters() {
        let root = TempDir::new().unwrap();
        let why = |root: &Path| energy(&[], &[], root).unwrap().note();
        let none = "not available on this machine: no readable powercap counters";
        assert!(why(root.path()).ends_with(none));
        assert!(why(&root.path().join("missing")).ends_with(none));
        // Two packages of which one may not be read.
        zone(&root, "intel-rapl:0", "package-0", 1);
        let second = zone(&root, "intel-rapl:1", "package-1", 1);
        std::fs::remove_file(second.join("energy_uj")).unwrap();
        create_dir(second.join("energy_uj")).unwrap();
        let note = why(root.path());
        assert!(note.contains(none) && note.contains("intel-rapl:1"), "{note}");
        assert_eq!(energy(&[], &[], root.path()).unwrap().of(0), None);
    }

    #[test]
    fn counters_that_stand_still_tell_nothing() {
        let root = TempDir::new().unwrap();
        zone(&root, "intel-rapl:0", "package-0", 7);
        let energy = measured(&root, &[Consumer(Vec::new(), 0)]);
        assert_eq!(energy, Energy::NotAvailable("the powercap counters do not move".to_string()));
    }
}
