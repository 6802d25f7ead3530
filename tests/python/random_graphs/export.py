"""python -m random_graphs.export --seeds A..B --folder DIR: the graphs of seeds with their rows, a folder each."""

import argparse
from pathlib import Path

import numpy as np

from random_graphs.generate import generate


def main() -> None:
    parser = argparse.ArgumentParser(prog="random_graphs.export", description=__doc__)
    parser.add_argument("--seeds", required=True, help="A..B, B not included")
    parser.add_argument("--folder", type=Path, required=True)
    told = parser.parse_args()
    first, _, last = told.seeds.partition("..")
    for seed in range(int(first), int(last)):
        case = generate(seed)
        folder = told.folder / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(case.model.SerializeToString())
        np.savez(folder / "calibration.npz", **case.calibration)
        np.savez(folder / "rows.npz", **case.rows)


if __name__ == "__main__":
    main()
