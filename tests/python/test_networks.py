"""The convolution network and the language model of the fixtures, weights only."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Fewbits
from models import FIXTURES, assert_standard, open_session

CNN = FIXTURES / "digits_cnn"
LM = FIXTURES / "tiny_lm"


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("name", ["model.onnx", "model_bn.onnx"])
def test_digits_cnn(fewbits: Fewbits, tmp_path: Path, name: str, bits: int) -> None:
    out = tmp_path / "q.onnx"
    fewbits("quantize", CNN / name, "-o", out, "--bits", bits).assert_done()
    assert_standard(out)
    command = ["compare", CNN / name, out, "--data", CNN / "test.npz", "--json"]
    comparison = fewbits(*command).assert_done().json()
    arrays = np.load(CNN / "test.npz")
    logits = open_session(out).run(None, {"input": arrays["input"]})[0]
    accuracy = float(np.mean(logits.argmax(axis=1) == arrays["y"]))
    # 450 rows: one row near a tie may fall either way.
    assert comparison["a"]["metric"] == pytest.approx(0.98222, abs=1e-4)
    assert comparison["b"]["metric"] == pytest.approx(accuracy, abs=1 / 400)
    if bits == 8:
        assert accuracy == pytest.approx(0.98222, abs=0.005)


def perplexity(model: Path) -> float:
    arrays = np.load(LM / "test.npz")
    logits = open_session(model).run(None, {"input_ids": arrays["input_ids"]})[0]
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_probability, arrays["y"][..., np.newaxis], axis=-1)
    return float(np.exp(-chosen.mean()))


@pytest.mark.parametrize("bits", [4, 8])
def test_tiny_lm(fewbits: Fewbits, tmp_path: Path, bits: int) -> None:
    model, out = LM / "model.onnx", tmp_path / "q.onnx"
    fewbits("quantize", model, "-o", out, "--bits", bits).assert_done()
    assert_standard(out)
    command = ["compare", model, out, "--data", LM / "test.npz", "--metric", "perplexity"]
    comparison = fewbits(*command, "--json").assert_done().json()
    assert comparison["a"]["metric"] == pytest.approx(7.8126, rel=1e-3)
    assert comparison["b"]["metric"] == pytest.approx(perplexity(out), rel=1e-3)
    if bits == 8:
        assert comparison["b"]["metric"] == pytest.approx(7.8126, rel=0.01)


def test_a_model_without_dense_weights_is_left_alone(fewbits: Fewbits, tmp_path: Path) -> None:
    """An RBF SVM goes through as it is, and the command says so."""
    model, out = FIXTURES / "wine" / "svc_rbf.onnx", tmp_path / "q.onnx"
    done = fewbits("quantize", model, "-o", out, "--json").assert_done()
    assert done.json()["quantized"] == 0
    assert any("nothing is quantized" in note for note in done.json()["notes"])
    assert "nothing is quantized" in done.err
    x = np.load(FIXTURES / "wine" / "test.npz")["X"]
    labels = [open_session(path).run(None, {"X": x})[0] for path in (model, out)]
    np.testing.assert_array_equal(*labels)
