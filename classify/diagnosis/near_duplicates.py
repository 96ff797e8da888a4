"""Near-duplicates of training examples among the test examples: they make scores too optimistic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.data.common import console

NEIGHBOURS = 10
CHANCE = 1e-3  # share of independent examples that may be counted as near-duplicates
LEAST_TRAINING = 50  # with fewer, the ten nearest are not near
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


def near_duplicates(train: np.ndarray, test: np.ndarray) -> NearDuplicates:
    """Find the test rows that are much closer to a training row than independent examples would be.

    Distances are between unit vectors of the embeddings minus the training mean, so they do not
    depend on the backbone's scale. In a neighbourhood of intrinsic dimension m, the distances d1
    and d10 to the 1st and 10th neighbour of an independent example follow (d1 / d10)^m ~ Beta(1, 9)
    (model of Levina and Bickel 2004). m is estimated from the median of d5 / d10, which is robust
    to a few copies: (d5 / d10)^m ~ Beta(5, 5) has the median 1/2. This gives a ratio of d1 to
    d10 that one independent example in a thousand stays below. A test row is a near-duplicate if
    its d1 is below that ratio times its own d10, and also below the ratio times the median d10, so
    that dense or sparse regions of the data alone do not give near-duplicates.

    Not found are rows with ten or more near-duplicates in training (use groups for those), and
    copies to which the backbone gives a different embedding, as many do after a crop or rotation.

    Parameters
    ----------
    train, test
        Embeddings, finite, float32 `[rows, dim]`. The search takes at most about 250 MB in addition
        at 1,280 dimensions, and the time of a product of all pairs.

    Returns
    -------
    NearDuplicates
        No pairs if training has fewer than 50 rows.
    """
    if len(train) < LEAST_TRAINING or not len(test):
        nothing = np.empty(0, np.int64)
        return NearDuplicates(
            nothing,
            nothing,
            np.empty(0, np.float32),
            np.zeros(len(test), bool),
            "Near-duplicates are not searched for with fewer than "
            f"{LEAST_TRAINING} training examples.",
        )
    similarity, row = nearest(train, test, NEIGHBOURS)
    distance = np.sqrt(np.maximum(0, 2 - 2 * similarity.astype(np.float64)))
    first, last = distance[:, 0], distance[:, -1]
    ratio = chance_ratio(distance)
    limit = ratio * np.minimum(last, np.median(last))
    found = first < limit
    order = np.flatnonzero(found)
    order = order[np.argsort(-similarity[order, 0], kind="stable")]
    return NearDuplicates(
        order,
        row[order, 0],
        similarity[order, 0],
        found,
        f"The distance to the nearest training example is less than {ratio:.2f} times that to the "
        f"tenth; for independent examples, this is so for one in {1 / CHANCE:,.0f}.",
    )


def chance_ratio(distance: np.ndarray) -> float:
    """The ratio d1 / d10 that the share `CHANCE` of independent examples stays below.

    Parameters
    ----------
    distance
        Ascending distances to the ten nearest, float `[rows, 10]`.
    """
    half = NEIGHBOURS // 2
    inside = distance[:, -1] > 0
    if not inside.any():
        return 0.0
    spread = float(np.median(distance[inside, half - 1] / distance[inside, -1]))
    # spread^m = 1/2 gives m; P(ratio < r) = 1 - (1 - r^m)^9 = CHANCE gives r^m.
    power = -np.expm1(np.log1p(-CHANCE) / (NEIGHBOURS - 1))
    return float(spread ** (np.log(power) / np.log(0.5)))


def nearest(train: np.ndarray, test: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` most similar training rows of every test row, the most similar first.

    Returns the cosine similarities after subtracting the training mean, float32
    `[test rows, count]`, and the rows of `train`, int64 of the same shape. Both arrays are
    processed in blocks, so that neither is copied as a whole.
    """
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    best = np.full((len(test), count), -np.inf, np.float32)
    rows = np.zeros((len(test), count), np.int64)
    blocks = -(-len(train) // TRAIN_BLOCK)
    with console.progress("searching for near-duplicates", blocks * len(test)) as advance:
        for start in range(0, len(train), TRAIN_BLOCK):
            ours = directions(train[start : start + TRAIN_BLOCK], mean)
            for top in range(0, len(test), TEST_BLOCK):
                part = slice(top, top + TEST_BLOCK)
                products = directions(test[part], mean) @ ours.T
                _merge(best[part], rows[part], products, start)
                advance(len(products))
    return best, rows


def directions(embeddings: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows minus the mean, scaled to length 1, float32; a row equal to the mean stays 0."""
    centered = embeddings - mean
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    centered /= np.maximum(length, np.finfo(np.float32).tiny)
    return centered


def _merge(best: np.ndarray, rows: np.ndarray, products: np.ndarray, start: int) -> None:
    """Merge a block of products into the best so far, `best` and `rows`, in place."""
    count = best.shape[1]
    if products.shape[1] > count:
        kept = np.argpartition(products, -count, axis=1)[:, -count:]
        products = np.take_along_axis(products, kept, 1)
    else:
        kept = np.broadcast_to(np.arange(products.shape[1]), products.shape)
    both = np.concatenate([best, products], axis=1)
    order = np.argsort(-both, axis=1, kind="stable")[:, :count]
    best[:] = np.take_along_axis(both, order, 1)
    rows[:] = np.take_along_axis(np.concatenate([rows, kept + start], axis=1), order, 1)
