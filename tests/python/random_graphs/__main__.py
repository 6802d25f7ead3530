"""python -m random_graphs --seeds A..B [--recipes static,dynamic] [--keep DIR] [--binary PATH]."""

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from random_graphs.generate import Case, generate
from random_graphs.judge import FLOAT, Judge, reason
from random_graphs.minimize import minimized
from random_graphs.recipes import recipes_of
from random_graphs.tool import RECIPES, Fault


def main() -> int:
    parser = argparse.ArgumentParser(prog="random_graphs", description=__doc__)
    parser.add_argument("--seeds", required=True, help="A..B, B not included, or one seed")
    parser.add_argument("--recipes", default="", help="those of the tests if not given")
    parser.add_argument("--keep", type=Path, help="a folder for minimized graphs")
    parser.add_argument("--binary", type=Path, default=os.environ.get("FEWBITS_BIN"))
    told = parser.parse_args()
    first, _, last = told.seeds.partition("..")
    seeds = range(int(first), int(last or int(first) + 1))
    recipes = [name for name in told.recipes.split(",") if name in (FLOAT, *RECIPES)]
    refusals: Counter[str] = Counter()
    judged = failed = unstable = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(told.binary, Path(folder))
        for seed in seeds:
            case = generate(seed)
            for recipe, verdict in judge.case(case, recipes or recipes_of(seed)).items():
                judged += verdict.judged
                unstable += verdict.unstable
                if verdict.unstable:
                    print(f"{seed} {recipe} unstable", flush=True)
                refusals.update(f"{recipe}: {reason(text)}" for text in verdict.refusals)
                for fault in verdict.faults:
                    failed += 1
                    print(f"{seed} {recipe} {fault.kind}: {fault.figure}", flush=True)
                    if told.keep:
                        print(f"  {keep(judge, case, recipe, fault, told.keep, seed)}", flush=True)
    for text, count in refusals.most_common():
        print(f"refused {count} times: {text}")
    seconds = time.monotonic() - start
    print(
        f"{len(seeds)} seeds, {judged} files judged, {failed} failures, {unstable} unstable,"
        f" {sum(refusals.values())} refusals, {seconds:.0f} s"
    )
    return int(failed > 0)


def keep(judge: Judge, case: Case, recipe: str, fault: Fault, folder: Path, seed: int) -> str:
    """Saves a minimized case; its nodes in a line."""

    def fails(smaller: Case) -> bool:
        try:
            found = judge.one(smaller, recipe).faults
        except Exception:
            # What was left out may leave a model that means nothing.
            return False
        return bool(found) and found[0].kind == fault.kind

    small = minimized(case, fails)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(small.model, folder / f"{seed}-{recipe}.onnx")
    np.savez(folder / f"{seed}-{recipe}.npz", **small.rows)
    np.savez(folder / f"{seed}-{recipe}-calibration.npz", **small.calibration)
    again = judge.one(small, recipe).faults
    figure = again[0].figure if again else "did not fail again"
    return f"{' '.join(described(node) for node in small.model.graph.node)}: {figure}"


def described(node: onnx.NodeProto) -> str:
    tensors = (onnx.AttributeProto.TENSOR, onnx.AttributeProto.GRAPH)
    attributes = [
        f"{a.name}={onnx.helper.get_attribute_value(a)}"
        for a in node.attribute
        if a.type not in tensors
    ]
    return f"{node.op_type}({', '.join(attributes)})"


if __name__ == "__main__":
    raise SystemExit(main())
