//! Resize.

use serde::{Deserialize, Serialize};

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
