"""Quantize a model with NNCF's post-training quantization, as one process to be measured.

    python quantize_with_nncf.py MODEL OUT --calibrate DATA.npz [--limit N] [--normalize MEAN,STD]
                                 [--transformer]

Its defaults, on all rows of the data; --transformer tells it that the model is one, without which
it quantizes attention too.
"""

import argparse
from pathlib import Path

import nncf
import onnx
from quantize_with_onnxruntime import load


def main() -> None:
    parser = argparse.ArgumentParser(description="Quantize with NNCF.")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--normalize", type=lambda t: tuple(map(float, t.split(","))))
    parser.add_argument("--transformer", action="store_true")
    arguments = parser.parse_args()
    arrays = load(arguments)
    rows = len(next(iter(arrays.values())))
    data = [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(rows)]
    model = onnx.load(arguments.model)
    kind = nncf.ModelType.TRANSFORMER if arguments.transformer else None
    quantized = nncf.quantize(model, nncf.Dataset(data), subset_size=rows, model_type=kind)
    onnx.save(quantized, arguments.out)


if __name__ == "__main__":
    main()
