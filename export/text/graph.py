"""From the tokens of a text to its embedding, in the graph and once more in numpy for the check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from headstart.data.common.onnx_builder import GraphBuilder
from headstart.data.common.onnx_graphs import BATCH
from headstart.data.contracts.backbone import OUTPUT
from headstart.data.modalities.text.tokens import IDS, MASK
from headstart.export.backbone.embedding import OWN

TOKENS = "tokens"
FLOOR = 1e-12  # of a length that is divided by
LOWEST = -1e9  # what tokens that are padding have in a maximum
POOLS = ("avg", "token", "max")


def encoder_graph(encoder: Any, pools: Sequence[str], unit: bool, dim: int) -> bytes:
    """A graph from `input_ids` and `attention_mask` to `embedding`.

    Parameters
    ----------
    encoder
        An `onnx.ModelProto` from the two to `[batch, tokens, channels]`.
    pools
        Of `POOLS`, concatenated.
    unit
        Whether embeddings have a length of 1.
    """
    graph = GraphBuilder(OWN)
    (hidden,) = graph.add_model(encoder, "encoder/")
    graph.inputs.clear()
    for name in (IDS, MASK):
        graph.input(name, TensorProto.INT64, [BATCH, TOKENS])
    return _finished(graph, hidden, graph.add("Cast", MASK, to=TensorProto.FLOAT), pools, unit, dim)


def words_graph(vectors: np.ndarray, unknown: int) -> bytes:
    """A graph of one table: the mean vector of the words that have one.

    Parameters
    ----------
    vectors
        float32 `[ids, dim]`.
    unknown
        The id of words without a vector.
    """
    graph = GraphBuilder(OWN)
    for name in (IDS, MASK):
        graph.input(name, TensorProto.INT64, [BATCH, TOKENS])
    hidden = graph.add("Gather", graph.constant(vectors), IDS)
    lacks = graph.add("Equal", IDS, graph.integers(unknown))
    known = graph.add("Cast", graph.add("Not", lacks), to=TensorProto.FLOAT)
    mask = graph.add("Mul", known, graph.add("Cast", MASK, to=TensorProto.FLOAT))
    return _finished(graph, hidden, mask, ("avg",), False, vectors.shape[1])


def _finished(
    graph: GraphBuilder, hidden: str, mask: str, pools: Sequence[str], unit: bool, dim: int
) -> bytes:
    mask = graph.add("Unsqueeze", mask, graph.integers(-1))
    pooled = [_pool(graph, hidden, mask, pool) for pool in pools]
    made = pooled[0] if len(pooled) == 1 else graph.add("Concat", *pooled, axis=-1)
    if unit:
        length = graph.add("ReduceL2", made, graph.integers(-1), keepdims=1)
        made = graph.add("Div", made, graph.add("Max", length, graph.constant(FLOOR)))
    graph.output(made, OUTPUT, TensorProto.FLOAT, [BATCH, dim])
    return graph.to_bytes("backbone")


def _pool(graph: GraphBuilder, hidden: str, mask: str, pool: str) -> str:
    if pool == "token":
        return graph.add("Gather", hidden, graph.constant(0, np.int64), axis=1)
    if pool == "max":
        real = graph.add("Cast", mask, to=TensorProto.BOOL)
        masked = graph.add("Where", real, hidden, graph.constant(LOWEST))
        return graph.add("ReduceMax", masked, graph.integers(1), keepdims=0)
    total = graph.add("ReduceSum", graph.add("Mul", hidden, mask), graph.integers(1), keepdims=0)
    count = graph.add("ReduceSum", mask, graph.integers(1), keepdims=0)
    return graph.add("Div", total, graph.add("Max", count, graph.constant(1)))


def embed(hidden: np.ndarray, mask: np.ndarray, pools: Sequence[str], unit: bool) -> np.ndarray:
    """The same of tokens `[texts, tokens, channels]` in numpy, float64 `[texts, dim]`."""
    hidden, real = hidden.astype(np.float64), mask.astype(bool)
    pieces = {
        "avg": lambda text, keep: text[keep].mean(axis=0),
        "token": lambda text, keep: text[0],
        "max": lambda text, keep: text[keep].max(axis=0),
    }
    rows = [
        np.concatenate([pieces[pool](text, keep) for pool in pools])
        for text, keep in zip(hidden, real, strict=True)
    ]
    made = np.stack(rows)
    return made / np.linalg.norm(made, axis=1, keepdims=True) if unit else made
