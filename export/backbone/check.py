"""Loads a backbone file before it is written, and compares it with its original.

Converters write broken files without failing.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from headstart.data.common.errors import BackboneError
from headstart.data.common.onnx_graphs import STANDARD_DOMAINS
from headstart.data.common.onnx_runtime import open_session
from headstart.data.common.speed import random_rows
from headstart.data.contracts.backbone import INPUT, OUTPUT, BackboneSpec
from headstart.export.backbone.embedding import Recipe
from headstart.export.backbone.reference import embed, embed_scaled
from headstart.export.backbone.spectrogram import Spectrogram
from headstart.export.networks.network import NO_WEIGHTS, Original

TOLERANCE = 1e-4  # largest relative difference of the embeddings
SOUND_TOLERANCE = 1e-3  # the logarithm of what is almost nothing magnifies rounding
BATCHES = (1, 3)
# Cosine of photographs' embeddings with those by the network's own preprocessing: below the first
# they are not the same; below the second, rounding shows (small inputs, random weights).
LEAST, LIKENESS = 0.9, 0.99
TINY = float(np.finfo(np.float32).tiny)


def check(
    content: bytes,
    original: Original,
    recipe: Recipe,
    spec: BackboneSpec,
    spectrogram: Spectrogram | None = None,
) -> float:
    """Load an fp32 export and compare it with its original, at batch 1 and 3.

    Of a graph that takes a waveform, the pictures are computed once more by numpy, in double
    precision.

    Returns the largest relative difference of the embeddings (before the signed square root, which
    turns a difference of 1e-8 from zero into 1e-4).

    Raises
    ------
    BackboneError
        If inputs, operators, shapes or numbers are wrong, or the original's own numbers cannot be
        compared with.
    """

    def broken(what: str, fix: str = "") -> BackboneError:
        return BackboneError(
            f"the ONNX export of {spec.name} is broken: {what}", fix or "Choose another network."
        )

    session = load(content, broken, spec)
    worst = 0.0
    for batch in BATCHES:
        given = random_rows(spec.preprocessing.shape, batch)
        if spectrogram is None:
            expected = embed(original, recipe, given)
        else:
            pictures = spectrogram.pictures(given)
            expected = embed_scaled(original, recipe, original.scaling.apply(pictures))
        _refuse_degenerate(expected, spec.name)
        try:
            (got,) = session.run([OUTPUT], {spec.preprocessing.input: given})
        except Exception as error:  # such as a batch axis that is fixed inside the graph
            raise broken(
                f"it does not run on a batch of {batch} ({error})",
                "Export the network again with a free batch axis, or choose another one.",
            ) from error
        if got.shape != (batch, spec.dim) or got.dtype != np.float32:
            raise broken(f"its embedding is {got.dtype} {list(got.shape)}")
        if expected.shape != (batch, spec.dim):
            raise broken(
                f"the network's own embedding is {list(expected.shape)}, not {[batch, spec.dim]}",
                "Choose another layer, or export the network again with all shapes in it.",
            )
        if recipe.power:
            got = got * np.abs(got)
        if not np.isfinite(got).all():
            raise broken("its embedding has NaN or infinite numbers, but the original's has none")
        worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
    limit = TOLERANCE if spectrogram is None else SOUND_TOLERANCE
    if worst > limit:
        random = "Its weights are random, so rounding errors can grow from layer to layer: give "
        raise broken(
            f"its numbers differ from the original's by {worst:.1e}, more than {limit:.0e}",
            f"{random}trained weights." if original.weights == NO_WEIGHTS else "",
        )
    return worst


def check_photographs(
    content: bytes, original: Original, recipe: Recipe, spec: BackboneSpec
) -> float | None:
    """Compare embeddings of whole photographs with those by the network's own preprocessing.

    Returns the lowest cosine, of embeddings less their mean, which all photographs share; None if
    the network has no preprocessing of its own for this size.

    Raises
    ------
    BackboneError
        If it is below `LEAST`.
    """
    if original.see is None:
        return None
    files = photographs()
    seen = np.stack([original.see(Image.open(BytesIO(file)).convert("RGB")) for file in files])
    pixels = seen.transpose(0, 2, 3, 1).astype(np.float32)
    wanted = embed_scaled(original, recipe, pixels)
    images = np.stack([spec.preprocessing.decode(file) for file in files])
    (got,) = open_session(content).run([OUTPUT], {INPUT: images})
    got = got * np.abs(got) if recipe.power else got
    centre = wanted.mean(axis=0)
    got, wanted = got - centre, wanted - centre
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    likeness = float(((got * wanted).sum(axis=1) / np.maximum(lengths, TINY)).min())
    if likeness < LEAST:
        raise BackboneError(
            f"photographs that are resized by {spec.preprocessing} give {spec.name} other "
            f"embeddings than by its own preprocessing (cosine {likeness:.3f}, at least "
            f"{LEAST} is wanted)",
            "State the rule: --resize RULE --interpolation NAME --crop-fraction SHARE.",
        )
    return likeness


def photographs() -> list[bytes]:
    """Photographs as JPEG files: lying and upright, larger and smaller than most inputs."""
    from sklearn.datasets import load_sample_images

    found = []
    for pixels in load_sample_images().images:
        lying = Image.fromarray(pixels)
        small = lying.crop((200, 60, 390, 330))
        found += [lying, lying.rotate(90, expand=True), small]
    files = []
    for image in found:
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    return files


def _refuse_degenerate(embedding: np.ndarray, name: str) -> None:
    """Raise `BackboneError` if the original's embedding of noise cannot be compared with."""
    if not np.isfinite(embedding).all():
        what = "has NaN or infinite numbers"
    elif np.abs(embedding).max() < TINY:
        what = "is all zeros"
    else:
        return
    raise BackboneError(
        f"the embedding that {name} itself computes for random images {what}, so its export cannot "
        "be checked",
        "Check its weights, or choose another layer.",
    )


def load(content: bytes, broken: Any, spec: BackboneSpec) -> Any:
    """An ONNX Runtime session of a backbone's graph; raises `broken(why)` if it has none."""
    import onnx

    nodes = onnx.load_model_from_string(content).graph.node
    foreign = sorted({n.op_type for n in nodes if n.domain not in STANDARD_DOMAINS})
    del nodes  # it keeps the whole model in memory
    if foreign:
        raise broken(f"it has operators that are not ONNX's own ({', '.join(foreign)})")
    try:
        onnx.checker.check_model(content)
        session = open_session(content)
    except Exception as error:  # neither library has one error class for what it cannot load
        raise broken(f"it cannot be loaded ({error})") from error
    names = [value.name for value in session.get_inputs()]
    kind = "tensor(uint8)" if spec.preprocessing.input == INPUT else "tensor(float)"
    if names != [spec.preprocessing.input] or session.get_inputs()[0].type != kind:
        raise broken(f"its inputs are {names}")
    return session
