"""Small floats and narrow scales from Python."""

import ml_dtypes
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import fewbits as fb

X, Y = load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def model() -> MLPClassifier:
    return MLPClassifier((64,), max_iter=60, random_state=0).fit(X[:1200], Y[:1200])


@pytest.mark.parametrize("scheme", ["fp8-e4m3", "fp8-e5m2", "mxfp8-e4m3", "mxfp4", "nvfp4"])
def test_small_floats(model: MLPClassifier, scheme: str) -> None:
    # Data does not make them a recipe for activations, which they do not go with.
    q = fb.quantize(model, calibration=X[:1200], scheme=scheme)  # type: ignore[arg-type]
    most = 0.01 if "fp8" in scheme else 0.05
    assert q.score(X[1200:], Y[1200:]) > model.score(X[1200:], Y[1200:]) - most
    assert scheme in str(q.plan)


def test_the_bits_are_those_of_ml_dtypes(model: MLPClassifier) -> None:
    q = fb.quantize(model, scheme="fp8-e4m3", granularity="tensor")
    weights = [np.float32(w) for w in model.coefs_]
    scales = [np.abs(w).max() / np.float32(448) for w in weights]
    rounded = [
        (w / s).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * s
        for w, s in zip(weights, scales, strict=True)
    ]
    hidden = np.maximum(X[:50] @ rounded[0] + model.intercepts_[0], 0)
    scores = np.exp(hidden @ rounded[1] + model.intercepts_[1])
    expected = scores / scores.sum(1, keepdims=True)
    np.testing.assert_allclose(q.predict_proba(X[:50]), expected, atol=1e-4)


def test_narrow_scales(model: MLPClassifier, tmp_path) -> None:
    sizes = []
    for scales in ("f32", "f16", "u8"):
        q = fb.quantize(model, 4, granularity="group=8", scales=scales)  # type: ignore[arg-type]
        q.save(tmp_path / f"{scales}.onnx")
        sizes.append((tmp_path / f"{scales}.onnx").stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]
    swept = fb.sweep(model, X[1200:], Y[1200:], bits=[4], granularity="group=8", scales="u8")
    assert swept.points[0].file_bytes <= sizes[2]
