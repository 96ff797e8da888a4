"""What runs the backbone's graph: ONNX Runtime on one CPU core."""

from __future__ import annotations

import numpy as np

from data.backbone import INPUT, OUTPUT


class OnnxRuntimeEngine:
    """A backbone session that stays on one core: workers are many, threads would fight.

    Parameters
    ----------
    content
        The bytes of the backbone file.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Images, uint8 `[batch, height, width, 3]`, to embeddings, float32 `[batch, dim]`."""
        (embeddings,) = self.session.run([OUTPUT], {INPUT: images})
        return embeddings
