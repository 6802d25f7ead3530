//! The kernels of each CPU.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
