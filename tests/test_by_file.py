"""A source in many files, planned file by file: the same store and counts as planned in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import paint
from test_containers import write_tar

from headstart.data.common.errors import StoppedError
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.extract import working
from headstart.extract.job import Summary, extract
from headstart.extract.options import ExtractOptions
from headstart.extract.planning.doubles import doubles, entries, partitioned
from headstart.extract.planning.files import cut_runs, runs_of
from headstart.extract.planning.plan import Update

OPTIONS = ExtractOptions(workers=1, engine="onnxruntime")


@pytest.fixture(autouse=True)
def by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.extract.job.MANY", 2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        paint(folder / f"{number}.png", (60, 80, 190), number, 8)
    return [(folder / f"{number}.png").read_bytes() for number in range(40)]


def archive(path: Path, pictures: list[bytes], label: str = "") -> None:
    """Photographs and their labels, by their numbers in the archive."""
    files = {}
    for number, content in enumerate(pictures):
        files[f"{number:03d}.png"] = content
        files[f"{number:03d}.cls"] = (label or f"class {number % 2}").encode()
    write_tar(path, files)


def table(path: Path, pictures: list[bytes], ids: list[str], **columns: list) -> None:
    """Photographs with ids of the user's."""
    labels = [f"class {len(each) % 3}" for each in pictures]
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": ids, "image": pictures, "label": labels} | columns), path)


def twice(
    source: Path, backbone: Path, folder: Path, update: Update, patch: pytest.MonkeyPatch
) -> Summary:
    """Extract by file and in memory into two stores, which must be the same."""
    found = extract(source, backbone, folder / "by_file", OPTIONS, update)
    with patch.context() as other:
        other.setattr("headstart.extract.job.MANY", 1000)
        expected = extract(source, backbone, folder / "in_memory", OPTIONS, update)
    same = {"store": "", "seconds": {}, "first_embedding": None, "workers": 0, "engines": ()}
    assert replace(found, **same) == replace(expected, **same)
    one, two = (FeatureStore.open(folder / name) for name in ("by_file", "in_memory"))
    assert one.manifest.classes == two.manifest.classes
    rows, others = (each.read().sort_by("id") for each in (one, two))
    assert rows.drop_columns(["embedding"]).equals(others.drop_columns(["embedding"]))
    np.testing.assert_array_equal(embeddings_of(rows), embeddings_of(others))
    errors, others = (each.read_errors().sort_by("id") for each in (one, two))
    assert errors.equals(others)
    assert all(part.file for part in one.manifest.parts)
    return found


@pytest.mark.usefixtures("local_ray")
def test_archives_are_followed_as_in_memory(
    pictures: list[bytes], tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    for number in range(4):
        archive(source / f"{number}.tar", pictures[8 * number : 8 * number + 8])
    archive(source / "2.tar", [*pictures[16:23], b"broken"])

    def run(**update: Any) -> Summary:
        return twice(source, tiny_backbone, tmp_path, Update(**update), monkeypatch)

    first = run()
    assert (first.embedded, first.failed, first.inferences) == (31, 1, 31)
    with monkeypatch.context() as without:  # nothing to do: workers are not asked
        without.setattr("headstart.extract.job.ray_session", None)
        assert run().counts.kept == 32
    assert run(retry_failed=True).counts.retried == 1

    archive(source / "0.tar", [pictures[36], *pictures[1:6]], "new")  # changed, lost, relabelled
    (source / "1.tar").unlink()
    archive(source / "4.tar", pictures[32:36])
    changed = run()
    counts = changed.counts
    assert (counts.changed, counts.vanished, counts.relabelled) == (1, 10, 5)
    assert (changed.embedded, changed.inferences) == (5, 5)
    assert run().inferences == 0
    assert run(prune=True).pruned == 10
    assert run().counts.vanished == 0
    assert run(rehash=True).inferences == 0


@pytest.mark.usefixtures("local_ray")
def test_a_run_that_stopped_goes_on(
    pictures: list[bytes], tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "source", tmp_path / "f"
    for number in range(4):
        archive(source / f"{number}.tar", pictures[8 * number : 8 * number + 8])

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("headstart.extract.job.finish", stop)
        with pytest.raises(StoppedError):
            extract(source, tiny_backbone, out, OPTIONS)
    lost = sorted((out / "_records").glob("part-*.parquet"))[0]
    lost.unlink()
    done = extract(source, tiny_backbone, out, OPTIONS)
    assert (done.counts.kept, done.embedded, done.all_inferences) == (24, 8, 40)
    assert sorted(FeatureStore.open(out).read(["id"])["id"].to_pylist()) == [
        f"{number}.tar/{place:03d}.png" for number in range(4) for place in range(8)
    ]


@pytest.mark.usefixtures("local_ray")
def test_ids_of_tables_are_compared_over_all_files(
    pictures: list[bytes], tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    source, out = tmp_path / "source", tmp_path / "f"
    table(source / "a.parquet", pictures[:3], ["one", "two", "three"], place=[1, 2, 3])
    table(source / "b.parquet", pictures[3:6], ["four", "one", "three"])
    arguments = ("extract", source, "--backbone", tiny_backbone, "-o", out, "--workers", 1)
    refused = command(*arguments)
    assert refused.code == 2
    head, _, rest = refused.err.partition("used for more than one example: ")
    assert head.endswith(f"error: {source}: 2 ids are ")
    assert "'one' (row 0 of a.parquet, row 1 of b.parquet)" in rest
    assert "'three' (row 2 of a.parquet, row 2 of b.parquet)" in rest
    assert rest.endswith(
        "\n  Ids must be unique: give them in a column 'id', or remove the repeated rows.\n"
    )
    assert not list(out.glob("*.parquet"))

    table(source / "b.parquet", pictures[3:6], ["four", "five", "six"])
    assert command(*arguments).code == 0
    rows = FeatureStore.open(out).read().sort_by("id")
    assert rows["place"].to_pylist() == [None, None, 1, None, 3, 2]
    # Two ids go to another file: nothing is embedded again, as in memory.
    table(source / "a.parquet", pictures[:1], ["one"], place=[1])
    table(source / "c.parquet", pictures[1:3], ["two", "three"], place=[2, 3])
    moved = command(*arguments, "--json")
    assert "planned in memory: 2 examples moved from one file to another\n" in moved.err
    assert '"inferences": 0' in moved.out
    assert FeatureStore.open(out).read().num_rows == 6


@pytest.mark.usefixtures("local_ray")
def test_what_all_files_decide_together(
    pictures: list[bytes], tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    source = tmp_path / "source"
    archive(source / "a.tar", pictures[:2])
    write_tar(source / "b.tar", {"x.png": pictures[3]})
    arguments = ("extract", source, "--backbone", tiny_backbone, "-o")
    refused = command(*arguments, tmp_path / "f")
    assert refused.err.endswith(
        f"error: {source}: 1 example of 3 has no label: 'b.tar/x.png'\n"
        "  Label them, or pass --allow-unlabelled to keep them without one.\n"
    )
    (source / "b.tar").write_bytes(b"x" * 1024)
    damaged = command(*arguments, tmp_path / "f")
    assert f"error: {source}/b.tar is not a valid tar archive" in damaged.err
    write_tar(source / "b.tar", {"x/y.png": pictures[3], "z/a.png": pictures[4]})
    done = command(*arguments, tmp_path / "g")
    assert "planned in memory: labels are from folders in the archives\n" in done.err
    assert FeatureStore.open(tmp_path / "g").manifest.rows == 4


@pytest.mark.usefixtures("local_ray")
def test_a_file_that_changes_under_the_work_stops_it(
    pictures: list[bytes], tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    for number in range(2):
        archive(source / f"{number}.tar", pictures[8 * number : 8 * number + 8])
    begin = working.begin

    def change(*arguments: Any, **named: Any) -> None:
        begin(*arguments, **named)
        archive(source / "1.tar", pictures[:3])

    monkeypatch.setattr("headstart.extract.working.begin", change)
    with pytest.raises(Exception, match=r"1\.tar has changed since the work was planned"):
        extract(source, tiny_backbone, tmp_path / "f", OPTIONS)


def test_doubles_are_found_over_partitions() -> None:
    ids = [
        pa.chunked_array([[f"id {n % 950}" for n in range(500 * f, 500 * f + 500)]]) for f in (0, 1)
    ]
    files = [partitioned(entries(each, number), 7) for number, each in enumerate(ids)]
    store = partitioned(entries(pa.chunked_array([["id 3", "gone"]]), -1), 7)
    found = [doubles(*column) for column in zip(*files, store, strict=True)]
    assert sum(each.doubles for each in found) == 50
    assert sum(each.moved for each in found) == 1
    pairs = {pair for each in found for pair in each.some}
    assert all((one, two) == ((0, row), (1, 450 + row)) for one, two in pairs for row in [one[1]])


def test_runs() -> None:
    rows = np.array([0, 1, 2, 5, 7, 8])
    assert runs_of(rows) == ((0, 3), (5, 6), (7, 9))
    assert cut_runs(runs_of(rows), 2, 3) == ((2, 3), (5, 6), (7, 8))
    assert runs_of(rows[:0]) == ()
