"""Small floats and narrow scales: the bits of `ml_dtypes`, and what ONNX Runtime makes of the files."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES, assert_standard, open_session
from onnx import TensorProto, helper, numpy_helper
from test_static import LM, perplexity

DIGITS = FIXTURES / "digits"

# The type of ml_dtypes, its largest number, and that number's exponent.
FORMATS = {
    "e4m3": (ml_dtypes.float8_e4m3fn, 448.0, 8),
    "e5m2": (ml_dtypes.float8_e5m2, 57344.0, 15),
    "e2m1": (ml_dtypes.float4_e2m1fn, 6.0, 2),
}
PLAIN = {"fp8-e4m3": "e4m3", "fp8-e5m2": "e5m2", "fp4-e2m1": "e2m1"}
MX = {"mxfp8-e4m3": "e4m3", "mxfp8-e5m2": "e5m2", "mxfp4": "e2m1"}
SCHEMES = [*PLAIN, *MX, "nvfp4"]
STORED = {"e4m3": TensorProto.FLOAT8E4M3FN, "e5m2": TensorProto.FLOAT8E5M2}


def rounded(x: np.ndarray, name: str) -> np.ndarray:
    """The nearest numbers as ml_dtypes finds them, saturating as ONNX does."""
    dtype, largest, _ = FORMATS[name]
    return np.clip(x, -largest, largest).astype(dtype)


def product(path: Path, weight: np.ndarray, opset: int = 21) -> Path:
    """A product with `weight`, [depth, columns]."""
    depth, columns = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, columns])],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def weight_in(model: Path) -> np.ndarray:
    """The weight that ONNX Runtime multiplies by, exactly: all other terms of a sum are zero."""
    session = open_session(model)
    depth = session.get_inputs()[0].shape[1]
    return session.run(None, {"x": np.eye(depth, dtype=np.float32)})[0]


def codes_in(model: Path, name: str) -> np.ndarray:
    """The codes of the largest constant: FLOAT8, or 4 bits in UINT4."""
    constants = onnx.load(model).graph.initializer
    tensor = max(constants, key=lambda t: len(t.raw_data))
    raw = np.frombuffer(tensor.raw_data, np.uint8)
    if name == "e2m1":
        assert tensor.data_type == TensorProto.UINT4
        raw = np.stack([raw & 15, raw >> 4], axis=-1).reshape(-1)
    else:
        assert tensor.data_type == STORED[name]
    return raw.reshape(tuple(tensor.dims))


def quantized(fewbits: Fewbits, path: Path, weight: np.ndarray, *options: object) -> Path:
    model = product(path / "float.onnx", weight)
    out = path / "q.onnx"
    fewbits("quantize", model, "-o", out, "--force", *options).assert_done()
    assert_standard(out)
    return out


def assert_same_bits(out: Path, name: str, expected: np.ndarray, scale: np.ndarray) -> None:
    np.testing.assert_array_equal(codes_in(out, name), expected.view(np.uint8))
    np.testing.assert_array_equal(weight_in(out), expected.astype(np.float32) * scale)


@pytest.mark.parametrize(("scheme", "name"), PLAIN.items())
def test_every_half_within_the_range_has_the_bits_of_ml_dtypes(
    fewbits: Fewbits, tmp_path: Path, scheme: str, name: str
) -> None:
    """The largest number is among the values, so the scale is exactly 1."""
    largest = FORMATS[name][1]
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves = halves[np.isfinite(halves) & (np.abs(halves) <= largest)]
    weight = np.resize(halves, (256, -(-len(halves) // 256)))
    assert np.abs(weight).max() == largest
    out = quantized(fewbits, tmp_path, weight, "--scheme", scheme, "--granularity", "tensor")
    assert_same_bits(out, name, rounded(weight, name), np.float32(1))


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group=32", "group=48"])
@pytest.mark.parametrize(("scheme", "name"), PLAIN.items())
def test_any_float_has_the_bits_of_ml_dtypes(
    fewbits: Fewbits, tmp_path: Path, scheme: str, name: str, granularity: str
) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_t(3, (128, 96)).astype(np.float32)
    weight *= np.exp2(random.integers(-20, 1, weight.shape)).astype(np.float32)
    largest = np.float32(FORMATS[name][1])
    match granularity:
        case "tensor":
            scale = np.abs(weight).max() / largest
        case "channel":
            scale = np.abs(weight).max(0) / largest
        case _:
            size = int(granularity.removeprefix("group="))
            starts = range(0, 128, size)
            blocks = np.stack([np.abs(weight[i : i + size]).max(0) for i in starts])
            scale = np.repeat(blocks / largest, size, axis=0)[:128]
    out = quantized(fewbits, tmp_path, weight, "--scheme", scheme, "--granularity", granularity)
    assert_same_bits(out, name, rounded(weight / scale, name), scale)


def blocks_of(weight: np.ndarray, size: int) -> np.ndarray:
    """The largest magnitude of each block along axis 0."""
    depth, columns = weight.shape
    padded = np.pad(np.abs(weight), ((0, -depth % size), (0, 0)))
    return padded.reshape(-1, size, columns).max(1)


@pytest.mark.parametrize("depth", [128, 100])
@pytest.mark.parametrize(("scheme", "name"), MX.items())
def test_blocks_with_powers_of_two(
    fewbits: Fewbits, tmp_path: Path, scheme: str, name: str, depth: int
) -> None:
    """The OCP specification's section 6.3. What a power of two leaves above the largest number
    saturates."""
    random = np.random.default_rng(1)
    weight = random.standard_normal((depth, 96)).astype(np.float32)
    weight *= np.exp2(random.integers(-9, 3, (depth, 96))).astype(np.float32)
    exponents = np.floor(np.log2(blocks_of(weight, 32).astype(np.float64))) - FORMATS[name][2]
    scale = np.repeat(np.exp2(exponents).astype(np.float32), 32, axis=0)[:depth]
    assert (np.abs(weight / scale) > FORMATS[name][1]).any()
    out = quantized(fewbits, tmp_path, weight, "--scheme", scheme)
    assert_same_bits(out, name, rounded(weight / scale, name), scale)
    # As the specification stores them: E8M0, a byte a block.
    stored = [t for t in onnx.load(out).graph.initializer if t.data_type == TensorProto.UINT8]
    expected = np.exp2(exponents).astype(ml_dtypes.float8_e8m0fnu)
    assert expected.tobytes() in [t.raw_data for t in stored]


@pytest.mark.parametrize("depth", [128, 100])
def test_blocks_of_nvfp4(fewbits: Fewbits, tmp_path: Path, depth: int) -> None:
    random = np.random.default_rng(2)
    weight = random.standard_t(3, (depth, 96)).astype(np.float32)
    weight[:16, 0] = 0
    of_tensor = np.abs(weight).max() / np.float32(6 * 448)
    smallest = np.float32(2**-9)
    blocks = blocks_of(weight, 16) / np.float32(6) / of_tensor
    blocks = rounded(np.maximum(blocks, smallest), "e4m3")
    scale = np.repeat(blocks.astype(np.float32) * of_tensor, 16, axis=0)[:depth]
    out = quantized(fewbits, tmp_path, weight, "--scheme", "nvfp4")
    assert_same_bits(out, "e2m1", rounded(weight / scale, "e2m1"), scale)
    stored = onnx.load(out).graph.initializer
    assert blocks.tobytes() in [t.raw_data for t in stored if t.data_type == STORED["e4m3"]]


@pytest.mark.parametrize(
    ("scheme", "most", "most_bytes"),
    [
        ("fp8-e4m3", 7.85, 315_000),
        ("fp8-e5m2", 7.87, 315_000),
        ("fp4-e2m1", 8.1, 200_000),
        ("mxfp8-e4m3", 7.85, 330_000),
        ("mxfp8-e5m2", 7.9, 330_000),
        ("mxfp4", 8.0, 210_000),
        ("nvfp4", 8.0, 210_000),
    ],
)
@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "generic"])
def test_a_language_model(
    fewbits: Fewbits, tmp_path: Path, scheme: str, most: float, most_bytes: int, target: str
) -> None:
    """It has 7.8126 as floats, in 1,023,402 bytes."""
    out = tmp_path / "q.onnx"
    command = ["quantize", LM / "model.onnx", "-o", out, "--scheme", scheme, "--target", target]
    fewbits(*command).assert_done()
    assert_standard(out)
    measured = perplexity(out)
    assert measured <= most
    assert out.stat().st_size <= most_bytes
    # What we compute from the file is what ONNX Runtime computes.
    command = ["compare", LM / "model.onnx", out, "--data", LM / "test.npz", "--json"]
    metric = fewbits(*command).assert_done().json()["b"]["metric"]
    assert metric == pytest.approx(measured, abs=1e-4)
    # Nothing is left to be dequantized at every call.
    assert "DequantizeLinear" not in [n.op_type for n in onnx.load(out).graph.node]
    if target == "generic":
        opset13 = {TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT64}
        opset13 |= {TensorProto.INT32, TensorProto.BOOL}
        assert {t.data_type for t in onnx.load(out).graph.initializer} <= opset13


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_written_is_seen_again(fewbits: Fewbits, tmp_path: Path, scheme: str) -> None:
    out, plan, again = (tmp_path / name for name in ("q.onnx", "plan.json", "again.onnx"))
    model = DIGITS / "mlp.onnx"
    command = ["quantize", model, "-o", out, "--scheme", scheme, "--save-plan", plan]
    fewbits(*command).assert_done()
    tensors = fewbits("inspect", out, "--json").assert_done().json()["tensors"]
    weights = [t for t in tensors if t["role"] == "weight" and t["scheme"] != "float"]
    assert weights and all(t["scheme"].startswith(f"{scheme}, ") for t in weights)
    assert {t["bits"] for t in weights} == {4 if "4" in scheme.split("-")[0] else 8}
    # Tables and scales are no tensors of their own.
    before = fewbits("inspect", model, "--json").assert_done().json()["tensors"]
    assert sorted(t["tensor"] for t in tensors) == sorted(t["tensor"] for t in before)
    planned = fewbits("quantize", model, "--scheme", scheme, "--dry-run").assert_done().out
    assert f"{scheme}, " in planned
    fewbits("quantize", model, "-o", again, "--plan", plan).assert_done()
    assert again.read_bytes() == out.read_bytes()


def test_narrow_scales_take_fewer_bytes(fewbits: Fewbits, tmp_path: Path) -> None:
    sizes, measured = [], []
    for scales in ("f32", "f16", "u8"):
        out = tmp_path / f"{scales}.onnx"
        command = ["quantize", LM / "model.onnx", "-o", out, "--bits", 4, "--scheme", "affine"]
        command += ["--granularity", "group=32", "--rounding", "gptq", "--scales", scales]
        fewbits(*command, "--calibrate", LM / "calib.npz").assert_done()
        assert_standard(out)
        sizes.append(out.stat().st_size)
        measured.append(perplexity(out))
        command = ["compare", LM / "model.onnx", out, "--data", LM / "test.npz", "--json"]
        metric = fewbits(*command).assert_done().json()["b"]["metric"]
        assert metric == pytest.approx(measured[-1], abs=1e-4)
    assert sizes[0] - sizes[1] > 14_000 and sizes[1] - sizes[2] > 6_000
    assert max(measured) <= 7.88


@pytest.mark.parametrize("target", ["onnx", "openvino", "generic"])
def test_scales_are_quantized_in_blocks(fewbits: Fewbits, tmp_path: Path, target: str) -> None:
    """1,200 scales are five blocks of 240: integers from 1 to 255 of a 255th of the largest."""
    weight = np.random.default_rng(3).standard_normal((160, 240)).astype(np.float32)
    options = ["--bits", 4, "--granularity", "group=32", "--target", target]
    plain = quantized(fewbits, tmp_path, weight, *options)
    before, found = weight_in(plain), onnx.load(plain).graph.initializer
    scales = next(numpy_helper.to_array(t) for t in found if np.prod(t.dims) == 1200).reshape(5, 240)
    narrow = quantized(fewbits, tmp_path, weight, *options, "--scales", "u8")
    steps = scales.max(1, keepdims=True) / np.float32(255)
    codes = np.clip(np.round(scales / steps), 1, 255).astype(np.float32)
    expected = np.repeat(codes * steps, 32, axis=0)
    integers = np.round(before / np.repeat(scales, 32, axis=0))
    np.testing.assert_array_equal(weight_in(narrow), integers * expected)


def test_scales_that_save_nothing_stay(fewbits: Fewbits, tmp_path: Path) -> None:
    files = []
    for scales in ("f32", "f16", "u8"):
        out = tmp_path / f"{scales}.onnx"
        command = ["quantize", DIGITS / "mlp.onnx", "-o", out, "--granularity", "tensor"]
        fewbits(*command, "--scales", scales).assert_done()
        files.append(out.read_bytes())
    assert files[0] == files[1] == files[2]


def test_a_sweep_with_narrow_scales(fewbits: Fewbits) -> None:
    def sizes(scales: str) -> list[int]:
        command = ["sweep", DIGITS / "mlp.onnx", "--data", DIGITS / "test.npz", "--bits", "3,4"]
        command += ["--granularity", "group=8", "--scales", scales, "--json"]
        points = fewbits(*command).assert_done().json()["points"]
        return [point["file_bytes"] for point in points]

    assert all(narrow < wide for narrow, wide in zip(sizes("u8"), sizes("f32"), strict=True))


@pytest.mark.parametrize("kind", ["fp8", "mxfp4", "nvfp4"])
def test_files_of_other_tools(fewbits: Fewbits, tmp_path: Path, kind: str) -> None:
    """DequantizeLinear of ONNX's own types, of which ONNX Runtime has the first."""
    random = np.random.default_rng(4)
    floats = random.standard_normal((64, 48)).astype(np.float32)

    def tensor(name: str, values: np.ndarray, data_type: int, packed: bool = False) -> TensorProto:
        raw = values.view(np.uint8).reshape(-1)
        raw = raw[::2] | raw[1::2] << 4 if packed else raw
        return helper.make_tensor(name, data_type, values.shape, raw.tobytes(), raw=True)

    attributes, nodes = {"axis": 1}, []
    if kind == "fp8":
        scale = (1 + random.random(48)).astype(np.float32) / 100
        codes = rounded(floats / scale, "e4m3")
        constants = [tensor("q", codes, STORED["e4m3"]), numpy_helper.from_array(scale, "s")]
    else:
        size = 32 if kind == "mxfp4" else 16
        attributes = {"axis": 0, "block_size": size}
        exponents = np.exp2(random.integers(-3, 2, (64 // size, 48)))
        codes = rounded(floats, "e2m1")
        constants = [tensor("q", codes, TensorProto.FLOAT4E2M1, packed=True)]
        if kind == "mxfp4":
            narrow = exponents.astype(ml_dtypes.float8_e8m0fnu)
            constants.append(tensor("s", narrow, TensorProto.FLOAT8E8M0))
            scale = narrow.astype(np.float32)
        else:
            narrow = rounded(exponents * 1.7, "e4m3")
            constants.append(tensor("n", narrow, STORED["e4m3"]))
            constants.append(numpy_helper.from_array(np.float32(0.01), "o"))
            nodes = [helper.make_node("DequantizeLinear", ["n", "o"], ["s"])]
            scale = narrow.astype(np.float32) * np.float32(0.01)
        scale = np.repeat(scale, size, axis=0)
    nodes.append(helper.make_node("DequantizeLinear", ["q", "s"], ["w"], **attributes))
    nodes.append(helper.make_node("MatMul", ["x", "w"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 48])],
        constants,
    )
    opset = 19 if kind == "fp8" else 24
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9 if opset == 19 else 12)
    path = tmp_path / "other.onnx"
    onnx.save(model, path)

    weight = codes.astype(np.float32) * scale
    x = np.eye(64, dtype=np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    command = ["run", path, "--data", tmp_path / "x.npz", "-o", tmp_path / "y.npz"]
    fewbits(*command).assert_done()
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"], weight)
    if kind == "fp8":
        np.testing.assert_array_equal(open_session(path).run(None, {"x": x})[0], weight)
    tensors = fewbits("inspect", path, "--json").assert_done().json()["tensors"]
    name = {"fp8": "fp8-e4m3", "mxfp4": "mxfp4", "nvfp4": "nvfp4"}[kind]
    assert [t["scheme"].split(",")[0] for t in tensors] == [name]


def test_a_group_longer_than_the_axis_is_the_axis(fewbits: Fewbits, tmp_path: Path) -> None:
    weight = np.random.default_rng(5).standard_normal((24, 400)).astype(np.float32)
    scale = np.abs(weight).max(0) / np.float32(448)
    out = quantized(fewbits, tmp_path, weight, "--scheme", "fp8-e4m3", "--granularity", "group=999")
    assert_same_bits(out, "e4m3", rounded(weight / scale, "e4m3"), scale)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["odd_zero.onnx", "odd_constant.onnx"])
def test_zero_and_constant_weights(
    fewbits: Fewbits, tmp_path: Path, name: str, scheme: str
) -> None:
    out = tmp_path / "q.onnx"
    fewbits("quantize", FIXTURES / "hostile" / name, "-o", out, "--scheme", scheme).assert_done()
    x = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    paths = (FIXTURES / "hostile" / name, out)
    before, after = (open_session(path).run(None, {"X": x})[0] for path in paths)
    np.testing.assert_allclose(after, before, rtol=0.1, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        ["--scheme", "fp8"],
        ["--scheme", "mxfp6"],
        ["--scheme", "fp8-e4m3", "--bits", 4],
        ["--scheme", "nvfp4", "--bits", 8],
        ["--scheme", "mxfp4", "--granularity", "channel"],
        ["--scheme", "nvfp4", "--granularity", "group=32"],
        ["--scheme", "fp8-e4m3", "--granularity", "group=0"],
        ["--scheme", "mxfp4", "--scales", "f16"],
        ["--scales", "f8"],
        ["--scheme", "fp4-e2m1", "--rounding", "hqq"],
        ["--scheme", "fp8-e4m3", "--recipe", "dynamic"],
        ["--scales", "u8", "--recipe", "dynamic"],
    ],
)
def test_wrong_usage(fewbits: Fewbits, tmp_path: Path, options: list[object]) -> None:
    out = tmp_path / "q.onnx"
    fewbits("quantize", DIGITS / "mlp.onnx", "-o", out, *options).assert_refused(2)
    assert not out.exists()


def test_a_format_is_not_swept(fewbits: Fewbits) -> None:
    command = ["sweep", DIGITS / "mlp.onnx", "--data", DIGITS / "test.npz", "--scheme", "nvfp4"]
    fewbits(*command).assert_refused(2)


@pytest.mark.parametrize("target", ["tensorrt", "tract"])
@pytest.mark.parametrize("options", [["--scheme", "fp8-e4m3"], ["--scales", "u8"]])
def test_targets_that_were_not_tried(
    fewbits: Fewbits, tmp_path: Path, target: str, options: list[str]
) -> None:
    command = ["quantize", DIGITS / "mlp.onnx", "-o", tmp_path / "q.onnx", "--target", target]
    fewbits(*command, *options).assert_refused(1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rounding", "hqq"), ("range_method", "mse"), ("scale_type", "u8"), ("scale_type", "f8")],
)
def test_a_plan_that_contradicts_itself(
    fewbits: Fewbits, tmp_path: Path, key: str, value: str
) -> None:
    plan, model = tmp_path / "plan.json", DIGITS / "mlp.onnx"
    fewbits("quantize", model, "--dry-run", "--scheme", "mxfp4", "--save-plan", plan).assert_done()
    edited = json.loads(plan.read_text())
    planned = next(tensor for tensor in edited["tensors"] if "scheme" in tensor)
    planned[key] = value
    plan.write_text(json.dumps(edited))
    out = tmp_path / "q.onnx"
    fewbits("quantize", model, "-o", out, "--plan", plan).assert_refused(1)
    assert not out.exists()
