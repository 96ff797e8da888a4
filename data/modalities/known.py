"""The table of modalities: a new one needs a folder beside `image` and an entry here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from headstart.data.modalities.image.modality import Photographs
from headstart.data.modalities.modality import Modality
from headstart.data.modalities.sound.modality import Recordings
from headstart.data.modalities.text.modality import Texts

MODALITIES: dict[str, Modality] = {
    each.name: each for each in (Photographs(), Recordings(), Texts())
}


def known_extensions() -> frozenset[str]:
    """The extensions of all modalities."""
    return frozenset().union(*(each.extensions for each in MODALITIES.values()))


def modality_of(names: Iterable[str]) -> Modality:
    """The modality of most files by their extension; the table's first if none is known."""
    counts = Counter(PurePosixPath(name).suffix.lower() for name in names)
    return max(
        MODALITIES.values(),
        key=lambda each: sum(counts[extension] for extension in each.extensions),
    )
