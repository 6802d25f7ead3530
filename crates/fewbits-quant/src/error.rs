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
    /// A weight that is no matrix of outputs and inputs.
    #[error(
        "a weight of shape {shape:?} with outputs on axis {output_axis} is no matrix of outputs \
         and inputs; round it to nearest"
    )]
    NoMatrix {
        /// The weight's shape.
        shape: Vec<usize>,
        /// The axis of its outputs.
        output_axis: usize,
    },
    /// Statistics of inputs that do not belong to the weight.
    #[error(
        "statistics of {given} inputs for a weight of {rows} outputs that read {columns} inputs each"
    )]
    Inputs {
        /// The weight's outputs.
        rows: usize,
        /// The inputs that each reads.
        columns: usize,
        /// The inputs that the statistics tell of.
        given: usize,
    },
    /// An input whose mean square is negative or not finite.
    #[error(
        "the mean square of input {column} is {value}; leave out the calibration rows with NaN or \
         infinities, or round to nearest"
    )]
    Input {
        /// The input.
        column: usize,
        /// Its mean square.
        value: f32,
    },
    /// No row of inputs was seen.
    #[error(
        "no inputs were seen; calibrate with data that reaches this weight, or round to nearest"
    )]
    NoRows,
    /// A method that looks at inputs, and none to look at.
    #[error(
        "{rounding} rounds by the inputs of a weight; give calibration data, or round to nearest"
    )]
    NeedsInputs {
        /// The method.
        rounding: &'static str,
    },
}
