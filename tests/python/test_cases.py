"""Larger models that are not in the repository: the folder that FEWBITS_CASES names."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import Fewbits
from models import assert_standard, open_session

ROWS = 1000
MEAN, STD = 0.286, 0.353


@pytest.fixture
def fashion() -> Path:
    """A convolution network for Fashion-MNIST, with its test images."""
    cases = os.environ.get("FEWBITS_CASES")
    if not cases:
        pytest.skip("FEWBITS_CASES names no folder of larger models")
    folder = Path(cases) / "fashion"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    return folder


def accuracy(model: Path, data: Path) -> float:
    """What ONNX Runtime makes of the first rows."""
    arrays = np.load(data)
    images = arrays["images"][:ROWS, np.newaxis].astype(np.float32)
    session = open_session(model)
    logits = session.run(None, {session.get_inputs()[0].name: (images / 255 - MEAN) / STD})[0]
    return float(np.mean(logits.argmax(axis=1) == arrays["labels"][:ROWS]))


@pytest.mark.parametrize("name", ["model.onnx", "model_bn.onnx"])
def test_fashion(fewbits: Fewbits, tmp_path: Path, fashion: Path, name: str) -> None:
    model, data, out = fashion / name, fashion / "test_images.npz", tmp_path / "q.onnx"
    fewbits("quantize", model, "-o", out, "--recipe", "weights", "--bits", 8).assert_done()
    assert_standard(out)
    assert out.stat().st_size < 0.3 * model.stat().st_size
    command = ["compare", model, out, "--data", data, "--normalize", f"{MEAN},{STD}"]
    comparison = fewbits(*command, "--limit", ROWS, "--json").assert_done().json()
    before, after = accuracy(model, data), accuracy(out, data)
    # One image near a tie may fall either way.
    assert comparison["a"]["metric"] == pytest.approx(before, abs=0.001)
    assert comparison["b"]["metric"] == pytest.approx(after, abs=0.001)
    assert before - after <= 0.005
