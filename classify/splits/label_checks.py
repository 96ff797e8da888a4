"""Warnings about labels that are probably wrong: spellings, rare classes, ids."""

from __future__ import annotations

import unicodedata

import numpy as np

from headstart.classify.splits.splitting import Labelled

FEW = 10  # examples of a class, below which its scores say little
MANY = 1000  # classes, above which a label is often an id
SHOWN = 5  # cases of one kind of mistake that a warning lists


def label_warnings(classes: tuple[str, ...], counts: np.ndarray) -> list[str]:
    """Warnings about the labels, a sentence or two each.

    Parameters
    ----------
    counts
        Examples of each class, int `[classes]`.
    """
    return [*_alike(classes, counts), *_few(classes, counts), *_many(classes, counts)]


def copies_with_two_labels(data: Labelled) -> list[str]:
    """A warning about examples with the same bytes and different labels, if there are any."""
    codes = data.examples["content"].combine_chunks().dictionary_encode().indices.to_numpy()
    code = np.unique(np.stack([codes, data.labels]), axis=1)[0]
    found = code[:-1][code[:-1] == code[1:]]
    if not len(found):
        return []
    rows = np.flatnonzero(codes == found[0])
    other = rows[data.labels[rows] != data.labels[rows[0]]][0]
    count = len(np.unique(found))
    what, such = "1 example is", ":"
    if count > 1:
        what, such = f"{count:,} examples are", ", such as"
    return [
        f"{what} there under different labels{such} {named(data, int(rows[0]))} and "
        f"{named(data, int(other))}, which have the same bytes. Keep the right one."
    ]


def named(data: Labelled, row: int) -> str:
    """An example and its label, for a message."""
    return f"{data.examples['id'][row].as_py()!r} ({data.classes[data.labels[row]]!r})"


def spelling(label: str) -> str:
    """A key that is equal for labels that differ only in case, white space or Unicode form.

    It is that of compatibility caseless matching (Unicode Standard 3.13, D146), with white space
    collapsed and stripped at both ends.
    """
    text = unicodedata.normalize("NFD", label)
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text.casefold())
    return " ".join(text.split())


def _alike(classes: tuple[str, ...], counts: np.ndarray) -> list[str]:
    same: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        same.setdefault(spelling(name), []).append(index)
    several = [indices for indices in same.values() if len(indices) > 1]
    sentences = [
        f"the classes {_named(indices, classes, counts)} differ only in case, white space or "
        "Unicode form. Give them one spelling if they are one class."
        for indices in several[:SHOWN]
    ]
    if len(several) > SHOWN:
        more = len(several) - SHOWN
        sentences.append(f"{more:,} more sets of classes differ only in this way.")
    return sentences


def _few(classes: tuple[str, ...], counts: np.ndarray) -> list[str]:
    few = np.flatnonzero(counts < FEW)
    if not len(few):
        return []
    few = few[np.argsort(counts[few], kind="stable")]
    what, whose = "1 class has", "Its"
    if len(few) > 1:
        what, whose = f"{len(few):,} classes have", "Their"
    such = "" if len(few) <= SHOWN else "such as "
    return [
        f"{what} fewer than {FEW} examples: {such}"
        f"{_named(few[:SHOWN].tolist(), classes, counts)}. "
        f"{whose} scores say little; add examples."
    ]


def _many(classes: tuple[str, ...], counts: np.ndarray) -> list[str]:
    if len(classes) <= MANY:
        return []
    return [
        f"there are {len(classes):,} classes, with {counts.mean():.1f} examples each on average. "
        "If the labels are ids, choose another column; if not, expect training to take long."
    ]


def _named(indices: list[int], classes: tuple[str, ...], counts: np.ndarray) -> str:
    """Classes with their counts; escaped where two would look the same."""
    names = [classes[index] for index in indices]
    looks = {unicodedata.normalize("NFC", name) for name in names}
    show = repr if len(looks) == len(names) else ascii
    parts = [
        f"{show(name)} ({counts[index]:,})" for name, index in zip(names, indices, strict=True)
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
