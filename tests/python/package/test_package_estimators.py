"""Ten families of scikit-learn estimators, and what scikit-learn asks of an estimator."""

import pickle
import warnings

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from models import FIXTURES
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits, make_regression
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import check_estimator

import fewbits as fb

DIGITS = load_digits(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)
MADE = make_regression(1000, 100, n_informative=50, noise=5, random_state=0)
MADE = MADE[0], MADE[1] / MADE[1].std()


def mixed() -> tuple[np.ndarray, np.ndarray]:
    """Numbers of different scale beside categories."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(1000, 3)) * [1, 10, 100] + [0, 5, 1000]
    X = np.c_[numbers, rng.integers(0, 40, 1000), rng.integers(0, 30, 1000)]
    y = X[:, 0] + (X[:, 3] % 4 == 2) * 2 - (X[:, 4] % 3 == 1) * 2 + X[:, 1] / 10 > 0.5
    return X, y.astype(int)


def encoder(numbers: list, categories: list) -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("numbers", StandardScaler(), numbers),
            ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
        ]
    )


FAMILIES = {
    "logistic, two classes": (LogisticRegression(max_iter=5000), CANCER),
    "logistic, ten classes": (LogisticRegression(max_iter=5000), DIGITS),
    "ridge classifier": (RidgeClassifier(), DIGITS),
    "ridge classifier, two classes": (RidgeClassifier(), CANCER),
    "SGD, hinge": (SGDClassifier(random_state=0), DIGITS),
    "SGD, log loss": (SGDClassifier(loss="log_loss", random_state=0), DIGITS),
    "linear SVC": (LinearSVC(random_state=0), DIGITS),
    "MLP classifier": (MLPClassifier((64,), max_iter=300, random_state=0), DIGITS),
    "MLP regressor": (
        MLPRegressor(hidden_layer_sizes=(64,), max_iter=800, random_state=0),
        MADE,
    ),
    "ridge": (Ridge(), MADE),
    "ridge, two outputs": (Ridge(), (MADE[0], np.c_[MADE[1], MADE[0][:, 0]])),
    "lasso": (Lasso(alpha=0.01), MADE),
    "scaler": (make_pipeline(StandardScaler(), LogisticRegression()), CANCER),
    "one-hot encoder": (make_pipeline(encoder([0, 1, 2], [3, 4]), LogisticRegression()), mixed()),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_family(name: str) -> None:
    """Scores within 0.01 on held-out rows, answers of the shape and type of the estimator's."""
    estimator, (X, y) = FAMILIES[name]
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    estimator.fit(X_train, y_train)
    q = fb.quantize(estimator, bits=8, calibration=X_train)
    assert len(q.plan.kept_float) < len(q.plan.tensors), q.plan
    assert abs(q.score(X_test, y_test) - estimator.score(X_test, y_test)) <= 0.01
    expected, given = estimator.predict(X_test), q.predict(X_test)
    assert given.shape == expected.shape and given.dtype.kind == expected.dtype.kind
    assert q.n_features_in_ == X.shape[1]
    for method in ("predict_proba", "decision_function"):
        if hasattr(q, method):
            scores = getattr(q, method)(X_test)
            assert scores.shape == getattr(estimator, method)(X_test).shape
    if hasattr(estimator, "classes_"):
        assert (q.classes_ == estimator.classes_).all()
        assert hasattr(q, "predict_proba") == hasattr(estimator, "predict_proba")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_weights_keep_clear_of_saturated_sums() -> None:
    X, y = load_digits(return_X_y=True)
    estimator = MLPClassifier((32,), random_state=0, max_iter=30).fit(X, y)
    reduced = {
        which: fb.plan(estimator, calibration=X[:200], reduce_range=which).reduced_range
        for which in ("auto", "all", "none")
    }
    assert reduced["none"] == {} and reduced["auto"].keys() <= reduced["all"].keys()
    assert sum(map(len, reduced["all"].values())) >= sum(map(len, reduced["auto"].values())) > 0
    q = fb.quantize(estimator, calibration=X[:200])
    assert q.plan.reduced_range == reduced["auto"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_float_file_answers_as_the_estimator(name: str) -> None:
    """Labels are not changed by the conversion and the cast of float64 inputs."""
    estimator, (X, y) = FAMILIES[name]
    estimator.fit(X, y)
    from fewbits.sources import source_of

    source = source_of(estimator)
    float_model = fb.Model(source.onnx, source.about)
    if hasattr(estimator, "classes_"):
        assert (float_model.predict(X) == estimator.predict(X)).all()
    else:
        np.testing.assert_allclose(float_model.predict(X), estimator.predict(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), Ridge(), LinearSVC(), RidgeClassifier()], ids=repr
)
def test_check_estimator(estimator) -> None:
    results = check_estimator(fb.Quantized(estimator), on_fail=None)
    failed = [r for r in results if r["status"] == "failed"]
    assert not failed, [(r["check_name"], r["exception"]) for r in failed]
    assert sum(r["status"] == "passed" for r in results) > 40


def test_quantized_in_cross_validation_a_pipeline_and_a_search() -> None:
    X, y = CANCER
    quantized = fb.Quantized(LogisticRegression(), bits=8)
    pipeline = make_pipeline(StandardScaler(), quantized)
    float_pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    scores, float_scores = (cross_val_score(p, X, y, n_jobs=2) for p in (pipeline, float_pipeline))
    assert abs(scores.mean() - float_scores.mean()) <= 0.01
    search = GridSearchCV(pipeline, {"quantized__bits": [2, 8], "quantized__estimator__C": [1]})
    assert search.fit(X, y).best_params_["quantized__bits"] in (2, 8)
    assert clone(quantized).get_params()["bits"] == 8


def test_a_quantized_model_ends_a_pipeline() -> None:
    X, y = CANCER
    scaler = StandardScaler().fit(X)
    q = fb.quantize(LogisticRegression().fit(scaler.transform(X), y))
    from sklearn.pipeline import Pipeline

    pipeline = Pipeline([("scaler", scaler), ("model", q)])
    assert pipeline.score(X, y) > 0.97
    with pytest.raises(TypeError, match="Quantized"):
        q.fit(X, y)


@pytest.mark.parametrize(
    "labels",
    [["no", "yes"], [False, True], [0.0, 1.0], [-3, 7], np.array([1, 2], dtype=np.int8)],
    ids=str,
)
def test_labels_of_every_type(labels, tmp_path) -> None:
    X, y = CANCER
    y = np.asarray(labels)[y]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    fb.quantize(model).save(tmp_path / "q.onnx")
    q = fb.load(tmp_path / "q.onnx")
    assert q.predict(X).dtype.kind == model.predict(X).dtype.kind
    assert (q.predict(X) == model.predict(X)).mean() > 0.99
    assert q.score(X, y) > 0.97
    assert fb.compare(model, q, X, y).metric == "accuracy"


def test_copies_and_other_processes() -> None:
    X, y = CANCER
    q = fb.quantize(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y))
    again = pickle.loads(pickle.dumps(q))
    assert again.to_bytes() == q.to_bytes()
    assert (again.predict(X) == q.predict(X)).all()


def test_columns_named_in_a_transformer() -> None:
    X, y = mixed()
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = make_pipeline(encoder(["a", "b", "c"], ["d", "e"]), LogisticRegression()).fit(frame, y)
    q = fb.quantize(model)
    assert (q.predict(frame) == model.predict(frame)).all()
    assert q.feature_names_in_.tolist() == list("abcde")


@pytest.mark.parametrize(
    "scaler", [StandardScaler(), MinMaxScaler((-1, 2)), RobustScaler()], ids=repr
)
def test_columns_far_from_zero_are_scaled_in_64_bits(scaler, tmp_path) -> None:
    """Time stamps: float32 holds them to 128 seconds only."""
    X, y = CANCER
    far = X.copy()
    far[:, 0] = 1.7e9 + (X[:, 0] - X[:, 0].mean()) * 10
    model = make_pipeline(scaler, LogisticRegression()).fit(far, y)
    from fewbits.sources import source_of

    source = source_of(model)
    float_model = fb.Model(source.onnx, source.about)
    assert (float_model.predict(far) == model.predict(far)).all()
    np.testing.assert_allclose(float_model.predict_proba(far), model.predict_proba(far), atol=1e-5)
    fb.quantize(model, calibration=far).save(tmp_path / "q.onnx")
    q = fb.load(tmp_path / "q.onnx")
    assert abs(q.score(far, y) - model.score(far, y)) <= 0.01
    session = onnxruntime.InferenceSession(tmp_path / "q.onnx")
    labels = session.run(["label"], {"X": far})[0]
    assert (labels == q.predict(far)).mean() > 0.99
    assert fb.compare(model, q, far, y).agreement > 0.98


def test_weights_of_raw_columns_need_calibration() -> None:
    """What the documentation says: the scale of columns is seen in data only."""
    X, y = CANCER
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    model = LinearSVC(random_state=0).fit(X_train, y_train)
    calibrated = fb.quantize(model, calibration=X_train).score(X_test, y_test)
    assert abs(calibrated - model.score(X_test, y_test)) <= 0.01
    assert calibrated > fb.quantize(model).score(X_test, y_test)


def test_linear_regression_of_many_widths() -> None:
    X, y = MADE
    model = LinearRegression().fit(X, y)
    sweep = fb.sweep(model, X, y, bits=[4, 8])
    assert sweep.metric == "r2" and sweep.points[-1].metric > 0.99


def test_a_pipeline_that_imputes_takes_nan() -> None:
    X, y = CANCER
    holes = X.copy()
    holes[::7, 3] = np.nan
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(holes, y)
    q = fb.load(fb.quantize(model, calibration=holes).to_bytes())
    assert abs(q.score(holes, y) - model.score(holes, y)) <= 0.01


def test_a_search_and_a_calibrated_classifier() -> None:
    X, y = DIGITS
    for model in (
        GridSearchCV(LogisticRegression(max_iter=300), {"C": [1]}, cv=2),
        CalibratedClassifierCV(LogisticRegression(max_iter=300), cv=2),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X, y)
        assert abs(fb.quantize(model, 8, X).score(X, y) - model.score(X, y)) <= 0.01


def test_labels_given_to_a_file_of_another_tool() -> None:
    X = np.load(FIXTURES / "digits" / "test.npz")["X"]
    names = np.array([f"digit {i}" for i in range(10)])
    plain = fb.quantize(FIXTURES / "digits" / "mlp.onnx")
    q = fb.quantize(FIXTURES / "digits" / "mlp.onnx", classes=names)
    assert (q.predict(X) == names[plain.predict(X)]).all()
    few = fb.quantize(FIXTURES / "digits" / "mlp.onnx", classes=names[:3])
    with pytest.raises(ValueError, match="classes="):
        few.predict(X)
