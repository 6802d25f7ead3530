//! Between numpy's arrays and the library's tensors.

use fewbits::data::NamedArray;
use fewbits::{Tensor, Values};
use numpy::{
    Element, IntoPyArray, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// A tensor with the elements of an array: booleans, integers of 8, 32 and 64 bits, floats of 32 and
/// 64 bits. Python makes others into these before.
///
/// # Errors
/// TypeError for another type.
pub fn tensor(array: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let untyped = array.cast::<PyUntypedArray>().map_err(|_| {
        PyTypeError::new_err(format!("a numpy array is needed, not {}", array.get_type()))
    })?;
    let shape = untyped.shape().to_vec();
    macro_rules! try_types {
        ($($element:ty),*) => {$(
            if let Ok(typed) = array.cast::<PyArrayDyn<$element>>() {
                return made(shape, elements(typed)?);
            }
        )*};
    }
    try_types!(f32, f64, i64, i32, i8, u8, bool);
    Err(PyTypeError::new_err(format!(
        "arrays of type {} are not taken; convert to float32, float64 or int64",
        untyped.dtype()
    )))
}

/// A tensor of a list of strings.
///
/// # Errors
/// TypeError for elements that are no strings.
pub fn text_tensor(list: &Bound<'_, PyList>, shape: Vec<usize>) -> PyResult<Tensor> {
    made(shape, list.extract::<Vec<String>>()?)
}

fn elements<T: Element + Copy>(array: &Bound<'_, PyArrayDyn<T>>) -> PyResult<Vec<T>> {
    let read = array.try_readonly().map_err(|e| PyValueError::new_err(e.to_string()))?;
    // A slice is given of what lies column by column, too.
    Ok(match read.as_slice() {
        Ok(rows) if read.is_c_contiguous() => rows.to_vec(),
        _ => read.as_array().iter().copied().collect(),
    })
}

fn made(shape: Vec<usize>, values: impl Into<Values>) -> PyResult<Tensor> {
    Tensor::new(shape, values).map_err(|e| PyValueError::new_err(e.to_string()))
}

/// A tensor as an array, its memory handed over; strings become an array of Python's own.
///
/// # Errors
/// When Python has no memory left.
pub fn array<'py>(py: Python<'py>, tensor: Tensor) -> PyResult<Bound<'py, PyAny>> {
    let (shape, values) = tensor.into_parts();
    fn shaped<'py, T: Element>(
        py: Python<'py>,
        shape: Vec<usize>,
        values: Vec<T>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(values.into_pyarray(py).reshape(shape)?.into_any())
    }
    match values {
        Values::F16(v) => {
            let wide: Vec<f32> = v.into_iter().map(f32::from).collect();
            shaped(py, shape, wide)?.call_method1("astype", ("float16",))
        }
        Values::F32(v) => shaped(py, shape, v),
        Values::F64(v) => shaped(py, shape, v),
        Values::I64(v) => shaped(py, shape, v),
        Values::I32(v) => shaped(py, shape, v),
        Values::I8(v) => shaped(py, shape, v),
        Values::U8(v) => shaped(py, shape, v),
        Values::Bool(v) => shaped(py, shape, v),
        Values::Str(v) => {
            let numpy = py.import("numpy")?;
            let flat = numpy.call_method1("array", (PyList::new(py, v)?,))?;
            flat.call_method1("reshape", (shape,))
        }
    }
}

/// Reads the arrays of a dictionary, or `(list of strings, shape)` in the place of one.
pub fn named(arrays: &Bound<'_, PyDict>) -> PyResult<Vec<NamedArray>> {
    arrays.iter().map(|(name, array)| Ok((name.extract()?, any_tensor(&array)?))).collect()
}

/// Reads an array, or `(list of strings, shape)`.
pub fn any_tensor(array: &Bound<'_, PyAny>) -> PyResult<fewbits::Tensor> {
    match array.extract::<(Bound<'_, PyList>, Vec<usize>)>() {
        Ok((list, shape)) => text_tensor(&list, shape),
        Err(_) => tensor(array),
    }
}
