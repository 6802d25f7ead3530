//! The names of operators, for those who look for them where they should not stand.

use super::operators;

/// Operators of which the table of element types says nothing: of sequences, of text, of training, of
/// classical models, and those of ONNX Runtime.
#[rustfmt::skip]
const OTHERS: &[&str] = &[
    // ONNX.
    "Attention", "CausalConvWithState", "ConcatFromSequence", "FlexAttention", "ImageDecoder",
    "LinearAttention", "NegativeLogLikelihoodLoss", "Optional", "OptionalHasElement", "RegexFullMatch",
    "RotaryEmbedding", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
    "SequenceLength", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer",
    "StringSplit", "SwiGLU", "TfIdfVectorizer",
    "Adagrad", "Adam", "Gradient", "Momentum",
    // ai.onnx.ml.
    "ArrayFeatureExtractor", "Binarizer", "CastMap", "CategoryMapper", "DictVectorizer",
    "FeatureVectorizer", "Imputer", "LabelEncoder", "LinearClassifier", "LinearRegressor", "Normalizer",
    "OneHotEncoder", "SVMClassifier", "SVMRegressor", "Scaler", "TreeEnsemble",
    "TreeEnsembleClassifier", "TreeEnsembleRegressor", "ZipMap",
    // com.microsoft.
    "BiasGelu", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "EmbedLayerNormalization", "FastGelu",
    "FusedConv", "FusedGemm", "FusedMatMul", "GatherBlockQuantized", "GroupQueryAttention",
    "MatMulIntegerToFloat", "MatMulNBits", "MultiHeadAttention", "NhwcFusedConv", "QAttention", "QGemm",
    "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool",
    "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuickGelu",
    "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
];

/// Every operator that is known by name.
pub fn operator_names() -> impl Iterator<Item = &'static str> {
    operators::names().chain(OTHERS.iter().copied())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_operator_is_named_twice() {
        let mut seen = HashSet::new();
        for name in operator_names() {
            assert!(seen.insert(name), "{name} twice");
        }
        assert!(seen.contains("Conv") && seen.contains("TreeEnsemble"));
    }
}
