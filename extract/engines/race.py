"""Finds the fastest engine: they take turns on the first pictures, and the fastest continues."""

from __future__ import annotations

import time

import numpy as np

from headstart.data.common.cosine import cosines
from headstart.extract.engines.runtimes import AGREE, Engine

PIECE = 8  # pictures for one engine at a time; all embed the first ones, which warms them up
ROUNDS = 3  # pieces that are then timed for each engine, at most
BEHIND = 1.5  # engines that take this many times as long as the fastest are dropped


class FastestEngine:
    """Embeds with the fastest of some engines, found while embedding the first pictures.

    An engine that disagrees with the first one by more than `AGREE` is not used.

    Parameters
    ----------
    engines
        At one precision. The others are compared with the first one.
    batch
        Pictures in a full batch. A piece has `PIECE`, or as many as a batch if that is fewer;
        incomplete pieces are not timed.
    ragged
        Whether examples differ in length: then every engine embeds each piece, and all are timed.
    """

    def __init__(self, engines: list[Engine], batch: int, ragged: bool = False) -> None:
        self.engines, self.full, self.piece = engines, batch, min(PIECE, batch)
        self.ragged = ragged
        self.took: list[list[float]] = []  # of each engine; empty until they were compared

    @property
    def names(self) -> tuple[str, ...]:
        """Of the engines that are still in use."""
        return tuple(engine.name for engine in self.engines)

    @property
    def batch(self) -> int:
        """Pictures to give to `embed`: a piece while engines are compared, then a full batch."""
        return self.full if len(self.engines) == 1 else self.piece

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Images, uint8 `[batch, height, width, 3]`, to embeddings, float32 `[batch, dim]`.

        More images than `self.batch` are possible, but not timed.
        """
        if len(self.engines) == 1:
            return self.engines[0].embed(images)
        if not self.took:
            return self._compare(images)
        all_turns = range(len(self.engines))
        turns = all_turns if self.ragged else [min(all_turns, key=lambda n: len(self.took[n]))]
        timed = self.ragged or len(images) == self.piece
        for turn in turns:
            start = time.perf_counter()
            embeddings = self.engines[turn].embed(images)
            if timed:
                self.took[turn].append(time.perf_counter() - start)
        if timed and turn == all_turns[-1]:
            self._drop_slow_engines()
        return embeddings

    def _drop_slow_engines(self) -> None:
        """After a round, drop those far behind; after the last round, all but the fastest."""
        best = [sum(times) if self.ragged else min(times) for times in self.took]
        fastest = min(best)
        if len(self.took[0]) == ROUNDS:
            kept = [best.index(fastest)]
        else:
            kept = [number for number, took in enumerate(best) if took <= BEHIND * fastest]
        self.engines = [self.engines[number] for number in kept]
        self.took = [self.took[number] for number in kept]

    def _compare(self, images: np.ndarray) -> np.ndarray:
        """Embed with all of them, and drop those that disagree."""
        found = [engine.embed(images) for engine in self.engines]
        same = [bool((1 - cosines(each, found[0]) <= AGREE).all()) for each in found]
        # Values that are not finite have no cosine; the first engine's are used.
        self.engines = [
            engine
            for number, (engine, agrees) in enumerate(zip(self.engines, same, strict=True))
            if agrees or number == 0
        ]
        self.took = [[] for _ in self.engines]
        return found[0]
