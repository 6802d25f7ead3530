//! Scales and zero points.

use std::num::NonZeroUsize;

use fewbits_quant::{Granularity, Layout, QTensor, QuantParams};

use super::WeightReader;
use crate::proto::{DataType, NodeProto};

/// At most so many operators move scales before they are read.
const SCALE_MOVES: usize = 3;

/// A constant parameter.
pub(super) struct Param {
    /// Its values, row-major.
    pub floats: Vec<f32>,
    /// Its shape.
    pub dims: Vec<usize>,
    /// What it is stored as where it is quantized in turn.
    pub coded: Option<QTensor>,
}

impl WeightReader<'_> {
    /// A parameter and the granularity that its shape implies.
    pub(super) fn spread(&self, name: &str, shape: &[usize]) -> Option<(Param, Granularity)> {
        if let Some(param) = self.parameter(name) {
            let granularity = broadcast(&param.dims, shape)?;
            return Some((param, granularity));
        }
        match self.producer(name)? {
            gather if gather.is("Gather") => {
                let param = self.parameter(gather.input.first()?)?;
                let index = self.index.initializer(gather.input.get(1)?)?.ints().ok()?;
                let size = index.iter().take_while(|&&i| i == 0).count();
                let regular = index.iter().enumerate().all(|(i, &g)| (i / size.max(1)) as i64 == g);
                let axis = usize::try_from(gather.int("axis", 0)).ok()?;
                let granularity = Granularity::Group { axis, size: NonZeroUsize::new(size)? };
                regular.then_some((param, granularity))
            }
            reshape if reshape.is("Reshape") => {
                let expand = self.producer(reshape.input.first()?).filter(|n| n.is("Expand"))?;
                let param = self.parameter(expand.input.first()?)?;
                let target = self.index.initializer(expand.input.get(1)?)?.ints().ok()?;
                // [.., groups, 1, ..] to [.., groups, size, ..].
                let pairs = || param.dims.iter().zip(&target).enumerate();
                let grown = pairs().find(|(_, (from, to))| **from as i64 != **to);
                let (place, &size) = grown.map(|(place, (_, size))| (place, size))?;
                let size = NonZeroUsize::new(usize::try_from(size).ok()?)?;
                let axis = place.checked_sub(1)?;
                let mut spread = param.dims.clone();
                *spread.get_mut(axis)? *= size.get();
                spread.remove(place);
                let rest = pairs().all(|(i, (from, to))| i == place || *from as i64 == *to);
                let fits = rest && param.dims[place] == 1 && spread == shape;
                fits.then_some((param, Granularity::Group { axis, size }))
            }
            _ => None,
        }
    }

    /// A constant parameter: an initializer, one of half precision that is widened, or one that is
    /// quantized in turn.
    pub(super) fn parameter(&self, name: &str) -> Option<Param> {
        if let Some(tensor) = self.index.initializer(name) {
            let dims = tensor.shape().ok()?;
            return match tensor.element_type().ok()? {
                DataType::Float8e8m0 => Some(Param::coded(self.unscaled(name)?, dims)),
                _ => Some(Param { floats: tensor.floats().ok()?, dims, coded: None }),
            };
        }
        let producer = self.producer(name)?;
        if producer.is("Reshape") {
            let param = self.widened(producer.input.first()?)?;
            let shape = self.index.initializer(producer.input.get(1)?)?.ints().ok()?;
            let dims: Option<Vec<usize>> =
                shape.into_iter().map(|d| usize::try_from(d).ok()).collect();
            let dims = dims.filter(|d| d.iter().product::<usize>() == param.floats.len())?;
            return Some(Param { dims, ..param });
        }
        self.widened(name)
    }

    /// A parameter that is stored in another type; of scales quantized in turn those of the scales are
    /// floats.
    fn widened(&self, name: &str) -> Option<Param> {
        let producer = self.producer(name)?;
        let has_own_scale =
            producer.input.get(1).is_some_and(|own| self.index.initializer(own).is_some());
        let coded = match producer.op_type() {
            "Cast" if self.is_half(producer) => {
                let tensor = self.index.initializer(producer.input.first()?)?;
                let floats = tensor.floats().ok()?;
                return Some(Param { floats, dims: tensor.shape().ok()?, coded: None });
            }
            "DequantizeLinear" if has_own_scale => self.dequantize_linear(producer)?,
            "Mul" if has_own_scale => {
                let numbers = self.producer(producer.input.first()?)?;
                (numbers.is("Cast") || numbers.is("Gather"))
                    .then(|| self.arithmetic(producer))??
            }
            "Cast" | "Gather" => self.unscaled(name)?,
            _ => return None,
        };
        let dims = coded.layout().shape().to_vec();
        Some(Param::coded(coded, dims))
    }

    fn is_half(&self, cast: &NodeProto) -> bool {
        let narrow = cast.input.first().and_then(|name| self.index.initializer(name));
        narrow.is_some_and(|tensor| matches!(tensor.element_type(), Ok(DataType::Float16)))
    }

    /// Numbers that are floats without a scale.
    fn unscaled(&self, name: &str) -> Option<QTensor> {
        let codes = match self.index.initializer(name) {
            Some(_) => self.codes(name)?,
            None => self.numbers(name)?,
        };
        codes.ints.encoding().floats()?;
        let layout = Layout::new(&codes.shape, Granularity::Tensor).ok()?;
        let params = QuantParams { scale: vec![1.0], zero_point: Vec::new() };
        QTensor::new(layout, params, codes.ints)
    }

    /// Whether a value is read as scales alone: it is no weight of its own.
    pub(super) fn is_scale(&self, name: &str) -> bool {
        self.leads_to_scales(name, SCALE_MOVES)
    }

    fn leads_to_scales(&self, name: &str, moves: usize) -> bool {
        let consumers = self.index.consumers(name);
        let reads_scale = |node: &NodeProto| {
            let is_second = node.input.get(1).is_some_and(|input| input == name);
            let numbers = || node.input.first().and_then(|input| self.producer(input));
            match node.op_type() {
                "DequantizeLinear" => is_second,
                "Mul" => {
                    let widen = ["Cast", "Sub", "Gather", "Reshape"];
                    is_second && numbers().is_some_and(|n| widen.iter().any(|op| n.is(op)))
                }
                "Reshape" | "Expand" | "Gather" if moves > 0 => {
                    let output = node.output.first();
                    output.is_some_and(|output| self.leads_to_scales(output, moves - 1))
                }
                _ => false,
            }
        };
        !consumers.is_empty() && consumers.iter().all(|&i| reads_scale(&self.graph.node[i]))
    }
}

/// What a parameter of these axes belongs to in a weight of `shape`, which it is multiplied by or taken from as
/// ONNX broadcasts; none where it has values along several axes.
fn broadcast(dims: &[usize], shape: &[usize]) -> Option<Granularity> {
    let before = shape.len().checked_sub(dims.len())?;
    let long: Vec<usize> = (0..dims.len()).filter(|&place| dims[place] != 1).collect();
    match long[..] {
        // Of a weight of one channel its scale is that of the channel.
        [] if !dims.is_empty() && shape[before] == 1 => Some(Granularity::Channel { axis: before }),
        [] => Some(Granularity::Tensor),
        [place] if dims[place] == shape[before + place] => {
            Some(Granularity::Channel { axis: before + place })
        }
        _ => None,
    }
}

/// The zero points of a weight whose scales have this granularity: one for each scale.
pub(super) fn beside_scales(
    (zero_point, own): (Param, Granularity),
    scales: (usize, Granularity),
) -> Option<Vec<i64>> {
    let values: Vec<i64> = zero_point.floats.iter().map(|&z| z as i64).collect();
    let (count, granularity) = scales;
    match values[..] {
        [one] => Some(vec![one; count]),
        _ => (own == granularity && values.len() == count).then_some(values),
    }
}

impl Param {
    fn coded(coded: QTensor, dims: Vec<usize>) -> Param {
        Param { floats: coded.dequantize(), dims, coded: Some(coded) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_belong_to_the_axis_that_they_have_values_along() {
        let channel = |axis| Some(Granularity::Channel { axis });
        for (dims, shape, expected) in [
            (&[][..], &[4, 4][..], Some(Granularity::Tensor)),
            (&[1, 1], &[4, 4], Some(Granularity::Tensor)),
            (&[1, 1], &[1, 4], channel(0)),
            (&[4], &[4, 4], channel(1)),
            (&[1, 4], &[4, 4], channel(1)),
            (&[4, 1], &[4, 4], channel(0)),
            (&[1, 3, 1, 1], &[3, 3, 3, 3], channel(1)),
            (&[3, 1, 1], &[2, 3, 3, 3], channel(1)),
            (&[4, 4], &[4, 4], None),
            (&[5], &[4, 4], None),
        ] {
            assert_eq!(broadcast(dims, shape), expected, "{dims:?} in {shape:?}");
        }
    }
}
