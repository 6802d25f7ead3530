"""A default session answers what a file means, also on a CPU on which pairs of products of bytes saturate.

`cargo xtask test --weakest` runs what is marked `weakest` on such a CPU, whatever this machine is.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from meaning import Meaning, default_session, sqnr_db
from models import FIXTURES
from nets import images, scale_channels, separable, separable_weights, sequences, transformer
from pairs import assert_no_pair_saturates
from test_meaning import largest_products

pytestmark = pytest.mark.weakest

Arrays = dict[str, np.ndarray]

ROWS = 32
LEAST_DB = 50.0
MEAN, STD = 0.286, 0.353


@dataclass
class Model:
    """A float model, data to calibrate on, and rows to judge on."""

    path: Path
    calibration: Path
    rows: Arrays


def test_this_cpu_saturates() -> None:
    """Otherwise the emulation shows nothing."""
    if "FEWBITS_EMULATED" not in os.environ:
        pytest.skip("only an emulated CPU is known to saturate")
    [y] = default_session(largest_products()).run(None, {"x": np.full((1, 64), 255, np.uint8)})
    assert y.item() == 32 * 32767


def fixture(folder: Path, model: str, calibration: str) -> Model:
    """A trained model and the first of its test rows."""
    path = folder / model
    name = onnx.load(path).graph.input[0].name
    arrays = np.load(folder / "test.npz")
    rows = arrays[name if name in arrays else "X"][:ROWS]
    kind = np.int64 if rows.dtype.kind in "iu" else np.float32
    return Model(path, folder / calibration, {name: rows.astype(kind)})


def fashion(folder: Path) -> Model:
    """The larger network, which is not in the repository."""
    cases = os.environ.get("FEWBITS_CASES")
    if not cases or not (Path(cases) / "fashion").is_dir():
        pytest.skip("FEWBITS_CASES names no folder with fashion")
    source = Path(cases) / "fashion"

    def scaled(file: str, rows: int) -> np.ndarray:
        pixels = np.load(source / file)["images"][:rows, None].astype(np.float32)
        return ((pixels / 255 - MEAN) / STD).astype(np.float32)

    calibration = folder / "calibration.npz"
    np.savez(calibration, input=scaled("calib_images.npz", 256))
    return Model(source / "model.onnx", calibration, {"input": scaled("test_images.npz", ROWS)})


def made(path: Path, calibration: Arrays, rows: Arrays) -> Model:
    """A net with random weights."""
    data = path.with_name("calibration.npz")
    np.savez(data, **calibration)
    return Model(path, data, rows)


def depthwise(folder: Path, spread: float) -> Model:
    """Depth-wise convolutions; the sizes of channels differ by up to that factor."""
    weights = separable_weights()
    rng = np.random.default_rng(9)
    for name in ("stem", "deep1", "point1", "deep2"):
        exponents = rng.uniform(-0.5, 0.5, len(weights[name]))
        scale_channels(weights, name, spread**exponents)
    return made(separable(folder / "model.onnx", weights), images(64, 1), images(ROWS, 2))


def encoder(folder: Path) -> Model:
    """A transformer with wide channels."""
    path = transformer(folder / "model.onnx", outliers={3: 40.0, 17: 25.0})
    return made(path, sequences(64, 1), sequences(ROWS, 2))


MODELS = {
    "digits_mlp": lambda _: fixture(FIXTURES / "digits", "mlp.onnx", "train.npz"),
    "diabetes_mlp": lambda _: fixture(FIXTURES / "diabetes", "mlp.onnx", "test.npz"),
    "scaler_logreg": lambda _: fixture(FIXTURES / "breast_cancer", "scaler_logreg.onnx", "test.npz"),
    "digits_cnn": lambda _: fixture(FIXTURES / "digits_cnn", "model.onnx", "calib.npz"),
    "digits_cnn_bn": lambda _: fixture(FIXTURES / "digits_cnn", "model_bn.onnx", "calib.npz"),
    "tiny_lm": lambda _: fixture(FIXTURES / "tiny_lm", "model.onnx", "calib.npz"),
    "depthwise": lambda folder: depthwise(folder, 1.0),
    "depthwise_spread": lambda folder: depthwise(folder, 1000.0),
    "encoder": encoder,
    "fashion": fashion,
}

STATIC = ["--recipe", "static"]
DYNAMIC = ["--recipe", "dynamic"]
WEIGHTS = ["--recipe", "weights"]
FILES = [
    *((name, STATIC) for name in MODELS),
    *((name, DYNAMIC) for name in ("digits_mlp", "diabetes_mlp", "tiny_lm", "encoder")),
    *((name, [*STATIC, "--target", "onnxruntime"]) for name in ("depthwise_spread", "tiny_lm")),
    ("depthwise", [*STATIC, "--target", "openvino"]),
    *((name, WEIGHTS) for name in ("digits_mlp", "tiny_lm")),
]


# Every model and recipe for every target that has it.
MORE = [
    (name, ["--recipe", recipe, "--target", target])
    for name in MODELS
    for recipe, targets in {
        "weights": ["onnx", "onnxruntime"],
        "static": ["onnx", "onnxruntime", "openvino"],
        "dynamic": ["onnx", "onnxruntime"],
    }.items()
    for target in targets
]


def parameters(files: list[tuple[str, list[str]]], *marks: pytest.MarkDecorator) -> list[object]:
    return [pytest.param(*file, id="-".join([file[0], *file[1][1::2]]), marks=marks) for file in files]


@pytest.mark.parametrize(
    "name, options", [*parameters(FILES), *parameters(MORE, pytest.mark.long)]
)
def test_default_session(fewbits: Fewbits, tmp_path: Path, name: str, options: list[str]) -> None:
    model = MODELS[name](tmp_path)
    out = tmp_path / "q.onnx"
    command = ["quantize", model.path, "-o", out, *options]
    if "weights" not in options:
        command += ["--calibrate", model.calibration]
    fewbits(*command).assert_done()
    if "weights" not in options:
        assert_no_pair_saturates(out)
    expected = Meaning(out).run(model.rows)
    answers = default_session(out).run(None, model.rows)
    for exact, answer in zip(expected, answers, strict=True):
        if exact.dtype.kind == "f":
            assert sqnr_db(exact, answer) >= LEAST_DB
