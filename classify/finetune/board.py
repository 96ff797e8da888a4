"""What the workers of a training tell its driver, through a process that imports nothing else."""

from __future__ import annotations

from typing import Any


class Board:
    """What workers tell the driver; a Ray actor."""

    def __init__(self) -> None:
        self.done: dict[int, int] = {}
        self.epochs: list[dict[str, Any]] = []
        self.error: tuple[str, str] | None = None

    def advance(self, epoch: int, examples: int) -> None:
        """So many examples of an epoch are done in all."""
        self.done[epoch] = examples

    def report(self, epoch: dict[str, Any]) -> None:
        """An epoch has ended."""
        self.epochs.append(epoch)

    def fail(self, message: str, fix: str) -> None:
        """The training cannot go on."""
        self.error = (message, fix)

    def failed(self) -> tuple[str, str] | None:
        """Why the training cannot go on, if it cannot."""
        return self.error

    def read(self) -> tuple[dict[int, int], list[dict[str, Any]]]:
        """Examples done by epoch, and the epochs that have ended."""
        return self.done, self.epochs
