"""From what people hold to the arrays that a model takes, in scikit-learn's words where it refuses."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

_NATIVE = {np.dtype(t) for t in ("f4", "f8", "i8", "i4", "i1", "u1", "?")}


def column_names(X: Any) -> tuple[str, ...] | None:
    """The column names of a pandas or polars frame, if all are strings."""
    columns = getattr(X, "columns", None)
    if columns is None or not hasattr(X, "to_numpy"):
        return None
    names = tuple(columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def check_names(X: Any, features: tuple[str, ...] | None) -> None:
    """Refuses a frame whose columns are not those that the estimator was fitted with."""
    names = column_names(X)
    if features is None:
        return
    if names is None:
        warnings.warn(
            "X does not have valid feature names, but the model was fitted with feature names",
            stacklevel=4,
        )
        return
    if names == features:
        return
    lines = ["The feature names should match those that were passed during fit."]
    unseen = sorted(set(names) - set(features))
    missing = sorted(set(features) - set(names))
    if unseen:
        lines.append("Feature names unseen at fit time:")
        lines.extend(f"- {name}" for name in _few(unseen))
    if missing:
        lines.append("Feature names seen at fit time, yet now missing:")
        lines.extend(f"- {name}" for name in _few(missing))
    if not unseen and not missing:
        lines.append("Feature names must be in the same order as they were in fit.")
    raise ValueError("\n".join(lines) + "\n")


def _few(names: list[str], most: int = 5) -> list[str]:
    return names if len(names) <= most else [*names[:most], "..."]


def numbers(X: Any, what: str = "X") -> npt.NDArray[Any]:
    """A contiguous array of a type that the native module takes; the same one if it is one already.

    float16 becomes float32, wider integers and objects that are numbers become float64.
    """
    if hasattr(X, "toarray"):
        raise TypeError(
            f"{what} is sparse, but dense data is required. Use {what}.toarray()."
        )
    array: npt.NDArray[Any] = np.asarray(X.to_numpy() if hasattr(X, "to_numpy") else X)
    kind = array.dtype.kind
    if kind == "c":
        raise ValueError(f"Complex data not supported: {what} is of type {array.dtype}")
    if kind in "US":
        raise ValueError(
            f"{what} holds strings where numbers belong (such as {array.ravel()[:1].tolist()}); "
            "encode them as numbers, or put an encoder into the pipeline that is quantized"
        )
    if kind in "mMV":
        raise TypeError(f"{what} is of type {array.dtype}; give numbers")
    if kind == "O":
        array = _objects(array, what)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    elif array.dtype.newbyteorder("=") not in _NATIVE:
        array = array.astype(np.int32 if array.dtype.itemsize < 4 else np.float64)
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array) if array.ndim else array


def _objects(array: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    try:
        return array.astype(np.float64)
    except ValueError as error:
        raise ValueError(
            f"{what} holds objects that are not numbers ({error}); encode them as numbers, or put an "
            "encoder into the pipeline that is quantized"
        ) from error


def matrix(X: Any, features: int | None, nan_passes: bool) -> npt.NDArray[Any]:
    """Rows of numbers as scikit-learn checks them.

    Parameters
    ----------
    X
        Anything of shape ``[rows, features]``.
    features
        The number of columns that the model takes, if it is fixed.
    nan_passes
        Whether the model handles NaN.
    """
    array = numbers(X)
    if array.ndim != 2:
        hint = (
            "Reshape your data either using array.reshape(-1, 1) if your data has a single feature "
            "or array.reshape(1, -1) if it contains a single sample."
        )
        raise ValueError(f"Expected 2D array, got {array.ndim}D array instead. {hint}")
    if array.shape[0] == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={array.shape}) while a minimum of 1 is required."
        )
    if features is not None and array.shape[1] != features:
        raise ValueError(
            f"X has {array.shape[1]} features, but Model is expecting {features} features as input"
        )
    check_finite(array, nan_passes)
    return array


def check_finite(array: npt.NDArray[Any], nan_passes: bool) -> None:
    """Refuses NaN, and what 32 bits cannot hold."""
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.astype(np.float32, copy=False)).all():
            return
    if np.isnan(array).any():
        if nan_passes:
            return
        raise ValueError(
            "Input X contains NaN.\nThe model does not accept missing values encoded as NaN. Drop or "
            "impute these rows, or quantize a pipeline that begins with an imputer."
        )
    raise ValueError(
        "Input X contains infinity or a value too large for dtype('float32'). Scale the data."
    )


def labels(y: Any) -> Any:
    """Labels as the native module takes them: strings as a list and a shape."""
    array: npt.NDArray[Any] = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    if array.dtype.kind in "USO" and all(isinstance(label, str) for label in array.ravel()):
        return array.ravel().tolist(), list(array.shape)
    return numbers(array, "y")
