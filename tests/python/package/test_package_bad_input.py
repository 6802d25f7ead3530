"""What does not fit is refused by an exception that says what to do; nothing panics or crashes."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_matrix
from sklearn.cluster import DBSCAN
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import fewbits as fb

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4))
Y = (X[:, 0] > X[:, 1]).astype(int)


@pytest.fixture(scope="module")
def q() -> fb.Model:
    return fb.quantize(LogisticRegression().fit(X, Y))


@pytest.fixture(scope="module")
def named() -> fb.Model:
    return fb.quantize(LogisticRegression().fit(pd.DataFrame(X, columns=list("abcd")), Y))


# --- Arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        X.astype(np.float32),
        np.asfortranarray(X),
        X.astype(">f8"),
        X.astype(object),
        X.tolist(),
        pd.DataFrame(X),
        np.repeat(X, 2, axis=1)[:, ::2],
        np.repeat(X, 2, axis=0)[::2],
        X[::-1][::-1],
        X.astype(np.longdouble),
    ],
    ids=[
        "float32", "Fortran order", "big-endian", "objects", "lists", "frame", "columns in steps",
        "rows in steps", "turned twice", "long double",
    ],
)  # fmt: skip
def test_the_same_numbers_give_the_same_labels(q: fb.Model, array) -> None:
    assert (q.predict(array) == q.predict(X)).all()


def test_read_only_arrays_are_read(q: fb.Model) -> None:
    fixed = X.copy()
    fixed.setflags(write=False)
    assert (q.predict(fixed) == q.predict(X)).all()
    assert (fixed == X).all()


def test_float16_and_integers(q: fb.Model) -> None:
    halves = X.astype(np.float16)
    assert (q.predict(halves) == q.predict(halves.astype(np.float64))).all()
    whole = np.round(X * 10)
    for kind in (np.int8, np.int16, np.int32, np.int64):
        assert (q.predict(whole.astype(kind)) == q.predict(whole)).all()


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize(
    "array, error, says",
    [
        (X[:, :3], ValueError, "X has 3 features, but Model is expecting 4 features"),
        (X[:0], ValueError, r"0 sample\(s\)"),
        (np.empty((5, 0)), ValueError, "0 features"),
        (X[0], ValueError, "Reshape your data"),
        (X[None], ValueError, "Reshape your data"),
        (5, ValueError, "Reshape your data"),
        (None, (ValueError, TypeError), "."),
        (np.full((2, 4), np.nan), ValueError, "Input X contains NaN"),
        (np.full((2, 4), np.nan, dtype=np.float32), ValueError, "Input X contains NaN"),
        (np.full((2, 4), np.inf), ValueError, "infinity"),
        (np.full((2, 4), 1e300), ValueError, "too large for dtype"),
        (np.full((2, 4), "a"), ValueError, "strings where numbers belong"),
        (np.full((2, 4), "a", dtype=object), ValueError, "not numbers"),
        (np.full((2, 4), {}, dtype=object), TypeError, "argument must be"),
        (X + 1j, ValueError, "Complex data not supported"),
        (np.full((2, 4), np.datetime64("2026-01-01")), TypeError, "datetime64"),
        (csr_matrix(X), TypeError, "sparse"),
        (pd.DataFrame({"a": ["x"], "b": [1], "c": [1], "d": [1]}), ValueError, "not numbers"),
        ("rows", ValueError, "."),
    ],
)
def test_arrays_that_are_refused(q: fb.Model, method: str, array, error, says: str) -> None:
    with pytest.raises(error, match=says):
        getattr(q, method)(array)


def test_a_nan_in_the_last_row_of_many_is_found(q: fb.Model) -> None:
    many = np.zeros((300_000, 4))
    many[-1, -1] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        q.predict(many)
    assert q.predict(many[:-1]).shape == (299_999,)


def test_missing_numbers_of_named_inputs_are_told(q: fb.Model) -> None:
    holes = np.ones((200, 4), np.float32)
    holes[7, 2] = np.nan
    with pytest.warns(UserWarning, match="1 of 800 numbers is NaN or missing, the first in row 8"):
        fb.compare(q, q, {"X": holes}, metric="agreement")
    holes[:100] = np.nan
    with pytest.raises(ValueError, match="400 of 800 numbers are NaN"):
        fb.compare(q, q, {"X": holes}, metric="agreement")


def test_score_of_other_lengths(q: fb.Model) -> None:
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        q.score(X, Y[:-1])
    with pytest.raises(ValueError, match="rows"):
        fb.compare(q, q, X, Y[:-1])
    with pytest.raises(ValueError, match="y is missing or NaN at row 1"):
        fb.compare(q, q, X, np.full(200, np.nan))


# --- Frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_columns_are_checked(named: fb.Model, frame) -> None:
    rows = dict(zip("abcd", X.T, strict=True))
    assert (named.predict(frame(rows)) == named.predict(pd.DataFrame(rows))).all()
    with pytest.raises(ValueError, match="same order as they were in fit"):
        named.predict(frame({name: rows[name] for name in "bacd"}))
    with pytest.raises(ValueError, match="unseen at fit time:\n- e"):
        named.predict(frame({"e" if name == "d" else name: rows[name] for name in "abcd"}))
    with pytest.raises(ValueError, match="now missing:\n- d"):
        named.predict(frame({name: rows[name] for name in "abc"}))


def test_an_array_without_names_is_warned_of(named: fb.Model) -> None:
    with pytest.warns(UserWarning, match="valid feature names"):
        labels = named.predict(X)
    assert labels.shape == (200,)


# --- Inputs of run -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs, error, says",
    [
        ({"Z": X}, ValueError, "no such input"),
        ({}, ValueError, "no data given"),
        ({"X": X[0]}, ValueError, "shape"),
        ({"X": X[:, :2]}, ValueError, "shape"),
        ({"X": X.astype(str)}, ValueError, "."),
        (X, TypeError, "dictionary"),
        ({1: X}, TypeError, "."),
    ],
)
def test_run_refuses(q: fb.Model, inputs, error, says: str) -> None:
    with pytest.raises(error, match=says):
        q.run(inputs)


# --- Models --------------------------------------------------------------------------------------


def test_an_unfitted_estimator() -> None:
    with pytest.raises(NotFittedError, match="not fitted"):
        fb.quantize(LogisticRegression())


@pytest.mark.parametrize("model", [3, None, [1, 2], {"a": 1}, object(), LogisticRegression, len])
def test_what_is_no_model_is_told_what_is(model) -> None:
    with pytest.raises(TypeError, match="give"):
        fb.quantize(model)


@pytest.mark.parametrize("model", [StandardScaler().fit(X), DBSCAN().fit(X)])
def test_what_predicts_nothing(model) -> None:
    with pytest.raises(TypeError, match="predicts nothing"):
        fb.quantize(model)


def test_what_cannot_be_converted() -> None:
    words = pd.DataFrame({"a": X[:, 0], "b": np.where(X[:, 1] > 0, "left", "right")})
    encoder = ColumnTransformer([("words", OneHotEncoder(), ["b"])], remainder="passthrough")
    with pytest.raises(TypeError, match="strings such as 'left'"):
        fb.quantize(make_pipeline(encoder, LogisticRegression()).fit(words, Y))
    several = MultiOutputClassifier(LogisticRegression()).fit(X, np.c_[Y, 1 - Y])
    with pytest.raises(TypeError, match="several outputs"):
        fb.quantize(several)

    class Unknown(LogisticRegression):
        pass

    with pytest.raises(TypeError, match="Unknown cannot be converted"):
        fb.quantize(Unknown().fit(X, Y))


def test_trees_are_named() -> None:
    with pytest.raises(ValueError, match="TreeEnsembleClassifier"):
        fb.quantize(RandomForestClassifier(2).fit(X, Y))


def test_lightgbm_is_converted_and_its_trees_are_named() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    pytest.importorskip("onnxmltools")
    model = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(X, Y)
    with pytest.warns(UserWarning, match="nothing is quantized"):
        q = fb.quantize(model)
    with pytest.raises(ValueError, match="TreeEnsembleClassifier"):
        q.predict(X)


@pytest.mark.parametrize("open_it", [fb.load, fb.quantize, fb.inspect])
def test_pickles_are_refused_unopened(open_it, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('opened')",))

    for name in ("model.pkl", "model.onnx", "model.joblib"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ValueError, match="skops"):
            open_it(path)
        with pytest.raises(ValueError, match="skops"):
            open_it(str(path))
        with pytest.raises(ValueError, match="skops"):
            open_it(path.read_bytes())
    old = tmp_path / "old.pkl"
    old.write_bytes(pickle.dumps(LogisticRegression(), protocol=0))
    with pytest.raises(ValueError, match="skops"):
        open_it(old)


def test_files_that_are_missing_damaged_or_there(q: fb.Model, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.onnx"):
        fb.load(tmp_path / "none.onnx")
    with pytest.raises(ValueError, match="folder"):
        fb.load(tmp_path)
    for content in (b"", b"\x00", b"\xff" * 100, q.to_bytes()[:-7]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ValueError, match="bad.onnx"):
            fb.load(tmp_path / "bad.onnx")
        with pytest.raises(ValueError):
            fb.load(content)
    with pytest.raises(TypeError, match="path or bytes"):
        fb.load(5)  # type: ignore[arg-type]
    q.save(tmp_path / "q.onnx")
    with pytest.raises(FileExistsError, match="force=True"):
        q.save(tmp_path / "q.onnx")
    assert q.save(tmp_path / "q.onnx", force=True) == q.file_bytes
    with pytest.raises((FileNotFoundError, ValueError), match="folder"):
        q.save(tmp_path / "no" / "q.onnx")


def test_a_foreign_entry_of_metadata_does_no_harm(q: fb.Model) -> None:
    for entry in ("", "[]", "{", '{"classes":{"a":1}}', '{"features":7}', '{"scores":[]}'):
        damaged = q._onnx.with_metadata("fewbits.estimator", entry)
        assert fb.Model(damaged).predict(X[:3]).shape == (3,)


# --- Options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, says",
    [
        ({"bits": 0}, ValueError, "bits"),
        ({"bits": 9}, ValueError, "bits"),
        ({"bits": -1}, ValueError, "bits"),
        ({"bits": 2.5}, TypeError, "whole number"),
        ({"bits": "8"}, TypeError, "whole number"),
        ({"bits": True}, TypeError, "whole number"),
        ({"act_bits": 1}, ValueError, "act_bits"),
        ({"recipe": "all"}, ValueError, "weights, dynamic, static and auto"),
        ({"recipe": "static"}, ValueError, "calibration="),
        ({"scheme": "odd"}, ValueError, "scheme"),
        ({"scheme": "nvfp4", "bits": 8}, ValueError, "leave bits"),
        ({"scheme": "mxfp4", "granularity": "channel"}, ValueError, "leave granularity"),
        ({"scheme": "fp8-e4m3", "rounding": "hqq"}, ValueError, "rounding="),
        ({"scheme": "fp8-e4m3", "recipe": "dynamic"}, ValueError, "recipe="),
        ({"scales": "f8"}, ValueError, "scales"),
        ({"granularity": "row"}, ValueError, "granularity"),
        ({"range": "x"}, ValueError, "range"),
        ({"methods": "magic"}, ValueError, "methods"),
        ({"rounding": "down"}, ValueError, "rounding"),
        ({"reduce_range": "some"}, ValueError, "reduce_range"),
        ({"target": "moon"}, ValueError, "target"),
        ({"calibration": X[:, :2]}, ValueError, "2 features"),
        ({"calibration": X[:0]}, ValueError, "0 sample"),
        ({"calibration": np.full((9, 4), np.nan)}, ValueError, "NaN"),
        ({"plan": "none.json"}, FileNotFoundError, "none.json"),
        ({"plan": 5}, TypeError, "Plan or a path"),
    ],
)
def test_options_that_are_refused(options: dict, error, says: str) -> None:
    model = LogisticRegression().fit(X, Y)
    with pytest.raises(error, match=says):
        fb.quantize(model, **options)


def test_measuring_refuses(q: fb.Model) -> None:
    with pytest.raises(ValueError, match="metric"):
        fb.compare(q, q, X, Y, metric="luck")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bits"):
        fb.sweep(q, X, Y, bits=[0])
    with pytest.raises(ValueError, match="bits"):
        fb.sweep(q, X, Y, bits=[])
    with pytest.raises(TypeError, match="rows of data"):
        fb.compare(q, q, None)
    with pytest.raises(ValueError, match="threads"):
        fb.compare(q, q, X, Y, threads=0)
    with pytest.raises(ValueError, match="objective"):
        fb.tune(q, X, X, Y, max_drop=0.1, objective="joy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="time_limit"):
        fb.tune(q, X, X, Y, max_drop=0.1, time_limit=-1)


def test_no_message_names_flags_of_the_command_line(q: fb.Model) -> None:
    with pytest.raises(ValueError) as refused:
        fb.compare(q, q, X, metric="accuracy")
    assert "--" not in str(refused.value) and 'metric="agreement"' in str(refused.value)


@pytest.mark.parametrize("seed", range(300))
def test_damaged_bytes_raise_and_nothing_else(q: fb.Model, seed: int) -> None:
    """A caught panic would be a RuntimeError."""
    random = np.random.default_rng(seed)
    content = bytearray(q.to_bytes())
    for _ in range(random.integers(1, 4)):
        content[random.integers(len(content))] = random.integers(256)
    try:
        damaged = fb.load(bytes(content))
        damaged.predict(X[:3])
        damaged.run({"X": X[:3]})
        damaged.inspect()
        fb.quantize(damaged, bits=4)
    except ValueError as error:
        assert str(error)
