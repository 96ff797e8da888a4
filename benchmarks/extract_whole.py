"""Whole processes, start-up and shut-down included, by number of photographs.

headstart gets the options that a new user types, which is none; beside it the backbone that was
quantized to int8. All peers run once at each size; those that took more than `SLOW` times as long
as the fastest of them are not run again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import OURS, time_run

SLOW = 1.5
PAUSE = 1.0  # seconds between two programs: processes of the last one may still be ending
LEAST, FROM = 1.0, 500  # times the best peer, from how many photographs on
INT8 = f"{OURS} int8"


@dataclass(frozen=True)
class Whole:
    """Seconds of every run of each program with a number of photographs."""

    photographs: int
    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Of the runs of a program."""
        return statistics.median(self.seconds[name])

    @property
    def best(self) -> str:
        """The fastest peer."""
        return min((name for name in self.seconds if not name.startswith(OURS)), key=self.median)

    def ratio(self, name: str) -> float:
        """How many times as fast as the best peer a program is."""
        return self.median(self.best) / self.median(name)


def measure_whole(
    programs: Mapping[str, list[str]],
    pythons: Mapping[str, str],
    photographs: Path,
    rounds: int,
    say: Callable[[str], None],
) -> Whole:
    """Seconds of whole processes, in turns.

    Parameters
    ----------
    programs
        Arguments between photographs and output, by name.
    pythons
        The interpreter of each program.
    """
    count = sum(1 for _ in photographs.glob("*/*.jpg"))
    found = Whole(count, {name: [] for name in programs})
    out = photographs.with_name("out")
    running = list(programs)
    for number in range(1, rounds + 1):
        for name in running:
            took = time_run(name, programs[name], photographs, out, pythons[name])
            found.seconds[name].append(took.whole)
            say(f"{count:,} photographs, round {number}, {name} {took.whole:.1f} s")
            time.sleep(PAUSE)
        limit = SLOW * found.median(found.best)
        running = [name for name in running if name.startswith(OURS) or found.median(name) <= limit]
    return found


def table(title: str, sizes: list[Whole]) -> tuple[list[str], list[str]]:
    """The lines of a table, and what falls short, a line each."""
    names = list(dict.fromkeys(name for size in sizes for name in size.seconds))
    head = ["photographs", *(f"{name}, s" for name in names), "best peer", OURS, INT8]
    lines = [f"### {title}, whole processes", "", _row(head), _row(["---"] * len(head))]
    short = []
    for size in sizes:
        cells = [_cell(size, name) for name in names]
        ratios = [f"{size.ratio(name):.2f} times" for name in (OURS, INT8)]
        lines.append(_row([f"{size.photographs:,}", *cells, size.best, *ratios]))
        if size.photographs >= FROM and size.ratio(OURS) < LEAST:
            short.append(
                f"{title}: {size.ratio(OURS):.2f} times as fast as {size.best} with "
                f"{size.photographs:,} photographs, whole process, not {LEAST:g}"
            )
    return [*lines, ""], short


def _cell(size: Whole, name: str) -> str:
    """The median, and how often it was run if that was once of several times."""
    runs = size.seconds.get(name)
    if not runs:
        return ""
    most = max(map(len, size.seconds.values()))
    return f"{size.median(name):.1f}{' (once)' if len(runs) < most else ''}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
