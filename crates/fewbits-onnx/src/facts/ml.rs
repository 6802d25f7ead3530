//! What is known of the operators of `ai.onnx.ml`.

use super::extents::{Extent, Extents, Known, product};
use super::gives::Gives;
use crate::MODEL_DOMAIN_ML;
use crate::proto::{DataType, NodeProto};

/// What an operator gives; none where it is not in the table.
pub(super) fn gives(node: &NodeProto) -> Option<&'static [Gives]> {
    use Gives::{Entry, Input, Is, Label};
    (node.domain() == MODEL_DOMAIN_ML).then_some(())?;
    Some(match node.op_type() {
        "ArrayFeatureExtractor" | "Binarizer" | "Imputer" => &[Input(0)],
        "FeatureVectorizer" | "Normalizer" | "OneHotEncoder" | "Scaler" => &[Is(DataType::Float)],
        "LinearRegressor" | "SVMRegressor" | "TreeEnsembleRegressor" => &[Is(DataType::Float)],
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" => {
            &[Label, Is(DataType::Float)]
        }
        "LabelEncoder" => &[Entry],
        _ => return None,
    })
}

/// The type of what a `LabelEncoder` looks up, of keys of type `input`.
pub(super) fn entry(node: &NodeProto, input: Option<DataType>) -> Option<DataType> {
    if let Some(values) = node.tensor("values_tensor") {
        return values.element_type().ok();
    }
    let has = |name| node.attr(name).is_some();
    match () {
        () if has("values_strings") => Some(DataType::String),
        () if has("values_int64s") => Some(DataType::Int64),
        () if has("values_floats") => Some(DataType::Float),
        () if has("classes_strings") && input == Some(DataType::String) => Some(DataType::Int64),
        () if has("classes_strings") => Some(DataType::String),
        () => None,
    }
}

/// The type of a classifier's labels.
pub(super) fn label(node: &NodeProto) -> DataType {
    match node.strings("classlabels_strings").is_empty() {
        true => DataType::Int64,
        false => DataType::String,
    }
}

/// The axes of result number `place` of a node.
pub(super) fn extents(node: &NodeProto, place: usize, known: &impl Known) -> Option<Extents> {
    let input = |i: usize| known.extents(node.input.get(i)?);
    let rows = || match input(0).as_deref() {
        Some(&[rows, _]) => rows,
        _ => Extent::Unknown,
    };
    match node.op_type() {
        "Binarizer" | "Imputer" | "LabelEncoder" | "Normalizer" | "Scaler" => input(0),
        "ArrayFeatureExtractor" => {
            let mut extents = input(0)?;
            let count = input(1).map_or(Extent::Unknown, |places| product(&places));
            // A vector gives one row.
            if extents.len() == 1 {
                return Some(vec![Extent::Is(1), count]);
            }
            *extents.last_mut()? = count;
            Some(extents)
        }
        "OneHotEncoder" => {
            let count = node.ints("cats_int64s").len() + node.strings("cats_strings").len();
            Some([input(0)?, vec![Extent::Is(count)]].concat())
        }
        "FeatureVectorizer" => {
            let widths = node.ints("inputdimensions").iter();
            let widths = widths.map(|&width| Extent::from(usize::try_from(width).ok()));
            Some(vec![Extent::Unknown, widths.fold(Extent::Is(0), Extent::plus)])
        }
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" if place == 0 => {
            Some(vec![rows()])
        }
        "LinearClassifier"
        | "SVMClassifier"
        | "TreeEnsembleClassifier"
        | "LinearRegressor"
        | "SVMRegressor"
        | "TreeEnsembleRegressor" => Some(vec![rows(), Extent::Unknown]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::MODEL_DOMAIN_ML;
    use crate::facts::Facts;
    use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, ValueInfoProto};

    #[test]
    fn labels_and_rows_follow_from_the_attributes() {
        let words = AttributeProto {
            strings: vec!["no".into(), "yes".into()],
            ..AttributeProto::of_ints("classlabels_strings", &[])
        };
        let ml = |op: &str, inputs: &[&str], outputs: &[&str]| NodeProto {
            domain: Some(MODEL_DOMAIN_ML.into()),
            ..NodeProto::new(op, inputs, outputs)
        };
        let graph = GraphProto {
            node: vec![
                ml("Scaler", &["x"], &["s"]),
                ml("FeatureVectorizer", &["s", "x"], &["f"])
                    .with(AttributeProto::of_ints("inputdimensions", &[2, 2])),
                ml("LinearClassifier", &["f"], &["label", "p"]).with(words),
                ml("LabelEncoder", &["label"], &["code"])
                    .with(AttributeProto::of_ints("values_int64s", &[0, 1])),
                ml("ZipMap", &["p"], &["y"]),
            ],
            input: vec![ValueInfoProto::tensor("x", DataType::Double as i32, &[None, Some(2)])],
            ..GraphProto::default()
        };
        let facts = Facts::of(&graph);
        let (types, sizes) = (facts.types(), facts.sizes());
        for (name, data_type, dims) in [
            ("s", Some(DataType::Float), Some(vec![None, Some(2)])),
            ("f", Some(DataType::Float), Some(vec![None, Some(4)])),
            ("label", Some(DataType::String), Some(vec![None])),
            ("p", Some(DataType::Float), Some(vec![None, None])),
            ("code", Some(DataType::Int64), Some(vec![None])),
        ] {
            assert_eq!(types.get(name).copied(), data_type, "{name}");
            assert_eq!(sizes.get(name).cloned(), dims, "{name}");
        }
    }
}
