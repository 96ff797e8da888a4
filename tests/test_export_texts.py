"""Backbones for texts: encoders of the BERT family, and word vectors, small and random."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_models import LONGEST, TOPICS, WIDTH, topical, vectors, write_encoder, write_words

from headstart.data.common.errors import InputError
from headstart.data.common.onnx_runtime import open_session
from headstart.data.contracts.backbone import Backbone, load_backbone
from headstart.data.modalities.modality import DecodeError
from headstart.data.modalities.text.tokens import Tokenization, open_tokenizer
from headstart.export.backbone.build import export_backbone
from headstart.export.networks.torch.stack import import_torch
from headstart.export.options import BackboneOptions, FeatureOptions, PrecisionOptions
from headstart.export.text.encoder import not_in_javascript
from headstart.export.text.words import read_words

TEXTS = [topical(topic, number) for topic in TOPICS for number in range(4)] + ["soup " * 60]


def embedded(backbone: Backbone, texts: list[str]) -> np.ndarray:
    """By ONNX Runtime, all in one batch."""
    spec = backbone.spec.preprocessing
    batch = spec.stack([spec.decode(text.encode()) for text in texts])
    (found,) = open_session(backbone.content).run(["embedding"], spec.feed(batch))
    return np.asarray(found)


def by_transformers(folder: Path, texts: list[str], tokens: int, pools: str = "mean") -> np.ndarray:
    """As sentence-transformers does it: its tokenizer's own truncation and special tokens."""
    torch, transformers = import_torch("transformers")
    tokenizer: Any = open_tokenizer((folder / "tokenizer.json").read_text())
    tokenizer.enable_truncation(tokens)
    module = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            hidden = module(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        rows.append(hidden.mean(0) if pools == "mean" else torch.cat([hidden[0], hidden.amax(0)]))
    tokenizer.no_truncation()
    found = torch.stack(rows).numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True) if pools == "mean" else found


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "mpnet", "xlm-roberta"])
def test_an_encoder_embeds_as_its_original(kind: str, tmp_path: Path) -> None:
    """Padding, truncation, special tokens, pooling and normalization, all together."""
    folder = write_encoder(tmp_path / kind, kind)
    written = export_backbone(tmp_path / "b.onnx", f"hf:{folder}")
    spec = written.backbone.spec
    tokens = {"bert": 24, "distilbert": LONGEST}.get(kind, LONGEST - 2)
    assert (spec.name, spec.dim, spec.modality.name) == (kind, WIDTH, "text")
    assert (spec.preprocessing.shape, spec.pooling) == ((tokens,), "avg, of length 1")
    assert written.parity <= 1e-4
    expected = by_transformers(folder, TEXTS, tokens)
    found = embedded(written.backbone, TEXTS)
    distances = 1 - (found * expected).sum(axis=1)
    print(f"{kind}: largest cosine distance {distances.max():.1e}")
    assert distances.max() <= 1e-4 / 10
    assert (1 - expected @ expected.T).max() > 0.01  # they do tell texts apart
    own = spec.preprocessing
    assert isinstance(own, Tokenization)
    beside = (tmp_path / "b.tokenizer.json").read_text()
    assert beside == own.tokenizer
    assert not_in_javascript(beside) == []


def test_what_javascript_lacks_is_said_before_the_work(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "bert")
    about = json.loads((folder / "tokenizer.json").read_text())
    before = {"type": "Sequence", "pretokenizers": [about["pre_tokenizer"]]}
    before["pretokenizers"].append({"type": "UnicodeScripts"})
    about["pre_tokenizer"] = before
    (folder / "tokenizer.json").write_text(json.dumps(about))
    (warning,) = export_backbone(tmp_path / "b.onnx", f"hf:{folder}").warnings
    assert "its tokenizer has pre_tokenizer UnicodeScripts, which JavaScript's" in warning


def test_pooling_as_the_folder_says_it_and_as_asked(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "bert", cls_token=True, max_tokens=True, mean_tokens=False)
    written = export_backbone(tmp_path / "b.onnx", f"hf:{folder}").backbone
    assert (written.spec.pooling, written.spec.dim) == ("token+max", 2 * WIDTH)
    expected = by_transformers(folder, TEXTS, 24, "cls and max")
    assert np.allclose(embedded(written, TEXTS), expected, atol=1e-5)
    config = folder / "1_Pooling" / "config.json"
    config.write_text('{"pooling_mode_weightedmean_tokens": true}')
    with pytest.raises(InputError, match="pools its tokens by weightedmean_tokens, which is not"):
        export_backbone(tmp_path / "c.onnx", f"hf:{folder}")
    (folder / "modules.json").write_text('[{"type": "st.models.Dense", "path": "2_Dense"}]')
    with pytest.raises(InputError, match="has a module 'Dense' after its pooling"):
        export_backbone(tmp_path / "c.onnx", f"hf:{folder}")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoders") / "bert")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_lower_precisions(precision: str, bert: Path, tmp_path: Path) -> None:
    options = PrecisionOptions(precision)
    written = export_backbone(tmp_path / "b.onnx", f"hf:{bert}", precision=options)
    lower = written.quantized
    assert lower is not None
    assert written.backbone.spec.precision == precision
    assert len(written.backbone.content) < lower.fp32_bytes
    assert lower.cosine_worst > 0.95
    again = by_transformers(bert, TEXTS, 24)
    assert (embedded(written.backbone, TEXTS) * again).sum(axis=1).min() > 0.95


def test_options_that_are_not_for_texts(bert: Path, tmp_path: Path, command: Callable) -> None:
    asked = ("export", "backbone", f"hf:{bert}", "-o", tmp_path / "b.onnx")
    answer = command(*asked, "--size", 64, "--calibrate", tmp_path)
    assert answer.code == 2
    assert answer.err.endswith(
        f"error: --size and --calibrate cannot be used with hf:{bert}, which is for texts\n"
        "  Leave them out.\n"
    )
    answer = command(*asked, "--pool", "gem")
    assert answer.err.endswith(
        "error: the tokens of a text cannot be pooled by gem\n  Choose from avg, token, max.\n"
    )
    answer = command(*asked, "--tokens", 500)
    assert answer.err.endswith(
        f"error: hf:{bert} takes texts of at most {LONGEST} tokens, not 500\n"
        "  Give fewer --tokens.\n"
    )
    answer = command("export", "backbone", "-o", tmp_path / "b.onnx")
    assert answer.err.endswith(
        "error: give either the NAME of a network or --words FILE\n  `export list` has names.\n"
    )
    answer = command("export", "backbone", "resnet50", "-o", tmp_path / "b.onnx", "--tokens", 5)
    assert "error: --tokens and --most-words are for texts alone\n" in answer.err
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_used(bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "bert"))
    about = json.loads((folder / "tokenizer.json").read_text())
    cases: dict[str, tuple[str, str]] = {
        "": ("tokenizer.json", "has no tokenizer.json"),
        "{": ("tokenizer.json", "is damaged"),
        "{}": ("tokenizer.json", "the tokenizer cannot be read"),
    }
    for content, (name, words) in cases.items():
        (folder / name).unlink() if not content else (folder / name).write_text(content)
        with pytest.raises(InputError, match=words):
            export_backbone(tmp_path / "b.onnx", f"hf:{folder}")
    about["model"]["vocab"] |= {f"word{n}": 2000 + n for n in range(3000)}
    (folder / "tokenizer.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"has 4,\d+ tokens, and its network 1,\d+"):
        export_backbone(tmp_path / "b.onnx", f"hf:{folder}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights in safetensors"):
        export_backbone(tmp_path / "b.onnx", f"hf:{folder}")


def test_a_backbone_whose_tokenizer_was_damaged(bert: Path, tmp_path: Path) -> None:
    import onnx

    export_backbone(tmp_path / "b.onnx", f"hf:{bert}")
    model = onnx.load(tmp_path / "b.onnx")
    for entry in model.metadata_props:
        if entry.key == "headstart.tokens":
            entry.value = '{"tokens": "many"}'
    onnx.save(model, tmp_path / "c.onnx")
    with pytest.raises(InputError, match="damaged headstart metadata"):
        load_backbone(tmp_path / "c.onnx")


@pytest.mark.parametrize(("header", "binary"), [(False, False), (True, False), (True, True)])
def test_word_vectors_in_each_format(header: bool, binary: bool, tmp_path: Path) -> None:
    path = write_words(tmp_path / "words", header, binary)
    found = read_words(path)
    assert found.words == tuple(vectors())
    assert np.allclose(found.vectors, np.stack([*vectors().values()]), atol=1e-6)
    assert not found.cut
    assert read_words(path, 3).words == found.words[:3]
    assert read_words(path, 3).cut


def test_a_backbone_of_word_vectors(tmp_path: Path, command: Callable) -> None:
    path = write_words(tmp_path / "glove.txt")
    out = tmp_path / "words.onnx"
    answer = command("export", "backbone", "--words", path, "-o", out)
    assert answer.code == 0, answer.err
    backbone = load_backbone(out)
    assert (backbone.spec.name, backbone.spec.dim, backbone.spec.pooling) == ("glove.txt", 8, "avg")
    texts = ["Soup, with ONION!", "the sail", "zebra soup"]  # no vector: `,` `!` `the` `zebra`
    known = [("soup", "with", "onion"), ("sail",), ("soup",)]
    expected = [np.mean([vectors()[word] for word in words], axis=0) for words in known]
    assert np.allclose(embedded(backbone, texts), expected, atol=1e-6)
    rule = backbone.spec.preprocessing
    assert dict(rule.tally(rule.decode(texts[0].encode()))) == {
        "texts cut at 8,192 tokens": 0,
        "words": 5,
        "words without a vector": 2,
    }
    with pytest.raises(DecodeError) as failed:
        rule.decode(b"the zebra")
    assert failed.value.reason == "unknown_words"
    asked = ("export", "backbone", "--words", path, "--overwrite")
    few = command(*asked, "-o", out, "--most-words", 3)
    assert "warning: only the first 3 words were taken: --most-words takes more" in few.err
    answer = command(*asked, "-o", tmp_path / "b", "--pool", "max")
    assert f"error: --pool cannot be used with words:{path}, which is for texts" in answer.err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "line 1 is not a word and its numbers"),
        (b"word\n", "line 1 is not a word and its numbers"),
        (b"soup 1 2\nsail 1\n", "line 2 is not a word and 2 numbers"),
        (b"soup 1 2\nsail 1 nan\n", "line 2 is not a word and 2 numbers"),
        (b"soup 1 x\n", "line 1 is not a word and its numbers"),
        (b"2 3\nsoup " + bytes(12) + b"\nsail ", "the vector of word 2 of 2 is damaged"),
        (b"2 3\nsoup " + bytes(12), "word 2 of 2 is missing or damaged"),
        (b"1 2\n" + b"x" * 5000, "word 1 of 1 is missing or damaged"),
        (b"7 99999999\nsoup", "announces vectors of 99,999,999 numbers"),
        (b"\xff\xfe 1 2\n", "line 1 is not a word and its numbers"),
        (b"[UNK] 1 2\n", "it has no words"),
    ],
)
def test_files_that_are_not_word_vectors(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"is not a file of word vectors: .*{why}"):
        read_words(tmp_path / "words.txt")


def test_tokens_outside_the_options(bert: Path, tmp_path: Path) -> None:
    written = export_backbone(
        tmp_path / "b.onnx", f"hf:{bert}", BackboneOptions(tokens=5), FeatureOptions(pools=("max",))
    )
    assert (written.backbone.spec.preprocessing.shape, written.backbone.spec.pooling) == (
        (5,),
        "max, of length 1",
    )
    with pytest.raises(InputError, match="at most 2 tokens is not possible"):
        export_backbone(tmp_path / "c.onnx", f"hf:{bert}", BackboneOptions(tokens=2))
