"""Texts as a modality."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from headstart.data.contracts.json_reader import read_json
from headstart.data.modalities.modality import Modality, Preview
from headstart.data.modalities.text.reading import read_text
from headstart.data.modalities.text.tokens import Rule, Tokenization

SHOWN = 400  # characters of a preview
# Upper limits of the sizes that people are told, in characters.
SIZES = (100, 300, 1000, 3000, 10_000, 100_000)
CODE = ("classify_text.py", "classify_text.mjs", "tokens.mjs")
PAGE = ("index.html", "page.js", "worker.js")


class Texts(Modality):
    """Texts: files, or cells of a table."""

    name = "text"
    noun, plural = "text", "texts"
    extensions = frozenset({".txt"})
    in_tables = True

    def input_spec(self, metadata: Mapping[str, str]) -> Tokenization:
        """The tokenizer, special tokens and the most tokens."""
        return read_json(metadata["tokens"].encode(), Rule).with_tokenizer(metadata["tokenizer"])

    def size_of(self, content: bytes) -> str:
        """The length in characters, roughly, since there would be as many sizes as texts."""
        length = len(read_text(content))
        most = next((size for size in SIZES if length <= size), None)
        return f"up to {most:,} characters" if most else f"over {SIZES[-1]:,} characters"

    def ready_code(self) -> dict[str, bytes]:
        """In Python and Node."""
        folder = files("headstart.data.modalities.text.code")
        return {name: (folder / name).read_bytes() for name in CODE}

    def page_code(self) -> dict[str, bytes]:
        """For texts that are typed in, and for files; it needs the package of tokenizers."""
        folder = files("headstart.data.modalities.text.code")
        own = {name: folder.joinpath("page", name).read_bytes() for name in PAGE}
        return own | {"tokens.mjs": folder.joinpath("tokens.mjs").read_bytes()}

    @property
    def page_packages(self) -> tuple[str, ...]:
        """The tokenizers of Hugging Face for JavaScript."""
        return ("@huggingface/tokenizers",)

    def preview(self, content: bytes) -> Preview:
        """The beginning of the text."""
        text = read_text(content)
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
        # A page may have no control characters.
        clean = (each if each.isprintable() or each == "\n" else "\ufffd" for each in shown)
        return Preview("text/plain", "".join(clean).encode())
