"""Weights that hide: in operators that onnxruntime fuses, in functions of the model, in equations of Einsum.

Each model is computed as onnxruntime computes it, and its weights become integers.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Fewbits
from meaning import default_session, meaning
from models import FIXTURES
from onnx import NodeProto, numpy_helper
from onnx import helper as h

FLOAT, INT32 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
MICROSOFT = "com.microsoft"
ROWS, POSITIONS, WIDTH = 3, 5, 32
# Of the largest element of an output: the order of sums differs.
TOLERANCE = 1e-4


def fused(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> NodeProto:
    return h.make_node(op, inputs, outputs, domain=MICROSOFT, **attributes)


class Case:
    """Nodes of one kind, and what they read."""

    def __init__(
        self,
        nodes: list[NodeProto],
        inputs: dict[str, np.ndarray],
        weights: dict[str, np.ndarray],
        opset: int = 17,
        functions: Sequence[onnx.FunctionProto] = (),
        imports: Sequence[str] = (MICROSOFT,),
        outputs: Sequence[str] = ("y",),
    ) -> None:
        self.inputs = inputs
        types = {np.dtype(np.float32): FLOAT, np.dtype(np.int32): INT32}
        declared = [
            h.make_tensor_value_info(name, types[array.dtype], ["n", *array.shape[1:]])
            for name, array in inputs.items()
        ]
        graph = h.make_graph(
            nodes,
            "g",
            declared,
            [h.make_tensor_value_info(name, FLOAT, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        self.model = h.make_model(
            graph,
            opset_imports=[h.make_opsetid("", opset), *(h.make_opsetid(d, 1) for d in imports)],
            functions=functions,
            ir_version=8 if opset < 19 else 9,
        )

    def save(self, folder: Path) -> tuple[Path, Path]:
        model, data = folder / "m.onnx", folder / "data.npz"
        onnx.save(self.model, model)
        np.savez(data, **self.inputs)
        return model, data


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(0, 0.4, shape).astype(np.float32)


def sequences() -> dict[str, np.ndarray]:
    return {"x": floats(ROWS, POSITIONS, WIDTH)}


def mask() -> np.ndarray:
    return (np.arange(POSITIONS) < np.array([[POSITIONS], [2], [3]])).astype(np.int32)


def conv(activation: str, with_sum: bool, **attributes: object) -> Case:
    inputs = {"x": floats(ROWS, 4, 8, 8)}
    if with_sum:
        inputs["z"] = floats(ROWS, 16, 8, 8)
    node = fused(
        "FusedConv",
        ["x", "w", "b", "z"] if with_sum else ["x", "w", "b"],
        ["y"],
        activation=activation,
        kernel_shape=[3, 3],
        pads=[1] * 4,
        **attributes,
    )
    return Case([node], inputs, {"w": floats(16, 4, 3, 3), "b": floats(16)})


def gemm(**attributes: object) -> Case:
    node = fused("FusedGemm", ["x", "w", "b"], ["y"], **attributes)
    weights = {"w": floats(WIDTH, WIDTH), "b": floats(WIDTH)}
    return Case([node], {"x": floats(ROWS, WIDTH)}, weights)


def behind_product(nodes: list[NodeProto], opset: int, **weights: np.ndarray) -> Case:
    """Nodes that read 't', the result of a product."""
    product = h.make_node("MatMul", ["x", "w"], ["t"])
    weights = {"w": floats(WIDTH, WIDTH), **weights}
    return Case([product, *nodes], sequences(), weights, opset)


def norm(op: str, inputs: list[str], opset: int = 17) -> Case:
    weights = {"g": 1 + floats(WIDTH), "b": floats(WIDTH, seed=1), "b2": floats(WIDTH, seed=2)}
    nodes = [
        fused(op, inputs, ["n", "", "", "s"], epsilon=1e-5),
        h.make_node("Add", ["n", "s"], ["y"]),
    ]
    return behind_product(nodes, opset, **weights)


def embedding() -> Case:
    rng = np.random.default_rng(5)
    ids = rng.integers(0, 50, (ROWS, POSITIONS)).astype(np.int32)
    segments = rng.integers(0, 2, (ROWS, POSITIONS)).astype(np.int32)
    inputs = ["ids", "segments", "words", "positions", "kinds", "g", "b", "mask"]
    weights = {
        "words": floats(50, WIDTH),
        "positions": floats(12, WIDTH),
        "kinds": floats(2, WIDTH),
        "g": 1 + floats(WIDTH),
        "b": floats(WIDTH),
        "w": floats(WIDTH, 8),
    }
    nodes = [
        fused("EmbedLayerNormalization", inputs, ["t", "lengths"], epsilon=1e-5),
        h.make_node("MatMul", ["t", "w"], ["p"]),
        h.make_node("Cast", ["lengths"], ["l"], to=FLOAT),
        h.make_node("Unsqueeze", ["l", "axes"], ["l3"]),
        h.make_node("Add", ["p", "l3"], ["y"]),
    ]
    weights["axes"] = np.array([1, 2])
    return Case(nodes, {"ids": ids, "segments": segments, "mask": mask()}, weights)


def attention(masked: bool, **attributes: object) -> Case:
    inputs = sequences()
    if masked:
        inputs["mask"] = mask()
    names = ["x", "w", "b", "mask"] if masked else ["x", "w", "b"]
    weights = {"w": floats(WIDTH, 3 * WIDTH), "b": floats(3 * WIDTH)}
    return Case([fused("Attention", names, ["y"], num_heads=4, **attributes)], inputs, weights)


def heads() -> Case:
    weights = {name: floats(WIDTH, WIDTH, seed=i) for i, name in enumerate("ijk")}
    weights["b"] = floats(3 * WIDTH)
    nodes = [h.make_node("MatMul", ["x", name], [f"p{name}"]) for name in "ijk"]
    names = ["pi", "pj", "pk", "b", "mask"]
    nodes.append(fused("MultiHeadAttention", names, ["y"], num_heads=4, scale=0.3))
    return Case(nodes, sequences() | {"mask": mask()}, weights)


FUSED = {
    "conv, relu": conv("Relu", False),
    "conv, sum": conv("Relu", True),
    "conv, leaky": conv("LeakyRelu", False, activation_params=[0.1]),
    "conv, clip": conv("Clip", False, activation_params=[-0.2, 0.3]),
    "conv, hard sigmoid": conv("HardSigmoid", False, activation_params=[0.3, 0.4]),
    "gemm": gemm(activation="Relu"),
    "gemm, scaled": gemm(activation="LeakyRelu", activation_alpha=0.2, transB=1, alpha=0.5),
    "matmul": behind_product(
        [
            fused("FusedMatMul", ["t", "v"], ["u"], transB=1, alpha=0.25),
            fused("FusedMatMul", ["u", "x"], ["s"], transA=1),
            fused("FusedMatMul", ["s", "x"], ["y"], transB=1, alpha=2.0),
        ],
        17,
        v=floats(40, WIDTH),
    ),
    "layer norm": norm("SkipLayerNormalization", ["t", "x", "g", "b", "b2"]),
    "layer norm of old": norm("SkipLayerNormalization", ["t", "x", "g", "b"], 12),
    "rms norm": norm("SkipSimplifiedLayerNormalization", ["t", "x", "g", "b2"]),
    "rms norm alone": behind_product(
        [h.make_node("SimplifiedLayerNormalization", ["t", "g"], ["y"], axis=-1)],
        17,
        g=1 + floats(WIDTH),
    ),
    "gelu": behind_product([fused("Gelu", ["t"], ["y"])], 17),
    "gelu of today": behind_product([fused("Gelu", ["t"], ["y"])], 20),
    "bias and gelu": behind_product([fused("BiasGelu", ["t", "b"], ["y"])], 17, b=floats(WIDTH)),
    "fast gelu": behind_product([fused("FastGelu", ["t"], ["y"])], 17),
    "bias and fast gelu": behind_product(
        [fused("FastGelu", ["t", "b"], ["y"])], 20, b=floats(WIDTH)
    ),
    "quick gelu": behind_product([fused("QuickGelu", ["t"], ["y"], alpha=1.5)], 17),
    "embedding": embedding(),
    "attention": attention(masked=False),
    "attention, masked": attention(masked=True),
    "attention, causal": attention(masked=True, unidirectional=1),
    "attention, of sizes": attention(masked=False, qkv_hidden_sizes=[24, 24, 48], scale=0.2),
    "heads": heads(),
}


def einsum(equation: str, x: tuple[int, ...], w: tuple[int, ...]) -> Case:
    node = h.make_node("Einsum", ["x", "w"], ["y"], equation=equation)
    return Case([node], {"x": floats(*x)}, {"w": floats(*w)}, imports=())


EINSUMS = {
    "bij,jk->bik": einsum("bij,jk->bik", (ROWS, 5, 32), (32, 24)),
    "...j,kj->...k": einsum("...j,kj->...k", (ROWS, 5, 32), (24, 32)),
    "bsh,hnd->bnsd": einsum("bsh,hnd->bnsd", (ROWS, 5, 32), (32, 4, 8)),
    "bnsd,ndh->bsh": einsum("bnsd,ndh->bsh", (ROWS, 4, 5, 8), (4, 8, 32)),
    # No product of one matrix.
    "bnsd,nde->bnse": einsum("bnsd,nde->bnse", (ROWS, 4, 5, 8), (4, 8, 32)),
}


def functions(opset_of_function: int = 17) -> Case:
    """A layer with a weight of its own, called twice, that calls another one with a branch inside."""
    imports = [h.make_opsetid("", opset_of_function), h.make_opsetid("own", 1)]
    slope = onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    leaky = h.make_node("LeakyRelu", ["a"], ["t"])
    leaky.attribute.append(slope)
    taken = h.make_graph([leaky], "then", [], [h.make_tensor_value_info("t", FLOAT, None)])
    other = h.make_graph(
        [h.make_node("Neg", ["a"], ["t"])], "else", [], [h.make_tensor_value_info("t", FLOAT, None)]
    )
    activation = h.make_function(
        "own",
        "Activation",
        ["a"],
        ["b"],
        [
            h.make_node("ReduceMax", ["a"], ["m"], keepdims=0),
            h.make_node("Constant", [], ["zero"], value_float=0.0),
            h.make_node("Greater", ["m", "zero"], ["c"]),
            h.make_node("If", ["c"], ["b"], then_branch=taken, else_branch=other),
        ],
        imports,
        attributes=[],
        attribute_protos=[h.make_attribute("slope", 0.3)],
    )
    call = h.make_node("Activation", ["p"], ["b"], domain="own")
    call.attribute.append(
        onnx.AttributeProto(name="slope", type=onnx.AttributeProto.FLOAT, ref_attr_name="by")
    )
    layer = h.make_function(
        "own",
        "Layer",
        ["a", "outer"],
        ["b"],
        [
            h.make_node("Constant", [], ["w"], value=numpy_helper.from_array(floats(32, 32), "w")),
            h.make_node("MatMul", ["a", "w"], ["q"]),
            h.make_node("MatMul", ["q", "outer"], ["p"]),
            call,
        ],
        imports,
        attributes=["by"],
    )
    nodes = [
        h.make_node("Layer", ["x", "w"], ["t"], domain="own", by=0.1),
        h.make_node("Layer", ["t", "w"], ["y"], domain="own"),
    ]
    weights = {"w": floats(32, 32, seed=1)}
    return Case(nodes, sequences(), weights, 17, [layer, activation], ["own"])


FUNCTIONS = {"functions": functions(), "functions of another opset": functions(15)}
ALL = {**FUSED, **EINSUMS, **FUNCTIONS}


def assert_means(fewbits: Fewbits, model: Path, data: Path, tolerance: float) -> None:
    """The outputs of `run` are those of the file."""
    out = model.with_suffix(".out.npz")
    fewbits("run", model, "--data", data, "-o", out, "--batch", "whole").assert_done()
    rows = dict(np.load(data))
    given = np.load(out)
    names = [value.name for value in onnx.load(model).graph.output]
    for name, expected in zip(names, meaning(model, rows), strict=True):
        assert given[name].shape == expected.shape
        largest = np.abs(expected).max(initial=0)
        np.testing.assert_allclose(given[name], expected, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("name", ALL)
class TestAll:
    def test_is_computed(self, fewbits: Fewbits, tmp_path: Path, name: str) -> None:
        assert_means(fewbits, *ALL[name].save(tmp_path), TOLERANCE)

    def test_weights_become_integers(self, fewbits: Fewbits, tmp_path: Path, name: str) -> None:
        model, data = ALL[name].save(tmp_path)
        out = tmp_path / "q.onnx"
        fewbits("quantize", model, "-o", out).assert_done()
        written = onnx.load(out)
        assert not written.functions
        large = [t for t in written.graph.initializer if np.prod(t.dims) >= 128]
        assert large
        assert all(t.data_type != FLOAT for t in large), [t.name for t in large]
        default_session(out)
        assert_means(fewbits, out, data, TOLERANCE)
        expected, given = (meaning(m, dict(np.load(data))) for m in (model, out))
        noise = np.linalg.norm(expected[0] - given[0]) / np.linalg.norm(expected[0])
        assert noise < 0.03

    def test_activations_become_integers(
        self, fewbits: Fewbits, tmp_path: Path, name: str
    ) -> None:
        model, data = ALL[name].save(tmp_path)
        out = tmp_path / "q.onnx"
        fewbits("quantize", model, "-o", out, "--recipe", "dynamic").assert_done()
        default_session(out)
        # One step of a sum that is rounded the other way.
        assert_means(fewbits, out, data, 3e-2)


@pytest.mark.parametrize("name", ["conv, relu", "conv, clip", "gemm"])
def test_fused_layers_compute_on_integers(fewbits: Fewbits, tmp_path: Path, name: str) -> None:
    model, data = FUSED[name].save(tmp_path)
    out = tmp_path / "q.onnx"
    fewbits("quantize", model, "-o", out, "--recipe", "static", "--calibrate", data).assert_done()
    ops = [node.op_type for node in onnx.load(out).graph.node]
    assert "QuantizeLinear" in ops
    assert not any(op.startswith("Fused") for op in ops)
    default_session(out)
    assert_means(fewbits, out, data, 3e-2)


@pytest.mark.parametrize("name", ["digits_cnn/model_bn", "tiny_lm/model", "digits/mlp"])
def test_what_onnxruntime_saved_is_quantized_as_what_it_loaded(
    fewbits: Fewbits, tmp_path: Path, name: str
) -> None:
    source, data = FIXTURES / f"{name}.onnx", (FIXTURES / name).with_name("test.npz")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "m.onnx")
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    assert any(n.domain == MICROSOFT for n in onnx.load(tmp_path / "m.onnx").graph.node)
    sizes = []
    for model, out in [(source, tmp_path / "a.onnx"), (tmp_path / "m.onnx", tmp_path / "b.onnx")]:
        done = fewbits("quantize", model, "-o", out, "--json").assert_done().json()
        sizes.append((done["quantized"], done["file_bytes"]))
    (plain, plain_bytes), (saved, saved_bytes) = sizes
    assert saved == plain
    # The name and the constants of nodes take other bytes.
    assert saved_bytes < 1.1 * plain_bytes
    inputs = {value.name for value in onnx.load(source).graph.input}
    np.savez(tmp_path / "rows.npz", **{n: a for n, a in np.load(data).items() if n in inputs})
    for model in ("m", "b"):
        assert_means(fewbits, tmp_path / f"{model}.onnx", tmp_path / "rows.npz", TOLERANCE)


def test_operators_on_blocks_are_told(fewbits: Fewbits, tmp_path: Path) -> None:
    node = h.make_node("Conv", ["x", "w"], ["y"], domain="com.microsoft.nchwc")
    case = Case([node], {"x": floats(1, 8, 4, 4)}, {"w": floats(8, 8, 3, 3)})
    model, _ = case.save(tmp_path)
    listed = fewbits("quantize", model, "--dry-run", "--json").out
    assert "ORT_ENABLE_EXTENDED" in listed


def test_one_weight_of_a_function_is_stored_once(fewbits: Fewbits, tmp_path: Path) -> None:
    model, _ = FUNCTIONS["functions"].save(tmp_path)
    listed = fewbits("inspect", model, "--json").assert_done().json()
    weights = [t["tensor"] for t in listed["tensors"] if t["role"] == "weight"]
    assert len(weights) == 2


def test_what_stays_fused_is_named_and_its_weights_become_integers(
    fewbits: Fewbits, tmp_path: Path
) -> None:
    case = attention(masked=False)
    past = np.zeros((2, ROWS, 4, 2, 8), np.float32)
    case.model.graph.node[0].input.extend(["", "past"])
    case.model.graph.node[0].output.append("present")
    case.model.graph.input.append(h.make_tensor_value_info("past", FLOAT, [2, "n", 4, "p", 8]))
    case.model.graph.output.append(h.make_tensor_value_info("present", FLOAT, None))
    model, _ = case.save(tmp_path)
    out = tmp_path / "q.onnx"
    done = fewbits("quantize", model, "-o", out, "--json").assert_done().json()
    assert any("Attention of 'y' stays as it is: it takes a past" in n for n in done["notes"])
    rows = {**case.inputs, "past": past}
    expected, given = (meaning(m, rows) for m in (model, out))
    assert np.linalg.norm(expected[0] - given[0]) < 0.03 * np.linalg.norm(expected[0])
    assert out.stat().st_size < 0.5 * model.stat().st_size
    refused = fewbits("run", model, "--data", tmp_path / "data.npz", "-o", tmp_path / "o.npz")
    refused.assert_refused(1, 2)


def test_weights_of_unknown_operators_say_so(fewbits: Fewbits, tmp_path: Path) -> None:
    node = h.make_node("Mystery", ["x", "v"], ["t"], domain="own")
    product = h.make_node("MatMul", ["t", "w"], ["y"])
    weights = {"v": floats(WIDTH, WIDTH), "w": floats(WIDTH, WIDTH, seed=1)}
    model, _ = Case([node, product], sequences(), weights, imports=["own"]).save(tmp_path)
    plan = fewbits("quantize", model, "--dry-run", "--json").assert_done().json()
    why = {t["tensor"]: t.get("float") for t in plan["tensors"]}
    assert why["w"] is None
    assert why["v"].startswith("own.Mystery reads it")
