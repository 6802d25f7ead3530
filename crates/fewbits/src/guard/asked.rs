//! What is asked of the guard, and what that means for a recipe or a plan.

use std::str::FromStr;

use fewbits_quant::{Bits, Scheme};

use super::{MinSqnr, Otherwise};
use crate::data::Dataset;
use crate::evaluate::DEFAULT_MIN_SQNR_DB;
use crate::hint::Setting;
use crate::plan::{ActivationBecomes, ActivationUse, Plan, SchemeKind};
use crate::recipe::{Activations, Request};

/// The least SQNR of the outputs, as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum AskedSqnr {
    /// [`DEFAULT_MIN_SQNR_DB`] where activations become integers, both of 8 bits, and there is data.
    #[default]
    Usual,
    /// Nothing is measured.
    None,
    /// So many decibels.
    Db(f64),
}

impl FromStr for AskedSqnr {
    type Err = String;

    fn from_str(text: &str) -> Result<AskedSqnr, String> {
        match text {
            "auto" => Ok(AskedSqnr::Usual),
            "none" => Ok(AskedSqnr::None),
            _ => match text.parse::<f64>() {
                Ok(db) if db.is_finite() => Ok(AskedSqnr::Db(db)),
                _ => Err("it is a number of decibels such as 20, or none".to_string()),
            },
        }
    }
}

impl AskedSqnr {
    /// The limit for what a recipe makes. A width below 8 bits is what was asked for, and so is fixed-point:
    /// there the guard only tells.
    ///
    /// # Errors
    /// If there is no data to measure on.
    pub fn of_recipe<'a>(self, request: &Request<'a>) -> Result<Option<MinSqnr<'a>>, String> {
        let integers =
            matches!(request.weights.scheme(), SchemeKind::Affine | SchemeKind::Symmetric);
        let activations = match request.activations {
            Activations::Static { bits, .. } => bits == Bits::EIGHT,
            Activations::Dynamic | Activations::Float => true,
        };
        let eight = integers && request.weights.bits() == Some(Bits::EIGHT) && activations;
        let usual = eight && request.activations != Activations::Float;
        let otherwise = if eight { Otherwise::LeaveFloat } else { Otherwise::Tell };
        self.limit(usual, otherwise, request.data)
    }

    /// The limit for a plan that was made before: it is what was asked for, and the guard only tells.
    ///
    /// # Errors
    /// If there is no data to measure on.
    pub fn of_plan<'a>(
        self,
        plan: &Plan,
        data: Option<&'a Dataset>,
    ) -> Result<Option<MinSqnr<'a>>, String> {
        let eight = |scheme: Scheme| match scheme {
            Scheme::Affine { bits, .. } | Scheme::Symmetric { bits, .. } => bits == Bits::EIGHT,
            _ => false,
        };
        let usual = plan.activation_use() != ActivationUse::Float
            && plan.quantized().all(|(_, scheme)| eight(scheme))
            && plan.activations.iter().all(|planned| match planned.becomes {
                ActivationBecomes::Static { scheme, .. } => eight(scheme),
                ActivationBecomes::Dynamic | ActivationBecomes::Float(_) => true,
            });
        self.limit(usual, Otherwise::Tell, data)
    }

    fn limit<'a>(
        self,
        usual: bool,
        otherwise: Otherwise,
        data: Option<&'a Dataset>,
    ) -> Result<Option<MinSqnr<'a>>, String> {
        match (self, data) {
            (AskedSqnr::Db(db), Some(data)) => Ok(Some(MinSqnr { db, data, otherwise })),
            (AskedSqnr::Db(_), None) => Err(format!(
                "{} is measured on calibration data; give it with {}, or use {}",
                Setting::MinSqnr,
                Setting::Calibration,
                Setting::MinSqnr.to("none")
            )),
            (AskedSqnr::Usual, Some(data)) if usual => {
                Ok(Some(MinSqnr { db: DEFAULT_MIN_SQNR_DB, data, otherwise }))
            }
            (AskedSqnr::Usual | AskedSqnr::None, _) => Ok(None),
        }
    }
}
