"""Files of word vectors: Word2Vec's text and binary formats, and GloVe's text."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from headstart.data.common.errors import BackboneError
from headstart.data.modalities.text.tokens import Rule, Tokenization

PAD, UNKNOWN = "[PAD]", "[UNK]"
MOST_WORDS = 100_000
MOST_TOKENS = 8192  # of a text; words have no positions, so this only bounds memory
LONGEST_WORD = 1000  # bytes
LARGEST = 4096  # numbers of a vector
CAPITALS = 0.001  # share of words with capitals, below which texts are lowercased
LINE = "a word and its numbers, separated by spaces"


@dataclass(frozen=True)
class WordVectors:
    """Words and their vectors, in the order of the file.

    Parameters
    ----------
    vectors
        float32 `[words, dim]`.
    cut
        Whether the file has more words.
    """

    words: tuple[str, ...]
    vectors: np.ndarray
    cut: bool


def read_words(path: Path, most: int = MOST_WORDS) -> WordVectors:
    """The first words of a file, which are the most frequent ones; repeated ones count once.

    Raises
    ------
    BackboneError
        If it cannot be read, or is none of the formats.
    """
    if not path.is_file():
        raise BackboneError(f"{path}: no such file of word vectors", "Check the path.")
    found: dict[str, np.ndarray] = {}
    cut = False
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for word, vector in _entries(path, cast(BinaryIO, file)):
                if len(found) == most:
                    cut = True
                    break
                if word not in found and word not in (PAD, UNKNOWN):
                    found[word] = vector
    except (OSError, EOFError) as error:
        raise BackboneError(f"{path} cannot be read: {error}", "Download it again.") from None
    if not found:
        raise _not_vectors(path, "it has no words")
    return WordVectors(tuple(found), np.stack([*found.values()]), cut)


def _not_vectors(path: Path, why: str) -> BackboneError:
    return BackboneError(
        f"{path} is not a file of word vectors: {why}",
        f"Give a text file with {LINE}, on each line (GloVe, Word2Vec), or Word2Vec's binary file.",
    )


def _entries(path: Path, file: BinaryIO) -> Iterator[tuple[str, np.ndarray]]:
    first = file.readline(LONGEST_WORD + 32 * LARGEST)
    header = first.split()
    if len(header) == 2 and all(each.isdigit() for each in header):
        count, dim = map(int, header)
        if not 1 <= dim <= LARGEST:
            raise _not_vectors(path, f"its first line announces vectors of {dim:,} numbers")
        start = file.tell()
        if _parsed(file.readline(LONGEST_WORD + 32 * dim), dim) is None:
            file.seek(start)
            yield from _binary(path, file, count, dim)
            return
        file.seek(start)
        yield from _lines(path, file, dim, 2)
        return
    dim = len(header) - 1
    if not 1 <= dim <= LARGEST or _parsed(first, dim) is None:
        raise _not_vectors(path, f"line 1 is not {LINE}")
    file.seek(0)
    yield from _lines(path, file, dim, 1)


def _parsed(line: bytes, dim: int) -> tuple[str, np.ndarray] | None:
    """A word, which may have spaces inside, and its vector; none if the line is something else."""
    parts = line.rstrip().rsplit(b" ", dim)
    try:
        vector = np.array(parts[1:], np.float64).astype(np.float32)
        word = parts[0].strip().decode()
    except ValueError:
        return None
    return (word, vector) if word and len(vector) == dim and np.isfinite(vector).all() else None


def _lines(path: Path, file: BinaryIO, dim: int, number: int) -> Iterator[tuple[str, np.ndarray]]:
    for at, line in enumerate(file, number):
        if not line.strip():
            continue
        found = _parsed(line, dim)
        if found is None:
            raise _not_vectors(path, f"line {at:,} is not a word and {dim} numbers")
        yield found


def _binary(path: Path, file: BinaryIO, count: int, dim: int) -> Iterator[tuple[str, np.ndarray]]:
    for number in range(count):
        word = bytearray()
        while (byte := file.read(1)) != b" ":
            if not byte or len(word) > LONGEST_WORD:
                raise _not_vectors(path, f"word {number + 1:,} of {count:,} is missing or damaged")
            word += byte
        vector = np.frombuffer(file.read(4 * dim), "<f4")
        if len(vector) != dim or not np.isfinite(vector).all():
            raise _not_vectors(path, f"the vector of word {number + 1:,} of {count:,} is damaged")
        if text := word.strip().decode(errors="ignore"):
            yield text, vector


def tokenization(words: tuple[str, ...], tokens: int = MOST_TOKENS) -> Tokenization:
    """A tokenizer that splits at white space and punctuation, and knows whole words alone.

    It is a WordPiece one without pieces, which programs in JavaScript read as well; they have no
    WordLevel. If nearly all words are in lower case, so are texts.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    capitals = sum(word != word.lower() for word in words)
    model: Any = models.WordPiece(
        {word: number for number, word in enumerate((PAD, UNKNOWN, *words))},
        unk_token=UNKNOWN,
        continuing_subword_prefix="\ufffe",  # no character, so that no word begins with it
        max_input_chars_per_word=100,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(  # type: ignore[assignment]
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=False,
        lowercase=capitals <= CAPITALS * len(words),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    return Rule(tokens=tokens, pad=0, unknown=1).with_tokenizer(tokenizer.to_str())
