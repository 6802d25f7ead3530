"""Fitted scikit-learn estimators and pipelines, through skl2onnx."""

import copy
from typing import Any

import numpy as np

from fewbits._fewbits import OnnxModel
from fewbits.about import About
from fewbits.double_head import scaled_before, scaling_of

# The newest whose files every runtime of the last years opens.
OPSET = 17


def convert(estimator: Any) -> tuple[OnnxModel, About]:
    """The estimator as ONNX, and its classes and column names.

    Raises
    ------
    ImportError
        If skl2onnx is missing.
    sklearn.exceptions.NotFittedError
        If the estimator was not fitted.
    TypeError
        If skl2onnx does not know it, or it predicts nothing.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    if not hasattr(estimator, "predict"):
        raise TypeError(
            f"{type(estimator).__name__} predicts nothing; give a classifier, a regressor or a pipeline "
            "that ends in one"
        )
    onnx = _scaled_in_64_bits(estimator) or _to_onnx(estimator)
    _label_by_scores(onnx.graph)
    return OnnxModel.from_bytes(onnx.SerializeToString()), about(estimator)


def about(estimator: Any) -> About:
    """What the file must tell beside the graph."""
    from sklearn.utils import get_tags

    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list):
        raise TypeError("classifiers of several outputs are not supported; quantize one an output")
    names = getattr(estimator, "feature_names_in_", None)
    return About(
        classes=None if classes is None else np.asarray(classes),
        features=None if names is None else tuple(map(str, names)),
        scores="probability" if hasattr(estimator, "predict_proba") else "decision",
        values=classes is None and _outputs(estimator) > 1,
        nan=bool(get_tags(_first_step(estimator)).input_tags.allow_nan),
    )


def _first_step(estimator: Any) -> Any:
    """What sees the data first: a pipeline's own tags do not tell of its imputer."""
    while getattr(estimator, "steps", None):
        estimator = estimator.steps[0][1]
    return estimator


def _outputs(estimator: Any) -> int:
    """The columns that a regressor predicts."""
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    coefficients = getattr(last, "coef_", None)
    if coefficients is not None and np.ndim(coefficients) == 2:
        return int(np.shape(coefficients)[0])
    return int(getattr(last, "n_outputs_", 1))


def _scaled_in_64_bits(pipeline: Any) -> Any:
    """A pipeline that begins with a scaler of columns far from zero; None for all else."""
    steps = getattr(pipeline, "steps", None)
    if not steps or len(steps) < 2:
        return None
    scaling = scaling_of(steps[0][1])
    if scaling is None or not scaling.is_needed:
        return None
    rest = copy.copy(pipeline)
    rest.steps = steps[1:]
    return scaled_before(_to_onnx(rest), scaling)


def _to_onnx(estimator: Any) -> Any:
    try:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise ImportError(
            "scikit-learn estimators are converted by skl2onnx, which is missing: "
            "pip install fewbits[sklearn]"
        ) from error
    _refuse_strings(estimator)
    inputs = [("X", FloatTensorType([None, int(estimator.n_features_in_)]))]
    by_place = _columns_by_place(estimator)
    tries: list[Any] = [None]
    if hasattr(estimator, "classes_"):
        tries.insert(0, {id(by_place): {"zipmap": False}})
    for options in tries:
        try:
            return to_onnx(by_place, initial_types=inputs, options=options, target_opset=OPSET)
        except Exception as error:
            # Classifiers without probabilities have no such option.
            if options is not None and isinstance(error, NameError) and "zipmap" in str(error):
                continue
            # A converter fails in many ways at what it does not know.
            raise TypeError(
                f"{type(estimator).__name__} cannot be converted to ONNX by skl2onnx: "
                f"{_first_line(error)}"
            ) from error
    raise AssertionError("the last try has no options")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _refuse_strings(estimator: Any) -> None:
    """Refuses encoders of strings, which the executor does not take as inputs."""
    parts = [step for _, step in getattr(estimator, "steps", [])]
    parts += [part for _, part, _ in getattr(estimator, "transformers_", [])]
    for part in parts:
        _refuse_strings(part)
    for categories in getattr(estimator, "categories_", []):
        found = [category for category in categories if isinstance(category, str)]
        if found:
            raise TypeError(
                f"{type(estimator).__name__} encodes strings such as {found[0]!r}, which cannot be "
                "inputs of a quantized model; encode them as numbers before, with an OrdinalEncoder "
                "outside of the pipeline, and fit it on those"
            )


def _columns_by_place(estimator: Any) -> Any:
    """The estimator, with the columns that its ColumnTransformers name told by their places.

    The file then takes one matrix, as the estimator does.
    """
    names = getattr(estimator, "feature_names_in_", None)
    steps = getattr(estimator, "steps", None)
    if names is None or not steps:
        return estimator
    from sklearn.compose import ColumnTransformer

    first = steps[0][1]
    if not isinstance(first, ColumnTransformer):
        return estimator
    place = {name: i for i, name in enumerate(names)}
    estimator = copy.deepcopy(estimator)
    first = estimator.steps[0][1]
    first.transformers_ = [
        (name, transformer, _places(columns, place))
        for name, transformer, columns in first.transformers_
    ]
    return estimator


def _places(columns: Any, place: dict[str, int]) -> Any:
    if isinstance(columns, str):
        return [place[columns]]
    if isinstance(columns, (list, np.ndarray)) or hasattr(columns, "tolist"):
        return [place[column] if isinstance(column, str) else column for column in columns]
    return columns


def _label_by_scores(graph: Any) -> None:
    """Takes labels from scores where skl2onnx takes them from one logistic curve a class.

    Far from the border curves are 1 in 32 bits for several classes at once. They grow with the
    scores, and all of a row are divided by one sum, so the largest score is the same class.
    """
    maker = {name: node for node in graph.node for name in node.output}
    for label in graph.node:
        chain = ["ArgMax", "Div", "Add", "Reciprocal", "Add", "Exp", "Mul"]
        node = label
        for op, following in zip(chain, [*chain[1:], None], strict=True):
            if node is None or node.op_type != op:
                break
            if following is None:
                label.input[0] = node.input[0]
                break
            node = maker.get(node.input[0])
