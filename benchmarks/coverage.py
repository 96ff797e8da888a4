"""How often intervals and promises hold, by simulation with known truth, with and without groups.

    python -m benchmarks.coverage [RUNS]

Every line is a situation: the share of runs in which the interval holds the truth, or the promise
is kept, beside what was promised. In groups of ten, the examples are alike: a share of the variance
(the intraclass correlation) is the group's. Exits with 1 if one is below its promise by more than
chance explains (99.9 %).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, norm

from headstart.classify.heads.calibration import AnswerOptions, NotPromisedError, choose_threshold
from headstart.classify.scores.class_means import class_means, mean_loss
from headstart.classify.scores.comparison import mcnemar, mcnemar_of_groups, paired_difference
from headstart.data.common.intervals import Interval, design_effect, share

RUNS = 500
SIZE = 10  # examples in a group
CORRELATION = 0.3  # of the examples of a group
SHARPNESS = 4.0  # spread of the scores in `answers`
CLASSES = 4


@dataclass(frozen=True)
class Coverage:
    """What was promised how often, and how often it held."""

    what: str
    groups: int | None
    promised: float
    held: int
    runs: int

    @property
    def is_kept(self) -> bool:
        """Whether chance explains the distance to the promise, in all but 1 of 1,000 cases."""
        return bool(binom.cdf(self.held, self.runs, self.promised) > 0.001)


def hits(
    random: np.random.Generator, rate: float, groups: np.ndarray | None, count: int
) -> np.ndarray:
    """Whether examples are classified correctly, bool `[count]`; alike in a group."""
    if groups is None:
        return random.random(count) < rate
    spread = 1 / CORRELATION - 1  # of a beta distribution: the group's own rate
    rates = random.beta(rate * spread, (1 - rate) * spread, int(groups.max()) + 1)
    return random.random(count) < rates[groups]


def _groups(count: int, grouped: bool) -> np.ndarray | None:
    return np.arange(count) // SIZE if grouped else None


def accuracies(runs: int, count: int, rate: float, grouped: bool) -> Coverage:
    """Intervals of an accuracy."""
    groups, held = _groups(count, grouped), 0
    for run in range(runs):
        held += _holds(share(hits(np.random.default_rng(run), rate, groups, count), groups), rate)
    return _found(f"accuracy of {rate:g}, {count} examples", groups, held, runs)


def means_of_classes(runs: int, count: int, rates: tuple[float, ...], grouped: bool) -> Iterator:
    """Intervals of balanced accuracy and macro F1; errors go to the next class."""
    groups, classes = _groups(count, grouped), len(rates)
    # Groups are of one class, as photographs of one object are.
    labels = (np.arange(count) if groups is None else groups) % classes
    recalls, counts = np.array(rates), np.bincount(labels)
    false = np.roll(counts * (1 - recalls), 1)
    f1 = (2 * counts * recalls / (counts * recalls + counts + false)).mean()
    truth = {"balanced_accuracy": recalls.mean(), "macro_f1": f1}
    held = dict.fromkeys(truth, 0)
    for run in range(runs):
        random = np.random.default_rng(run)
        right = np.zeros(count, bool)
        for label, rate in enumerate(rates):
            own = labels == label
            some = None if groups is None else groups[own]
            right[own] = hits(random, rate, some, int(own.sum()))
        found = class_means(labels, np.where(right, labels, (labels + 1) % classes), groups)
        for name, value in truth.items():
            held[name] += _holds(found[name], value)
    shown = f"{classes} recalls of {min(rates):g} to {max(rates):g}, {count} examples"
    for name in truth:
        yield _found(f"{name.replace('_', ' ')}, {shown}", groups, held[name], runs)


def losses(runs: int, count: int, grouped: bool) -> Coverage:
    """Intervals of a mean log loss; losses are exponentially distributed."""
    groups, held = _groups(count, grouped), 0
    for run in range(runs):
        random = np.random.default_rng(run)
        own = random.normal(size=count)
        if groups is not None:
            kin = random.normal(size=count)[groups]
            own = CORRELATION**0.5 * kin + (1 - CORRELATION) ** 0.5 * own
        held += _holds(mean_loss(-norm.logsf(own), groups), 1.0)
    return _found(f"log loss, {count} examples", groups, held, runs)


def differences(runs: int, count: int, gain: float, grouped: bool) -> Iterator[Coverage]:
    """Intervals of the difference of two models; without a gain, also the test's p values."""
    groups, held, quiet = _groups(count, grouped), 0, 0
    for run in range(runs):
        random = np.random.default_rng(run)
        discordant = hits(random, 0.2, groups, count)
        b_better = hits(random, 0.5 + gain / 0.4, groups, count)
        both = hits(random, 0.9, groups, count)
        a, b = (np.where(discordant, side, both) for side in (~b_better, b_better))
        gains = b.astype(float) - a
        effect = design_effect(gains - gains.mean(), groups)
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        table = (int((a & b).sum()), only_a, only_b, int((~a & ~b).sum()))
        held += _holds(paired_difference(*table, effect), gain)
        p = mcnemar(only_a, only_b)
        if groups is not None:
            p = mcnemar_of_groups(np.bincount(groups, gains))
        quiet += p >= 0.05
    yield _found(f"difference of {gain:g}, {count} examples", groups, held, runs)
    if not gain:
        yield _found(f"McNemar's test of equal models, {count}", groups, quiet, runs)


def answers(
    random: np.random.Generator, groups: np.ndarray | None, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities `[count, 4]`, and labels; in a group, both are alike."""

    def normal(columns: int) -> np.ndarray:
        own = random.normal(size=(count, columns))
        if groups is None:
            return own
        kin = random.normal(size=(count, columns))[groups]
        return CORRELATION**0.5 * kin + (1 - CORRELATION) ** 0.5 * own

    scores = SHARPNESS * normal(CLASSES)
    powers = np.exp(scores)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    chance = norm.cdf(normal(1))
    labels = (probabilities.cumsum(axis=1) < chance).sum(axis=1).clip(0, CLASSES - 1)
    return probabilities, labels


def promises(runs: int, count: int, precision: float, grouped: bool) -> tuple[Coverage, float]:
    """Whether a threshold's true precision is as promised; and the share of runs with a promise."""
    groups, kept, given = _groups(count, grouped), 0, 0
    confidence = answers(np.random.default_rng(10**6), None, 400_000)[0].max(axis=1)
    for run in range(runs):
        probabilities, labels = answers(np.random.default_rng(run), groups, count)
        try:
            options = AnswerOptions(precision=precision)
            found = choose_threshold(options, probabilities, labels, groups)
        except NotPromisedError:
            kept += 1
            continue
        given += 1
        # The probabilities are calibrated: the precision is the mean confidence above it.
        kept += found is not None and confidence[confidence >= found.value].mean() >= precision
    line = _found(f"precision of {precision:g}, {count} examples", groups, kept, runs)
    return line, given / runs


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low - 1e-12 <= truth <= interval.high + 1e-12


def _found(what: str, groups: np.ndarray | None, held: int, runs: int) -> Coverage:
    return Coverage(what, None if groups is None else int(groups.max()) + 1, 0.95, held, runs)


def everything(runs: int) -> Iterator[Coverage]:
    """All situations."""
    for grouped in (False, True):
        for count, rate in ((60, 0.98), (150, 0.9), (600, 0.85), (600, 0.99)):
            yield accuracies(runs, count, rate, grouped)
        for rates in ((0.99, 0.98), (0.95, 0.8, 0.6), tuple(np.linspace(0.7, 0.99, 15))):
            yield from means_of_classes(runs, 600, rates, grouped)
        for count in (100, 600):
            yield losses(runs, count, grouped)
        for gain in (0.0, 0.06):
            yield from differences(runs, 400, gain, grouped)
        for precision in (0.9, 0.95):
            for count in (500, 2000):
                line, given = promises(runs, count, precision, grouped)
                yield Coverage(
                    f"{line.what} (promised in {given:.0%} of the runs)",
                    *(line.groups, line.promised, line.held, line.runs),
                )


def main() -> None:
    """Simulate all, print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    print(f"{runs:,} runs of each; groups of {SIZE}, correlation {CORRELATION}\n")
    print("| what | groups | promised | held |")
    print("|---|---|---|---|")
    broken = False
    for found in everything(runs):
        broken |= not found.is_kept
        groups = "" if found.groups is None else f"{found.groups}"
        mark = "" if found.is_kept else " (below)"
        print(
            f"| {found.what} | {groups} | {found.promised:.2f} | "
            f"{found.held / found.runs:.3f}{mark} |",
            flush=True,
        )
    sys.exit(int(broken))


if __name__ == "__main__":
    main()
