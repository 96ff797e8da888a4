"""Measures edge models and compares them: size, latency, memory, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common.console import first_few
from headstart.data.common.errors import Checklist, ModelError, ParityError
from headstart.data.contracts.edge import Edge, load_edge
from headstart.export.measure.agreement import (
    Agreement,
    agree,
    held_out_photographs,
    labelled_photographs,
)
from headstart.export.measure.latency import Latency, measure_latency
from headstart.export.options import MeasureOptions


@dataclass(frozen=True)
class Measured:
    """One edge model: its file, and its measurements.

    Parameters
    ----------
    path
        As the user named it.
    size
        Of the file, in bytes.
    latency
        With one thread, and with two.
    times_as_fast
        As the first model with the same number of threads, by the medians.
    """

    path: str
    size: int
    precision: str
    latency: tuple[Latency, ...]
    times_as_fast: tuple[float, ...]


@dataclass(frozen=True)
class Measurement:
    """All edge models; the others are compared with the first.

    Parameters
    ----------
    agreement
        None without labelled photographs.
    """

    models: tuple[Measured, ...]
    runs: int
    agreement: Agreement | None

    def check(self, most_loss: float | None) -> None:
        """Raise `ParityError` if a model loses more points of accuracy than allowed."""
        if most_loss is None or self.agreement is None:
            return
        accuracies = [scores.accuracy.value for scores in self.agreement.scores]
        lost = [100 * (accuracies[0] - accuracy) for accuracy in accuracies]
        over = [
            f"{model.path} loses {points:.2f} points of accuracy"
            for model, points in zip(self.models, lost, strict=True)
            if points > most_loss
        ]
        if over:
            raise ParityError(
                f"{'; '.join(over)} (--most-loss {most_loss:g})",
                "Use the first model, or train a head on features of the lower precision.",
            )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; the recall of a class without photographs is none."""
        value = asdict(self)
        if (found := self.agreement) is not None:
            value["agreement"]["support"] = found.support.tolist()
            value["agreement"]["recall"] = [
                [None if np.isnan(recall) else recall for recall in row]
                for row in found.recall.tolist()
            ]
        return value


def measure(edges: Sequence[str | Path], options: MeasureOptions = MeasureOptions()) -> Measurement:
    """Measure edge models on this machine, the first one as the reference.

    Raises
    ------
    InputError
        If one is not an edge model or cannot be run, their classes differ, or the source has no
        labels or unknown ones.
    """
    checks = Checklist()
    loaded = []
    for path in edges:
        with checks.item():
            loaded.append(load_edge(path))
    for edge in loaded[1:]:
        with checks.item():
            _check_classes(loaded[0], edge)
    photographs = None
    if loaded and options.model is not None:
        with checks.item():
            photographs = held_out_photographs(options.model, options.source, loaded[0].classes)
    elif loaded and options.source is not None:
        with checks.item():
            first = loaded[0]
            photographs = labelled_photographs(options.source, first.classes, first.input_spec)
    checks.finish()
    latencies = measure_latency(loaded, options.runs)
    models = [
        Measured(
            str(path),
            len(edge.content),
            edge.spec.precision,
            found,
            tuple(a.median / b.median for a, b in zip(latencies[0], found, strict=True)),
        )
        for path, edge, found in zip(edges, loaded, latencies, strict=True)
    ]
    agreement = agree(loaded, photographs) if photographs else None
    return Measurement(tuple(models), options.runs, agreement)


def _check_classes(first: Edge, other: Edge) -> None:
    only = [set(first.classes) - set(other.classes), set(other.classes) - set(first.classes)]
    parts = [
        f"only {edge.path} has {first_few(sorted(names), show=repr)}"
        for edge, names in zip((first, other), only, strict=True)
        if names
    ]
    if parts:
        raise ModelError(
            f"the edge models have different classes: {'; '.join(parts)}",
            "Measure models of the same classes.",
        )
