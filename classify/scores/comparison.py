"""Paired comparison of two models on the same test examples: is one significantly better?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binomtest, norm

from headstart.classify.splits.splitting import group_indices
from headstart.data.common.console import first_few
from headstart.data.common.errors import Checklist, InputError, ModelError
from headstart.data.common.intervals import Interval, design_effect, share
from headstart.data.contracts.model import Model

SIGNIFICANT = 0.05
ANSWERS = ("prediction", "probability")
TRAIN_AGAIN = "Train again with: python -m classify train {} -o {} --overwrite"
EXACT = 200_000_000  # additions that an exact test may take


@dataclass(frozen=True)
class Change:
    """A test example that the models predict differently; a prediction is none for "unknown"."""

    id: str
    path: str
    label: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class Comparison:
    """Two models, A and B, on the test examples that they share.

    Parameters
    ----------
    a, b
        The model folders.
    accuracy_a, accuracy_b
        With 95 % intervals; "unknown" counts as wrong.
    difference
        Accuracy of B minus that of A, with its 95 % interval for paired examples (Newcombe 1998,
        Statistics in Medicine 17:2635, method 10).
    p_value
        Of McNemar's exact test, with the null hypothesis that neither model is better; with groups,
        see `mcnemar_of_groups`.
    groups
        Into how many groups the examples fall; none if no example has a group.
    log_loss_a, log_loss_b
        Mean negative logarithm (base e) of the probability given to the true class.
    both_right, only_a, only_b, none_right
        Numbers of examples that both, one, or neither of the models predicts correctly.
    left_out
        Examples that are a test example of only one model, or whose labels differ.
    seen
        How many of those the other model was trained on.
    changes
        The examples that are predicted differently.
    verdict
        As a sentence.
    """

    a: str
    b: str
    examples: int
    accuracy_a: Interval
    accuracy_b: Interval
    difference: Interval
    p_value: float
    log_loss_a: float
    log_loss_b: float
    both_right: int
    only_a: int
    only_b: int
    none_right: int
    left_out: int
    seen: int
    changes: tuple[Change, ...]
    verdict: str
    groups: int | None = None

    @property
    def log_loss_difference(self) -> float:
        """Log loss of B minus that of A; below 0 if B's probabilities are better."""
        return self.log_loss_b - self.log_loss_a

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"log_loss_difference": self.log_loss_difference}


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compare two model folders on their common test examples, matched by the hash of the files.

    Intervals and test treat the examples of a group, which model A recorded, as dependent.

    Raises
    ------
    InputError
        If a model cannot be read or holds no predictions, both are the same folder, their classes
        differ, or they have no test example in common.
    """
    checks = Checklist()
    examples = []
    models = []
    for place in (a, b):
        with checks.item():
            models.append(Model.open(place))
            examples.append(_answered(models[-1], place))
    with checks.item():
        if Path(a).resolve() == Path(b).resolve():
            raise InputError(f"{a} would be compared with itself", "Name two model folders.")
    with checks.item():
        if len(models) == 2:
            _check_classes(models[0], models[1], (a, b))
    checks.finish()
    return compare_examples((a, b), examples)


def compare_examples(names: Sequence[str | Path], examples: Sequence[pa.Table]) -> Comparison:
    """Compare two tables of examples with answers, as `examples.parquet` has them.

    Raises
    ------
    InputError
        If they have no test example in common.
    """
    a, b = names
    pairs, left_out, seen = _pair(*examples)
    if not pairs.num_rows:
        raise InputError(
            f"{a} and {b} have no test example in common",
            "Train both on the same features, with the same --seed and --test-size, or declare the "
            "splits in the manifest.",
        )
    right_a, right_b = (
        pc.equal(pairs[f"prediction_{name}"], pairs["label"])
        .fill_null(False)
        .to_numpy(zero_copy_only=False)
        for name in "ab"
    )
    both, only_a = int((right_a & right_b).sum()), int((right_a & ~right_b).sum())
    only_b, none = int((~right_a & right_b).sum()), int((~right_a & ~right_b).sum())
    groups, gains = _groups(pairs), right_b.astype(np.float64) - right_a
    effect = design_effect(gains - gains.mean(), groups)
    difference = paired_difference(both, only_a, only_b, none, effect)
    p_value = mcnemar(only_a, only_b)
    if groups is not None:
        p_value = mcnemar_of_groups(np.bincount(groups, gains))
    return Comparison(
        a=str(a),
        b=str(b),
        examples=pairs.num_rows,
        accuracy_a=share(right_a, groups),
        accuracy_b=share(right_b, groups),
        difference=difference,
        p_value=p_value,
        log_loss_a=_log_loss(pairs["probability_a"]),
        log_loss_b=_log_loss(pairs["probability_b"]),
        both_right=both,
        only_a=only_a,
        only_b=only_b,
        none_right=none,
        left_out=left_out,
        seen=seen,
        changes=_changes(pairs),
        verdict=verdict(difference, p_value),
        groups=None if groups is None else int(groups.max()) + 1,
    )


def paired_difference(
    both: float, only_a: float, only_b: float, none: float, effect: float = 1.0
) -> Interval:
    """Accuracy of B minus that of A, with its 95 % interval by Newcombe's method 10.

    Two intervals by Wilson's score (1927) are combined through the correlation phi; a positive phi
    is reduced by a continuity correction. `effect` is the design effect of groups, by which the
    examples count less.
    """
    value = (only_b - only_a) / (both + only_a + only_b + none)
    if not np.isfinite(effect):
        return Interval(value, -1.0, 1.0)
    both, only_a, only_b, none = (n / effect for n in (both, only_a, only_b, none))
    total = both + only_a + only_b + none
    a, b = _wilson(both + only_a, total), _wilson(both + only_b, total)
    margins = (both + only_a) * (only_b + none) * (both + only_b) * (only_a + none)
    covariance = float(both * none - only_a * only_b)
    if covariance > 0:
        covariance = max(0, covariance - total / 2)
    phi = covariance / np.sqrt(margins) if margins else 0.0
    low = _distance(b.value - b.low, a.high - a.value, phi)
    high = _distance(b.high - b.value, a.value - a.low, phi)
    return Interval(value, value - low, value + high)


def _wilson(right: float, total: float) -> Interval:
    z, mean = float(norm.ppf(0.975)), right / total
    middle = (right + z * z / 2) / (total + z * z)
    width = z * np.sqrt(total * mean * (1 - mean) + z * z / 4) / (total + z * z)
    return Interval(mean, float(middle - width), float(middle + width))


def _distance(one: float, other: float, phi: float) -> float:
    return float(np.sqrt(max(0, one**2 - 2 * phi * one * other + other**2)))


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p value of McNemar's test (1947), exact: by the binomial distribution."""
    discordant = only_a + only_b
    return float(binomtest(only_b, discordant).pvalue) if discordant else 1.0


def mcnemar_of_groups(gains: np.ndarray) -> float:
    """Two-sided p value of McNemar's test for examples in groups.

    If neither model is better, a group's gain is as likely to be a loss: the sum of the gains is
    compared with those of all ways to turn signs (Fisher's randomization test), exactly, or, where
    that takes too long, by its normal approximation. Groups of one example give McNemar's own test.

    Parameters
    ----------
    gains
        Correct predictions of B minus those of A, whole numbers, `[groups]`.
    """
    sizes = np.abs(gains[gains != 0]).astype(np.int64)
    total, found = int(sizes.sum()), abs(float(gains.sum()))
    if len(sizes) * total > EXACT:
        return float(2 * norm.sf(found / np.sqrt((sizes**2).sum())))
    chances = np.zeros(2 * total + 1)  # of the sums from -total to total
    chances[total] = 1
    for size in sizes.tolist():
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    return min(1.0, float(chances[np.abs(np.arange(-total, total + 1)) >= found - 0.5].sum()))


def verdict(difference: Interval, p_value: float) -> str:
    """Which model is better; both the test and the interval must be significant."""
    b_better = difference.low > 0
    significant = p_value < SIGNIFICANT and (b_better or difference.high < 0)
    shown = difference
    if significant and not b_better:
        shown = Interval(-difference.value, -difference.high, -difference.low)
    points = (
        f"{100 * shown.value:+.1f} points (95 %: {100 * shown.low:.1f} to {100 * shown.high:.1f}), "
        f"McNemar {_p(p_value)}"
    )
    if significant:
        return f"{'B' if b_better else 'A'} is better: {points}"
    return f"no significant difference: B has {points}"


def _p(value: float) -> str:
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def _answered(model: Model, place: str | Path) -> pa.Table:
    """The examples of a model, with predictions for its test examples."""
    examples = model.examples()
    if not set(ANSWERS) <= set(examples.column_names):
        raise ModelError(
            f"{place} has no predictions for its test examples: an older headstart wrote it",
            TRAIN_AGAIN.format(model.card.features, place),
        )
    return examples


def _check_classes(a: Model, b: Model, places: tuple[str | Path, str | Path]) -> None:
    known = set(a.card.classes), set(b.card.classes)
    if known[0] == known[1]:
        return
    only = [sorted(known[0] - known[1]), sorted(known[1] - known[0])]
    parts = [
        f"only {place} has {first_few(names, show=repr)}"
        for place, names in zip(places, only, strict=True)
        if names
    ]
    raise ModelError(
        f"the models have different classes: {'; '.join(parts)}",
        "Train both on the same classes.",
    )


def _pair(a: pa.Table, b: pa.Table) -> tuple[pa.Table, int, int]:
    """The common test examples with both predictions; how many are left out; how many of those the
    other model trained on.

    Of files with the same bytes, only the first is used.
    """
    tests = [_tests(table) for table in (a, b)]
    columns = ["content", "label", *ANSWERS]
    joined = (
        tests[0]
        .select(["id", "path", *columns, *({"group"} & {*tests[0].column_names})])
        .join(
            tests[1].select(columns),
            "content",
            join_type="inner",
            left_suffix="_a",
            right_suffix="_b",
        )
    )
    agree = pc.equal(joined["label_a"], joined["label_b"])
    pairs = joined.filter(agree).rename_columns({"label_a": "label"}).sort_by("id")
    contents = pairs["content"].combine_chunks()
    unpaired = [table.filter(pc.invert(pc.is_in(table["content"], contents))) for table in tests]
    seen = sum(
        pc.is_in(table["content"], _trained(other)).to_numpy(zero_copy_only=False).sum()
        for table, other in zip(unpaired, (b, a), strict=True)
    )
    relabelled = joined.num_rows - pairs.num_rows  # in both of `unpaired`
    return pairs, sum(table.num_rows for table in unpaired) - relabelled, int(seen)


def _groups(pairs: pa.Table) -> np.ndarray | None:
    """Index of each example's group, `[examples]`; none if no example has a group."""
    if "group" not in pairs.column_names or pairs["group"].null_count == pairs.num_rows:
        return None
    return group_indices(pairs["group"])


def _tests(examples: pa.Table) -> pa.Table:
    table = examples.filter(pc.equal(examples["split"], "test"))
    first = np.unique(table["content"].to_numpy(zero_copy_only=False), return_index=True)[1]
    return table.take(np.sort(first))


def _trained(examples: pa.Table) -> pa.Array:
    table = examples.filter(pc.equal(examples["split"], "train"))
    return table["content"].combine_chunks()


def _log_loss(probability: pa.ChunkedArray) -> float:
    values = probability.to_numpy().astype(np.float64)
    return float(-np.log(np.maximum(values, np.finfo(np.float64).eps)).mean())


def _changes(pairs: pa.Table) -> tuple[Change, ...]:
    unknown = "\0"  # not a class name; two "unknown" are the same prediction
    a, b = (pairs[f"prediction_{name}"].fill_null(unknown) for name in "ab")
    changed = pairs.filter(pc.not_equal(a, b))
    return tuple(
        Change(row["id"], row["path"], row["label"], row["prediction_a"], row["prediction_b"])
        for row in changed.to_pylist()
    )
