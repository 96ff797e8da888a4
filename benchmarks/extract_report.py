"""The table, the plot and the verdict of `benchmarks.extract`."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.limit import Limit
from benchmarks.processes import OURS


@dataclass(frozen=True)
class Run:
    """A run, or the medians of several.

    Parameters
    ----------
    steady, whole
        Photographs a second, without and with start-up and shut-down.
    up
        Photographs a second from when the first worker was up; none for peers.
    first
        Seconds from when Ray was up to the first embedding; none for peers.
    limit
        Of the machine, measured before and after the run; none for peers.
    """

    steady: float
    whole: float
    up: float | None = None
    first: float | None = None
    limit: Limit | None = None

    @classmethod
    def median(cls, runs: Sequence[Run]) -> Run:
        """Of each figure by itself."""
        ups = [run.up for run in runs if run.up is not None]
        firsts = [run.first for run in runs if run.first is not None]
        return cls(
            statistics.median(run.steady for run in runs),
            statistics.median(run.whole for run in runs),
            statistics.median(ups) if ups else None,
            statistics.median(firsts) if firsts else None,
        )

    def __str__(self) -> str:
        up = "" if self.up is None else f", {self.up:.1f}/s from the first worker on"
        first = "" if self.first is None else f", first embedding after {self.first:.1f} s"
        limit = "" if self.limit is None else f", limit {self.limit}"
        return f"{self.steady:.1f}/s steady, {self.whole:.1f}/s whole{up}{first}{limit}"


@dataclass(frozen=True)
class Result:
    """What was measured of a case; lists have one entry a round.

    Parameters
    ----------
    rounds
        Runs by name.
    alone
        Runs of one worker in int8.
    """

    rounds: dict[str, list[Run]]
    alone: list[Run]
    photographs: int

    @property
    def runs(self) -> dict[str, Run]:
        """Medians by name."""
        return {name: Run.median(runs) for name, runs in self.rounds.items()}

    def best(self, ours: bool) -> str:
        """The name of the fastest in steady state."""
        return best(self.runs, ours)

    @property
    def decoding(self) -> float:
        """Photographs a second that are decoded where nothing else is done: the median."""
        return statistics.median(
            run.limit.decoding for runs in self.rounds.values() for run in runs if run.limit
        )

    def limits(self, name: str) -> list[float]:
        """Photographs a second that the machine could do beside each run of ours."""
        return [run.limit.both for run in self.rounds[name] if run.limit]

    def shares(self, name: str) -> list[float]:
        """Of the limit beside each run of ours, in steady state."""
        pairs = zip(self.rounds[name], self.limits(name), strict=True)
        return [run.steady / limit for run, limit in pairs]

    def from_first_worker(self) -> str:
        """What each precision gives from when the first worker was up, first batches included."""
        said = []
        for name, run in self.runs.items():
            if run.up is not None:
                pairs = zip(self.rounds[name], self.limits(name), strict=True)
                share = statistics.median((one.up or 0) / limit for one, limit in pairs)
                said.append(f"{name.split()[1]} {run.up:,.0f}/s ({share:.0%} of the limit)")
        return f"From when the first worker was up: {', '.join(said)}."

    @property
    def scaling(self) -> float:
        """How many times as fast all workers are as one, in int8; the median of the rounds."""
        pairs = zip(self.rounds[f"{OURS} int8"], self.alone, strict=True)
        return statistics.median(run.steady / one.steady for run, one in pairs)


def best(runs: dict[str, Run], ours: bool) -> str:
    """The name of the fastest in steady state."""
    names = [name for name in runs if name.startswith(OURS) == ours]
    return max(names, key=lambda name: runs[name].steady)


def report(
    found: dict[Any, Result], out: Path, least_of_limit: float, least_scaling: float
) -> list[str]:
    """Write `extract.md` and `extract.png`; what falls short, a line each."""
    lines, short = [], []
    for case, result in found.items():
        runs, peer = result.runs, result.best(ours=False)
        theirs = runs[peer].steady
        lines += [
            f"### {case.name}",
            f"{result.photographs:,} photographs; decoding alone {result.decoding:,.0f}/s; "
            f"one worker to {len(os.sched_getaffinity(0))}: {result.scaling:.2f} times.",
            "",
            "| | steady, img/s | to the best peer | of the limit | whole, img/s | first after |",
            "|---|---|---|---|---|---|",
        ]
        for name, run in sorted(runs.items(), key=lambda pair: -pair[1].steady):
            first = f"{run.first:.1f} s" if run.first is not None else ""
            shares = result.shares(name) if name.startswith(OURS) else []
            rounds = f"{statistics.median(shares):.0%} ({_percents(shares)})" if shares else ""
            lines.append(
                f"| {name} | {run.steady:,.0f} | {run.steady / theirs:.2f} | {rounds} | "
                f"{run.whole:,.0f} | {first} |"
            )
            if shares and statistics.median(shares) < least_of_limit:
                short.append(
                    f"{case.name}, {name}: {rounds} of the limit, not {least_of_limit:.0%}"
                )
        lines += ["", result.from_first_worker(), ""]
        if result.scaling < least_scaling:
            short.append(f"{case.name}: {result.scaling:.2f} times one worker, not {least_scaling}")
    (out / "extract.md").write_text("\n".join(lines))
    print("\n".join(lines))
    _plot(found, out / "extract.png")
    return short


def _percents(shares: list[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares)


def _plot(found: dict[Any, Result], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, all_axes = pyplot.subplots(
        len(found), 1, figsize=(8, 0.6 + 2.6 * len(found)), squeeze=False, layout="constrained"
    )
    for axes, (case, result) in zip(all_axes[:, 0], found.items(), strict=True):
        runs = sorted(result.runs.items(), key=lambda pair: pair[1].steady)
        names, rates = [name for name, _ in runs], [run.steady for _, run in runs]
        colours = ["#5fb8a5" if name.startswith(OURS) else "#b8b8b8" for name in names]
        bars = axes.barh(names, rates, color=colours)
        labels = [f" {rate:,.0f} " for rate in rates]  # within the bar: the limit's line is beside
        axes.bar_label(bars, labels, label_type="center", color="black", fontsize=9)
        for place, name in enumerate(names):
            if name.startswith(OURS):
                limit = statistics.median(result.limits(name))
                axes.plot([limit, limit], [place - 0.4, place + 0.4], color="black", linewidth=2)
        axes.set_title(f"{case.name}: photographs a second, line: the machine's limit", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
