//! MatMulInteger and ConvInteger as ONNX has them: sums in int32, of any factors and zero points.

pub(crate) mod convolution;
pub(crate) mod matrices;

use std::borrow::Cow;

use fewbits_ir::{RuntimeError, Tensor, ValueId, Values};

use crate::Result;
use crate::state::State;

/// A factor of bytes without its zero points, and what an element is more than that.
struct Factor<'a, T: Clone> {
    bytes: Cow<'a, [T]>,
    offset: i32,
}

/// The bytes of a left factor, which the kernels take unsigned.
fn unsigned(tensor: &Tensor) -> Result<Factor<'_, u8>> {
    match tensor.values() {
        Values::U8(bytes) => Ok(Factor { bytes: Cow::Borrowed(bytes), offset: 0 }),
        Values::I8(bytes) => {
            let bytes = bytes.iter().map(|&b| (i16::from(b) + 128) as u8).collect();
            Ok(Factor { bytes: Cow::Owned(bytes), offset: -128 })
        }
        values => Err(no_bytes(values)),
    }
}

/// The bytes of a right factor, which the kernels take signed.
fn signed(tensor: &Tensor) -> Result<Factor<'_, i8>> {
    match tensor.values() {
        Values::I8(bytes) => Ok(Factor { bytes: Cow::Borrowed(bytes), offset: 0 }),
        Values::U8(bytes) => {
            let bytes = bytes.iter().map(|&b| (i16::from(b) - 128) as i8).collect();
            Ok(Factor { bytes: Cow::Owned(bytes), offset: 128 })
        }
        values => Err(no_bytes(values)),
    }
}

/// Zero points as integers; a zero if there are none.
fn zero_points(tensor: Option<&Tensor>) -> Result<Vec<i32>> {
    match tensor.map(Tensor::values) {
        None => Ok(vec![0]),
        Some(Values::U8(bytes)) => Ok(bytes.iter().map(|&b| i32::from(b)).collect()),
        Some(Values::I8(bytes)) => Ok(bytes.iter().map(|&b| i32::from(b)).collect()),
        Some(values) => Err(no_bytes(values)),
    }
}

/// What is stored for a value that is no float.
fn stored(state: &State, id: ValueId) -> Result<&Tensor> {
    state
        .value(id)
        .tensor
        .as_ref()
        .ok_or_else(|| refused("floats are given where bytes are needed"))
}

/// The same of a value that may be absent.
fn stored_if_given(state: &State, id: Option<ValueId>) -> Result<Option<&Tensor>> {
    id.map(|id| stored(state, id)).transpose()
}

/// A sum of `count` products of bytes, whose zero points are to be taken off.
#[derive(Clone, Copy)]
struct Sum {
    products: i32,
    /// The sums of the factors alone.
    left: i32,
    right: i32,
    count: i32,
}

impl Sum {
    /// The sum of the products of what the bytes are beyond their zero points. It wraps, like that of an int32.
    fn without(self, left_zero: i32, right_zero: i32) -> i32 {
        let both = self.count.wrapping_mul(left_zero).wrapping_mul(right_zero);
        let (left, right) =
            (self.left.wrapping_mul(right_zero), self.right.wrapping_mul(left_zero));
        self.products.wrapping_sub(left).wrapping_sub(right).wrapping_add(both)
    }
}

fn sum_of(bytes: &[u8]) -> i32 {
    bytes.iter().map(|&b| i32::from(b)).fold(0, i32::wrapping_add)
}

fn refused(reason: impl Into<String>) -> RuntimeError {
    RuntimeError::Run { reason: reason.into() }
}

fn no_bytes(values: &Values) -> RuntimeError {
    refused(format!("a product of integers was given {:?}, not 8 bits", values.data_type()))
}
