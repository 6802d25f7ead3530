"""Calls the binary, and tells a refusal from a fault."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from random_graphs.builder import Arrays

HANGS_AFTER_SECONDS = 60
GROUPS_OF_4_BITS = ("--bits", "4", "--granularity", "group=16")

# What a graph is quantized by; those that need data are given the calibration rows.
RECIPES: dict[str, tuple[str, ...]] = {
    "weights": ("--recipe", "weights"),
    "weights-4": ("--recipe", "weights", *GROUPS_OF_4_BITS),
    "weights-affine": ("--recipe", "weights", "--scheme", "affine", "--granularity", "tensor"),
    "weights-generic": ("--recipe", "weights", "--target", "generic"),
    "dynamic": ("--recipe", "dynamic"),
    "dynamic-onnxruntime": ("--recipe", "dynamic", "--target", "onnxruntime"),
    "dynamic-none": ("--recipe", "dynamic", "--reduce-range", "none"),
    "static": ("--recipe", "static"),
    "static-onnxruntime": ("--recipe", "static", "--target", "onnxruntime"),
    "static-openvino": ("--recipe", "static", "--target", "openvino"),
    "static-tract": ("--recipe", "static", "--target", "tract"),
    "static-tensorrt": ("--recipe", "static", "--target", "tensorrt"),
    "static-none": ("--recipe", "static", "--reduce-range", "none", "--min-sqnr", "none"),
    "static-affine": ("--recipe", "static", "--scheme", "affine", "--min-sqnr", "none"),
    "auto": ("--recipe", "auto"),
}


class Refused(Exception):
    """One line that starts with `error:`, and exit code 1."""


class Fault(Exception):
    """What must never happen: its kind, and a figure or a line."""

    def __init__(self, kind: str, figure: str) -> None:
        super().__init__(f"{kind}: {figure}")
        self.kind = kind
        self.figure = figure


@dataclass(frozen=True)
class Tool:
    """The binary, in a folder of its own for files."""

    binary: Path
    folder: Path
    hangs_after_seconds: float = HANGS_AFTER_SECONDS

    def call(self, *arguments: object, cpu: str | None = None) -> str:
        """Standard output; raises where the command refuses or breaks."""
        environment = {k: v for k, v in os.environ.items() if k != "FEWBITS_CPU"}
        if cpu:
            environment["FEWBITS_CPU"] = cpu
        command = [str(self.binary), *map(str, arguments)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self.hangs_after_seconds,
                env=environment,
            )
        except subprocess.TimeoutExpired as slow:
            raise Fault("hangs", f"{self.hangs_after_seconds} s") from slow
        if done.returncode == 0:
            return done.stdout
        lines = done.stderr.strip().splitlines()
        text = done.stderr.replace(str(self.folder) + "/", "")
        if "panicked" in text or "internal error" in text:
            raise Fault("panic", " ".join(text.split())[:300])
        errors = [line for line in lines if line.startswith("error:")]
        if done.returncode != 1 or len(errors) != 1:
            raise Fault("exit", f"code {done.returncode}: {text[:300]}")
        raise Refused(errors[0].replace(str(self.folder) + "/", ""))

    def quantize(self, model: Path, data: Path, recipe: str, out: Path) -> None:
        options = RECIPES[recipe]
        if "weights" not in options and "dynamic" not in options:
            options = (*options, "--calibrate", str(data))
        self.call("quantize", model, "-o", out, *options, "--force")

    def run(
        self,
        model: Path,
        data: Path,
        threads: int = 1,
        cpu: str | None = None,
        whole: bool = True,
    ) -> Arrays:
        """The outputs; `whole`: of all rows in one call."""
        out = self.folder / "answer.npz"
        self.call(
            "run", model, "--data", data, "-o", out, "--force", "--threads", threads,
            *(whole_batch(self.binary) if whole else ()), cpu=cpu,
        )  # fmt: skip
        with np.load(out) as arrays:
            return dict(arrays)

    def exact(self, model: Path, cpu: str | None = None) -> bool:
        """Whether the same bits are promised everywhere."""
        told = json.loads(self.call("inspect", model, "--runtime", "--json", cpu=cpu))
        return all(step["exact"] for step in told["steps"])


@cache
def whole_batch(binary: Path) -> Sequence[str]:
    """Arrays as they are, in one call, where the binary knows how."""
    told = subprocess.run([str(binary), "run", "--help"], capture_output=True, text=True).stdout
    return ("--batch", "whole") if "--batch" in told else ()
