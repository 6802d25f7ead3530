"""`quantize` and `plan`."""

import os
from typing import Any, Literal

from fewbits import _fewbits
from fewbits._fewbits import Data
from fewbits.guarded import Guarded
from fewbits.model import Model
from fewbits.planned import Plan
from fewbits.progress import Watch
from fewbits.record import read_json
from fewbits.sources import Source, source_of
from fewbits.words import Metric, Recipe, ReduceRange, Scales, SchemeName, Target


def quantize(
    model: Any,
    bits: int | None = None,
    calibration: Any = None,
    *,
    recipe: Recipe | None = None,
    act_bits: int = 8,
    scheme: SchemeName = "symmetric",
    granularity: str | None = None,
    scales: Scales = "f32",
    range: str = "auto",
    methods: str = "auto",
    rounding: str = "auto",
    reduce_range: ReduceRange = "auto",
    requantize: bool = False,
    target: Target = "onnx",
    plan: "Plan | str | os.PathLike[str] | None" = None,
    min_sqnr: float | Literal["auto"] | None = "auto",
    data: Any = None,
    max_drop: float | None = None,
    metric: Metric | None = None,
    example_input: Any = None,
    classes: Any = None,
    normalize: str | None = None,
) -> Model:
    """Makes a model smaller: its weights, and if wanted its activations, become integers.

    Parameters
    ----------
    model : estimator, path, bytes, onnx.ModelProto, torch.nn.Module or Model
        A fitted scikit-learn estimator or pipeline; an ONNX file or its bytes; a PyTorch module with
        ``example_input``; a fitted XGBoost or LightGBM model. Never a pickle.
    bits : int, 1 to 8, optional
        The width of weights, 8 if not given; for ``scheme="fixed-point"`` the digits after the binary
        point, 1 to 15. Small floats have their own.
    calibration : array-like, frame, or mapping of input names to arrays, optional
        Rows that the model sees in use, without labels: ranges of activations are measured on them.
    recipe : {"weights", "dynamic", "static", "auto"}, optional
        What becomes integers: weights; activations too, quantized as they come; or with scales from
        ``calibration``. ``"auto"`` leaves float what measures slower on this machine. By default
        ``"static"`` with ``calibration`` and ``"weights"`` without, or where ``scheme`` or ``scales``
        are for weights alone.
    act_bits : int, 2 to 8
        The width of activations in ``recipe="static"``.
    scheme : str
        Integers around zero (``"symmetric"``), with zero points (``"affine"``), or multiples of a power
        of two (``"fixed-point"``); small floats (``"fp8-e4m3"``, ``"fp8-e5m2"``, ``"fp4-e2m1"``), or
        those in blocks with scales of 8 bits (``"mxfp8-e4m3"``, ``"mxfp8-e5m2"``, ``"mxfp4"``,
        ``"nvfp4"``).
    granularity : str, optional
        What shares a scale: ``"tensor"``, ``"channel"`` (if not given) or ``"group=N"``.
    scales : {"f32", "f16", "u8"}
        How scales are stored where that saves bytes: as floats, or as integers with scales of their own.
    range : str
        How the range of an activation follows from the data: ``"minmax"``, ``"percentile=P"``,
        ``"mse"``, ``"entropy"``, or ``"auto"`` for what measures best.
    methods : str
        What is done beforehand to lose less, such as ``"equalization,bias-correction"``; ``"auto"``
        keeps what helps, ``"none"`` does nothing.
    rounding : str
        How weights become integers: ``"nearest"``; ``"gptq"`` and ``"adaround"``, which need
        ``calibration``; ``"hqq"``;
        ``"auto"`` takes what measures best for ``recipe="weights"`` below 8 bits.
    reduce_range : {"auto", "all", "none"}
        How 8-bit weights are kept from saturating the sums of CPUs with AVX2 and no VNNI: just the
        channels that could use fewer integers, every weight has 7 bits, or nothing is done.
    requantize : bool
        Whether weights that have integers of 8 bits already are brought to fewer bits as well.
    target : {"onnx", "onnxruntime", "openvino", "tensorrt", "tract", "generic"}
        The runtime that the file is for.
    plan : Plan or path, optional
        Do what this plan says instead.
    min_sqnr : float, "auto" or None
        What every float output must reach on ``calibration``, as signal to quantization noise in decibels:
        what costs most stays float. ``"auto"`` is 20 where activations become 8-bit integers by
        ``calibration``; below 8 bits and with ``plan`` it only warns. None measures nothing.
    data : tuple of array-likes ``(X, y)``, optional
        Labelled rows for ``max_drop``; ``y`` may be left out for ``metric="agreement"``.
    max_drop : float, optional
        How much worse the metric may be on ``data``, in its own unit: what costs most stays float until it
        holds.
    metric : str, optional
        That of ``max_drop``; by default the usual one for the labels.
    example_input : array-like or torch.Tensor, or a tuple of them
        For a PyTorch module: one call's input.
    classes : array-like, optional
        The labels of a model whose file does not tell them, in the order of its scores.
    normalize : str, optional
        How integer images of ``calibration`` become floats, such as ``"0.286,0.353"``:
        ``(x / 255 - mean) / std``.

    Returns
    -------
    Model

    Raises
    ------
    TypeError
        If ``model`` is nothing that can be quantized, a class, or a PyTorch module without
        ``example_input``; if ``bits`` or ``act_bits`` is no whole number; if ``calibration`` is sparse or
        holds no numbers; if ``plan`` is neither a plan nor a path.
    FileNotFoundError
        If ``model`` or ``plan`` is a path and there is no such file.
    ImportError
        If the converter of an estimator is not installed.
    ValueError
        If ``model`` is not fitted, no ONNX model, or a pickle; if an option is wrong, or needs one that is
        not given; if ``calibration`` or ``data`` has another number of columns, other column names, NaN,
        or no rows; if ``plan`` is not a plan, or one for another model; if nothing with a layer in integers
        stays within ``max_drop``.

    Warns
    -----
    UserWarning
        Of what the work went on without: outputs that stay below ``min_sqnr``, or a model without weights
        that can become integers.

    Notes
    -----
    Sources. ``rounding``: GPTQ (Frantar et al. 2022), HQQ (Badri and Shaji 2023), AdaRound (Nagel et al.
    2020). ``methods``: equalization and bias correction (Nagel et al. 2019), SmoothQuant (Xiao et al. 2023),
    AWQ (Lin et al. 2023). ``range``: percentile (McKinstry et al. 2019), MSE (Sung et al. 2015, Banner et
    al. 2019), entropy (Migacz 2017). ``scales="u8"``: double quantization (Dettmers et al. 2023).
    ``scheme``: mx is the OCP Microscaling format, nvfp4 NVIDIA's (2025). docs/methods.md tells what each
    does.

    Examples
    --------
    >>> import fewbits as fb
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression(max_iter=5000).fit(X[:1500], y[:1500])
    >>> q = fb.quantize(model, bits=4)
    >>> bool(q.score(X[1500:], y[1500:]) > model.score(X[1500:], y[1500:]) - 0.02)
    True
    """
    source = source_of(model, example_input, classes)
    seen = data_of(source, calibration, normalize)
    options = options_of(
        recipe,
        seen,
        bits,
        act_bits,
        scheme,
        granularity,
        range,
        methods,
        target,
        rounding,
        scales,
        reduce_range,
        requantize,
        min_sqnr,
    )
    labelled, metric = _labelled(source, data, max_drop, metric, normalize)
    text = None if plan is None else Plan.read(plan).to_json()
    with Watch() as watch:
        quantized, plan_text, guarded, notes = _fewbits.quantize(
            source.onnx, options, seen, text, watch, labelled, max_drop, metric
        )
        for note in notes:
            watch.warn(note)
    written = source.about.write(quantized)
    return Model(written, source.about, Plan(plan_text), read_json(Guarded, guarded))


def plan(
    model: Any,
    bits: int | None = None,
    calibration: Any = None,
    *,
    recipe: Recipe | None = None,
    act_bits: int = 8,
    scheme: SchemeName = "symmetric",
    granularity: str | None = None,
    scales: Scales = "f32",
    range: str = "auto",
    methods: str = "auto",
    rounding: str = "auto",
    reduce_range: ReduceRange = "auto",
    requantize: bool = False,
    target: Target = "onnx",
    min_sqnr: float | Literal["auto"] | None = "auto",
    example_input: Any = None,
    normalize: str | None = None,
) -> Plan:
    """What :func:`quantize` would make of every weight and activation, and why, to look at and edit.

    The parameters are those of :func:`quantize`.

    Returns
    -------
    Plan
        Prints as a table; ``fewbits.quantize(model, plan=plan)`` does what it says.

    Raises
    ------
    TypeError, FileNotFoundError, ImportError, ValueError
        As :func:`quantize`.

    Examples
    --------
    >>> import fewbits as fb
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_digits(return_X_y=True)
    >>> plan = fb.plan(LogisticRegression(max_iter=5000).fit(X, y), bits=4)
    >>> [str(tensor.scheme) for tensor in plan.tensors if tensor.scheme is not None]
    ['symmetric 4-bit, per channel']
    """
    source = source_of(model, example_input)
    data = data_of(source, calibration, normalize)
    options = options_of(
        recipe,
        data,
        bits,
        act_bits,
        scheme,
        granularity,
        range,
        methods,
        target,
        rounding,
        scales,
        reduce_range,
        requantize,
        min_sqnr,
    )
    with Watch() as watch:
        return Plan(_fewbits.plan(source.onnx, options, data, watch))


def data_of(source: Source, X: Any, normalize: str | None = None, y: Any = None) -> Data | None:
    """Rows checked against a model, with their labels if there are any; None for no rows."""
    return None if X is None else Model(source.onnx, source.about)._data(X, y, normalize)


def _labelled(
    source: Source, data: Any, max_drop: Any, metric: Metric | None, normalize: str | None
) -> tuple[Data | None, Metric | None]:
    """The rows of ``max_drop``, and the metric on them."""
    if (data is None) != (max_drop is None):
        raise ValueError("max_drop= is measured on data=, such as (X_test, y_test): give both")
    if data is None:
        if metric is not None:
            raise ValueError("metric= is that of max_drop=, which is not given")
        return None, None
    X, y = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if y is None and metric is None:
        metric = "agreement"
    return data_of(source, X, normalize, y), metric


def options_of(
    recipe: str | None,
    calibration: Data | None,
    bits: Any = None,
    act_bits: Any = 8,
    scheme: str = "symmetric",
    granularity: str | None = None,
    range: str = "auto",
    methods: str = "auto",
    target: str = "onnx",
    rounding: str = "auto",
    scales: str = "f32",
    reduce_range: str = "auto",
    requantize: bool = False,
    min_sqnr: Any = "auto",
) -> dict[str, object]:
    """How to quantize, as the native module reads it."""
    for name, width in (("bits", 8 if bits is None else bits), ("act_bits", act_bits)):
        if isinstance(width, bool) or not hasattr(width, "__index__"):
            most = 15 if name == "bits" and scheme == "fixed-point" else 8
            raise TypeError(f"{name} is a whole number from 1 to {most}, not {width!r}")
    with_data = calibration is not None
    if recipe is None:
        for_activations = scheme in ("symmetric", "affine", "fixed-point") and scales == "f32"
        recipe = "static" if with_data and for_activations else "weights"
    elif recipe == "static" and not with_data:
        raise ValueError('recipe="static" needs calibration=, rows such as X_train')
    return {
        "recipe": recipe,
        "bits": bits,
        "act_bits": act_bits,
        "scheme": scheme,
        "granularity": granularity,
        "scales": scales,
        "range": range,
        "methods": methods,
        "rounding": rounding,
        "reduce_range": reduce_range,
        "integer_weights": "requantized" if requantize else "kept",
        "target": target,
        "min_sqnr": "none" if min_sqnr is None else min_sqnr,
    }
