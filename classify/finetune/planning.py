"""Which blocks are trained and whether the frozen ones are cached, by their cost, said before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from headstart.classify.finetune.activations import size_of
from headstart.classify.finetune.options import ALL, AUTO, Recipe, ScopeOptions
from headstart.classify.finetune.training.augmentation import CAN_BE_CACHED, VIEWS
from headstart.classify.finetune.training.optimization import choose_parameters, first_block_of
from headstart.data.common.console import human_bytes
from headstart.data.common.errors import InputError
from headstart.data.common.onnx_runtime import open_session
from headstart.export.networks.trainable.trainable import Trainable

MEASURED = 8  # photographs that go through the network to measure it
MUCH = 1.5  # times as fast, so that the same computer chooses the same precision every time
SHARES = (1.0, 0.75, 0.5, 0.33, 0.15)  # of the blocks, that `auto` tries, largest first


@dataclass(frozen=True)
class Plan:
    """What is trained, and what it is expected to take on this machine.

    Parameters
    ----------
    first
        Number of the first trained block.
    front
        The frozen blocks as an ONNX file, if they are cached; none otherwise.
    shape
        Of what they give for one photograph.
    views
        That are cached of each.
    seconds
        Of the whole training.
    precision
        Of the recipe, or the faster one if that is to be chosen.
    words
        How that was found, for people.
    """

    first: int
    front: bytes | None
    shape: tuple[int, ...]
    views: int
    seconds: float
    precision: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """How much there is to do.

    Parameters
    ----------
    examples
        All, which a cache holds.
    trained
        Of them are trained on in every epoch.
    cpus
        That work at the same time.
    front
        The blocks before a number as an ONNX file.
    uncached
        Of such a file, how many examples a cache lacks.
    gpu
        Whether GPUs train, which are not measured.
    """

    examples: int
    trained: int
    cpus: int
    front: Callable[[int], bytes]
    uncached: Callable[[bytes], int]
    gpu: bool = False


@dataclass(frozen=True)
class _Step:
    """Seconds that training takes for one photograph, forwards and backwards.

    Parameters
    ----------
    words
        How the precision was chosen, if it was.
    """

    seconds: float
    precision: str
    words: tuple[str, ...] = ()


def make_plan(network: Trainable, scope: ScopeOptions, recipe: Recipe, work: Work) -> Plan:
    """Choose blocks and cache; the network is ready to be trained, and measured so.

    Raises
    ------
    InputError
        If there are fewer blocks than asked for, or a cache is asked for that cannot be.
    """
    if scope.cache == "yes" and recipe.augmentation not in CAN_BE_CACHED:
        raise InputError(
            f"--augment {recipe.augmentation} changes pictures anew in every epoch, which --cache "
            "yes would not see",
            f"Give --cache no, or one of {', '.join(CAN_BE_CACHED)}.",
        )
    if recipe.augmentation == "turns" and network.height != network.width:
        raise InputError(
            f"--augment turns needs square pictures, and {network.name} takes "
            f"{network.height}x{network.width}",
            "Give --augment flips.",
        )
    count = len(network.blocks)
    if scope.convolutions is not None:
        here = sum(len(block.convolutions) for block in network.blocks)
        if scope.convolutions > here:
            raise InputError(
                f"--retrained-conv-layers {scope.convolutions}: {network.name} has {here} "
                "convolutions",
                f"Give 0 to {here}.",
            )
        return _plan(network, first_block_of(network, scope.convolutions), scope, recipe, work)
    if scope.blocks == ALL:
        return _plan(network, 0, scope, recipe, work)
    if scope.blocks != AUTO:
        return _plan(network, network.first_trained(int(scope.blocks)), scope, recipe, work)
    tried = sorted({max(1, round(share * count)) for share in SHARES}, reverse=True)
    for blocks in tried:
        if _roughly(network, count - blocks, scope, recipe, work) <= 60 * scope.minutes:
            break
    return _plan(network, count - blocks, scope, recipe, work)


def _roughly(
    network: Trainable, first: int, scope: ScopeOptions, recipe: Recipe, work: Work
) -> float:
    """Seconds of a training, without converting the frozen blocks to ONNX, which is faster."""
    import torch

    pixels = to_input(network, random_photographs(network))
    online = recipe.epochs * work.trained * _step(network, pixels, (first, 0), recipe, work).seconds
    if not first or scope.cache == "no" or recipe.augmentation not in CAN_BE_CACHED:
        return online
    with torch.no_grad():
        began = time.perf_counter()
        values = network.front(pixels, first)
        front = (time.perf_counter() - began) / len(pixels)
    views = VIEWS[recipe.augmentation]
    if size_of(work.examples, views, tuple(values.shape[1:])) > scope.gigabytes * 1e9:
        return online
    tail = (
        recipe.epochs * work.trained * _step(network, values, (first, first), recipe, work).seconds
    )
    return min(online, work.examples * views * front + tail)


def random_photographs(network: Trainable) -> np.ndarray:
    """Uint8 `[MEASURED, height, width, 3]`."""
    return np.random.default_rng(0).integers(
        0, 256, (MEASURED, network.height, network.width, 3), np.uint8
    )


def _plan(network: Trainable, first: int, scope: ScopeOptions, recipe: Recipe, work: Work) -> Plan:
    views = VIEWS[recipe.augmentation]
    photographs = random_photographs(network)
    pixels = to_input(network, photographs)
    whole = _step(network, pixels, (first, 0), recipe, work)
    online = recipe.epochs * work.trained * whole.seconds
    blocks = f"{len(network.blocks) - first} of {len(network.blocks)} blocks"
    trained = f"training {blocks} and the head"
    if first < len(network.blocks):
        trained += f" (from {network.blocks[first].name} on)"
    plain = f"{recipe.epochs} epochs of {_time(work.trained * whole.seconds)} = {_time(online)}"
    allowed = scope.cache != "no" and recipe.augmentation in CAN_BE_CACHED
    if not first or not allowed:
        if scope.cache == "yes":
            raise InputError(
                "--cache yes with all blocks trained: no block is frozen, so nothing can be kept",
                "Leave --cache out.",
            )
        said = f"from photographs: {plain}"
        return Plan(first, None, (), 0, online, whole.precision, (trained, said, *whole.words))
    content = work.front(first)
    values, front = _front(content, network, photographs)
    tail = _step(network, values, (first, first), recipe, work)
    left = work.uncached(content)
    make = left * views * front / work.cpus
    cached = make + recipe.epochs * work.trained * tail.seconds
    shape = tuple(values.shape[1:])
    size = size_of(work.examples, views, shape)
    once = f"{_time(make)} once, then" if left else "it is there,"
    said = (
        f"with a cache of {work.examples:,} photographs in {views} views ({human_bytes(size)}): "
        f"{once} {recipe.epochs} epochs of {_time(work.trained * tail.seconds)} = "
        f"{_time(cached)}"
    )
    fits = size <= scope.gigabytes * 1e9
    if scope.cache == "yes" or (fits and cached < online):
        words = (trained, said, f"without: {plain}", *tail.words)
        return Plan(first, content, shape, views, cached, tail.precision, words)
    why = "which is less" if fits else f"since --gigabytes is {scope.gigabytes:g}"
    words = (trained, said, f"without, {why}: {plain}", *whole.words)
    return Plan(first, None, (), 0, online, whole.precision, words)


def to_input(network: Trainable, photographs: np.ndarray) -> Any:
    """Photographs, uint8 `[batch, height, width, 3]`, as a network's scaled input."""
    import torch

    pixels = torch.from_numpy(network.scaling.apply(photographs))
    return pixels.permute(0, 3, 1, 2) if network.channels_first else pixels


def _front(content: bytes, network: Trainable, photographs: np.ndarray) -> tuple[Any, float]:
    """The output of the frozen blocks, and seconds for one photograph on one thread."""
    import torch

    session = open_session(content, threads=1)
    pixels = np.ascontiguousarray(to_input(network, photographs).numpy())
    name = session.get_inputs()[0].name
    session.run(None, {name: pixels[:1]})
    began = time.perf_counter()
    (values,) = session.run(None, {name: pixels})
    seconds = (time.perf_counter() - began) / len(pixels)
    found = torch.from_numpy(values)
    if found.ndim == 4:
        found = found.contiguous(memory_format=torch.channels_last)
    return found, seconds


def _step(
    network: Trainable, values: Any, blocks: tuple[int, int], recipe: Recipe, work: Work
) -> _Step:
    """A step from values on, in the precision of the recipe, or in the faster one.

    Parameters
    ----------
    blocks
        The first one that is trained, and the first one that the values go through.
    """
    asked = recipe.precision
    seconds = seconds_of_step(network, values, blocks, asked == "bf16" and not work.gpu)
    if work.gpu:
        said = "these times are of the CPUs here: GPUs are faster, and with --train-blocks auto"
        return _Step(seconds, asked, (f"{said} could train more blocks in the time",))
    if asked != AUTO:
        return _Step(seconds, asked)
    if not cpu_has_bf16():
        return _Step(seconds, "fp32")
    mixed = seconds_of_step(network, values, blocks, True)
    if seconds < MUCH * mixed:
        return _Step(seconds, "fp32")
    said = f"in bf16 (mixed precision), {seconds / mixed:.1f} times as fast here as in fp32"
    return _Step(mixed, "bf16", (said,))


def cpu_has_bf16() -> bool:
    """Whether PyTorch has fast bf16 for this CPU; without, a step could take minutes."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def seconds_of_step(network: Trainable, values: Any, blocks: tuple[int, int], mixed: bool) -> float:
    """Seconds that training takes for one photograph, forwards and backwards.

    Parameters
    ----------
    blocks
        The first one that is trained, and the first one that the values go through.
    mixed
        In bf16.
    """
    import torch

    first, cut = blocks
    choose_parameters(network, first, None)
    taken = []
    for _ in range(3):  # the first one allocates
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            features = network.module(values, cut)
        if features.requires_grad:
            features.sum().backward()
        taken.append(time.perf_counter() - began)
    for block in network.blocks:
        for parameter in block.parameters:
            parameter.grad = None
    return min(taken) / len(values)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def parameters_of(network: Trainable, first: int, convolutions: int | None) -> tuple[int, int]:
    """How many parameters are trained, without the head, and how many there are."""
    chosen = choose_parameters(network, first, convolutions)
    trained = sum(prod(each.shape) for block in chosen for each in block)
    return trained, sum(prod(p.shape) for block in network.blocks for p in block.parameters)
