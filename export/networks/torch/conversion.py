"""Converts a PyTorch module to ONNX by PyTorch's own exporter."""

from __future__ import annotations

import warnings
from typing import Any

from headstart.data.common.errors import BackboneError, first_line
from headstart.data.common.onnx_graphs import OPSET


def module_to_onnx(module: Any, inputs: tuple[Any, ...], axes: Any, what: str, fix: str) -> Any:
    """A module in evaluation mode as an `onnx.ModelProto`.

    Parameters
    ----------
    inputs
        Tensors of an example call, with a batch of two or more.
    axes
        Which axes are free, as `torch.onnx.export` takes `dynamic_shapes`.
    what, fix
        What is converted, and what to do if it cannot be, for the error.

    Raises
    ------
    BackboneError
        If the exporter fails; it names the first cause, which names the operator.
    """
    import torch

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                module.eval(),
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=axes,
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many classes
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise BackboneError(
            f"{what} cannot be converted to ONNX: {first_line(cause)}", fix
        ) from error
    return program.model_proto
