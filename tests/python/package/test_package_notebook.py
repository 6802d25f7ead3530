"""The notebook's story in Python, and the examples that tell it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import HANGS_AFTER_SECONDS, ROOT
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import fewbits as fb

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def notebook() -> tuple[LogisticRegression, list[np.ndarray]]:
    X, y = make_classification(n_samples=1000, n_features=20, random_state=42)
    rows = train_test_split(X, y, test_size=0.2, random_state=42)
    return LogisticRegression().fit(rows[0], rows[2]), rows


def test_accuracy_and_bytes(notebook, tmp_path: Path) -> None:
    model, (_, X, _, y) = notebook
    fb.quantize(model, bits=8).save(tmp_path / "q.onnx")
    q = fb.load(tmp_path / "q.onnx")
    assert (model.score(X, y), q.score(X, y)) == (0.855, 0.855)
    assert q.file_bytes == (tmp_path / "q.onnx").stat().st_size
    # The float ONNX file has 560 bytes, the pickle 864.
    assert q.file_bytes < 560
    assert fb.inspect(model).file_bytes == 560
    assert (q.predict(X) == model.predict(X)).all()
    np.testing.assert_allclose(q.predict_proba(X), model.predict_proba(X), atol=0.02)
    np.testing.assert_allclose(q.predict_proba(X).sum(axis=1), 1, rtol=1e-12)


def test_the_file_is_standard_onnx(notebook, tmp_path: Path) -> None:
    model, (_, X, _, _) = notebook
    q = fb.quantize(model)
    q.save(tmp_path / "q.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "q.onnx")
    labels = session.run(None, {"X": X.astype(np.float32)})[0]
    assert (labels == q.predict(X)).all()
    assert (q.run({"X": X})["label"] == labels).all()


def test_compare_sweep_tune_and_plan(notebook) -> None:
    model, (X_train, X, _, y) = notebook
    comparison = fb.compare(model, fb.quantize(model), X, y, max_drop=0.005)
    assert comparison.accepted and comparison.metric == "accuracy"
    assert (comparison.a.metric, comparison.b.metric) == (0.855, 0.855)
    assert "0.8550" in repr(comparison) and "<table>" in comparison._repr_html_()
    assert not fb.compare(model, fb.quantize(model, 1), X, y, max_drop=0.01).accepted
    sweep = fb.sweep(model, X, y, bits=range(2, 9))
    accuracies = [0.865, 0.855, 0.87, 0.855, 0.855, 0.855, 0.855]
    assert [point.metric for point in sweep.points] == pytest.approx(accuracies, abs=1e-9)
    assert sweep.advised is not None and sweep.advised.bits == 4
    assert sweep.advised.metric == pytest.approx(0.87, abs=1e-9)
    assert "weight bytes" in repr(sweep) and sweep.verdict in repr(sweep)
    fixed = fb.sweep(model, X, y, bits=range(1, 16), scheme="fixed-point")
    assert [point.bits for point in fixed.points] == list(range(1, 16))
    with pytest.raises(ValueError, match="fixed-point"):
        fb.sweep(model, X, y, bits=[9])
    tuned = fb.tune(model, X_train, X, y, max_drop=0.005)
    assert tuned.model is not None and tuned.model.score(X, y) >= 0.85
    assert tuned.model.classes_.tolist() == [0, 1]
    plan = fb.plan(model)
    assert list(plan.kept_float) == ["intercept"]
    edited = plan.to_dict()
    edited["tensors"][0]["scheme"]["symmetric"]["bits"] = 2
    narrow = fb.quantize(model, plan=fb.Plan(json.dumps(edited)))
    assert narrow.score(X, y) == 0.865


def test_plot(notebook) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    model, (_, X, _, y) = notebook
    axes = fb.sweep(model, X, y, bits=[2, 8]).plot()
    assert axes.get_ylabel() == "accuracy"


def test_html_of_models_and_plans(notebook) -> None:
    q = fb.quantize(notebook[0])
    for shown in (q, q.plan, q.inspect()):
        assert "coef" in shown._repr_html_()
    assert "bytes" in repr(q)


@pytest.mark.parametrize("name", ["notebook.py", "gate_in_ci.py", "pytorch_cnn.py"])
def test_example(name: str, tmp_path: Path) -> None:
    if name == "pytorch_cnn.py":
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        env=os.environ | {"MPLBACKEND": "Agg", "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    if name == "notebook.py":
        assert "accuracy before: 0.855" in done.stdout and "accuracy after:  0.855" in done.stdout
        assert "9,296 bytes" in done.stdout and "864 bytes" in done.stdout


def test_a_gate_closes(tmp_path: Path) -> None:
    """No drop at all, and a gain asked for: the exit code of `fewbits compare --max-drop`."""
    command = [sys.executable, EXAMPLES / "gate_in_ci.py", "-0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER_SECONDS)
    assert done.returncode == 3, done.stderr


def test_the_ipynb_runs() -> None:
    """Its code cells in order, as a notebook runs them."""
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(c.get("outputs") for c in notebook["cells"])
    names: dict = {}
    for cell in ["import matplotlib; matplotlib.use('Agg')", *cells]:
        exec(compile(cell, "notebook.ipynb", "exec"), names)
    assert names["q"].score(names["X_test"], names["y_test"]) == 0.855
