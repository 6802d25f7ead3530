"""Is what the binary answers, for a case and a recipe, what the file means?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from meaning import default_session, meaning

from random_graphs.builder import Arrays
from random_graphs.generate import SMALL, Case, stable
from random_graphs.pieces import (
    NEAR_A_TIE,
    NEAR_A_TIE_IN_HALF,
    dynamic_quantizers,
    judged,
    quantizers,
)
from random_graphs.tool import RECIPES, Fault, Refused, Tool

FLOAT = "float"
# Of the largest output, for files without quantized activations; where there are float16, theirs.
CLOSE, CLOSE_IN_HALF = 1e-4, 5e-3
# Of the quantization noise, and of the outputs: DynamicQuantizeMatMul does not show its integers.
OF_NOISE, OF_OUTPUT = 0.5, 0.003
# One after the other: threads and CPU.
ELSEWHERE = ((2, None), (1, "scalar"), (1, "avx2"))


@dataclass
class Verdict:
    """What came of a case and a recipe."""

    faults: list[Fault] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    judged: int = 0
    # Files that change by themselves where their weights hardly do.
    unstable: int = 0


class Judge:
    """Judges cases, with files in a folder."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.tool = Tool(binary, folder)
        self.folder = folder
        # Whether the file that is being judged promises the same bits everywhere.
        self.exact = False

    def case(self, case: Case, recipes: Sequence[str] = tuple(RECIPES)) -> dict[str, Verdict]:
        """A verdict for the float model, and for each recipe unless that is wrong already."""
        found = {FLOAT: self.one(case, FLOAT)}
        if all(fault.kind == "rows" for fault in found[FLOAT].faults):
            found |= {recipe: self.one(case, recipe) for recipe in recipes if recipe != FLOAT}
        return found

    def one(self, case: Case, recipe: str) -> Verdict:
        verdict = Verdict()
        path = self.folder / "float.onnx"
        path.write_bytes(case.model.SerializeToString())
        np.savez(self.folder / "calibration.npz", **case.calibration)
        try:
            if recipe != FLOAT:
                out = self.folder / "quantized.onnx"
                self.tool.quantize(path, self.folder / "calibration.npz", recipe, out)
                path = out
                self._check(path)
            verdict.judged += 1
            self._answers(case, path, verdict)
        except Refused as refused:
            verdict.refusals.append(str(refused))
        except Fault as fault:
            verdict.faults.append(fault)
        return verdict

    def _check(self, path: Path) -> None:
        try:
            onnx.checker.check_model(str(path), full_check=True)
        except Exception as error:
            raise Fault("checker", " ".join(str(error).split())[:300]) from error
        refusal = _refusal(path)
        # What is refused of the user's own model is not our fault.
        if refusal and not _refusal(self.folder / "float.onnx"):
            raise Fault("load", refusal)

    def _answers(self, case: Case, path: Path, verdict: Verdict) -> None:
        self.exact = self.tool.exact(path)
        whole = self._at(case, path, case.rows, verdict)
        if case.fixed is None:
            rows = {name: array[:SMALL] for name, array in case.rows.items()}
            few = self._at(case, path, rows, verdict)
            self._same_rows(case, path, whole, few)
        data = self.folder / "rows.npz"
        np.savez(data, **case.many)
        many = self.tool.run(path, data, whole=False)
        if case.fixed is None:
            self._same_rows(case, path, many, whole)
        self._many_rows(case, onnx.load(path), many)

    def _many_rows(self, case: Case, model: onnx.ModelProto, answer: Arrays) -> None:
        """More rows than are taken at once mean the same.

        Of a fixed batch: what it means for one batch after the other. Files with quantized
        activations are not asked: how far they may be off depends on the rows.
        """
        if quantizers(model) or is_dynamic(model) or not case.many:
            return
        count = len(next(iter(case.many.values()), np.zeros(0)))
        step = case.fixed or max(count, 1)
        parts = [
            Check(case, model, {n: a[at : at + step] for n, a in case.many.items()})
            for at in range(0, count, step)
        ]
        means = [part.expected() for part in parts]
        if len(means) > 1 and not all(a.ndim and len(a) == step for a in means[0].values()):
            return
        expected = means[0]
        if len(means) > 1:
            expected = {n: np.concatenate([one[n] for one in means]) for n in expected}
        # As for the other rows: executors differ in what a Relu makes of what is no number.
        if not all(np.isfinite(a).all() for a in expected.values() if a.dtype.kind == "f"):
            return
        try:
            parts[0].close(answer, expected, parts[0].tolerance)
        except Fault as fault:
            if fault.kind == "wrong" and not all(part.is_stable() for part in parts):
                return
            raise Fault("rows", f"{count} rows: {fault.figure}") from fault

    def _at(self, case: Case, path: Path, rows: Arrays, verdict: Verdict) -> Arrays:
        """The answer for these rows, judged, and the same everywhere."""
        data = self.folder / "rows.npz"
        np.savez(data, **rows)
        answer = self.tool.run(path, data)
        model = onnx.load(path)
        check = Check(case, model, rows)
        try:
            self._judge(check, path, data, answer, None)
        except Fault as fault:
            if fault.kind in ("wrong", "integers") and not check.is_stable():
                verdict.unstable += 1
                return answer
            raise
        if rows is not case.rows:
            return answer
        for threads, cpu in ELSEWHERE:
            other = self.tool.run(path, data, threads, cpu)
            if self.exact:
                _same_bits(answer, other, f"{cpu or 'default'}, {threads} threads")
            elif cpu:
                self._judge(check, path, data, other, cpu)
            else:
                _alike(answer, other, check.tolerance, f"{threads} threads")
        return answer

    def _judge(
        self, check: "Check", path: Path, data: Path, answer: Arrays, cpu: str | None
    ) -> None:
        if not quantizers(check.model) and not dynamic_quantizers(check.model):
            check.compare(answer, check.expected())
            return

        def run(shown: onnx.ModelProto) -> Arrays:
            onnx.save(shown, self.folder / "shown.onnx")
            return self.tool.run(self.folder / "shown.onnx", data, cpu=cpu)

        ours, expected = judged(check.model, check.rows, run, check.near)
        names = [value.name for value in check.model.graph.output]
        ours = {name: ours[name] for name in names}
        check.close(ours, {name: expected[name] for name in names}, check.tolerance)
        # What is fused is not what was judged: ties may fall differently.
        if any(ours[n].tobytes() != answer[n].tobytes() for n in names):
            check.noisy(answer, check.expected())

    def _same_rows(self, case: Case, path: Path, whole: Arrays, few: Arrays) -> None:
        """A row does not depend on the others, unless it does in what the file means."""
        if not self.exact or is_dynamic(onnx.load(path)) or not case.rows_are_independent:
            return
        for name, array in few.items():
            if array.ndim and array.tobytes() != whole[name][: len(array)].tobytes():
                raise Fault("bits", f"{name}: {len(array)} rows alone and among others")


def _refusal(path: Path) -> str:
    """Why onnxruntime does not open a file; empty if it does."""
    try:
        default_session(path)
    except Exception as error:
        return " ".join(str(error).split())[:300]
    return ""


def is_dynamic(model: onnx.ModelProto) -> bool:
    """Whether activations are quantized by what they are."""
    return any(node.op_type.startswith("DynamicQuantize") for node in model.graph.node)


class Check:
    """What a file's answer to rows is held against."""

    def __init__(self, case: Case, model: onnx.ModelProto, rows: Arrays) -> None:
        self.case = case
        self.model = model
        self.rows = rows
        self.half = any(
            n.op_type == "Cast" and any(a.i == onnx.TensorProto.FLOAT16 for a in n.attribute)
            for n in case.model.graph.node
        )
        self.tolerance = CLOSE_IN_HALF if self.half else CLOSE
        self.near = NEAR_A_TIE_IN_HALF if self.half else NEAR_A_TIE
        self._expected: Arrays | None = None

    def expected(self) -> Arrays:
        """What the file means, end to end."""
        if self._expected is None:
            self._expected = self._means(self.model)
        return self._expected

    def _means(self, model: onnx.ModelProto) -> Arrays:
        names = [value.name for value in model.graph.output]
        return dict(zip(names, meaning(model, self.rows, names)))

    def compare(self, answer: Arrays, expected: Arrays) -> None:
        if is_dynamic(self.model):
            self.noisy(answer, expected)
        else:
            self.close(answer, expected, self.tolerance)

    def close(self, answer: Arrays, expected: Arrays, tolerance: float) -> None:
        for name, means in expected.items():
            given = _fitting(name, answer, means)
            if means.dtype.kind != "f":
                # onnxruntime leaves some casts to halves out: which of two near ones is larger is its own.
                if not self.half and not np.array_equal(given, means):
                    raise Fault("wrong", f"{name}: {np.mean(given != means):.0%} of integers")
                continue
            error = _most(given, means) / max(_most(means), 1e-30)
            if error > tolerance:
                raise Fault("wrong", f"{name}: {error:.2g} of the largest output")

    def noisy(self, answer: Arrays, expected: Arrays) -> None:
        """Within half the quantization noise."""
        floats = self._means(self.case.model)
        for name, means in expected.items():
            given = _fitting(name, answer, means)
            noise, error = _relative(means, floats[name]), _relative(given, means)
            if error > OF_NOISE * noise + OF_OUTPUT:
                raise Fault("wrong", f"{name}: error {error:.2g} at a noise of {noise:.2g}")

    def is_stable(self) -> bool:
        expected = list(self.expected().values())
        return all(stable(self.model, self.rows, expected, seed) for seed in range(3))


def _fitting(name: str, answer: Arrays, means: np.ndarray) -> np.ndarray:
    """An output of the right shape and type, without NaN."""
    if name not in answer:
        raise Fault("missing", f"{name} is not among {', '.join(answer)}")
    given = answer[name]
    if given.shape != means.shape:
        raise Fault("shape", f"{name}: {given.shape}, not {means.shape}")
    if given.dtype != means.dtype:
        raise Fault("type", f"{name}: {given.dtype}, not {means.dtype}")
    if given.dtype.kind == "f" and not np.array_equal(np.isfinite(given), np.isfinite(means)):
        raise Fault("nan", f"{name}: {np.sum(~np.isfinite(given))} not finite")
    return given


def _most(a: np.ndarray, b: np.ndarray | float = 0.0) -> float:
    return float(np.abs(a.astype(np.float64) - b).max(initial=0))


def _relative(given: np.ndarray, means: np.ndarray) -> float:
    wide = means.astype(np.float64)
    error = np.linalg.norm(given.astype(np.float64).ravel() - wide.ravel())
    return float(error / max(np.linalg.norm(wide.ravel()), 1e-30))


def _same_bits(a: Arrays, b: Arrays, where: str) -> None:
    for name, array in a.items():
        if array.dtype != b[name].dtype or array.tobytes() != b[name].tobytes():
            raise Fault("bits", f"{name} differs at {where}: {_relative(b[name], array):.2g}")


def _alike(a: Arrays, b: Arrays, tolerance: float, where: str) -> None:
    for name, array in a.items():
        error = _most(array, b[name]) / max(_most(array), 1e-30)
        if array.shape != b[name].shape or error > tolerance:
            raise Fault("bits", f"{name} differs at {where}: {error:.2g}")


def reason(refusal: str) -> str:
    """A refusal without names and numbers, to count by; of a name only the operator is kept."""
    text = re.sub(r"\[[^]]*\]|'[^']*'|`[^`]*`", "#", refusal)
    text = re.sub(r'"([^"]*)"', lambda name: operator_in(name[1]), text)
    return re.sub(r"\d+", "#", " ".join(text.split()))[:160]


def operator_in(name: str) -> str:
    """The operator that a node's name tells of."""
    found = re.findall(r"[A-Z][A-Za-z]+", name)
    return f'"{found[-1]}"' if found else '"…"'
