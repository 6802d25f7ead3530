/// The result of quantizing a tensor.
pub type Result<T> = std::result::Result<T, QuantError>;

/// Why a tensor cannot be quantized as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// A NaN or an infinity: no scale can stand for it.
    #[error("element {index} is {value}; quantization needs finite weights")]
    NotFinite {
        /// The first such element, in row-major order.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// Fewer or more values than the shape asks for.
    #[error("{values} values do not fill the shape {shape:?}")]
    Length {
        /// The shape.
        shape: Vec<usize>,
        /// The values given.
        values: usize,
    },
    /// An axis that the tensor does not have.
    #[error("axis {axis} is not one of the {rank} axes of the tensor")]
    Axis {
        /// The axis asked for.
        axis: usize,
        /// The number of axes.
        rank: usize,
    },
    /// A batch whose tensor has other channels than the batches before.
    #[error("a tensor with {given} channels where {expected} were seen before")]
    Channels {
        /// The channels seen before.
        expected: usize,
        /// The channels of this batch.
        given: usize,
    },
    /// A fixed-point integer beyond 16 bits.
    #[error(
        "a weight of {value} needs more than 16 bits at {fraction_bits} fractional bits; \
         use fewer bits or a scaled scheme"
    )]
    FixedPointOverflow {
        /// The weight of largest magnitude.
        value: f32,
        /// The fractional bits asked for.
        fraction_bits: u8,
    },
}
