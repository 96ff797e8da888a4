"""Convolution and the normalization behind it, computed as one while both are trained.

Batch normalization with fixed statistics is a scale and an offset for each channel. Scaling the
kernel instead of the output gives the same numbers and gradients, and spares a pass over the
activations in each direction, which is most of what normalization costs on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def fold_normalization(module: Any, run: Callable[[], Any]) -> int:
    """Change how convolutions followed by batch normalization are computed; returns how many.

    Parameters
    ----------
    module
        A `torch.nn.Module` in evaluation mode.
    run
        Runs it once, so that which normalization reads which convolution's output is seen.
    """
    import torch

    calls: list[tuple[Any, Any, Any]] = []  # values are kept, so that no identity is used twice
    counts: dict[Any, int] = {}

    def record(inner: Any, inputs: Any, output: Any) -> None:
        calls.append((inner, inputs[0], output))
        counts[inner] = counts.get(inner, 0) + 1

    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d)
    hooks = [m.register_forward_hook(record) for m in module.modules() if isinstance(m, kinds)]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    made_by = {id(output): inner for inner, _, output in calls if isinstance(inner, kinds[0])}
    readers: dict[Any, list[Any]] = {}
    for inner, value, _ in calls:
        if isinstance(inner, kinds[1]) and id(value) in made_by:
            readers.setdefault(made_by[id(value)], []).append(inner)
    pairs = [
        (conv, found[0])
        for conv, found in readers.items()
        if len(found) == 1
        and counts[conv] == counts[found[0]] == 1
        and conv.padding_mode == "zeros"
    ]
    for convolution, normalization in pairs:
        _fold(convolution, normalization)
    return len(pairs)


def _fold(convolution: Any, normalization: Any) -> None:
    import torch

    plain = type(convolution).forward is torch.nn.Conv2d.forward
    after = _activation(normalization)
    if after is None or not (plain or _pads_itself(convolution)):
        return

    def convolve(values: Any) -> Any:
        scale = (normalization.running_var + normalization.eps).rsqrt()
        if normalization.weight is not None:
            scale = scale * normalization.weight
        offset = -normalization.running_mean * scale
        if normalization.bias is not None:
            offset = offset + normalization.bias
        if convolution.bias is not None:
            offset = offset + convolution.bias * scale
        padding = convolution.padding
        if not plain:
            from timm.layers import pad_same

            values = pad_same(
                values, convolution.kernel_size, convolution.stride, convolution.dilation
            )
            padding = (0, 0)
        return torch.nn.functional.conv2d(
            values,
            convolution.weight * scale[:, None, None, None],
            offset,
            convolution.stride,
            padding,
            convolution.dilation,
            convolution.groups,
        )

    convolution.forward, normalization.forward = convolve, after


def _activation(normalization: Any) -> Any:
    """What a normalization does after scaling; none where that is not known."""
    import torch

    if type(normalization).forward is torch.nn.BatchNorm2d.forward:
        return lambda values: values
    if type(normalization).__name__ == "BatchNormAct2d":  # of timm
        return lambda values: normalization.act(normalization.drop(values))
    return None


def _pads_itself(convolution: Any) -> bool:
    return type(convolution).__name__ == "Conv2dSame"  # of timm, as TensorFlow pads
