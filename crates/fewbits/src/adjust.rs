//! The part of a plan that comes before anything is quantized.

use fewbits_onnx::Model;
use fewbits_onnx::passes::qdq::{scalable_products, scale_for_products};
use fewbits_onnx::proto::TensorProto;

use crate::plan::{Adjustment, Edit};
use crate::{Error, Result};

/// Carries out the adjustments of a plan, in their order.
///
/// # Errors
/// If one names a tensor or value that the model does not have, or one of another shape.
pub(crate) fn adjust(model: &mut Model, adjustments: &[Adjustment]) -> Result<()> {
    for adjustment in adjustments {
        let values = adjustment.values.as_slice();
        match &adjustment.edit {
            Edit::Multiply { tensor, axis } => edit(model, tensor, *axis, values, |x, v| x * v)?,
            Edit::Add { tensor, axis } => edit(model, tensor, *axis, values, |x, v| x + v)?,
            Edit::MultiplyForProducts { value } => {
                check_length(model, value, values.len())?;
                if !scale_for_products(model.graph_mut(), value, values) {
                    let reason = format!("no product reads a value '{value}' that can be scaled");
                    return Err(Error::PlanMismatch { reason });
                }
            }
        }
    }
    Ok(())
}

/// Checks that the products of constants that read `value` sum over `length` channels.
fn check_length(model: &Model, value: &str, length: usize) -> Result<()> {
    let graph = model.graph();
    for product in scalable_products(graph, value) {
        let node = &graph.node[product];
        let weight = node.input.get(1).and_then(|weight| graph.find_initializer(weight));
        let Some(tensor) = weight else { continue };
        let shape = tensor.shape()?;
        let channels = match node.int("transB", 0) {
            0 => shape.iter().rev().nth(1),
            _ => shape.last(),
        };
        if let Some(&channels) = channels.filter(|&&channels| channels != length) {
            let reason = format!(
                "value '{value}' is scaled by {length} values, a product that reads it takes \
                 {channels} channels"
            );
            return Err(Error::PlanMismatch { reason });
        }
    }
    Ok(())
}

fn edit(
    model: &mut Model,
    name: &str,
    axis: usize,
    values: &[f32],
    change: impl Fn(f32, f32) -> f32,
) -> Result<()> {
    let mismatch = |reason: String| Error::PlanMismatch { reason };
    let tensor = model
        .graph()
        .find_initializer(name)
        .ok_or_else(|| mismatch(format!("the model has no constant tensor '{name}'")))?;
    let shape = tensor.shape()?;
    if shape.get(axis) != Some(&values.len()) {
        return Err(mismatch(format!(
            "tensor '{name}' of shape {shape:?} is adjusted by {} values along axis {axis}",
            values.len()
        )));
    }
    let mut elements = model.floats_released(tensor)?;
    let inner: usize = shape[axis + 1..].iter().product();
    for run in elements.chunks_mut((inner * values.len()).max(1)) {
        for (part, &value) in run.chunks_mut(inner.max(1)).zip(values) {
            part.iter_mut().for_each(|x| *x = change(*x, value));
        }
    }
    let edited = TensorProto::from_f32(name, &shape, &elements);
    for tensor in model.graph_mut().initializer.iter_mut().filter(|t| t.name() == name) {
        *tensor = edited.clone();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Method;
    use fewbits_onnx::proto::{GraphProto, NodeProto};

    fn model() -> Model {
        let graph = GraphProto {
            node: vec![
                NodeProto::new("MatMul", &["x", "w"], &["y"]),
                NodeProto::new("Add", &["x", "y"], &["z"]),
            ],
            initializer: vec![TensorProto::from_f32("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])],
            ..GraphProto::default()
        };
        Model::from_graph(graph, 17)
    }

    fn adjustment(edit: Edit, values: &[f32]) -> Adjustment {
        Adjustment { method: Method::SmoothQuant, edit, values: values.to_vec() }
    }

    #[test]
    fn constants_change_along_an_axis() {
        let tensor = || "w".to_string();
        let mut changed = model();
        let rows = adjustment(Edit::Multiply { tensor: tensor(), axis: 0 }, &[1.0, 10.0]);
        let columns = adjustment(Edit::Add { tensor: tensor(), axis: 1 }, &[0.0, 0.5, 1.0]);
        adjust(&mut changed, &[rows.clone(), columns]).unwrap();
        let floats = changed.graph().find_initializer("w").unwrap().floats().unwrap();
        assert_eq!(floats, [1.0, 2.5, 4.0, 40.0, 50.5, 61.0]);
        let wrong = Adjustment { values: vec![1.0], ..rows };
        assert!(matches!(adjust(&mut changed, &[wrong]), Err(Error::PlanMismatch { .. })));
        let unknown = adjustment(Edit::Add { tensor: "v".into(), axis: 0 }, &[1.0]);
        assert!(matches!(adjust(&mut changed, &[unknown]), Err(Error::PlanMismatch { .. })));
    }

    #[test]
    fn a_name_that_is_taken_is_no_obstacle() {
        let mut changed = model();
        let mut taken = NodeProto::new("Relu", &["z"], &["x_scaled"]);
        std::mem::swap(&mut changed.graph_mut().node[1], &mut taken);
        changed.graph_mut().node.push(taken);
        let scale = adjustment(Edit::MultiplyForProducts { value: "x".into() }, &[2.0, 3.0]);
        adjust(&mut changed, &[scale]).unwrap();
        let product = changed.graph().node.iter().find(|n| n.is("MatMul")).unwrap();
        assert_eq!(product.input[0], "x_scaled_1");
    }

    #[test]
    fn only_products_read_the_scaled_value() {
        let mut changed = model();
        let scale = adjustment(Edit::MultiplyForProducts { value: "x".into() }, &[2.0, 3.0]);
        adjust(&mut changed, &[scale]).unwrap();
        let nodes = &changed.graph().node;
        assert_eq!(nodes[0].op_type(), "Mul");
        assert_eq!(nodes[1].input[0], "x_scaled");
        assert_eq!(nodes[2].input[0], "x");
        let short = adjustment(Edit::MultiplyForProducts { value: "x".into() }, &[2.0]);
        assert!(matches!(adjust(&mut model(), &[short]), Err(Error::PlanMismatch { .. })));
        let unknown = adjustment(Edit::MultiplyForProducts { value: "v".into() }, &[1.0]);
        assert!(matches!(adjust(&mut changed, &[unknown]), Err(Error::PlanMismatch { .. })));
    }
}
