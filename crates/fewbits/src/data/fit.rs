//! Making an array of a file into what one input of a model takes.

use std::ops::Range;
use std::path::Path;

use fewbits_engine::{Tensor, Values};
use fewbits_onnx::proto::DataType;
use half::f16;

use super::error::shortened;
use super::{Arrays, DataError, DataOptions, Normalize, ValueSpec};
use crate::hint::Setting;

/// The numbers of an input that are NaN.
pub(super) struct Missing {
    pub count: usize,
    /// The first: its row, and its place in that row.
    pub first: (usize, usize),
}

/// One input's data, all rows.
#[derive(Clone, Debug)]
pub(super) struct Fitted {
    name: String,
    kept: Stored,
    along: Along,
    /// What the places of a row are called, if they are columns of a table.
    columns: Vec<String>,
}

/// Where the rows of an array lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Along {
    /// On an axis that the input has.
    Axis(usize),
    /// On an axis in front of those that the input has: each row is all that a call takes.
    Front,
    /// Nowhere: every call takes all of it.
    Nowhere,
}

#[derive(Clone, Debug)]
enum Stored {
    /// In the input's own type.
    Ready(Tensor),
    /// Bytes for a float input: a quarter of the floats' size, and they stay so until asked for.
    Bytes {
        shape: Vec<usize>,
        bytes: Vec<u8>,
        /// The float of each byte, for each channel in turn.
        floats: Vec<[f32; 256]>,
        /// Elements that follow each other with the same channel.
        run: usize,
    },
    /// One number for every element of an input.
    Number { dims: Vec<Option<usize>>, one: Tensor },
}

impl Fitted {
    /// Checks `array` against `spec` and casts it, or prepares to.
    pub fn new(
        path: &Path,
        array_name: &str,
        array: Tensor,
        spec: &ValueSpec,
        options: &DataOptions,
    ) -> Result<Fitted, DataError> {
        let normalize = options.normalize.as_ref();
        let fits = match options.arrays {
            Arrays::Examples => fitting_shape(array.shape(), spec),
            Arrays::OneCall => as_it_is(array.shape(), spec),
        };
        let (shape, along) = fits.map_err(|way_out| DataError::Shape {
            path: path.to_path_buf(),
            array: array_name.to_string(),
            shape: array.shape().into(),
            input: spec.name.clone(),
            dims: spec.dims.clone().unwrap_or_default().into(),
            way_out: way_out.into(),
        })?;
        let (_, values) = array.into_parts();
        let to = spec.data_type.unwrap_or(DataType::Undefined);
        let from = values.data_type();
        let integers = matches!(
            values,
            Values::U8(_) | Values::I8(_) | Values::I32(_) | Values::I64(_) | Values::Bool(_)
        );
        let float_input = matches!(to, DataType::Float | DataType::Double | DataType::Float16);
        let channels = match normalize {
            Some(_) if float_input && !integers => {
                let reason = format!(
                    "'{array_name}' holds floats, and only integers of 0 to 255 are normalized; leave the option out"
                );
                return Err(DataError::Normalize { reason });
            }
            Some(normalize) if float_input => Some(Channels::of(normalize, &shape, array_name)?),
            _ => None,
        };
        let values = match (values, channels) {
            (Values::U8(bytes), channels) if to == DataType::Float && along == Along::Axis(0) => {
                let (floats, run) = match channels {
                    Some(channels) => channels.of_bytes(),
                    None => (vec![std::array::from_fn(|x| x as f32)], bytes.len()),
                };
                return Ok(Fitted {
                    name: spec.name.clone(),
                    kept: Stored::Bytes { shape, bytes, floats, run },
                    along,
                    columns: Vec::new(),
                });
            }
            (values, Some(channels)) => channels.of_integers(values),
            (values, None) => values,
        };
        let refuse = |_| DataError::InputType {
            path: path.to_path_buf(),
            array: array_name.to_string(),
            from,
            input: spec.name.clone(),
            to,
        };
        // A model's integers are ids and counts: a fraction or an id past the type would be
        // another id.
        let lost = if is_integer(to) { lost_in_cast(&values, to) } else { None };
        if let Some(lost) = lost {
            return Err(DataError::Value {
                path: path.to_path_buf(),
                array: array_name.to_string(),
                reason: format!(
                    "holds {lost}, which input '{}' of type {to:?} cannot take",
                    spec.name
                ),
            });
        }
        let tensor = Tensor::new(shape, values).and_then(|t| t.cast(to)).map_err(refuse)?;
        Ok(Fitted {
            name: spec.name.clone(),
            kept: Stored::Ready(tensor),
            along,
            columns: Vec::new(),
        })
    }

    /// An input whose elements are all the same; `None` if its type cannot hold the number.
    pub fn constant(spec: &ValueSpec, value: f64) -> Option<Fitted> {
        let to = spec.data_type.unwrap_or(DataType::Float);
        let values = Values::from(vec![value]);
        if is_integer(to) && lost_in_cast(&values, to).is_some() {
            return None;
        }
        let one = Tensor::new(vec![1], values).and_then(|one| one.cast(to)).ok()?;
        let dims = spec.dims.clone().unwrap_or_default();
        let along = match spec.row_axis.filter(|&axis| dims.get(axis) == Some(&None)) {
            Some(axis) => Along::Axis(axis),
            None => Along::Nowhere,
        };
        let (name, columns) = (spec.name.clone(), Vec::new());
        Some(Fitted { name, kept: Stored::Number { dims, one }, along, columns })
    }

    /// The same, of columns that are called so.
    pub fn of_columns(self, columns: Vec<String>) -> Fitted {
        Fitted { columns, ..self }
    }

    /// What place number `place` of a row is called.
    pub fn place_name(&self, place: usize) -> String {
        match self.columns.get(place) {
            Some(column) => format!("column '{}'", shortened(column)),
            None => format!("column {} of '{}'", place + 1, shortened(&self.name)),
        }
    }

    /// How many numbers there are.
    pub fn elements(&self) -> usize {
        match &self.kept {
            Stored::Ready(tensor) => tensor.len(),
            Stored::Bytes { bytes, .. } => bytes.len(),
            Stored::Number { .. } => 0,
        }
    }

    /// The numbers that are NaN, if any are.
    pub fn missing(&self) -> Option<Missing> {
        let Stored::Ready(tensor) = &self.kept else { return None };
        fn find<T: Copy>(values: &[T], is_nan: impl Fn(T) -> bool) -> Option<(usize, usize)> {
            let first = values.iter().position(|&x| is_nan(x))?;
            Some((first, values[first..].iter().filter(|&&x| is_nan(x)).count()))
        }
        let (first, count) = match tensor.values() {
            Values::F16(v) => find(v, f16::is_nan)?,
            Values::F32(v) => find(v, f32::is_nan)?,
            Values::F64(v) => find(v, f64::is_nan)?,
            _ => return None,
        };
        let axis = if let Along::Axis(axis) = self.along { axis } else { 0 };
        let size = tensor.shape().get(axis).copied().unwrap_or(1).max(1);
        let behind: usize = tensor.shape().get(axis + 1..).map_or(1, |dims| dims.iter().product());
        let (before, row, place) = (first / behind / size, first / behind % size, first % behind);
        Some(Missing { count, first: (row, before * behind + place) })
    }

    /// The input's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of rows; `None` if every call takes all of it.
    pub fn rows(&self) -> Option<usize> {
        let axis = match self.along {
            Along::Axis(axis) => axis,
            Along::Front => 0,
            Along::Nowhere => return None,
        };
        match &self.kept {
            Stored::Ready(tensor) => tensor.shape().get(axis).copied(),
            Stored::Bytes { shape, .. } => shape.first().copied(),
            Stored::Number { .. } => None,
        }
    }

    /// Rows that one call takes at most, if it cannot take any number.
    pub fn most_rows_a_call(&self) -> Option<usize> {
        (self.along == Along::Front).then_some(1)
    }

    /// The rows `picks`.
    pub fn pick(&self, picks: &[usize]) -> Fitted {
        let axis = match (&self.kept, self.along) {
            (Stored::Number { .. }, _) | (_, Along::Nowhere) => return self.clone(),
            (_, Along::Axis(axis)) => axis,
            (_, Along::Front) => 0,
        };
        let rows = picks.iter().map(|&row| self.cut(axis, row..row + 1)).collect();
        let tensor = Tensor::concat_axis(axis, rows).expect("rows of one tensor are alike");
        Fitted { kept: Stored::Ready(tensor), ..self.clone() }
    }

    /// Only the first `limit` rows.
    pub fn limited(mut self, limit: Option<usize>) -> Fitted {
        let limit = limit.zip(self.rows()).filter(|(limit, rows)| limit < rows);
        let Some((limit, rows)) = limit else { return self };
        // Bytes stay bytes.
        if let Stored::Bytes { shape, bytes, .. } = &mut self.kept {
            bytes.truncate(bytes.len() / rows * limit);
            shape[0] = limit;
            return self;
        }
        let axis = match self.along {
            Along::Axis(axis) => axis,
            Along::Front => 0,
            Along::Nowhere => return self,
        };
        Fitted { kept: Stored::Ready(self.cut(axis, 0..limit)), ..self }
    }

    /// The rows `range`, in the input's type, as a call takes them: of rows that are all that a call
    /// takes the first of them.
    pub fn rows_as_tensor(&self, range: Range<usize>) -> Tensor {
        if let Stored::Number { dims, one } = &self.kept {
            return filled(dims, one, self.along, range.len());
        }
        match (self.along, &self.kept) {
            (Along::Axis(axis), _) => self.cut(axis, range),
            (Along::Front, Stored::Ready(tensor)) => {
                let row = tensor.slice_rows(range.start..range.start + 1);
                let shape = row.shape()[1..].to_vec();
                row.reshaped(shape).expect("one row has the elements of what is behind its axis")
            }
            (Along::Nowhere, Stored::Ready(tensor)) => tensor.clone(),
            (_, _) => self.cut(0, range),
        }
    }

    /// The places `range` of an axis; of bytes that is the first.
    fn cut(&self, axis: usize, range: Range<usize>) -> Tensor {
        let (shape, bytes, floats, run) = match &self.kept {
            Stored::Ready(tensor) => return tensor.slice_axis(axis, range),
            Stored::Number { dims, one } => return filled(dims, one, self.along, range.len()),
            Stored::Bytes { shape, bytes, floats, run } => (shape, bytes, floats, *run),
        };
        let rows = shape.first().copied().unwrap_or(0);
        let end = range.end.min(rows);
        let start = range.start.min(end);
        let row = bytes.len() / rows.max(1);
        // A row begins with the first channel, so runs can be counted from the batch's start.
        let values: Vec<f32> = match floats.as_slice() {
            [only] => bytes[start * row..end * row].iter().map(|&b| only[usize::from(b)]).collect(),
            channels => bytes[start * row..end * row]
                .chunks(run.max(1))
                .zip(channels.iter().cycle())
                .flat_map(|(run, channel)| run.iter().map(|&b| channel[usize::from(b)]))
                .collect(),
        };
        let mut shape = shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = end - start;
        }
        Tensor::new(shape, values)
            .expect("a float is made of every byte, and the bytes fill the shape")
    }
}

/// `one` in all places of an input; `rows` of them where it has rows.
fn filled(dims: &[Option<usize>], one: &Tensor, along: Along, rows: usize) -> Tensor {
    let size = |(axis, dim): (usize, &Option<usize>)| match dim {
        Some(size) => *size,
        None if along == Along::Axis(axis) => rows,
        None => 1,
    };
    one.repeated(dims.iter().enumerate().map(size).collect()).expect("it is one number")
}

/// Whether a model's elements of this type are ids and counts.
fn is_integer(data_type: DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::Int32 | DataType::Int8 | DataType::Uint8)
}

/// Whether an input of `dims` takes sizes, those of the axis `but` aside.
fn takes(dims: &[Option<usize>], sizes: &[usize], but: Option<usize>) -> bool {
    let fits = |(axis, (&size, dim)): (usize, (&usize, &Option<usize>))| {
        but == Some(axis) || dim.is_none_or(|d| d == size)
    };
    sizes.len() == dims.len() && sizes.iter().zip(dims).enumerate().all(fits)
}

/// Checks that a call takes an array as it is.
fn as_it_is(shape: &[usize], spec: &ValueSpec) -> Result<(Vec<usize>, Along), String> {
    match &spec.dims {
        Some(dims) if !takes(dims, shape, None) => {
            let whole = Setting::Batch.to("whole");
            Err(format!("with {whole} it must be as the model takes it: reshape it"))
        }
        _ => Ok((shape.to_vec(), Along::Nowhere)),
    }
}

/// The shape in which an array of `shape` is what `spec` takes, and where its rows lie then; the way
/// out if there is none.
fn fitting_shape(shape: &[usize], spec: &ValueSpec) -> Result<(Vec<usize>, Along), String> {
    let along = spec.row_axis.map_or(Along::Nowhere, Along::Axis);
    let Some(dims) = &spec.dims else {
        return match shape {
            [] => Ok((vec![], Along::Nowhere)),
            _ => Ok((shape.to_vec(), along)),
        };
    };
    if takes(dims, shape, spec.row_axis) {
        return Ok((shape.to_vec(), along));
    }
    let fits = |shape: &[usize]| takes(dims, shape, Some(0));
    if spec.row_axis == Some(0) && shape.len() + 1 == dims.len() {
        for axis in (1..dims.len()).filter(|&axis| dims[axis] == Some(1)) {
            let mut with_axis = shape.to_vec();
            with_axis.insert(axis, 1);
            if fits(&with_axis) {
                return Ok((with_axis, along));
            }
        }
    }
    // A row that is all that a call takes, where the model takes no batch of them.
    let one_a_call = spec.row_axis.is_none_or(|axis| axis > 0 || dims[axis] == Some(1));
    if let (true, [_, row @ ..]) = (one_a_call, shape) {
        if takes(dims, row, None) {
            return Ok((shape.to_vec(), Along::Front));
        }
        let with_one = [&[1], row].concat();
        if dims.first() == Some(&Some(1)) && takes(dims, &with_one, None) {
            return Ok(([&shape[..1], &with_one].concat(), Along::Front));
        }
    }
    Err(match (shape, dims.as_slice()) {
        ([], _) => "it is a single number: save an array with one row per example".to_string(),
        (_, []) => format!(
            "the input is one number: give it with {}, or one for each row",
            Setting::Input.to("NAME=NUMBER")
        ),
        (&[_, has], &[_, Some(wants)]) => {
            format!(
                "the model was trained on {wants} features and the array has {has}: give the same features"
            )
        }
        _ if shape.len() == dims.len() && transposes(shape, dims) => {
            "the channels are on another axis: transpose the array".to_string()
        }
        _ => "reshape the array, the rows first".to_string(),
    })
}

/// Whether an image array has its channels last where the model wants them first, or the reverse.
fn transposes(shape: &[usize], dims: &[Option<usize>]) -> bool {
    let (&[_, a, b, c], &[_, x, y, z]) = (shape, dims) else { return false };
    let fits = |size: usize, dim: Option<usize>| dim.is_none_or(|d| d == size);
    (fits(c, x) && fits(a, y) && fits(b, z)) || (fits(b, x) && fits(c, y) && fits(a, z))
}

/// A value that a cast to the integer type `to` would change, if there is one.
fn lost_in_cast(values: &Values, to: DataType) -> Option<f64> {
    let (low, high) = match to {
        DataType::Int8 => (-128.0, 127.0),
        DataType::Uint8 => (0.0, 255.0),
        DataType::Int32 => (-2f64.powi(31), 2f64.powi(31) - 1.0),
        // 2⁶³ itself is past int64; below it, floats lie 1,024 apart.
        _ => (-2f64.powi(63), 2f64.powi(63).next_down()),
    };
    let lost = |x: f64| !(x >= low && x <= high && x.fract() == 0.0);
    match values {
        Values::F32(v) => v.iter().map(|&x| f64::from(x)).find(|&x| lost(x)),
        Values::F64(v) => v.iter().copied().find(|&x| lost(x)),
        Values::F16(v) => v.iter().map(|x| x.to_f64()).find(|&x| lost(x)),
        Values::I64(v) if to != DataType::Int64 => v.iter().map(|&x| x as f64).find(|&x| lost(x)),
        Values::I32(v) => v.iter().map(|&x| f64::from(x)).find(|&x| lost(x)),
        Values::I8(v) => v.iter().map(|&x| f64::from(x)).find(|&x| lost(x)),
        Values::U8(v) => v.iter().map(|&x| f64::from(x)).find(|&x| lost(x)),
        Values::I64(_) | Values::Bool(_) | Values::Str(_) => None,
    }
}

/// A normalization laid over an array's channels.
struct Channels<'a> {
    pairs: &'a [(f64, f64)],
    /// Elements that follow each other with the same channel.
    run: usize,
}

impl<'a> Channels<'a> {
    /// Finds the axis of the channels in `shape`: the first after the rows, else the last.
    fn of(
        normalize: &'a Normalize,
        shape: &[usize],
        array_name: &str,
    ) -> Result<Channels<'a>, DataError> {
        let pairs = normalize.channels();
        let after = |axis: usize| shape[axis + 1..].iter().product();
        let run = match pairs.len() {
            1 => 1,
            n if shape.len() > 2 && shape[1] == n => after(1),
            n if shape.len() > 1 && shape[shape.len() - 1] == n => 1,
            n => {
                let reason = format!(
                    "{n} channels are given but '{array_name}' of shape {shape:?} has not as many; \
                     give one mean and deviation for each channel, or one for all"
                );
                return Err(DataError::Normalize { reason });
            }
        };
        Ok(Channels { pairs, run })
    }

    /// A table for each channel, and the run.
    fn of_bytes(&self) -> (Vec<[f32; 256]>, usize) {
        let table = |&pair: &(f64, f64)| std::array::from_fn(|x| Normalize::apply(pair, x as f64));
        (self.pairs.iter().map(table).collect(), self.run)
    }

    fn of_integers(&self, values: Values) -> Values {
        let normalized =
            |(i, x): (usize, f64)| Normalize::apply(self.pairs[i / self.run % self.pairs.len()], x);
        if matches!(values, Values::F16(_) | Values::F32(_) | Values::F64(_) | Values::Str(_)) {
            return values;
        }
        let numbers = Tensor::new(vec![values.len()], values).ok().and_then(|t| t.to_f64());
        let numbers = numbers.unwrap_or_default().into_iter().enumerate().map(normalized);
        numbers.collect::<Vec<_>>().into()
    }
}
