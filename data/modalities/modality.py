"""What a modality is: everything about a kind of examples that the rest of the project uses.

Planning, workers, the feature store, heads, the report and jobs go through the two classes here,
and contain nothing about one kind of files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np


class DecodeError(Exception):
    """An example that cannot be decoded.

    Parameters
    ----------
    reason
        A stable code, such as `empty` or `truncated`; each modality lists its own.
    message
        What is wrong.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message

    def __str__(self) -> str:
        return self.message


class InputSpec(ABC):
    """How the bytes of an example become one row of a backbone's input.

    Part of the backbone file. It is sent to workers by pickle, so the class must be importable.
    `str()` of it is part of fingerprints, so two different rules must have different texts.
    """

    modality: ClassVar[str]  # its name in the table of modalities
    input: ClassVar[str]  # the name of the graph's input, or of the first of several
    dtype: ClassVar[type[np.generic]]
    ragged: ClassVar[bool] = False  # whether rows differ in length: then batches are cut by length

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one row of the input, without the batch axis; of the longest one if it is ragged."""

    @property
    def signature(self) -> dict[str, tuple[int | None, ...]]:
        """The graph's inputs and their shapes without the batch axis, None for a free axis."""
        return {self.input: self.shape}

    @abstractmethod
    def decode(self, content: bytes, fast: bool = True) -> np.ndarray:
        """An example's bytes to a row of the input, `dtype`, `shape`.

        Parameters
        ----------
        fast
            Whether values may be slightly off for speed; only exact comparisons turn it off.

        Raises
        ------
        DecodeError
            With a reason code.
        """

    def stack(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Rows from `decode` as a batch, `[rows, ...]`; those of a ragged input are padded."""
        return np.stack(rows)

    def feed(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays that a graph takes for a batch from `stack`, by the input's name."""
        return {self.input: batch}

    def tally(self, row: np.ndarray) -> Mapping[str, int]:
        """What is to be counted of a row from `decode`, such as whether it was cut, in words."""
        return {}

    def files(self) -> dict[str, bytes]:
        """What travels beside a graph: contents by what takes the place of `.onnx` in its name."""
        return {}

    @property
    def format_version(self) -> int:
        """The oldest format of a backbone file whose readers understand this rule."""
        return 1

    def unsized(self) -> InputSpec:
        """The rule for a graph that takes examples of any size; by default the same one."""
        return self

    def at(self, path: str) -> InputSpec:
        """The rule for the part of an example that its path names; by default the same one."""
        return self

    def parts(self, file: BinaryIO, start: float = 0.0, end: float | None = None) -> list[str]:
        """The parts of an example that are embedded separately, see `data.examples.parts`.

        Only where the modality is `divided`. An empty name is the whole example.

        Parameters
        ----------
        file
            The example's bytes, of which as few as possible are read.
        start, end
            What of the example counts.

        Raises
        ------
        DecodeError
            If it cannot be read.
        """
        return [""]

    @abstractmethod
    def to_metadata(self) -> dict[str, str]:
        """As entries of the backbone file's metadata, without prefix."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """For programs that use an edge model, in `NAME.labels.json`."""


@dataclass(frozen=True)
class Preview:
    """What a page shows of an example.

    Parameters
    ----------
    media_type
        Of the content, such as `image/jpeg`.
    content
        The bytes to show.
    sound
        What a player beside it plays, as MP3; nothing by default.
    """

    media_type: str
    content: bytes
    sound: bytes = b""


class Modality(ABC):
    """A kind of examples: their files, how to read them, and how to show them.

    Attributes
    ----------
    name
        In the backbone file's metadata.
    noun, plural
        What an example is called, such as `photograph`.
    extensions
        Of its files, in lower case, with the dot.
    in_tables
        Whether the cells of a table's column may be examples.
    divided
        Whether an example may be embedded in several parts, and be a stretch of a file.
    skipped
        Reasons of parts that say nothing of their example: its answer is that of the others.
    page_scripts
        Of `page_code`: what the demo page imports as `page`, and its worker as `worker`.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    plural: ClassVar[str]
    extensions: ClassVar[frozenset[str]]
    in_tables: ClassVar[bool] = False
    divided: ClassVar[bool] = False
    skipped: ClassVar[frozenset[str]] = frozenset()
    page_scripts: ClassVar[dict[str, str]] = {}

    @abstractmethod
    def input_spec(self, metadata: Mapping[str, str]) -> InputSpec:
        """From `InputSpec.to_metadata`; raises `KeyError`, `ValueError` or `InputError`."""

    @abstractmethod
    def size_of(self, content: bytes) -> str:
        """The size of an example for people, such as `640x480`; raises `DecodeError`."""

    def recognizes(self, content: bytes) -> bool:
        """Whether bytes look like an example, from their beginning if possible."""
        try:
            self.size_of(content)
        except DecodeError:
            return False
        return True

    def ready_code(self) -> dict[str, bytes]:
        """Programs that classify with an edge model and read files as training did, by name."""
        return {}

    @property
    def page_packages(self) -> tuple[str, ...]:
        """The npm packages that the page needs beside ONNX Runtime's."""
        return ()

    @abstractmethod
    def preview(self, content: bytes) -> Preview:
        """What a page shows of an example; raises `DecodeError`."""

    def preview_at(self, path: str, content: bytes) -> Preview:
        """What a page shows of the part of an example that its path names."""
        return self.preview(content)

    def page_code(self) -> dict[str, bytes]:
        """Files of the demo page by name: scripts that read files as training did, or a page.

        They take the place of files of the page for photographs that have the same names.
        """
        return {}
