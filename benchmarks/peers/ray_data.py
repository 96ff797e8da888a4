"""Ray Data as its documentation shows batch inference: read, map, write."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")
import numpy as np
import ray
from peer_session import input_size, open_session

folder, backbone, out = map(Path, sys.argv[1:4])


class Embed:
    """A session of one thread in each actor."""

    def __init__(self, content: bytes) -> None:
        self.session = open_session(content, threads=1)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        (found,) = self.session.run(None, {"image": batch["image"]})
        return {"id": batch["path"], "embedding": found}


ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1")
photographs = ray.data.read_images(
    str(folder), size=input_size(backbone), mode="RGB", include_paths=True
)
actors = max(1, (os.cpu_count() or 1) - 1)  # reading wants a CPU as well
rows = photographs.map_batches(
    Embed,
    fn_constructor_args=[backbone.read_bytes()],
    batch_size=32,
    compute=ray.data.ActorPoolStrategy(size=actors),
)
rows.write_parquet(str(out))
