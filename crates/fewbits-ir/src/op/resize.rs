//! `Resize` of floats, after ONNX's reference: one axis after the other, each element a weighted sum of its
//! neighbours along it.

use serde::{Deserialize, Serialize};

use crate::shape::{Shape, axis_of};
use crate::{Result, RuntimeError};

/// How an element follows from its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The nearest of them.
    Nearest(Nearest),
    /// A line between two.
    Linear(Filter),
    /// With the coefficient of Keys, "Cubic Convolution Interpolation for Digital Image Processing"
    /// (1981), `a` of eq. 15.
    Cubic(f64, Filter),
}

/// Which of two neighbours is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nearest {
    /// Of two as near the lower.
    RoundPreferFloor,
    /// Of two as near the higher.
    RoundPreferCeil,
    /// The lower.
    Floor,
    /// The higher.
    Ceil,
}

/// Whether neighbours are spread where elements become fewer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Never.
    Plain,
    /// So that none is passed over.
    Antialias,
}

/// Where an element of the result lies in the input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordinates {
    /// Pixels have their centre at one half.
    HalfPixel,
    /// The same, but the middles of both meet where sizes were rounded.
    HalfPixelSymmetric,
    /// As `HalfPixel`, but a single pixel is the first.
    PytorchHalfPixel,
    /// The first and last pixels of both meet.
    AlignCorners,
    /// Pixels begin where they are.
    Asymmetric,
    /// What lies outside is this number.
    TfCropAndResize(f32),
}

/// What becomes of sizes that would stretch an image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AspectRatio {
    /// They do.
    Stretch,
    /// It keeps its aspect ratio within them.
    NotLarger,
    /// It keeps its aspect ratio around them.
    NotSmaller,
}

/// What neighbours outside the input are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// The last one inside.
    Repeated,
    /// None: the others weigh more.
    Excluded,
}

/// What the second input tells of the size of the result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Factors.
    Scales,
    /// The sizes themselves.
    Sizes(AspectRatio),
}

/// Resize of floats. The third input, if there is one, says where the part that is resized begins and ends,
/// along each axis from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// What the second input is.
    pub target: Target,
    /// The axes that are told of, counted from either end; all if there are none.
    pub axes: Vec<i64>,
    /// How an element follows from its neighbours.
    pub interpolation: Interpolation,
    /// Where an element of the result lies in the input.
    pub coordinates: Coordinates,
    /// What neighbours outside the input are.
    pub outside: Outside,
}

/// What a Resize is told of the size of its result.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told<'a> {
    /// Factors.
    Scales(&'a [f32]),
    /// The sizes themselves, and what becomes of those that would stretch an image.
    Sizes(&'a [i64], AspectRatio),
}

/// How one axis is resized.
#[derive(Clone, Copy, Debug)]
struct Axis {
    size: usize,
    to: usize,
    scale: f64,
    begin: f64,
    end: f64,
}

/// The neighbours of an element along an axis, and their weights.
enum Neighbours {
    Weighted(Vec<(usize, f32)>),
    Outside(f32),
}

/// Resizes `values` of shape `from`: what comes out, and its shape.
///
/// # Errors
/// If what is told does not fit the shape, or asks for more elements than fit.
pub(super) fn resize(
    op: &Resize,
    values: &[f32],
    from: Shape,
    told: Told,
    part: Option<&[f32]>,
) -> Result<(Vec<f32>, Shape)> {
    let axes = op.axes_of(from, told, part)?;
    let mut values = values.to_vec();
    let mut dims = from.dims().to_vec();
    for (axis, told) in axes.iter().enumerate() {
        if told.is_same() {
            continue;
        }
        dims[axis] = told.to;
        let count = dims.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
        let count = count.filter(|count| *count <= MOST_ELEMENTS).ok_or_else(too_large)?;
        if count == 0 {
            values.clear();
            continue;
        }
        let inner: usize = dims[axis + 1..].iter().product();
        let neighbours: Vec<Neighbours> =
            (0..told.to).map(|place| op.neighbours(told, place)).collect();
        values = along(&values, told.size, inner, &neighbours, count);
    }
    Ok((values, Shape::new(&dims)?))
}

/// More elements, in all and along an axis, are taken for an error in what is asked for.
const MOST_ELEMENTS: usize = 1 << 31;

const MOST_ALONG_AN_AXIS: usize = 1 << 24;

fn too_large() -> RuntimeError {
    RuntimeError::Run { reason: "what is resized would have more elements than fit".into() }
}

/// Sums the neighbours along an axis of `size`, behind which `inner` elements lie for each of its places.
fn along(
    values: &[f32],
    size: usize,
    inner: usize,
    neighbours: &[Neighbours],
    count: usize,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(count);
    let slab = size * inner;
    for slab in values.chunks_exact(slab.max(1)) {
        for element in neighbours {
            match element {
                Neighbours::Outside(value) => out.resize(out.len() + inner, *value),
                Neighbours::Weighted(neighbours) => {
                    let begin = out.len();
                    out.resize(begin + inner, 0.0);
                    for &(place, weight) in neighbours {
                        let line = &slab[place * inner..][..inner];
                        for (sum, value) in out[begin..].iter_mut().zip(line) {
                            *sum += weight * value;
                        }
                    }
                }
            }
        }
    }
    out
}

impl Resize {
    /// What is asked for along every axis.
    fn axes_of(&self, from: Shape, told: Told, part: Option<&[f32]>) -> Result<Vec<Axis>> {
        let rank = from.dims().len();
        let fault = |what: &str| RuntimeError::Run {
            reason: format!("Resize of a value of shape {from:?}: {what}"),
        };
        let same = |&size: &usize| Axis { size, to: size, scale: 1.0, begin: 0.0, end: 1.0 };
        let mut axes: Vec<Axis> = from.dims().iter().map(same).collect();
        let resized: Vec<usize> = match self.axes.is_empty() {
            true => (0..rank).collect(),
            false => self.axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<_>>()?,
        };
        if let Some(part) = part.filter(|part| part.len() == 2 * resized.len()) {
            for (i, &axis) in resized.iter().enumerate() {
                axes[axis].begin = f64::from(part[i]);
                axes[axis].end = f64::from(part[resized.len() + i]);
            }
        }
        let is_scale = |scale: f64| scale.is_finite() && scale > 0.0;
        match told {
            Told::Scales(scales) => {
                if scales.len() != resized.len() {
                    return Err(fault("as many scales are needed as axes"));
                }
                if !scales.iter().all(|&scale| is_scale(f64::from(scale))) {
                    return Err(fault("a scale is not a positive number"));
                }
                for (&axis, &scale) in resized.iter().zip(scales) {
                    let axis = &mut axes[axis];
                    axis.scale = f64::from(scale);
                    axis.to = (axis.scale * axis.size as f64) as usize;
                }
            }
            Told::Sizes(sizes, aspect) => {
                if sizes.len() != resized.len() {
                    return Err(fault("as many sizes are needed as axes"));
                }
                for (&axis, &size) in resized.iter().zip(sizes) {
                    let axis = &mut axes[axis];
                    axis.to = usize::try_from(size).map_err(|_| fault("a size is negative"))?;
                    axis.scale = axis.to as f64 / axis.size as f64;
                }
                let scales = resized.iter().map(|&axis| axes[axis].scale);
                let common = match aspect {
                    AspectRatio::Stretch => None,
                    AspectRatio::NotLarger => scales.reduce(f64::min),
                    AspectRatio::NotSmaller => scales.reduce(f64::max),
                };
                for axis in resized.iter().filter(|_| common.is_some()) {
                    let axis = &mut axes[*axis];
                    axis.scale = common.unwrap_or(1.0);
                    axis.to = (axis.scale * axis.size as f64 + 0.5) as usize;
                }
                // An axis that becomes empty has a scale of 0, or none.
                if axes.iter().any(|axis| axis.to > 0 && !is_scale(axis.scale)) {
                    return Err(fault("an empty axis cannot become larger"));
                }
            }
        }
        if axes.iter().any(|axis| axis.to > MOST_ALONG_AN_AXIS) {
            return Err(too_large());
        }
        Ok(axes)
    }

    /// Where the element at `place` of the result lies along an axis of the input.
    fn position(&self, axis: &Axis, place: usize) -> f64 {
        let (place, size) = (place as f64, axis.size as f64);
        let length = axis.scale * size;
        let half_pixel = (place + 0.5) / axis.scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half_pixel,
            Coordinates::HalfPixelSymmetric => {
                size / 2.0 * (1.0 - axis.to as f64 / length) + half_pixel
            }
            Coordinates::PytorchHalfPixel if axis.to <= 1 => 0.0,
            Coordinates::PytorchHalfPixel => half_pixel,
            Coordinates::AlignCorners if length == 1.0 => 0.0,
            Coordinates::AlignCorners => place * (size - 1.0) / (length - 1.0),
            Coordinates::Asymmetric => place / axis.scale,
            Coordinates::TfCropAndResize(_) => {
                let part = axis.end - axis.begin;
                let inside = match length == 1.0 {
                    true => part * (size - 1.0) / 2.0,
                    false => place * part * (size - 1.0) / (length - 1.0),
                };
                inside + axis.begin * (size - 1.0)
            }
        }
    }

    fn neighbours(&self, axis: &Axis, place: usize) -> Neighbours {
        let position = self.position(axis, place);
        let last = axis.size as f64 - 1.0;
        if let Coordinates::TfCropAndResize(value) = self.coordinates
            && !(0.0..=last).contains(&position)
        {
            return Neighbours::Outside(value);
        }
        let floor = position.floor();
        // The one before it is the first neighbour of an element itself.
        let ratio = if position == floor { 1.0 } else { position - floor };
        let weights = self.interpolation.weights(ratio, axis.scale);
        let half = weights.len() as f64 / 2.0;
        let first = if position == floor { floor - half } else { floor - half + 1.0 };
        let mut neighbours: Vec<(usize, f64)> = Vec::with_capacity(weights.len());
        for (i, weight) in weights.into_iter().enumerate() {
            let at = first + i as f64;
            let is_inside = (0.0..=last).contains(&at);
            if is_inside || self.outside == Outside::Repeated {
                neighbours.push((at.clamp(0.0, last) as usize, weight));
            }
        }
        let sum: f64 = neighbours.iter().map(|(_, weight)| weight).sum();
        let sum = if self.outside == Outside::Repeated || sum == 0.0 { 1.0 } else { sum };
        let weighted = neighbours.into_iter().filter(|(_, weight)| *weight != 0.0);
        Neighbours::Weighted(weighted.map(|(at, weight)| (at, (weight / sum) as f32)).collect())
    }
}

impl Axis {
    /// Whether the axis stays as it is.
    fn is_same(&self) -> bool {
        let is = |value: f64, other: f64| (value - other).abs() <= 1e-9;
        self.to == self.size && is(self.scale, 1.0) && is(self.begin, 0.0) && is(self.end, 1.0)
    }
}

impl Interpolation {
    /// The weights of the neighbours of a position that lies `ratio` behind the one in the middle: an even
    /// number of them.
    fn weights(self, ratio: f64, scale: f64) -> Vec<f64> {
        // Fewer elements hold more neighbours each, but for no more than there are.
        let scale = scale.min(1.0);
        let spread = |reach: f64, weight: &dyn Fn(f64) -> f64| -> Vec<f64> {
            let first = (-reach / scale).floor() + 1.0;
            let count = (2.0 - 2.0 * first) as usize;
            let weights = (0..count).map(|i| weight(((first + i as f64) - ratio) * scale));
            let weights: Vec<f64> = weights.collect();
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(|weight| weight / sum).collect()
        };
        match self {
            Interpolation::Nearest(nearest) => {
                // An element is its own neighbour.
                let second = ratio == 1.0
                    || match nearest {
                        Nearest::RoundPreferFloor => ratio > 0.5,
                        Nearest::RoundPreferCeil => ratio >= 0.5,
                        Nearest::Floor => false,
                        Nearest::Ceil => true,
                    };
                if second { vec![0.0, 1.0] } else { vec![1.0, 0.0] }
            }
            Interpolation::Linear(Filter::Plain) => vec![1.0 - ratio, ratio],
            Interpolation::Linear(Filter::Antialias) => {
                spread(1.0, &|distance| (1.0 - distance.abs()).clamp(0.0, 1.0))
            }
            Interpolation::Cubic(a, Filter::Plain) => {
                [-1.0, 0.0, 1.0, 2.0].map(|at| keys(at - ratio, a)).to_vec()
            }
            Interpolation::Cubic(a, Filter::Antialias) => {
                spread(2.0, &|distance| keys(distance, a))
            }
        }
    }
}

/// The kernel of Keys (1981), eq. 15.
fn keys(distance: f64, a: f64) -> f64 {
    let s = distance.abs();
    if s <= 1.0 {
        ((a + 2.0) * s - (a + 3.0)) * s * s + 1.0
    } else if s < 2.0 {
        ((a * s - 5.0 * a) * s + 8.0 * a) * s - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_scales(interpolation: Interpolation, coordinates: Coordinates) -> Resize {
        let (target, outside) = (Target::Scales, Outside::Repeated);
        Resize { target, axes: Vec::new(), interpolation, coordinates, outside }
    }

    fn line(resize: &Resize, values: &[f32], to: usize) -> Vec<f32> {
        let (size, scale) = (values.len(), to as f64 / values.len() as f64);
        let axis = Axis { size, to, scale, begin: 0.0, end: 1.0 };
        let neighbours: Vec<Neighbours> =
            (0..to).map(|place| resize.neighbours(&axis, place)).collect();
        along(values, size, 1, &neighbours, to)
    }

    #[test]
    fn weights_add_up_to_one() {
        for filter in [Filter::Plain, Filter::Antialias] {
            for kind in [Interpolation::Linear(filter), Interpolation::Cubic(-0.75, filter)] {
                for (ratio, scale) in [(0.25, 2.0), (1.0, 1.0), (0.5, 0.3), (0.9, 0.125)] {
                    let weights = kind.weights(ratio, scale);
                    assert_eq!(weights.len() % 2, 0);
                    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn a_line_is_doubled_and_halved() {
        let linear = of_scales(Interpolation::Linear(Filter::Plain), Coordinates::HalfPixel);
        assert_eq!(line(&linear, &[0.0, 4.0], 4), [0.0, 1.0, 3.0, 4.0]);
        let corners = of_scales(Interpolation::Linear(Filter::Plain), Coordinates::AlignCorners);
        assert_eq!(line(&corners, &[0.0, 3.0], 4), [0.0, 1.0, 2.0, 3.0]);
        let nearest = Interpolation::Nearest(Nearest::Floor);
        let nearest = of_scales(nearest, Coordinates::Asymmetric);
        assert_eq!(line(&nearest, &[1.0, 2.0], 4), [1.0, 1.0, 2.0, 2.0]);
        assert_eq!(line(&nearest, &[1.0, 2.0, 3.0, 4.0], 2), [1.0, 3.0]);
        let spread = of_scales(Interpolation::Linear(Filter::Antialias), Coordinates::HalfPixel);
        assert_eq!(line(&spread, &[1.0; 9], 2), [1.0, 1.0]);
    }
}
