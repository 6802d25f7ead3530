"""`compare`, `sweep`, `tune` and `inspect`: what quantization costs."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from fewbits import _fewbits
from fewbits._fewbits import Data, OnnxModel
from fewbits.model import Model
from fewbits.progress import Watch
from fewbits.quantize import Metric, Recipe, ReduceRange, Scales, Target, data_of, options_of
from fewbits.results import Comparison, Inspection, Sweep
from fewbits.sources import Source, source_of
from fewbits.tuned import Tuned


def compare(
    a: Any,
    b: Any,
    X: Any,
    y: Any = None,
    *,
    metric: Metric | None = None,
    max_drop: float | None = None,
    threads: int | None = None,
    example_input: Any = None,
    normalize: str | None = None,
) -> Comparison:
    """Measures two models on the same rows: metric, agreement, bytes, latency.

    Parameters
    ----------
    a, b : whatever :func:`quantize` takes
        ``a`` is usually the float model: an estimator is measured as the ONNX file that it becomes.
    X : array-like, frame, or mapping of input names to arrays
        Rows that neither model was fitted on.
    y : array-like, optional
        Their labels; without them the metric is agreement.
    metric : str, optional
        By default what fits the labels.
    max_drop : float, optional
        How much worse ``b`` may be, in the metric's unit: ``Comparison.accepted`` says whether it is.
    threads : int, optional
        All cores if not given.
    example_input, normalize
        As for :func:`quantize`.

    Returns
    -------
    Comparison
    """
    first, second = (source_of(model, example_input) for model in (a, b))
    if y is None and metric is None:
        metric = "agreement"
    data = _rows(first, X, y, normalize)
    with Watch() as watch:
        text = _fewbits.compare(first.onnx, second.onnx, data, watch, metric, max_drop, threads)
    return Comparison(text, max_drop)


def sweep(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    bits: Iterable[int] = range(1, 9),
    calibration: Any = None,
    recipe: Recipe | None = None,
    act_bits: int = 8,
    scheme: Literal["symmetric", "affine", "fixed-point"] = "symmetric",
    granularity: str | None = None,
    scales: Scales = "f32",
    methods: str = "auto",
    rounding: str = "auto",
    reduce_range: ReduceRange = "auto",
    requantize: bool = False,
    target: Target = "onnx",
    metric: Metric | None = None,
    folder: str | os.PathLike[str] | None = None,
    force: bool = False,
    threads: int | None = None,
    example_input: Any = None,
    normalize: str | None = None,
) -> Sweep:
    """Measures a model at several widths: how many bits can be afforded?

    Parameters
    ----------
    model : whatever :func:`quantize` takes
    X, y
        As for :func:`compare`.
    bits : iterable of int, 1 to 8
        For ``scheme="fixed-point"`` up to 15.
    calibration, recipe, act_bits, scheme, granularity, scales, methods, rounding, reduce_range, requantize, target
        As for :func:`quantize`.
    metric, threads
        As for :func:`compare`.
    folder : path-like, optional
        Where the models are kept, one file a width.
    force : bool
        Whether files there are replaced.

    Returns
    -------
    Sweep
        Prints as a table; ``.plot()`` draws it.
    """
    source = source_of(model, example_input)
    if y is None and metric is None:
        metric = "agreement"
    data = _rows(source, X, y, normalize)
    seen = data_of(source, calibration, normalize)
    options = options_of(
        recipe,
        seen,
        None,
        act_bits,
        scheme,
        granularity,
        "auto",
        methods,
        target,
        rounding,
        scales,
        reduce_range,
        requantize,
    )
    widths = ",".join(str(int(width)) for width in bits)
    with Watch() as watch:
        text = _fewbits.sweep(
            source.onnx, options, widths, data, seen, watch, metric, folder, force, threads
        )
    return Sweep(text)


def tune(
    model: Any,
    calibration: Any,
    X: Any,
    y: Any = None,
    *,
    max_drop: float,
    objective: Literal["size", "latency"] = "size",
    recipe: Recipe | None = None,
    methods: str = "auto",
    target: Target = "onnx",
    metric: Metric | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    time_limit: float | None = None,
    resume: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    example_input: Any = None,
    normalize: str | None = None,
) -> Tuned:
    """Looks for the smallest, or the fastest, model that is at most so much worse.

    Parameters
    ----------
    model : whatever :func:`quantize` takes
    calibration
        Rows for ranges and sensitivities, such as ``X_train``.
    X, y
        Other rows, that the drop is measured on, and their labels.
    max_drop : float
        How much worse the metric may be, in its own unit.
    objective : {"size", "latency"}
    recipe : {"weights", "dynamic", "static"}, optional
        ``"weights"`` for the smallest file, ``"static"`` for the fastest model by default.
    out : path-like, optional
        Keep the best so far in this file while the search goes on.
    force : bool
        Whether it is replaced.
    time_limit : float, optional
        Seconds after which the best so far is taken.
    resume : path-like, optional
        Keep what was measured in this file, and go on from it if it is there.
    methods, target, metric, threads, example_input, normalize
        As for :func:`quantize` and :func:`compare`.

    Returns
    -------
    Tuned
        ``.model`` is the best, or None if no smaller model stays within the drop.
    """
    source = source_of(model, example_input)
    if y is None and metric is None:
        metric = "agreement"
    data = _rows(source, X, y, normalize)
    seen = _rows(source, calibration, None, normalize)
    if recipe == "auto":
        raise ValueError('recipe is "weights", "dynamic" or "static" here')
    # Without one the recipe is that of the objective.
    options = {**options_of(recipe, seen, methods=methods, target=target), "recipe": recipe}
    with tempfile.TemporaryDirectory() as scratch, Watch() as watch:
        path = Path(out) if out is not None else Path(scratch) / "best.onnx"
        text = _fewbits.tune(
            source.onnx,
            options,
            data,
            seen,
            float(max_drop),
            path,
            watch,
            objective,
            metric,
            time_limit,
            resume,
            force,
            threads,
        )
        best = OnnxModel.from_bytes(path.read_bytes()) if path.exists() else None
    return Tuned(text, best, source.about)


def inspect(model: Any, *, example_input: Any = None) -> Inspection:
    """Tensors, widths, bytes and ranges of a model.

    Parameters
    ----------
    model : whatever :func:`quantize` takes

    Returns
    -------
    Inspection
    """
    return Inspection.of(source_of(model, example_input).onnx)


def _rows(source: Source, X: Any, y: Any, normalize: str | None) -> Data:
    if X is None:
        raise TypeError("rows of data are needed, such as X_test")
    return Model(source.onnx, source.about)._data(X, y, normalize)
