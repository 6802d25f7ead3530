"""Small models on which the executor failed: `run` gives what a file means, or names the node that it lacks."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from meaning import default_session, meaning
from models import FIXTURES
from onnx import numpy_helper

REPORTS = FIXTURES / "reports"
# Every model of a folder, with the rows of its name.
RIGHT = [
    "cast-float-to-bool/model",
    "cast_mul_row_scale/model",
    "cast_mul_row_scale/rect-model",
    "conv-computed-kernel-no-attributes/model",
    "conv-same-lower/model",
    "conv_without_strides_dynamic_weight/model",
    "dropout-refused/model",
    "fused_ops_and_functions/attn-model",
    "fused_ops_and_functions/model",
    "int64-beyond-32-bits/model",
    "int64-input-through-squeeze/model",
    "executor_lacks/c3d-model",
    "executor_lacks/groupnorm-model",
    "executor_lacks/model",
    "integers_from_a_float_region/model",
    "lstm-sequence-lens/model",
    "matmul-nd-1d/model",
    "operator-without-name/model",
    "panic_cast_matmulinteger_gather/model",
    "qat_weight_stays_float/model",
    "resize-cubic/model",
    "same_lower/model",
    "same_lower/pool_same-model",
    "same_lower/same_lower2d_k4s2-model",
    "sign-of-zero/model",
    "softmax-opset12-axis/model",
    "softmax-opset12-compare/model",
    "stale-constant-shared-with-rten/model",
    "subgraph_weights_unmentioned/loop_sub-model",
    "subgraph_weights_unmentioned/model",
    "w4_gather_bitshift/model",
    "weights_inside_if/model",
]
# Of the largest element of an output: the order of sums differs.
TOLERANCE = 1e-4


def files(name: str) -> tuple[Path, Path]:
    model = REPORTS / f"{name}.onnx"
    return model, model.with_name(f"{model.stem.removesuffix('model')}data.npz")


def assert_means(fewbits: Fewbits, model: Path, data: Path, tolerance: float) -> None:
    """The outputs of `run` are those that the file means, in shape, type and value."""
    out = model.with_suffix(".npz")
    fewbits("run", model, "--data", data, "-o", out, "--force").assert_done()
    inputs = {value.name for value in onnx.load(model).graph.input}
    rows = {name: array for name, array in np.load(data).items() if name in inputs}
    names = [value.name for value in onnx.load(model).graph.output]
    given = np.load(out)
    for name, expected in zip(names, meaning(model, rows), strict=True):
        assert given[name].shape == expected.shape
        assert given[name].dtype == expected.dtype
        if expected.dtype.kind != "f":
            np.testing.assert_array_equal(given[name], expected)
            continue
        largest = np.abs(expected).max(initial=0)
        np.testing.assert_allclose(given[name], expected, rtol=0, atol=tolerance * largest)


@pytest.fixture
def copied(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A model and its rows, in a folder to write in."""
    model, data = files(request.param)
    copy = tmp_path / "m.onnx"
    copy.write_bytes(model.read_bytes())
    return copy, data


@pytest.mark.parametrize("copied", RIGHT, indirect=True)
class TestRight:
    def test_as_it_is(self, fewbits: Fewbits, copied: tuple[Path, Path]) -> None:
        assert_means(fewbits, *copied, TOLERANCE)

    @pytest.mark.parametrize(
        "how", [[], ["--bits", "4"], ["--recipe", "dynamic"]], ids=["weights", "4 bits", "dynamic"]
    )
    def test_quantized(
        self, fewbits: Fewbits, copied: tuple[Path, Path], tmp_path: Path, how: list[str]
    ) -> None:
        model, data = copied
        out = tmp_path / "q.onnx"
        done = fewbits("quantize", model, "-o", out, *how)
        if "nothing to quantize" in done.err:
            done.assert_refused(1)
            return
        done.assert_done()
        default_session(out)
        # Where activations become integers, one step of a sum that is rounded the other way.
        assert_means(fewbits, out, data, 3e-2 if "dynamic" in how else TOLERANCE)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("subgraph_weights_unmentioned/loop_sub-model", {"wl", "w"}),
        ("subgraph_weights_unmentioned/model", {"we", "wt", "w"}),
        ("weights_inside_if/model", {"w1", "w2"}),
    ],
)
def test_weights_of_subgraphs_become_integers(
    fewbits: Fewbits, tmp_path: Path, name: str, weights: set[str]
) -> None:
    model, _ = files(name)
    listed = fewbits("inspect", model, "--json").assert_done().json()["tensors"]
    assert weights == {entry["tensor"] for entry in listed if entry["role"] == "weight"}
    plan = fewbits("quantize", model, "--dry-run", "--json").assert_done().json()
    assert weights == {entry["tensor"] for entry in plan["tensors"] if "scheme" in entry}
    out = tmp_path / "q.onnx"
    fewbits("quantize", model, "-o", out).assert_done()
    assert model.stat().st_size >= 2.5 * out.stat().st_size


def test_scales_that_training_learnt_are_kept(fewbits: Fewbits, tmp_path: Path) -> None:
    model, data = files("qat_weight_stays_float/model")
    out = tmp_path / "q.onnx"
    done = fewbits("quantize", model, "-o", out, "--json").assert_done()
    assert "1 weights are stored as the integers that training learnt" in done.json()["notes"]
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer}
    expected = np.rint(constants["w"] / constants["sw"][:, None]).clip(-128, 127)
    stored = [numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer]
    assert any(t.dtype == np.int8 and np.array_equal(t, expected) for t in stored)
    assert all(t.shape != constants["w"].shape or t.dtype == np.int8 for t in stored)


def test_what_is_quantized_already_is_told(fewbits: Fewbits, tmp_path: Path) -> None:
    model, _ = files("qat_weight_stays_float/qdq-model")
    out = tmp_path / "q.onnx"
    refused = fewbits("quantize", model, "-o", out)
    refused.assert_refused(1)
    assert "its 2 weights are quantized already" in refused.err
    assert not out.exists()
