"""Word vectors beside a sentence encoder, on the same texts.

    python examples/layers-and-words/words.py TEXTS --words FILE --encoder FOLDER [--work WORK]

TEXTS is a table with a column of text and a `label`. Everything is written to WORK; a second run
does only what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart.scripts import need, step


def main(*arguments: str) -> None:
    """Embed the texts in both ways, and compare."""
    parser = argparse.ArgumentParser(description="Word2Vec and BERT on sentences.")
    parser.add_argument("texts", help="table with a column of text")
    parser.add_argument("--work", type=Path, default=Path("words"))
    parser.add_argument("--words", required=True, help="word vectors: GloVe's or Word2Vec's file")
    parser.add_argument("--encoder", required=True, help="a folder as Hugging Face has it")
    asked = parser.parse_args(arguments or None)
    need(TEXTS=asked.texts, words=asked.words, encoder=asked.encoder)
    work = asked.work
    step(work / "words.onnx", "export", "backbone", "--words", asked.words)
    step(work / "encoder.onnx", "export", "backbone", f"hf:{asked.encoder}")
    for name in ("words", "encoder"):
        step(work / name, "extract", asked.texts, "--backbone", work / f"{name}.onnx")
    costs = (f"--backbone={work / name}.onnx" for name in ("words", "encoder"))
    step(work / "words.png", "classify", "pareto", work / "words", work / "encoder", *costs)


if __name__ == "__main__":
    main()
