//! Operators by what they do with axes.

/// Functions of each element alone.
pub const OF_ELEMENTS: [&str; 27] = [
    "Abs",
    "Cast",
    "Ceil",
    "Clip",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Sqrt",
    "Tanh",
];
/// Functions of elements that meet, of any number of values.
pub const OF_PAIRS: [&str; 16] = [
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Where",
];
/// What computes images from images, one by one, all else being the same for them.
pub const OF_IMAGES: [&str; 9] = [
    "AveragePool",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "InstanceNormalization",
    "MaxPool",
    "QLinearConv",
];
/// Operators on more than single elements whose first result has the shape of their first input.
pub const OF_SHAPE: [&str; 8] = [
    "BatchNormalization",
    "DequantizeLinear",
    "Dropout",
    "LayerNormalization",
    "LogSoftmax",
    "QuantizeLinear",
    "RMSNormalization",
    "Softmax",
];
