"""What a model file tells of the estimator that it came from."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fewbits._fewbits import OnnxModel

KEY = "fewbits.estimator"


@dataclass(frozen=True)
class About:
    """The facts that ONNX has no place for; those that are usual are left out of the file."""

    # The labels in the order of the scores' columns.
    classes: npt.NDArray[Any] | None = None
    features: tuple[str, ...] | None = None
    # Whether the scores are probabilities, or distances from a border.
    scores: Literal["probability", "decision"] = "probability"
    # Whether several columns are values, not scores of classes.
    values: bool = False
    # Whether NaN is a value that the estimator handles.
    nan: bool = False

    @staticmethod
    def of(model: OnnxModel) -> "About":
        """Reads a file's entry; what another tool wrote says nothing."""
        try:
            entry = json.loads(model.metadata(KEY) or "{}")
            classes = entry.get("classes")
            if classes is not None and np.ndim(np.array(classes)) != 1:
                return About()
            features = entry.get("features")
            return About(
                classes=None if classes is None else np.array(classes),
                features=None if features is None else tuple(map(str, features)),
                scores="decision" if entry.get("scores") == "decision" else "probability",
                values=bool(entry.get("values")),
                nan=bool(entry.get("nan")),
            )
        except (ValueError, AttributeError, TypeError):
            return About()

    def write(self, model: OnnxModel) -> OnnxModel:
        """The model with this in its file."""
        entry: dict[str, Any] = {}
        if self.classes is not None:
            entry["classes"] = self.classes.tolist()
        if self.features is not None:
            entry["features"] = list(self.features)
        if self.scores != "probability":
            entry["scores"] = self.scores
        if self.values:
            entry["values"] = True
        if self.nan:
            entry["nan"] = True
        if not entry:
            return model
        return model.with_metadata(KEY, json.dumps(entry, separators=(",", ":")))
