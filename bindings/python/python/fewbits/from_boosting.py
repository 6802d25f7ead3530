"""XGBoost and LightGBM, through onnxmltools."""

from typing import Any

import numpy as np

from fewbits._fewbits import OnnxModel
from fewbits.about import About

OPSET = 15


def convert(model: Any) -> tuple[OnnxModel, About]:
    """The fitted model as ONNX, and its classes.

    Raises
    ------
    ImportError
        If onnxmltools is missing.
    TypeError
        If it was not fitted, or onnxmltools does not convert it.
    """
    try:
        from onnxmltools import convert_lightgbm, convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType
    except ImportError as error:
        raise ImportError(
            "XGBoost and LightGBM models are converted by onnxmltools, which is missing: "
            "pip install fewbits[boosting]"
        ) from error
    features = getattr(model, "n_features_in_", None)
    if features is None:
        features = model.num_feature() if hasattr(model, "num_feature") else None
    if features is None:
        raise TypeError(f"{type(model).__name__} was not fitted; fit it first")
    of_lightgbm = type(model).__module__.startswith("lightgbm")
    inputs = [("X", FloatTensorType([None, int(features)]))]
    classes = getattr(model, "classes_", None)
    if of_lightgbm:
        onnx = convert_lightgbm(model, initial_types=inputs, target_opset=OPSET, zipmap=False)
    else:
        onnx = convert_xgboost(model, initial_types=inputs, target_opset=OPSET)
    converted = OnnxModel.from_bytes(onnx.SerializeToString())
    return converted, About(classes=None if classes is None else np.asarray(classes))
