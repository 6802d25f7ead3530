"""The native module; the package's other modules are what is meant to be called."""

import os
from collections.abc import Mapping
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "VERSION",
    "Data",
    "OnnxModel",
    "Predictor",
    "check_plan",
    "compare",
    "plan",
    "quantize",
    "sweep",
    "tune",
]

VERSION: str

# Strings cross as a list and a shape, whatever numpy would store them as.
_Array = npt.NDArray[Any] | tuple[list[str], list[int]]
_Spec = tuple[str, str | None, list[int | None] | None]
_Path = str | os.PathLike[str]

class _Watch(Protocol):
    def show(self, what: str, done: int, total: int) -> None: ...
    def warn(self, message: str) -> None: ...

@final
class OnnxModel:
    @staticmethod
    def open(path: _Path) -> OnnxModel: ...
    @staticmethod
    def from_bytes(content: bytes) -> OnnxModel: ...
    def to_bytes(self) -> bytes: ...
    def save(self, path: _Path, force: bool = False) -> int: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def inputs(self) -> list[_Spec]: ...
    @property
    def outputs(self) -> list[_Spec]: ...
    def metadata(self, key: str) -> str | None: ...
    def with_metadata(self, key: str, value: str) -> OnnxModel: ...
    def inspect(self) -> str: ...
    def execution(self) -> str: ...
    def integer_bits(self) -> int: ...
    def run(self, arrays: Mapping[str, _Array]) -> dict[str, npt.NDArray[Any]]: ...

@final
class Data:
    def __new__(
        cls,
        model: OnnxModel,
        arrays: Mapping[str, _Array],
        labels: _Array | None = None,
        normalize: str | None = None,
    ) -> Data: ...
    @property
    def rows(self) -> int: ...
    def warning_of_missing(self, model: OnnxModel) -> str | None: ...

@final
class Predictor:
    def __new__(cls, model: OnnxModel, nan_passes: bool = False) -> Predictor: ...
    def predict(self, x: object) -> npt.NDArray[Any] | None: ...
    def scores(self, x: object) -> npt.NDArray[np.float64] | None: ...
    def probabilities(self, x: object) -> npt.NDArray[np.float64] | None: ...
    def predict_data(self, data: Data) -> npt.NDArray[Any]: ...
    def scores_data(self, data: Data) -> npt.NDArray[np.float64]: ...
    def probabilities_data(self, data: Data) -> npt.NDArray[np.float64]: ...

def plan(
    model: OnnxModel, options: Mapping[str, object], data: Data | None, watch: _Watch
) -> str: ...
def quantize(
    model: OnnxModel,
    options: Mapping[str, object],
    data: Data | None,
    plan: str | None,
    watch: _Watch,
    labelled: Data | None = None,
    max_drop: float | None = None,
    metric_name: str | None = None,
) -> tuple[OnnxModel, str, str, list[str]]: ...
def check_plan(text: str) -> str: ...
def compare(
    a: OnnxModel,
    b: OnnxModel,
    data: Data,
    watch: _Watch,
    metric_name: str | None = None,
    max_drop: float | None = None,
    threads: int | None = None,
) -> str: ...
def sweep(
    model: OnnxModel,
    options: Mapping[str, object],
    widths: str,
    data: Data,
    calibration: Data | None,
    watch: _Watch,
    metric_name: str | None = None,
    folder: _Path | None = None,
    force: bool = False,
    threads: int | None = None,
) -> str: ...
def tune(
    model: OnnxModel,
    options: Mapping[str, object],
    data: Data,
    calibration: Data,
    max_drop: float,
    out: _Path,
    watch: _Watch,
    objective: str = "size",
    metric_name: str | None = None,
    time_limit: float | None = None,
    resume: _Path | None = None,
    force: bool = False,
    threads: int | None = None,
) -> str: ...
