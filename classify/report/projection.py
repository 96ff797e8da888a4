"""Embeddings in two dimensions, for a map: by a process of its own beside the training."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from headstart.classify.splits.splitting import Split

POINTS = 1000  # at most, from each side of the split
FEWEST_FOR_TSNE = 50
FEWEST_FOR_A_PROCESS = 1000  # fewer take less time than a process does to start
COMPONENTS = 50  # of PCA, before t-SNE
PERPLEXITY = 30
ITERATIONS = 500  # of t-SNE; twice as many hardly change a map of 2,000 points
SEED = 0


def project(embeddings: np.ndarray) -> tuple[np.ndarray, str]:
    """Places on the map, float `[points, 2]`, and the name of the method.

    PCA to 50 components, then t-SNE (van der Maaten and Hinton 2008); only PCA for fewer than 50
    points. The seed is fixed.
    """
    if len(embeddings) < FEWEST_FOR_TSNE:
        places = PCA(min(2, embeddings.shape[1]), random_state=SEED).fit_transform(embeddings)
        return np.pad(places, ((0, 0), (0, 2 - places.shape[1]))), "PCA"
    components = min(COMPONENTS, *embeddings.shape)
    reduced = PCA(components, random_state=SEED).fit_transform(embeddings)
    # One thread: if other work uses the cores, threads that wait for each other are much slower.
    with threadpool_limits(1):
        perplexity = min(PERPLEXITY, (len(embeddings) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=SEED)
        return tsne.fit_transform(reduced), f"PCA to {components} and t-SNE"


def sample_rows(split: Split) -> np.ndarray:
    """Rows of the data to draw, from both sides of the split, ascending, int64."""
    random = np.random.default_rng(SEED)
    sides = (split.train, split.test)
    return np.sort(np.concatenate([random.permutation(side)[:POINTS] for side in sides]))


def start_projecting(embeddings: np.ndarray) -> Callable[[], tuple[np.ndarray, str]] | None:
    """Start `project` in another process; what is returned waits for its answer.

    A thread would not do: how many threads the products of training use, and so their last bits,
    is a setting of the process. None where that would not be faster: few points, or one core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if len(embeddings) < FEWEST_FOR_A_PROCESS or cores == 1 or not sys.executable:
        return None
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryFile() as given:
        np.save(given, embeddings)
        given.seek(0)
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", __spec__.name],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def answer() -> tuple[np.ndarray, str]:
        written, _ = process.communicate()
        if process.returncode:
            return project(embeddings)
        found = np.load(BytesIO(written), allow_pickle=False)
        return found["places"], str(found["method"])

    return answer


if __name__ == "__main__":
    places, method = project(np.load(BytesIO(sys.stdin.buffer.read()), allow_pickle=False))
    np.savez(sys.stdout.buffer, places=places, method=method)
