//! What goes into a model and comes out of it.

use fewbits_onnx::proto::{DataType, DimValue, GraphProto, ValueInfoProto};
use serde::{Deserialize, Serialize};

use crate::{Result, RuntimeError, Tensor};

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueSpec {
    /// Its name.
    pub name: String,
    /// Its element type, if declared.
    #[serde(with = "crate::stored::data_type::optional")]
    pub data_type: Option<DataType>,
    /// Its dimensions, `None` for a free one such as the batch; `None` if nothing is declared.
    pub dims: Option<Vec<Option<usize>>>,
    /// The axis along which the examples of a batch lie; `None` for what is the same for all of them.
    pub row_axis: Option<usize>,
}

impl ValueSpec {
    /// Reads a declaration.
    pub fn new(info: &ValueInfoProto) -> ValueSpec {
        let dims: Option<Vec<Option<usize>>> =
            info.dims().map(|dims| dims.into_iter().map(|d| d.map(|d| d as usize)).collect());
        ValueSpec {
            name: info.name().to_string(),
            data_type: info.data_type(),
            row_axis: dims.as_ref().is_none_or(|dims| !dims.is_empty()).then_some(0),
            dims,
        }
    }

    /// Reads the declarations of values that go along with a batch of `rows`.
    fn beside(info: &ValueInfoProto, rows: &Rows) -> ValueSpec {
        let mut spec = ValueSpec::new(info);
        if let Some(Some(first)) = spec.dims.as_ref().and_then(|dims| dims.first()) {
            spec.row_axis = match rows {
                Rows::Fixed(count) if first == count => Some(0),
                Rows::Unknown => Some(0),
                Rows::Fixed(_) | Rows::Free(_) => None,
            };
        }
        if let Rows::Free(Some(name)) = rows
            && let Some(axis) = dim_names(info).iter().position(|n| *n == Some(name))
        {
            spec.row_axis = Some(axis);
        }
        spec
    }

    /// The shape as people write it: `[?, 20]`.
    pub fn shape_text(&self) -> String {
        match &self.dims {
            None => "of any shape".to_string(),
            Some(dims) => {
                let dims: Vec<String> =
                    dims.iter().map(|d| d.map_or("?".to_string(), |d| d.to_string())).collect();
                format!("[{}]", dims.join(", "))
            }
        }
    }

    /// The number of rows that the model insists on, if that dimension is fixed.
    pub fn fixed_rows(&self) -> Option<usize> {
        self.dims.as_ref()?.get(self.row_axis?).copied().flatten()
    }

    /// Whether a tensor may be fed as this value.
    ///
    /// # Errors
    /// If its type, its number of axes or a size that is told differs: with the input, both, and what to do.
    pub fn check(&self, tensor: &Tensor) -> Result<()> {
        let wrong = |reason: String| RuntimeError::Input { input: self.name.clone(), reason };
        if let Some(data_type) = self.data_type
            && data_type != tensor.data_type()
        {
            return Err(wrong(format!(
                "{:?} data given, {data_type:?} needed; convert the data",
                tensor.data_type()
            )));
        }
        let Some(dims) = &self.dims else { return Ok(()) };
        let fits = dims.len() == tensor.shape().len()
            && dims.iter().zip(tensor.shape()).all(|(d, &have)| d.is_none_or(|want| want == have));
        if fits {
            return Ok(());
        }
        Err(wrong(format!(
            "data of shape {:?} given, {} needed; reshape the data",
            tensor.shape(),
            self.shape_text()
        )))
    }
}

/// The inputs that a caller must feed.
pub fn input_specs(graph: &GraphProto) -> Vec<ValueSpec> {
    let rows = Rows::of(graph);
    graph.required_inputs().map(|info| ValueSpec::beside(info, &rows)).collect()
}

/// The outputs of a model.
pub fn output_specs(graph: &GraphProto) -> Vec<ValueSpec> {
    let rows = Rows::of(graph);
    let beside = |info| match ValueSpec::beside(info, &rows) {
        // What an output declares is not always kept to: where its rows lie is seen when they are there.
        spec if spec.row_axis.is_none() => ValueSpec::new(info),
        spec => spec,
    };
    graph.output.iter().map(beside).collect()
}

/// The rows of a batch, as the first input that has axes declares them.
enum Rows<'a> {
    /// So many.
    Fixed(usize),
    /// Any number, and what that is called.
    Free(Option<&'a str>),
    Unknown,
}

impl Rows<'_> {
    fn of(graph: &GraphProto) -> Rows<'_> {
        let first =
            graph.required_inputs().find(|input| input.dims().is_some_and(|d| !d.is_empty()));
        match first.map(|input| (input.dims(), dim_names(input))) {
            Some((Some(dims), names)) => match dims.first() {
                Some(Some(count)) => Rows::Fixed(*count as usize),
                _ => Rows::Free(names.first().copied().flatten()),
            },
            _ => Rows::Unknown,
        }
    }
}

/// What the free dimensions of a value are called.
fn dim_names(info: &ValueInfoProto) -> Vec<Option<&str>> {
    let shape = info.tensor_type().and_then(|t| t.shape.as_ref());
    shape.map_or_else(Vec::new, |shape| {
        let names = shape.dim.iter().map(|dim| match &dim.value {
            Some(DimValue::DimParam(name)) if !name.is_empty() => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    })
}
