"""Near-duplicates of training examples, among the test examples and the training examples.

Those among the test examples make scores too optimistic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.data.common import console

NEIGHBOURS = 10
CHANCE = 1e-3  # share of independent examples that may be counted as near-duplicates
LEAST_TRAINING = 50  # with fewer, the ten nearest are not near
SEED = 0
GROUP = 64  # columns of a product that are compared by their largest
TEST_BLOCK, TRAIN_BLOCK = 1024, 8192  # rows of one matrix product: 32 MiB of float32


@dataclass(frozen=True)
class NearDuplicates:
    """Test examples with a near-duplicate in training, the most similar first.

    Parameters
    ----------
    test, train
        Rows of the test examples and of their nearest training examples, int64 `[pairs]`; test rows
        are unique.
    similarity
        Cosine similarity of the two embeddings minus the training mean, float32 `[pairs]`.
    is_duplicate
        Whether a test row has a near-duplicate, bool `[test rows]`.
    how
        How they were found, as a sentence.
    """

    test: np.ndarray
    train: np.ndarray
    similarity: np.ndarray
    is_duplicate: np.ndarray
    how: str


def near_duplicates(
    train: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray | None = None,
    own: np.ndarray | None = None,
) -> NearDuplicates:
    """Find the test rows that are much closer to a training row than independent examples would be.

    Distances are between unit vectors of the embeddings minus the training mean, so they do not
    depend on the backbone's scale. The nearest training row of a test row is compared with its ten
    nearest in samples of the training rows: all of them, a random half, a quarter and so on. The
    near-duplicates of a burst or a video would be all of the ten nearest, but in one of the samples
    only a few of them are left.

    In a neighbourhood of intrinsic dimension m, the distances d1 to the 1st neighbour and dk to the
    k-th of an independent example follow (d1 / dk)^m ~ Beta(1, k - 1) (model of Levina and Bickel
    2004); the tenth in a half is about the twentieth of all. m is estimated from the median of
    d5 / d10 in the sample, robust to a few copies: (d5 / d10)^m ~ Beta(5, 5) has the median 1/2.
    This gives a ratio of d1 to dk that one independent example in a thousand stays below. A test
    row is a near-duplicate if, in one sample, its d1 is below that ratio times its own dk and times
    the median dk, so that dense or sparse regions of the data alone do not give near-duplicates. Of
    independent examples, 0.1 to 1.5 in a thousand are found in all samples together.

    Not found are near-duplicates if the training examples come from fewer than about 30 bursts, and
    copies to which the backbone gives a different embedding, as many do after a crop or rotation.

    Parameters
    ----------
    train, test
        Embeddings, finite, float32 `[rows, dim]`. The search takes at most about 250 MB in addition
        at 1,280 dimensions, and the time of a product of all pairs.
    labels
        Class of each training row, int `[rows]`: a sample must have ten rows of a class, as the
        examples of a small class that is far from all others would seem to be near-duplicates.
    own
        The row of `train` that each test row is, int64 `[test rows]`, to search within the training
        examples: no row is its own near-duplicate.

    Returns
    -------
    NearDuplicates
        No pairs if training has fewer than 50 rows.
    """
    (found,) = all_near_duplicates(train, [(test, own)], labels)
    return found


def all_near_duplicates(
    train: np.ndarray,
    tests: Sequence[tuple[np.ndarray, np.ndarray | None]],
    labels: np.ndarray | None = None,
) -> list[NearDuplicates]:
    """As `near_duplicates`, of several pairs of `test` and `own` in one pass over `train`."""
    if len(train) < LEAST_TRAINING:
        return [_nothing(len(test)) for test, _ in tests]
    order = np.random.default_rng(SEED).permutation(len(train))
    halvings = int(np.log2(len(train) / LEAST_TRAINING))
    sizes = [len(train) >> number for number in range(halvings, -1, -1)]
    owns = [np.full(len(test), -1) if own is None else own for test, own in tests]
    rows = np.concatenate([test for test, _ in tests]), np.concatenate(owns)
    samples = list(_nearest_in_samples(train, rows[0], NEIGHBOURS, (order, sizes), rows[1]))
    counts: list[np.ndarray | None] = [None] * len(sizes)
    if labels is not None:
        least = int(labels.max()) + 1
        counts = [np.bincount(labels[order[:size]], minlength=least) for size in sizes]
    found, end = [], 0
    for test, _ in tests:
        part, end = slice(end, end + len(test)), end + len(test)
        nearest_ones = [(similarity[part], row[part]) for similarity, row in samples]
        found.append(_among(nearest_ones, sizes, labels, counts))
    return found


def _among(
    samples: list[tuple[np.ndarray, np.ndarray]],
    sizes: list[int],
    labels: np.ndarray | None,
    counts: list[np.ndarray | None],
) -> NearDuplicates:
    """Those of some test rows, from their nearest rows in each sample, the last of which is all.

    Parameters
    ----------
    counts
        How many rows of each class every sample has.
    """
    similarity, row = samples[-1]
    if not len(row):
        return _nothing(0)
    first = _distances(similarity)[:, 0]
    found = np.zeros(len(row), bool)
    for size, (sample, _), of_class in zip(sizes, samples, counts, strict=True):
        usable = np.ones(len(row), bool)
        if labels is not None and of_class is not None:
            usable = of_class[labels[row[:, 0]]] >= NEIGHBOURS
        distance = _distances(sample[usable])
        if len(distance):
            last = distance[:, -1]
            ratio = chance_ratio(distance, NEIGHBOURS * sizes[-1] / size)
            found[usable] |= first[usable] < ratio * np.minimum(last, np.median(last))
    order = np.flatnonzero(found)
    order = order[np.argsort(-similarity[order, 0], kind="stable")]
    return NearDuplicates(
        order,
        row[order, 0],
        similarity[order, 0],
        found,
        "The nearest training example is closer than it would be by chance, given the distances to "
        "the ten nearest in samples of the training examples; of independent examples, about one "
        f"in {1 / CHANCE:,.0f} is.",
    )


def _nothing(count: int) -> NearDuplicates:
    nothing = np.empty(0, np.int64)
    return NearDuplicates(
        nothing,
        nothing,
        np.empty(0, np.float32),
        np.zeros(count, bool),
        f"Near-duplicates are not searched for with fewer than {LEAST_TRAINING} training examples.",
    )


def _distances(similarity: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(0, 2 - 2 * similarity.astype(np.float64)))


def chance_ratio(distance: np.ndarray, neighbour: float) -> float:
    """The ratio of the distances to the nearest and to a farther neighbour that the share `CHANCE`
    of independent examples stays below.

    Parameters
    ----------
    distance
        Ascending distances to the ten nearest of a sample, float `[rows, 10]`.
    neighbour
        Which neighbour the tenth of the sample is among all training rows.
    """
    half = NEIGHBOURS // 2
    inside = distance[:, -1] > 0
    if not inside.any():
        return 0.0
    spread = float(np.median(distance[inside, half - 1] / distance[inside, -1]))
    if spread == 0:
        return 0.0
    # spread^m = 1/2 gives m; P(ratio < r) = 1 - (1 - r^m)^(k - 1) = CHANCE gives r^m.
    power = -np.expm1(np.log1p(-CHANCE) / (neighbour - 1))
    return float(spread ** (np.log(power) / np.log(0.5)))


def nearest(
    train: np.ndarray,
    test: np.ndarray,
    count: int,
    own: np.ndarray | None = None,
    doing: str = "searching for near-duplicates",
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` most similar training rows of every test row, the most similar first.

    `own` is the training row that a test row is, and that is passed over; -1 for none.

    Returns the cosine similarities after subtracting the training mean, float32
    `[test rows, count]`, and the rows of `train`, int64 of the same shape. Both arrays are
    processed in blocks, so that neither is copied as a whole.
    """
    whole = None, [len(train)]
    ((best, rows),) = _nearest_in_samples(train, test, count, whole, own, doing)
    return best, rows


def _nearest_in_samples(
    train: np.ndarray,
    test: np.ndarray,
    count: int,
    samples: tuple[np.ndarray | None, list[int]],
    own: np.ndarray | None = None,
    doing: str = "searching for near-duplicates",
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `nearest`, in samples of the training rows, each of which holds the one before.

    Parameters
    ----------
    samples
        The training rows in an order, none for their own; and the sizes of the samples, ascending.
        A sample is the first rows in that order.
    """
    order, sizes = samples
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    best = np.full((len(test), count), -np.inf, np.float32)
    rows = np.zeros((len(test), count), np.int64)
    with console.progress(doing, sizes[-1]) as advance:
        for before, size in zip([0, *sizes], sizes, strict=False):
            new = np.arange(before, size) if order is None else np.sort(order[before:size])
            for start in range(0, len(new), TRAIN_BLOCK):
                block = new[start : start + TRAIN_BLOCK]
                ours = directions(train[block], mean)
                for top in range(0, len(test), TEST_BLOCK):
                    part = slice(top, top + TEST_BLOCK)
                    products = directions(test[part], mean) @ ours.T
                    if own is not None:
                        place = np.minimum(np.searchsorted(block, own[part]), len(block) - 1)
                        mine = np.flatnonzero(block[place] == own[part])
                        products[mine, place[mine]] = -np.inf
                    _merge(best[part], rows[part], products, block)
                advance(len(block))
            yield best.copy(), rows.copy()


def directions(embeddings: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows minus the mean, scaled to length 1, float32; a row equal to the mean stays 0."""
    centered = embeddings - mean
    length = np.sqrt(np.einsum("ij,ij->i", centered, centered))[:, None]
    centered /= np.maximum(length, np.finfo(np.float32).tiny)
    return centered


def _merge(best: np.ndarray, rows: np.ndarray, products: np.ndarray, block: np.ndarray) -> None:
    """Merge products with the training rows `block` into the best so far, in place."""
    count = best.shape[1]
    kept = _largest(products, count)
    products = np.take_along_axis(products, kept, 1)
    both = np.concatenate([best, products], axis=1)
    order = np.argsort(-both, axis=1, kind="stable")[:, :count]
    best[:] = np.take_along_axis(both, order, 1)
    rows[:] = np.take_along_axis(np.concatenate([rows, block[kept]], axis=1), order, 1)


def _largest(products: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` largest of each row, in any order, int64 `[rows, count]` or fewer.

    They are in the `count` groups of columns whose maxima are largest, which are much fewer columns
    to search.
    """
    rows, columns = products.shape
    if columns <= count:
        return np.broadcast_to(np.arange(columns), products.shape)
    whole = columns // GROUP * GROUP
    if whole <= count * GROUP:
        return np.argpartition(products, -count, axis=1)[:, -count:]
    maxima = products[:, :whole].reshape(rows, -1, GROUP).max(axis=2)
    groups = np.argpartition(maxima, -count, axis=1)[:, -count:]
    places = (groups[:, :, None] * GROUP + np.arange(GROUP)).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(whole, columns), (rows, columns - whole))
    places = np.concatenate([places, rest], axis=1)
    best = np.argpartition(np.take_along_axis(products, places, 1), -count, axis=1)[:, -count:]
    return np.take_along_axis(places, best, 1)
