//! What tests run kernels on.

use crate::Cpu;

/// Every level that tests can run: those of this CPU, and AMX, emulated where it is missing.
pub(crate) fn tested_cpus() -> Vec<Cpu> {
    #[allow(unused_mut)]
    let mut cpus = Cpu::available();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if cpus.last() == Cpu::new(crate::Level::Avx512Vnni).as_ref() && !crate::cpu::amx::present() {
        super::amx::emulator::install();
        cpus.push(Cpu::emulated(crate::Level::Amx));
    }
    cpus
}
