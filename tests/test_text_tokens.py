"""Tokens are the same in Python and JavaScript: 1,000 texts in many scripts, through each door."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elsewhere import NODE
from many_scripts import texts
from text_models import byte_pairs, unigram, wordpiece

from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.text.tokens import Rule, Tokenization
from headstart.export.text.encoder import portable
from headstart.export.text.words import tokenization

SCRIPT = """
import {{ readFileSync }} from "node:fs";
import {{ Tokenizer }} from {package};
import {{ Tokens }} from {tokens};
const {{ tokenizer, rule, texts }} = JSON.parse(readFileSync(0, "utf8"));
const tokens = new Tokens(Tokenizer, tokenizer, rule);
const encode = (text) => {{ try {{ return tokens.encode(text); }} catch {{ return []; }} }};
console.log(JSON.stringify(texts.map(encode)));
"""
PACKAGE = NODE / "node_modules" / "@huggingface" / "tokenizers" / "dist" / "tokenizers.min.mjs"


def rule(kind: str) -> Tokenization:
    """Of a tokenizer like BERT's, like RoBERTa's, like XLM-RoBERTa's, or of words."""
    if kind == "words":
        known = sorted({word for text in texts() for word in text.lower().split()})
        return tokenization(tuple(known), 256)
    made = {"wordpiece": wordpiece, "byte pairs": byte_pairs, "unigram": unigram}[kind]
    own = json.loads(made().to_str())
    own["pre_tokenizer"] = portable(own["pre_tokenizer"])
    ends = (2, 3) if kind == "wordpiece" else (0, 2)
    return Rule(tokens=256, prefix=ends[:1], suffix=ends[1:]).with_tokenizer(json.dumps(own))


# What SentencePiece replaces, and its own marks: spaces, wide and joined letters, accents and jamo.
ODD = (
    *("a  b", "\u3000\uff41\uff21\uff01\u2009b", "  before", "after  ", "x\u00a0y", "\uff5e"),
    *("①②½", "a\tb\nc\r\nd", "a\u200bb", "<s>x</s>", "<mask> x", "\u2581a\u2581b", "", "  "),
    *("\ufeffa\ufeff", "\x01x\x7f\0y", "e\u0301e\u0301\u0302", "\u1112\u1161\u11ab \u1112\u1161"),
    *("\u304b\u3099", "ﷺ ﾊﾟ \U0001d578\U0001d586 ﬁﬂ", "👩\u200d👩\u200d👧\u200d👦 ☃\ufe0f"),
    *("a" + " a" * number for number in range(250, 305)),  # around the limit
)


@pytest.mark.parametrize("kind", ["wordpiece", "byte pairs", "unigram", "words"])
def test_python_and_javascript_agree(kind: str, tmp_path: Path) -> None:
    own, given = rule(kind), [*texts(), *ODD]
    (tmp_path / "tokens.mjs").write_bytes(MODALITIES["text"].ready_code()["tokens.mjs"])
    places = {"package": json.dumps(str(PACKAGE)), "tokens": json.dumps("./tokens.mjs")}
    (tmp_path / "run.mjs").write_text(SCRIPT.format(**places))
    asked = {"tokenizer": json.loads(own.tokenizer), "rule": own.to_json(), "texts": given}
    answer = subprocess.run(
        ["node", tmp_path / "run.mjs"], input=json.dumps(asked), capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    lengths, unlike = [], []
    for text, ids in zip(given, found, strict=True):
        row = own.encode(text)
        nothing = not row or all(each == own.unknown for each in row[: own.room])
        expected = [] if nothing else own.stack([np.array(row)])[0].tolist()
        lengths.append(len(row))
        if ids != expected:
            unlike.append(text)
    near = sum(255 <= length <= 300 for length in lengths)
    print(f"{kind}: {len(given)} texts, {near} of 255 to 300 tokens, {len(unlike)} differ")
    assert not unlike, unlike[:3]
    assert (len(given), min(lengths)) == (1000 + len(ODD), 0)
    assert near >= 50
    assert sum(length > own.room for length in lengths) >= 50


@pytest.mark.parametrize("kind", ["wordpiece", "byte pairs", "unigram"])
def test_truncation_is_the_tokenizers_own(kind: str) -> None:
    """Special tokens and truncation, written out, give what `tokenizers` itself gives."""
    from tokenizers import Tokenizer

    own = rule(kind)
    tokenizer = Tokenizer.from_str(own.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(own.tokens)
    for text in texts():
        if row := own.encode(text):
            assert own.stack([np.array(row)])[0].tolist() == tokenizer.encode(text).ids
