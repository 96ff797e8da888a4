"""Which engine is the fastest here: they take turns on the first pictures, and the best goes on."""

from __future__ import annotations

import time

import numpy as np

from headstart.data.common.cosine import cosines
from headstart.extract.engines.runtimes import AGREE, Engine

PIECE = 8  # pictures for one engine at a time: all embed the first ones, the others warm up on them
ROUNDS = 3  # pieces of each engine that are timed after that, at most
BEHIND = 1.5  # times the fastest's seconds: who takes that long has no need of another round


class FastestEngine:
    """Embeds with the fastest of some engines, which it finds out at work, on few pictures: the
    slower ones may take twice as long.

    An engine that disagrees with the first one by more than `AGREE` is not used.

    Parameters
    ----------
    engines
        At one precision. The first one is what the others are held against.
    batch
        Pictures in a full batch. A piece has `PIECE`, or as many as a batch if that is fewer; what
        is not a whole piece is not timed.
    """

    def __init__(self, engines: list[Engine], batch: int) -> None:
        self.engines, self.full, self.piece = engines, batch, min(PIECE, batch)
        self.took: list[list[float]] = []  # of each engine, as soon as they were compared

    @property
    def names(self) -> tuple[str, ...]:
        """Of the engine, or of all that are still in the race."""
        return tuple(engine.name for engine in self.engines)

    @property
    def batch(self) -> int:
        """Pictures to give it at once: a piece, as long as the race is on."""
        return self.full if len(self.engines) == 1 else self.piece

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Images, uint8 `[batch, height, width, 3]`, to embeddings, float32 `[batch, dim]`.

        More images than `self.batch` are embedded as well, but untimed while the race is on.
        """
        if len(self.engines) == 1:
            return self.engines[0].embed(images)
        if not self.took:
            return self._compare(images)
        turn = min(range(len(self.engines)), key=lambda number: len(self.took[number]))
        start = time.perf_counter()
        embeddings = self.engines[turn].embed(images)
        if len(images) == self.piece:
            self.took[turn].append(time.perf_counter() - start)
            if turn == len(self.engines) - 1:
                self._leave_out_the_slower()
        return embeddings

    def _leave_out_the_slower(self) -> None:
        """After a round: those that are far behind; after the last one all but the fastest."""
        best = [min(times) for times in self.took]
        fastest = min(best)
        if len(self.took[0]) == ROUNDS:
            kept = [best.index(fastest)]
        else:
            kept = [number for number, took in enumerate(best) if took <= BEHIND * fastest]
        self.engines = [self.engines[number] for number in kept]
        self.took = [self.took[number] for number in kept]

    def _compare(self, images: np.ndarray) -> np.ndarray:
        """Embed with all of them, and leave out those that disagree."""
        found = [engine.embed(images) for engine in self.engines]
        same = [bool((1 - cosines(each, found[0]) <= AGREE).all()) for each in found]
        # Numbers that are not finite have no cosine; the first engine says what they are.
        self.engines = [
            engine
            for number, (engine, agrees) in enumerate(zip(self.engines, same, strict=True))
            if agrees or number == 0
        ]
        self.took = [[] for _ in self.engines]
        return found[0]
