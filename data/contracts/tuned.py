"""The tuned network: what fine-tuning writes, and `export backbone` reads like any network.

Format version 1, a folder:

- the weights of the whole network, in the form that its kind of network is exported from
  (`weights.safetensors`; for Keras `network.weights.h5` or `network.keras`);
- `head.safetensors`: `weight` float32 `[classes, dim]` and `bias` `[classes]` of the head that was
  trained with it;
- `examples.parquet`: as in the model folder, with the tuned network's answers for test examples;
- `report.html`: for people;
- `tuned.json`, written last.

The version is bumped when a reader of the old version would read a new folder wrongly; a new
optional key does not bump it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headstart.data.common.errors import ModelError
from headstart.data.contracts.json_reader import format_version, read_json
from headstart.data.storage.local import LocalFolder

FORMAT_VERSION = 1
TUNED, HEAD, EXAMPLES, REPORT = "tuned.json", "head.safetensors", "examples.parquet", "report.html"
COMMAND = "Make one with: python -m classify finetune SOURCE --backbone B --model M -o tuned"


@dataclass(frozen=True)
class TunedCard:
    """What `tuned.json` says.

    Parameters
    ----------
    network
        The network that was tuned, as `export backbone` names it.
    name
        Of the tuned network, for people.
    weights
        The file with its weights.
    origin, licence
        Of the weights that it started from.
    size
        Height and width of the input in pixels.
    resize, interpolation, crop_fraction, crop_offset, scaling
        As the network was tuned with them; a scaling only if the network does not state its own.
    classes
        In the order of the head's outputs.
    blocks
        Names of the blocks that were trained.
    recipe
        How; `Recipe` of fine-tuning.
    history
        Loss, accuracy and time of each epoch.
    metrics
        `test`: scores on the test examples; `comparison`: with the frozen model.
    root
        The folder that the examples' paths are relative to.
    """

    network: str
    name: str
    weights: str
    origin: str
    licence: str
    size: int
    resize: str
    interpolation: str
    classes: tuple[str, ...]
    blocks: tuple[str, ...]
    root: str
    scaling: str | None = None
    crop_fraction: float | None = None
    crop_offset: str = "round"
    recipe: dict[str, Any] = field(default_factory=dict)
    history: tuple[dict[str, Any], ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As the bytes of `tuned.json`."""
        value = {"format_version": FORMAT_VERSION} | asdict(self)
        return json.dumps(value, indent=1, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Tuned:
    """A tuned network opened for reading."""

    folder: LocalFolder
    card: TunedCard

    @property
    def weights(self) -> Path:
        """The file with its weights."""
        return self.folder.path(self.card.weights)

    def examples(self) -> pa.Table:
        """The examples, as in `examples.parquet`; raises `ModelError` if it is damaged."""
        try:
            return self.folder.table(EXAMPLES)
        except (pa.ArrowException, FileNotFoundError) as error:
            raise ModelError(f"{self.folder.path(EXAMPLES)} is damaged: {error}", COMMAND) from None

    @classmethod
    def open(cls, path: str | Path) -> Tuned:
        """Open a tuned network.

        Raises
        ------
        ModelError
            If it is missing, damaged, or of another format version.
        """
        folder = LocalFolder.at(path)
        if not folder.exists(TUNED):
            raise ModelError(f"{path} is not a tuned network (it has no {TUNED})", COMMAND)
        content = folder.read(TUNED)
        try:
            version = format_version(content)
            card = read_json(content, TunedCard) if version == FORMAT_VERSION else None
            if card and Path(card.weights).name != card.weights:
                raise ValueError(f"its weights are outside of it: {card.weights!r}")
        except ValueError as error:
            raise ModelError(f"{folder.path(TUNED)} is damaged: {error}", COMMAND) from None
        if card is None:
            raise ModelError(
                f"{path} is a tuned network of format {version}; this headstart reads "
                f"{FORMAT_VERSION}",
                "Update headstart, or tune again.",
            )
        if not folder.exists(card.weights):
            raise ModelError(f"{path} lacks {card.weights}", COMMAND)
        return cls(folder, card)
