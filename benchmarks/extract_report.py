"""The table, the plot and the verdict of `benchmarks.extract`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = "headstart"


@dataclass(frozen=True)
class Run:
    """A run, or the medians of several.

    Parameters
    ----------
    steady, whole
        Photographs a second, without and with start-up and shut-down.
    first
        Seconds from when Ray was up to the first embedding; none for peers.
    """

    steady: float
    whole: float
    first: float | None

    @classmethod
    def median(cls, runs: Sequence[Run]) -> Run:
        """Of each figure by itself."""
        firsts = [run.first for run in runs if run.first is not None]
        return cls(
            statistics.median(run.steady for run in runs),
            statistics.median(run.whole for run in runs),
            statistics.median(firsts) if firsts else None,
        )

    def __str__(self) -> str:
        return f"{self.steady:.1f}/s steady, {self.whole:.1f}/s whole"


@dataclass(frozen=True)
class Result:
    """What was measured of a case.

    Parameters
    ----------
    runs
        Medians, by name.
    limits
        Photographs a second by precision, and `decode`.
    whole
        Seconds of the whole process with more photographs: ours, and the best peer's.
    """

    runs: dict[str, Run]
    limits: dict[str, float]
    photographs: int
    whole: dict[str, float]


def best(runs: dict[str, Run], ours: bool) -> str:
    """The name of the fastest in steady state."""
    names = [name for name in runs if name.startswith(OURS) == ours]
    return max(names, key=lambda name: runs[name].steady)


def report(found: dict[Any, Result], out: Path, least_of_limit: float) -> list[str]:
    """Write `extract.md` and `extract.png`; what falls short, a line each."""
    lines, short = [], []
    for case, result in found.items():
        runs, limits = result.runs, result.limits
        ours, peer = best(runs, True), best(runs, False)
        lines += [
            f"### {case.name}",
            f"{result.photographs:,} photographs; decoding alone {limits['decode']:,.0f}/s.",
            "",
            "| | steady, img/s | to the best peer | of the limit | whole, img/s | first after |",
            "|---|---|---|---|---|---|",
        ]
        for name, run in sorted(runs.items(), key=lambda pair: -pair[1].steady):
            precision = name.split()[1] if name.startswith(OURS) else ""
            share = f"{run.steady / limits[precision]:.0%}" if precision else ""
            first = f"{run.first:.1f} s" if run.first is not None else ""
            lines.append(
                f"| {name} | {run.steady:,.0f} | {run.steady / runs[peer].steady:.2f} | {share} | "
                f"{run.whole:,.0f} | {first} |"
            )
            if precision and run.steady < least_of_limit * limits[precision]:
                short.append(f"{case.name}, {name}: {share} of the limit, not {least_of_limit:.0%}")
        ratio = runs[ours].steady / runs[peer].steady
        if ratio < case.ratio:
            short.append(f"{case.name}: {ratio:.2f} times the best peer, not {case.ratio}")
        plain = runs[f"{OURS} fp32"].steady / runs[peer].steady
        if plain < 1:
            short.append(f"{case.name}, fp32: {plain:.2f} times the best peer")
        if result.whole:
            (mine, seconds), (other, theirs) = result.whole.items()
            lines += [
                "",
                f"Whole process, {case.whole:,} photographs: {mine} {seconds:.1f} s, {other} "
                f"{theirs:.1f} s: **{theirs / seconds:.2f} times** as fast.",
            ]
            if theirs / seconds < case.whole_ratio:
                short.append(
                    f"{case.name}, whole: {theirs / seconds:.2f} times, not {case.whole_ratio}"
                )
        lines.append("")
    (out / "extract.md").write_text("\n".join(lines))
    print("\n".join(lines))
    _plot(found, out / "extract.png")
    return short


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
                limit = result.limits[name.split()[1]]
                axes.plot([limit, limit], [place - 0.4, place + 0.4], color="black", linewidth=2)
        axes.set_title(f"{case.name}: photographs a second, line: the machine's limit", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
