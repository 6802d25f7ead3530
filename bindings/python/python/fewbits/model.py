"""A model in memory: quantized, or read from a file."""

import os
import warnings
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fewbits import frames
from fewbits._fewbits import Data, OnnxModel, Predictor
from fewbits.about import About
from fewbits.guarded import Guarded
from fewbits.planned import Plan
from fewbits.record import read_json
from fewbits.results import Inspection
from fewbits.tags import tags_of_model

_PICKLES = {".pkl", ".pickle", ".joblib", ".pt", ".pth"}

_M = TypeVar("_M", bound=Callable[..., Any])


class _Available:
    """A method that a model has only if it gives what the method needs."""

    def __init__(self, method: Callable[..., Any], why_not: Callable[["Model"], str | None]) -> None:
        self._method = method
        self._why_not = why_not
        self.__doc__ = method.__doc__

    def __get__(self, model: "Model | None", owner: type) -> Any:
        if model is None:
            return self._method
        why = self._why_not(model)
        if why is not None:
            raise AttributeError(f"this model has no {self._method.__name__}: {why}")
        return self._method.__get__(model, owner)


def _available(why_not: Callable[["Model"], str | None]) -> Callable[[_M], _M]:
    def wrap(method: _M) -> _M:
        return _Available(method, why_not)  # type: ignore[return-value]

    return wrap


def _no_classes(model: "Model") -> str | None:
    return None if model._is_classifier else "it gives values, not classes; use predict"


def _no_probabilities(model: "Model") -> str | None:
    if model._is_classifier and model._about.scores == "decision":
        return "its scores are no probabilities; use decision_function"
    return _no_classes(model)


def _no_decision(model: "Model") -> str | None:
    if model._is_classifier and model._about.scores == "probability":
        return "its scores are probabilities; use predict_proba"
    return _no_classes(model)


class Model:
    """A model that predicts as the estimator did from which it came.

    Made by :func:`fewbits.quantize` and :func:`fewbits.load`. What it computes is the saved file:
    ``q.save(path)`` writes standard ONNX, without Python objects, that any ONNX runtime opens.

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
        The labels in the order of the columns of ``predict_proba``. Classifiers only.
    n_features_in_ : int
        The number of columns that it takes. Models of one matrix only.
    feature_names_in_ : ndarray of str
        The columns' names, where the estimator was fitted on a frame.
    file_bytes : int
        The bytes of its file.
    weight_bytes : int
        The bytes of the constants in it.
    plan : Plan or None
        What became of every weight and why; None for a model that was loaded.
    guarded : Guarded or None
        What :func:`fewbits.quantize` measured of its accuracy; None for a model that was loaded.
    """

    def __init__(
        self,
        onnx: OnnxModel,
        about: About | None = None,
        plan: Plan | None = None,
        guarded: Guarded | None = None,
    ) -> None:
        self.guarded = guarded
        self._onnx = onnx
        self._about = About.of(onnx) if about is None else about
        self._plan = plan
        self._inputs = onnx.inputs
        self._outputs = onnx.outputs
        self._gives_label = any(_is_label(spec) for spec in self._outputs)
        self._predictor = Predictor(onnx, self._about.nan)
        # Without names to check and labels to translate a call needs no more Python than this.
        self._direct = self._about.features is None and not self._translates

    # --- What it is -----------------------------------------------------------------------------

    @property
    def _is_classifier(self) -> bool:
        if self._about.values:
            return False
        scores = next((d for _, t, d in self._outputs if t in ("float", "double")), None)
        several = scores is not None and len(scores) == 2 and scores[1] not in (None, 1)
        return self._gives_label or self._about.classes is not None or several

    @property
    def _translates(self) -> bool:
        """Whether the file's labels are other than the estimator's."""
        classes = self._about.classes
        if classes is None:
            return False
        label = next((t for _, t, dims in self._outputs if _is_label((_, t, dims))), None)
        if label == "string":
            return classes.dtype.kind not in "UO"
        return label is None or classes.dtype != np.int64

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """The labels, of shape (classes,), in the order of the columns of ``predict_proba``.

        Raises
        ------
        AttributeError
            If the model gives values, or its file does not tell the classes.
        """
        if not self._is_classifier:
            raise AttributeError("this model has no classes_: it gives values")
        if self._about.classes is not None:
            return self._about.classes
        width = next((d[-1] for _, t, d in self._outputs if t == "float" and d), None)
        if width is None or self._gives_label:
            raise AttributeError(
                "this model's file does not tell its classes_; quantize the estimator itself, or give "
                "classes= to quantize"
            )
        return np.arange(width)

    @property
    def n_features_in_(self) -> int:
        """The number of columns that it takes.

        Raises
        ------
        AttributeError
            If it does not take one matrix.
        """
        features = self._features
        if features is None:
            raise AttributeError("this model has no n_features_in_: it does not take one matrix")
        return features

    @property
    def _features(self) -> int | None:
        if self._about.features is not None:
            return len(self._about.features)
        if len(self._inputs) != 1:
            return None
        dims = self._inputs[0][2]
        return dims[1] if dims is not None and len(dims) == 2 else None

    @property
    def feature_names_in_(self) -> npt.NDArray[Any]:
        """The columns' names, of shape (features,).

        Raises
        ------
        AttributeError
            If the estimator was not fitted on a frame.
        """
        if self._about.features is None:
            raise AttributeError(
                "this model has no feature_names_in_: it was not fitted on a frame"
            )
        return np.array(self._about.features, dtype=object)

    @property
    def file_bytes(self) -> int:
        """The bytes of its file, external data included."""
        return self._onnx.file_bytes

    @property
    def weight_bytes(self) -> int:
        """The bytes of the constants in its file."""
        return self._onnx.weight_bytes

    @property
    def plan(self) -> Plan | None:
        """What became of every weight and why; None for a model that was loaded."""
        return self._plan

    # --- What it predicts -----------------------------------------------------------------------

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Labels of a classifier, values of a regressor.

        Parameters
        ----------
        X : array-like of shape (rows, features), or of the shape that the model takes
            Numbers, or a pandas or polars frame. A C-contiguous float32 or float64 array is read
            where it lies.

        Returns
        -------
        ndarray of shape (rows,) or (rows, outputs)

        Raises
        ------
        TypeError
            If X is sparse, or of a type that holds no numbers.
        ValueError
            If X has another number of columns, other column names, NaN where the model takes none, strings,
            or no rows; if the model gives neither labels nor a row of scores each.

        Examples
        --------
        >>> import numpy as np, fewbits as fb
        >>> from sklearn.linear_model import LogisticRegression
        >>> model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> fb.quantize(model).predict(np.array([[0.5], [2.5]]))
        array([0, 1])
        """
        if self._direct:
            if self._about.values:
                answers = self._predictor.scores(X)
            else:
                answers = self._predictor.predict(X)
            if answers is not None:
                return answers
        return self._predict_checked(X)

    def _predict_checked(self, X: Any) -> npt.NDArray[Any]:
        data = self._data(X)
        if self._about.values:
            return self._predictor.scores_data(data)
        answers = self._predictor.predict_data(data)
        return self._translated(answers) if self._translates else answers

    def _translated(self, answers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        classes = self._about.classes
        assert classes is not None
        if not self._gives_label or (classes.dtype.kind in "UO" and answers.dtype.kind == "i"):
            if answers.size and not 0 <= answers.min() <= answers.max() < len(classes):
                raise ValueError(
                    f"the model gives class {answers.max()}, and {len(classes)} classes are known; give "
                    "as many with classes="
                )
            labels: npt.NDArray[Any] = classes[answers]
            return labels
        # The file's labels are integers or strings; the estimator's were booleans, say.
        known = classes.astype(answers.dtype)
        order = np.argsort(known)
        labels = classes[order[np.searchsorted(known, answers, sorter=order)]]
        return labels

    @_available(_no_probabilities)
    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """The probability of every class.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            As for :meth:`predict`.

        Returns
        -------
        ndarray of shape (rows, classes)
            In the order of ``classes_``; rows add up to 1.

        Raises
        ------
        AttributeError
            If the model is no classifier, or gives distances: then it has no such method.
        TypeError, ValueError
            As :meth:`predict`; a ValueError too if its scores are no probabilities.
        """
        if self._about.features is None:
            answers = self._predictor.probabilities(X)
            if answers is not None:
                return answers
        return self._predictor.probabilities_data(self._data(X))

    @_available(_no_decision)
    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:
        """The distance from the border between classes, for classifiers without probabilities.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            As for :meth:`predict`.

        Returns
        -------
        ndarray of shape (rows,) for two classes, else (rows, classes)

        Raises
        ------
        AttributeError
            If the model is no classifier, or gives probabilities: then it has no such method.
        TypeError, ValueError
            As :meth:`predict`.
        """
        scores = self._predictor.scores(X) if self._about.features is None else None
        if scores is None:
            scores = self._predictor.scores_data(self._data(X))
        two = self._about.classes is not None and len(self._about.classes) == 2
        return scores[:, -1] if two else scores

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy of a classifier, R² of a regressor.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            As for :meth:`predict`.
        y : array-like of shape (rows,) or (rows, outputs)
            The true labels or values.
        sample_weight : array-like of shape (rows,), optional

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            As :meth:`predict`; a ValueError too if ``y`` or ``sample_weight`` has another number of rows.
        ZeroDivisionError
            If the weights add up to 0.
        """
        truth = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
        guess = self.predict(X)
        if truth.shape[0] != guess.shape[0]:
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"[{guess.shape[0]}, {truth.shape[0]}]"
            )
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        if weights is not None and weights.shape != guess.shape[:1]:
            raise ValueError(
                f"sample_weight has shape {weights.shape}, not ({guess.shape[0]},): one number a row"
            )
        if self._is_classifier:
            return float(np.average(guess == truth.reshape(guess.shape), weights=weights))
        truth = truth.reshape(guess.shape).astype(np.float64)
        mean = np.average(truth, axis=0, weights=weights)
        error = np.average((truth - guess) ** 2, axis=0, weights=weights)
        spread = np.average((truth - mean) ** 2, axis=0, weights=weights)
        return float(np.mean(1 - error / spread))

    def run(self, inputs: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """One call with named inputs, as an ONNX runtime makes it.

        Parameters
        ----------
        inputs : mapping of str to array-like
            One for each of the model's inputs, of the shape that it declares. Floats are cast to the
            input's type; integers must have it.

        Returns
        -------
        dict of str to ndarray
            The model's outputs by name.

        Raises
        ------
        TypeError
            If ``inputs`` is no mapping, or an array is sparse or of a type that holds no numbers.
        ValueError
            If an input is missing, unknown, or of another shape or type; if an operator cannot be run.

        Examples
        --------
        >>> import numpy as np, fewbits as fb
        >>> from sklearn.linear_model import LogisticRegression
        >>> model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        >>> answers = fb.quantize(model).run({"X": np.array([[0.5], [2.5]])})
        >>> answers["label"], answers["probabilities"].shape
        (array([0, 1]), (2, 2))
        """
        if not isinstance(inputs, Mapping):
            raise TypeError(
                f"run takes a dictionary of the inputs {[name for name, _, _ in self._inputs]}, "
                f"not {type(inputs).__name__}"
            )
        return self._onnx.run({name: _array(value, name) for name, value in inputs.items()})

    def _data(self, X: Any, y: Any = None, normalize: str | None = None) -> Data:
        """Arrays for the model, checked."""
        labels = None if y is None else frames.labels(y)
        if isinstance(X, Mapping):
            arrays = {name: _array(value, name) for name, value in X.items()}
            return self._told_of_missing(Data(self._onnx, arrays, labels, normalize))
        if not self._inputs:
            raise ValueError("the model takes no input; read its outputs with run({})")
        name, _, dims = self._inputs[0]
        if len(self._inputs) > 1:
            if self._about.features is None or frames.column_names(X) is None:
                names = ", ".join(repr(name) for name, _, _ in self._inputs)
                raise ValueError(f"the model takes several inputs; give a dictionary with {names}")
            frames.check_names(X, self._about.features)
            columns = {name: _array(X[name], name) for name, _, _ in self._inputs}
            return self._told_of_missing(Data(self._onnx, columns, labels, normalize))
        if dims is not None and len(dims) == 2:
            # NaN is for the estimator to take or to refuse.
            frames.check_names(X, self._about.features)
            array = frames.matrix(X, self._features, self._about.nan)
            return Data(self._onnx, {name: array}, labels, normalize)
        data = Data(self._onnx, {name: frames.numbers(X)}, labels, normalize)
        return self._told_of_missing(data)

    def _told_of_missing(self, data: Data) -> Data:
        """The data; a warning if a few numbers are NaN, an error if many are."""
        warning = data.warning_of_missing(self._onnx)
        if warning is not None:
            warnings.warn(warning, stacklevel=4)
        return data

    # --- Where it is kept -----------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> int:
        """Writes the model as standard ONNX: whole or not at all.

        Parameters
        ----------
        path : path-like
            The file, usually ``.onnx``.
        force : bool
            Whether an existing file is replaced.

        Returns
        -------
        int
            The bytes written.

        Raises
        ------
        FileExistsError
            If there is a file and ``force`` is not set.
        ValueError
            If there is no such folder, or the path is one.
        OSError
            If it cannot be written.
        """
        return self._onnx.save(Path(path), force)

    def to_bytes(self) -> bytes:
        """The bytes of the file that :meth:`save` writes."""
        return self._onnx.to_bytes()

    def inspect(self) -> Inspection:
        """Tensors, widths, bytes and ranges.

        Raises
        ------
        ValueError
            If a weight cannot be read.
        """
        return read_json(Inspection, self._onnx.inspect())

    def __reduce__(self) -> tuple[Any, ...]:
        # For processes of joblib and for copies. The bytes are those of the ONNX file.
        return (load, (self.to_bytes(),))

    def __repr__(self) -> str:
        takes = ", ".join(f"{name} {_shape(dims)}" for name, _, dims in self._inputs)
        return f"<fewbits.Model: {self.file_bytes:,} bytes, takes {takes}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.inspect()._repr_html_()}"

    # --- What scikit-learn asks -----------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, **_: Any) -> "Model":
        """Refused: the model was trained before.

        ``fewbits.Quantized(estimator)`` is an estimator that can be fitted.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError(
            "a quantized model cannot be fitted; fit the estimator and quantize it again, or use "
            "fewbits.Quantized(estimator)"
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        return tags_of_model("classifier" if self._is_classifier else "regressor", self._about)


def load(source: "str | os.PathLike[str] | bytes | bytearray | memoryview") -> Model:
    """Opens a model that :meth:`Model.save`, or another tool, wrote.

    Parameters
    ----------
    source : path-like or bytes
        An ONNX file or its bytes. Nothing in it is executed.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no ONNX model; a folder or a pickle among others.
    TypeError
        If it is something else.
    """
    return Model(open_onnx(source))


def open_onnx(source: "str | os.PathLike[str] | bytes | bytearray | memoryview") -> OnnxModel:
    """An ONNX model of a path or of bytes; a pickle is refused without a look inside."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
        refuse_pickle(content[:2], "these bytes")
        return OnnxModel.from_bytes(content)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"a path or bytes of an ONNX file are needed, not {type(source).__name__}")
    path = Path(source)
    if path.is_file():
        with path.open("rb") as file:
            refuse_pickle(file.read(2), str(path), path.suffix)
    return OnnxModel.open(path)


def refuse_pickle(start: bytes, name: str, suffix: str = "") -> None:
    """Refuses what is a pickle by its first bytes, or by its name where those tell nothing."""
    # Protocol 2 and newer begin with 0x80 and their number; torch.save writes a zip of pickles.
    pickled = len(start) == 2 and start[0] == 0x80 and start[1] <= 5
    if pickled or suffix.lower() in _PICKLES:
        raise ValueError(
            f"{name} is a pickle, which can run any code when it is opened; fewbits does not open it. "
            "Where you trust it, load it yourself and give the estimator to fewbits.quantize; then "
            "save ONNX (Model.save), or the estimator with skops"
        )


def _is_label(spec: tuple[str, str | None, list[int | None] | None]) -> bool:
    _, data_type, dims = spec
    flat = dims is None or len(dims) <= 1 or (len(dims) == 2 and dims[1] == 1)
    return data_type in ("int64", "int32", "bool", "string") and flat


def _array(value: Any, name: str) -> Any:
    if hasattr(value, "toarray"):
        return frames.numbers(value, name)
    array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    if array.dtype.kind in "USO" and all(isinstance(item, str) for item in array.ravel()):
        return array.ravel().tolist(), list(array.shape)
    return frames.numbers(array, name)


def _shape(dims: list[int | None] | None) -> str:
    if dims is None:
        return "of any shape"
    return "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"
