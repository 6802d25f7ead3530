"""PyTorch modules, through torch.onnx."""

import io
from typing import Any

from fewbits._fewbits import OnnxModel

# The first with DequantizeLinear for every granularity that is usual, and known to every exporter.
OPSET = 17


def convert(module: Any, example_input: Any) -> OnnxModel:
    """The module as ONNX, any number of rows a call.

    Parameters
    ----------
    module : torch.nn.Module
        It is exported as it is in evaluation.
    example_input : array-like or torch.Tensor, or a tuple of them
        One call's input: floats become float32 tensors.

    Raises
    ------
    TypeError
        If there is no example input.
    """
    import torch

    if example_input is None:
        raise TypeError(
            "a PyTorch module is exported by tracing a call: give example_input=, such as X_train[:1]"
        )
    examples = example_input if isinstance(example_input, tuple) else (example_input,)
    tensors = tuple(_tensor(torch, example) for example in examples)
    names = ["input"] if len(tensors) == 1 else [f"input_{i}" for i in range(len(tensors))]
    content = io.BytesIO()
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            torch.onnx.export(
                module,
                tensors,
                content,
                input_names=names,
                output_names=["output"],
                dynamic_axes={name: {0: "rows"} for name in [*names, "output"]},
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        module.train(was_training)
    return OnnxModel.from_bytes(content.getvalue())


def _tensor(torch: Any, example: Any) -> Any:
    tensor = torch.as_tensor(example)
    return tensor.float() if tensor.dtype == torch.float64 else tensor
