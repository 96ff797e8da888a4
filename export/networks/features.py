"""Finds where a network's classifier begins: walks back from its outputs, by connection.

Every kind of network describes itself as steps, from the image to the outputs; what does not depend
on the image (weights, shapes) is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

from headstart.data.common.errors import BackboneError
from headstart.export.networks.network import NAME_A_LAYER

# What a step is. A `dense` one is a product with weights; `scores` (softmax) makes classes of it,
# and `ending` (bias, scale) changes little. `conv` is one on a whole map, `activation` stands
# between. `reshape` keeps the numbers, `pool` averages them.
DENSE, CONV, SCORES, ENDING = "dense", "conv", "scores", "ending"
RESHAPE, POOL, ACTIVATION, OTHER = "reshape", "pool", "activation", "other"

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Step:
    """How a value is computed: what kind of operation, from which values that see the image."""

    kind: str
    inputs: tuple


def find_features(
    name: str, steps: Mapping[Value, Step], outputs: Sequence[Value], maps: Collection[Value]
) -> Value:
    """The value that the classifiers of a network see, before average pooling if there is any.

    Parameters
    ----------
    name
        Of the network, for messages.
    steps
        By the value that each computes, in the order in which they are computed; the image is one
        without inputs.
    outputs
        What the network gives. Several classifiers have features that all of them see.
    maps
        The values that have height and width, and can be named.

    Raises
    ------
    BackboneError
        If the outputs are class scores that no layer with weights is found for, or do not depend on
        the image.
    """
    seen = [output for output in outputs if output in steps]
    if not seen:
        raise BackboneError(
            f"how the outputs of {name} depend on the image cannot be followed", NAME_A_LAYER
        )
    below = [_below_classifier(name, steps, output) for output in seen]
    heads = [head for head in below if head is not None]
    if not heads:  # no classifier: its output is the embedding, the deepest one of several
        return max(seen, key=lambda output: len(_ancestors(steps, output)))
    value = flat = _common(steps, heads)
    if not steps[value].inputs:
        raise BackboneError(f"the outputs of {name} see no features in common", NAME_A_LAYER)
    while steps[value].kind in (RESHAPE, POOL) and len(steps[value].inputs) == 1:
        (value,) = steps[value].inputs
        if value in maps:
            return value
    return flat


def nearest_layer(
    steps: Mapping[Value, Step], value: Value, layers: Mapping[Value, str]
) -> str | None:
    """The name of the last layer that everything on the way to a value passes through."""
    return next((layers[each] for each in _chain(steps, value) if each in layers), None)


def _below_classifier(name: str, steps: Mapping[Value, Step], output: Value) -> Value | None:
    """What the classifier that ends in this output sees; none if it is no classifier's."""
    value, scores = output, False
    while len(steps[value].inputs) == 1:
        kind = steps[value].kind
        (value,) = steps[value].inputs
        if kind == DENSE or (kind == CONV and scores):
            return value
        scores |= kind == SCORES
        passed = (SCORES, ENDING, RESHAPE, *((POOL, ACTIVATION) if scores else ()))
        if kind not in passed:
            break
    if scores:
        raise BackboneError(
            f"{name} ends in class scores, and which layer they are computed from is not clear",
            NAME_A_LAYER,
        )
    return None


def _bottlenecks(steps: Mapping[Value, Step]) -> dict[Value, Value]:
    """For each value the last one before it that every path from the image passes through.

    These are the immediate dominators (Cooper, Harvey and Kennedy, 2001) of a graph without cycles.
    """
    parents: dict[Value, Value] = {}
    depths: dict[Value, int] = {}

    def meet(one: Value, other: Value) -> Value:
        while one != other:
            if depths[one] < depths[other]:
                one, other = other, one
            one = parents[one]
        return one

    for value, step in steps.items():
        parents[value] = reduce(meet, step.inputs) if step.inputs else value
        depths[value] = depths[parents[value]] + 1 if step.inputs else 0
    return parents


def _chain(steps: Mapping[Value, Step], value: Value) -> list[Value]:
    """A value, and all that every path from the image to it passes through, last first."""
    parents, chain = _bottlenecks(steps), [value]
    while parents[chain[-1]] != chain[-1]:
        chain.append(parents[chain[-1]])
    return chain


def _common(steps: Mapping[Value, Step], values: Sequence[Value]) -> Value:
    """The last value that every path from the image to all of these passes through."""
    first, *others = (_chain(steps, value) for value in values)
    return next(value for value in first if all(value in chain for chain in others))


def _ancestors(steps: Mapping[Value, Step], value: Value) -> set[Value]:
    found, pending = {value}, [value]
    while pending:
        new = set(steps[pending.pop()].inputs) - found
        found |= new
        pending += new
    return found
