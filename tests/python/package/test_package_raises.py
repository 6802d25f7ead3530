"""What fails says so in its documentation, with the exception that really arises."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from models import FIXTURES
from scipy import sparse
from sklearn.linear_model import LogisticRegression

import fewbits as fb

MODEL = FIXTURES / "digits" / "mlp.onnx"
# Another input, another shape.
IMAGES = FIXTURES / "digits_cnn" / "model.onnx"
ROWS = np.load(FIXTURES / "digits" / "test.npz")
X, Y = ROWS["X"], ROWS["y"]
DATES = np.zeros((2, 64), "M8[s]")
HOLES = np.full((3, 64), np.nan)

# What cannot fail, whatever it is given, or is what scikit-learn defines.
NEVER_FAIL = {
    "to_dict", "to_json", "to_bytes", "kept_float", "reduced_range", "accepted", "file_bytes", "weight_bytes",
    "get_params", "set_params", "get_metadata_routing", "set_score_request",
}  # fmt: skip
NEVER_FAIL |= {"Model.plan"}


def documented() -> Iterator[tuple[str, object]]:
    """Every function of the package, and every method and property of its classes."""
    for name in fb.__all__:
        thing = getattr(fb, name)
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            for inner, member in inspect.getmembers(thing):
                if not inner.startswith("_") and (callable(member) or isinstance(member, property)):
                    yield f"{name}.{inner}", member


DOCUMENTED = dict(documented())


def raises(thing: object) -> set[str]:
    """The exceptions that a docstring names."""
    lines = inspect.cleandoc(thing.__doc__ or "").splitlines()
    for at, line in enumerate(lines):
        if line == "Raises" and lines[at + 1].startswith("---"):
            body = lines[at + 2 :]
            end = next((i for i, l in enumerate(body) if l.startswith("---")), len(body) + 1)
            named = [line for line in body[: end - 1] if line and not line.startswith(" ")]
            return {name.split(".")[-1] for line in named for name in line.split(", ")}
    return set()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_what_can_fail_says_how(name: str) -> None:
    thing = DOCUMENTED[name]
    assert thing.__doc__, "no documentation"
    if not {name, name.split(".")[-1]} & NEVER_FAIL:
        assert raises(thing), "its documentation does not say what it raises"


def test_what_never_fails_is_there() -> None:
    names = set(DOCUMENTED) | {name.split(".")[-1] for name in DOCUMENTED}
    assert NEVER_FAIL <= names, NEVER_FAIL - names


@pytest.fixture(scope="module")
def q() -> fb.Model:
    return fb.quantize(MODEL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "there").write_bytes(b"abc")
    return tmp_path


# The function, the call, and what arises.
CALLS: list[tuple[str, Callable[[fb.Model, Path], object], type[Exception]]] = [
    ("compare", lambda q, _: fb.compare(5, q, X, Y), TypeError),
    ("compare", lambda q, _: fb.compare("no.onnx", q, X, Y), FileNotFoundError),
    ("compare", lambda q, f: fb.compare(q, f / "there", X, Y), ValueError),
    ("compare", lambda q, _: fb.compare(q, IMAGES, X, Y), ValueError),
    ("compare", lambda q, _: fb.compare(q, q, None), TypeError),
    ("compare", lambda q, _: fb.compare(q, q, sparse.csr_matrix(X), Y), TypeError),
    ("compare", lambda q, _: fb.compare(q, q, DATES, Y[:2]), TypeError),
    ("compare", lambda q, _: fb.compare(q, q, X[:, :3], Y), ValueError),
    ("compare", lambda q, _: fb.compare(q, q, HOLES, Y[:3]), ValueError),
    ("compare", lambda q, _: fb.compare(q, q, X[:0], Y[:0]), ValueError),
    ("compare", lambda q, _: fb.compare(q, q, X, Y[:-1]), ValueError),
    ("compare", lambda q, _: fb.compare(q, q, X, Y, metric="r2"), ValueError),
    ("compare", lambda q, _: fb.compare(q, q, X, Y, threads=-1), ValueError),
    ("compare", lambda q, _: fb.compare(LogisticRegression(), q, X, Y), ValueError),
    ("sweep", lambda q, _: fb.sweep(5, X), TypeError),
    ("sweep", lambda q, _: fb.sweep("no.onnx", X), FileNotFoundError),
    ("sweep", lambda q, _: fb.sweep(q, X, Y, bits=[]), ValueError),
    ("sweep", lambda q, _: fb.sweep(q, X, Y, bits=[9]), ValueError),
    ("sweep", lambda q, _: fb.sweep(q, X, Y, bits=None), TypeError),
    ("sweep", lambda q, _: fb.sweep(q, X, Y, recipe="static"), ValueError),
    ("sweep", lambda q, f: fb.sweep(q, X, Y, bits=[4], folder=f / "there"), OSError),
    (
        "sweep",
        lambda q, f: [fb.sweep(MODEL, X[:9], Y[:9], bits=[4], folder=f / "w") for _ in range(2)],
        FileExistsError,
    ),
    ("tune", lambda q, _: fb.tune(q, None, X, Y, max_drop=0.1), TypeError),
    ("tune", lambda q, f: fb.tune(q, X, X, Y, max_drop=0.1, out=f / "there"), FileExistsError),
    ("tune", lambda q, f: fb.tune(q, X, X, Y, max_drop=0.1, out=f / "no" / "q"), ValueError),
    ("tune", lambda q, f: fb.tune(MODEL, X, X, Y, max_drop=0.1, resume=f / "there"), ValueError),
    ("tune", lambda q, _: fb.tune(q, X, X, Y, max_drop=0.1, recipe="auto"), ValueError),
    ("inspect", lambda q, _: fb.inspect(5), TypeError),
    ("inspect", lambda q, _: fb.inspect("no.onnx"), FileNotFoundError),
    ("inspect", lambda q, f: fb.inspect(f), ValueError),
    ("plan", lambda q, _: fb.plan(5), TypeError),
    ("plan", lambda q, _: fb.plan("no.onnx"), FileNotFoundError),
    ("plan", lambda q, _: fb.plan(q, bits=9), ValueError),
    ("plan", lambda q, _: fb.plan(q, bits="8"), TypeError),
    ("quantize", lambda q, _: fb.quantize(LogisticRegression), TypeError),
    ("quantize", lambda q, _: fb.quantize(MODEL, calibration=sparse.csr_matrix(X)), TypeError),
    ("quantize", lambda q, _: fb.quantize(MODEL, calibration=X, normalize="z"), ValueError),
    ("quantize", lambda q, _: fb.quantize(MODEL, plan="no.json"), FileNotFoundError),
    ("quantize", lambda q, _: fb.quantize(IMAGES, plan=fb.plan(MODEL)), ValueError),
    ("load", lambda q, _: fb.load("no.onnx"), FileNotFoundError),
    ("load", lambda q, f: fb.load(f), ValueError),
    ("load", lambda q, _: fb.load(5), TypeError),
    ("Plan.read", lambda q, _: fb.Plan.read("no.json"), OSError),
    ("Plan.read", lambda q, f: fb.Plan.read(f / "there"), ValueError),
    ("Plan.read", lambda q, _: fb.Plan.read(MODEL), ValueError),
    ("Plan.read", lambda q, _: fb.Plan.read(5), TypeError),
    ("Plan.save", lambda q, f: fb.plan(MODEL).save(f / "no" / "plan.json"), OSError),
    ("Model.run", lambda q, _: q.run([1]), TypeError),
    ("Model.run", lambda q, _: q.run({}), ValueError),
    ("Model.run", lambda q, _: q.run({"X": X, "Z": X}), ValueError),
    ("Model.run", lambda q, _: q.run({"X": X[:, :2]}), ValueError),
    ("Model.run", lambda q, _: q.run({"X": [["a"] * 64]}), ValueError),
    ("Model.run", lambda q, _: q.run({"X": sparse.csr_matrix(X)}), TypeError),
    ("Model.run", lambda q, _: q.run({"X": DATES}), TypeError),
    ("Model.predict", lambda q, _: q.predict(DATES), TypeError),
    ("Model.predict", lambda q, _: q.predict(X[0]), ValueError),
    ("Model.predict_proba", lambda q, _: q.predict_proba(HOLES), ValueError),
    ("Model.decision_function", lambda q, _: q.decision_function(X), AttributeError),
    ("Model.score", lambda q, _: q.score(X, Y[:3]), ValueError),
    ("Model.score", lambda q, _: q.score(X, Y, np.ones(3)), ValueError),
    ("Model.score", lambda q, _: q.score(X, Y, np.zeros(len(X))), ZeroDivisionError),
    ("Model.save", lambda q, f: q.save(f / "there"), FileExistsError),
    ("Model.save", lambda q, f: q.save(f / "no" / "q.onnx"), ValueError),
    ("Model.save", lambda q, f: q.save(f), ValueError),
    ("Model.fit", lambda q, _: q.fit(X, Y), TypeError),
    ("Model.n_features_in_", lambda q, _: fb.load(IMAGES).n_features_in_, AttributeError),
    ("Model.feature_names_in_", lambda q, _: q.feature_names_in_, AttributeError),
    ("Quantized.fit", lambda q, _: fb.Quantized(LogisticRegression()).fit(sparse.csr_matrix(X), Y), TypeError),
    ("Quantized.fit", lambda q, _: fb.Quantized(LogisticRegression()).fit(X, 0 * Y), ValueError),
    ("Quantized.predict", lambda q, _: fb.Quantized(LogisticRegression()).predict(X), ValueError),
    ("Quantized.classes_", lambda q, _: fb.Quantized(LogisticRegression()).classes_, AttributeError),
]


@pytest.mark.parametrize("at", range(len(CALLS)), ids=lambda at: f"{CALLS[at][0]}-{at}")
def test_what_arises_is_documented(at: int, q: fb.Model, folder: Path) -> None:
    name, call, expected = CALLS[at]
    with pytest.raises(expected) as raised:
        call(q, folder)
    assert str(raised.value)
    named = raises(DOCUMENTED[name])
    # Of a special exception it is enough that it is named, or what it is one of.
    assert named & {kind.__name__ for kind in raised.type.__mro__}, named
    assert expected.__name__ in named or "NotFittedError" in named, named


def test_every_function_is_called() -> None:
    """Functions of the package itself: each is seen to fail in some way."""
    functions = {name for name, thing in DOCUMENTED.items() if inspect.isfunction(thing) and "." not in name}
    assert functions <= {name for name, _, _ in CALLS}
