"""Imports PyTorch and its packages, with a clear message if one is missing."""

from __future__ import annotations

import importlib
import logging
import warnings
from types import ModuleType
from typing import Any

from headstart.data.common.errors import MissingPackageError

_libraries: list[Any] = []  # a library of operators exists as long as it is referenced


def import_torch(*needed: str) -> list[ModuleType]:
    """Import PyTorch and the named packages that build on it; returns all, PyTorch first.

    Raises
    ------
    MissingPackageError
        With the command that installs the extra.
    """
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("onnxscript")  # which torch.onnx needs
        if "timm" in needed or "torchvision" in needed or "transformers" in needed:
            _declare_torchvision(torch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            others = [importlib.import_module(name) for name in needed]
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"this network needs PyTorch, but {error.name} is not installed",
            "Install it with: pip install 'headstart[torch]'",
        ) from None
    for name in ("torch.onnx", "onnxscript", "onnx_ir", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return [torch, *others]


def _declare_torchvision(torch: Any) -> None:
    """Make torchvision importable with a PyTorch that it was not compiled for.

    Its packages are compiled for CUDA. With a PyTorch for CPUs its own operators cannot be loaded,
    and its import fails when it registers two of them. Classifiers do not use them, so declaring
    their names is enough.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)
