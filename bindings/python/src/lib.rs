//! The Python package's native module: it carries values between Python and the library, holds the
//! interpreter lock no longer than that takes, and lets no panic through.

#![forbid(unsafe_code)]

mod arrays;
mod data;
mod errors;
mod hints;
mod measure;
mod model;
mod options;
mod predict;
mod quantize;
mod work;

/// The module `fewbits._fewbits`.
#[pyo3::pymodule]
mod _fewbits {
    #[pymodule_export]
    use crate::data::Data;
    #[pymodule_export]
    use crate::measure::{compare, sweep, tune};
    #[pymodule_export]
    use crate::model::OnnxModel;
    #[pymodule_export]
    use crate::predict::Predictor;
    #[pymodule_export]
    use crate::quantize::{check_plan, plan, quantize};

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// Lets the library's messages speak Python.
    #[pymodule_init]
    fn init(_module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        fewbits::hint::spell_hints(crate::hints::as_argument);
        Ok(())
    }
}
