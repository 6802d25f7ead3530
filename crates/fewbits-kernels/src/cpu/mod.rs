//! Which kernels this CPU can run: asked once, and the answer is a value.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// A family of kernels, on each architecture from the slowest to the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Plain Rust: the specification of all others.
    Scalar,
    /// NEON with the integer dot product, on aarch64.
    Neon,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 with the integer dot product (VNNI).
    Avx512Vnni,
    /// The same, and matrix products in AMX tiles.
    Amx,
}

impl Level {
    /// All levels, of each architecture the slowest first.
    pub const ALL: [Level; 5] =
        [Level::Scalar, Level::Neon, Level::Avx2, Level::Avx512Vnni, Level::Amx];

    /// Returns the name that `FEWBITS_CPU` takes.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512Vnni => "avx512vnni",
            Level::Amx => "amx",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A level that this CPU has been seen to offer: holding one is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(Level);

impl Cpu {
    /// The plain kernels, which every CPU can run.
    pub const SCALAR: Cpu = Cpu(Level::Scalar);

    /// Takes `level`, if this CPU offers it.
    pub fn new(level: Level) -> Option<Cpu> {
        offers(level).then_some(Cpu(level))
    }

    /// Lists every level of this CPU, the slowest first.
    pub fn available() -> Vec<Cpu> {
        Level::ALL.into_iter().filter_map(Cpu::new).collect()
    }

    /// Takes a level that tests emulate.
    #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn emulated(level: Level) -> Cpu {
        Cpu(level)
    }

    /// Returns the fastest level, or the one that the environment variable `FEWBITS_CPU` names.
    ///
    /// # Errors
    /// If the variable names no level, or one that this CPU lacks.
    pub fn chosen() -> Result<Cpu, UnknownCpu> {
        static CHOSEN: OnceLock<Result<Cpu, UnknownCpu>> = OnceLock::new();
        CHOSEN
            .get_or_init(|| match std::env::var("FEWBITS_CPU") {
                Ok(name) if !name.is_empty() => Cpu::named(&name),
                _ => Ok(Cpu::available().pop().unwrap_or(Cpu::SCALAR)),
            })
            .clone()
    }

    fn named(name: &str) -> Result<Cpu, UnknownCpu> {
        Level::ALL
            .into_iter()
            .find(|level| level.name() == name)
            .and_then(Cpu::new)
            .ok_or_else(|| UnknownCpu { asked: name.to_string() })
    }

    /// Returns the level.
    pub fn level(self) -> Level {
        self.0
    }
}

/// `FEWBITS_CPU` asks for kernels that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCpu {
    asked: String,
}

impl fmt::Display for UnknownCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Cpu::available().iter().map(|c| c.0.name()).collect();
        write!(f, "FEWBITS_CPU={}: this CPU offers {}", self.asked, names.join(", "))
    }
}

impl std::error::Error for UnknownCpu {}

#[cfg(target_arch = "x86_64")]
fn offers(level: Level) -> bool {
    match level {
        Level::Scalar => true,
        Level::Neon => false,
        Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        Level::Avx512Vnni => {
            offers(Level::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        }
        Level::Amx => offers(Level::Avx512Vnni) && amx::permitted(),
    }
}

#[cfg(target_arch = "aarch64")]
fn offers(level: Level) -> bool {
    match level {
        Level::Scalar => true,
        Level::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
        Level::Avx2 | Level::Avx512Vnni | Level::Amx => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn offers(level: Level) -> bool {
    level == Level::Scalar
}

/// Compiles one plain function for every level, and calls the one of the level held.
///
/// The body is ordinary Rust over slices that the compiler turns into vectors; it must not depend
/// on their width. What it computes is the same at every level, since Rust neither reorders nor
/// contracts float operations. It reads as a function whose first argument is the [`Cpu`].
macro_rules! per_cpu {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name(cpu: $crate::Cpu, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                plain($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                plain($($arg),*)
            }

            match cpu.level() {
                // SAFETY: a Cpu of this level exists only where the CPU has these features.
                #[cfg(target_arch = "x86_64")]
                $crate::Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::Level::Avx512Vnni | $crate::Level::Amx => unsafe { avx512($($arg),*) },
                // Every CPU of aarch64 has vectors and fused multiplication: there, this is NEON.
                _ => plain($($arg),*),
            }
        }
    };
}
pub(crate) use per_cpu;

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    const OF_THIS_ARCHITECTURE: &[Level] =
        &[Level::Scalar, Level::Avx2, Level::Avx512Vnni, Level::Amx];
    #[cfg(target_arch = "aarch64")]
    const OF_THIS_ARCHITECTURE: &[Level] = &[Level::Scalar, Level::Neon];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    const OF_THIS_ARCHITECTURE: &[Level] = &[Level::Scalar];

    #[test]
    fn names_are_found_and_unknown_ones_refused() {
        assert_eq!(Cpu::named("scalar"), Ok(Cpu::SCALAR));
        let error = Cpu::named("mmx").unwrap_err().to_string();
        assert!(error.starts_with("FEWBITS_CPU=mmx: this CPU offers scalar"), "{error}");
    }

    #[test]
    fn levels_are_offered_from_the_slowest_on() {
        let levels: Vec<Level> = Cpu::available().into_iter().map(Cpu::level).collect();
        assert_eq!(levels, OF_THIS_ARCHITECTURE[..levels.len()]);
        assert_eq!(levels[0], Level::Scalar);
    }

    /// Who emulates a CPU knows its levels, and would not notice that one is left out.
    #[test]
    fn levels_are_those_that_the_environment_expects() {
        if let Ok(expected) = std::env::var("FEWBITS_TEST_LEVELS") {
            let names: Vec<&str> = Cpu::available().iter().map(|cpu| cpu.0.name()).collect();
            assert_eq!(names.join(", "), expected);
        }
    }
}
