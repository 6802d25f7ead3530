//! Methods that make a model lose less when it is quantized, one a file.
//!
//! Each looks at the float model and at what its products read, and gives [`Adjustment`]s: edits
//! that leave the float model as it is, or that correct it. [`crate::recipe`] keeps those that
//! lower the error of the outputs on calibration data.

mod allowance;
pub mod awq;
pub mod bias_correction;
pub mod equalization;
mod noise;
pub mod smoothquant;

use std::str::FromStr;

use crate::calibrate::Rescaled;
use crate::plan::{Adjustment, Method};

pub use allowance::{Allowance, Without};
pub use noise::{PerOutput, WeightSteps};

/// What a method would have done that leaves the float model's outputs as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// The edits.
    pub edits: Vec<Adjustment>,
    /// The activations that change by them.
    pub rescaled: Vec<Rescaled>,
}

/// Which methods to apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Methods {
    /// Those that lower the measured error of the outputs.
    #[default]
    Measured,
    /// These, whatever they do.
    Only(Vec<Method>),
}

impl Methods {
    /// Whether `method` is not ruled out.
    pub fn allow(&self, method: Method) -> bool {
        match self {
            Methods::Measured => true,
            Methods::Only(methods) => methods.contains(&method),
        }
    }
}

impl FromStr for Methods {
    type Err = String;

    fn from_str(text: &str) -> Result<Methods, String> {
        let known = |name: &str| {
            Method::ALL.into_iter().find(|m| m.to_string() == name).ok_or_else(|| {
                let names = Method::ALL.map(|m| m.to_string()).join(", ");
                format!("'{name}' is not a method; they are {names}, or auto, or none")
            })
        };
        match text {
            "auto" => Ok(Methods::Measured),
            "none" => Ok(Methods::Only(Vec::new())),
            names => {
                let listed: Vec<Method> = names.split(',').map(known).collect::<Result<_, _>>()?;
                // Each once and in the order in which they are applied, however they are listed.
                let each = Method::ALL.into_iter().filter(|m| listed.contains(m));
                Ok(Methods::Only(each.collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_names() {
        for method in Method::ALL {
            let methods: Methods = method.to_string().parse().unwrap();
            assert_eq!(methods, Methods::Only(vec![method]));
            assert_eq!(serde_json::to_value(method).unwrap(), method.to_string());
        }
        assert_eq!("none".parse(), Ok(Methods::Only(Vec::new())));
        let two: Methods = "equalization,bias-correction".parse().unwrap();
        assert!(two.allow(Method::BiasCorrection) && !two.allow(Method::SmoothQuant));
        let twice = "bias-correction,equalization,equalization".parse();
        assert_eq!(twice, Ok(two));
        assert!("gptq".parse::<Methods>().unwrap_err().contains("smoothquant"));
    }
}
