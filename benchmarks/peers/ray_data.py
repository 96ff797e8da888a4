"""Ray Data as its documentation shows batch inference: read, map, write."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "token")
import numpy as np
import ray

folder, backbone, out = map(Path, sys.argv[1:4])


class Embed:
    """A session of one thread in each actor."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        (found,) = self.session.run(None, {"image": batch["image"]})
        return {"id": batch["path"], "embedding": found}


def input_size() -> tuple[int, int]:
    """Height and width that the backbone wants."""
    import onnxruntime

    session = onnxruntime.InferenceSession(backbone, providers=["CPUExecutionProvider"])
    return tuple(session.get_inputs()[0].shape[1:3])


ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1")
photographs = ray.data.read_images(str(folder), size=input_size(), mode="RGB", include_paths=True)
actors = max(1, (os.cpu_count() or 1) - 1)  # reading wants a CPU as well
rows = photographs.map_batches(
    Embed,
    fn_constructor_args=[backbone.read_bytes()],
    batch_size=32,
    compute=ray.data.ActorPoolStrategy(size=actors),
)
rows.write_parquet(str(out))
