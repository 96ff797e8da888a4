"""A share, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def proportion(successes: int, total: int) -> Interval:
    """A share, and its interval by Wilson's score (Wilson 1927), which stays inside 0 to 1.

    `total` is at least 1.
    """
    interval = binomtest(successes, total).proportion_ci(0.95, "wilson")
    return Interval(successes / total, float(interval.low), float(interval.high))
