"""A feature store and a table of predictions, as other programs read them: as they are."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import paint

from headstart.classify.prediction.answers import answers_table
from headstart.data.contracts.records import PartContent, begin, begin_part, write_part
from headstart.data.contracts.store import (
    ERROR_SCHEMA,
    MANIFEST,
    OLD_MANIFEST,
    FeatureStore,
    columns_for,
)
from headstart.data.storage.lock import sole_writer
from headstart.data.storage.notes import columns_of, from_note, to_note
from headstart.data.storage.places import folder_at
from headstart.data.verification import repair, verify
from headstart.extract.job import extract
from headstart.extract.planning.plan import Update

COLUMNS = pa.schema([("id", pa.string()), ("n", pa.int64())])


def readers_agree(store: Path) -> list[str]:
    """The ids that all of them read, each with a vector and every column; `_` and `.` are hidden.

    Spark lists the files that do not begin with these, in all folders that do not.
    """
    with duckdb.connect() as connection:
        found = connection.execute("SELECT id FROM read_parquet(?)", [str(store)]).fetchall()
        everywhere = [f"{store}/**/*.parquet"]
        deep = connection.execute("SELECT id FROM read_parquet(?)", everywhere).fetchall()
    frame = pl.read_parquet(store)
    assert frame["embedding"].dtype == pl.Array(pl.Float32, 12)
    parts = [path for path in store.rglob("*") if path.is_file()]
    spark = [p for p in parts if not any(n[0] in "_." for n in p.relative_to(store).parts)]
    answers = [
        frame["id"].to_list(),
        pl.scan_parquet(store).select("id").collect()["id"].to_list(),
        [id for (id,) in found],
        [id for (id,) in deep],
        pd.read_parquet(store)["id"].to_list(),
        ds.dataset(store).to_table(["id"])["id"].to_pylist(),
        pa.concat_tables(pq.ParquetFile(p).read(["id"]) for p in spark)["id"].to_pylist(),
    ]
    first, *others = map(sorted, answers)
    assert all(other == first for other in others)
    return first


def test_everybody_reads_a_store_at_every_moment_of_its_life(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None, command: Callable
) -> None:
    out = tmp_path / "f"
    (photos / "red" / "00.png").write_bytes(b"broken")
    extract(photos, tiny_backbone, out)  # with errors
    assert (out / MANIFEST).exists()
    assert len(readers_agree(out)) == 59
    for number in range(3):
        paint(photos / "blue" / f"new{number}.png", (60, 60, 200), number)
    extract(photos, tiny_backbone, out)  # grown
    assert len(readers_agree(out)) == 62
    (photos / "blue" / "new0.png").unlink()
    (photos / "green" / "00.png").rename(photos / "red" / "99.png")
    store = FeatureStore.open(out)
    extract(photos, tiny_backbone, out, update=Update(prune=True))  # parts were replaced
    assert list((out / "_replaced").iterdir())
    assert len(readers_agree(out)) == 61
    assert store.read().num_rows == 62  # opened before
    columns = columns_for(store.read(["id", "path", "label", "split", "group"]).schema, 12)
    folder, rows = folder_at(out), FeatureStore.open(out).read()
    new = rows.slice(0, 1).set_column(0, "id", pa.array(["new"]))
    with sole_writer(folder, columns):  # while a run writes, or after it died
        begin(folder, store.fingerprint, str(photos), columns=columns)
        begin_part(folder, "part-00090-0123456789ab", 16)
        content = PartContent(store.fingerprint, new, ERROR_SCHEMA.empty_table())
        write_part(folder, "part-00091-0123456789ab", content)
        kept = (out / "_lock.parquet").read_bytes()
        assert len(readers_agree(out)) == 62
    (out / "_lock.parquet").write_bytes(kept)
    assert "new" in readers_agree(out)
    extract(photos, tiny_backbone, out, update=Update(prune=True))
    assert len(readers_agree(out)) == 61
    part = out / (FeatureStore.open(out).manifest.parts[0].rows_file or "")
    part.write_bytes(part.read_bytes()[:-9])
    repair(out, verify(out))  # with a damaged part set aside
    assert list((out / "_damaged").iterdir())
    assert set(readers_agree(out)) < set(rows["id"].to_pylist())


def test_a_store_of_format_version_1_grows_into_one_that_everybody_reads(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    out = tmp_path / "f"
    (photos / "red" / "00.png").write_bytes(b"broken")
    extract(photos, tiny_backbone, out)
    as_version_1(out)
    with pytest.raises(pl.exceptions.PolarsError):
        pl.read_parquet(out)
    before = FeatureStore.open(out)
    assert before.read_errors()["id"].to_pylist() == ["red/00.png"]
    assert verify(out).sound
    again = extract(photos, tiny_backbone, out)
    assert (again.inferences, again.rows, again.errors) == (0, 59, {"decode/not_an_image": 1})
    assert not (out / OLD_MANIFEST).exists()
    assert len(readers_agree(out)) == 59
    assert verify(out).sound
    after = FeatureStore.open(out)
    assert after.manifest == before.manifest
    assert after.read_errors().equals(before.read_errors())


def as_version_1(store: Path) -> None:
    """Write a store as format version 1 was: plain files, and the manifest `_headstart.json`."""
    manifest = json.loads(from_note((store / MANIFEST).read_bytes()))
    (store / OLD_MANIFEST).write_text(json.dumps(manifest | {"format_version": 1}))
    (store / MANIFEST).unlink()
    for file in (store / "_errors").iterdir():
        file.write_bytes(from_note(file.read_bytes()))
    (store / "_lock").write_text(" (process 1 on an old machine)")


def test_a_run_of_format_version_1_is_continued(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    out, folder = tmp_path / "f", folder_at(tmp_path / "f")
    extract(photos, tiny_backbone, out)
    store = FeatureStore.open(out)
    begin(folder, store.fingerprint, str(photos), store.manifest.parts[:1], 60)
    (out / MANIFEST).unlink()
    run = out / "_records" / "run.parquet"
    run.with_suffix(".json").write_bytes(from_note(run.read_bytes()))
    run.unlink()
    kept = store.manifest.parts[0].rows
    done = extract(photos, tiny_backbone, out)
    assert (done.counts.kept, done.inferences, done.all_inferences) == (kept, 60 - kept, 120 - kept)
    assert len(readers_agree(out)) == 60
    assert sorted(path.name for path in out.iterdir() if path.name[0] == "_") == [MANIFEST]


def test_new_columns_reach_every_file(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    """Polars and DuckDB want the same columns in all of them, errors and vanished rows too."""
    (photos / "red" / "00.png").write_bytes(b"broken")
    rows = [
        [str(path.relative_to(tmp_path)), path.parent.name]
        for path in sorted(photos.rglob("*.png"))
    ]
    source, out = tmp_path / "m.csv", tmp_path / "f"

    def write(header: list[str], rows: list[list[str]]) -> None:
        with source.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])

    write(["path", "label"], rows)
    extract(source, tiny_backbone, out)
    write(["path", "label", "age"], [[*row, "7"] for row in rows[:-40]])
    extract(source, tiny_backbone, out)
    assert len(readers_agree(out)) == 59
    assert pl.read_parquet(out)["age"].null_count() == 39
    assert FeatureStore.open(out).read_errors().num_rows == 1


def test_errors_are_shown_and_written(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None, command: Callable
) -> None:
    out = tmp_path / "f"
    (photos / "red" / "00.png").write_bytes(b"broken")
    extract(photos, tiny_backbone, out)
    answer = command("data", "errors", out)
    assert answer.code == 0
    assert "red/00.png  decode/not_an_image" in answer.out
    (found,) = json.loads(command("data", "errors", out, "--json").out)
    for name in ("e.csv", "e.parquet"):
        file = tmp_path / name
        assert command("data", "errors", out, "-o", file).err == f"wrote {file}\n"
        read = pd.read_csv if name == "e.csv" else pd.read_parquet
        assert read(file).to_dict("records") == [found]
    answer = command("data", "errors", out, "-o", tmp_path / "e.txt")
    assert (answer.code, answer.err) == (
        2,
        f"error: errors cannot be written to {tmp_path / 'e.txt'}\n"
        "  Name a file that ends in .csv or .parquet.\n",
    )


@pytest.mark.parametrize("content", [b"", b"x", b"PAR1", b"PAR1PAR1", b"{}" * 40_000])
def test_a_note_holds_any_bytes_and_no_rows(tmp_path: Path, content: bytes) -> None:
    note = to_note(content, COLUMNS)
    assert from_note(note) == content
    assert columns_of(note) == COLUMNS
    (tmp_path / "n.parquet").write_bytes(note)
    assert pl.read_parquet(tmp_path / "n.parquet").shape == (0, 2)
    for end in (5, len(note) - 1):
        with pytest.raises(ValueError, match="Parquet"):
            from_note(note[:end])


def test_predictions_have_the_names_of_the_classes(tmp_path: Path) -> None:
    classes = ("cat", "a.b", "ü x", "", "select", "x;{}()=,")
    values = np.random.default_rng(0).dirichlet(np.ones(6), 3).astype(np.float32)
    examples = pa.table({"id": list("abc"), "label": pa.nulls(3, pa.string())})
    failed = np.array([False, False, True])
    path = tmp_path / "p.parquet"
    pq.write_table(answers_table(examples, values.argmax(1), values, classes, failed), path)
    wanted = [dict(zip(classes, map(float, row), strict=True)) for row in values[:2]] + [None]
    frame = pl.read_parquet(path)
    assert frame["probabilities"].to_list() == wanted
    cats = frame.select(pl.col("probabilities").struct.field("cat"))["cat"].to_list()
    assert cats == [*map(float, values[:2, 0]), None]
    with duckdb.connect() as connection:
        query = "SELECT probabilities, probabilities.cat FROM read_parquet(?)"
        found = connection.execute(query, [str(path)]).fetchall()
    assert found == list(zip(wanted, cats, strict=True))
    assert pd.read_parquet(path)["probabilities"].to_list() == wanted
    assert pq.read_table(path)["probabilities"].to_pylist() == wanted
