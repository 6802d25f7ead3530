//! The recipe `weights`: every weight becomes integers or small floats, activations stay float.

use fewbits_onnx::Model;
use fewbits_onnx::passes::unfuse;
use fewbits_onnx::qweight::QWeightWriter;
use fewbits_quant::{
    Bits, Layout, PackedInts, QuantError, ScaleType, Scheme, check, is_below_scales, quantize,
    sqnr_db,
};
use rayon::prelude::*;

use super::scores::{self, last_products};
use super::tables;
use super::{ActivationUse, Alone, Becomes, Plan, PlannedTensor, Target, WeightOptions};
use crate::layers::{Constant, Role, constants};
use crate::progress::Progress;
use crate::{Error, Result};

/// The largest weight whose every form is written to see what it takes: of a larger one operators are a
/// small part.
const WEIGHED_BYTES: u64 = 16 << 10;

/// Plans every weight of a prepared model for such activations beside them.
///
/// # Errors
/// If a weight cannot be read.
pub fn plan_weights(
    model: &Model,
    options: &WeightOptions,
    activations: ActivationUse,
    target: Target,
    progress: &dyn Progress,
) -> Result<Plan> {
    let constants = constants(model.graph());
    let last = last_products(model.graph());
    progress.start("planning", constants.len() as u64);
    let tensors = constants
        .into_par_iter()
        .map(|constant| {
            let options = match constant.tensor.as_str() {
                _ if constant.is_table() => tables::options(options),
                name if last.contains(name) => scores::options(options),
                _ => *options,
            };
            let planned = plan_one(model, &options, activations, target, constant, progress)?;
            progress.advance(1);
            Ok(planned)
        })
        .collect::<Result<Vec<_>>>()?;
    progress.finish();
    Ok(Plan::new(tensors, target))
}

/// Plans those weights that [`plan_weights`] keeps wider than others as wide as these.
pub(crate) fn plan_as_narrow_as_asked(
    model: &Model,
    options: &WeightOptions,
    activations: ActivationUse,
    target: Target,
    progress: &dyn Progress,
) -> Result<Vec<PlannedTensor>> {
    let last = last_products(model.graph());
    let kept = constants(model.graph())
        .into_iter()
        .filter(|constant| constant.is_table() || last.contains(&constant.tensor));
    kept.map(|constant| plan_one(model, options, activations, target, constant, progress)).collect()
}

fn plan_one(
    model: &Model,
    options: &WeightOptions,
    activations: ActivationUse,
    target: Target,
    constant: Constant,
    progress: &dyn Progress,
) -> Result<PlannedTensor> {
    let Decided { becomes, range, sqnr_db } =
        decide(model, options, activations, target, &constant, progress)?;
    let Constant { tensor, shape, read_by, .. } = constant;
    let layout = becomes.scheme().and_then(|scheme| Layout::new(&shape, scheme.granularity()).ok());
    let scale_type = layout.map_or(ScaleType::F32, |l| options.scales_of(l.params()));
    let (range_method, rounding, reduce_range) = Default::default();
    Ok(PlannedTensor {
        tensor,
        shape,
        read_by,
        range,
        sqnr_db,
        range_method,
        rounding,
        scale_type,
        reduce_range,
        becomes,
    })
}

/// What one tensor becomes, and what that does to it.
struct Decided {
    becomes: Becomes,
    range: Option<(f32, f32)>,
    sqnr_db: Option<f32>,
}

fn decide(
    model: &Model,
    options: &WeightOptions,
    activations: ActivationUse,
    target: Target,
    constant: &Constant,
    progress: &dyn Progress,
) -> Result<Decided> {
    let float = |why: &str| {
        let becomes = Becomes::Float(why.to_string());
        Ok(Decided { becomes, range: None, sqnr_db: None })
    };
    let Constant { tensor: name, shape, .. } = constant;
    let Some(axes) = activations.axes_of(constant) else {
        let foreign = constant.read_by.iter().find_map(|reader| reader.rsplit_once('.'));
        return float(&match (constant.role, foreign) {
            (Role::Bias, _) => {
                "a bias: a small part of the file; int32 beside products of integers".to_string()
            }
            (_, Some((domain, op))) => unfuse::why_unknown(domain, op),
            (_, None) => "no product or convolution reads it as a weight".to_string(),
        });
    };
    let is_looked_up = constant.read_as.iter().any(|read_as| read_as.is_looked_up());
    if let Some(why) = target.why_float_tables().filter(|_| is_looked_up) {
        return float(why);
    }
    let graph = model.graph();
    if graph.input.iter().any(|i| i.name() == *name) {
        return float("an input that the caller may replace");
    }
    let scheme = options.scheme_for(axes, shape.len());
    let tensor = graph.find_initializer(name).expect("a constant is an initializer");
    let values = model.floats_released(tensor)?;
    if values.is_empty() {
        return float("it is empty");
    }
    if constant.is_table() && tables::is_of_waves(&values, shape[0]) {
        return float("sines and cosines, read by position: all layers depend on them");
    }
    let range = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    match check(&values, shape, scheme) {
        Ok(_) => {}
        Err(why @ QuantError::FixedPointOverflow { .. }) => {
            progress.warn(&format!("'{name}' is rounded and stays float: {why}"));
            let becomes = Becomes::Scheme(scheme);
            return Ok(Decided { becomes, range: Some(range), sqnr_db: None });
        }
        Err(why) => return float(&why.to_string()),
    }
    if is_below_scales(range) {
        return float("its values are so small that a scale of them would be subnormal");
    }
    if let Some(why) = QWeightWriter::obstacle(model.opset(), widest(scheme)) {
        return float(&why);
    }
    let refused = |source| Error::Quant { tensor: name.clone(), source };
    // What is asked for by the number of its digits is written, whatever it takes.
    if let Some(bits) = scheme.bits() {
        let float_bytes = tensor.stored_bytes();
        let bytes = match float_bytes <= WEIGHED_BYTES {
            true => {
                let weight = quantize(&values, shape, scheme).map_err(refused)?;
                // Small floats, which alone have tables, come with float activations.
                let form = target.weights(ActivationUse::Float);
                Alone::new(model, tensor).bytes_as(weight, form)?
            }
            // Scales may take as much as they save, operators do not.
            false => {
                let layout = Layout::new(shape, scheme.granularity()).map_err(refused)?;
                let codes = (values.len() * usize::from(bits.get())).div_ceil(8);
                (codes + layout.params() * param_bytes(scheme)) as u64
            }
        };
        if bytes >= float_bytes {
            return float("too small: scales and operators would take more than fewer bits save");
        }
    }
    let sqnr_db = sqnr_db(&values, shape, scheme).map_err(refused)?;
    // Squares of huge values overflow, and JSON has no infinity.
    let sqnr_db = sqnr_db.filter(|db| db.is_finite());
    Ok(Decided { becomes: Becomes::Scheme(scheme), range: Some(range), sqnr_db })
}

/// The bytes of a scale and a zero point.
fn param_bytes(scheme: Scheme) -> usize {
    match scheme {
        Scheme::Affine { .. } => 5,
        Scheme::Mx { .. } | Scheme::NvFp4 { .. } => 1,
        Scheme::Symmetric { .. } | Scheme::FixedPoint { .. } | Scheme::Float { .. } => 4,
    }
}

/// The width that decides how integers are written; those of fixed point may be of any.
fn widest(scheme: Scheme) -> u8 {
    scheme.bits().map_or(PackedInts::MAX_WIDTH, Bits::get)
}
