"""`Quantized`: an estimator of scikit-learn's kind that fits another and quantizes it."""

from typing import Any

import numpy.typing as npt
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from fewbits.quantize import quantize


def _has(name: str) -> Any:
    """Whether the model, or before `fit` the estimator, has a method that a model can have too."""

    def check(self: "Quantized") -> bool:
        if hasattr(self, "model_"):
            return hasattr(self.model_, name)
        if name == "decision_function" and hasattr(self.estimator, "predict_proba"):
            return False
        return hasattr(self.estimator, name)

    return check


class Quantized(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Fits an estimator, quantizes it, and predicts with what it became.

    Works where scikit-learn's estimators do: in ``cross_val_score``, ``Pipeline``, ``GridSearchCV``
    (``bits`` and ``estimator__C`` are parameters like others) and ``clone``.

    Parameters
    ----------
    estimator : estimator
        A classifier or regressor, or a pipeline that ends in one, that :func:`fewbits.quantize` takes.
    bits : int, 1 to 8, optional
        The width of weights.
    scheme, granularity : str
        As for :func:`fewbits.quantize`.
    recipe : {"static", "weights", "dynamic"}
        What becomes integers. Calibrated on the rows that ``fit`` is given: columns of different
        scale need it.

    Attributes
    ----------
    estimator_ : estimator
        The fitted one.
    model_ : Model
        What it became.
    classes_ : ndarray of shape (classes,)
        Of classifiers.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if all are strings.

    Examples
    --------
    >>> import fewbits as fb
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_iris(return_X_y=True)
    >>> scores = cross_val_score(fb.Quantized(LogisticRegression(max_iter=1000), bits=8), X, y)
    >>> bool(scores.mean() > 0.9)
    True
    """

    def __init__(
        self,
        estimator: Any,
        bits: int | None = None,
        *,
        scheme: str = "symmetric",
        granularity: str | None = None,
        recipe: str = "static",
    ) -> None:
        self.estimator = estimator
        self.bits = bits
        self.scheme = scheme
        self.granularity = granularity
        self.recipe = recipe

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> "Quantized":
        """Fits a clone of the estimator and quantizes it.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        y : array-like of shape (rows,) or (rows, outputs)
        **fit_params
            Passed on to the estimator.

        Returns
        -------
        Quantized
            Itself.

        Raises
        ------
        TypeError
            If ``X`` is sparse, or the estimator is none that :func:`fewbits.quantize` takes.
        ImportError
            If the converter of the estimator is not installed.
        ValueError
            If the estimator refuses the rows, ``y`` holds one class, or an option is wrong.
        """
        if hasattr(X, "toarray"):
            raise TypeError("Sparse data was passed, but dense data is required. Use X.toarray().")
        self.estimator_ = clone(self.estimator).fit(X, y, **fit_params)
        if len(getattr(self.estimator_, "classes_", (0, 1))) < 2:
            raise ValueError("y holds 1 class; a classifier is quantized for two or more")
        self.model_ = quantize(
            self.estimator_,
            self.bits,
            X,
            recipe=self.recipe,  # type: ignore[arg-type]
            scheme=self.scheme,  # type: ignore[arg-type]
            granularity=self.granularity,
        )
        return self

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """The labels, of shape (classes,).

        Raises
        ------
        AttributeError
            If it is no classifier, or was not fitted.
        """
        return self.estimator_.classes_  # type: ignore[no-any-return]

    @property
    def n_features_in_(self) -> int:
        """The columns seen in ``fit``.

        Raises
        ------
        AttributeError
            If it was not fitted.
        """
        return self.estimator_.n_features_in_  # type: ignore[no-any-return]

    @property
    def feature_names_in_(self) -> npt.NDArray[Any]:
        """Their names, of shape (n_features_in_,).

        Raises
        ------
        AttributeError
            If it was not fitted on a frame.
        """
        return self.estimator_.feature_names_in_  # type: ignore[no-any-return]

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """As :meth:`Model.predict`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before ``fit``.
        TypeError, ValueError
            As :meth:`Model.predict`.
        """
        check_is_fitted(self)
        return self.model_.predict(X)

    @available_if(_has("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """As :meth:`Model.predict_proba`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before ``fit``.
        TypeError, ValueError
            As :meth:`Model.predict`.
        """
        check_is_fitted(self)
        return self.model_.predict_proba(X)

    @available_if(_has("decision_function"))  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> npt.NDArray[Any]:
        """As :meth:`Model.decision_function`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before ``fit``.
        TypeError, ValueError
            As :meth:`Model.predict`.
        """
        check_is_fitted(self)
        return self.model_.decision_function(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """As :meth:`Model.score`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before ``fit``.
        TypeError, ValueError
            As :meth:`Model.predict`.
        """
        check_is_fitted(self)
        return self.model_.score(X, y, sample_weight)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags = inner.input_tags
        # ONNX has no sparse matrices.
        tags.input_tags.sparse = False
        if tags.classifier_tags is not None:
            tags.classifier_tags.multi_label = False
        return tags
