"""The executor of quantized models: the same bits everywhere, and the answers that the file means."""

import os
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from convolutions import NETS, SAME, Graph, residual, rows_of
from meaning import Meaning, default_session
from models import FIXTURES
from nets import Arrays, images
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from random_graphs.pieces import NEAR_A_TIE, judged
from random_graphs.tool import Fault

# More than one batch of a run, and the last is not whole.
ROWS = 70


class Once(CalibrationDataReader):
    def __init__(self, x: np.ndarray) -> None:
        self.batches = iter([{"x": x}])

    def get_next(self) -> Arrays | None:
        return next(self.batches, None)


# The forms that fewbits and ONNX Runtime write: activations, weights, and how.
FORMS = {
    "fewbits": None,
    "fewbits dynamic": None,
    "fewbits 3 bits": None,
    "qdq u8s8": (QuantFormat.QDQ, QuantType.QUInt8, QuantType.QInt8, False),
    "qdq s8s8 channel": (QuantFormat.QDQ, QuantType.QInt8, QuantType.QInt8, True),
    "qdq u8u8": (QuantFormat.QDQ, QuantType.QUInt8, QuantType.QUInt8, False),
    "operators u8s8 channel": (QuantFormat.QOperator, QuantType.QUInt8, QuantType.QInt8, True),
    "dynamic u8": (QuantType.QUInt8,),
    "dynamic s8": (QuantType.QInt8,),
}


# Those that no CPU's kernels saturate.
OWN = ("fewbits", "fewbits dynamic")


# Weights of fewer than 8 bits that no runtime multiplies: their floats are.
FLOATS = "fewbits 3 bits"


def quantized(fewbits: Fewbits, folder: Path, net: str, form: str) -> Path:
    model, out = NETS[net](folder / "float.onnx"), folder / "q.onnx"
    how = FORMS[form]
    if how is None:
        recipe = "dynamic" if form == "fewbits dynamic" else "static"
        np.savez(folder / "calib.npz", x=rows_of(net, 64, 1))
        command = ["quantize", model, "-o", out, "--recipe", recipe]
        if form == FLOATS:
            command += ["--bits", 3, "--scheme", "affine", "--target", "generic"]
        fewbits(*command, "--calibrate", folder / "calib.npz").assert_done()
    elif len(how) == 1:
        quantize_dynamic(model, out, weight_type=how[0])
    else:
        quantize_static(
            model,
            out,
            Once(rows_of(net, 64, 1)),
            quant_format=how[0],
            activation_type=how[1],
            weight_type=how[2],
            per_channel=how[3],
        )
    return out


@pytest.fixture(scope="session")
def cpus(binary: Path) -> list[str]:
    """The kernels that this CPU offers, as the message about an unknown name lists them."""
    model, data = FIXTURES / "digits_cnn" / "model.onnx", FIXTURES / "digits_cnn" / "test.npz"
    command = [binary, "run", model, "--data", data, "-o", os.devnull + ".npz"]
    environment = {**os.environ, "FEWBITS_CPU": "nonsense"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    offered = re.search(r"FEWBITS_CPU=nonsense: this CPU offers (.*)", done.stderr)
    assert done.returncode == 1 and offered, done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error:"), done.stderr
    names = offered[1].split(", ")
    assert names[0] == "scalar"
    return names


Run = Callable[..., Arrays]


@pytest.fixture
def run(fewbits: Fewbits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """What `fewbits run` answers, with some kernels and threads."""

    def outputs(
        model: Path, data: Arrays, cpu: str = "", threads: int = 2, batch: int | str = BATCH
    ) -> Arrays:
        monkeypatch.setenv("FEWBITS_CPU", cpu)
        np.savez(tmp_path / "in.npz", **data)
        out = tmp_path / "out.npz"
        command = ["run", model, "--data", tmp_path / "in.npz", "-o", out, "--force"]
        fewbits(*command, "--threads", threads, "--batch", batch).assert_done()
        return dict(np.load(out))

    return outputs


def assert_same_bits(run: Run, model: Path, data: Arrays, cpus: list[str]) -> Arrays:
    """Every kernel and number of threads gives the same; the answer."""
    first = run(model, data, cpus[0], 1)
    for cpu in cpus:
        for threads in (1, 2, 3) if cpu == cpus[-1] else (2,):
            other = run(model, data, cpu, threads)
            assert list(other) == list(first)
            for name, values in first.items():
                assert values.dtype == other[name].dtype and values.shape == other[name].shape
                assert values.tobytes() == other[name].tobytes(), (name, cpu, threads)
    return first


# Rows that the executor takes at once.
BATCH = 64
# Of the largest output: sums of floats, which may be added up in any order.
CLOSE = 1e-5


def assert_every_byte(run: Run, model: Path, data: Arrays, ours: Arrays) -> None:
    """Every byte is what the file means given ours before it, and so is what follows from them.

    It may be the next one where the value lies within NEAR_A_TIE of a tie between both.
    """
    rows = len(next(iter(data.values())))
    for at in range(0, rows, BATCH):
        part = {name: x[at : at + BATCH] for name, x in data.items()}

        def run_shown(shown: onnx.ModelProto) -> Arrays:
            onnx.save(shown, model.with_name("shown.onnx"))
            return run(model.with_name("shown.onnx"), part, batch="whole")

        answer = {name: values[at : at + BATCH] for name, values in ours.items()}
        assert_what_it_means(onnx.load(model), part, run_shown, answer)


def assert_what_it_means(
    model: onnx.ModelProto,
    rows: Arrays,
    run_shown: Callable[[onnx.ModelProto], Arrays],
    answer: Arrays | None,
) -> None:
    """What `run_shown` gives, integers shown, is what a file means, and `answer`."""
    found, expected = judged(model, rows, run_shown, NEAR_A_TIE)
    for name in (value.name for value in model.graph.output):
        if answer is not None:
            assert found[name].tobytes() == answer[name].tobytes(), f"{name} is another when shown"
        if expected[name].dtype.kind == "f":
            apart = np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max()
            assert apart <= CLOSE, (name, apart)
        else:
            assert np.array_equal(found[name], expected[name])


def theirs(model: Path, data: Arrays) -> Arrays:
    """What the file means, batch by batch, end to end."""
    means = Meaning(model)
    rows = len(next(iter(data.values())))
    parts = [
        means.run({name: x[at : at + BATCH] for name, x in data.items()})
        for at in range(0, rows, BATCH)
    ]
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(means.outputs)}


def by_default(model: onnx.ModelProto, rows: Arrays) -> Arrays:
    """What a session of ONNX Runtime answers that users have."""
    names = [value.name for value in model.graph.output]
    return dict(zip(names, default_session(model).run(names, rows), strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_nets(
    fewbits: Fewbits, run: Run, cpus: list[str], tmp_path: Path, net: str, form: str
) -> None:
    model = quantized(fewbits, tmp_path, net, form)
    data = {"x": rows_of(net, ROWS, 2)}
    ours = assert_same_bits(run, model, data, cpus)["y"]
    assert_every_byte(run, model, data, {"y": ours})
    if form in OWN:
        part = {"x": data["x"][:BATCH]}
        assert_what_it_means(onnx.load(model), part, partial(by_default, rows=part), None)
    # A row alone is what it is among others, unless ranges are those of the batch; what rten runs
    # in floats is summed in another order.
    if "dynamic" not in form:
        for rows in (1, 3, 32):
            part = run(model, {"x": data["x"][:rows]})["y"]
            if form == FLOATS:
                np.testing.assert_allclose(part, ours[:rows], rtol=1e-4, atol=1e-5)
            else:
                assert part.tobytes() == ours[:rows].tobytes()


@pytest.mark.parametrize("form", [form for form in FORMS if form != FLOATS])
@pytest.mark.parametrize("net", ["residual", "excited"])
def test_a_step_aside_is_found(
    fewbits: Fewbits, run: Run, tmp_path: Path, net: str, form: str
) -> None:
    """A byte that is off by one, or a zero point: the tests above would tell."""
    path = quantized(fewbits, tmp_path, net, form)
    model, rows = onnx.load(path), {"x": rows_of(net, 8, 2)}

    def run_shown(shown: onnx.ModelProto) -> Arrays:
        onnx.save(shown, tmp_path / "shown.onnx")
        return run(tmp_path / "shown.onnx", rows, batch="whole")

    ours, _ = judged(model, rows, run_shown, NEAR_A_TIE)
    bytes_ = [name for name, values in ours.items() if values.dtype.itemsize == 1]
    # Those of convolutions, too, but for our own dynamic files.
    assert len(bytes_) > (1 if form in OWN else 5)
    for name in bytes_:
        aside = np.where(ours[name] == np.iinfo(ours[name].dtype).max, ours[name], ours[name] + 1)
        with pytest.raises(Fault, match=re.escape(name)):
            judged(model, rows, lambda _: ours | {name: aside}, NEAR_A_TIE)
    read = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for zero in [t for t in model.graph.initializer if t.name in read]:
        aside = onnx.ModelProto()
        aside.CopyFrom(model)
        value = numpy_helper.to_array(zero)
        other = value - 1 if value == np.iinfo(value.dtype).max else value + 1
        [found] = [t for t in aside.graph.initializer if t.name == zero.name]
        found.CopyFrom(numpy_helper.from_array(other.astype(value.dtype), zero.name))
        with pytest.raises(Fault, match="wrong"):
            judged(aside, rows, lambda _: ours, NEAR_A_TIE)


def steps_of(fewbits: Fewbits, model: Path) -> list[dict]:
    return fewbits("inspect", model, "--runtime", "--json").assert_done().json()["steps"]


@pytest.mark.parametrize("form", ["dynamic u8", "dynamic s8"])
@pytest.mark.parametrize("net", NETS)
def test_convolutions_quantized_as_they_come(
    fewbits: Fewbits, tmp_path: Path, net: str, form: str
) -> None:
    model = quantized(fewbits, tmp_path, net, form)
    steps = steps_of(fewbits, model)
    assert all(step["where"] != "rten" for step in steps), steps
    count = [node.op_type for node in onnx.load(model).graph.node].count("ConvInteger")
    fused = [step for step in steps if step["what"].startswith("ConvInteger")]
    assert len(fused) == count > 0 and all(step["where"] == "integers" for step in fused)
    # What follows is computed where sums become floats.
    function = {"depthwise": "Clip", "excited": "HardSwish"}.get(net, "Relu")
    assert f"ConvInteger + Add + {function}" in {step["what"] for step in fused}


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_a_convolution_quantized_as_it_comes_is_that_of_onnxruntime(
    run: Run, cpus: list[str], tmp_path: Path, kind: type
) -> None:
    """All sums are exact, so that nothing but the order of float operations could differ."""
    g = Graph()
    low = np.iinfo(kind).min
    w = g.constant(g.rng.integers(low + 3, low + 256, (24, 3, 3, 3)), kind)
    q, scale, zero = "q", "scale", "zero"
    g.nodes.append(h.make_node("DynamicQuantizeLinear", ["x"], [q, scale, zero]))
    inputs = [q, w, zero, g.constant(low + 119, kind)]
    sums = g.node("ConvInteger", inputs, pads=[2, 1, 0, 1], strides=[1, 2])
    sums = g.node("Cast", [sums], to=T.FLOAT)
    y = g.node("Mul", [sums, g.node("Mul", [scale, g.constant(0.003)])])
    g.node("Add", [y, g.constant(g.rng.normal(0, 1, (1, 24, 1, 1)))], "y")
    model = g.save(tmp_path / "conv.onnx", rank=4)
    data = images(9, 3)
    ours = assert_same_bits(run, model, data, cpus)["y"]
    np.testing.assert_allclose(ours, theirs(model, data)["y"], rtol=1e-6, atol=1e-6)


def view(g: Graph, x: str, how: str, size: int) -> str:
    """The rows of `x`, of `size` elements, as PyTorch writes them."""

    def ints(*values: int) -> str:
        return g.constant(values, np.int64)

    if how == "constant":
        return g.node("Reshape", [x, ints(-1, size)])
    sizes = g.node("Shape", ["x" if how == "of the input" else x])
    if how == "slice":
        rows = g.node("Slice", [sizes, ints(0), ints(1), ints(0)])
    else:
        rows = g.node("Gather", [sizes, g.constant(0, np.int64)], axis=0)
        rows = g.node("Unsqueeze", [rows, ints(0)])
    return g.node("Reshape", [x, g.node("Concat", [rows, ints(-1)], axis=0)])


@pytest.mark.parametrize("how", ["gather", "slice", "of the input", "constant"])
def test_views(
    fewbits: Fewbits, run: Run, cpus: list[str], tmp_path: Path, how: str
) -> None:
    g = Graph()
    x = view(g, g.relu(g.conv("x", 8, 3, 3, 3, **SAME)), how, 800)
    g.node("MatMul", [x, g.constant(g.rng.normal(0, 0.1, (800, 10)))], "y")
    np.savez(tmp_path / "calib.npz", **images(64, 1))
    out = quantized_by_fewbits(
        fewbits, g.save(tmp_path / "f.onnx"), tmp_path / "calib.npz", tmp_path / "q.onnx", "static"
    )
    assert all(step["where"] != "rten" for step in steps_of(fewbits, out))
    data = images(ROWS, 2)
    assert_every_byte(run, out, data, assert_same_bits(run, out, data, cpus))


def quantized_by_fewbits(
    fewbits: Fewbits, model: Path, calib: Path, out: Path, recipe: str
) -> Path:
    command = ["quantize", model, "-o", out, "--recipe", recipe, "--calibrate", calib]
    fewbits(*command).assert_done()
    return out


@pytest.mark.parametrize("recipe", ["static", "dynamic", "weights"])
def test_digits(
    fewbits: Fewbits, run: Run, cpus: list[str], tmp_path: Path, recipe: str
) -> None:
    for folder, name, rows in (("digits_cnn", "model", "input"), ("digits", "mlp", "X")):
        model, data = FIXTURES / folder / f"{name}.onnx", FIXTURES / folder / "test.npz"
        calib = data.with_name("calib.npz") if folder == "digits_cnn" else data
        out = quantized_by_fewbits(fewbits, model, calib, tmp_path / f"{folder}.onnx", recipe)
        given = {rows: np.load(data)[rows].astype(np.float32)}
        assert_every_byte(run, out, given, assert_same_bits(run, out, given, cpus))
        part = {rows: given[rows][:BATCH]}
        by_theirs = partial(by_default, rows=part)
        assert_what_it_means(onnx.load(out), part, by_theirs, None)


@pytest.mark.parametrize("recipe", ["static", "dynamic"])
def test_a_transformer(
    fewbits: Fewbits, run: Run, cpus: list[str], tmp_path: Path, recipe: str
) -> None:
    folder = FIXTURES / "tiny_lm"
    out = quantized_by_fewbits(
        fewbits, folder / "model.onnx", folder / "calib.npz", tmp_path / "lm.onnx", recipe
    )
    tokens = np.load(folder / "test.npz")["input_ids"][:ROWS]
    given = {"input_ids": tokens}
    assert_every_byte(run, out, given, assert_same_bits(run, out, given, cpus))


@pytest.mark.parametrize("recipe", ["static", "dynamic"])
def test_fashion(fewbits: Fewbits, run: Run, tmp_path: Path, recipe: str) -> None:
    cases = Path(os.environ.get("FEWBITS_CASES", FIXTURES / "../../../shared/cases")) / "fashion"
    if not (cases / "model.onnx").exists():
        pytest.skip("FEWBITS_CASES names no folder with fashion")
    out = tmp_path / "q.onnx"
    command = ["quantize", cases / "model.onnx", "-o", out, "--recipe", recipe]
    normal = ["--normalize", "0.286,0.353"]
    fewbits(*command, "--calibrate", cases / "calib_images.npz", *normal).assert_done()
    data = cases / "test_images.npz"
    fewbits("run", out, "--data", data, *normal, "-o", tmp_path / "y.npz").assert_done()
    [logits] = dict(np.load(tmp_path / "y.npz")).values()
    rows = np.load(data)
    [pixels] = [rows[n] for n in rows.files if rows[n].dtype == np.uint8 and rows[n].ndim > 1]
    x = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.286)) / np.float32(0.353)
    info = onnx.load(out).graph.input[0]
    x = x.reshape(len(x), *[d.dim_value for d in info.type.tensor_type.shape.dim[1:]])
    assert len(x) == len(logits) == 10_000
    first = {info.name: x[:BATCH]}
    assert_every_byte(run, out, first, run(out, first))
    [wanted] = theirs(out, {info.name: x}).values()
    assert np.mean(logits.argmax(1) == wanted.argmax(1)) >= 0.999


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_weights_of_few_bits(
    fewbits: Fewbits, run: Run, cpus: list[str], tmp_path: Path, bits: int, scheme: str
) -> None:
    model = residual(tmp_path / "float.onnx")
    np.savez(tmp_path / "calib.npz", x=images(64, 1)["x"])
    out = tmp_path / "q.onnx"
    command = ["quantize", model, "-o", out, "--recipe", "static", "--target", "generic"]
    command += ["--bits", bits, "--scheme", scheme, "--calibrate", tmp_path / "calib.npz"]
    fewbits(*command).assert_done()
    data = images(20, 2)
    assert_every_byte(run, out, data, assert_same_bits(run, out, data, cpus[-1:]))


@pytest.mark.parametrize("net", ["residual", "excited", "moved"])
@pytest.mark.parametrize("form", ["qdq u8s8", "dynamic u8"])
def test_no_rows(fewbits: Fewbits, tmp_path: Path, net: str, form: str) -> None:
    model = quantized(fewbits, tmp_path, net, form)
    np.savez(tmp_path / "in.npz", x=rows_of(net, 0, 1))
    done = fewbits("run", model, "--data", tmp_path / "in.npz", "-o", tmp_path / "y.npz")
    done.assert_refused(1)


def test_a_fixed_batch_is_filled_up(fewbits: Fewbits, run: Run, tmp_path: Path) -> None:
    free = quantized(fewbits, tmp_path, "residual", "qdq u8s8")
    fixed = onnx.load(free)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 32
    onnx.save(fixed, tmp_path / "fixed.onnx")
    data = images(ROWS, 2)
    assert run(tmp_path / "fixed.onnx", data)["y"].tobytes() == run(free, data)["y"].tobytes()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"x": np.zeros((2, 3, 10, 9), np.float32)}, r"'x'.*\[2, 3, 10, 9\].*\[\?, 3, 10, 10\]"),
        ({"x": np.zeros((2, 300), np.float32)[:, :299]}, r"x"),
        ({"x": np.array([["a", "b"]])}, r"x"),
        ({"z": np.zeros((2, 2), np.float32), "w": np.zeros((2, 3), np.float32)}, r"x"),
    ],
    ids=["shape", "size", "type", "missing"],
)
def test_wrong_inputs_are_named(
    fewbits: Fewbits, tmp_path: Path, data: Arrays, told: str
) -> None:
    model = quantized(fewbits, tmp_path, "residual", "qdq u8s8")
    np.savez(tmp_path / "in.npz", **data)
    done = fewbits("run", model, "--data", tmp_path / "in.npz", "-o", tmp_path / "y.npz")
    done.assert_refused(1)
    assert re.search(told, done.err), done.err


def test_an_unknown_operator_is_named(fewbits: Fewbits, tmp_path: Path) -> None:
    model = onnx.load(quantized(fewbits, tmp_path, "residual", "qdq u8s8"))
    node = next(n for n in model.graph.node if n.op_type == "Flatten")
    node.op_type = "Frobnicate"
    onnx.save(model, tmp_path / "odd.onnx")
    np.savez(tmp_path / "in.npz", **images(2, 1))
    command = ["run", tmp_path / "odd.onnx", "--data", tmp_path / "in.npz"]
    done = fewbits(*command, "-o", tmp_path / "y.npz")
    done.assert_refused(1)
    assert "Frobnicate" in done.err


def test_inputs_and_outputs_may_be_bytes(run: Run, cpus: list[str], tmp_path: Path) -> None:
    """What stays between is a net of integers alone."""
    for kind, low in ((np.uint8, 0), (np.int8, -128)):
        rng = np.random.default_rng(3)
        constants = {
            "s": np.float32(0.05),
            "z": np.array(low + 100, kind),
            "w": rng.integers(-128, 128, (8, 4, 3, 3)).astype(np.int8),
            "ws": np.float32(0.001),
            "wz": np.int8(0),
        }
        nodes = [
            h.make_node("DequantizeLinear", ["x", "s", "z"], ["f"]),
            h.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"]),
            h.make_node("Conv", ["f", "wf"], ["sums"], pads=[1, 1, 1, 1]),
            h.make_node("Relu", ["sums"], ["r"]),
            h.make_node("QuantizeLinear", ["r", "s", "z"], ["y"]),
        ]
        element = T.UINT8 if kind is np.uint8 else T.INT8
        graph = h.make_graph(
            nodes,
            "bytes",
            [h.make_tensor_value_info("x", element, ["n", 4, 6, 6])],
            [h.make_tensor_value_info("y", element, ["n", 8, 6, 6])],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        )
        model = tmp_path / f"{np.dtype(kind)}.onnx"
        opsets = [h.make_opsetid("", 17)]
        onnx.save(h.make_model(graph, opset_imports=opsets, ir_version=8), model)
        data = {"x": rng.integers(low, low + 256, (ROWS, 4, 6, 6)).astype(kind)}
        assert_every_byte(run, model, data, assert_same_bits(run, model, data, cpus))
