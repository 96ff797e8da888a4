"""Sections of photographs: the worst mistakes, probable label errors, near-duplicates."""

from __future__ import annotations

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
        return Section("mistakes", title, "No held-out example was classified wrongly.")
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_PHOTOGRAPHS]
    with console.progress("reading mistakes", len(worst)) as advance:
        cards = []
        for row in worst.tolist():
            examples = held_out.examples
            cards.append(
                Card(
                    (thumbnails.of(examples.ids[row], examples.paths[row]),),
                    (
                        ("is", classes[held_out.labels[row]]),
                        ("taken for", classes[predictions[row]]),
                        ("confidence", percent(float(confidence[row]))),
                    ),
                )
            )
            advance(1)
    text = (
        f"{_of(len(cards), len(wrong), 'mistake')} on held-out examples, the most confident first. "
        "Where the photograph shows what the model says, the label may be wrong."
    )
    return Section("mistakes", title, text, cards=tuple(cards))


def label_errors(suspects: Suspects, classes: tuple[str, ...], thumbnails: Thumbnails) -> Section:
    """Examples whose label is probably wrong, the most suspicious first."""
    title, total = "Probable label errors", len(suspects.examples.ids)
    if not total:
        return Section("suspects", title, f"None was found. {suspects.how}")
    shown = min(total, MOST_PHOTOGRAPHS)
    with console.progress("reading suspects", shown) as advance:
        cards = []
        for row in range(shown):
            cards.append(
                Card(
                    (thumbnails.of(suspects.examples.ids[row], suspects.examples.paths[row]),),
                    (
                        ("label", classes[suspects.given[row]]),
                        ("perhaps", classes[suspects.suggested[row]]),
                        ("score", f"{suspects.score[row]:.3f}"),
                    ),
                )
            )
            advance(1)
    text = (
        f"{_of(shown, total, 'example')}, the most suspicious first: look at each, and mend the "
        f"label where it is wrong. {suspects.how}"
    )
    return Section("suspects", title, text, cards=tuple(cards))


def near_duplicates(pairs: NearDuplicates, thumbnails: Thumbnails) -> Section:
    """Pairs of examples that look alike, the most similar first."""
    title, total = "Near-duplicates", len(pairs.first.ids)
    if not total:
        return Section("duplicates", title, f"None was found. {pairs.how}")
    shown = min(total, MOST_PAIRS)
    with console.progress("reading near-duplicates", shown) as advance:
        cards = []
        for row in range(shown):
            both = tuple(
                thumbnails.of(examples.ids[row], examples.paths[row])
                for examples in (pairs.first, pairs.second)
            )
            cards.append(Card(both, (("similarity", f"{pairs.similarity[row]:.4f}"),)))
            advance(1)
    text = (
        f"{_of(shown, total, 'pair')}, the most similar first. Where one of a pair trains and the "
        f"other tests, the score is too good. {pairs.how}"
    )
    return Section("duplicates", title, text, cards=tuple(cards))


def _of(shown: int, total: int, thing: str) -> str:
    return count(total, thing) if shown == total else f"{shown} of {count(total, thing)}"
