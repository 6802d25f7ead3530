"""From whatever holds a model to ONNX."""

import os
from typing import Any

from fewbits._fewbits import OnnxModel
from fewbits.about import About
from fewbits.model import Model, open_onnx

ACCEPTED = (
    "a fitted scikit-learn estimator or pipeline, a path or bytes of an ONNX file, an onnx.ModelProto, "
    "a torch.nn.Module with example_input=, a fitted XGBoost or LightGBM model, or a fewbits.Model"
)


def onnx_of(
    model: Any, example_input: Any = None, classes: Any = None, calibration: Any = None
) -> OnnxModel:
    """The ONNX model of `model`, with what is known of the estimator in its metadata.

    Raises
    ------
    TypeError
        If it is nothing that fewbits takes; the message lists what is.
    """
    onnx = _converted(model, example_input, calibration)
    if classes is not None:
        import dataclasses

        import numpy as np

        onnx = dataclasses.replace(About.of(onnx), classes=np.asarray(classes)).write(onnx)
    return onnx


def _converted(model: Any, example_input: Any, calibration: Any) -> OnnxModel:
    if isinstance(model, Model):
        return model._onnx
    if isinstance(model, (str, os.PathLike, bytes, bytearray, memoryview)):
        return open_onnx(model)
    families = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "torch" in families and hasattr(model, "state_dict"):
        from fewbits.from_torch import convert

        return convert(model, example_input)
    if "onnx" in families and hasattr(model, "SerializeToString"):
        return OnnxModel.from_bytes(model.SerializeToString())
    if isinstance(model, type):
        raise TypeError(f"{model.__name__} is a class; give a fitted instance of it")
    if families & {"xgboost", "lightgbm"}:
        from fewbits import from_boosting

        return from_boosting.convert(model)
    if families & {"sklearn", "fewbits"} and hasattr(model, "fit"):
        from fewbits import from_sklearn

        return from_sklearn.convert(model, calibration)
    raise TypeError(f"{type(model).__name__} is not a model that fewbits takes; give {ACCEPTED}")
