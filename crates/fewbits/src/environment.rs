//! Where figures were measured.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use fewbits_engine::RunOptions;
use fewbits_kernels::Cpu;
use serde::Serialize;

/// The machine, as far as figures depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// The processor's name; none where the system does not tell.
    pub cpu: Option<String>,
    /// The kernels in use, by the name that `FEWBITS_CPU` takes.
    pub kernels: Option<&'static str>,
    /// Threads that models run on.
    pub threads: usize,
    /// The operating system and the architecture.
    pub system: String,
    /// The version of fewbits.
    pub fewbits: &'static str,
}

/// The machine that this process runs on.
pub fn environment(run: &RunOptions) -> Environment {
    let threads = run.threads.or_else(|| available_parallelism().ok());
    Environment {
        cpu: std::fs::read_to_string("/proc/cpuinfo").ok().as_deref().and_then(cpu_name),
        kernels: Cpu::chosen().ok().map(|cpu| cpu.level().name()),
        threads: threads.map_or(1, NonZeroUsize::get),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        fewbits: env!("CARGO_PKG_VERSION"),
    }
}

/// Of the first core. Arm kernels name none.
fn cpu_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    let (_, name) = line.split_once(':')?;
    Some(name.trim().to_string()).filter(|name| !name.is_empty())
}

impl Environment {
    /// Names and values, as people read them.
    pub fn lines(&self) -> Vec<(String, String)> {
        let unknown = || "not told by this system".to_string();
        [
            ("processor", self.cpu.clone().unwrap_or_else(unknown)),
            ("kernels", self.kernels.map_or_else(unknown, str::to_string)),
            ("threads", self.threads.to_string()),
            ("system", self.system.clone()),
            ("fewbits", self.fewbits.to_string()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_first_core() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A 1\n\nprocessor\t: 1\nmodel name\t: B\n";
        assert_eq!(cpu_name(cpuinfo).as_deref(), Some("A 1"));
        assert_eq!(cpu_name("processor : 0\nBogoMIPS : 50\n"), None);
        assert_eq!(cpu_name("model name\t:\n"), None);
    }
}
