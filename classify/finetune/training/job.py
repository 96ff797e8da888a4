"""What a training needs, as it is sent to its workers, and how a worker reports."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from headstart.classify.finetune.activations import Activations
from headstart.classify.finetune.examples import TuningExamples
from headstart.classify.finetune.options import Recipe
from headstart.export.options import BackboneOptions


@dataclass(frozen=True)
class TrainingJob:
    """One training.

    Parameters
    ----------
    network, options
        As for `open_trainable`.
    first
        Number of the first trained block; with as many as there are, only the head is trained.
    convolutions
        If given, only so many of the last convolutions are trained.
    cache
        The output of the blocks before `first`, if it is not computed anew in every epoch.
    threads
        Of a worker on CPUs.
    until
        Stop after this epoch, without finishing; none to train to the end.
    """

    network: str
    options: BackboneOptions
    first: int
    convolutions: int | None
    recipe: Recipe
    examples: TuningExamples
    cache: Activations | None = None
    threads: int = 1
    until: int | None = None


class Session(Protocol):
    """Where a worker runs, and whom it reports to.

    Attributes
    ----------
    rank, world
        Its number, and how many train together.
    """

    rank: int
    world: int

    def restored(self) -> AbstractContextManager[Path | None]:
        """The folder of the last checkpoint, if there is one."""

    def report(self, epoch: dict[str, Any], checkpoint: Path | None) -> None:
        """An epoch has ended; rank 0 gives a folder with a checkpoint, which is copied."""

    def advance(self, epoch: int, examples: int) -> None:
        """So many examples of an epoch are done."""

    def wrapped(self, model: Any) -> Any:
        """The model, with gradients shared by all workers."""
