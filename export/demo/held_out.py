"""Photographs that a model was not trained on, for people to try a page with."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from headstart.data.common.errors import InputError, StorageError
from headstart.data.contracts.edge import Edge
from headstart.data.contracts.model import Model
from headstart.data.examples.reading import Reader
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import DecodeError
from headstart.data.storage.places import folder_at

MOST, SIDE, QUALITY = 6, 480, 85  # photographs; pixels of the longer side; as JPEG
SEED = 0


@dataclass(frozen=True)
class Shown:
    """A photograph of a page: its bytes as JPEG, and its label."""

    content: bytes
    label: str


def held_out(model: str | Path, edge: Edge) -> list[Shown]:
    """At most six held-out photographs of a model, of as many classes as possible, at random.

    Whether they were classified correctly does not matter. They are made smaller, and lose what
    their files say beside the pixels.

    Raises
    ------
    InputError
        If the edge model is of another model or of other examples, or none can be read.
    """
    if edge.spec.modality is not MODALITIES["image"]:
        raise InputError(
            f"--examples are photographs, and {edge.path} is for {edge.spec.modality.plural}",
            "Leave --examples out.",
        )
    opened = Model.open(model)
    if opened.card.classes != edge.classes:
        raise InputError(
            f"--examples {model} has other classes than {edge.path}",
            "Name the model folder that the edge model was exported from.",
        )
    table = opened.examples()
    table = table.filter(pc.equal(table["split"], "test"))
    rows = np.random.default_rng(SEED).permutation(table.num_rows)
    labels = np.array(table["label"].to_pylist(), object)[rows]
    turn = np.array([int((labels[:at] == label).sum()) for at, label in enumerate(labels)])
    reader, found = Reader(folder_at(opened.card.root)), []
    for row in rows[np.argsort(turn, kind="stable")].tolist():
        try:
            content = _small(reader.read(table["path"][row].as_py()))
        except (DecodeError, OSError, StorageError):
            continue
        found.append(Shown(content, table["label"][row].as_py()))
        if len(found) == MOST:
            break
    if not found:
        raise InputError(
            f"--examples {model}: none of its held-out photographs can be read from "
            f"{opened.card.root}",
            "Put them back, or leave --examples out.",
        )
    return found


def _small(content: bytes) -> bytes:
    image = Image.fromarray(_Smaller(SIDE, SIDE).decode(content))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Smaller(Preprocessing):
    """At most so large, in its own proportions."""

    def apply(self, image: Image.Image, fast: bool = False) -> np.ndarray:
        image = image.convert("RGB")
        image.thumbnail((self.width, self.height), Image.Resampling.LANCZOS)
        return np.asarray(image)
