"""What a file for each target may hold, and that every one is right in ONNX Runtime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Fewbits, Outcome
from models import assert_standard, folder_bytes
from nets import (
    VOCABULARY,
    WIDTH,
    Arrays,
    constants,
    images,
    nodes_of,
    ops,
    run,
    separable,
    separable_weights,
    sqnr_db,
    transformer,
)
from onnx import TensorProto

TARGETS = ["onnx", "onnxruntime", "openvino", "tensorrt", "tract", "generic"]
# Those without packed types and blocks.
PLAIN = ["tensorrt", "tract", "generic"]
PACKED = {TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2}


def tokens(rows: int, seed: int) -> Arrays:
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (rows, 8))
    return {"input_ids": ids}


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    np.savez(tmp_path / "cnn.npz", **images(48, 1))
    return separable(tmp_path / "cnn.onnx", separable_weights())


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    np.savez(tmp_path / "lm.npz", **tokens(24, 1))
    return transformer(tmp_path / "lm.onnx", table=True)


def rows_for(model: Path) -> Arrays:
    return images(48, 2) if model.stem == "cnn" else tokens(24, 2)


def quantize(fewbits: Fewbits, model: Path, target: str, *options: object) -> Outcome:
    out = model.with_name(f"{model.stem}_{target}.onnx")
    command = ["quantize", model, "-o", out, "--target", target, "--force", *options]
    if "static" in options:
        command += ["--calibrate", model.with_suffix(".npz")]
    return fewbits(*command, "--json")


def written(result: Outcome) -> Path:
    out = Path(result.assert_done().json()["out"])
    assert_standard(out)
    return out


def sqnr_of(model: Path, out: Path) -> float:
    rows = rows_for(model)
    return sqnr_db(run(model, rows)[0], run(out, rows)[0])


def types(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


def constants_dequantized(path: Path) -> dict[str, np.ndarray]:
    """The constants that a DequantizeLinear reads first."""
    arrays = constants(onnx.load(path))
    return {n.input[0]: arrays[n.input[0]] for n in nodes_of(path, "DequantizeLinear") if n.input[0] in arrays}


# Decibels that 8 bits keep on these nets with room to spare; an error in a form costs all of them.
LEAST = {"weights": 35, "static": 25, "dynamic": 25}


@pytest.mark.parametrize("recipe", ["weights", "static", "dynamic"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("net", ["cnn", "lm"])
def test_eight_bits(
    fewbits: Fewbits, request: pytest.FixtureRequest, net: str, target: str, recipe: str
) -> None:
    model: Path = request.getfixturevalue(net)
    result = quantize(fewbits, model, target, "--recipe", recipe)
    if recipe == "dynamic" and target in ("openvino", "tensorrt"):
        result.assert_refused(1)
        return
    out = written(result)
    assert sqnr_of(model, out) > LEAST[recipe]
    used = set(ops(out))
    assert ("QuantizeLinear" in used) == (recipe == "static")
    # There is no fast dynamic form of a convolution.
    assert ("DynamicQuantizeLinear" in used) == (recipe == "dynamic")
    assert "ConvInteger" not in used
    warned = [line for line in result.err.splitlines() if line.startswith("warning:")]
    assert len(warned) == len(result.err.splitlines()), result.report()
    if target == "tensorrt":
        assert len(warned) == 1 and "TensorRT" in warned[0]
    elif target == "tract" and recipe != "weights":
        assert len(warned) == 1 and "--recipe weights" in warned[0]
    else:
        assert not warned


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("net", ["cnn", "lm"])
def test_activations(
    fewbits: Fewbits, request: pytest.FixtureRequest, net: str, target: str
) -> None:
    """Unsigned with a zero point; signed with zero point 0 for TensorRT."""
    out = written(quantize(fewbits, request.getfixturevalue(net), target, "--recipe", "static"))
    arrays = constants(onnx.load(out))
    quantized = list(nodes_of(out, "QuantizeLinear"))
    assert len(quantized) > 4
    zero_points = [arrays[node.input[2]] for node in quantized]
    scales = [arrays[node.input[1]] for node in quantized]
    assert all(s.ndim == 0 for s in scales)
    if target == "tensorrt":
        assert all(z.dtype == np.int8 and z == 0 for z in zero_points)
    else:
        assert all(z.dtype == np.uint8 for z in zero_points)
        assert any(z != 0 for z in zero_points)
    # Weights are signed and have no zero point, whatever the target.
    weights = [a for a in constants_dequantized(out).values() if a.ndim > 1]
    assert weights and all(w.dtype == np.int8 for w in weights)


def behind_signed(view: str, opset: int) -> onnx.ModelProto:
    """A product whose rows go through a view: between them onnxruntime adds nodes of its own."""
    rng = np.random.default_rng(7)
    weights = {"w": (14, 31), "v": (14, 26)}
    constants = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    constants.append(onnx.numpy_helper.from_array(np.ones((1, 31), np.float32), "b"))
    constants.append(onnx.numpy_helper.from_array(np.array([-1, 14]), "shape"))
    node = onnx.helper.make_node
    turned = {
        "none": [],
        "Reshape": [node("Reshape", ["x", "shape"], ["t"])],
        "Transpose": [node("Transpose", ["x"], ["t"], perm=[1, 0, 2])],
    }[view]
    x = "t" if turned else "x"
    nodes = [
        *turned,
        node("MatMul", [x, "w"], ["m"]),
        node("Add", ["m", "b"], ["y"]),
        node("MatMul", [x, "v"], ["z"]),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, [1, 7, 14])],
        [value(name, onnx.TensorProto.FLOAT, None) for name in "yz"],
        constants,
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)


@pytest.mark.parametrize("opset", [17, 21, 23])
@pytest.mark.parametrize("view", ["none", "Reshape", "Transpose"])
def test_signed_activations_of_newer_opsets_load(
    fewbits: Fewbits, tmp_path: Path, view: str, opset: int
) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(behind_signed(view, opset), model)
    rows = np.random.default_rng(8).standard_normal((32, 7, 14)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    out = tmp_path / "out.onnx"
    fewbits(
        "quantize", model, "-o", out, "--recipe", "static", "--target", "tensorrt",
        "--min-sqnr", "none", "--calibrate", tmp_path / "rows.npz",
    )  # fmt: skip
    assert onnx.load(out).opset_import[0].version == min(opset, 20)
    assert "QuantizeLinear" in ops(out)
    one = {"x": rows[:1]}
    for a, b in zip(run(out, one, "yz"), run(model, one, "yz")):
        assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(b)


@pytest.mark.parametrize("target", TARGETS)
def test_biases(fewbits: Fewbits, cnn: Path, target: str) -> None:
    out = written(quantize(fewbits, cnn, target, "--recipe", "static"))
    biases = [n.input[2] for n in onnx.load(out).graph.node if n.op_type in ("Conv", "Gemm")]
    assert len(biases) == 6
    arrays = constants(onnx.load(out))
    if target == "tensorrt":
        assert all(arrays[bias].dtype == np.float32 for bias in biases)
        assert TensorProto.INT32 not in types(out)
    else:
        made = {n.output[0]: arrays.get(n.input[0]) for n in nodes_of(out, "DequantizeLinear")}
        assert all(made[bias].dtype == np.int32 for bias in biases)


@pytest.mark.parametrize("target", TARGETS)
def test_what_lies_between_products(fewbits: Fewbits, cnn: Path, target: str) -> None:
    out = written(quantize(fewbits, cnn, target, "--recipe", "static"))
    graph = onnx.load(out).graph
    maker = {output: node for node in graph.node for output in node.output}
    if target != "tensorrt":
        # Saturation performs all of them, and a mean of integers is one.
        assert "Relu" not in ops(out)
        assert maker[next(nodes_of(out, "GlobalAveragePool")).input[0]].op_type == "DequantizeLinear"
        return
    assert ops(out).count("Relu") == ops(cnn).count("Relu") == 5
    for node in nodes_of(out, "QuantizeLinear"):
        # A product and what follows it are one kernel: nothing is quantized between them.
        assert node.input[0] not in maker or maker[node.input[0]].op_type != "Conv"
        [dequantize] = [n for n in graph.node if node.output[0] in n.input]
        readers = [n for n in graph.node if dequantize.output[0] in n.input]
        assert readers
        for reader in readers:
            assert reader.op_type in ("Conv", "Gemm", "MatMul")
            assert reader.input[0] == dequantize.output[0]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("recipe", ["weights", "static"])
def test_tables(fewbits: Fewbits, lm: Path, target: str, recipe: str) -> None:
    result = quantize(fewbits, lm, target, "--recipe", recipe)
    out = written(result)
    arrays = constants(onnx.load(out))
    why = {kept["tensor"]: kept["why"] for kept in result.json()["kept_float"]}
    if target == "tensorrt":
        assert arrays["table"].dtype == np.float32
        assert "TensorRT" in why["table"]
        table = next(n for n in nodes_of(out, "Gather") if n.input[1] == "input_ids")
        assert table.input[0] == "table"
    else:
        assert arrays["table"].dtype == np.int8
        assert "table" not in why


@pytest.mark.parametrize("target", PLAIN)
@pytest.mark.parametrize("opset", [17, 21])
def test_plain_forms(
    fewbits: Fewbits, tmp_path: Path, lm: Path, target: str, opset: int
) -> None:
    """No packed types and no blocks, whatever the model's opset has; TensorRT takes 8 bits only."""
    model = transformer(tmp_path / "lm.onnx", table=True, opset=opset)
    widths = [8] if target == "tensorrt" else [1, 2, 3, 4, 5, 6, 7, 8]
    for bits in widths:
        granularities = ["channel", "tensor"] + (["group=16"] if target != "tensorrt" else [])
        for granularity in granularities:
            options = ["--bits", bits, "--granularity", granularity]
            out = written(quantize(fewbits, model, target, *options))
            assert not types(out) & PACKED
            assert not any(a.name == "block_size" for n in onnx.load(out).graph.node for a in n.attribute)
            # Integers are packed to the bit all the same; 7 bits of so few save too little.
            assert ("BitShift" in ops(out)) == (bits < 7)
            if bits >= 4:
                assert sqnr_of(model, out) > 6 * bits - 18


def test_the_newest_forms(fewbits: Fewbits, tmp_path: Path, lm: Path) -> None:
    """What the test above must not find is there by default."""
    model = transformer(tmp_path / "lm.onnx", table=True, opset=21)
    out = written(quantize(fewbits, model, "onnx", "--bits", 4, "--granularity", "group=16"))
    assert TensorProto.INT4 in types(out)
    assert any(a.name == "block_size" for n in onnx.load(out).graph.node for a in n.attribute)


class TestOpenVino:
    @pytest.mark.parametrize("granularity", ["channel", "tensor", "group=16"])
    @pytest.mark.parametrize("scheme", ["symmetric", "affine"])
    def test_four_bits(
        self, fewbits: Fewbits, lm: Path, granularity: str, scheme: str
    ) -> None:
        """The model is brought to the opset that has a type for them."""
        options = ["--bits", 4, "--granularity", granularity, "--scheme", scheme]
        out = written(quantize(fewbits, lm, "openvino", *options))
        proto = onnx.load(out)
        assert [o.version for o in proto.opset_import if not o.domain] == [21]
        packed = TensorProto.INT4 if scheme == "symmetric" else TensorProto.UINT4
        matrices = [t for t in proto.graph.initializer if np.prod(t.dims) >= WIDTH * 12]
        assert sum(t.data_type == packed for t in matrices) >= 13
        assert "BitShift" not in ops(out)
        # What only look-ups read keeps 8 bits.
        table = constants(proto)["table"]
        assert table.dtype == (np.int8 if scheme == "symmetric" else np.uint8)
        assert sqnr_of(lm, out) > 8
        others = written(quantize(fewbits, lm, "onnx", *options))
        opset = [o.version for o in onnx.load(others).opset_import if not o.domain]
        # By default only blocks are worth another opset.
        grouped = granularity == "group=16"
        assert opset == ([21] if grouped else [17])
        assert ("BitShift" in ops(others)) == (not grouped)

    @pytest.mark.parametrize(("bits", "least"), [(4, 12), (8, 35)])
    def test_what_has_no_type_takes_whole_bytes(
        self, fewbits: Fewbits, lm: Path, bits: int, least: float
    ) -> None:
        """Fixed-point integers of as many bits as the values need."""
        options = ["--bits", bits, "--scheme", "fixed-point"]
        result = quantize(fewbits, lm, "openvino", *options)
        out = written(result)
        assert result.json()["integer_bits"] not in (4, 8)
        assert "BitShift" not in ops(out)
        assert types(out) & {TensorProto.INT8, TensorProto.INT16}
        assert sqnr_of(lm, out) > least
        sliced = written(quantize(fewbits, lm, "generic", *options))
        assert "BitShift" in ops(sliced)


OBSTACLES = [
    ("openvino", ["--recipe", "dynamic"], "--recipe static"),
    ("openvino", ["--recipe", "static", "--bits", 4], "--bits 8"),
    *[("openvino", ["--bits", bits], "--bits 8 or 4") for bits in (1, 2, 3, 5, 6, 7)],
    ("tensorrt", ["--recipe", "dynamic"], "--recipe static"),
    *[("tensorrt", ["--bits", bits], "--bits 8") for bits in (1, 4, 7)],
    ("tensorrt", ["--recipe", "static", "--bits", 4], "--bits 8"),
    ("tensorrt", ["--scheme", "affine"], "--scheme symmetric"),
    ("tensorrt", ["--scheme", "fixed-point"], "--scheme symmetric"),
    ("tensorrt", ["--granularity", "group=16"], "--granularity channel"),
]


@pytest.mark.parametrize(
    ("target", "options", "instead"), OBSTACLES, ids=lambda v: " ".join(map(str, v)) if v else ""
)
def test_obstacles(
    fewbits: Fewbits, tmp_path: Path, lm: Path, target: str, options: list[Any], instead: str
) -> None:
    before = folder_bytes(tmp_path)
    plan = ["--save-plan", tmp_path / "plan.json"]
    result = quantize(fewbits, lm, target, *options, *plan)
    result.assert_refused(1)
    assert result.err.startswith(f"error: --target {target}: "), result.report()
    assert f"use {instead}" in result.err
    assert folder_bytes(tmp_path) == before


def test_an_unknown_target(fewbits: Fewbits, lm: Path) -> None:
    result = quantize(fewbits, lm, "cuda")
    assert result.code == 2, result.report()
    assert all(target in result.err.splitlines()[0] for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_plans_keep_the_target(
    fewbits: Fewbits, tmp_path: Path, cnn: Path, target: str
) -> None:
    plan = tmp_path / "plan.json"
    out = written(quantize(fewbits, cnn, target, "--recipe", "static", "--save-plan", plan))
    # What is not said is the default.
    assert json.loads(plan.read_text()).get("target", "onnx") == target
    again = tmp_path / "again.onnx"
    fewbits("quantize", cnn, "-o", again, "--plan", plan).assert_done()
    assert again.read_bytes() == out.read_bytes()


def test_a_plan_brings_its_opset(fewbits: Fewbits, tmp_path: Path) -> None:
    model = tmp_path / "lm.onnx"
    transformer(model, table=True)
    plan = tmp_path / "plan.json"
    options = ["--bits", "4", "--save-plan", plan]
    out = written(quantize(fewbits, model, "openvino", *options))
    again = tmp_path / "again.onnx"
    fewbits("quantize", model, "-o", again, "--plan", plan).assert_done()
    assert again.read_bytes() == out.read_bytes()


def test_a_plan_edited_for_a_target_that_cannot_is_refused(
    fewbits: Fewbits, tmp_path: Path, cnn: Path
) -> None:
    plan = tmp_path / "plan.json"
    quantize(fewbits, cnn, "onnxruntime", "--bits", "4", "--save-plan", plan).assert_done()
    text = json.loads(plan.read_text())
    text["target"] = "tensorrt"
    plan.write_text(json.dumps(text))
    result = fewbits("quantize", cnn, "-o", tmp_path / "again.onnx", "--plan", plan)
    result.assert_refused(1)
    assert "--bits 8" in result.err
    assert not (tmp_path / "again.onnx").exists()
