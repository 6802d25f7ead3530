"""Holds what the fact base says of sizes against what is computed: `python -m facts_hold [--seeds A..B]`.

Models are the sets of the onnx package and random graphs; each as it is, with inputs of any size, and with the small
integers that are fed as constants. FACTS_BIN is the example `facts` of fewbits-onnx.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from conformance.sets import all_sets, plain
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from random_graphs.generate import generate

Arrays = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="facts_hold", description=__doc__)
    parser.add_argument("--seeds", default="0..100")
    first, last = map(int, parser.parse_args().seeds.split(".."))
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model, feeds, known in [*of_sets(), *of_seeds(first, last)]:
            for variant, (changed, fed) in variants(model, feeds).items():
                path = Path(folder) / "model.onnx"
                path.write_bytes(changed.SerializeToString())
                truth = {**known, **computed(changed, fed), **fed}
                found = complaints(facts(path), truth, counts)
                wrong += [f"{name} {variant}: {text}" for text in found]
                counts["models"] += 1
    print("\n".join([*wrong, str(dict(counts)), f"{len(wrong)} wrong"]))
    return int(bool(wrong))


def of_sets() -> Iterator[tuple[str, onnx.ModelProto, Arrays, Arrays]]:
    for one in all_sets():
        feeds = fitting([i.name for i in one.model.graph.input], one.inputs)
        yield one.name, one.model, feeds, fitting([o.name for o in one.model.graph.output], one.outputs)


def of_seeds(first: int, last: int) -> Iterator[tuple[str, onnx.ModelProto, Arrays, Arrays]]:
    for seed in range(first, last):
        case = generate(seed)
        yield f"seed {seed}", case.model, dict(case.rows), {}


def fitting(names: list[str], values: list[Any]) -> Arrays:
    arrays = {name: plain(value) for name, value in zip(names, values, strict=False)}
    return {name: array for name, array in arrays.items() if array is not None}


def variants(
    model: onnx.ModelProto, feeds: Arrays
) -> dict[str, tuple[onnx.ModelProto, Arrays]]:
    free, constant = onnx.ModelProto(), onnx.ModelProto()
    free.CopyFrom(model)
    for value in free.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            # All of one name, which must not count.
            dim.dim_param = "n"
    for value in free.graph.output:
        value.type.tensor_type.ClearField("shape")
    del free.graph.value_info[:]
    constant.CopyFrom(free)
    small = {k: v for k, v in feeds.items() if v.dtype == np.int64 and v.size <= 64}
    constant.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in small.items())
    inputs = [i for i in constant.graph.input if i.name not in small]
    del constant.graph.input[:]
    constant.graph.input.extend(inputs)
    rest = {k: v for k, v in feeds.items() if k not in small}
    return {"as it is": (model, feeds), "free": (free, feeds), "constant": (constant, rest)}


def computed(model: onnx.ModelProto, feeds: Arrays) -> Arrays:
    """Every value between the nodes, by onnxruntime or else by ONNX's own evaluator."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    names = [name for node in whole.graph.node for name in node.output if name]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(whole.SerializeToString(), options)
        arrays = session.run(names, feeds)
    except Exception:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                arrays = ReferenceEvaluator(whole).run(names, feeds)
        except Exception:
            return {}
    return {n: a for n, a in zip(names, arrays, strict=True) if isinstance(a, np.ndarray)}


def facts(path: Path) -> list[list[str]]:
    """The kind, the words and the name of each fact."""
    told = subprocess.run([os.environ["FACTS_BIN"], path], capture_output=True, text=True, check=True)
    lines = [line.split("\t", 2) for line in told.stdout.split("\n")[1:] if line]
    # What is said of symbols is compared in one order.
    return sorted(lines, key=lambda line: line[::-1])


def complaints(facts: list[list[str]], truth: Arrays, counts: Counter[str]) -> Iterator[str]:
    symbols: dict[str, tuple[int, str]] = {}
    for kind, words, name in facts:
        if name not in truth:
            counts["values not computed"] += 1
            continue
        array = np.asarray(truth[name])
        true = array.shape if kind == "extents" else [int(v) for v in array.flatten()]
        said = words.split()
        counts[kind] += 1
        if len(said) != len(true) or (kind == "elements" and array.ndim > 1):
            yield f"{kind} of {name} are {words}, not {true}"
            continue
        for word, number in zip(said, true, strict=True):
            if word == "?":
                continue
            counts["symbols" if word.startswith("Symbol") else "known"] += 1
            if word.startswith("Symbol"):
                first, where = symbols.setdefault(word, (int(number), name))
                counts["symbols met again"] += where != name
                if first != number:
                    yield f"{word} is {number} in {kind} of {name} and {first} in {where}"
            elif int(word) != number:
                yield f"{kind} of {name} are {words}, not {true}"


if __name__ == "__main__":
    sys.exit(main())
