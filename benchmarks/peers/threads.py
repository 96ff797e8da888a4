"""The careful script: a pool of threads, each of which decodes a batch and runs it on one core."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from peer_session import open_session
from PIL import Image

BATCH = 16

folder, backbone, out = map(Path, sys.argv[1:4])
session = open_session(backbone, threads=1)
height, width = session.get_inputs()[0].shape[1:3]


def load(path: Path) -> np.ndarray:
    """A photograph, uint8 `[height, width, 3]`."""
    image = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def embed(batch: Sequence[Path]) -> pa.Table:
    """Rows of a batch."""
    (found,) = session.run(None, {"image": np.stack([load(path) for path in batch])})
    rows = pa.array(list(found), pa.list_(pa.float32()))
    names = [str(path.relative_to(folder)) for path in batch]
    return pa.table({"id": names, "embedding": rows})


paths = sorted(folder.glob("*/*.jpg"))
batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
with ThreadPoolExecutor(os.cpu_count()) as pool:
    tables = list(pool.map(embed, batches))
out.mkdir()
pq.write_table(pa.concat_tables(tables), out / "embeddings.parquet")
