//! CumProd.

use serde::{Deserialize, Serialize};

use super::{CumSumOf, From, i64s, refused, shape};
use crate::shape::axis_of;
use crate::{Result, Tensor, Values};

/// The products of all elements up to each, along the axis that the second input says; of integers beyond
/// their type they wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CumProd {
    /// Which elements are multiplied.
    pub of: CumSumOf,
    /// From where.
    pub from: From,
}

impl CumProd {
    pub(super) fn compute(self, tensor: &Tensor, axis: &Tensor) -> Result<Tensor> {
        let from = shape(tensor)?;
        let dims = from.dims();
        let axis = axis.clone().cast(fewbits_onnx::proto::DataType::Int64)?;
        let [axis] = *i64s(&axis)? else {
            return Err(refused("CumProd is told several axes"));
        };
        let axis = axis_of(axis, dims.len())?;
        let (count, pitch) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
        let values = match tensor.values() {
            Values::F32(v) => self.along(v, [count, pitch], 1.0, |a, b| a * b),
            Values::F64(v) => self.along(v, [count, pitch], 1.0, |a, b| a * b),
            Values::I32(v) => self.along(v, [count, pitch], 1, i32::wrapping_mul),
            Values::I64(v) => self.along(v, [count, pitch], 1, i64::wrapping_mul),
            other => return Err(refused(format!("CumProd of {:?}", other.data_type()))),
        };
        Tensor::new(dims.to_vec(), values)
    }

    /// The products along an axis of `count` elements that lie `pitch` apart.
    fn along<T: Copy>(
        self,
        values: &[T],
        [count, pitch]: [usize; 2],
        one: T,
        times: impl Fn(T, T) -> T,
    ) -> Values
    where
        Values: std::convert::From<Vec<T>>,
    {
        let mut products = values.to_vec();
        for line in 0..values.len().checked_div(count).unwrap_or(0) {
            let first = line / pitch * count * pitch + line % pitch;
            let mut product = one;
            for step in 0..count {
                let step = if self.from == From::First { step } else { count - 1 - step };
                let at = first + step * pitch;
                let with_this = times(product, values[at]);
                products[at] = if self.of == CumSumOf::UpToThis { with_this } else { product };
                product = with_this;
            }
        }
        Values::from(products)
    }
}
