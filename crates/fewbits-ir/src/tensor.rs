//! Values that go into a model and come out of it.

use std::ops::Range;

use fewbits_onnx::proto::{DataType, TensorProto};
use half::f16;

use crate::{Result, RuntimeError};

/// A dense tensor in row-major order, of any element type that fewbits feeds or fetches.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Values,
}

/// The elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// FLOAT16
    F16(Vec<f16>),
    /// FLOAT
    F32(Vec<f32>),
    /// DOUBLE
    F64(Vec<f64>),
    /// INT64
    I64(Vec<i64>),
    /// INT32
    I32(Vec<i32>),
    /// INT8
    I8(Vec<i8>),
    /// UINT8
    U8(Vec<u8>),
    /// BOOL
    Bool(Vec<bool>),
    /// STRING
    Str(Vec<String>),
}

/// Applies one expression to the vector of whatever type is inside.
macro_rules! each {
    ($values:expr, $v:ident => $result:expr) => {
        match $values {
            Values::F16($v) => $result,
            Values::F32($v) => $result,
            Values::F64($v) => $result,
            Values::I64($v) => $result,
            Values::I32($v) => $result,
            Values::I8($v) => $result,
            Values::U8($v) => $result,
            Values::Bool($v) => $result,
            Values::Str($v) => $result,
        }
    };
}

impl Values {
    /// The number of elements.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ONNX element type.
    pub fn data_type(&self) -> DataType {
        match self {
            Values::F16(_) => DataType::Float16,
            Values::F32(_) => DataType::Float,
            Values::F64(_) => DataType::Double,
            Values::I64(_) => DataType::Int64,
            Values::I32(_) => DataType::Int32,
            Values::I8(_) => DataType::Int8,
            Values::U8(_) => DataType::Uint8,
            Values::Bool(_) => DataType::Bool,
            Values::Str(_) => DataType::String,
        }
    }
}

macro_rules! from_vec {
    ($($element:ty => $variant:ident),*) => {$(
        impl From<Vec<$element>> for Values {
            fn from(values: Vec<$element>) -> Values {
                Values::$variant(values)
            }
        }
    )*};
}
from_vec!(f16 => F16, f32 => F32, f64 => F64, i64 => I64, i32 => I32, i8 => I8, u8 => U8, bool => Bool, String => Str);

impl Tensor {
    /// A tensor of `shape`.
    ///
    /// # Errors
    /// If `values` does not hold the product of `shape` elements.
    pub fn new(shape: Vec<usize>, values: impl Into<Values>) -> Result<Tensor> {
        let values = values.into();
        let wanted = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if wanted != Some(values.len()) {
            return Err(RuntimeError::Length { shape, elements: values.len() });
        }
        Ok(Tensor { shape, values })
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The shape and the elements, taken apart.
    pub fn into_parts(self) -> (Vec<usize>, Values) {
        (self.shape, self.values)
    }

    /// The ONNX element type.
    pub fn data_type(&self) -> DataType {
        self.values.data_type()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The size of the first axis; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// A tensor of `shape` in which every element is the only one of this.
    ///
    /// # Errors
    /// If this has none, or several.
    pub fn repeated(&self, shape: Vec<usize>) -> Result<Tensor> {
        let values = each!(&self.values, v => match v.as_slice() {
            [one] => std::iter::repeat_n(one, shape.iter().product()).cloned().collect::<Vec<_>>().into(),
            _ => Values::from(v.clone()),
        });
        Tensor::new(shape, values)
    }

    /// The same elements in another shape of the same size.
    ///
    /// # Errors
    /// If the shape asks for more or fewer elements.
    pub fn reshaped(self, shape: Vec<usize>) -> Result<Tensor> {
        Tensor::new(shape, self.values)
    }

    /// The rows `range` of the first axis, clipped to those there are.
    pub fn slice_rows(&self, range: Range<usize>) -> Tensor {
        let rows = self.rows();
        let (start, end) = (range.start.min(rows), range.end.min(rows));
        let row = self.len().checked_div(rows).unwrap_or(0);
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = end.saturating_sub(start);
        }
        let elements = start * row..end.max(start) * row;
        let values = each!(&self.values, v => Values::from(v[elements].to_vec()));
        Tensor { shape, values }
    }

    /// The places `range` of `axis`, clipped to those there are; all of a tensor without that axis.
    pub fn slice_axis(&self, axis: usize, range: Range<usize>) -> Tensor {
        let Some(&size) = self.shape.get(axis) else { return self.clone() };
        if axis == 0 {
            return self.slice_rows(range);
        }
        let (start, end) = (range.start.min(size), range.end.min(size));
        let end = end.max(start);
        let behind: usize = self.shape[axis + 1..].iter().product();
        let step = (size * behind).max(1);
        let values = each!(&self.values, v => {
            let blocks = v.chunks(step).map(|block| &block[start * behind..end * behind]);
            Values::from(blocks.collect::<Vec<_>>().concat())
        });
        let mut shape = self.shape.clone();
        shape[axis] = end - start;
        Tensor { shape, values }
    }

    /// The same elements with `axis` in front of the others.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn axis_to_front(self, axis: usize) -> Result<Tensor> {
        if axis == 0 {
            return Ok(self);
        }
        let Some(&size) = self.shape.get(axis) else {
            return Err(RuntimeError::Concat { first: self.shape, other: vec![], axis });
        };
        let mut shape = self.shape.clone();
        shape.remove(axis);
        shape.insert(0, size);
        let behind: usize = self.shape[axis + 1..].iter().product();
        let values = each!(&self.values, v => {
            let mut all = Vec::with_capacity(v.len());
            for at in 0..size {
                for block in v.chunks((size * behind).max(1)) {
                    all.extend_from_slice(&block[at * behind..(at + 1) * behind]);
                }
            }
            Values::from(all)
        });
        Tensor::new(shape, values)
    }

    /// Tensors that are alike but for the size of `axis`, one after the other along it.
    ///
    /// # Errors
    /// If they differ in their type or any other dimension, or have no such axis.
    pub fn concat_axis(axis: usize, parts: Vec<Tensor>) -> Result<Tensor> {
        if axis == 0 || parts.len() < 2 {
            return Tensor::concat_rows(parts);
        }
        // With the axis in front, which is a view of blocks of elements, rows can be joined.
        let first = parts[0].shape.clone();
        let refuse = |other: &[usize]| RuntimeError::Concat {
            first: first.clone(),
            other: other.to_vec(),
            axis,
        };
        let alike = |part: &Tensor| {
            part.shape.len() == first.len()
                && part.data_type() == parts[0].data_type()
                && (0..first.len()).all(|i| i == axis || part.shape[i] == first[i])
        };
        if let Some(other) = parts.iter().find(|part| axis >= first.len() || !alike(part)) {
            return Err(refuse(&other.shape));
        }
        let blocks: usize = first[..axis].iter().product();
        let mut shape = first.clone();
        shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
        macro_rules! join {
            ($variant:ident) => {{
                let mut all = Vec::with_capacity(shape.iter().product());
                for block in 0..blocks {
                    for part in &parts {
                        if let Values::$variant(v) = &part.values {
                            let size = v.len() / blocks.max(1);
                            all.extend_from_slice(&v[block * size..(block + 1) * size]);
                        }
                    }
                }
                Values::$variant(all)
            }};
        }
        let values = match &parts[0].values {
            Values::F16(_) => join!(F16),
            Values::F32(_) => join!(F32),
            Values::F64(_) => join!(F64),
            Values::I64(_) => join!(I64),
            Values::I32(_) => join!(I32),
            Values::I8(_) => join!(I8),
            Values::U8(_) => join!(U8),
            Values::Bool(_) => join!(Bool),
            Values::Str(_) => join!(Str),
        };
        Tensor::new(shape, values)
    }

    /// Tensors of equal row shape, one after the other along the first axis.
    ///
    /// # Errors
    /// If they differ in their type or any dimension but the first.
    pub fn concat_rows(parts: Vec<Tensor>) -> Result<Tensor> {
        let rows = parts.iter().map(Tensor::rows).sum();
        let mut parts = parts.into_iter();
        let Some(mut all) = parts.next() else { return Tensor::new(vec![0], Vec::<f32>::new()) };
        all.reserve_rows(rows);
        parts.try_for_each(|part| all.push_rows(part))?;
        Ok(all)
    }

    /// Makes room, so that there are `rows` rows before anything moves.
    pub fn reserve_rows(&mut self, rows: usize) {
        let (len, own) = (self.len(), self.rows());
        let more = rows.saturating_sub(own).saturating_mul(len.checked_div(own).unwrap_or(0));
        each!(&mut self.values, v => v.reserve_exact(more));
    }

    /// Adds the rows of another tensor behind its own.
    ///
    /// # Errors
    /// If it differs in its type or any dimension but the first.
    pub fn push_rows(&mut self, part: Tensor) -> Result<()> {
        let refuse = |all: &Tensor, part: &[usize]| {
            Err(RuntimeError::Concat { first: all.shape.clone(), other: part.to_vec(), axis: 0 })
        };
        if self.shape.is_empty() || self.shape.get(1..) != part.shape.get(1..) {
            return refuse(self, &part.shape);
        }
        match (&mut self.values, part.values) {
            (Values::F16(a), Values::F16(b)) => a.extend(b),
            (Values::F32(a), Values::F32(b)) => a.extend(b),
            (Values::F64(a), Values::F64(b)) => a.extend(b),
            (Values::I64(a), Values::I64(b)) => a.extend(b),
            (Values::I32(a), Values::I32(b)) => a.extend(b),
            (Values::I8(a), Values::I8(b)) => a.extend(b),
            (Values::U8(a), Values::U8(b)) => a.extend(b),
            (Values::Bool(a), Values::Bool(b)) => a.extend(b),
            (Values::Str(a), Values::Str(b)) => a.extend(b),
            _ => return refuse(self, &part.shape),
        }
        self.shape[0] += part.shape[0];
        Ok(())
    }

    /// The elements as `f64`, or `None` for strings.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        Some(match &self.values {
            Values::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Values::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Values::F64(v) => v.clone(),
            Values::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Values::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Values::I8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Values::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Values::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
            Values::Str(_) => return None,
        })
    }

    /// The same elements, halves as floats.
    pub fn widened(self) -> Tensor {
        match self.values {
            Values::F16(v) => {
                let values = Values::F32(v.into_iter().map(f16::to_f32).collect());
                Tensor { shape: self.shape, values }
            }
            values => Tensor { shape: self.shape, values },
        }
    }

    /// This tensor with elements of `data_type`; floats are truncated to integers as `as` does.
    ///
    /// # Errors
    /// Between strings and numbers, and for types that [`Values`] does not have.
    pub fn cast(self, data_type: DataType) -> Result<Tensor> {
        let from = self.data_type();
        if from == data_type {
            return Ok(self);
        }
        let refuse = RuntimeError::Cast { from, to: data_type };
        macro_rules! cast {
            ($target:ident, $element:ty) => {
                match &self.values {
                    Values::F16(v) => {
                        Values::$target(v.iter().map(|x| x.to_f32() as $element).collect())
                    }
                    Values::F32(v) => Values::$target(v.iter().map(|&x| x as $element).collect()),
                    Values::F64(v) => Values::$target(v.iter().map(|&x| x as $element).collect()),
                    Values::I64(v) => Values::$target(v.iter().map(|&x| x as $element).collect()),
                    Values::I32(v) => Values::$target(v.iter().map(|&x| x as $element).collect()),
                    Values::I8(v) => Values::$target(v.iter().map(|&x| x as $element).collect()),
                    Values::U8(v) => Values::$target(v.iter().map(|&x| x as $element).collect()),
                    Values::Bool(v) => {
                        Values::$target(v.iter().map(|&x| u8::from(x) as $element).collect())
                    }
                    Values::Str(_) => return Err(refuse),
                }
            };
        }
        let values = match data_type {
            DataType::Float16 => match &self.values {
                Values::F32(v) => Values::F16(v.iter().map(|&x| f16::from_f32(x)).collect()),
                _ => {
                    let numbers = self.to_f64().ok_or(refuse)?;
                    Values::F16(numbers.into_iter().map(f16::from_f64).collect())
                }
            },
            DataType::Float => cast!(F32, f32),
            DataType::Double => cast!(F64, f64),
            DataType::Int64 => cast!(I64, i64),
            DataType::Int32 => cast!(I32, i32),
            DataType::Int8 => cast!(I8, i8),
            DataType::Uint8 => cast!(U8, u8),
            DataType::Bool => {
                let numbers = self.to_f64().ok_or(refuse)?;
                Values::Bool(numbers.into_iter().map(|x| x != 0.0).collect())
            }
            _ => return Err(refuse),
        };
        Ok(Tensor { shape: self.shape, values })
    }
}

/// An initializer, unless it is of a type that runs do not have.
pub(crate) fn constant_tensor(tensor: &TensorProto) -> Result<Option<Tensor>> {
    let (shape, data_type) = (tensor.shape()?, tensor.element_type()?);
    Ok(match data_type {
        DataType::Float => Some(Tensor::new(shape, tensor.floats()?)?),
        DataType::Double => Some(Tensor::new(shape, tensor.doubles()?)?),
        DataType::String => Some(Tensor::new(shape, tensor.strings()?)?),
        DataType::Int64 | DataType::Int32 | DataType::Int8 | DataType::Uint8 | DataType::Bool => {
            Some(Tensor::new(shape, tensor.ints()?)?.cast(data_type)?)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_length_is_refused() {
        assert!(Tensor::new(vec![2, 3], vec![0f32; 5]).is_err());
        assert!(Tensor::new(vec![usize::MAX, 2], vec![0f32; 5]).is_err());
    }

    #[test]
    fn rows_can_be_cut_and_joined() {
        let all = Tensor::new(vec![3, 2], vec![1i64, 2, 3, 4, 5, 6]).unwrap();
        let (a, b) = (all.slice_rows(0..1), all.slice_rows(1..9));
        assert_eq!(b.shape(), [2, 2]);
        assert_eq!(Tensor::concat_rows(vec![a, b]).unwrap(), all);
    }

    #[test]
    fn places_of_any_axis_can_be_cut_and_joined() {
        let all = Tensor::new(vec![2, 3, 2], (0..12i64).collect::<Vec<_>>()).unwrap();
        let (a, b) = (all.slice_axis(1, 0..1), all.slice_axis(1, 1..9));
        assert_eq!(a.values(), &vec![0i64, 1, 6, 7].into());
        assert_eq!(b.shape(), [2, 2, 2]);
        assert_eq!(Tensor::concat_axis(1, vec![a.clone(), b]).unwrap(), all);
        let front = all.clone().axis_to_front(1).unwrap();
        assert_eq!((front.shape(), all.clone().axis_to_front(3).is_err()), (&[3, 2, 2][..], true));
        assert_eq!(front.slice_rows(0..1).values(), a.values());
        assert_eq!(all.slice_axis(7, 0..1), all);
        assert!(Tensor::concat_axis(1, vec![a.clone(), all.slice_axis(0, 0..1)]).is_err());
        assert!(Tensor::concat_axis(3, vec![a.clone(), a]).is_err());
    }

    #[test]
    fn casts_keep_values_and_refuse_strings() {
        let t = Tensor::new(vec![2], vec![1.5f64, -2.0]).unwrap();
        assert_eq!(t.cast(DataType::Float).unwrap().values(), &Values::F32(vec![1.5, -2.0]));
        let halves = Tensor::new(vec![2], vec![1.0f32 + 2f32.powi(-12), 1e6]).unwrap();
        let halves = halves.cast(DataType::Float16).unwrap();
        assert_eq!(halves.to_f64().unwrap(), [1.0, f64::INFINITY]);
        assert_eq!(halves.cast(DataType::Int64).unwrap().values(), &Values::I64(vec![1, i64::MAX]));
        let s = Tensor::new(vec![1], vec!["a".to_string()]).unwrap();
        assert!(s.cast(DataType::Float).is_err());
    }
}
