"""The words that options take and results hold."""

from typing import Literal

Metric = Literal["accuracy", "f1", "auc", "r2", "mae", "rmse", "perplexity", "agreement"]
Recipe = Literal["weights", "dynamic", "static", "auto"]
Target = Literal["onnx", "onnxruntime", "openvino", "tensorrt", "tract", "generic"]
SchemeName = Literal[
    "symmetric",
    "affine",
    "fixed-point",
    "fp8-e4m3",
    "fp8-e5m2",
    "fp4-e2m1",
    "mxfp8-e4m3",
    "mxfp8-e5m2",
    "mxfp4",
    "nvfp4",
]
Scales = Literal["f32", "f16", "u8"]
ReduceRange = Literal["auto", "all", "none"]
Objective = Literal["size", "latency"]
Method = Literal["equalization", "smoothquant", "awq", "bias-correction"]
Rounding = Literal["nearest", "gptq", "hqq", "adaround"]
