//! From any model to one that rten can load.

use fewbits_onnx::Model;
use fewbits_onnx::passes::byte_arithmetic::byte_arithmetic;
use fewbits_onnx::passes::exact_products::exact_products;
use fewbits_onnx::passes::exact_quantization::exact_quantization;
use fewbits_onnx::passes::first_of_equals::first_of_equals;
use fewbits_onnx::passes::lower_ml::{self, KeptNode as Kept};
use fewbits_onnx::passes::normal_forms::normal_forms;
use fewbits_onnx::passes::turned_weights::turn_integer_weights;
use fewbits_onnx::passes::{cleanup, constants, inline, own_shapes, to_qdq, unfuse, unpack};
use fewbits_onnx::proto::{AttributeProto, NodeProto};

use crate::trust::first_distrusted;
use crate::{Result, RuntimeError};

/// The domains whose operators rten has.
const KNOWN_DOMAINS: [&str; 3] = ["", "ai.onnx", "com.microsoft"];

/// Inlines functions, lowers, folds constants into initializers, brings the forms of other quantizers to ours and
/// unpacks quantized weights.
///
/// # Errors
/// If the model holds classical, integer or custom operators that stay, by name.
pub fn prepare(model: &Model) -> Result<Model> {
    let (model, kept) = prepare_leniently(model)?;
    refuse(&model, &kept)?;
    if let Some((node, what)) = first_distrusted(&model.graph().node, model.opset()) {
        let reason =
            format!("node '{}' is a {what}, which the executor does not have", node.label());
        return Err(RuntimeError::Load { reason });
    }
    Ok(model)
}

/// Inlines functions, lowers, folds constants into initializers, and brings what other tools quantized to one form.
///
/// # Errors
/// If the model holds classical or custom operators that stay, by name.
pub fn prepare_quantized(model: &Model) -> Result<Model> {
    let (mut model, kept) = to_one_form(model)?;
    own_shapes::own_shapes(model.graph_mut());
    cleanup::cleanup(model.graph_mut());
    refuse(&model, &kept)?;
    Ok(model)
}

fn to_one_form(model: &Model) -> Result<(Model, Vec<Kept>)> {
    let mut model = model.clone();
    let mut kept = inline::inline_functions(&mut model);
    kept.append(&mut lower_ml::lower_ml(&mut model)?.kept);
    constants::constants_to_initializers(model.graph_mut());
    kept.append(&mut unfuse::unfuse(&mut model));
    normal_forms(&mut model);
    turn_integer_weights(model.graph_mut())?;
    kept.append(&mut to_qdq::to_qdq(&mut model).kept);
    Ok((model, kept))
}

/// Fails if operators stayed that no executor has.
fn refuse(model: &Model, kept: &[Kept]) -> Result<()> {
    if let Some(kept) = kept.first() {
        let reason = format!(
            "node '{}' is a {} ({}), which the executor does not have",
            kept.node, kept.op, kept.why
        );
        return Err(RuntimeError::Load { reason });
    }
    if let Some(node) = model.graph().node.iter().find(|n| holds_dynamic_lstm(n)) {
        let reason = format!(
            "node '{}' holds a DynamicQuantizeLSTM, which cannot be computed inside it; keep that \
             LSTM in floats",
            node.label()
        );
        return Err(RuntimeError::Load { reason });
    }
    let foreign = model.graph().node.iter().find(|n| !KNOWN_DOMAINS.contains(&n.domain()));
    if let Some(node) = foreign {
        let reason = format!(
            "node '{}' is the custom operator {}::{}, which the executor does not have",
            node.label(),
            node.domain(),
            node.op_type()
        );
        return Err(RuntimeError::Load { reason });
    }
    Ok(())
}

/// Whether a subgraph of `node` holds an LSTM that the executor would compute with sums that saturate.
fn holds_dynamic_lstm(node: &NodeProto) -> bool {
    let mut graphs = node.attribute.iter().flat_map(AttributeProto::subgraphs);
    graphs.any(|g| g.node.iter().any(|n| to_qdq::is_dynamic_lstm(n) || holds_dynamic_lstm(n)))
}

/// As [`prepare`], but operators that the executor does not have stay; the classical and the
/// integer ones are returned.
///
/// # Errors
/// If the model is damaged.
pub fn prepare_leniently(model: &Model) -> Result<(Model, Vec<Kept>)> {
    let (mut model, mut kept) = to_one_form(model)?;
    // What stays of them is left to the executor, which runs some of it.
    to_qdq::unpack_nbits(&mut model);
    kept.append(&mut to_qdq::unpack_lstm(&mut model).kept);
    unpack::unpack_weights(model.graph_mut(), |_| true);
    exact_products(&mut model);
    exact_quantization(&mut model);
    byte_arithmetic(&mut model);
    first_of_equals(&mut model);
    cleanup::cleanup(model.graph_mut());
    Ok((model, kept))
}
