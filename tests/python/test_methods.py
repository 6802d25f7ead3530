"""Equalization, SmoothQuant, AWQ and bias correction: what they bring back, and what they leave alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Fewbits
from models import FIXTURES, assert_standard
from nets import (
    LAYERS,
    OUTLIERS,
    WIDTH,
    Arrays,
    constants,
    images,
    nodes_of,
    ops,
    run,
    scale_channels,
    separable,
    separable_weights,
    sequences,
    sqnr_db,
    transformer,
)
from onnx import helper, numpy_helper

METHODS = ["equalization", "smoothquant", "awq", "bias-correction"]
CONVOLUTIONS = list(LAYERS)[:-1]


def quantize(
    fewbits: Fewbits, model: Path, out: Path, *options: object, rows: Arrays | None = None
) -> dict[str, Any]:
    """Quantizes, with the recipe `static` if there are rows and no other is given; the plan."""
    plan = out.with_suffix(".json")
    command = ["quantize", model, "-o", out, "--save-plan", plan, "--force", *options]
    if rows is not None:
        calib = out.with_suffix(".npz")
        np.savez(calib, **rows)
        command += ["--calibrate", calib]
        command += [] if "--recipe" in options else ["--recipe", "static"]
        # What methods do is seen where no layer is left float for its accuracy.
        command += ["--min-sqnr", "none"]
    fewbits(*command).assert_done()
    assert_standard(out)
    return json.loads(plan.read_text())


def adjusted(model: Path, plan: dict[str, Any]) -> bytes:
    """The float model with only the adjustments of a plan."""
    proto = onnx.load(model)
    arrays = constants(proto)
    for number, adjustment in enumerate(plan["adjustments"]):
        [(kind, edit)] = adjustment["edit"].items()
        values = np.array(adjustment["values"], np.float32)
        if kind == "multiply_for_products":
            factors, scaled = f"factors{number}", f"{edit['value']}_by_factors"
            for node in proto.graph.node:
                if node.op_type in ("MatMul", "Gemm") and node.input[0] == edit["value"]:
                    node.input[0] = scaled
            makers = [i for i, n in enumerate(proto.graph.node) if edit["value"] in n.output]
            mul = helper.make_node("Mul", [edit["value"], factors], [scaled])
            proto.graph.node.insert(makers[0] + 1 if makers else 0, mul)
            arrays[factors] = values
            continue
        array = arrays[edit["tensor"]]
        along = [1] * array.ndim
        along[edit["axis"]] = -1
        values = values.reshape(along)
        arrays[edit["tensor"]] = array * values if kind == "multiply" else array + values
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    return proto.SerializeToString()


def methods_of(plan: dict[str, Any]) -> set[str]:
    return {adjustment["method"] for adjustment in plan.get("adjustments", [])}


def largest_of_channels(model: Path) -> dict[str, np.ndarray]:
    rows = {"x": np.concatenate([images(48, seed)["x"] for seed in (1, 2)])}
    values = run(model, rows, [f"{name}_out" for name in CONVOLUTIONS])
    return {name: value.max((0, 2, 3)) for name, value in zip(CONVOLUTIONS, values)}


@pytest.fixture
def well_scaled(tmp_path: Path) -> Path:
    return separable(tmp_path / "well.onnx", separable_weights())


@pytest.fixture
def badly_scaled(tmp_path: Path, well_scaled: Path) -> Path:
    """The same function, the channels of every layer multiplied by 1/30 to 30."""
    rng, weights = np.random.default_rng(3), separable_weights()
    for name in CONVOLUTIONS:
        scale_channels(weights, name, 30.0 ** rng.uniform(-1, 1, LAYERS[name]))
    model = separable(tmp_path / "badly.onnx", weights)
    rows = images(16, 2)
    assert sqnr_db(run(well_scaled, rows)[0], run(model, rows)[0]) > 100
    return model


class TestEqualization:
    def test_bad_scales_are_undone(
        self, fewbits: Fewbits, tmp_path: Path, well_scaled: Path, badly_scaled: Path
    ) -> None:
        rows, test = images(48, 1), images(48, 2)
        expected = run(well_scaled, test)[0]

        def sqnr(model: Path, *options: object) -> float:
            quantize(fewbits, model, tmp_path / "q.onnx", *options, rows=rows)
            return sqnr_db(expected, run(tmp_path / "q.onnx", test)[0])

        plain = sqnr(well_scaled, "--methods", "none")
        assert plain > 30
        assert sqnr(badly_scaled, "--methods", "none") < 10
        assert sqnr(badly_scaled, "--methods", "equalization") > plain - 3
        assert sqnr(badly_scaled) > plain - 1

    def test_the_plan_says_so(self, fewbits: Fewbits, tmp_path: Path, badly_scaled: Path) -> None:
        plan = quantize(fewbits, badly_scaled, tmp_path / "q.onnx", rows=images(48, 1))
        assert "equalization" in methods_of(plan)
        # From the plainest on, each with what came before.
        first, *later = plan["tried"]
        assert first["methods"] == [] and first["kept"]
        with_it = [t for t in later if t["methods"] == ["equalization"]]
        assert with_it[0]["kept"] and with_it[0]["sqnr_db"] > first["sqnr_db"] + 20
        assert all(t["methods"] and not set(t["methods"]) - set(METHODS) for t in later)
        command = ["quantize", badly_scaled, "--recipe", "static", "--dry-run"]
        command += ["--calibrate", tmp_path / "q.npz"]
        assert fewbits(*command, "--json").assert_done().json() == plan
        said = fewbits(*command).assert_done().out
        assert "equalization" in said and "kept" in said

    def test_what_is_asked_for_is_done_where_nothing_can_be_measured(
        self, fewbits: Fewbits, tmp_path: Path, badly_scaled: Path
    ) -> None:
        # The executor lacks the last operator, so the outputs cannot be computed.
        proto = onnx.load(badly_scaled)
        [output] = proto.graph.output
        proto.graph.node.append(onnx.helper.make_node("Unique", [output.name], ["unique"]))
        output.name = "unique"
        onnx.save(proto, badly_scaled)
        out, rows = tmp_path / "q.onnx", images(48, 1)
        plan = quantize(fewbits, badly_scaled, out, "--methods", "equalization", rows=rows)
        assert methods_of(plan) == {"equalization"}
        assert methods_of(quantize(fewbits, badly_scaled, out, rows=rows)) == set()

    def test_only_what_is_asked_for(
        self, fewbits: Fewbits, tmp_path: Path, badly_scaled: Path
    ) -> None:
        out, rows = tmp_path / "q.onnx", images(48, 1)
        for ranges in ("auto", "minmax"):
            options = ["--range", ranges, "--methods"]
            plan = quantize(fewbits, badly_scaled, out, *options, "equalization", rows=rows)
            assert methods_of(plan) == {"equalization"}
            once = out.read_bytes()
            # Listed twice it is done once.
            quantize(fewbits, badly_scaled, out, *options, "equalization,equalization", rows=rows)
            assert out.read_bytes() == once
            assert not methods_of(quantize(fewbits, badly_scaled, out, *options, "none", rows=rows))

    def test_the_float_model_stays_as_it_is(
        self, fewbits: Fewbits, tmp_path: Path, badly_scaled: Path
    ) -> None:
        options = ["--methods", "equalization"]
        plan = quantize(fewbits, badly_scaled, tmp_path / "q.onnx", *options, rows=images(48, 1))
        assert len(plan["adjustments"]) > len(CONVOLUTIONS)
        test = images(16, 9)
        before, after = (run(m, test)[0] for m in (badly_scaled, adjusted(badly_scaled, plan)))
        assert sqnr_db(before, after) > 100

    def test_a_clip_between(self, fewbits: Fewbits, tmp_path: Path) -> None:
        """Only channels that stay below the bound of a Clip can be scaled, and only so far."""
        weights, rng = separable_weights(), np.random.default_rng(4)
        well = separable(tmp_path / "well.onnx", weights, 6.0)
        largest = largest_of_channels(well)
        for name in CONVOLUTIONS:
            most = np.maximum(largest[name], 0.1)
            factors = np.minimum(30.0 ** rng.uniform(-1, 1, LAYERS[name]), 5.9 / most)
            scale_channels(weights, name, np.where(most < 5.9, factors, 1))
        badly = separable(tmp_path / "badly.onnx", weights, 6.0)
        rows, test = images(48, 1), images(48, 2)
        expected = run(well, test)[0]
        assert sqnr_db(expected, run(badly, test)[0]) > 100
        out = tmp_path / "q.onnx"
        sqnr = {}
        for method in ("none", "auto"):
            plan = quantize(fewbits, badly, out, "--methods", method, rows=rows)
            sqnr[method] = sqnr_db(expected, run(out, test)[0])
        quantize(fewbits, well, out, "--methods", "none", rows=rows)
        plain = sqnr_db(expected, run(out, test)[0])
        assert sqnr["none"] < plain - 10
        assert sqnr["auto"] > plain - 3
        assert "equalization" in methods_of(plan)
        # Nothing that was seen is cut off by the bound, though the mean hides how near it comes.
        options = ["--methods", "equalization"]
        plan = quantize(fewbits, badly, out, *options, rows=rows)
        before, after = (run(m, rows)[0] for m in (badly, adjusted(badly, plan)))
        assert sqnr_db(before, after) > 100


class TestSmoothQuant:
    @pytest.mark.parametrize("data", ["static", "dynamic", "dynamic without data"])
    @pytest.mark.parametrize("spelled", [False, True], ids=["op", "spelled"])
    @pytest.mark.parametrize(("order", "layers"), [("pre", 2), ("post", 3)])
    def test_outliers_are_evened_out(
        self,
        fewbits: Fewbits,
        tmp_path: Path,
        order: str,
        layers: int,
        spelled: bool,
        data: str,
    ) -> None:
        model = transformer(tmp_path / "m.onnx", order, spelled, layers, OUTLIERS)
        recipe, with_data = data.split()[0], "without" not in data
        rows = sequences(24, 1) if with_data else None
        test = sequences(24, 2)
        expected = run(model, test)[0]
        sqnr, counts, plans = {}, {}, {}
        for method in ("none", "smoothquant", "auto"):
            out = tmp_path / f"{method}.onnx"
            options = ["--recipe", recipe, "--methods", method]
            plans[method] = quantize(fewbits, model, out, *options, rows=rows)
            sqnr[method] = sqnr_db(expected, run(out, test)[0])
            counts[method] = ops(out)
        assert sqnr["none"] < 15
        assert sqnr["smoothquant"] > sqnr["none"] + 12
        assert sqnr["auto"] > sqnr["none"] + 12
        plan = plans["smoothquant"]
        assert methods_of(plan) == {"smoothquant"}
        assert "smoothquant" in methods_of(plans["auto"])
        # Whatever is read by products alone takes the factors into the norm that makes it.
        edits = [adjustment["edit"] for adjustment in plan["adjustments"]]
        scaled = {e["multiply_for_products"]["value"] for e in edits if "multiply_for_products" in e}
        tensors = {e["multiply"]["tensor"] for e in edits if "multiply" in e}
        last = "Add" if spelled else "LayerNormalization"
        made = nodes_of(model, last)
        norms = {n.output[0] for n in made if n.input[1].endswith(("_gamma", "_beta"))}
        assert norms
        parameters = {t for t in tensors if t.endswith(("gamma", "beta"))}
        if order == "pre":
            assert not scaled & norms
            assert {"norm0a_gamma", "norm0a_beta", "norm1b_gamma", "last_beta"} <= parameters
            assert with_data or not scaled
        else:
            # The last norm is the only one without a residual addition behind it.
            assert scaled & norms
            assert parameters <= {f"norm{layers - 1}b_{p}" for p in ("gamma", "beta")}
        for op in set(counts["none"]) | set(counts["smoothquant"]):
            added = len(scaled) if op == "Mul" else 0
            assert counts["smoothquant"].count(op) == counts["none"].count(op) + added, op
        before, after = (run(m, test)[0] for m in (model, adjusted(model, plan)))
        assert sqnr_db(before, after) > 90

    @pytest.mark.parametrize("bits", [1, 2])
    def test_the_narrowest_weights(self, fewbits: Fewbits, tmp_path: Path, bits: int) -> None:
        """Factors are found for one bit, too, whose integers are -1 and 1."""
        model = transformer(tmp_path / "m.onnx", outliers=OUTLIERS)
        options = ["--recipe", "dynamic", "--bits", bits, "--methods", "smoothquant"]
        plan = quantize(fewbits, model, tmp_path / "q.onnx", *options, rows=sequences(24, 1))
        assert methods_of(plan) == {"smoothquant"}

    def test_nothing_is_done_without_outliers(self, fewbits: Fewbits, tmp_path: Path) -> None:
        model = transformer(tmp_path / "m.onnx")
        plain, auto = tmp_path / "plain.onnx", tmp_path / "auto.onnx"
        quantize(fewbits, model, plain, "--recipe", "dynamic", "--methods", "none")
        plan = quantize(fewbits, model, auto, "--recipe", "dynamic")
        assert "adjustments" not in plan
        assert auto.read_bytes() == plain.read_bytes()


class TestBiasCorrection:
    def test_the_mean_comes_back(
        self, fewbits: Fewbits, tmp_path: Path, well_scaled: Path
    ) -> None:
        rows, test, out = images(48, 1), images(48, 2), tmp_path / "q.onnx"
        expected = run(well_scaled, test)[0]
        error = {}
        for method in ("none", "bias-correction", "auto"):
            options = ["--recipe", "weights", "--bits", 3, "--methods", method]
            options += ["--rounding", "nearest"]
            plan = quantize(fewbits, well_scaled, out, *options, rows=rows)
            known = {"none": set()}
            # AWQ may come before it.
            assert methods_of(plan) - {"awq"} == known.get(method, {"bias-correction"})
            error[method] = np.abs((run(out, test)[0] - expected).mean(0)).mean()
        assert error["bias-correction"] < error["none"] / 2
        assert error["auto"] < error["none"] / 2
        corrections = [a for a in plan["adjustments"] if a["method"] == "bias-correction"]
        tensors = {next(iter(a["edit"].values()))["tensor"] for a in corrections}
        assert tensors == {f"{name}_b" for name in LAYERS}

    def test_not_without_data(self, fewbits: Fewbits, tmp_path: Path, well_scaled: Path) -> None:
        out, plain = tmp_path / "q.onnx", tmp_path / "plain.onnx"
        options = ["--recipe", "weights", "--bits", 3]
        plan = quantize(fewbits, well_scaled, out, *options)
        assert "adjustments" not in plan and "tried" not in plan
        quantize(fewbits, well_scaled, plain, *options, "--methods", "none")
        assert out.read_bytes() == plain.read_bytes()


class TestPadding:
    @staticmethod
    def rows(mask: str, seed: int, outlier: float) -> Arrays:
        """Sequences of 3 to 8 tokens; one channel of what fills them up is far off."""
        rows = sequences(24, seed)
        lengths = np.random.default_rng(seed).integers(3, 9, 24)
        rows[mask] = (np.arange(8) < lengths[:, None]).astype(np.int64)
        rows["x"][rows[mask] == 0] = np.eye(WIDTH, dtype=np.float32)[0] * outlier
        return rows

    def test_it_does_not_stretch_ranges(self, fewbits: Fewbits, tmp_path: Path) -> None:
        model, written = transformer(tmp_path / "m.onnx", mask="attention_mask"), []
        for outlier in (0.5, 1000):
            out = tmp_path / f"{outlier}.onnx"
            quantize(fewbits, model, out, rows=self.rows("attention_mask", 1, outlier))
            written.append(out.read_bytes())
        assert written[0] == written[1]

    def test_a_mask_of_another_name_is_not_known(self, fewbits: Fewbits, tmp_path: Path) -> None:
        """That the test above can fail: the same values, the mask not recognized."""
        ranges = {}
        for mask in ("attention_mask", "present"):
            model = transformer(tmp_path / f"{mask}.onnx", mask=mask)
            rows, out = self.rows(mask, 1, 1000), tmp_path / "q.onnx"
            plan = quantize(fewbits, model, out, "--methods", "none", "--range", "minmax", rows=rows)
            first = next(a for a in plan["activations"] if "static" in a)
            ranges[mask] = first["static"]["high"]
        assert ranges["present"] > 1.3 * ranges["attention_mask"]

    def test_compare_does_not_count_it(self, fewbits: Fewbits, tmp_path: Path) -> None:
        model, out = transformer(tmp_path / "m.onnx", mask="attention_mask"), tmp_path / "q.onnx"
        quantize(fewbits, model, out, rows=self.rows("attention_mask", 1, 1000))
        rows = self.rows("attention_mask", 2, 1000)
        np.savez(tmp_path / "test.npz", **rows)
        command = ["compare", model, out, "--data", tmp_path / "test.npz", "--json"]
        said = fewbits(*command, "--metric", "agreement").assert_done().json()
        a, b = (run(m, rows)[0] for m in (model, out))
        tokens = rows["attention_mask"] == 1
        worst = np.abs(a - b)[tokens].max()
        assert np.abs(a - b).max() > 2 * worst
        assert said["max_abs_error"] == pytest.approx(worst, rel=0.05)
        assert said["sqnr_db"] == pytest.approx(sqnr_db(a[tokens], b[tokens]), abs=0.3)


class TestAwq:
    OPTIONS = ["--recipe", "weights", "--bits", 4, "--granularity", "group=16"]

    @pytest.mark.parametrize("rounding", ["nearest", "auto"])
    @pytest.mark.parametrize("order", ["pre", "post"])
    def test_strong_channels_are_rounded_finely(
        self, fewbits: Fewbits, tmp_path: Path, order: str, rounding: str
    ) -> None:
        model = transformer(tmp_path / "m.onnx", order, outliers=OUTLIERS)
        rows, test = sequences(48, 1), sequences(24, 2)
        expected = run(model, test)[0]
        options = [*self.OPTIONS, "--rounding", rounding]
        sqnr, plans, counts = {}, {}, {}
        for method in ("none", "awq", "auto"):
            out = tmp_path / f"{method}.onnx"
            plans[method] = quantize(fewbits, model, out, *options, "--methods", method, rows=rows)
            sqnr[method] = sqnr_db(expected, run(out, test)[0])
            counts[method] = ops(out).count("Mul")
        assert sqnr["awq"] > sqnr["none"] + 2
        assert sqnr["auto"] > sqnr["none"] + 2
        assert methods_of(plans["awq"]) == {"awq"} <= methods_of(plans["auto"])
        before, after = (run(m, test)[0] for m in (model, adjusted(model, plans["awq"])))
        assert sqnr_db(before, after) > 90
        # Only what another reader stands beside costs a Mul.
        edits = [adjustment["edit"] for adjustment in plans["awq"]["adjustments"]]
        scaled = sum("multiply_for_products" in edit for edit in edits)
        assert counts["awq"] == counts["none"] + scaled
        tensors = {e["multiply"]["tensor"] for e in edits if "multiply" in e}
        if order == "pre":
            assert {"norm0a_gamma", "norm0a_beta", "norm1b_gamma"} <= tensors
        # Query, key and value share what they read.
        shared = {f"att{layer}_{p}" for layer in (0, 1) for p in "qkv"}
        assert len(shared & tensors) % 3 == 0 and shared & tensors

    def test_layers_before_take_the_factors(self, fewbits: Fewbits, tmp_path: Path) -> None:
        """Of a feed-forward part, whose `Relu` lets factors through."""
        weights, rng = separable_weights(), np.random.default_rng(4)
        for name in CONVOLUTIONS:
            scale_channels(weights, name, 30.0 ** rng.uniform(-1, 1, LAYERS[name]))
        model = separable(tmp_path / "m.onnx", weights)
        options = ["--recipe", "weights", "--bits", 4, "--granularity", "tensor", "--methods", "awq"]
        plan = quantize(fewbits, model, tmp_path / "q.onnx", *options, rows=images(48, 1))
        assert methods_of(plan) == {"awq"}
        assert not any("multiply_for_products" in a["edit"] for a in plan["adjustments"])
        test = images(16, 9)
        before, after = (run(m, test)[0] for m in (model, adjusted(model, plan)))
        assert sqnr_db(before, after) > 90

    @pytest.mark.parametrize("options", [["--recipe", "static"], ["--recipe", "dynamic"]])
    def test_only_where_activations_stay_float(
        self, fewbits: Fewbits, tmp_path: Path, options: list[str]
    ) -> None:
        model = transformer(tmp_path / "m.onnx", outliers=OUTLIERS)
        options = [*options, "--methods", "awq"]
        plan = quantize(fewbits, model, tmp_path / "q.onnx", *options, rows=sequences(24, 1))
        assert "adjustments" not in plan

    def test_eight_bits_must_ask_for_it(self, fewbits: Fewbits, tmp_path: Path) -> None:
        model = transformer(tmp_path / "m.onnx", outliers=OUTLIERS)
        options = ["--recipe", "weights", "--granularity", "group=16"]
        rows = sequences(24, 1)
        plan = quantize(fewbits, model, tmp_path / "q.onnx", *options, rows=rows)
        assert "awq" not in methods_of(plan)
        asked = quantize(fewbits, model, tmp_path / "q.onnx", *options, "--methods", "awq", rows=rows)
        assert methods_of(asked) == {"awq"}


class TestActivationBits:
    @pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
    def test_every_width(
        self, fewbits: Fewbits, tmp_path: Path, well_scaled: Path, target: str
    ) -> None:
        rows, test, out = images(48, 1), images(48, 2), tmp_path / "q.onnx"
        expected = run(well_scaled, test)[0]
        sqnr = []
        for bits in range(2, 9):
            options = ["--act-bits", bits, "--target", target]
            quantize(fewbits, well_scaled, out, *options, rows=rows)
            quantized = [node.output[0] for node in nodes_of(out, "QuantizeLinear")]
            assert len(quantized) > 4
            # Far beyond the ranges the integers stay inside their bounds, too.
            wide = {"x": 20 * test["x"]}
            integers = run(out, wide, quantized)
            low, high = (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
            if target == "onnxruntime":
                low, high = 0, 2**bits - 1
            elif bits == 8:
                low = -128
            assert all(low <= i.min() and i.max() <= high for i in integers)
            assert max(i.max() for i in integers) == high
            sqnr.append(sqnr_db(expected, run(out, test)[0]))
        assert all(more > less - 1 for less, more in zip(sqnr, sqnr[1:])), sqnr
        assert sqnr[-1] > sqnr[0] + 24, sqnr

    @pytest.mark.parametrize("bits", [1, 9])
    def test_no_others(self, fewbits: Fewbits, tmp_path: Path, well_scaled: Path, bits: int) -> None:
        np.savez(tmp_path / "calib.npz", **images(4, 1))
        out = tmp_path / "q.onnx"
        command = ["quantize", well_scaled, "-o", out, "--recipe", "static", "--act-bits", bits]
        result = fewbits(*command, "--calibrate", tmp_path / "calib.npz")
        assert result.code == 2, result.report()
        assert "2 to 8" in result.err or "1 to 8" in result.err, result.report()
        assert "panicked" not in result.err and not out.exists()


class TestPlans:
    def test_an_unknown_method(self, fewbits: Fewbits, tmp_path: Path, well_scaled: Path) -> None:
        out = tmp_path / "q.onnx"
        result = fewbits("quantize", well_scaled, "-o", out, "--methods", "gptq")
        assert result.code == 2, result.report()
        line = result.err.splitlines()[0]
        assert line.startswith("error:") and "gptq" in line
        assert all(name in line for name in [*METHODS, "auto", "none"])
        assert not out.exists()

    @pytest.mark.parametrize("recipe", ["static", "dynamic", "weights"])
    def test_carried_out_again(self, fewbits: Fewbits, tmp_path: Path, recipe: str) -> None:
        model = transformer(tmp_path / "m.onnx", "post", outliers=OUTLIERS)
        out, again = tmp_path / "q.onnx", tmp_path / "again.onnx"
        options = ["--recipe", recipe, "--bits", 8 if recipe != "weights" else 4]
        # Other rounding learns from the data, which a plan does not hold: test_rounding.py.
        options += ["--rounding", "nearest"]
        plan = quantize(fewbits, model, out, *options, rows=sequences(16, 1))
        assert plan["adjustments"]
        fewbits("quantize", model, "-o", again, "--plan", tmp_path / "q.json").assert_done()
        assert again.read_bytes() == out.read_bytes()

    def test_threads_do_not_matter(
        self, fewbits: Fewbits, tmp_path: Path, badly_scaled: Path
    ) -> None:
        smooth = transformer(tmp_path / "smooth.onnx", "post", outliers=OUTLIERS)
        for model, rows in ((badly_scaled, images(40, 1)), (smooth, sequences(16, 1))):
            written = []
            for threads in (1, 2):
                out = tmp_path / "q.onnx"
                plan = quantize(fewbits, model, out, "--threads", threads, rows=rows)
                assert len(plan["tried"]) > 2
                written.append((plan, out.read_bytes()))
            assert written[0] == written[1]

    WRONG = {
        "tensor": lambda a: a["edit"]["multiply"].update(tensor="nowhere"),
        "axis": lambda a: a["edit"]["multiply"].update(axis=7),
        "length": lambda a: a["values"].pop(),
        "value": lambda a: a.update(edit={"multiply_for_products": {"value": "nowhere"}}),
        "kind": lambda a: a.update(edit={"divide": {"tensor": "stem"}}),
        "method": lambda a: a.update(method="gptq"),
    }

    @pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
    def test_a_wrong_adjustment(
        self, fewbits: Fewbits, tmp_path: Path, badly_scaled: Path, wrong: Any
    ) -> None:
        plan = quantize(fewbits, badly_scaled, tmp_path / "q.onnx", rows=images(16, 1))
        wrong(plan["adjustments"][0])
        path, out = tmp_path / "wrong.json", tmp_path / "wrong.onnx"
        path.write_text(json.dumps(plan))
        fewbits("quantize", badly_scaled, "-o", out, "--plan", path).assert_refused(1)
        assert not out.exists()

    def test_a_value_scaled_for_products_by_too_few(
        self, fewbits: Fewbits, tmp_path: Path
    ) -> None:
        model = transformer(tmp_path / "m.onnx", "post", outliers=OUTLIERS)
        plan = quantize(fewbits, model, tmp_path / "q.onnx", rows=sequences(16, 1))
        for adjustment in plan["adjustments"]:
            if "multiply_for_products" in adjustment["edit"]:
                adjustment["values"].pop()
        path, out = tmp_path / "wrong.json", tmp_path / "wrong.onnx"
        path.write_text(json.dumps(plan))
        fewbits("quantize", model, "-o", out, "--plan", path).assert_refused(1)
        assert not out.exists()


class TestInputs:
    def test_columns_of_any_scale_are_not_quantized_unseen(
        self, fewbits: Fewbits, tmp_path: Path
    ) -> None:
        model, data = FIXTURES / "breast_cancer/raw_logreg.onnx", FIXTURES / "breast_cancer/test.npz"
        out = tmp_path / "q.onnx"
        for options in (["--calibrate", data], []):
            command = ["quantize", model, "-o", out, "--recipe", "dynamic", "--force", *options]
            said = fewbits(*command, "--json").assert_done().json()
            whys = [kept["why"] for kept in said["kept_float"]]
            assert any("--calibrate" in why for why in whys) == (not options)
            assert ("DynamicQuantizeLinear" in ops(out)) == bool(options)
            compared = fewbits("compare", model, out, "--data", data, "--max-drop", "0.01", "--json")
            compared.assert_done()
