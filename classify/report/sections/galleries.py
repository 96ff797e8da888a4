"""Sections of photographs: the worst mistakes, probable label errors, near-duplicates and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from headstart.classify.diagnosis.mistakes import MOST as MOST_PHOTOGRAPHS
from headstart.classify.diagnosis.mistakes import worst_mistakes
from headstart.classify.diagnosis.occlusion import Look
from headstart.classify.report.content import (
    Copies,
    HeldOut,
    LabelNext,
    NearDuplicates,
    Similar,
    Suspects,
)
from headstart.classify.report.parts import (
    Card,
    Question,
    Section,
    Table,
    count,
    percent,
)
from headstart.classify.report.thumbnails import Thumbnails
from headstart.data.common import console

MOST_SUSPECTS, MOST_PAIRS, MOST_SETS = 96, 12, 12
MOST_NAMES = 4  # of one set of copies, shown with their pictures
ASK = (
    "Say of each whether to keep its label, change it, or remove the example; then save your "
    "decisions as a file of corrections, and train again with it."
)


def mistakes(
    held_out: HeldOut,
    classes: tuple[str, ...],
    thumbnails: Thumbnails,
    similar: Mapping[int, Sequence[Similar]] | None = None,
    looks: Mapping[str, Look] | None = None,
) -> Section:
    """Held-out examples that were classified wrongly, the most confident first."""
    title = "The worst mistakes"
    wrong = worst_mistakes(held_out.labels, held_out.probabilities)
    if not len(wrong):
        return Section(
            name="mistakes", title=title, text="No held-out example was classified wrongly."
        )
    predictions = held_out.probabilities.argmax(axis=1)
    confidence = held_out.probabilities.max(axis=1)
    worst = wrong[:MOST_PHOTOGRAPHS]
    similar, looks = similar or {}, looks or {}

    def card(row: int) -> Card:
        true, predicted = classes[held_out.labels[row]], classes[predictions[row]]
        facts = [("true class", true), ("predicted as", predicted)]
        facts.append(("confidence", percent(float(confidence[row]))))
        id, path = held_out.examples.at(row)
        shown = [thumbnails.of(id, path)]
        if path in looks:
            shown.append(thumbnails.drawn(id, "where the head looked", looks[path].pixels))
            facts.append(("if covered", f"{percent(looks[path].most)} less confident"))
        near = [
            replace(thumbnails.small(each.id, each.path), caption=each.label)
            for each in similar.get(row, ())
        ]
        return Card(tuple(shown), tuple(facts), tuple(near), classes=(true, predicted))

    text = (
        f"{_of(len(worst), len(wrong), 'mistake')} on held-out examples, the most confident first. "
        f"If a {thumbnails.noun} is of the predicted class, its label may be wrong."
    )
    if similar:
        text += " Below each are the training examples that are most similar to it."
    if looks:
        which = "The" if len(looks) == len(worst) else f"Of {len(looks)}, the"
        text += (
            f" {which} second picture shows where the head looked: the stronger the orange, the "
            "less probable its answer became when that place was covered."
        )
    return Section(
        name="mistakes", title=title, text=text, cards=_cards("mistakes", worst.tolist(), card)
    )


def label_errors(
    suspects: Suspects, classes: tuple[str, ...], thumbnails: Thumbnails, command: str = ""
) -> Section:
    """Examples whose label is probably wrong, the most suspicious first."""
    title, total = "Probable label errors", len(suspects.examples.ids)
    if not total:
        return Section(name="suspects", title=title, text=f"None were found. {suspects.how}")
    shown = min(total, MOST_SUSPECTS)

    def card(row: int) -> Card:
        label, perhaps = classes[suspects.given[row]], classes[suspects.suggested[row]]
        facts = (("label", label), ("perhaps", perhaps), ("score", f"{suspects.score[row]:.3f}"))
        id, path = suspects.examples.at(row)
        question = Question(id, label, perhaps)
        thumbnail = thumbnails.of(id, path)
        return Card((thumbnail,), facts, questions=(question,), classes=(label, perhaps))

    text = f"{_of(shown, total, 'example')}, the most suspicious first. {ASK} "
    if shown < total:
        text += "All of them are in suspects.csv, beside this report. "
    return Section(
        name="suspects",
        title=title,
        text=text + suspects.how,
        cards=_cards("suspects", range(shown), card),
        note="Then train again with the file that you saved:" if command else "",
        command=command,
    )


def near_duplicates(pairs: NearDuplicates, thumbnails: Thumbnails, inside: bool = False) -> Section:
    """Pairs of similar examples, those with two labels first, then the most similar.

    Parameters
    ----------
    inside
        Whether both of each pair are training examples.
    """
    name, title = "duplicates", "Near-duplicates of training examples"
    if inside:
        name, title = "inside", "Near-duplicates within the training examples"
    total = len(pairs.first.ids)
    if not total:
        return Section(name=name, title=title, text=f"None were found. {pairs.how}")
    different = [row for row, (one, other) in enumerate(pairs.labels) if one != other]
    # Pairs with two labels first: one of the two is wrong.
    rows = [*different, *sorted(set(range(total)) - set(different))][:MOST_PAIRS]
    shown = len(rows)

    def card(row: int) -> Card:
        sides = pairs.first.at(row), pairs.second.at(row)
        both = tuple(thumbnails.of(*side) for side in sides)
        facts = [("similarity", f"{pairs.similarity[row]:.4f}")]
        labels = pairs.labels[row] if row < len(pairs.labels) else ()
        questions: tuple[Question, ...] = ()
        if row in different:
            facts += zip(("label", "of the other"), labels, strict=True)
            questions = _which(tuple(id for id, _ in sides), labels)
        return Card(both, tuple(facts), questions=questions, classes=tuple(labels))

    two = ""
    if different:
        one = len(different) == 1
        have = (
            "1 pair has two labels, and comes"
            if one
            else (f"{len(different):,} pairs have two labels, and come")
        )
        two = f"{have} first: one of the labels is wrong. "
    why = "One of each pair was trained on and the other tested: the score is too optimistic."
    if inside:
        why = "Both of each pair were trained on: the second teaches little, and counts as much."
    text = f"{_of(shown, total, 'pair')}, the most similar first. {two}{why} {pairs.how}"
    return Section(name=name, title=title, text=text, cards=_cards(title.lower(), rows, card))


def copies(found: Copies, thumbnails: Thumbnails) -> Section:
    """Files with the same bytes: with pictures those with two labels, the others by name."""
    name, title = "copies", "Copies"
    if not found.total:
        return Section(name=name, title=title, text="No two files have the same bytes.")
    two = [each for each in found.sets if len({copy.label for copy in each}) > 1]
    one = found.sets[len(two) :]

    def card(at: int) -> Card:
        files = two[at][:MOST_NAMES]
        labels = [copy.label for copy in files]
        facts = tuple((f"{copy.label}, {copy.side}", copy.id) for copy in files)
        first = thumbnails.of(files[0].id, files[0].path)
        questions = _which([copy.id for copy in files], labels)
        return Card((first,), facts, questions=questions, classes=tuple(dict.fromkeys(labels)))

    text = f"{count(found.total, 'set')} of files with the same bytes. "
    if two:
        have = "1 set has" if found.two_labels == 1 else f"{found.two_labels:,} sets have"
        text += f"{have} more than one label: at most one of the labels is right. "
    text += "Of files in training and among the held-out ones, those held out are left out."
    rows = tuple(
        ("\n".join(copy.id for copy in each), each[0].label, ", ".join(_sides(each)))
        for each in one
    )
    columns = ("files", "label", "used for")
    return Section(
        name=name,
        title=title,
        text=text,
        cards=_cards("copies", range(min(len(two), MOST_SETS)), card),
        tables=(Table(columns, rows, 3),) if rows else (),
        note=f"{len(found.sets)} of {found.total:,} sets are shown."
        if len(found.sets) < found.total
        else "",
    )


def label_next(found: LabelNext, classes: tuple[str, ...], thumbnails: Thumbnails) -> Section:
    """The examples without a label that would teach most."""

    def card(row: int) -> Card:
        best, second = classes[found.best[row]], classes[found.second[row]]
        facts = (("perhaps", best), ("or", second), ("margin", f"{found.margin[row]:.3f}"))
        id, path = found.examples.at(row)
        questions = (Question(id, "", best),)
        shown = (thumbnails.of(id, path),)
        return Card(shown, facts, questions=questions, classes=(best, second))

    shown = len(found.best)
    text = (
        f"{_of(shown, found.of, 'example')} without a label: those of which the head is least sure "
        "(the two most probable classes are closest), and which differ most from each other. Say "
        "which class each is of, save your decisions, and train again with them."
    )
    return Section(
        name="label-next",
        title="What to label next",
        text=text,
        cards=_cards("examples to label", range(shown), card),
    )


def _which(ids: Sequence[str], labels: Sequence[str]) -> tuple[Question, ...]:
    """About examples that should have one label: each is offered the next one's."""
    others = [next((each for each in labels if each != own), own) for own in labels]
    return tuple(Question(*each) for each in zip(ids, labels, others, strict=True))


def _sides(files: Sequence) -> list[str]:
    sides = [copy.side for copy in files]
    return [f"{sides.count(side)} {side}" for side in dict.fromkeys(sides)]


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
