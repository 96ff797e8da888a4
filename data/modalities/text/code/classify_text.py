"""Classify texts with an edge model: needs only onnxruntime, numpy and tokenizers.

    pip install onnxruntime numpy tokenizers
    python classify_text.py edge.onnx text.txt [text.txt ...]

Prints a line for each file: its name, the class, and the probability. Copy this file into your own
program; it does not import headstart.
"""

import codecs
import json
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class EdgeModel:
    """An edge model and its metadata, which has the tokenizer."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        about = self.session.get_modelmeta().custom_metadata_map
        if about.get("headstart.kind") != "classifier":
            raise ValueError(f"{path} is not an edge model: python -m export classifier writes one")
        self.classes = json.loads(about["headstart.classes"])
        self.rule = json.loads(about["headstart.tokens"])
        self.tokenizer = Tokenizer.from_str(about["headstart.tokenizer"])

    def read(self, path: str) -> str:
        """The text of a file: UTF-8, or what its byte order mark says."""
        with open(path, "rb") as file:
            content = file.read()
        encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
        return content.decode(encoding)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, cut, and with special ones."""
        prefix, suffix, unknown = (self.rule[name] for name in ("prefix", "suffix", "unknown"))
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        ids = ids[: self.rule["tokens"] - len(prefix) - len(suffix)]
        if not ids:
            raise ValueError("there is no text in it")
        if unknown is not None and all(each == unknown for each in ids):
            raise ValueError("none of its words is known")
        return [*prefix, *ids, *suffix]

    def classify(self, text: str) -> tuple[str, np.ndarray]:
        """The class of a text ("unknown" if unsure), and the probability of every class."""
        ids = np.array([self.encode(text)], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        labels, probabilities = self.session.run(["label", "probabilities"], given)
        label = int(labels[0])
        return "unknown" if label < 0 else self.classes[label], probabilities[0]


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python classify_text.py edge.onnx text.txt [text.txt ...]")
    try:
        model = EdgeModel(sys.argv[1])
    except Exception as error:
        sys.exit(f"{sys.argv[1]} cannot be used: {error}")
    failed = 0
    for file in sys.argv[2:]:
        try:
            name, probabilities = model.classify(model.read(file))
        except (OSError, ValueError) as error:
            print(f"{file} cannot be read: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{file}  {name}  {probabilities.max():.3f}")
    sys.exit(1 if failed else 0)
