"""The accuracy guard from Python."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import fewbits as fb

X, Y = load_digits(return_X_y=True)
TRAIN, TEST = slice(0, 1200), slice(1200, None)


@pytest.fixture(scope="module")
def model() -> MLPClassifier:
    return MLPClassifier((64,), max_iter=60, random_state=0).fit(X[TRAIN], Y[TRAIN])


@pytest.fixture(scope="module")
def poor(model: MLPClassifier) -> MLPClassifier:
    """The same answers, but a pixel that is always 0 takes the scale of every hidden unit."""
    poor = MLPClassifier((64,), max_iter=1, random_state=0).fit(X[TRAIN], Y[TRAIN])
    poor.coefs_ = [weight.copy() for weight in model.coefs_]
    poor.intercepts_ = model.intercepts_
    assert not X[:, 0].any()
    poor.coefs_[0][0] = 1e5
    return poor


def test_outputs_are_measured_by_name(model: MLPClassifier) -> None:
    q = fb.quantize(model, calibration=X[TRAIN])
    assert q.guarded is not None
    assert min(q.guarded.output_sqnr_db.values()) >= 20
    assert q.guarded.left_float == [] and q.guarded.warnings == []
    free = fb.quantize(model, calibration=X[TRAIN], min_sqnr=None)
    assert free.guarded is not None and free.guarded.output_sqnr_db is None


def test_a_poor_layer_stays_float(poor: MLPClassifier) -> None:
    # Its weights are most of the model's: at least half of them stay integers.
    with pytest.warns(UserWarning, match="less than half"):
        fb.quantize(poor, calibration=X[TRAIN], methods="none", min_sqnr=25.0)
    held = fb.quantize(poor, calibration=X[TRAIN], methods="none", data=(X[TEST], Y[TEST]), max_drop=0.01)
    assert held.guarded is not None and held.guarded.drop.drop <= 0.01
    assert held.score(X[TEST], Y[TEST]) >= poor.score(X[TEST], Y[TEST]) - 0.011
    assert [left.tensors for left in held.guarded.left_float]


def test_nothing_holds(model: MLPClassifier) -> None:
    with pytest.raises(ValueError, match="nothing is written"):
        fb.quantize(model, data=(X[TEST], Y[TEST]), max_drop=-1.0)
    with pytest.raises(ValueError, match="give both"):
        fb.quantize(model, max_drop=0.1)
    with pytest.raises(ValueError, match="min_sqnr"):
        fb.quantize(model, min_sqnr=20.0)
    q = fb.quantize(model, data=X[TEST], max_drop=np.float64(0.02))
    assert q.guarded is not None and q.guarded.drop.metric == "agreement"
