"""Resize in every way that ONNX knows, against ONNX's reference."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

COORDINATES = [
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "asymmetric",
    "align_corners",
    "tf_crop_and_resize",
]


def model_of(inputs: dict[str, np.ndarray], rank: int, **attributes: object) -> onnx.ModelProto:
    """A Resize of `x` by constants."""
    names = [name if name in inputs else "" for name in ("roi", "scales", "sizes")]
    while names and not names[-1]:
        names.pop()
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", *names], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * rank)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(array, name) for name, array in inputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def answer(fewbits: Fewbits, folder: Path, model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    path, rows, out = folder / "model.onnx", folder / "rows.npz", folder / "answer.npz"
    onnx.save(model, path)
    np.savez(rows, x=x)
    fewbits("run", path, "--data", rows, "-o", out, "--batch", "whole", "--force").assert_done()
    return np.load(out)["y"]


@pytest.mark.parametrize("seed", range(120))
def test_as_the_reference(fewbits: Fewbits, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 6))
    shape = rng.integers(1, 8, rank)
    told = list(range(rank))
    attributes: dict[str, object] = {}
    if rng.random() < 0.4:
        told = [int(axis) for axis in rng.permutation(rank)[: rng.integers(1, rank + 1)]]
        attributes["axes"] = told
    mode = str(rng.choice(["nearest", "linear", "cubic"]))
    coordinates = COORDINATES[seed % len(COORDINATES)]
    attributes |= {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        ways = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attributes["nearest_mode"] = str(rng.choice(ways))
    else:
        attributes["antialias"] = int(rng.integers(2))
    if mode == "cubic":
        attributes["exclude_outside"] = int(rng.integers(2))
        attributes["cubic_coeff_a"] = float(rng.choice([-0.75, -0.5]))
    inputs: dict[str, np.ndarray] = {}
    if coordinates == "tf_crop_and_resize":
        begin = rng.uniform(-0.1, 0.4, len(told))
        inputs["roi"] = np.concatenate([begin, begin + rng.uniform(0.3, 0.8, len(told))]).astype("f4")
        attributes["extrapolation_value"] = 7.5
    if rng.random() < 0.5:
        inputs["sizes"] = rng.integers(1, 12, len(told))
        policies = ["stretch", "not_larger", "not_smaller"]
        attributes["keep_aspect_ratio_policy"] = str(rng.choice(policies))
    else:
        # Large enough to leave an element everywhere, and no tie in a position's last bits.
        least = 1.0 / shape[told]
        inputs["scales"] = (least + rng.uniform(0.05, 2, len(told))).astype(np.float32)
    # What the float executor computes by itself is not asked here.
    attributes.setdefault("axes", told)
    model = model_of(inputs, rank, **attributes)
    x = rng.standard_normal(shape).astype(np.float32)
    wanted = ReferenceEvaluator(model).run(None, {"x": x})[0]
    if coordinates == "pytorch_half_pixel" and 1 in wanted.shape:
        pytest.skip("of a single element the reference and the text of ONNX differ")
    given = answer(fewbits, tmp_path, model, x)
    assert given.shape == wanted.shape
    np.testing.assert_allclose(given, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "inputs",
    [
        {"sizes": np.array([2, -3])},
        {"sizes": np.array([2**40, 2**40])},
        {"sizes": np.array([2**23, 2**23])},
        {"sizes": np.array([2])},
        {"scales": np.array([np.nan, 1], np.float32)},
        {"scales": np.array([-1, 1], np.float32)},
        {"scales": np.array([1e30, 1e30], np.float32)},
        {"scales": np.array([np.inf, 1], np.float32)},
        {"scales": np.array([1.0], np.float32)},
    ],
)
def test_absurd_sizes_are_refused(
    fewbits: Fewbits, tmp_path: Path, inputs: dict[str, np.ndarray]
) -> None:
    path, rows = tmp_path / "model.onnx", tmp_path / "rows.npz"
    onnx.save(model_of(inputs, 2, mode="cubic"), path)
    np.savez(rows, x=np.ones((3, 4), np.float32))
    fewbits("run", path, "--data", rows, "-o", tmp_path / "answer.npz").assert_refused(1)


def test_nothing_is_resized_to_nothing(fewbits: Fewbits, tmp_path: Path) -> None:
    model = model_of({"sizes": np.array([0, 3])}, 2, mode="cubic")
    given = answer(fewbits, tmp_path, model, np.ones((2, 3), np.float32))
    assert given.shape == (0, 3)
