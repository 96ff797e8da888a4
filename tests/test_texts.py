"""Texts end to end: sources, odd inputs, extraction, heads, report, edge model, code, page."""

from __future__ import annotations

import codecs
import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import served
from conftest import once
from elsewhere import DONE, NODE, WEB
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from text_models import TOPICS, topical, write_encoder, write_table, write_words

from headstart.data.common.cosine import cosines
from headstart.data.common.errors import SourceError
from headstart.data.contracts.backbone import load_backbone
from headstart.data.contracts.edge import load_edge
from headstart.data.contracts.store import FeatureStore
from headstart.data.examples.opening import open_source
from headstart.data.examples.reading import Reader
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import DecodeError
from headstart.data.modalities.text.tokens import Tokenization
from headstart.data.storage.places import folder_at
from headstart.data.workers.inputs import Batch, batches
from headstart.export.backbone.build import export_backbone
from headstart.extract.engines.runtimes import EngineConfig, EngineError, has_bf16, open_engines

TEXT = MODALITIES["text"]
ROWS = [
    {"text": 'He said: "soup",\nthen left', "label": "cooking", "split": "train", "group": "a"},
    {"text": "sail   at sea \u4f60\u597d \U0001f600", "label": "sailing", "split": "test"},
    {"text": "", "label": "sailing", "split": "test", "group": "b"},
]


def read(path: Path | str, column: str | None = None) -> list[str]:
    source = open_source(f"{path}#{column}" if column else path)
    assert source.modality is TEXT
    reader = Reader(source.folder)
    return [reader.read(each).decode() for each in source.examples["path"].to_pylist()]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    """A table, by its suffix."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if path.suffix == ".parquet":
        pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in columns}), path)
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("end", ["csv", "tsv", "jsonl", "ndjson", "parquet"])
def test_a_table_of_texts(end: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows.{end}", ROWS)
    source = open_source(path)
    assert (source.modality, source.path) == (TEXT, str(path))
    table = source.examples
    assert table["id"].to_pylist() == [f"rows.{end}#{row}" for row in range(3)]
    assert table["label"].to_pylist() == ["cooking", "sailing", "sailing"]
    assert table["split"].to_pylist() == ["train", "test", "test"]
    assert table["group"].to_pylist() == ["a", None, "b"]
    assert "text" not in table.column_names
    assert read(path) == [row["text"] for row in ROWS]
    reader = Reader(source.folder)  # in any order
    assert [reader.read(table["path"][row].as_py()).decode()[:4] for row in (1, 0, 1)] == [
        *("sail", "He s", "sail")
    ]
    with pytest.raises(OSError, match=r"is damaged at row 7: it has 3 rows"):
        reader.read(f"rows.{end}#text=7")


def test_the_column_of_text(tmp_path: Path) -> None:
    rows = [{"heading": "one", "words": "soup", "label": "a", "id": "x"}]
    path = write(tmp_path / "rows.csv", rows)
    assert read(path, "words") == ["soup"]
    source = open_source(f"{path}#words")
    assert source.path == f"{path}#words"
    assert source.examples["id"].to_pylist() == ["x"]
    with pytest.raises(SourceError) as failed:
        open_source(path, modality=TEXT)
    assert str(failed.value) == (
        f"{path} has several columns of text (heading, words); its columns are heading, words, "
        "label, id\n  Say which one holds the texts: --text-column NAME"
    )
    with pytest.raises(SourceError) as failed:
        open_source(f"{path}#word")
    assert str(failed.value) == (
        f"{path} has no column 'word'; its columns are heading, words, label, id\n"
        "  Did you mean --text-column words?"
    )
    with pytest.raises(SourceError, match="has no column 'path'"):  # without a word of texts
        open_source(path)


def test_a_folder_of_tables_and_of_files(tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for split in ("train", "test"):
        write(tables / f"{split}.csv", [{"text": split, "label": "a"}])
    source = open_source(tables)
    assert source.examples["id"].to_pylist() == ["test.csv#0", "train.csv#0"]
    assert source.examples["split"].to_pylist() == ["test", "train"]
    assert read(tables) == ["test", "train"]
    for topic in TOPICS:
        (tmp_path / "files" / topic).mkdir(parents=True)
        (tmp_path / "files" / topic / "1.txt").write_text(topical(topic, 1))
    source = open_source(tmp_path / "files")
    assert (source.modality, source.classes) == (TEXT, sorted(TOPICS))
    manifest = write(tmp_path / "m.csv", [{"path": "files/sailing/1.txt", "label": "x"}])
    assert open_source(manifest, modality=TEXT).examples["path"].to_pylist() == [
        "files/sailing/1.txt"
    ]


def test_photographs_with_captions_stay_photographs(photos: Path, tmp_path: Path) -> None:
    """In a tar of WebDataset, a folder, and a Parquet file of pictures."""
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for photo in sorted(photos.glob("*/0[0-3].png")):
            caption = tmp_path / "caption.txt"
            caption.write_text("a caption")
            name = f"{photo.parent.name}{photo.stem}"
            tar.add(photo, f"{name}.png")
            tar.add(caption, f"{name}.txt")
    source = open_source(tmp_path / "a.tar")
    assert (len(source), source.modality.name) == (12, "image")
    assert source.left_out == {".txt": 12}
    content = sorted(photos.glob("*/00.png"))[0].read_bytes()
    pq.write_table(pa.table({"image": [content], "text": ["caption"]}), tmp_path / "a.parquet")
    assert open_source(tmp_path / "a.parquet").modality.name == "image"
    assert read(tmp_path / "a.parquet", "text") == ["caption"]


# What is in a file, and the reason of its failure, or none.
ODD: dict[str, tuple[bytes, str | None]] = {
    "plain": (b"soup with salt", None),
    "empty": (b"", "empty"),
    "spaces": (b"   ", "empty"),
    "lines": (b"\n\r\n\t\n", "empty"),
    "no-break spaces": ("\u00a0\u2003\u3000".encode(), "empty"),
    "mark alone": (codecs.BOM_UTF8, "empty"),
    "mark": (codecs.BOM_UTF8 + b"soup", None),
    "utf-16": ("soup".encode("utf-16"), None),
    "utf-16 big": (codecs.BOM_UTF16_BE + "soup".encode("utf-16-be"), None),
    "utf-16 unmarked": ("soup and salt".encode("utf-16-le"), "not_text"),
    "utf-16 odd": (codecs.BOM_UTF16_LE + b"s\0o", "not_utf8"),
    "utf-32": ("soup".encode("utf-32"), None),
    "latin-1": ("S\u00fcppchen".encode("latin-1"), "not_utf8"),
    "windows": ("\u201csoup\u201d".encode("cp1252"), "not_utf8"),
    "shift-jis": ("\u30b9\u30fc\u30d7".encode("shift-jis"), "not_utf8"),
    "lone surrogate": ("soup \ud800".encode("utf-8", "surrogatepass"), "not_utf8"),
    "truncated": ("soup \u4f60".encode()[:-1], "not_utf8"),
    "overlong": (b"soup \xc0\xaf", "not_utf8"),
    "nul inside": (b"so\0up and more", None),
    "nul alone": (bytes(100), "not_text"),
    "one nul": (b"\0", "not_text"),
    "control": (b"\x01\x02\x03\x07", "no_tokens"),
    "bell": (b"soup\x07\x1b[31m", None),
    "a megabyte": (b"soup with salt " * 70_000, None),
    "one long word": (b"x" * 200_000, None),
    "too long": (b"soup " * 4_100_000, "too_long"),
    "right to left": ("\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627".encode(), None),
    "overrides": ("\u202esoup\u202c \u2066salt\u2069".encode(), None),
    "emoji": ("\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467".encode(), None),
    "combining": (b"e" + "\u0301".encode() * 5000, None),
    "zero width": ("\u200b\u200d\ufeff".encode(), "no_tokens"),
    "noncharacters": ("soup \ufffe\uffff\U0010ffff".encode(), None),
    "private use": ("\ue000\uf8ff".encode(), "no_tokens"),
    "replacement": ("\ufffd\ufffd".encode(), "no_tokens"),
    "html": (b"<script>alert('soup')</script>", None),
    "special tokens": (b"[CLS] soup [SEP] [PAD] [MASK]", None),
    "format": (b"%s %n {0} ${HOME} $(id) `id`", None),
    "one letter": (b"a", None),
    "digits": (b"1234567890" * 30, None),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not_utf8"),
    "gzip": (b"\x1f\x8b\x08\x00" + b"\xed\xbd" * 40, "not_utf8"),
    "windows lines": (b"soup\r\nwith\r\nsalt\r\n", None),
}


@pytest.fixture(scope="session")
def bert_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder as a backbone file."""

    def make(folder: Path) -> None:
        write_encoder(folder / "bert")
        export_backbone(folder / "bert.onnx", f"hf:{folder / 'bert'}")

    return once(tmp_path_factory, "bert", make) / "bert.onnx"


@pytest.mark.parametrize("name", ODD)
def test_an_odd_text_is_a_row_or_a_reason(name: str, bert_backbone: Path) -> None:
    content, reason = ODD[name]
    spec = load_backbone(bert_backbone).spec.preprocessing
    try:
        row = spec.decode(content)
    except DecodeError as error:
        assert error.reason == reason, error
        assert error.message
        return
    assert reason is None
    batch = spec.stack([row, row[:1]])
    assert batch.shape[1] <= spec.shape[0]
    assert (batch[0] >= 0).all()
    shown = TEXT.preview(content).content.decode()
    assert len(shown) <= 404
    assert not any(each < " " for each in shown.replace("\n", ""))


def test_there_are_forty_of_them() -> None:
    assert len(ODD) >= 40


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"text,label\nsoup,\xe9\n", "is not UTF-8 text: byte 0xe9 in line 2"),
        ("a.csv", b"", "cannot be read: Empty CSV file"),
        ("a.csv", b"text,label\n", "lists no examples"),
        ("a.csv", b"text,label\na,b,c\n", "cannot be read: CSV parse error"),
        ("a.jsonl", b'{"text": "soup"}\n[1]\n', "line 2 is not a JSON object"),
        ("a.jsonl", b'{"text": "soup"\n', "line 1 is not a JSON object: "),
        ("a.jsonl", b"[" * 100_000, "line 1 is not a JSON object: "),
        ("a.jsonl", b'{"text": "a", "label": "\\ud800"}', "that are not valid Unicode"),
        ("a.jsonl", b"", "lists no examples|no column of text"),
        ("a.parquet", b"PAR1 soup", "cannot be read: "),
        ("a.tsv", b"\0\0\0\0", "zero|cannot be read"),
    ],
)
def test_tables_that_cannot_be_read(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=words):
        open_source(tmp_path / name, modality=TEXT)


def test_a_bad_cell_is_one_rows_error(tmp_path: Path) -> None:
    lines = [b'{"text": "soup \\ud800"}', b'{"text": "s\xff"}', b'{"text": 5}', b'{"text": ["a"]}']
    lines += [b"{}", b'{"text": null}', b"", b'{"text": "' + b"soup " * 200_000 + b'"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    source = open_source(tmp_path / "a.jsonl")
    reader = Reader(source.folder)
    found = [reader.read(path) for path in source.examples["path"].to_pylist()]
    reasons = []
    for content in found:
        try:
            TEXT.size_of(content)
        except DecodeError as error:
            reasons.append(error.reason)
        else:
            reasons.append("")
    assert reasons == ["not_utf8", "not_utf8", "", "", "empty", "empty", ""]
    assert found[2:4] == [b"5", b'["a"]']
    with open(tmp_path / "b.csv", "wb") as file:
        file.write(codecs.BOM_UTF16_LE + "text,label\r\n\u4f60\u597d,a\r\n".encode("utf-16-le"))
    assert read(tmp_path / "b.csv") == ["\u4f60\u597d"]
    (tmp_path / "c.csv").write_bytes(b"text,label\n" + b"soup " * 2_000_000 + b",a\nsalt,b\n")
    assert [len(text) for text in read(tmp_path / "c.csv")] == [10_000_000, 4]


@pytest.fixture(scope="session")
def text_job(
    tmp_path_factory: pytest.TempPathFactory, bert_backbone: Path, local_ray: None
) -> Path:
    """A folder with `texts.csv`, its `features`, and a `model`; the backbone is `bert.onnx`."""
    from headstart.classify.training import train
    from headstart.extract.job import extract

    folder = tmp_path_factory.mktemp("texts")
    (folder / "bert.onnx").write_bytes(bert_backbone.read_bytes())
    write_table(folder / "texts.csv")
    with open(folder / "texts.csv", "a") as file:
        file.write('"  ",cooking,odd,\n')
        file.write(f'"{"soup with salt " * 30}",cooking,long,\n')
        file.write('"<b>wind</b> & sail\u202e",banking,wrong,\n')
    summary = extract(folder / "texts.csv", folder / "bert.onnx", folder / "features")
    assert summary.tally == {"texts cut at 24 tokens": 1}
    assert summary.engines in (("onnxruntime",), ("openvino",), ("onnxruntime", "openvino"))
    train(folder / "features", folder / "model")
    return folder


def test_extraction_resumes_and_embeds_each_text_once(
    text_job: Path, tmp_path: Path, command: Callable
) -> None:
    store = FeatureStore.open(text_job / "features")
    assert (store.manifest.rows, store.manifest.modality) == (74, "text")
    errors = store.read_errors().to_pylist()
    assert [(row["id"], row["reason"]) for row in errors] == [("texts.csv#72", "empty")]
    backbone = load_backbone(text_job / "bert.onnx")
    assert store.fingerprint == backbone.fingerprint
    table, out = tmp_path / "texts.csv", tmp_path / "features"
    table.write_bytes((text_job / "texts.csv").read_bytes())
    asked = ("extract", table, "--backbone", text_job / "bert.onnx", "-o", out, "--json")
    assert json.loads(command(*asked).out)["inferences"] == 74
    with open(table, "a") as file:
        file.write("a new row about soup,cooking,new,\n")
    again = json.loads(command(*asked).out)
    assert (again["inferences"], again["counts"]["kept"], again["counts"]["changed"]) == (1, 74, 1)
    # What failed is read again when its file has changed, and fails without an inference.
    table.write_text(table.read_text().replace("a new row", "a changed row"))
    changed = json.loads(command(*asked).out)
    assert (changed["inferences"], changed["counts"]["changed"]) == (1, 2)
    assert json.loads(command(*asked).out)["inferences"] == 0
    verified = json.loads(command("data", "verify", out, "--json").out)
    assert verified["sound"]
    one, other = (FeatureStore.open(path) for path in (text_job / "features", out))
    rows = [
        {row["id"]: row["embedding"] for row in each.read(["id", "embedding"]).to_pylist()}
        for each in (one, other)
    ]
    assert all(np.allclose(rows[0][id_], rows[1][id_], atol=1e-5) for id_ in rows[0])


def test_a_named_column_through_every_command(
    tmp_path: Path, bert_backbone: Path, command: Callable, local_ray: None
) -> None:
    rows = [
        {"title": "x", "words": topical(topic, number), "label": topic}
        for topic in TOPICS
        for number in range(4)
    ]
    table = write(tmp_path / "rows.tsv", rows)
    found = command("data", "inspect", table, "--text-column", "words", "--json")
    assert json.loads(found.out)["sizes"] == {"up to 100 characters": 12}
    asked = ("extract", table, "--backbone", bert_backbone, "-o", tmp_path / "f")
    answer = command(*asked, "--text-column", "words")
    assert answer.code == 0, answer.err
    assert "0 texts cut at 24 tokens" in answer.err
    assert json.loads(command("data", "verify", tmp_path / "f", "--json").out)["sound"]
    assert "Say which one holds the texts" in command(*asked).err


def test_both_engines_give_the_same_embeddings_of_texts_of_any_length(
    text_job: Path, bert_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    backbone = load_backbone(bert_backbone)
    rule = backbone.spec.preprocessing
    rows = [rule.decode(topical(topic, n).encode()) for n in range(4) for topic in TOPICS]
    batches = [rule.stack(rows[:count]) for count in (12, 1, 5)]
    assert len({batch.shape for batch in batches}) == 3
    first, other = open_engines(backbone.content, backbone.spec, EngineConfig())
    assert (first.name, other.name) == ("onnxruntime", "openvino")
    expected = [first.embed(batch) for batch in batches]
    found = [other.embed(batch) for batch in batches]  # one call does not change another's result
    for one, same in zip(expected, found, strict=True):
        assert one.shape == same.shape
        assert np.allclose(one, same, atol=1e-5)
    if has_bf16():
        (short,) = open_engines(backbone.content, backbone.spec, EngineConfig("bf16"))
        apart = 1 - cosines(expected[0], short.embed(batches[0]))
        assert 0 < apart.max() <= 1e-4
    asked = ("extract", text_job / "texts.csv", "--backbone", bert_backbone, "--json")
    named = json.loads(command(*asked, "-o", tmp_path / "f", "--engine", "openvino").out)
    assert (named["engines"], named["inferences"]) == (["openvino"], 74)
    measured = json.loads(command(*asked, "-o", tmp_path / "a", "--precision", "auto").out)
    precisions = ("fp32", "bf16") if has_bf16() else ("fp32",)
    assert FeatureStore.open(tmp_path / "a").fingerprint.precision in precisions
    assert measured["inferences"] == 74


@pytest.mark.parametrize(("tokens", "largest"), [(64, 64), (1 << 13, 16 * 24), (8, 24)])
def test_batches_have_texts_of_similar_length_and_few_tokens(
    tokens: int, largest: int, text_job: Path
) -> None:
    source = open_source(text_job / "texts.csv")
    paths = source.examples["path"].to_pylist()
    rule = load_backbone(text_job / "bert.onnx").spec.preprocessing
    found = list(batches(Reader(source.folder), paths, rule, lambda: 16, tokens=tokens))
    made = [each for each in found if isinstance(each, Batch)]
    shapes = [each.inputs.shape for each in made]
    assert max(rows * length for rows, length in shapes) <= largest
    assert [length for _, length in shapes] == sorted((n for _, n in shapes), reverse=True)
    rows = sorted(each.row for batch in made for each in batch.examples)
    assert len(rows) == 74
    assert len(set(rows)) == 74


def test_texts_in_int8_are_not_for_openvino(bert_backbone: Path) -> None:
    backbone = load_backbone(bert_backbone)
    spec = replace(backbone.spec, precision="int8")
    with pytest.raises(EngineError) as refused:
        open_engines(backbone.content, spec, EngineConfig("int8", "openvino"))
    assert str(refused.value) == (
        "OpenVINO takes longer for texts in int8 than in fp32\n"
        "  Choose --engine onnxruntime, or a backbone file in fp32."
    )
    (left,) = open_engines(backbone.content, spec, EngineConfig("int8"))
    assert left.name == "onnxruntime"


@pytest.mark.parametrize("head", ["logistic", "linear-svm", "rbf-svm", "knn", "ridge", "lda"])
def test_heads_calibration_and_groups(
    head: str, text_job: Path, tmp_path: Path, command: Callable
) -> None:
    asked = ("classify", "train", text_job / "features", "-o", tmp_path / "m", "--no-report")
    answer = command(*asked, "--head", head, "--group", "group", "--precision", 0.9)
    assert answer.code == 0, answer.err
    rows = pq.read_table(tmp_path / "m" / "examples.parquet").to_pylist()
    sides: dict[str, set[str]] = {}
    for row in rows:
        if row["split"] in ("train", "test"):
            sides.setdefault(row["group"], set()).add(row["split"])
    assert all(len(each) == 1 for each in sides.values())
    card = json.loads((tmp_path / "m" / "model.json").read_text())
    assert card["metrics"]["test"]["accuracy"] > 0.6


def test_the_report_shows_texts(text_job: Path) -> None:
    from headstart.classify.report.page import render_sections
    from headstart.classify.report.parts import Card, Section
    from headstart.classify.report.thumbnails import Thumbnails

    page = (text_job / "model" / "report.html").read_text()
    assert 'dir="auto">' in page
    store = FeatureStore.open(text_job / "features")
    rows = {row["id"]: row["path"] for row in store.read(["id", "path"]).to_pylist()}
    (path,) = (rows[id] for id in rows if id.endswith("#74") or id == "wrong")
    shown = Thumbnails(folder_at(store.manifest.root), MODALITIES["text"]).of("wrong", path)
    card = Section("odd", "Odd", "", cards=(Card((shown,), ()),))
    page += render_sections("Texts", "", [card])
    assert "&lt;b&gt;wind&lt;/b&gt; &amp; sail" in page
    assert "<b>wind" not in page
    assert "\u202e" not in page


def test_what_an_encoder_costs_beside_its_accuracy(text_job: Path) -> None:
    from headstart.classify.pareto.compare import pareto

    (only,) = pareto([text_job / "features"], [text_job / "bert.onnx"]).candidates
    assert only.cost is not None
    assert only.cost.images_per_second > 0


@pytest.fixture(scope="session")
def text_edge(text_job: Path) -> Path:
    """The edge model of `text_job`."""
    from headstart.export.edge.classifier import export_classifier

    export_classifier(text_job / "model", text_job / "bert.onnx", text_job / "edge.onnx")
    return text_job / "edge.onnx"


def expected(edge: Path, texts: list[str]) -> np.ndarray:
    """Probabilities, one text at a time."""
    from headstart.data.common.onnx_runtime import open_session

    spec, session = load_edge(edge).input_spec, open_session(edge.read_bytes())
    rows = [spec.stack([spec.decode(text.encode())]) for text in texts]
    return np.concatenate([session.run(["probabilities"], spec.feed(row))[0] for row in rows])


TEXTS = [*(topical(topic, 99) for topic in TOPICS), "soup \u03a3\u038f\u03a3 \u4f60\u597d " * 20]


def test_the_edge_model_and_its_files(text_edge: Path, tmp_path: Path, command: Callable) -> None:
    edge = load_edge(text_edge)
    assert not edge.any_size
    about = json.loads(text_edge.with_suffix(".labels.json").read_text())
    assert about["text"]["tokens"] == 24
    assert isinstance(edge.spec.preprocessing, Tokenization)
    beside = text_edge.with_suffix(".tokenizer.json").read_text()
    assert beside == edge.spec.preprocessing.tokenizer
    table = write(tmp_path / "new.csv", [{"body": text} for text in [*TEXTS, " "]])
    asked = ("classify", "predict", text_edge, table, "-o", tmp_path / "p.parquet")
    answer = command(*asked, "--text-column", "body", "--max-bad", 0.5)
    assert answer.code == 0, answer.err
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert rows[-1]["error"] == "empty: it has nothing but white space"
    found = np.array([list(row["probabilities"].values()) for row in rows[:-1]])
    assert np.abs(found - expected(text_edge, TEXTS)).max() < 1e-5
    measured = command("export", "measure", text_edge, "--runs", 20, "--json")
    assert measured.code == 0, measured.err


def test_ready_code_gives_the_same_answers(text_edge: Path, tmp_path: Path) -> None:
    from headstart.export.edge.ready_code import write_code

    code = tmp_path / "code"
    write_code(text_edge, code, overwrite=False)
    (code / "node_modules").symlink_to(NODE / "node_modules")
    files = []
    for number, text in enumerate(TEXTS):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text(text)
    files[0].write_bytes(TEXTS[0].encode("utf-16"))
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff\x00soup")
    truth = expected(text_edge, TEXTS)
    names = load_edge(text_edge).classes
    for command in (
        [sys.executable, code / "classify_text.py"],
        ["node", code / "classify_text.mjs"],
    ):
        answer = subprocess.run([*command, text_edge, *files, bad], capture_output=True, text=True)
        assert answer.returncode == 1
        assert f"{bad} cannot be read: " in answer.stderr
        lines = [line.rsplit("  ", 2) for line in answer.stdout.splitlines()]
        assert [line[0] for line in lines] == [str(file) for file in files], answer.stderr
        assert [line[1] for line in lines] == [names[row.argmax()] for row in truth]
        assert [float(line[2]) for line in lines] == pytest.approx(truth.max(axis=1), abs=2e-3)


def test_the_page_gives_the_same_answers(
    text_edge: Path, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    from headstart.export.demo.site import write_demo

    write_demo(text_edge, tmp_path / "site", "Topics", WEB)
    truth = expected(text_edge, TEXTS)
    with served(tmp_path / "site") as address:
        browser.get(address)
        wait = WebDriverWait(browser, 120, 0.05)
        wait.until(lambda page: page.find_element(By.ID, "title").text == "Topics")
        field = browser.find_element(By.ID, "text")
        for number, text in enumerate([*TEXTS, " "], 1):
            browser.execute_script("arguments[0].value = arguments[1]", field, text)
            browser.find_element(By.ID, "classify").click()
            wait.until(lambda page, n=number: len(page.find_elements(By.CSS_SELECTOR, DONE)) == n)
        shown = browser.execute_script(
            "return [...document.querySelectorAll('.card[data-label]')].reverse()"
            ".map((card) => JSON.parse(card.dataset.probabilities))"
        )
        bad = browser.find_element(By.CSS_SELECTOR, ".card.wrong").text
    assert np.abs(np.array(shown) - truth).max() < 1e-3
    print(f"page: largest difference {np.abs(np.array(shown) - truth).max():.1e}")
    assert "there is no text in it" in bad


def test_word_vectors_end_to_end(tmp_path: Path, command: Callable, local_ray: None) -> None:
    table = write_table(tmp_path / "texts.csv", 8)
    with open(table, "a") as file:
        file.write("zebra giraffe,cooking,odd,\n")
    words = write_words(tmp_path / "words.bin", header=True, binary=True)
    out = tmp_path / "words.onnx"
    assert command("export", "backbone", "--words", words, "-o", out).code == 0
    answer = command("extract", table, "--backbone", out, "-o", tmp_path / "f", "--max-bad", 0.1)
    assert answer.code == 0, answer.err
    said = " ".join(answer.err.split())
    assert "words without a vector" in said
    assert "1 failed with decode/unknown_words" in said
    model = tmp_path / "model"
    assert command("classify", "train", tmp_path / "f", "-o", model, "--no-report").code == 0
    card = json.loads((model / "model.json").read_text())
    assert card["metrics"]["test"]["accuracy"] == 1
    asked = ("export", "classifier", model, "--backbone", out, "-o", tmp_path / "edge.onnx")
    assert command(*asked).code == 0
