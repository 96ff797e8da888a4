"""Photographs predicted by an edge model: as their features were, whatever is in them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fragile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Outcome, paint
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import cloudpickle

from headstart.classify.prediction import edge as edge_prediction
from headstart.classify.prediction.edge import PredictOptions, predict_examples
from headstart.classify.prediction.edge_worker import Answers, EdgeJob, EdgeSession, EdgeWorker
from headstart.classify.prediction.features import is_edge_model
from headstart.data.common.errors import ModelError
from headstart.data.contracts.edge import load_edge
from headstart.data.modalities.image.preprocessing import Preprocessing, Unsized
from headstart.data.modalities.modality import InputSpec
from headstart.data.storage.places import folder_at
from headstart.data.workers.inputs import MOST_BYTES
from headstart.data.workers.shards import Shard
from headstart.export.edge.classifier import export_classifier
from headstart.export.options import EdgeOptions

pytestmark = pytest.mark.usefixtures("two_workers")


@pytest.fixture
def any_size(model: Path, tiny_backbone: Path, tmp_path: Path) -> Path:
    path = tmp_path / "any.onnx"
    export_classifier(model, tiny_backbone, path, EdgeOptions(any_size=True))
    return path


def by_id(path: Path) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(path).to_pylist()}


def said(answer: Outcome) -> str:
    """What came on stderr, without the progress of a slow machine."""
    lines = answer.err.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("predicting: "))


# The same as from features


@pytest.mark.parametrize("kind", ["edge", "any_size"])
def test_photographs_are_predicted_as_their_features_are(
    kind: str,
    model: Path,
    features: Path,
    photos: Path,
    tmp_path: Path,
    command: Callable,
    request: pytest.FixtureRequest,
) -> None:
    edge = request.getfixturevalue(kind)
    known, out = tmp_path / "known.parquet", tmp_path / "p.parquet"
    assert command("classify", "predict", model, features, "-o", known).code == 0
    answer = command("classify", "predict", edge, photos, "-o", out, "--batch", 7)
    assert answer.code == 0, answer.err
    assert answer.out == (
        "predicted  examples\nblue             20\ngreen            20\nred              20\n\n"
        f"wrote 60 predictions to {out}\n"
    )
    expected, got = by_id(known), by_id(out)
    assert list(got) == sorted(expected)  # the source's order
    table = pq.read_table(out)
    assert table.schema.remove(table.schema.get_field_index("error")) == pq.read_schema(known)
    assert table["error"].null_count == 60
    for id_, row in got.items():
        assert (row["prediction"], row["label"]) == (expected[id_]["prediction"],) * 2
        assert row["probabilities"] == pytest.approx(expected[id_]["probabilities"], abs=1e-5)
        assert row["confidence"] == max(row["probabilities"].values())
        assert list(row["probabilities"]) == ["blue", "green", "red"]


def test_the_same_photographs_give_the_same_file(
    edge: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable
) -> None:
    monkeypatch.setattr(edge_prediction, "SMALLEST_SHARD", 8)  # many blocks, done in any order
    files = [tmp_path / name for name in ("a.parquet", "b.parquet", "c.csv", "d.csv")]
    for file, workers in zip(files, (1, 2, 2, 1), strict=True):
        answer = command(
            *("classify", "predict", edge, photos, "-o", file, "--workers", workers, "--batch", 3)
        )
        assert answer.code == 0, answer.err
    one, other, first, second = (file.read_bytes() for file in files)
    assert one == other
    assert first == second


def test_nothing_of_ray_is_seen(edge: Path, photos: Path, tmp_path: Path) -> None:
    """In a process of its own, with a Ray of its own: what a person sees on stderr is ours."""
    out = tmp_path / "p.csv"
    answer = subprocess.run(
        [sys.executable, "-m", "classify", "predict", edge, photos, "-o", out, "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith(f"wrote 60 predictions to {out}\n")
    assert all(line.startswith("predicting: ") for line in answer.stderr.splitlines())


# What photographs may be like


def test_what_cannot_be_read_is_an_error_of_its_row(
    edge: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    rows = [f"red/{number:02d}.png,red" for number in range(20)]
    (photos / "cut.png").write_bytes((photos / "red" / "00.png").read_bytes()[:700])
    (photos / "text.png").write_text("no photograph")
    rows[3:3] = ["gone.png,red", "cut.png,", "text.png,blue"]
    (photos / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    out = tmp_path / "p.parquet"
    asked = ("classify", "predict", edge, photos / "list.csv", "-o", out)
    answer = command(*asked)
    assert answer.code == 3
    assert answer.out == (
        f"predicted  examples\nred              20\n\nwrote 20 predictions to {out}\n"
    )
    assert said(answer) == (
        f"3 of 23 files could not be read. The column error of {out} says why.\n"
        "  1 failed with missing\n  1 failed with not_an_image\n  1 failed with truncated\n"
        "error: 13.0% of the files could not be read, more than --max-bad 5.0%\n"
        f"  The column error of {out} says why.\n"
    )
    table = pq.read_table(out).to_pylist()
    assert [row["id"] for row in table] == [row.split(",")[0] for row in rows]
    nothing = {"prediction": None, "confidence": None, "probabilities": None}
    assert table[3] == {
        "id": "gone.png",
        **nothing,
        "label": "red",
        "error": "missing: there is no such file",
    }
    for row, reason in ((table[4], "truncated: "), (table[5], "not_an_image: ")):
        assert row.items() >= nothing.items()
        assert row["error"].startswith(reason)
    assert all(row["prediction"] == "red" for row in table if row["error"] is None)
    assert table[4]["label"] is None
    answer = command(*asked, "--max-bad", 0.2, "--overwrite")
    assert (answer.code, "error: " in answer.err) == (0, False)
    text = tmp_path / "p.csv"
    command("classify", "predict", edge, photos / "list.csv", "-o", text)
    with text.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[3] == {
        "id": "gone.png",
        "prediction": "",
        "confidence": "",
        "probabilities": "",
        "label": "red",
        "error": "missing: there is no such file",
    }
    assert list(json.loads(lines[0]["probabilities"])) == ["blue", "green", "red"]
    assert lines[0]["error"] == ""


def test_a_source_without_any_photograph_that_can_be_read(
    edge: Path, tmp_path: Path, local_ray: None
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    table = predict_examples(edge, tmp_path / "bad", tmp_path / "p.csv")
    (row,) = table.to_pylist()
    assert (row["prediction"], row["probabilities"], row["label"]) == (None, None, None)
    assert row["error"].startswith("empty: ")


def test_photographs_without_labels_and_some_with(
    edge: Path, photos: Path, tmp_path: Path, local_ray: None
) -> None:
    for name in ("red", "blue"):
        (photos / name / "00.png").rename(photos / f"{name}.png")
    table = predict_examples(edge, photos, tmp_path / "p.parquet").to_pylist()
    found = {row["id"]: (row["prediction"], row["label"]) for row in table}
    assert found["red.png"] == ("red", None)
    assert found["blue.png"] == ("blue", None)
    assert found["green/00.png"] == ("green", "green")
    assert len(found) == 60


def test_a_manifest_with_ids(edge: Path, photos: Path, tmp_path: Path, local_ray: None) -> None:
    lines = ["id,path", "zebra,red/01.png", "ant,blue/01.png", "moth,red/01.png"]
    (photos / "list.csv").write_text("\n".join(lines) + "\n")
    table = predict_examples(edge, photos / "list.csv", tmp_path / "p.parquet")
    assert table["id"].to_pylist() == ["zebra", "ant", "moth"]
    assert table["prediction"].to_pylist() == ["red", "blue", "red"]
    assert table["label"].null_count == 3


def test_photographs_in_parquet(edge: Path, photos: Path, tmp_path: Path, local_ray: None) -> None:
    names = ["red/01.png", "blue/01.png", "green/01.png"]
    images = [{"bytes": (photos / name).read_bytes(), "path": name} for name in names]
    pq.write_table(pa.table({"image": images}), tmp_path / "photos.parquet", row_group_size=2)
    table = predict_examples(edge, tmp_path / "photos.parquet", tmp_path / "p.parquet")
    assert table["prediction"].to_pylist() == ["red", "blue", "green"]


def test_unknown_has_no_prediction_but_its_probabilities(
    features: Path, tiny_backbone: Path, tmp_path: Path, photos: Path, command: Callable
) -> None:
    model, edge, out = tmp_path / "careful", tmp_path / "careful.onnx", tmp_path / "p.parquet"
    options = ("--coverage", 0.5, "--no-report")
    assert command("classify", "train", features, "-o", model, *options).code == 0
    export_classifier(model, tiny_backbone, edge)
    threshold = load_edge(edge).threshold
    assert threshold
    for seed in range(20):
        paint(photos / "red" / f"grey{seed}.png", (110, 110, 110), 900 + seed)
    answer = command("classify", "predict", edge, photos, "-o", out)
    assert answer.code == 0, answer.err
    table = pq.read_table(out).to_pylist()
    unknown = [row for row in table if row["prediction"] is None]
    assert unknown
    assert len(unknown) < len(table)
    assert f"unknown    {len(unknown):>8}" in answer.out
    for row in table:
        assert row["error"] is None
        assert len(row["probabilities"]) == 3
        assert (row["confidence"] < threshold) == (row["prediction"] is None)


# Workers that are lost, storage that is


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers that crash at files that hold `poison`, as a decoder with a bug would."""
    cloudpickle.register_pickle_by_value(fragile)  # Ray's workers do not have this folder
    monkeypatch.setattr(edge_prediction, "EdgeJob", fragile.FragileEdgeJob)
    monkeypatch.setattr(edge_prediction, "SMALLEST_SHARD", 4)
    yield
    cloudpickle.unregister_pickle_by_value(fragile)


@pytest.mark.usefixtures("deadly", "local_ray")
def test_a_photograph_that_kills_its_workers_is_an_error_and_the_others_are_predicted(
    edge: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    (photos / "green" / "07.png").write_bytes(b"poison")
    out = tmp_path / "p.parquet"
    answer = command("classify", "predict", edge, photos, "-o", out, "--batch", 4)
    assert answer.code == 0, answer.err
    # Two, and one alone; where no mark was left in time, the shard is halved up to three times.
    assert said(answer).count("it is replaced\n") in range(3, 7)
    assert said(answer).endswith(
        f"1 of 60 files could not be read. The column error of {out} says why.\n"
        "  1 failed with died\n"
    )
    found = by_id(out)
    assert found.pop("green/07.png")["error"] == (
        "died: its workers died at this photograph, the last one with it alone: its process was "
        "killed or crashed; short memory is the usual cause"
    )
    assert all(row["prediction"] == row["label"] for row in found.values())
    import ray

    ends = time.monotonic() + 20  # seconds: no worker stays behind, also none that was restarting
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < ends:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 2


@pytest.mark.usefixtures("deadly", "local_ray")
def test_workers_that_are_lost_again_and_again_end_the_work(
    edge: Path, photos: Path, tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.data.workers.pool.MAX_DIED_IN_A_ROW", 1)
    for path in photos.rglob("*.png"):
        path.write_bytes(b"poison")
    answer = command("classify", "predict", edge, photos, "-o", tmp_path / "p.csv", "--batch", 4)
    assert answer.code == 1
    assert "error: 1 photographs in a row ended their workers, the last one is '" in answer.err
    assert answer.err.endswith("  No predictions were written.\n")
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.usefixtures("deadly", "local_ray")
def test_storage_that_does_not_answer_ends_the_work(
    edge: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    (photos / "green" / "07.png").write_bytes(b"away")
    answer = command("classify", "predict", edge, photos, "-o", tmp_path / "p.csv")
    assert (answer.code, said(answer)) == (
        1,
        "error: the storage is away\n  Wait for it.\n  No predictions were written.\n",
    )
    assert not (tmp_path / "p.csv").exists()


def test_a_user_may_stop_it(
    edge: Path, photos: Path, tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(edge_prediction, "_take", stop)  # with workers at work
    answer = command("classify", "predict", edge, photos, "-o", tmp_path / "p.csv")
    assert (answer.code, said(answer)) == (130, "error: stopped; no predictions were written\n")
    assert not (tmp_path / "p.csv").exists()


# The worker, without Ray


class Known:
    """Stands for a session: says the mean as the probability, and fails as it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls.append(images.shape)
        assert images.nbytes <= MOST_BYTES or len(images) == 1
        if (images == 13).all(axis=(1, 2, 3)).any():
            raise RuntimeError("no memory\nfor this")
        first = images[:, 0, 0, 0]
        odd = np.where(first == 99, np.nan, first / 255).astype(np.float32)
        return first.astype(np.int64), np.stack([odd, 1 - odd], axis=1)


def work(session: Known, folder: Path, paths: list[str], spec: InputSpec, batch: int) -> Answers:
    """A worker's answers for photographs whose rows in the source begin at 50."""
    job = EdgeJob(root=folder_at(folder), spec=spec, path="e.onnx", classes=2, batch=batch)
    rows = pa.array(range(50, 50 + len(paths)), pa.int64())
    examples = pa.table({"id": pa.array(paths, pa.string()), "path": pa.array(paths, pa.string())})
    shard = Shard(0, examples.append_column("row", rows))
    return EdgeWorker(job, session).work(shard)


def painted(folder: Path, photographs: list[tuple[int, int]]) -> list[str]:
    """Photographs of one grey and a size each; their names."""
    for number, (value, size) in enumerate(photographs):
        content = f"P5 {size} {size} 255\n".encode() + bytes([value]) * size * size
        (folder / f"{number}.pgm").write_bytes(content)
    return [f"{number}.pgm" for number in range(len(photographs))]


@settings(max_examples=60, deadline=None)
@given(
    photographs=st.lists(
        st.tuples(st.sampled_from([1, 2, 13, 99, 200]), st.sampled_from([2, 3])), max_size=12
    ),
    batch=st.integers(1, 5),
)
def test_every_photograph_has_one_answer_whatever_is_beside_it(
    photographs: list[tuple[int, int]], batch: int
) -> None:
    session = Known()
    with tempfile.TemporaryDirectory() as folder:
        names = painted(Path(folder), photographs)
        answers = work(session, Path(folder), names, Unsized(8, 8), batch)
    assert answers.rows.tolist() == list(range(50, 50 + len(photographs)))
    for (value, _), error, label in zip(photographs, answers.errors, answers.labels, strict=True):
        errors = {
            13: "not_classified: no memory",
            99: "not_finite: the probabilities have NaN or infinite numbers",
        }
        assert error == errors.get(value)
        assert label == (-1 if value in errors else value)
    assert all(1 <= shape[0] <= batch for shape in session.calls)


def test_large_photographs_go_one_by_one(tmp_path: Path) -> None:
    session = Known()
    names = painted(tmp_path, [(200, 4000), (200, 4000), (200, 10), (200, 10)])
    work(session, tmp_path, names, Unsized(8, 8), 16)
    assert [shape[:2] for shape in session.calls] == [(1, 4000), (1, 4000), (2, 10)]


def test_a_model_of_one_size_is_given_that_size(photos: Path) -> None:
    session = Known()
    work(session, photos, ["red/00.png", "blue/00.png"], Preprocessing(5, 6), 16)
    assert session.calls == [(2, 5, 6, 3)]


def test_a_file_that_onnxruntime_cannot_load() -> None:
    with pytest.raises(ModelError) as caught:
        EdgeSession("e.onnx", b"nothing", Preprocessing(8, 8))
    assert str(caught.value).startswith("e.onnx cannot be loaded: ")
    assert str(caught.value).endswith("\n  Export the classifier again.")


# Mistakes


def test_which_way_a_model_is_read(edge: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "edge").write_bytes(b"")
    expected = {
        edge: True,
        tmp_path / "edge": True,
        tmp_path / "missing.onnx": True,
        tmp_path / "missing": False,
        tmp_path / "folder.onnx": False,
        "s3://bucket/edge.ONNX": True,
        "s3://bucket/model": False,
        f"file://{edge}": True,
    }
    assert {path: is_edge_model(path) for path in expected} == expected


def test_all_mistakes_are_said_at_once(
    features: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    out = tmp_path / "p.csv"
    out.write_text("mine")
    answer = command("classify", "predict", tiny_backbone, features, "-o", out)
    assert (answer.code, said(answer)) == (
        2,
        f"error: 1. {tiny_backbone} is a headstart backbone, not an edge model\n"
        "  Write one with: python -m export classifier MODEL --backbone backbone.onnx -o "
        "edge.onnx\n"
        f"2. {features} is a feature store; an edge model takes files\n"
        "  Name the files, or the model folder: python -m classify predict MODEL "
        f"{features} -o {out}\n"
        f"3. {out} exists already\n  Pass --overwrite to replace it.\n",
    )
    assert out.read_text() == "mine"
    answer = command(
        *("classify", "predict", tmp_path / "no.onnx", tmp_path / "no", "-o", tmp_path / "p.txt")
    )
    assert said(answer) == (
        f"error: 1. {tmp_path / 'no.onnx'}: no such edge model\n"
        "  Write one with: python -m export classifier MODEL --backbone backbone.onnx -o "
        "edge.onnx\n"
        f"2. {tmp_path / 'no'}: no such folder or manifest\n  Check the path.\n"
        f"3. predictions cannot be written to {tmp_path / 'p.txt'}\n"
        "  Name a file that ends in .parquet or .csv.\n"
    )


def test_sources_that_hold_nothing(edge: Path, tmp_path: Path, command: Callable) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("path\n")
    answer = command("classify", "predict", edge, tmp_path / "empty", "-o", tmp_path / "p.csv")
    assert answer.code == 2
    assert answer.err.startswith(f"error: {tmp_path / 'empty'} holds no photographs; it is empty\n")
    answer = command("classify", "predict", edge, tmp_path / "list.csv", "-o", tmp_path / "p.csv")
    assert (answer.code, said(answer)) == (
        2,
        f"error: {tmp_path / 'list.csv'} lists no examples\n  Give it a row for each example.\n",
    )


def test_a_model_folder_takes_features_only(
    model: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    (photos / "list.csv").write_text("path\nred/00.png\n")
    for source in (photos, photos / "list.csv"):
        answer = command("classify", "predict", model, source, "-o", tmp_path / "p.csv")
        assert (answer.code, said(answer)) == (
            2,
            f"error: {source} is a source of files; a model folder needs features\n"
            f"  Extract them: python -m extract {source} --backbone backbone.onnx -o FEATURES\n"
            "  Or use the files with an edge model, which `python -m export classifier` "
            "writes.\n",
        )
    (tmp_path / "empty").mkdir()
    answer = command("classify", "predict", model, tmp_path / "empty", "-o", tmp_path / "p.csv")
    assert answer.err.startswith(
        f"error: {tmp_path / 'empty'} is not a feature store (it has no _headstart.parquet)\n"
    )


def test_options_that_have_no_use(
    model: Path, features: Path, tmp_path: Path, command: Callable
) -> None:
    asked = ("classify", "predict", model, features, "-o", tmp_path / "p.csv")
    answer = command(*asked, "--workers", 2, "--batch", 4)
    assert (answer.code, said(answer)) == (
        2,
        "error: --workers and --batch cannot be used with a model folder and features\n"
        "  Leave out what is for an edge model and photographs only.\n",
    )
    answer = command(*asked, "--max-bad", 0.5)
    assert answer.err.startswith(
        "error: --max-bad cannot be used with a model folder and features\n"
    )
    assert not (tmp_path / "p.csv").exists()


def test_options_that_are_not_possible(
    edge: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    asked = ("classify", "predict", edge, photos, "-o", tmp_path / "p.csv")
    answer = command(*asked, "--workers", 0, "--batch", 5000)
    assert (answer.code, said(answer)) == (
        2,
        "error: 1. --workers 0 is not possible\n  Give 1 to 100,000.\n"
        "2. --batch 5000 is not possible\n  Give 1 to 1,024.\n",
    )
    answer = command(*asked, "--workers", 50)
    assert (answer.code, said(answer)) == (
        2,
        "error: 50 workers need as many CPUs, but the cluster has 2\n"
        "  Ask for --workers 2 or fewer.\n",
    )
    assert PredictOptions().batch == 16


@pytest.mark.parametrize("kind", ["features", "photographs"])
def test_prediction_imports_nothing_that_trains(
    kind: str, model: Path, features: Path, edge: Path, photos: Path, tmp_path: Path
) -> None:
    """Through the command line: no TensorFlow, no scikit-learn, and for features no Ray."""
    given = (model, features) if kind == "features" else (edge, photos)
    others = ["sklearn", "skl2onnx", "skops", "tensorflow", "keras"]
    others += ["ray", "onnx"] if kind == "features" else []
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({others}))\n"
        "from headstart.__main__ import main; main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, "classify", "predict", *given, "-o", tmp_path / "p.csv"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert answer.returncode == 0, answer.stderr
    assert "wrote 60 predictions" in answer.stdout
