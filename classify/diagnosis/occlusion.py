"""Where a head looks: how its answer changes as parts of a photograph are covered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.classify.prediction.features import HeadSession
from headstart.data.common import console
from headstart.data.common.errors import BackboneError, StorageError
from headstart.data.common.onnx_runtime import open_session
from headstart.data.contracts.backbone import OUTPUT, Backbone, load_backbone
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.examples.reading import Reader
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import DecodeError
from headstart.data.storage.folder import Folder

MOST = 12  # photographs
GRID = 8  # places of the cover along each side
BATCH = 16  # covered copies that go through the backbone at once
SECONDS = 30.0  # after which no further photograph is begun


@dataclass(frozen=True)
class Look:
    """What the head looked at in one photograph.

    Parameters
    ----------
    pixels
        The backbone's input with the effect drawn on it, uint8 `[height, width, 3]`.
    most
        The largest fall of the predicted class's probability, 0 to 1.
    """

    pixels: np.ndarray
    most: float


def backbone_for_looking(path: str | Path, fingerprint: Fingerprint) -> Backbone:
    """The backbone file that made the features.

    Raises
    ------
    BackboneError
        If it is another one, or not one of photographs.
    """
    found = load_backbone(path)
    if found.spec.modality is not MODALITIES["image"]:
        raise BackboneError(
            f"--backbone shows where a head looks in photographs; {path} is one of "
            f"{found.spec.modality.plural}",
            "Leave --backbone out.",
        )
    if fingerprint not in found.makes:
        raise BackboneError(
            f"--backbone {path} did not make these features:\n"
            f"  the file:     {found.fingerprint}\n  the features: {fingerprint}",
            "Name the backbone file that extract was given.",
        )
    return found


def looks(backbone: Backbone, head: bytes, folder: Folder, paths: Sequence[str]) -> dict[str, Look]:
    """Cover every photograph in 64 places, one after the other, and see what the head says.

    The cover is a square of the photograph's mean colour. What counts is the fall of the
    probability of the class that was predicted (Zeiler and Fergus 2014); no gradient is needed, so
    any graph will do. A photograph takes 65 inferences; after 30 seconds no other is begun.

    Parameters
    ----------
    head
        The bytes of `head.onnx`.
    paths
        Of the photographs, relative to `folder`, at most twelve of which are looked at.

    Returns
    -------
    dict
        By path; without those that cannot be read, and those for which there was no time.
    """
    session, answers, reader = open_session(backbone.content), HeadSession(head), Reader(folder)
    spec, found, start = backbone.spec.preprocessing, {}, time.monotonic()
    with console.progress("looking where the head looked", min(MOST, len(paths))) as advance:
        for path in paths[:MOST]:
            if time.monotonic() - start > SECONDS:
                break
            try:
                pixels = spec.at(path).decode(reader.read(path))
            except (DecodeError, OSError, StorageError):
                pixels = None
            if pixels is not None:
                found[path] = _look(pixels, session, answers)
            advance(1)
    return found


def _look(pixels: np.ndarray, session: Any, answers: HeadSession) -> Look:
    def probabilities(batch: np.ndarray) -> np.ndarray:
        (embeddings,) = session.run([OUTPUT], {"image": batch})
        return answers.run(embeddings)[1]

    whole = probabilities(pixels[None])[0]
    predicted = int(whole.argmax())
    places = [(row, column) for row in range(GRID) for column in range(GRID)]
    rest = [
        probabilities(np.stack([_covered(pixels, *at) for at in places[start : start + BATCH]]))
        for start in range(0, len(places), BATCH)
    ]
    fall = whole[predicted] - np.concatenate(rest)[:, predicted].reshape(GRID, GRID)
    return Look(_drawn(pixels, fall), float(max(0.0, fall.max())))


def _covered(pixels: np.ndarray, row: int, column: int) -> np.ndarray:
    """A copy with a square of the mean colour, twice as wide as a step of the grid."""
    copy = pixels.copy()
    spans = []
    for at, side in ((row, pixels.shape[0]), (column, pixels.shape[1])):
        step = side / GRID
        spans.append(slice(max(0, round((at - 0.5) * step)), max(1, round((at + 1.5) * step))))
    copy[spans[0], spans[1]] = pixels.reshape(-1, 3).mean(axis=0).round()
    return copy


def _drawn(pixels: np.ndarray, fall: np.ndarray) -> np.ndarray:
    """The photograph in grey, orange where covering it lowered the probability."""
    share = np.maximum(fall, 0) / max(float(fall.max()), 1e-6)
    size = pixels.shape[1], pixels.shape[0]
    small = Image.fromarray((share * 255).astype(np.uint8))
    effect = np.asarray(small.resize(size, Image.Resampling.BILINEAR), np.float32)[..., None] / 255
    grey = pixels.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.8 + 25
    orange = np.array([255, 120, 0], np.float32)
    return (grey * (1 - 0.65 * effect) + orange * 0.65 * effect).clip(0, 255).astype(np.uint8)
