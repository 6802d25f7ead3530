"""What a type checker sees of every result: mypy reads this file, nothing runs it.

A function for every type asserts that of each of its attributes; `test_package_types.py` sees that none is
left out.
"""

from typing import Literal, assert_type

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

import fewbits as fb
from fewbits.guarded import LeftFloat, MetricDrop
from fewbits.measured import DropInterval, Environment, Latency, WorstOutput
from fewbits.planned import (
    Adjustment,
    Edit,
    Granularity,
    PlannedActivation,
    PlannedTensor,
    ReducedRange,
    Scheme,
    StaticScale,
    Tried,
)
from fewbits.results import Activation, Advised, FloatPoint, Point, Side, Stored, Tensor, Value
from fewbits.tuned import Best, Checked, Cost, FloatSide, Sensitivity, Slower

Metric = Literal["accuracy", "f1", "auc", "r2", "mae", "rmse", "perplexity", "agreement"]
Target = Literal["onnx", "onnxruntime", "openvino", "tensorrt", "tract", "generic"]
Rounding = Literal["nearest", "gptq", "hqq", "adaround"]
WeightRange = Literal["min_max", "mse"]
ScaleType = Literal["f32", "f16", "u8"]
Method = Literal["equalization", "smoothquant", "awq", "bias-correction"]


def calls(X: npt.NDArray[np.float64], y: npt.NDArray[np.int64]) -> None:
    q = fb.quantize("model.onnx", 8, X)
    assert_type(q, fb.Model)
    assert_type(fb.load("model.onnx"), fb.Model)
    assert_type(fb.plan("model.onnx"), fb.Plan)
    assert_type(fb.Plan.read("plan.json"), fb.Plan)
    assert_type(fb.Plan("{}"), fb.Plan)
    assert_type(fb.inspect(q), fb.Inspection)
    assert_type(fb.compare("model.onnx", q, X, y), fb.Comparison)
    assert_type(fb.tune("model.onnx", X, X, y, max_drop=0.01), fb.Tuned)
    sweep = fb.sweep("model.onnx", X, y)
    assert_type(sweep, fb.Sweep)
    assert_type(sweep.plot(), Axes)
    # By its key a field may be anything, which is not the same as everything.
    assert_type(sweep["metric"], object)
    # What is not there is an error: not everything is taken.
    sweep.verdit  # type: ignore[attr-defined]
    fb.sweeep  # type: ignore[attr-defined]


def model(x: fb.Model, X: npt.NDArray[np.float64], y: npt.NDArray[np.int64]) -> None:
    assert_type(x.plan, fb.Plan | None)
    assert_type(x.guarded, fb.Guarded | None)
    assert_type(x.file_bytes, int)
    assert_type(x.weight_bytes, int)
    assert_type(x.n_features_in_, int)
    assert_type(x.inspect(), fb.Inspection)
    assert_type(x.score(X, y), float)
    assert_type(x.predict_proba(X), npt.NDArray[np.float64])
    assert_type(x.decision_function(X), npt.NDArray[np.float64])
    assert_type(x.save("model.onnx"), int)
    assert_type(x.to_bytes(), bytes)


def comparison(x: fb.Comparison) -> None:
    assert_type(x.metric, Metric)
    assert_type(x.rows, int)
    assert_type(x.a, Side)
    assert_type(x.b, Side)
    assert_type(x.drop, float)
    assert_type(x.drop_interval, DropInterval | None)
    assert_type(x.agreement, float)
    assert_type(x.max_abs_error, float)
    assert_type(x.sqnr_db, float | None)
    assert_type(x.worst_output, WorstOutput | None)
    assert_type(x.verdict, str)
    assert_type(x.notes, list[str])
    assert_type(x.energy_note, str)
    assert_type(x.max_drop, float | None)
    assert_type(x.accepted, bool)


def side(x: Side) -> None:
    assert_type(x.path, str)
    assert_type(x.metric, float)
    assert_type(x.file_bytes, int)
    assert_type(x.weight_bytes, int)
    assert_type(x.latency_ms, Latency)
    assert_type(x.energy_j, float | None)
    assert_type(x.peak_rss_bytes, int | None)


def latency(x: Latency) -> None:
    assert_type(x.median, float)
    assert_type(x.p10, float)
    assert_type(x.p90, float)
    assert_type(x.calls, int)


def drop_interval(x: DropInterval) -> None:
    assert_type(x.low, float)
    assert_type(x.high, float)
    assert_type(x.confidence, float)
    assert_type(x.method, str)


def worst_output(x: WorstOutput) -> None:
    assert_type(x.name, str)
    assert_type(x.sqnr_db, float)


def sweep(x: fb.Sweep) -> None:
    assert_type(x.metric, Metric)
    assert_type(x.rows, int)
    assert_type(x.float, FloatPoint)
    assert_type(x.points, list[Point])
    assert_type(x.advised, Advised | None)
    assert_type(x.verdict, str)
    assert_type(x.notes, list[str])
    assert_type(x.environment, Environment)


def float_point(x: FloatPoint) -> None:
    assert_type(x.metric, float)
    assert_type(x.file_bytes, int)
    assert_type(x.weight_bytes, int)
    assert_type(x.latency_ms, float)


def point(x: Point) -> None:
    assert_type(x.bits, int)
    assert_type(x.metric, float)
    assert_type(x.drop, float)
    assert_type(x.agreement, float)
    assert_type(x.file_bytes, int)
    assert_type(x.weight_bytes, int)
    assert_type(x.latency_ms, float)
    assert_type(x.max_abs_error, float)
    assert_type(x.sqnr_db, float | None)
    assert_type(x.worst_output, WorstOutput | None)
    assert_type(x.quantized, int)
    assert_type(x.path, str | None)


def advised(x: Advised) -> None:
    assert_type(x.bits, int)
    assert_type(x.file_bytes, int)
    assert_type(x.metric, float)


def environment(x: Environment) -> None:
    assert_type(x.cpu, str | None)
    assert_type(x.kernels, str | None)
    assert_type(x.threads, int)
    assert_type(x.system, str)
    assert_type(x.fewbits, str)


def inspection(x: fb.Inspection) -> None:
    assert_type(x.path, str | None)
    assert_type(x.file_bytes, int)
    assert_type(x.weight_bytes, int)
    assert_type(x.stored, list[Stored])
    assert_type(x.opset, int)
    assert_type(x.producer, str)
    assert_type(x.inputs, list[Value])
    assert_type(x.outputs, list[Value])
    assert_type(x.operators, dict[str, int])
    assert_type(x.lowered, list[str])
    assert_type(x.not_lowered, list[str])
    assert_type(x.notes, list[str])
    assert_type(x.tensors, list[Tensor])
    assert_type(x.activations, list[Activation])
    assert_type(x.metadata, dict[str, str])


def value(x: Value) -> None:
    assert_type(x.name, str)
    assert_type(x.type, str | None)
    assert_type(x.shape, str)


def stored(x: Stored) -> None:
    assert_type(x.place, Literal["initializers", "nodes", "subgraphs", "functions"])
    assert_type(x.type, str | None)
    assert_type(x.tensors, int)
    assert_type(x.bytes, int)


def tensor(x: Tensor) -> None:
    assert_type(x.tensor, str)
    assert_type(x.shape, list[int])
    assert_type(x.bits, int)
    assert_type(x.scheme, str)
    assert_type(x.bytes, int)
    assert_type(x.min, float)
    assert_type(x.max, float)
    assert_type(x.role, Literal["weight", "bias", "constant"])


def activation(x: Activation) -> None:
    assert_type(x.value, str)
    assert_type(x.type, str)
    assert_type(x.scale, float)
    assert_type(x.zero_point, int)
    assert_type(x.min, float)
    assert_type(x.max, float)


def plan(x: fb.Plan) -> None:
    assert_type(x.fewbits_plan, int)
    assert_type(x.target, Target)
    assert_type(x.integer_weights, Literal["kept", "requantized"])
    assert_type(x.adjustments, list[Adjustment])
    assert_type(x.tried, list[Tried])
    assert_type(x.reduced, list[ReducedRange])
    assert_type(x.tensors, list[PlannedTensor])
    assert_type(x.activations, list[PlannedActivation])
    assert_type(x.kept_float, dict[str, str])
    assert_type(x.reduced_range, dict[str, list[int]])
    assert_type(x.to_json(), str)


def planned_tensor(x: PlannedTensor) -> None:
    assert_type(x.tensor, str)
    assert_type(x.shape, list[int])
    assert_type(x.read_by, list[str])
    assert_type(x.range, tuple[float, float] | None)
    assert_type(x.sqnr_db, float | None)
    assert_type(x.range_method, WeightRange)
    assert_type(x.rounding, Rounding)
    assert_type(x.scale_type, ScaleType)
    assert_type(x.reduce_range, Literal["auto", "all", "none"])
    assert_type(x.scheme, Scheme | None)
    assert_type(x.float, str | None)


def planned_activation(x: PlannedActivation) -> None:
    assert_type(x.value, str)
    assert_type(x.readers, Literal["all", "products"])
    assert_type(x.static, StaticScale | None)
    assert_type(x.float, str | None)
    assert_type(x.is_dynamic, bool)


def static_scale(x: StaticScale) -> None:
    assert_type(x.scheme, Scheme)
    assert_type(x.low, float)
    assert_type(x.high, float)
    assert_type(x.sqnr_db, float | None)


def scheme(x: Scheme) -> None:
    assert_type(x.kind, Literal["affine", "symmetric", "fixed-point", "float", "mx", "nvfp4"])
    assert_type(x.bits, int | None)
    assert_type(x.granularity, Granularity | None)
    assert_type(x.fraction_bits, int | None)
    assert_type(x.format, Literal["e4m3", "e5m2", "e2m1"] | None)
    assert_type(x.axis, int | None)


def granularity(x: Granularity) -> None:
    assert_type(x.kind, Literal["tensor", "channel", "group"])
    assert_type(x.axis, int | None)
    assert_type(x.size, int | None)


def adjustment(x: Adjustment) -> None:
    assert_type(x.method, Method)
    assert_type(x.edit, Edit)
    assert_type(x.values, list[float])


def edit(x: Edit) -> None:
    assert_type(x.kind, Literal["multiply", "add", "multiply_for_products"])
    assert_type(x.tensor, str | None)
    assert_type(x.axis, int | None)
    assert_type(x.value, str | None)


def tried(x: Tried) -> None:
    assert_type(x.methods, list[Method])
    assert_type(x.rounding, Rounding | None)
    assert_type(x.weight_range, WeightRange | None)
    assert_type(x.widths, Literal["kept_wide", "as_asked"] | None)
    assert_type(x.range, Literal["min_max", "mse", "entropy"] | dict[str, float] | None)
    assert_type(x.sqnr_db, float | None)
    assert_type(x.kept, bool)


def reduced_range(x: ReducedRange) -> None:
    assert_type(x.tensor, str)
    assert_type(x.channels, list[int])
    assert_type(x.why, str)


def guarded(x: fb.Guarded) -> None:
    assert_type(x.output_sqnr_db, dict[str, float | None] | None)
    assert_type(x.drop, MetricDrop | None)
    assert_type(x.rows, int)
    assert_type(x.evaluations, int)
    assert_type(x.left_float, list[LeftFloat])
    assert_type(x.notes, list[str])
    assert_type(x.warnings, list[str])


def metric_drop(x: MetricDrop) -> None:
    assert_type(x.metric, Metric)
    assert_type(x.before, float)
    assert_type(x.after, float)
    assert_type(x.drop, float)


def left_float(x: LeftFloat) -> None:
    assert_type(x.tensors, list[str])
    assert_type(x.layer, str | None)
    assert_type(x.output, str | None)
    assert_type(x.sqnr_db, float | None)


def tuned(x: fb.Tuned) -> None:
    assert_type(x.metric, Metric)
    assert_type(x.objective, Literal["size", "latency"])
    assert_type(x.rows, int)
    assert_type(x.max_drop, float)
    assert_type(x.float, FloatSide)
    assert_type(x.best, Best | None)
    assert_type(x.points, list[Checked])
    assert_type(x.sensitivity, list[Sensitivity])
    assert_type(x.slower, list[Slower])
    assert_type(x.complete, bool)
    assert_type(x.notes, list[str])
    assert_type(x.verdict, str)
    assert_type(x.model, fb.Model | None)


def float_side(x: FloatSide) -> None:
    assert_type(x.metric, float)
    assert_type(x.file_bytes, int)
    assert_type(x.weight_bytes, int)
    assert_type(x.latency_ms, float | None)


def checked(x: Checked) -> None:
    assert_type(x.bits, float)
    assert_type(x.metric, float)
    assert_type(x.drop, float)
    assert_type(x.drop_interval, tuple[float, float] | None)
    assert_type(x.expected_regret, float | None)
    assert_type(x.agreement, float)
    assert_type(x.worst_output, WorstOutput | None)
    assert_type(x.file_bytes, int)
    assert_type(x.weight_bytes, int)
    assert_type(x.latency_ms, float)


def best(x: Best) -> None:
    checked(x)
    assert_type(x.plan, fb.Plan)


def sensitivity(x: Sensitivity) -> None:
    assert_type(x.tensor, str)
    assert_type(x.costs, list[Cost])


def cost(x: Cost) -> None:
    assert_type(x.scheme, Scheme)
    assert_type(x.range_method, WeightRange)
    assert_type(x.rounding, Rounding)
    assert_type(x.scale_type, ScaleType)
    assert_type(x.file_bytes_saved, int)
    assert_type(x.divergence, float)
    assert_type(x.output_error, float | None)
    assert_type(x.drop, float | None)


def slower(x: Slower) -> None:
    assert_type(x.what, Literal["operator", "model"])
    assert_type(x.operator, str | None)
    assert_type(x.integers_us, float)
    assert_type(x.float_us, float)
