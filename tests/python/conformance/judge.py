"""Running sets, and what came of them."""

import os
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.sets import Set, plain

HANGS_AFTER_SECONDS = 120

RIGHT, REFUSED, WRONG, NOT_FED = "right", "refused", "wrong", "not fed"


@dataclass
class Verdict:
    """What fewbits makes of a set, and its own words or where it is wrong."""

    outcome: str
    why: str = ""


def judge_all(binary: Path, sets: Iterable[Set]) -> dict[str, Verdict]:
    """The verdict on each set by its name; each takes a process."""
    sets = list(sets)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            verdicts = pool.map(lambda one: judge(binary, one, folder), sets)
            return {one.name: verdict for one, verdict in zip(sets, verdicts, strict=True)}


def judge(binary: Path, one: Set, folder: Path) -> Verdict:
    """Runs a set as a user would, in one call."""
    files = one.write(folder)
    if files is None:
        return Verdict(NOT_FED)
    model, data = files
    answers = folder / f"{one.name}.answers.npz"
    command = [binary, "run", model, "--data", data, "--batch", "whole", "-o", answers]
    try:
        done = subprocess.run(
            [*map(str, command), "--threads", "1"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=HANGS_AFTER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Verdict(WRONG, "hangs")
    if done.returncode != 0:
        return refusal(done)
    with np.load(answers) as given:
        reason = difference(one, {name: given[name] for name in given.files})
    for file in (model, data, answers):
        file.unlink()
    return Verdict(WRONG, reason) if reason else Verdict(RIGHT)


def refusal(done: "subprocess.CompletedProcess[str]") -> Verdict:
    """A refusal is one line, an exit code of 1, and no fault of ours."""
    lines = done.stderr.splitlines()
    clear = done.returncode == 1 and len(lines) == 1 and lines[0].startswith("error: ")
    if not clear or "panicked" in done.stderr or "internal error" in done.stderr:
        return Verdict(WRONG, f"exit {done.returncode}: {' '.join(lines)[:300]}")
    return Verdict(REFUSED, lines[0].removeprefix("error: "))


def difference(one: Set, given: dict[str, Any]) -> str:
    """The first way in which an answer is not what is expected; empty if there is none."""
    for declared, value in zip(one.model.graph.output, one.outputs, strict=True):
        expected, name = plain(value), declared.name
        if name not in given:
            return f"no output '{name}'"
        if expected is None:
            return f"output '{name}' cannot be what is expected, which is no array"
        answer = given[name]
        if answer.shape != expected.shape:
            return f"shape {answer.shape}, not {expected.shape}"
        if expected.dtype.kind in "US":
            if answer.dtype.kind != "U" or not np.array_equal(answer, expected):
                return "other words"
            continue
        if answer.dtype != expected.dtype:
            return f"{answer.dtype}, not {expected.dtype}"
        if not np.allclose(answer, expected, one.rtol, one.atol, equal_nan=True):
            wide = np.complex128 if expected.dtype.kind == "c" else np.float64
            gap = np.abs(answer.astype(wide) - expected.astype(wide))
            return f"values, by up to {np.nanmax(gap):.3g}"
    return ""
