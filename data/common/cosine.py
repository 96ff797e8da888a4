"""The cosine between embeddings."""

from __future__ import annotations

import numpy as np


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row of `a` with the same row of `b`.

    Parameters
    ----------
    a, b
        Embeddings `[rows, dim]` of any float type; computed in float64.

    Returns
    -------
    np.ndarray
        float64 `[rows]`. The cosine of two rows of zeros is 1, that of a row of zeros and any
        other row is 0. NaN in a row makes it 0, infinite numbers make it NaN: neither counts
        as equal.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    return np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), (a == b).all(axis=1))
