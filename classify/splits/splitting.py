"""Which examples train a head and which test it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

from headstart.data.common.errors import Checklist, InputError


@dataclass(frozen=True)
class SplitOptions:
    """How examples are divided where the store declares no splits.

    Parameters
    ----------
    test_size
        Share of the examples that is held out, 0 to 1.
    repeats
        How many random splits to score in addition; 0 for none.
    samples_per_class
        Train on this many examples of each class, drawn at random; none for all.
    group
        Column of the store with the groups; empty for its column `group`.
    split_of
        A model folder or tuned network whose split is taken over; empty for none.
    """

    test_size: float = 0.25
    seed: int = 0
    repeats: int = 0
    samples_per_class: int | None = None
    group: str = ""
    split_of: str = ""

    def __post_init__(self) -> None:
        checks = Checklist()
        with checks.item():
            if not 0 <= self.seed < 2**32:
                raise InputError(f"--seed {self.seed} is not possible", "Give 0 or more.")
        with checks.item():
            if not 0 < self.test_size < 1:
                raise InputError(
                    f"--test-size {self.test_size} is not possible", "Give a share between 0 and 1."
                )
        with checks.item():
            if self.repeats < 0 or self.repeats == 1:
                raise InputError(
                    f"--repeats {self.repeats} is not possible",
                    "Give 2 or more (a standard deviation needs two), or 0 for none.",
                )
        with checks.item():
            if self.samples_per_class is not None and self.samples_per_class < 1:
                raise InputError(
                    f"--samples-per-class {self.samples_per_class} is not possible",
                    "Give 1 or more.",
                )
        with checks.item():
            if self.split_of and self.repeats:
                raise InputError(
                    "--split-of takes one split over, --repeats draws others",
                    "Give one of the two.",
                )
        checks.finish()


@dataclass(frozen=True)
class Split:
    """Training and test rows, as indices, and how they were chosen, as text.

    `copies` counts the examples that were removed from the test rows because a file with the same
    bytes is among the training rows.
    """

    train: np.ndarray
    test: np.ndarray
    how: str
    copies: int = 0


@dataclass(frozen=True)
class Labelled:
    """The examples with a label, as arrays.

    Parameters
    ----------
    labels
        Index into `classes`, int64 `[examples]`.
    groups
        Index of each example's group, `[examples]`; none if no example has a group.
    group
        Column with the groups.
    """

    examples: pa.Table
    classes: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray | None
    group: str = "group"


def labelled(features: pa.Table, group: str = "") -> Labelled:
    """The examples of a store that have a label; labels become indices of the sorted classes.

    Parameters
    ----------
    group
        Column with the groups, instead of `group`.

    Raises
    ------
    InputError
        If there is no such column, no label, or only one class, or the groups are the labels.
    """
    if group and group not in features.column_names:
        columns = ", ".join(name for name in features.column_names if name != "embedding")
        raise InputError(
            f"--group {group}: the features do not have this column", f"They have {columns}."
        )
    examples = features
    if features["label"].null_count:
        examples = features.filter(pc.is_valid(features["label"]))
    if not examples.num_rows:
        raise InputError(
            "no example has a label, so there is nothing to train on",
            "Sort the files into a folder for each class, or give a manifest with a column "
            "'label', and extract again.",
        )
    classes, labels = _encode(examples["label"])
    if len(classes) == 1:
        raise InputError(
            f"all {examples.num_rows:,} examples are of one class, {classes[0]!r}",
            "A classifier needs at least two: add examples of another class and extract again.",
        )
    column = examples[group or "group"].cast(pa.string())
    if group and column.null_count:  # parts of one file stay together even so
        column = pc.coalesce(column, examples["group"].cast(pa.string()))
    groups = group_indices(column) if column.null_count < examples.num_rows else None
    check_groups(labels, groups)
    return Labelled(examples, classes, labels, groups, group or "group")


def group_indices(column: pa.ChunkedArray) -> np.ndarray:
    """Index of each example's group, int64; an example without a group is a group by itself."""
    own = [name or f"\0{row}" for row, name in enumerate(column.to_pylist())]
    return np.unique(np.array(own, object), return_inverse=True)[1]


def check_groups(labels: np.ndarray, groups: np.ndarray | None) -> None:
    """Reject groups that are the labels under another name.

    Parameters
    ----------
    labels, groups
        As indices, int `[examples]`; an example without a group is a group by itself.

    Raises
    ------
    InputError
        If each group has one class and each class one group: a split that keeps groups together
        would have no class on both sides.
    """
    if groups is None:
        return
    pairs = len(np.unique(np.stack([labels, groups]), axis=1).T)
    count = len(np.unique(labels))
    if pairs == count == len(np.unique(groups)):
        raise InputError(
            f"the groups are the same as the labels: each of the {count:,} classes is one group, "
            "so no class can be both trained on and tested",
            "A group holds examples of one origin, such as a module, a speaker or a patient. Name "
            "such a column, or no group, and extract again.",
        )


def _encode(names: pa.ChunkedArray) -> tuple[tuple[str, ...], np.ndarray]:
    """The sorted names, and the index of each example's name, without a Python string per row."""
    encoded = names.combine_chunks().dictionary_encode()
    found = np.array(encoded.dictionary.to_pylist(), object)
    order = np.argsort(found)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return tuple(found[order].tolist()), place[encoded.indices.to_numpy()]


def choose_split(data: Labelled, options: SplitOptions) -> Split:
    """The split that the store declares, or else a stratified one.

    In a declared split, `train` and examples without a split are the training examples, and `test`,
    or `validation` if there is no `test`, the test examples. A group is never divided.

    Raises
    ------
    InputError
        If a class has no training example, a group is in both splits, or there are too few
        examples.
    """
    declared = data.examples["split"].fill_null("train").to_numpy(zero_copy_only=False)
    held_out = next((name for name in ("test", "validation") if (declared == name).any()), None)
    if held_out is None:
        (split,) = stratified_splits(data, options, 1)
        return split
    split = Split(
        np.flatnonzero(declared == "train"),
        np.flatnonzero(declared == held_out),
        f"declared by the source, tested on {held_out!r}",
    )
    _check_declared(data, split, held_out)
    return _without_copies(data, split)


def limit_samples(data: Labelled, split: Split, options: SplitOptions, repeat: int = 0) -> Split:
    """The split with `samples_per_class` training rows of each class, drawn by the seed."""
    count = options.samples_per_class
    if count is None:
        return split
    random = np.random.default_rng([options.seed, repeat])
    order = random.permutation(split.train)
    order = order[np.argsort(data.labels[order], kind="stable")]
    labels = data.labels[order]
    place = np.arange(len(order)) - np.searchsorted(labels, labels)
    how = f"{split.how}, {count:,} of each class to train on"
    return replace(split, train=np.sort(order[place < count]), how=how)


def _without_copies(data: Labelled, split: Split) -> Split:
    """Remove test rows whose bytes are in the training rows under another name."""
    contents = data.examples["content"].combine_chunks()
    seen = contents.take(pa.array(split.train))
    copies = pc.is_in(contents.take(pa.array(split.test)), value_set=seen)
    copies = copies.to_numpy(zero_copy_only=False)
    return replace(split, test=split.test[~copies], copies=int(copies.sum()))


def hold_back(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` random rows to hold out; one example of each class is always left."""
    order = np.random.default_rng(seed).permutation(len(labels))
    first = np.unique(labels[order], return_index=True)[1]
    return np.delete(order, first)[:count]


def hold_back_groups(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows of whole groups to hold out, about a share of every class, ascending.

    Every class keeps rows to train on: a class in a single group, or whose groups are all drawn for
    other classes, is not held out.
    """
    own = np.unique(groups, return_inverse=True)[1]
    count = int(own.max(initial=-1)) + 1
    size, first = np.bincount(own), np.unique(own, return_index=True)[1]
    kind = labels[first]  # a group is drawn for the class of its first example
    order = np.lexsort((np.random.default_rng(seed).permutation(count), kind))
    kinds, start = np.unique(kind[order], return_index=True)
    total = np.add.reduceat(size[order], start)
    before = np.cumsum(size[order]) - size[order]
    place = np.searchsorted(kinds, kind[order])
    before -= before[start][place]
    drawn = np.zeros(count, bool)
    # Up to the share, or the first group of a class if it is not most of it.
    within = before + size[order] <= np.maximum(share * total, size[order[start]])[place]
    drawn[order] = within & (2 * size[order] <= total[place])
    held = drawn[own]
    lost = np.setdiff1d(labels, labels[~held])
    held &= ~np.isin(own, own[np.isin(labels, lost)])
    return np.flatnonzero(held)


def _check_declared(data: Labelled, split: Split, held_out: str) -> None:
    checks = Checklist()
    with checks.item():
        unseen = np.setdiff1d(np.arange(len(data.classes)), data.labels[split.train])
        if len(unseen):
            names = ", ".join(repr(data.classes[i]) for i in unseen[:5])
            raise InputError(
                f"the training split has no examples of {names}",
                "Move examples of every class into it, and extract again.",
            )
    with checks.item():
        if data.groups is not None:
            both = np.intersect1d(data.groups[split.train], data.groups[split.test])
            if len(both):
                row = int(np.flatnonzero(data.groups == both[0])[0])
                name = data.examples[data.group][row].as_py()
                raise InputError(
                    f"the training split and {held_out!r} share {len(both):,} of the groups, such "
                    f"as {name!r}: the score would be too optimistic",
                    "Keep every group in one split, and extract again.",
                )
    checks.finish()


def stratified_splits(data: Labelled, options: SplitOptions, count: int) -> Iterator[Split]:
    """Random splits, stratified by class, that do not divide groups.

    A class with one example is trained on and not tested. Where a test split would be too small for
    all classes, it is not stratified, but every class has training examples.

    Raises
    ------
    InputError
        If there are too few groups for every class to be on both sides, or nothing to test on.
    """
    for train, test, word in _indices(data, options, count):
        unseen = np.setdiff1d(np.arange(len(data.classes)), data.labels[train])
        if len(unseen):
            raise InputError(
                f"a random split leaves no examples of {data.classes[unseen[0]]!r} to train on",
                "Add examples of it, lower --test-size, or declare the splits in the manifest.",
            )
        share = f"{len(train) / len(data.labels):.0%}/{len(test) / len(data.labels):.0%}"
        grouped = "" if data.groups is None else ", groups kept together"
        how = f"{word} {share}, seed {options.seed}{grouped}"
        yield _without_copies(data, Split(np.sort(train), np.sort(test), how))


def _indices(
    data: Labelled, options: SplitOptions, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Training rows, test rows, and the kind of split."""
    if data.groups is None:
        yield from _without_groups(data.labels, options, count)
        return
    folds = max(2, round(1 / options.test_size))
    _check_enough_groups(data, data.groups, folds)
    for repeat in range(count):  # every fold once, then folds of another shuffle
        kfold = StratifiedGroupKFold(
            folds, shuffle=True, random_state=options.seed + repeat // folds
        )
        divided = list(kfold.split(data.labels, data.labels, data.groups))
        yield *divided[repeat % folds], "stratified"


def _without_groups(
    labels: np.ndarray, options: SplitOptions, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    rows, counts = np.arange(len(labels)), np.bincount(labels)
    several, alone = rows[counts[labels] > 1], rows[counts[labels] == 1]
    classes, tests = int((counts > 1).sum()), int(np.ceil(len(several) * options.test_size))
    if not len(several):
        raise InputError(
            "no class has two examples, but one is needed to train on and one to test on",
            "Add examples, or declare the splits in the manifest, and extract again.",
        )
    if min(tests, len(several) - tests) >= classes:
        splitter = StratifiedShuffleSplit(
            count, test_size=options.test_size, random_state=options.seed
        )
        for train, test in splitter.split(several, labels[several]):
            yield np.concatenate([several[train], alone]), several[test], "stratified"
        return
    for repeat in range(count):
        held = hold_back(labels, tests, options.seed + repeat)
        yield np.setdiff1d(rows, held), held, "random"


def _check_enough_groups(data: Labelled, all_groups: np.ndarray, folds: int) -> None:
    for index, name in enumerate(data.classes):
        groups = len(np.unique(all_groups[data.labels == index]))
        if groups < folds:
            raise InputError(
                f"the examples of class {name!r} are in {groups} "
                f"{'group' if groups == 1 else 'groups'}, but {folds} are needed for a test split "
                "that keeps groups together",
                "Add groups, raise --test-size, or declare the splits in the manifest.",
            )
