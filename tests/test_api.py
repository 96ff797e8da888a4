"""`import headstart as hs`: the five lines, arrays, tables, and the words for mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import datasets
import nbclient
import nbformat
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from text_models import write_table, write_words

import headstart as hs
from headstart.data.common.errors import InputError
from headstart.parameters import in_python

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_steps.ipynb"
LIGHT = """
import sys, headstart as hs
heavy = {"ray", "tensorflow", "sklearn", "numpy", "pyarrow", "typer", "onnxruntime"}
print(heavy & set(sys.modules))
import headstart.extract.job as job
print(callable(hs.extract), hs.extract.job is job, sorted(hs.__all__) == hs.__all__)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "headstart"


def test_the_import_is_light() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True
    ).stdout
    assert said == "set()\nTrue True True\n"


def test_five_lines(
    photos: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    cache: Path,
    local_ray: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    features = hs.extract(photos, backbone=tiny_backbone)
    model = hs.train(features, report=False)
    answers = model.predict(photos / "red")
    edge = model.export(tmp_path / "edge.onnx")
    same = hs.load(tmp_path / "edge.onnx").predict([photos / "red" / "00.png", photos / "blue"])
    assert capfd.readouterr() == ("", "")  # nobody looks

    assert (len(features), features.dim, features.classes) == (60, 12, ("blue", "green", "red"))
    assert features.embeddings.shape == (60, 12)
    assert features.embeddings.dtype == np.float32
    assert list(features.labels[:2]) == ["blue", "blue"]
    assert pa.table(features).num_rows == len(features.to_pandas()) == 60
    assert repr(features).startswith("Features(60 x 12 by tiny, 3 classes, 0 failed, in ")
    assert answers["prediction"].to_pylist() == ["red"] * 20
    assert answers["error"].null_count == 20
    assert same["prediction"].to_pylist() == ["red"] + ["blue"] * 20
    assert repr(edge).startswith("EdgeModel(tiny, 3 classes, 0.0 MB, in ")

    again = hs.extract(photos, backbone=tiny_backbone)  # in the cache by content
    assert again.folder == features.folder
    assert again.store.manifest.inferences == 60
    kept = hs.train(again, report=False)
    assert kept.folder == model.folder
    assert hs.train(again, "ridge", report=False).folder != model.folder
    tiny_backbone.unlink()  # its copy is found by its fingerprint
    loaded = hs.load(model.folder)
    assert isinstance(loaded, hs.Model)
    assert loaded.predict(photos / "red" / "00.png")["prediction"].to_pylist() == ["red"]
    assert loaded.predict(features)["prediction"].to_pylist()[-1] == "red"
    assert loaded.predict(features.embeddings[:2])["prediction"].to_pylist() == ["blue"] * 2
    assert cache in Path(model.folder).parents

    scores = model.scores
    assert scores.examples == 15
    assert repr(scores).startswith(f"accuracy           {scores.accuracy:.4f}  (95 %: ")
    assert "<td>blue</td>" in model._repr_html_()
    assert np.asarray(model.confusion).sum() == 15
    assert repr(model.confusion).splitlines()[0] == "true \\ predicted  blue  green  red"
    assert "<th>green</th>" in model.confusion._repr_html_()
    assert model.confusion.plot()._repr_png_().startswith(b"\x89PNG")
    assert repr(model).startswith("Model(logistic, 3 classes, accuracy ")


def test_corrections_where_it_looked_and_options_of_networks(
    photos: Path,
    features: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("id,action,change_to\nred/00.png,remove,\nblue/00.png,change,green\n")
    plain = hs.train(features, report=False)
    corrected = hs.train(features, report=False, corrections=corrections)
    assert corrected.folder != plain.folder
    assert corrected.opened.card.corrections == {"changed": 1, "removed": 1}
    assert hs.train(features, report=False, corrections=corrections).folder == corrected.folder
    with pytest.raises(InputError) as caught:
        hs.train(features, report=False, backbone=tiny_backbone)
    assert str(caught.value) == (
        "backbone is for the report, and report=False leaves it out\n  Give one of the two."
    )
    looked = []
    monkeypatch.setattr(
        "headstart.classify.training.looks", lambda backbone, *more: looked.append(backbone) or {}
    )
    hs.train(features, backbone=tiny_backbone)
    assert [each.spec.name for each in looked] == ["tiny"]
    embedded = hs.extract(photos, backbone=tiny_backbone, corrections=corrections, stall_after=99)
    assert (len(embedded), sorted(embedded.labels)[20]) == (59, "green")

    monkeypatch.setattr("headstart.export.text.build.SECONDS", 0.1)
    table = write_table(tmp_path / "texts.csv", 8)
    words = write_words(tmp_path / "words.txt")
    texts = hs.extract(table, words=words, most_words=38, text_column="text", pool=())
    lower = hs.extract(table, words=words, text_column="text", backbone_precision="fp16")
    assert [each.store.fingerprint.precision for each in (texts, lower)] == ["fp32", "fp16"]
    with pytest.raises(InputError, match=r"^hop can only be used with sound\n  Add sound logmel "):
        hs.extract(photos, hop=0.5)
    with pytest.raises(InputError, match=r"^give either backbone or words FILE"):
        hs.extract(table, tiny_backbone, words=words)


def test_arrays(photos: Path) -> None:
    random = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 40)
    X = random.normal(size=(80, 5)) + (y == "b")[:, None] * 3
    groups = np.arange(80) // 4
    model = hs.fit(X, y, groups=groups, seed=1)
    assert model.classes == ("a", "b")
    assert model.scores.accuracy > 0.9
    assert "groups kept together" in model.opened.card.split
    assert model.report is None
    assert model.predict(X[-3:])["prediction"].to_pylist() == ["b"] * 3
    frame = hs.fit(pd.DataFrame(X), pd.Series(y), seed=1)
    assert frame.classes == ("a", "b")
    for wrong, said in (
        (
            lambda: hs.fit(X, y[:3]),
            "y has the shape (3,), and X has 80 rows\n  Give y as [examples].",
        ),
        (
            lambda: hs.fit(X[0], y),
            "X has the shape (5,)\n  Give an array [examples, dim] of numbers.",
        ),
        (
            lambda: hs.fit(X * np.nan, y),
            "X has NaN or infinite numbers\n  Remove or replace these rows.",
        ),
        (
            lambda: model.predict(X[:, :2]),
            "source has rows of 2 numbers; the model takes 5\n"
            "  Give embeddings as it was trained on.",
        ),
        (
            lambda: hs.fit(X, y, test_size=2),
            "test_size=2 is not possible\n  Give a share between 0 and 1.",
        ),
    ):
        with pytest.raises(InputError) as caught:
            wrong()
        assert str(caught.value) == said
    with pytest.raises(hs.HeadstartError, match=r"the backbone of .* was not found: arrays 0000"):
        model.predict(photos)


def test_tables(photos: Path, tiny_backbone: Path, local_ray: None) -> None:
    files = sorted(photos.rglob("*.png"))
    frame = pd.DataFrame(
        {"path": map(str, files), "label": [file.parent.name for file in files], "weight": 1.5}
    )
    features = hs.extract(frame, backbone=tiny_backbone)
    assert len(features) == 60
    assert features.to_arrow()["weight"].to_pylist() == [1.5] * 60
    assert hs.extract(frame, backbone=tiny_backbone).store.manifest.inferences == 60
    pictures = pa.table(
        {"image": [file.read_bytes() for file in files], "label": frame["label"].to_list()}
    )
    assert np.array_equal(
        np.sort(hs.extract(pictures, backbone=tiny_backbone).embeddings, axis=0),
        np.sort(features.embeddings, axis=0),
    )
    model = hs.train(features, report=False)
    assert model.predict(frame[-2:])["prediction"].to_pylist() == ["red", "red"]
    with pytest.raises(hs.HeadstartError) as caught:
        hs.extract(7, backbone=tiny_backbone)
    assert str(caught.value) == (
        "int is not a source\n"
        "  Give a path, an address, or a table of pandas, Polars, Arrow or datasets."
    )


def test_polars_and_datasets_in_and_out(
    photos: Path, tiny_backbone: Path, local_ray: None, capfd: pytest.CaptureFixture[str]
) -> None:
    files = sorted(photos.rglob("*.png"))
    names = [file.parent.name for file in files]
    frame = pl.DataFrame(
        {"file": map(str, files), "kind": pl.Series(names, dtype=pl.Categorical), "weight": 1.5},
        strict=False,
    )
    by_polars = hs.extract(frame, tiny_backbone, path_column="file", label_column="kind")
    assert by_polars.classes == ("blue", "green", "red")

    classes = sorted(set(names))
    numbers = [classes.index(name) for name in names]
    label = datasets.ClassLabel(names=classes)
    paths = datasets.Dataset.from_dict(
        {"path": list(map(str, files)), "label": numbers},
        features=datasets.Features({"path": datasets.Value("string"), "label": label}),
    )
    shuffled = paths.shuffle(seed=1)  # indices into the table, which stays as it is
    pictures = datasets.Dataset.from_dict(
        {"image": list(map(str, files)), "label": numbers},
        features=datasets.Features({"image": datasets.Image(), "label": label}),
    )
    by_path = hs.extract(shuffled, tiny_backbone)
    by_picture = hs.extract(pictures, tiny_backbone)
    assert hs.extract(pictures, tiny_backbone).store.manifest.inferences == 60
    for features in (by_path, by_picture):
        assert features.classes == ("blue", "green", "red")
        assert np.array_equal(
            np.sort(features.embeddings, axis=0), np.sort(by_polars.embeddings, axis=0)
        )
    pairs = dict(zip(by_path.to_arrow()["id"].to_pylist(), by_path.labels, strict=True))
    assert all(Path(id).parent.name == label for id, label in pairs.items())

    model = hs.train(by_polars, report=False)
    answers = model.predict(frame.tail(2), path_column="file", label_column="kind")
    assert isinstance(answers, hs.Predictions)
    assert answers.to_polars()["prediction"].to_list() == ["red", "red"]
    assert answers.to_polars().equals(pl.DataFrame(answers))
    assert answers.to_pandas()["label"].tolist() == ["red", "red"]
    assert answers.to_dataset()[1]["prediction"] == "red"
    assert answers.to_dataset().features["probabilities"]["red"].dtype == "float32"
    assert model.predict(shuffled.select(range(3)))["error"].null_count == 3
    assert repr(answers).splitlines()[0].split() == [
        "id",
        "prediction",
        "confidence",
        "label",
        "error",
    ]
    many = model.predict(by_path)
    assert repr(many).endswith("\n... and 50 more")
    assert "<th>prediction</th>" in many._repr_html_()
    assert by_path.to_polars().shape == (60, len(by_path.to_arrow().column_names))
    assert by_path.to_dataset().with_format("numpy")["embedding"][:].shape == (60, 12)
    assert capfd.readouterr() == ("", "")  # nobody looks

    with pytest.raises(hs.HeadstartError) as caught:
        hs.extract(datasets.DatasetDict(train=paths, test=paths), tiny_backbone)
    assert str(caught.value) == (
        "it has the splits 'train', 'test'; a source is one table\n"
        "  Give one of them, such as dataset['train']."
    )
    with pytest.raises(hs.HeadstartError) as caught:
        hs.extract(paths.to_iterable_dataset(), tiny_backbone)
    assert str(caught.value) == (
        "IterableDataset is read once and has no length\n  Load it without streaming=True."
    )


@pytest.mark.parametrize(
    ("flags", "parameters"),
    [
        ("--test-size 2 is not possible", "test_size=2 is not possible"),
        ("Pass --overwrite to replace it.", "Pass overwrite=True to replace it."),
        ("Leave --class-weight out.", "Leave class_weight out."),
        ("Choose an empty folder with -o.", "Choose an empty folder with output."),
        ("run python -m data verify X --repair", "run python -m data verify X --repair"),
        ("a--b and x-o", "a--b and x-o"),
    ],
)
def test_errors_name_parameters(flags: str, parameters: str) -> None:
    assert in_python(flags) == parameters


def test_the_notebook(
    photos: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "kernels" / "ours" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    launch = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    kernel.write_text(f'{{"argv": {launch}, "display_name": "ours"}}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, 4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # nothing of ours is kept
    settings = next(cell for cell in notebook.cells if cell.source.startswith("PHOTOS"))
    settings.source = f"PHOTOS, BACKBONE = {str(photos)!r}, {str(tiny_backbone)!r}"
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=240, startup_timeout=240, kernel_name="ours", resources=where
    ).execute()
    shown = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    for part in ("<th>held-out examples</th>", "image/png", "Features(60 x 12 by tiny"):
        assert part in shown
    assert (tmp_path / "edge.onnx").exists()
