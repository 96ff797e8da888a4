"""How a text becomes the tokens of a backbone, as described in the backbone file.

The tokenizer is a `tokenizer.json` of the package `tokenizers`. Special tokens and truncation are
written out here, so that programs in other languages need nothing but the tokenizer's own tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np

from headstart.data.common.errors import InputError, MissingPackageError
from headstart.data.modalities.modality import DecodeError, InputSpec
from headstart.data.modalities.text.reading import read_text
from headstart.data.storage.files import digest

TOKENIZER = ".tokenizer.json"  # takes the place of .onnx
PADDING = -1  # in a batch, where a text has ended; no token's id
IDS, MASK = "input_ids", "attention_mask"
MOST_TOKENS = 100_000


@dataclass(frozen=True)
class Rule:
    """Special tokens, and how many tokens a text may have.

    Parameters
    ----------
    tokens
        The most tokens of a text, with special tokens; what is longer is cut at its end.
    pad
        Id of the token that shorter texts of a batch are filled up with.
    prefix, suffix
        Ids of the special tokens before and after a text.
    unknown
        Id of the token for words without a vector, if they have no part in the embedding.
    """

    tokens: int
    pad: int = 0
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    unknown: int | None = None

    def with_tokenizer(self, tokenizer: str) -> Tokenization:
        """The rule and the tokenizer that it is for."""
        return Tokenization(**vars(self), tokenizer=tokenizer)


@dataclass(frozen=True, kw_only=True)
class Tokenization(Rule, InputSpec):
    """A tokenizer, and the rule for its tokens.

    Parameters
    ----------
    tokenizer
        The content of `tokenizer.json`.
    """

    modality = "text"
    input = IDS
    dtype = np.int64
    ragged = True

    tokenizer: str = field(repr=False)

    def __post_init__(self) -> None:
        least = len(self.prefix) + len(self.suffix) + 1
        if not least <= self.tokens <= MOST_TOKENS:
            raise InputError(
                f"a text of at most {self.tokens:,} tokens is not possible",
                f"Give {least} to {MOST_TOKENS:,}.",
            )

    @property
    def shape(self) -> tuple[int]:
        """The most tokens."""
        return (self.tokens,)

    @property
    def signature(self) -> dict[str, tuple[int | None, ...]]:
        """Ids and mask, both of any number of tokens."""
        return {IDS: (None,), MASK: (None,)}

    @property
    def room(self) -> int:
        """The most tokens without special ones."""
        return self.tokens - len(self.prefix) - len(self.suffix)

    def decode(self, content: bytes, fast: bool = True) -> np.ndarray:
        """All tokens of a text without special ones, neither cut nor padded: int64 `[tokens]`.

        Raises
        ------
        DecodeError
            `empty`, `not_text`, `not_utf8`, `too_long`; `no_tokens`; `unknown_words` if unknown
            words have no part in the embedding and there are no others.
        """
        ids = np.array(self.encode(read_text(content)), np.int64)
        if not len(ids):
            raise DecodeError("no_tokens", "the tokenizer drops all of its characters")
        if self.unknown is not None and (ids[: self.room] == self.unknown).all():
            raise DecodeError("unknown_words", "none of its words has a vector")
        return ids

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens, without special ones."""
        ids: list[int] = open_tokenizer(self.tokenizer).encode(text, add_special_tokens=False).ids
        return ids

    def stack(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Texts from `decode`, cut, with special tokens: int64 `[texts, tokens]`, -1 at the end."""
        longest = max(min(len(row), self.room) for row in rows)
        start, extra = len(self.prefix), len(self.prefix) + len(self.suffix)
        batch = np.full((len(rows), longest + extra), PADDING, np.int64)
        for number, row in enumerate(rows):
            end = start + min(len(row), self.room)
            batch[number, :start] = self.prefix
            batch[number, start:end] = row[: self.room]
            batch[number, end : end + len(self.suffix)] = self.suffix
        return batch

    def feed(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask`, int64 `[texts, tokens]`."""
        real = batch != PADDING
        return {IDS: np.where(real, batch, self.pad), MASK: real.astype(np.int64)}

    def tally(self, row: np.ndarray) -> Mapping[str, int]:
        """Whether a text is cut; of words with vectors, how many there are and are unknown."""
        found = {f"texts cut at {self.tokens:,} tokens": int(len(row) > self.room)}
        if self.unknown is not None:
            found["words"] = len(row)
            found["words without a vector"] = int((row == self.unknown).sum())
        return found

    def files(self) -> dict[str, bytes]:
        """The tokenizer."""
        return {TOKENIZER: self.tokenizer.encode()}

    def to_metadata(self) -> dict[str, str]:
        """As entries of the backbone file's metadata."""
        return {"tokens": json.dumps(self.to_json()), "tokenizer": self.tokenizer}

    def to_json(self) -> dict[str, Any]:
        """For programs that use an edge model; the tokenizer is in a file of its own."""
        return {each.name: getattr(self, each.name) for each in fields(Rule)}

    def __str__(self) -> str:
        return f"{self.tokens} tokens of tokenizer {digest(self.tokenizer.encode())[:12]}"


@lru_cache(maxsize=4)
def open_tokenizer(content: str) -> Any:
    """A `tokenizers.Tokenizer` from the content of `tokenizer.json`.

    Raises
    ------
    MissingPackageError
        If the package is not installed.
    InputError
        If the content is not valid.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise MissingPackageError(
            "texts need the package tokenizers, which is not installed",
            "Install it with: pip install 'headstart[text]'",
        ) from None
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # its errors have no class of their own
        raise InputError(
            f"the tokenizer cannot be read: {error}", "Give the tokenizer.json of the encoder."
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
