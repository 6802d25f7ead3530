//! Element types and shapes of values, as far as lowering needs them: declared ones, and those
//! that follow at once from a node's inputs.

use std::collections::HashMap;

use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

type Dims = Vec<Option<i64>>;

#[derive(Clone, Default)]
struct Value {
    elem_type: Option<DataType>,
    dims: Option<Dims>,
}

/// What is known of the values of a graph.
pub(in crate::passes) struct Types {
    values: HashMap<String, Value>,
}

impl Types {
    /// Reads the declarations, then walks the nodes in order.
    pub fn of(graph: &GraphProto) -> Types {
        let mut types = Types { values: HashMap::new() };
        for declared in graph.input.iter().chain(&graph.value_info) {
            let elem_type = declared.tensor_type().and_then(|t| known(t.elem_type()));
            let value = Value { elem_type, dims: declared.dims() };
            types.values.insert(declared.name().to_string(), value);
        }
        for tensor in &graph.initializer {
            let value = Value {
                elem_type: known(tensor.data_type()),
                dims: Some(tensor.dims.iter().map(|&d| Some(d)).collect()),
            };
            types.values.insert(tensor.name().to_string(), value);
        }
        for node in &graph.node {
            for (i, output) in node.output.iter().enumerate() {
                let inferred = types.infer(graph, node, i);
                let value = types.values.entry(output.clone()).or_default();
                value.elem_type = value.elem_type.or(inferred.elem_type);
                if value.dims.is_none() {
                    value.dims = inferred.dims;
                }
            }
        }
        types
    }

    /// Whether the graph has a value of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The element type of a value.
    pub fn elem_type(&self, name: &str) -> Option<DataType> {
        self.values.get(name)?.elem_type
    }

    /// The dimensions of a value; `None` in them is a size that is not fixed.
    pub fn dims(&self, name: &str) -> Option<&[Option<i64>]> {
        self.values.get(name)?.dims.as_deref()
    }

    fn infer(&self, graph: &GraphProto, node: &NodeProto, output: usize) -> Value {
        if !node.is_onnx() && node.domain() != crate::MODEL_DOMAIN_ML {
            return Value::default();
        }
        let input = |n: usize| {
            node.input.get(n).and_then(|name| self.values.get(name)).cloned().unwrap_or_default()
        };
        let Value { elem_type, dims } = input(0);
        let constant = |n: usize| node.input.get(n).and_then(|name| graph.find_initializer(name));
        let float = Some(DataType::Float);
        let value = |elem_type, dims| Value { elem_type, dims };
        match (node.op_type(), output) {
            ("Cast", _) => value(i32::try_from(node.int("to", 0)).ok().and_then(known), dims),
            (
                "Identity" | "Relu" | "Sigmoid" | "Tanh" | "Softmax" | "LogSoftmax" | "Neg" | "Abs"
                | "Exp" | "Log" | "Sqrt" | "Clip" | "LeakyRelu" | "PRelu" | "Elu" | "HardSigmoid"
                | "HardSwish" | "Erf" | "Imputer" | "Binarizer",
                _,
            )
            | (
                "BatchNormalization"
                | "InstanceNormalization"
                | "LayerNormalization"
                | "LRN"
                | "Dropout",
                0,
            ) => value(elem_type, dims),
            ("Conv" | "ConvTranspose", _) => {
                value(elem_type, resized(dims.or(input(1).dims), self.channels(node)))
            }
            ("MaxPool" | "AveragePool" | "LpPool" | "GlobalAveragePool" | "GlobalMaxPool", 0) => {
                let channels = dims.as_ref().and_then(|d| d.get(1).copied().flatten());
                value(elem_type, resized(dims, channels))
            }
            ("Resize" | "Upsample", _) => value(elem_type, resized(dims, None)),
            ("Flatten", _) => value(elem_type, Some(vec![None, None])),
            ("IsNaN" | "Not", _) => value(Some(DataType::Bool), dims),
            ("Scaler" | "Normalizer", _) => value(float, dims),
            ("Add" | "Sub" | "Mul" | "Div" | "Pow", _) => {
                value(elem_type, broadcast(dims, input(1).dims))
            }
            ("Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or", _) => {
                value(Some(DataType::Bool), broadcast(dims, input(1).dims))
            }
            ("Where", _) => value(input(1).elem_type, None),
            ("Shape" | "Size" | "NonZero", _) => value(Some(DataType::Int64), None),
            ("ArgMax" | "ArgMin", _) => {
                value(Some(DataType::Int64), dims.and_then(|d| reduced(d, node)))
            }
            ("MatMul", _) => value(elem_type, product(dims, input(1).dims)),
            ("Gemm", _) => value(elem_type, Some(vec![None, None])),
            ("Reshape", _) => value(elem_type, reshaped(dims, constant(1))),
            ("Concat", _) => value(elem_type, self.concatenated(node)),
            ("ArrayFeatureExtractor", _) => {
                let count = input(1).dims.and_then(|d| d.into_iter().product::<Option<i64>>());
                value(elem_type, dims.and_then(|d| extracted(d, count)))
            }
            ("LabelEncoder", _) => value(encoded_type(node, elem_type), dims),
            ("OneHotEncoder", _) => {
                let count = node.ints("cats_int64s").len() + node.strings("cats_strings").len();
                value(float, dims.map(|d| [d, vec![i64::try_from(count).ok()]].concat()))
            }
            ("FeatureVectorizer", _) => {
                value(float, Some(vec![None, Some(node.ints("inputdimensions").iter().sum())]))
            }
            ("LinearClassifier" | "TreeEnsembleClassifier" | "SVMClassifier", 0) => {
                let strings = !node.strings("classlabels_strings").is_empty();
                let label = if strings { DataType::String } else { DataType::Int64 };
                value(Some(label), Some(vec![None]))
            }
            ("LinearClassifier" | "TreeEnsembleClassifier" | "SVMClassifier", _) => {
                value(float, Some(vec![None, None]))
            }
            ("LinearRegressor" | "TreeEnsembleRegressor" | "SVMRegressor", _) => {
                value(float, Some(vec![None, None]))
            }
            // Most other operators give what they take; those that do not, take and give numbers
            // that a cast makes right again.
            (
                "Gather" | "Squeeze" | "Unsqueeze" | "Transpose" | "Slice" | "Sum" | "Max" | "Min"
                | "Mean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceMean" | "Expand"
                | "Tile" | "Pad",
                _,
            ) => value(elem_type, None),
            _ => Value::default(),
        }
    }

    /// The channels that a convolution gives.
    fn channels(&self, node: &NodeProto) -> Option<i64> {
        let weight = self.dims(node.input.get(1)?)?;
        match node.op_type() {
            "Conv" => *weight.first()?,
            _ => Some((*weight.get(1)?)? * node.int("group", 1)),
        }
    }

    fn concatenated(&self, node: &NodeProto) -> Option<Dims> {
        let mut parts = node.input.iter().map(|name| self.dims(name));
        let mut dims = parts.next()??.to_vec();
        let axis = node.int("axis", 0);
        let axis = usize::try_from(if axis < 0 { axis + dims.len() as i64 } else { axis }).ok()?;
        for part in parts {
            let size = dims.get_mut(axis)?;
            *size = (*size).zip(*part?.get(axis)?).map(|(a, b)| a + b);
        }
        Some(dims)
    }
}

fn known(data_type: i32) -> Option<DataType> {
    DataType::try_from(data_type).ok().filter(|&t| t != DataType::Undefined)
}

fn broadcast(a: Option<Dims>, b: Option<Dims>) -> Option<Dims> {
    let (mut long, short) = match (a?, b?) {
        (a, b) if a.len() >= b.len() => (a, b),
        (a, b) => (b, a),
    };
    let offset = long.len() - short.len();
    for (l, s) in long[offset..].iter_mut().zip(short) {
        *l = match (*l, s) {
            (Some(1), other) | (other, Some(1)) => other,
            (Some(size), _) | (None, Some(size)) => Some(size),
            (None, None) => None,
        };
    }
    Some(long)
}

fn product(a: Option<Dims>, b: Option<Dims>) -> Option<Dims> {
    let (mut dims, weight) = (a?, b?);
    let [_, columns] = weight.as_slice() else { return None };
    *dims.last_mut()? = *columns;
    Some(dims)
}

/// The shape of an image of another size.
fn resized(dims: Option<Dims>, channels: Option<i64>) -> Option<Dims> {
    let mut resized = vec![None; dims?.len()];
    *resized.get_mut(1)? = channels;
    Some(resized)
}

fn reduced(mut dims: Dims, node: &NodeProto) -> Option<Dims> {
    let axis = node.int("axis", 0);
    let axis = usize::try_from(if axis < 0 { axis + dims.len() as i64 } else { axis }).ok()?;
    *dims.get_mut(axis)? = Some(1);
    if node.int("keepdims", 1) == 0 {
        dims.remove(axis);
    }
    Some(dims)
}

fn reshaped(dims: Option<Dims>, shape: Option<&TensorProto>) -> Option<Dims> {
    let shape = shape?.ints().ok()?;
    let of_input = |i: usize| dims.as_ref().and_then(|d| d.get(i).copied()).flatten();
    Some(
        shape
            .iter()
            .enumerate()
            .map(|(i, &size)| match size {
                0 => of_input(i),
                -1 => None,
                size => Some(size),
            })
            .collect(),
    )
}

/// A vector gives one row.
fn extracted(mut dims: Dims, count: Option<i64>) -> Option<Dims> {
    if dims.len() == 1 {
        return Some(vec![Some(1), count]);
    }
    *dims.last_mut()? = count;
    Some(dims)
}

fn encoded_type(node: &NodeProto, input: Option<DataType>) -> Option<DataType> {
    if let Some(values) = node.tensor("values_tensor") {
        return known(values.data_type());
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

#[cfg(test)]
mod tests {
    use super::super::emit::testing::{ml, model};
    use super::*;
    use crate::proto::AttributeProto;

    #[test]
    fn types_and_shapes_follow_the_nodes() {
        let mut m = model(
            vec![
                ml("Scaler", &["x"], &["s"]),
                NodeProto::new("MatMul", &["s", "w"], &["p"]),
                NodeProto::new("Add", &["p", "b"], &["q"]),
                NodeProto::new("ArgMax", &["q"], &["i"]).with(AttributeProto::of_int("axis", 1)),
                NodeProto::new("Cast", &["i"], &["c"]).with(AttributeProto::of_int("to", 6)),
                NodeProto::new("Mystery", &["c"], &["y"]),
            ],
            17,
        );
        m.graph_mut().initializer = vec![
            TensorProto::from_f32("w", &[2, 3], &[0.0; 6]),
            TensorProto::from_f32("b", &[1, 3], &[0.0; 3]),
        ];
        let types = Types::of(m.graph());
        assert_eq!(types.dims("q"), Some(&[None, Some(3)][..]));
        assert_eq!(types.dims("i"), Some(&[None, Some(1)][..]));
        assert_eq!(types.elem_type("i"), Some(DataType::Int64));
        assert_eq!(types.elem_type("c"), Some(DataType::Int32));
        assert_eq!(types.elem_type("y"), None);
        assert!(types.knows("y") && !types.knows("z"));
    }
}
