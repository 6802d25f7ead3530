"""`compare`, `sweep`, `tune` and `inspect`: what quantization costs."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fewbits import _fewbits
from fewbits._fewbits import Data, OnnxModel
from fewbits.model import Model
from fewbits.progress import Watch
from fewbits.quantize import data_of, options_of
from fewbits.record import read_json
from fewbits.results import Comparison, Inspection, Sweep
from fewbits.sources import Source, source_of
from fewbits.tuned import Tuned
from fewbits.words import Metric, Objective, Recipe, ReduceRange, Scales, Target


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
    X : array-like of shape (rows, features), or of the shape that ``a`` takes; frame; mapping of names to arrays
        Rows that neither model was fitted on. One row at least; the mapping has an entry for every input.
    y : array-like of shape (rows,) or (rows, outputs), optional
        Their labels: classes, or values of a regression. For perplexity the tokens that follow, of shape
        (rows, positions). Without them the metric is agreement.
    metric : {"accuracy", "f1", "auc", "r2", "mae", "rmse", "perplexity", "agreement"}, optional
        By default what fits the labels.
    max_drop : float, optional
        How much worse ``b`` may be, in the metric's unit: ``Comparison.accepted`` says whether it is.
    threads : int, optional
        Those that the models run on, at least 1. By default one for a small model, else all cores.
    example_input, normalize
        As for :func:`quantize`.

    Returns
    -------
    Comparison
        Bytes, milliseconds, and the drop in the metric's unit. Where its confidence interval comes from
        is in ``drop_interval.method``.

    Raises
    ------
    TypeError
        If ``a`` or ``b`` is nothing that :func:`quantize` takes, or ``X`` is None, sparse or no numbers.
    FileNotFoundError
        If a model is a path and there is no such file.
    ImportError
        If the converter of an estimator is not installed.
    ValueError
        If a file is no ONNX model, or cannot be run; if ``b`` does not take what ``a`` does; if ``X`` has
        another number of columns, other column names, NaN, or no rows; if ``y`` has another number of rows
        or misses a label; if ``metric`` is unknown or does not fit the labels; if ``threads`` is below 1.

    Examples
    --------
    >>> import fewbits as fb
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression(max_iter=5000).fit(X[:1500], y[:1500])
    >>> comparison = fb.compare(model, fb.quantize(model), X[1500:], y[1500:], max_drop=0.02)
    >>> comparison.metric, comparison.accepted, comparison.b.file_bytes < comparison.a.file_bytes
    ('accuracy', True, True)
    """
    first, second = (source_of(model, example_input) for model in (a, b))
    if y is None and metric is None:
        metric = "agreement"
    data = _rows(first, X, y, normalize)
    with Watch() as watch:
        text = _fewbits.compare(first.onnx, second.onnx, data, watch, metric, max_drop, threads)
    return replace(read_json(Comparison, text), max_drop=max_drop)


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

    example_input, normalize
        As for :func:`quantize`.

    Returns
    -------
    Sweep
        Prints as a table; ``.plot()`` draws it.

    Raises
    ------
    TypeError, FileNotFoundError, ImportError
        As :func:`compare`.
    FileExistsError
        If a file is in ``folder`` already and ``force`` is not set.
    OSError
        If ``folder`` cannot be made.
    ValueError
        As :func:`compare`; if ``bits`` is empty or holds a width that the scheme has not, or an option is
        wrong, as for :func:`quantize`.
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
    return read_json(Sweep, text)


def tune(
    model: Any,
    calibration: Any,
    X: Any,
    y: Any = None,
    *,
    max_drop: float,
    objective: Objective = "size",
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
    calibration : as ``X`` of :func:`compare`
        Rows for ranges and sensitivities, such as ``X_train``.
    X, y
        Other rows, that the drop is measured on, and their labels, as for :func:`compare`.
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

    Raises
    ------
    TypeError, FileNotFoundError, ImportError
        As :func:`compare`; a TypeError too if ``calibration`` is None.
    FileExistsError
        If ``out`` is there already and ``force`` is not set.
    ValueError
        As :func:`compare`; if ``objective``, ``time_limit``, ``recipe`` or another option is wrong; if
        ``resume`` is no file of a search, or of one with another model, other data or other options; if the
        folder of ``out`` does not exist.
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
        tuned = read_json(Tuned, text)
        if tuned.best is None:
            return tuned
        onnx = source.about.write(OnnxModel.from_bytes(path.read_bytes()))
    return replace(tuned, model=Model(onnx, source.about, tuned.best.plan))


def inspect(model: Any, *, example_input: Any = None) -> Inspection:
    """Tensors, widths, bytes and ranges of a model.

    Parameters
    ----------
    model : whatever :func:`quantize` takes
    example_input
        As for :func:`quantize`.

    Returns
    -------
    Inspection
        Prints as a table of the weights.

    Raises
    ------
    TypeError
        If ``model`` is nothing that :func:`quantize` takes.
    FileNotFoundError
        If it is a path and there is no such file.
    ImportError
        If the converter of an estimator is not installed.
    ValueError
        If it is no ONNX model, or not fitted.
    """
    return read_json(Inspection, source_of(model, example_input).onnx.inspect())


def _rows(source: Source, X: Any, y: Any, normalize: str | None) -> Data:
    if X is None:
        raise TypeError("rows of data are needed, such as X_test")
    return Model(source.onnx, source.about)._data(X, y, normalize)
