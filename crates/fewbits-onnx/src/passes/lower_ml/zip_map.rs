//! `ZipMap`: dropped. The graph's output becomes the plain tensor of probabilities, of the same
//! name.

use super::emit::{Emit, Why};
use crate::proto::{DataType, NodeProto, ValueInfoProto};

pub(super) fn lower(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let input = emit.input(node)?;
    let output = node.output.first().map_or("", String::as_str);
    if !emit.is_only_output(output) {
        return Err(format!(
            "other nodes read its maps '{output}'; export the model without ZipMap"
        ));
    }
    let classes = node.ints("classlabels_int64s").len() + node.strings("classlabels_strings").len();
    let columns = i64::try_from(classes).ok().filter(|&c| c > 0);
    let float = DataType::Float as i32;
    emit.retype_output(ValueInfoProto::tensor(output, float, &[None, columns]));
    emit.finish(input, node.output.first());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{ml, model};
    use crate::passes::lower_ml::lower_ml;
    use crate::proto::{AttributeProto, NodeProto, ValueInfoProto};

    #[test]
    fn the_output_becomes_a_tensor_under_its_own_name() {
        let zip = ml("ZipMap", &["p"], &["maps"])
            .with(AttributeProto::of_ints("classlabels_int64s", &[0, 1]));
        let mut m = model(vec![NodeProto::new("Sigmoid", &["x"], &["p"]), zip], 17);
        m.graph_mut().output[0].r#type = None;
        lower_ml(&mut m).unwrap();
        assert_eq!(m.graph().node.len(), 1);
        assert_eq!(m.graph().node[0].output, ["maps"]);
        let expected = ValueInfoProto::tensor("maps", 1, &[None, Some(2)]);
        assert_eq!(m.graph().output, [expected]);
    }

    #[test]
    fn maps_that_a_node_reads_stay() {
        let mut m = model(
            vec![
                ml("ZipMap", &["x"], &["maps"]),
                NodeProto::new("SequenceLength", &["maps"], &["y"]),
            ],
            17,
        );
        assert!(lower_ml(&mut m).unwrap().kept[0].why.contains("other nodes"));
    }
}
