"""Sections of photographs: the worst mistakes, probable label errors, near-duplicates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from headstart.classify.report.content import HeldOut, NearDuplicates, Suspects
from headstart.classify.report.parts import Card, Section, count, percent
from headstart.classify.report.thumbnails import Thumbnails
from headstart.data.common import console

MOST_PHOTOGRAPHS, MOST_PAIRS = 24, 12


def mistakes(held_out: HeldOut, classes: tuple[str, ...], thumbnails: Thumbnails) -> Section:
    """Held-out examples that were classified wrongly, the most confident first."""
    title = "The worst mistakes"
    predictions = held_out.probabilities.argmax(axis=1)
    confidence = held_out.probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != held_out.labels)
    if not len(wrong):
        return Section(
            name="mistakes", title=title, text="No held-out example was classified wrongly."
        )
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_PHOTOGRAPHS]

    def card(row: int) -> Card:
        facts = (
            ("true class", classes[held_out.labels[row]]),
            ("predicted as", classes[predictions[row]]),
            ("confidence", percent(float(confidence[row]))),
        )
        return Card((thumbnails.of(*held_out.examples.at(row)),), facts)

    text = (
        f"{_of(len(worst), len(wrong), 'mistake')} on held-out examples, the most confident first. "
        f"If a {thumbnails.noun} is of the predicted class, its label may be wrong."
    )
    return Section(
        name="mistakes", title=title, text=text, cards=_cards("mistakes", worst.tolist(), card)
    )


def label_errors(suspects: Suspects, classes: tuple[str, ...], thumbnails: Thumbnails) -> Section:
    """Examples whose label is probably wrong, the most suspicious first."""
    title, total = "Probable label errors", len(suspects.examples.ids)
    if not total:
        return Section(name="suspects", title=title, text=f"None were found. {suspects.how}")
    shown = min(total, MOST_PHOTOGRAPHS)

    def card(row: int) -> Card:
        facts = (
            ("label", classes[suspects.given[row]]),
            ("perhaps", classes[suspects.suggested[row]]),
            ("score", f"{suspects.score[row]:.3f}"),
        )
        return Card((thumbnails.of(*suspects.examples.at(row)),), facts)

    text = (
        f"{_of(shown, total, 'example')}, the most suspicious first: look at each, and correct "
        f"the label if it is wrong. {suspects.how}"
    )
    return Section(
        name="suspects", title=title, text=text, cards=_cards("suspects", range(shown), card)
    )


def near_duplicates(pairs: NearDuplicates, thumbnails: Thumbnails) -> Section:
    """Pairs of similar examples, the most similar first."""
    title, total = "Near-duplicates", len(pairs.first.ids)
    if not total:
        return Section(name="duplicates", title=title, text=f"None were found. {pairs.how}")
    different = [row for row, (one, other) in enumerate(pairs.labels) if one != other]
    # Pairs with two labels first: one of the two is wrong.
    rows = [*different, *sorted(set(range(total)) - set(different))][:MOST_PAIRS]
    shown = len(rows)

    def card(row: int) -> Card:
        both = tuple(thumbnails.of(*side.at(row)) for side in (pairs.first, pairs.second))
        facts = [("similarity", f"{pairs.similarity[row]:.4f}")]
        if row in different:
            facts += zip(("label", "of the other"), pairs.labels[row], strict=True)
        return Card(both, tuple(facts))

    two = ""
    if different:
        have = "1 pair has" if len(different) == 1 else f"{len(different):,} pairs have"
        two = f"{have} two labels, and come first: one of the labels is wrong. "
    text = (
        f"{_of(shown, total, 'pair')}, the most similar first. {two}If one of a pair is in the "
        f"training set and the other in the test set, the score is too optimistic. {pairs.how}"
    )
    return Section(
        name="duplicates",
        title=title,
        text=text,
        cards=_cards("near-duplicates", rows, card),
    )


def _cards(what: str, rows: Sequence[int], card: Callable[[int], Card]) -> tuple[Card, ...]:
    """A card for each row, with progress: photographs may be in remote storage."""
    cards = []
    with console.progress(f"reading {what}", len(rows)) as advance:
        for row in rows:
            cards.append(card(row))
            advance(1)
    return tuple(cards)


def _of(shown: int, total: int, thing: str) -> str:
    return count(total, thing) if shown == total else f"{shown} of {count(total, thing)}"
