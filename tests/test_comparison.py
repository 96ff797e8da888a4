"""Two models on the same test examples: counts, interval, test, verdict, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from headstart.classify.scores.comparison import (
    Change,
    compare,
    mcnemar,
    paired_difference,
    verdict,
)
from headstart.data.common.errors import InputError, ManyInputErrors, ModelError
from headstart.data.common.intervals import Interval
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.model import ModelCard, ModelFiles, write_model
from headstart.data.storage.local import LocalFolder

Row = tuple[str, str, str, str | None, float | None]  # content, label, split, prediction, p
CLASSES = ("cat", "dog")


def write(
    path: Path, rows: list[Row], classes: tuple[str, ...] = CLASSES, answered: bool = True
) -> Path:
    """A model folder whose examples are `rows`; nothing else of it is looked at."""
    contents, labels, splits, predictions, probabilities = (
        list(column) for column in zip(*rows, strict=True)
    )
    table = pa.table(
        {
            "id": [f"{path.name}/{number}" for number in range(len(rows))],
            "path": [f"{content}.png" for content in contents],
            "content": contents,
            "label": labels,
            "split": splits,
        }
    )
    if answered:
        table = table.append_column("prediction", pa.array(predictions, pa.string()))
        table = table.append_column("probability", pa.array(probabilities, pa.float32()))
    fingerprint = Fingerprint("tiny", "0" * 64, "8x8 squash", "fp32", 12)
    card = ModelCard(
        classes=classes,
        fingerprint=fingerprint,
        features="features",
        root="photos",
        head={},
        split="by hand",
    )
    files = ModelFiles(b"head", "head.skops", b"estimator", table)
    write_model(LocalFolder.at(path), card, files)
    return path


def answers(right: str, wrong: str | None = "dog") -> list[Row]:
    """Test examples of 'cat', one a letter: `1` is answered right."""
    return [
        (f"f{number}", "cat", "test", "cat" if bit == "1" else wrong, 0.8 if bit == "1" else 0.4)
        for number, bit in enumerate(right)
    ]


def test_counts_scores_and_changes(tmp_path: Path) -> None:
    a = write(tmp_path / "a", answers("1110010"))
    b = write(tmp_path / "b", answers("1101110", wrong=None))
    found = compare(a, b)
    assert (found.both_right, found.only_a, found.only_b, found.none_right) == (3, 1, 2, 1)
    assert (found.examples, found.left_out, found.seen) == (7, 0, 0)
    assert (found.accuracy_a.value, found.accuracy_b.value) == (4 / 7, 5 / 7)
    assert found.difference.value == pytest.approx(1 / 7)
    assert found.p_value == 1
    assert found.log_loss_a == pytest.approx(-(4 * np.log(0.8) + 3 * np.log(0.4)) / 7, abs=1e-6)
    assert found.log_loss_difference == pytest.approx(-np.log(2) / 7, abs=1e-6)
    assert found.changes == (
        Change("a/2", "f2.png", "cat", "cat", None),
        Change("a/3", "f3.png", "cat", "dog", "cat"),
        Change("a/4", "f4.png", "cat", "dog", "cat"),
        Change("a/6", "f6.png", "cat", "dog", None),
    )
    assert found.verdict == (
        "no significant difference: B has +14.3 points (95 %: -30.4 to 52.3), McNemar p = 1.00"
    )
    value = json.loads(json.dumps(found.to_json()))
    assert value["difference"]["value"] == pytest.approx(1 / 7)
    assert value["changes"][0]["b"] is None
    assert value["log_loss_difference"] == found.log_loss_difference


def test_a_better_model_is_told(tmp_path: Path) -> None:
    a = write(tmp_path / "a", answers("1" * 60 + "0" * 40))
    b = write(tmp_path / "b", answers("1" * 75 + "0" * 25))
    assert compare(a, b).verdict == (
        "B is better: +15.0 points (95 %: 7.7 to 22.2), McNemar p < 0.001"
    )
    assert compare(b, a).verdict == (
        "A is better: +15.0 points (95 %: 7.7 to 22.2), McNemar p < 0.001"
    )


def test_only_what_tests_both_and_trained_neither_counts(tmp_path: Path) -> None:
    def test(content: str, label: str = "cat") -> Row:
        return (content, label, "test", label, 0.9)

    def train(content: str) -> Row:
        return (content, "cat", "train", None, None)

    a = write(
        tmp_path / "a",
        [test("both"), test("both"), test("seen by b"), test("new"), test("moved"), train("seen")],
    )
    b = write(
        tmp_path / "b",
        [test("moved", "dog"), test("both"), train("seen by b"), test("seen")],
    )
    found = compare(a, b)
    # A copy among the test examples counts once; "new", "moved" and the two seen ones do not.
    assert (found.examples, found.left_out, found.seen) == (1, 4, 2)
    assert (found.both_right, found.changes) == (1, ())


def test_two_unknowns_are_no_change(tmp_path: Path) -> None:
    a = write(tmp_path / "a", answers("100", wrong=None))
    b = write(tmp_path / "b", answers("100", wrong=None))
    found = compare(a, b)
    assert (found.changes, found.none_right, found.p_value) == ((), 2, 1)


def test_the_interval_is_newcombes() -> None:
    # Computed from the paper's formulas by hand, step by step.
    interval = paired_difference(14, 0, 5, 22)
    assert (interval.low, interval.high) == pytest.approx((0.0115, 0.2265), abs=1e-4)
    # No discordant pair: only the number of examples speaks, and it is not certain.
    equal = paired_difference(10, 0, 0, 0)
    assert (equal.value, equal.low) == (0, pytest.approx(-equal.high))
    assert 0.2 < equal.high < 0.3


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=4, max_size=4).filter(any))
def test_the_interval_holds_the_difference_and_turns_with_the_models(counts: list[int]) -> None:
    both, only_a, only_b, none = counts
    interval = paired_difference(both, only_a, only_b, none)
    assert -1 - 1e-9 <= interval.low <= interval.value <= interval.high <= 1 + 1e-9
    turned = paired_difference(both, only_b, only_a, none)
    assert (turned.low, turned.high) == pytest.approx((-interval.high, -interval.low))


def test_the_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    shares = np.array([0.8, 0.04, 0.08, 0.08])  # B is better by 4 points
    draws = random.multinomial(200, shares, 1000)
    intervals = [paired_difference(*map(int, draw)) for draw in draws]
    covered = np.mean([interval.low <= 0.04 <= interval.high for interval in intervals])
    assert 0.93 <= covered <= 0.98


def test_mcnemars_test_is_the_binomial_one() -> None:
    assert mcnemar(2, 10) == pytest.approx(2 * binom.cdf(2, 12, 0.5))
    assert mcnemar(10, 2) == mcnemar(2, 10)
    assert mcnemar(0, 0) == 1


def test_a_verdict_needs_the_test_and_the_interval() -> None:
    clear, touching = Interval(0.021, 0.004, 0.038), Interval(0.021, -0.001, 0.038)
    assert verdict(clear, 0.02) == (
        "B is better: +2.1 points (95 %: 0.4 to 3.8), McNemar p = 0.020"
    )
    unsure = "no significant difference: B has +2.1 points (95 %: "
    assert verdict(clear, 0.06) == unsure + "0.4 to 3.8), McNemar p = 0.060"
    assert verdict(touching, 0.04) == unsure + "-0.1 to 3.8), McNemar p = 0.040"


def words(a: Path, b: Path) -> str:
    with pytest.raises(InputError) as caught:
        compare(a, b)
    return str(caught.value)


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    a = write(tmp_path / "a", answers("10"))
    assert words(a, tmp_path / "." / "a") == (
        f"{a} would be compared with itself\n  Name two model folders."
    )
    old = write(tmp_path / "old", answers("10"), answered=False)
    assert words(a, old) == (
        f"{old} has no predictions for its test examples: an older headstart wrote it\n"
        f"  Train again with: python -m classify train features -o {old} --overwrite"
    )
    other = write(tmp_path / "other", answers("10"), ("cat", *(f"c{i}" for i in range(7))))
    with pytest.raises(ModelError):
        compare(a, other)
    assert words(a, other) == (
        f"the models have different classes: only {a} has 'dog'; "
        f"only {other} has 'c0', 'c1', 'c2', 'c3', 'c4' and 2 more\n"
        "  Train both on the same classes."
    )
    apart = write(tmp_path / "apart", [("else", "cat", "test", "cat", 0.9)])
    assert words(a, apart) == (
        f"{a} and {apart} have no test example in common\n"
        "  Train both on the same features, with the same --seed and --test-size, or declare the "
        "splits in the manifest."
    )
    with pytest.raises(ManyInputErrors):
        compare(tmp_path / "no", old)
    assert words(tmp_path / "no", tmp_path / "no") == (
        f"1. {tmp_path / 'no'}: no such model folder\n"
        "  Train one with: python -m classify train FEATURES -o MODEL\n"
        f"2. {tmp_path / 'no'}: no such model folder\n"
        "  Train one with: python -m classify train FEATURES -o MODEL\n"
        f"3. {tmp_path / 'no'} would be compared with itself\n  Name two model folders."
    )
