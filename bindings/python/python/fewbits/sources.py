"""From whatever holds a model to ONNX."""

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fewbits._fewbits import OnnxModel
from fewbits.about import About
from fewbits.model import Model, open_onnx

ACCEPTED = (
    "a fitted scikit-learn estimator or pipeline, a path or bytes of an ONNX file, an onnx.ModelProto, "
    "a torch.nn.Module with example_input=, a fitted XGBoost or LightGBM model, or a fewbits.Model"
)


@dataclass(frozen=True)
class Source:
    """A model as ONNX, and what its file does not tell."""

    onnx: OnnxModel
    about: About

    @staticmethod
    def of_file(onnx: OnnxModel) -> "Source":
        return Source(onnx, About.of(onnx))


def source_of(model: Any, example_input: Any = None, classes: Any = None) -> Source:
    """What holds `model`, with the labels `classes` where they are given.

    Raises
    ------
    TypeError
        If it is nothing that fewbits takes; the message lists what is.
    """
    source = _converted(model, example_input)
    if classes is None:
        return source
    return Source(source.onnx, replace(source.about, classes=np.asarray(classes)))


def _converted(model: Any, example_input: Any) -> Source:
    if isinstance(model, Model):
        return Source(model._onnx, model._about)
    if isinstance(model, (str, os.PathLike, bytes, bytearray, memoryview)):
        return Source.of_file(open_onnx(model))
    families = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "torch" in families and hasattr(model, "state_dict"):
        from fewbits import from_torch

        return Source.of_file(from_torch.convert(model, example_input))
    if "onnx" in families and hasattr(model, "SerializeToString"):
        return Source.of_file(OnnxModel.from_bytes(model.SerializeToString()))
    if isinstance(model, type):
        raise TypeError(f"{model.__name__} is a class; give a fitted instance of it")
    if families & {"xgboost", "lightgbm"}:
        from fewbits import from_boosting

        return Source(*from_boosting.convert(model))
    fitted = getattr(model, "model_", None)
    if "fewbits" in families and isinstance(fitted, Model):
        return Source(fitted._onnx, fitted._about)
    if "sklearn" in families and hasattr(model, "fit"):
        from fewbits import from_sklearn

        return Source(*from_sklearn.convert(model))
    raise TypeError(f"{type(model).__name__} is not a model that fewbits takes; give {ACCEPTED}")
