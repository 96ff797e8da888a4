"""Learning rates, weight decay, the average of the weights, and the mix of start and end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from headstart.classify.finetune.options import Recipe
from headstart.export.networks.trainable.trainable import Block, Trainable

# How far from the start to the end; 1 is the end itself (Wortsman et al., 2022, arXiv:2109.01903).
MIXES = (1.0, 0.75, 0.5, 0.25)


def choose_parameters(network: Trainable, first: int, convolutions: int | None) -> list[list[Any]]:
    """Let the trained parameters have gradients, and no others; one list for each trained block."""
    for block in network.blocks:
        for parameter in block.parameters:
            parameter.requires_grad_(False)
    chosen = [
        list(block.parameters if convolutions is None else _last_of(network, block, convolutions))
        for block in network.blocks[first:]
    ]
    for parameters in chosen:
        for parameter in parameters:
            parameter.requires_grad_(True)
    return chosen


def _last_of(network: Trainable, block: Block, count: int) -> list[Any]:
    """The parameters of a block that are of the network's last `count` convolutions."""
    every = [each for b in network.blocks for each in b.convolutions]
    kept = {id(p) for each in every[len(every) - count :] for p in each} if count else set()
    return [parameter for parameter in block.parameters if id(parameter) in kept]


def first_block_of(network: Trainable, convolutions: int) -> int:
    """The number of the first block with one of the last `convolutions`."""
    left = convolutions
    for number in range(len(network.blocks) - 1, -1, -1):
        if left <= 0:
            return number + 1
        left -= len(network.blocks[number].convolutions)
    return 0


def optimizer(parameters: Sequence[Sequence[Any]], head: Any, recipe: Recipe) -> Any:
    """AdamW (arXiv:1711.05101), with lower rates for earlier blocks, and no decay of offsets."""
    import torch

    groups: list[dict[str, Any]] = []
    for depth, block in enumerate(parameters):
        rate = recipe.learning_rate * recipe.layer_decay ** (len(parameters) - 1 - depth)
        groups += _groups(block, rate, recipe)
    groups += _groups(list(head.parameters()), recipe.head_rate, recipe)
    return torch.optim.AdamW(groups)


def _groups(parameters: Sequence[Any], rate: float, recipe: Recipe) -> Iterator[dict[str, Any]]:
    for decays in (True, False):
        chosen = [each for each in parameters if (each.ndim > 1) == decays]
        if chosen:
            decay = recipe.weight_decay if decays else 0.0
            yield {"params": chosen, "lr": rate, "rate": rate, "weight_decay": decay}


def set_rates(optimizer: Any, step: int, steps: int, recipe: Recipe) -> float:
    """Set the rates of a step: a linear warm-up, then a cosine to 0; returns the factor."""
    warm = max(1, round(recipe.warmup * steps)) if recipe.warmup else 0
    if step < warm:
        factor = (step + 1) / warm
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * factor
    return factor


def copies(parameters: Sequence[Any]) -> list[Any]:
    """Their values, as tensors of their own."""
    return [each.detach().clone() for each in parameters]


def assign(parameters: Sequence[Any], values: Sequence[Any]) -> None:
    """Set parameters to values."""
    import torch

    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


@contextmanager
def temporarily(parameters: Sequence[Any], values: Sequence[Any]) -> Iterator[None]:
    """Have other values for a while."""
    before = copies(parameters)
    assign(parameters, values)
    try:
        yield
    finally:
        assign(parameters, before)


def mixed(start: Sequence[Any], end: Sequence[Any], share: float) -> list[Any]:
    """Values between the start and the end."""
    return [one.lerp(other, share) for one, other in zip(start, end, strict=True)]
