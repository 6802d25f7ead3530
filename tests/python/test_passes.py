"""Passes over a graph change no answer: ONNX Runtime before and after the example `pass`.

FEWBITS_PASS names the program, otherwise it is built here.
"""

import os
import pathlib
import subprocess

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

REPO = pathlib.Path(__file__).resolve().parents[2]
CASES = pathlib.Path(os.environ.get("FEWBITS_CASES", REPO.parent / "shared" / "cases"))
FIXTURES = REPO / "tests" / "fixtures"
RNG = np.random.default_rng(11)


@pytest.fixture(scope="session")
def program():
    path = os.environ.get("FEWBITS_PASS")
    if path is None:
        build = ["cargo", "build", "--release", "-p", "fewbits-onnx", "--example", "pass"]
        subprocess.run(build, cwd=REPO, check=True)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
        path = target / "release" / "examples" / "pass"
    return path


@pytest.fixture
def run_pass(program, tmp_path):
    def run(model, *passes, fails=False):
        """The model after the passes; with `fails` the message."""
        source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
        source.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        done = subprocess.run([program, source, out, *passes], capture_output=True, text=True)
        if fails:
            assert done.returncode == 1 and not out.exists()
            return done.stderr
        assert done.returncode == 0, done.stderr
        return onnx.load(out)

    return run


def answers(model, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def assert_same(before, after, feeds, rtol=1e-5, atol=1e-5):
    wanted, outputs = answers(before, feeds), answers(after, feeds)
    for expected, got in zip(wanted, outputs, strict=True):
        assert expected.dtype == got.dtype and expected.shape == got.shape
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)
    return outputs


def check_model(model, outputs):
    """ONNX's own checker, with the ranks of the real outputs: the models declare none."""
    model = onnx.load_from_string(model.SerializeToString())
    for value, answer in zip(model.graph.output, outputs, strict=True):
        for _ in answer.shape:
            value.type.tensor_type.shape.dim.add()
        value.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model, full_check=True)


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def const(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def model_of(nodes, feeds, constants=(), opset=17, outputs=("y",), out_type=T.FLOAT, shapes=True):
    inputs = [
        h.make_tensor_value_info(n, h.np_dtype_to_tensor_dtype(v.dtype),
                                 v.shape if shapes else None)
        for n, v in feeds.items()
    ]
    values = [h.make_tensor_value_info(o, out_type, None) for o in outputs]
    graph = h.make_graph(nodes, "g", inputs, values, list(constants))
    ir = 3 if opset < 9 else 4 if opset < 10 else 7 if opset < 15 else 8 if opset < 19 else 10
    if ir < 4:
        graph.input.extend(h.make_tensor_value_info(c.name, c.data_type, c.dims) for c in constants)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir)


# Batch normalization.

def norm(source, output, channels, prefix="bn"):
    """A normalization node and its parameters."""
    params = [floats(channels) + 1, floats(channels), floats(channels),
              RNG.uniform(0.2, 2, channels).astype(np.float32)]
    names = [f"{prefix}.{n}" for n in ("weight", "bias", "mean", "var")]
    node = h.make_node("BatchNormalization", [source, *names], [output], epsilon=1e-3)
    return node, [const(n, p) for n, p in zip(names, params)]


IMAGE = {"x": floats(2, 4, 7, 7)}
ROWS = {"x": floats(5, 4)}
LINEAR = {
    "conv": ("Conv", IMAGE, (6, 4, 3, 3), {}),
    "depthwise": ("Conv", IMAGE, (6, 2, 3, 3), {"group": 2}),
    "transposed": ("ConvTranspose", IMAGE, (4, 6, 3, 3), {"strides": [2, 2]}),
    "transposed_groups": ("ConvTranspose", IMAGE, (4, 3, 3, 3), {"group": 2}),
    "gemm": ("Gemm", ROWS, (4, 6), {"alpha": 0.5}),
    "gemm_transposed": ("Gemm", ROWS, (6, 4), {"transB": 1}),
    "matmul": ("MatMul", ROWS, (4, 6), {}),
}


@pytest.mark.parametrize("bias", ["none", "own", "added"])
@pytest.mark.parametrize("name", LINEAR)
def test_norm_goes_into_the_weights(run_pass, name, bias):
    op, feeds, shape, attributes = LINEAR[name]
    if op == "MatMul" and bias == "own":
        pytest.skip("MatMul has no bias")
    if op == "Gemm" and bias == "own":
        attributes = {**attributes, "beta": 3.0}
    constants = [const("layer.weight", floats(*shape))]
    inputs, value, nodes = ["x", "layer.weight"], "t", []
    if bias == "own":
        constants.append(const("layer.bias", floats(6)))
        inputs.append("layer.bias")
    nodes.append(h.make_node(op, inputs, ["t"], **attributes))
    if bias == "added":
        tail = (1, 1) if op.startswith("Conv") else ()
        constants.append(const("added", floats(6, *tail)))
        nodes.append(h.make_node("Add", ["t", "added"], ["u"]))
        value = "u"
    node, params = norm(value, "n", 6)
    nodes += [node, h.make_node("Relu", ["n"], ["y"])]
    model = model_of(nodes, feeds, constants + params)
    after = run_pass(model, "fold_batch_norm")
    check_model(after, assert_same(model, after, feeds))
    ops = [n.op_type for n in after.graph.node]
    assert ops == ([op, "Add", "Relu"] if op == "MatMul" else [op, "Relu"])
    assert len(after.graph.initializer) == 2 and after.graph.initializer[0].name == "layer.weight"


@pytest.mark.parametrize("case", ["first", "after_concat", "in_a_sequence", "width_bias", "read_twice",
                                  "tied", "twice"])
def test_norm_that_must_take_care(run_pass, case):
    weight = [const("w", floats(4, 4, 1, 1))]
    conv = lambda to, source="x": h.make_node("Conv", [source, "w"], [to])
    node, params = norm("t", "n", 4)
    feeds, nodes, constants, left = IMAGE, [], weight, ["Mul", "Add"]
    if case == "first":
        nodes, constants = [norm("x", "n", 4)[0]], []
    elif case == "after_concat":
        node, params = norm("t", "n", 8)
        nodes = [conv("a"), h.make_node("Concat", ["a", "x"], ["t"], axis=1), node]
        left = ["Conv", "Concat", "Mul", "Add"]
    elif case == "in_a_sequence":
        feeds = {"x": floats(2, 4, 3)}
        constants = [const("w", floats(3, 4))]
        nodes = [h.make_node("MatMul", ["x", "w"], ["t"]), node]
        left = ["MatMul", "Mul", "Add"]
    elif case == "width_bias":
        feeds = {"x": floats(2, 4, 4, 4)}
        constants = weight + [const("k", floats(4))]
        nodes = [conv("s"), h.make_node("Add", ["s", "k"], ["t"]), node]
        left = ["Conv", "Add", "Mul", "Add"]
    elif case == "read_twice":
        nodes = [conv("t"), node, h.make_node("Mul", ["t", "n"], ["y"])]
        left = ["Conv", "Mul", "Add", "Mul"]
    elif case == "tied":
        other, more = norm("s", "m", 4, "other")
        params += more
        nodes = [conv("t"), node, conv("s", "n"), other, h.make_node("Relu", ["m"], ["y"])]
        left = ["Conv", "Conv", "Relu"]
    elif case == "twice":
        other, more = norm("n", "m", 4, "other")
        params += more
        nodes = [conv("t"), node, other, h.make_node("Relu", ["m"], ["y"])]
        left = ["Conv", "Relu"]
    if nodes[-1].output[0] != "y":
        nodes.append(h.make_node("Relu", ["n"], ["y"]))
        left = left + ["Relu"]
    model = model_of(nodes, feeds, constants + params)
    after = run_pass(model, "fold_batch_norm")
    assert [n.op_type for n in after.graph.node] == left
    assert_same(model, after, feeds)


@pytest.mark.parametrize("folder", ["fashion", "digits_cnn"])
def test_trained_networks_fold_to_their_twins(run_pass, folder):
    root = next((r for r in (CASES, FIXTURES) if (r / folder / "model_bn.onnx").exists()), None)
    if root is None:
        pytest.skip(f"no {folder}/model_bn.onnx in {CASES}; set FEWBITS_CASES to the folder of cases")
    twin = onnx.load(root / folder / "model.onnx")
    source = onnx.load(root / folder / "model_bn.onnx")
    after = run_pass(source, "fold_batch_norm", "cleanup")
    operators = lambda m: [n.op_type for n in m.graph.node if n.op_type not in ("Constant", "Cast")]
    assert operators(after) == operators(twin)
    assert {"Cast"} >= {n.op_type for n in after.graph.node} - set(operators(twin))
    weights = lambda m: {n.input[1] for n in m.graph.node if n.op_type == "Conv"}
    assert weights(after) == weights(source)
    data = np.load(next((root / folder).glob("test*.npz")))
    x = data[next(k for k in ("input", "images") if k in data)][:200].astype(np.float32)
    shape = [d.dim_value for d in twin.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"input": (x / np.abs(x).max()).reshape(-1, *shape[1:])}
    assert_same(source, after, feeds, 1e-4, 1e-4)
    assert_same(twin, after, feeds, 1e-4, 1e-4)


# Operator sets.

TARGETS = [13, 18, 21]
X4 = {"x": floats(2, 3, 4, 5)}
X2 = {"x": floats(3, 6)}


def node(op, inputs=("x",), outputs=("y",), **attributes):
    return h.make_node(op, list(inputs), list(outputs), **attributes)


def old_models():
    """name -> (opset, nodes, feeds, constants, output names)"""
    one = lambda opset, n, feeds=X4, constants=(), outputs=("y",): (opset, [n], feeds, constants, outputs)
    cases = {}
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for axis in (0, 1, 2, 3):
            cases[f"{op}_{axis}"] = one(9, node(op, axis=axis))
        cases[f"{op}_default"] = one(7, node(op), X2)
        cases[f"{op}_negative"] = one(11, node(op, axis=-2))
        cases[f"{op}_last"] = one(11, node(op, axis=-1))
    reductions = ["ReduceSum", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
                  "ReduceMin", "ReduceProd", "ReduceSumSquare"]
    for op in reductions:
        cases[op] = one(11, node(op, axes=[1, -1], keepdims=0))
        cases[f"{op}_all"] = one(8, node(op))
    positive = {"x": np.abs(X4["x"]) + 1}
    cases["ReduceLogSum"] = one(9, node("ReduceLogSum", axes=[2]), positive)
    thin = {"x": floats(1, 3, 1, 4)}
    cases |= {
        "Squeeze": one(7, node("Squeeze", axes=[0, 2]), thin),
        "Squeeze_all": one(11, node("Squeeze"), thin),
        "Unsqueeze": one(11, node("Unsqueeze", axes=[0, -1])),
        "Split": one(11, node("Split", outputs=["y", "z"], axis=1, split=[1, 2]), outputs=("y", "z")),
        "Split_equal": one(7, node("Split", outputs=["y", "z"], axis=2), outputs=("y", "z")),
        "Clip": one(7, node("Clip", min=-0.5, max=0.25)),
        "Clip_min": one(10, node("Clip", min=0.1)),
        "Clip_none": one(9, node("Clip")),
        "Pad": one(7, node("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=1.5)),
        "Pad_double": one(7, node("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=1.5),
                          {"x": X4["x"].astype(np.float64)}),
        "Pad_reflect": one(10, node("Pad", pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")),
        "Slice": one(7, node("Slice", starts=[1, -3], ends=[9, -1], axes=[1, 3])),
        "Slice_first": one(9, node("Slice", starts=[1], ends=[2])),
        "TopK": one(9, node("TopK", outputs=["y", "i"], k=2, axis=3)),
        "Upsample": one(7, node("Upsample", scales=[1.0, 1.0, 2.0, 3.0])),
        "Upsample_input": one(9, node("Upsample", ["x", "s"]),
                              constants=[const("s", np.float32([1, 1, 1.5, 2]))]),
        "Upsample_linear": one(9, node("Upsample", ["x", "s"], mode="linear"),
                               constants=[const("s", np.float32([1, 1, 2, 2.5]))]),
        "Resize_10": one(10, node("Resize", ["x", "s"]),
                         constants=[const("s", np.float32([1, 1, 2.5, 2]))]),
        "Resize_10_down": one(10, node("Resize", ["x", "s"]),
                              constants=[const("s", np.float32([1, 1, 0.5, 0.6]))]),
        "Resize_10_linear": one(10, node("Resize", ["x", "s"], mode="linear"),
                                constants=[const("s", np.float32([1, 1, 0.5, 2]))]),
        "Resize_11": one(11, node("Resize", ["x", "r", "s"], mode="cubic"),
                         constants=[const("r", floats(0)), const("s", np.float32([1, 1, 2, 2]))]),
        "Resize_11_sizes": one(11, node("Resize", ["x", "r", "s", "n"], mode="linear",
                                        coordinate_transformation_mode="align_corners"),
                               constants=[const("r", floats(0)), const("s", floats(0)),
                                          const("n", np.int64([2, 3, 7, 3]))]),
        "Resize_11_tf": one(11, node("Resize", ["x", "r", "s"], nearest_mode="floor",
                                     coordinate_transformation_mode="tf_half_pixel_for_nn"),
                            constants=[const("r", floats(0)), const("s", np.float32([1, 1, 1.7, 0.6]))]),
        "Resize_11_crop": one(11, node("Resize", ["x", "r", "s", "n"], mode="linear",
                                       coordinate_transformation_mode="tf_crop_and_resize"),
                              constants=[const("s", floats(0)), const("r", np.float32([0, 0, .1, .2, 1, 1, .8, .9])),
                                         const("n", np.int64([2, 3, 3, 3]))]),
        "Dropout": one(7, node("Dropout", ratio=0.3)),
        "Dropout_mask": one(10, node("Dropout", outputs=["y", "mask"], ratio=0.3)),
        "BatchNormalization": one(7, node("BatchNormalization", ["x", *"gbmv"], spatial=1),
                                  constants=[const(n, np.abs(floats(3)) + 0.1) for n in "gbmv"]),
        "Scatter": one(9, node("Scatter", ["x", "i", "u"], axis=1),
                       X2, [const("i", np.int64([[0, 3], [5, 1]])), const("u", floats(2, 2))]),
        "GridSample": one(16, node("GridSample", ["x", "g"], mode="bicubic"),
                          constants=[const("g", RNG.uniform(-1, 1, (2, 3, 3, 2)).astype(np.float32))]),
        "GridSample_default": one(16, node("GridSample", ["x", "g"]),
                                  constants=[const("g", RNG.uniform(-1, 1, (2, 3, 3, 2)).astype(np.float32))]),
        "DFT": one(17, node("DFT", axis=1), {"x": floats(2, 8, 1)}),
        "DFT_default": one(17, node("DFT", ["x", "n"]), {"x": floats(2, 5, 6, 1)}, [const("n", np.int64(4))]),
        "RoiAlign": one(10, node("RoiAlign", ["x", "r", "b"], output_height=2, output_width=2),
                        constants=[const("r", np.float32([[0, 0, 3, 3], [1, 1, 4, 2]])),
                                   const("b", np.int64([0, 1]))]),
        "DequantizeLinear": (10, [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                                  node("DequantizeLinear", ["q", "s", "z"])], X4,
                             [const("s", np.float32(0.02)), const("z", np.uint8(128))], ("y",)),
        "LSTM": one(7, node("LSTM", ["x", "w", "r"], ["y", "h"], hidden_size=3), {"x": floats(4, 2, 5)},
                    [const("w", floats(1, 12, 5)), const("r", floats(1, 12, 3))], ("y", "h")),
        "Gemm_MaxPool": (7, [node("MaxPool", outputs=["p"], kernel_shape=[2, 2]),
                             node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "w", "b"], ["g"]),
                             node("Softmax", ["g"])], X4,
                         [const("w", floats(36, 4)), const("b", floats(4))], ("y",)),
    }
    return cases


OLD = old_models()


@pytest.mark.parametrize("shapes", [True, False], ids=["shapes", "no_shapes"])
@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("name", OLD)
def test_upgraded_models_answer_alike(run_pass, name, to, shapes):
    opset, nodes, feeds, constants, outputs = OLD[name]
    if to <= opset:
        pytest.skip("newer already")
    out_type = h.np_dtype_to_tensor_dtype(feeds["x"].dtype)
    model = model_of(nodes, feeds, constants, opset, outputs, out_type, shapes)
    after = run_pass(model, f"upgrade_opset={to}")
    assert [(o.domain, o.version) for o in after.opset_import] == [("", to)]
    assert [i.name for i in after.graph.input] == list(feeds)
    got = assert_same(model, after, feeds)
    if shapes:
        check_model(after, got)


def test_group_normalization(run_pass):
    from onnx.reference import ReferenceEvaluator
    constants = [const("s", floats(2)), const("b", floats(2))]
    x = {"x": floats(2, 6, 3)}
    for shapes in (True, False):
        model = model_of([node("GroupNormalization", ["x", "s", "b"], num_groups=2)], x, constants, 18,
                         shapes=shapes)
        after = run_pass(model, "upgrade_opset=21")
        expected = ReferenceEvaluator(model).run(None, x)[0]
        np.testing.assert_allclose(answers(after, x)[0], expected, rtol=1e-5, atol=1e-5)


def test_subgraphs_are_upgraded(run_pass):
    branch = lambda op, axes: h.make_graph(
        [node(op, ["x"], ["u"], axes=axes, keepdims=0), node("Softmax", ["u"], ["o"], axis=1)], "b", [],
        [h.make_tensor_value_info("o", T.FLOAT, ["a", "b", "c"])])
    choose = h.make_node("If", ["c"], ["y"], then_branch=branch("ReduceSum", [0]),
                         else_branch=branch("ReduceMax", [1]))
    for flag in (True, False):
        feeds = {**X4, "c": np.array(flag)}
        model = model_of([choose], feeds, opset=11)
        after = run_pass(model, "upgrade_opset=18")
        check_model(after, assert_same(model, after, feeds))


REFUSED = {
    "spatial": (7, node("BatchNormalization", ["x", *"gbmv"], spatial=0),
                [const(n, np.abs(floats(3, 4, 5))) for n in "gbmv"]),
    "unknown_scales": (10, node("Resize", ["x", "s"]), []),
    "mixed_scales": (10, node("Resize", ["x", "s"]), [const("s", np.float32([1, 1, 2, 0.5]))]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_upgraded_is_named(run_pass, name):
    opset, n, constants = REFUSED[name]
    feeds = X4 if constants else {**X4, "s": np.float32([1, 1, 2, 2])}
    message = run_pass(model_of([n], feeds, constants, opset), "upgrade_opset=13", fails=True)
    assert f"node 'y' ({n.op_type})" in message and message.count("\n") == 1


def test_no_change_of_the_specification_is_missed(program):
    """Every operator whose inputs, outputs, attributes or defaults changed is in the table, or is
    known to mean the same without a rewrite."""
    listed = {tuple(line.split()) for line in
              subprocess.run([program, "--changes"], capture_output=True, text=True).stdout.splitlines()}
    same = {("MaxPool", "8"), ("Gemm", "11"), ("Constant", "11"), ("Pad", "18"), ("OptionalHasElement", "18"),
            ("Resize", "18"), ("Constant", "12")}
    history = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    default = lambda a: h.get_attribute_value(a.default_value) if a.default_value.name else None
    for name, schemas in history.items():
        schemas.sort(key=lambda s: s.since_version)
        for old, new in zip(schemas, schemas[1:]):
            if not 7 < new.since_version <= 23:
                continue
            key = (name, str(new.since_version))
            removed = set(old.attributes) - set(new.attributes)
            defaults = [a for a in set(old.attributes) & set(new.attributes)
                        if default(old.attributes[a]) != default(new.attributes[a])]
            shape = lambda s: ([str(i.option) for i in s.inputs], [str(o.option) for o in s.outputs])
            changed = removed or defaults or shape(old) != shape(new) or (new.deprecated and not old.deprecated)
            if changed and key not in same:
                assert key in listed, (key, removed, defaults, shape(old), shape(new))
