"""Quantize a model with onnxruntime's own quantizer, as one process to be measured.

    python quantize_with_onnxruntime.py MODEL OUT [--method minmax|percentile|entropy|dynamic]
           [--calibrate DATA.npz] [--limit N] [--preprocess] [--signed] [--per-tensor]
           [--qoperator] [--ops MatMul,Conv] [--normalize MEAN,STD] [--weights default|hqq|gptq]

Static quantization writes QDQ with weights per channel; activations are unsigned, which is what
onnxruntime computes fastest, unless --signed asks for its default. --per-tensor gives a weight one
scale, --qoperator writes integer operators instead of QDQ. --weights makes only the weights of
products integers, of 4 bits in groups of 32. DATA holds an array for each
input, under its name; a single array may have any name, and labels are left out.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
LABELS = {"y", "labels", "targets", "label", "target"}
BATCH_ROWS = 16


class Rows(CalibrationDataReader):
    """Batches of a data file."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        rows = len(next(iter(arrays.values())))
        self.batches = iter(
            [
                {name: array[i : i + BATCH_ROWS] for name, array in arrays.items()}
                for i in range(0, rows, BATCH_ROWS)
            ]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def load(arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    """An array of the right type for each input."""
    graph = onnx.load(arguments.model, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    file = np.load(arguments.calibrate)
    names = [name for name in file.files if name not in LABELS]
    arrays = {}
    for value in inputs:
        array = file[value.name if value.name in names else names[0]][: arguments.limit]
        tensor = value.type.tensor_type
        if arguments.normalize:
            mean, std = arguments.normalize
            array = (array.astype(np.float32) / 255 - mean) / std
        if array.ndim + 1 == len(tensor.shape.dim):
            array = array[:, None]
        arrays[value.name] = array.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return arrays


def static(arguments: argparse.Namespace) -> None:
    model = arguments.model
    with tempfile.TemporaryDirectory() as folder:
        if arguments.preprocess:
            from onnxruntime.quantization.shape_inference import quant_pre_process

            model = Path(folder) / "prepared.onnx"
            quant_pre_process(str(arguments.model), str(model), skip_symbolic_shape=True)
        quantize_static(
            str(model),
            str(arguments.out),
            Rows(load(arguments)),
            quant_format=QuantFormat.QOperator if arguments.qoperator else QuantFormat.QDQ,
            per_channel=not arguments.per_tensor,
            activation_type=QuantType.QInt8 if arguments.signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[arguments.method],
            op_types_to_quantize=arguments.ops.split(",") if arguments.ops else None,
        )


def dynamic(arguments: argparse.Namespace) -> None:
    quantize_dynamic(
        str(arguments.model),
        str(arguments.out),
        per_channel=not arguments.per_tensor,
        weight_type=QuantType.QInt8,
    )


def weights(arguments: argparse.Namespace) -> None:
    """Products' weights of 4 bits in groups of 32, the rest float."""
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    if arguments.weights == "gptq":
        config = nbits.GPTQWeightOnlyQuantConfig(Rows(load(arguments)), block_size=32)
    elif arguments.weights == "hqq":
        config = nbits.HQQWeightOnlyQuantConfig(block_size=32)
    else:
        config = nbits.DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=False)
    quantizer = nbits.MatMulNBitsQuantizer(onnx.load(arguments.model), algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(arguments.out), False)


def quantize(words: list[str] | None = None) -> None:
    """Does what a command line says; that of the process if none is given."""
    parser = argparse.ArgumentParser(description="Quantize with onnxruntime.")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--method", choices=[*METHODS, "dynamic"], default="minmax")
    parser.add_argument("--calibrate", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--preprocess", action="store_true")
    parser.add_argument("--signed", action="store_true")
    parser.add_argument("--per-tensor", action="store_true")
    parser.add_argument("--qoperator", action="store_true")
    parser.add_argument("--ops", help="operators to quantize, with commas")
    parser.add_argument("--normalize", type=lambda t: tuple(map(float, t.split(","))))
    parser.add_argument("--weights", choices=["default", "hqq", "gptq"])
    arguments = parser.parse_args(words)
    if arguments.weights:
        weights(arguments)
    elif arguments.method == "dynamic":
        dynamic(arguments)
    else:
        static(arguments)


if __name__ == "__main__":
    quantize()
