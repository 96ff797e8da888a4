"""A store follows its source: changed files, labels, failures, removed examples."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import paint
from manifests import change_manifest, manifest_of

from headstart.data.common.errors import ExtractionError, StoreError
from headstart.data.contracts.records import PartContent, begin, write_part
from headstart.data.contracts.store import (
    MANIFEST,
    OLD_MANIFEST,
    REPLACED,
    FeatureStore,
    embeddings_of,
    fingerprint_of,
    open_part,
    read_manifest,
    with_fingerprint,
)
from headstart.data.storage.files import digest
from headstart.data.storage.places import folder_at
from headstart.data.verification import verify
from headstart.extract.engines.runtimes import EngineConfig
from headstart.extract.job import extract
from headstart.extract.options import ExtractOptions
from headstart.extract.planning.plan import Update
from headstart.extract.worker import EmbeddingJob, EmbeddingWorker

Rows = dict[str, dict]


def rows(store: Path) -> Rows:
    """The features by id, embeddings as bytes."""
    table = FeatureStore.open(store).read()
    embeddings = embeddings_of(table)
    found = table.drop_columns(["embedding"]).to_pylist()
    return {
        row["id"]: row | {"embedding": embedding.tobytes()}
        for row, embedding in zip(found, embeddings, strict=True)
    }


def ids_are_once_each(store: Path, expected: set[str]) -> None:
    opened = FeatureStore.open(store)
    ids = [*opened.read(["id"])["id"].to_pylist(), *opened.read_errors()["id"].to_pylist()]
    assert sorted(ids) == sorted(expected)
    names = {part.rows_file for part in opened.manifest.parts}
    names |= {part.errors_file for part in opened.manifest.parts}
    found = {name for name in folder_at(store).names() if not name.startswith(f"{REPLACED}/")}
    assert found == (names - {None}) | {MANIFEST}


def all_ids(photos: Path) -> set[str]:
    return {path.relative_to(photos).as_posix() for path in photos.rglob("*.png")}


def test_a_changed_file_is_embedded_again_and_nothing_else(
    photos: Path, features: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    before = rows(features)
    paint(photos / "red" / "03.png", (10, 10, 10), 1)
    done = extract(photos, tiny_backbone, features)
    assert (done.inferences, done.counts.changed, done.counts.kept) == (1, 1, 59)
    after = rows(features)
    assert after.keys() == before.keys()
    assert {id_ for id_ in after if after[id_] != before[id_]} == {"red/03.png"}
    ids_are_once_each(features, all_ids(photos))
    extract(photos, tiny_backbone, tmp_path / "fresh")
    assert rows(tmp_path / "fresh") == after
    assert extract(photos, tiny_backbone, features).inferences == 0


def test_a_file_that_was_only_touched_is_read_once_and_not_embedded(
    photos: Path, features: Path, tiny_backbone: Path, command: Callable
) -> None:
    before = rows(features)
    for path in (photos / "blue").iterdir():
        os.utime(path, (1, 1))
    arguments = ("extract", photos, "--backbone", tiny_backbone, "-o", features)
    answer = command(*arguments)
    assert answer.code == 0
    assert answer.out == f"nothing to do: all 60 examples are in {features}\n"
    after = rows(features)
    assert {i: r["embedding"] for i, r in after.items()} == {
        i: r["embedding"] for i, r in before.items()
    }
    assert {i for i in after if after[i]["stamp"] != before[i]["stamp"]} == {
        f"blue/{number:02d}.png" for number in range(20)
    }
    manifest = (features / MANIFEST).read_bytes()
    command(*arguments)
    assert (features / MANIFEST).read_bytes() == manifest


def test_failures_are_tried_again_when_asked_or_when_their_file_changed(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    out, red = tmp_path / "f", photos / "red"
    good = {name: (red / name).read_bytes() for name in ("00.png", "01.png")}
    (red / "00.png").write_bytes(b"broken")
    (red / "01.png").write_bytes(b"broken")
    assert extract(photos, tiny_backbone, out).errors == {"decode/not_an_image": 2}
    assert extract(photos, tiny_backbone, out).counts.kept == 60
    again = extract(photos, tiny_backbone, out, update=Update(retry_failed=True))
    assert (again.counts.retried, again.failed, again.inferences) == (2, 2, 0)
    (red / "00.png").write_bytes(good["00.png"])
    retried = extract(photos, tiny_backbone, out)
    assert (retried.counts.changed, retried.embedded, retried.rows) == (1, 1, 59)
    # Restored with the stamp that it failed with: only --retry-failed retries it.
    stamp = (red / "01.png").stat()
    (red / "01.png").write_bytes(b"")
    (red / "01.png").write_bytes(b"brokes")
    os.utime(red / "01.png", ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    assert extract(photos, tiny_backbone, out).counts.kept == 60
    (red / "01.png").write_bytes(good["01.png"])
    last = extract(photos, tiny_backbone, out, update=Update(retry_failed=True))
    assert (last.embedded, last.rows, last.errors) == (1, 60, {})
    ids_are_once_each(out, all_ids(photos))
    assert last.all_inferences == 60


def test_removed_examples_are_dropped_when_asked(
    photos: Path, features: Path, tiny_backbone: Path, command: Callable
) -> None:
    for path in (photos / "green").iterdir():
        path.unlink()
    (photos / "red" / "00.png").unlink()
    arguments = ("extract", photos, "--backbone", tiny_backbone, "-o", features)
    kept = command(*arguments)
    assert "21 of the examples" in kept.err
    assert read_manifest(folder_at(features)).classes == ("blue", "green", "red")  # type: ignore[union-attr]
    pruned = command(*arguments, "--prune")
    assert pruned.out.startswith(
        "before   39 of 39 were done\nupdated  21 were dropped\ntook     plan "
    )
    ids_are_once_each(features, all_ids(photos))
    assert read_manifest(folder_at(features)).classes == ("blue", "red")  # type: ignore[union-attr]
    assert command(*arguments, "--prune").out == (
        f"nothing to do: all 39 examples are in {features}\n"
    )


def test_a_store_stays_readable_for_those_who_opened_it_before(
    photos: Path, tiny_backbone: Path, features: Path
) -> None:
    """Until the end of the run after the one that replaced it; dataset readers see no row twice."""
    before = FeatureStore.open(features)
    files = [part.rows_file or "" for part in before.manifest.parts]
    for left in (59, 58):
        next(photos.rglob("*.png")).unlink()
        extract(photos, tiny_backbone, features, update=Update(prune=True))
        assert FeatureStore.open(features).read(["id"]).num_rows == left
        assert pq.read_table(features).num_rows == left
        if left == 59:
            assert before.read().num_rows == 60
            for file in files:  # as training reads a store that memory cannot hold
                assert pq.ParquetFile(open_part(before.folder, file)).read().num_rows
            assert verify(features).sound
    with pytest.raises(StoreError, match="is damaged: it is missing"):
        before.read()


def test_new_labels_and_columns_are_copied_without_an_inference(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    manifest, out = photos / "m.csv", tmp_path / "f"
    manifest.write_text("path,label,age\nred/00.png,a,1\nred/01.png,b,2\n")
    extract(manifest, tiny_backbone, out)
    before = rows(out)
    manifest.write_text("path,label,age\nred/01.png,c,2\nred/00.png,a,1\n")
    done = extract(manifest, tiny_backbone, out)
    assert (done.inferences, done.counts.relabelled) == (0, 1)
    assert rows(out) == before | {"red/01.png": before["red/01.png"] | {"label": "c"}}
    manifest.write_text("path,split,x\nred/00.png,train,0.5\nred/01.png,test,nan\n")
    done = extract(manifest, tiny_backbone, out)
    assert (done.inferences, done.counts.relabelled) == (0, 2)
    after = rows(out)["red/00.png"]
    assert (after["label"], after["split"], after["x"]) == (None, "train", 0.5)
    assert "age" not in after
    assert extract(manifest, tiny_backbone, out).counts.relabelled == 0
    manifest.write_text("path,split,x\nred/00.png,train,0.5\nred/01.png,test,\nred/02.png,,\n")
    done = extract(manifest, tiny_backbone, out)
    assert (done.inferences, done.counts.relabelled) == (1, 1)
    assert FeatureStore.open(out).manifest.classes == ()


def test_a_store_without_stamps_is_still_read_and_added_to(
    tmp_path: Path, photos: Path, features: Path, tiny_backbone: Path
) -> None:
    """As headstart 0.1.0 wrote it: no `stamp`, no `inferences`."""

    import pyarrow.parquet as pq

    from headstart.data.storage.files import digest

    manifest = manifest_of(features)
    for part in manifest["parts"]:
        file = features / f"{part['name']}.parquet"
        pq.write_table(pq.read_table(file).drop_columns(["stamp"]), file)
        part["rows_sha256"] = digest(file.read_bytes())
        for key in ("inferences", "replaces"):
            del part[key]
    del manifest["inferences"]
    (features / MANIFEST).unlink()
    (features / OLD_MANIFEST).write_text(json.dumps(manifest | {"format_version": 1}))
    paint(photos / "red" / "new.png", (1, 2, 3), 0)
    assert extract(photos, tiny_backbone, features).inferences == 1
    ids_are_once_each(features, all_ids(photos))
    stamps = [row["stamp"] for row in rows(features).values()]
    assert sum(stamp is None for stamp in stamps) == 60


def test_an_update_that_died_in_the_middle_is_resumed(
    photos: Path, features: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part is rewritten and recorded; then the run dies before it embeds."""
    before = rows(features)
    paint(photos / "red" / "03.png", (10, 10, 10), 1)

    class Died(Exception):
        pass

    def die(*arguments: object) -> None:
        raise Died

    monkeypatch.setattr("headstart.extract.working.WorkerPool", die)
    with pytest.raises(Died):
        extract(photos, tiny_backbone, features)
    assert rows(features) == before  # readers see the old store until the new one is complete
    monkeypatch.undo()
    done = extract(photos, tiny_backbone, features)
    assert (done.inferences, done.counts.kept) == (1, 59)
    ids_are_once_each(features, all_ids(photos))
    changed = {id_ for id_, row in rows(features).items() if row != before[id_]}
    assert changed == {"red/03.png"}


def test_two_parts_with_the_same_examples_count_once(
    photos: Path, features: Path, tiny_backbone: Path
) -> None:
    """A worker of a run that was taken for dead may still have written its part."""
    store = FeatureStore.open(features)
    table, empty = store.read(), store.read_errors()
    begin(store.folder, store.fingerprint, str(photos), inferences=60)
    content = PartContent(store.fingerprint, table.slice(50), empty)
    write_part(store.folder, "part-00007-0123456789ab", content, 10)
    done = extract(photos, tiny_backbone, features)
    assert (done.inferences, done.counts.kept, done.rows) == (0, 60, 60)
    ids_are_once_each(features, all_ids(photos))
    assert np.isfinite(embeddings_of(FeatureStore.open(features).read())).all()


def test_a_damaged_part_is_named_with_what_to_do(
    photos: Path, features: Path, tiny_backbone: Path
) -> None:
    part = min(features.glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:300])
    with pytest.raises(StoreError) as caught:
        extract(photos, tiny_backbone, features)
    assert str(caught.value).startswith(f"{part} is damaged: ")
    assert str(caught.value).endswith(
        f"\n  Set it aside with: python -m data verify {features} --repair"
    )


# One fingerprint a store


def precisions(store: Path) -> set[str]:
    """What each part says that it was made in."""
    parts = (pq.read_table(path) for path in store.glob("part-*.parquet"))
    found = (fingerprint_of(part) for part in parts)
    return {made_by.precision if made_by else "none" for made_by in found}


@pytest.fixture
def bf16_store(
    photos: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A finished store in bf16, made by an engine that computes in fp32 and says bf16."""
    pretend_bf16(monkeypatch)
    extract(photos, tiny_backbone, tmp_path / "bf16", ExtractOptions(precision="bf16"))
    return tmp_path / "bf16"


def pretend_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any CPU computes in bf16, as far as these tests need it."""
    monkeypatch.setattr("headstart.extract.job.check_config", lambda config: None)

    class OurJob(EmbeddingJob):
        def worker(self, content: bytes) -> EmbeddingWorker:
            return EmbeddingWorker(replace(self, config=EngineConfig("fp32")), content)

    monkeypatch.setattr("headstart.extract.working.EmbeddingJob", OurJob)


@pytest.mark.usefixtures("local_ray")
def test_a_store_in_bf16_grows_in_bf16(photos: Path, bf16_store: Path, tiny_backbone: Path) -> None:
    assert FeatureStore.open(bf16_store).fingerprint.precision == "bf16"
    for number in range(5):
        paint(photos / "red" / f"new{number}.png", (200, 60, 60), 500 + number)
    done = extract(photos, tiny_backbone, bf16_store)
    assert (done.embedded, done.precision) == (5, "bf16")
    assert FeatureStore.open(bf16_store).fingerprint.precision == "bf16"
    assert precisions(bf16_store) == {"bf16"}


@pytest.mark.usefixtures("local_ray")
def test_a_store_in_bf16_that_is_relabelled_or_pruned_stays_in_bf16(
    photos: Path, bf16_store: Path, tiny_backbone: Path
) -> None:
    (photos / "red" / "03.png").rename(photos / "blue" / "red-03.png")
    extract(photos, tiny_backbone, bf16_store, update=Update(prune=True))
    (photos / "manifest.csv").write_text("path,label\n")
    assert FeatureStore.open(bf16_store).fingerprint.precision == "bf16"
    assert precisions(bf16_store) == {"bf16"}
    assert verify(bf16_store).sound


@pytest.mark.usefixtures("local_ray")
def test_a_run_in_bf16_that_died_goes_on_in_bf16(
    photos: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_bf16(monkeypatch)
    out = tmp_path / "f"

    def die(*arguments: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("headstart.extract.job.finish", die)
        with pytest.raises(ExtractionError):
            extract(photos, tiny_backbone, out, ExtractOptions(precision="bf16"))
    paint(photos / "red" / "new.png", (200, 60, 60), 500)
    assert extract(photos, tiny_backbone, out).precision == "bf16"
    assert precisions(out) == {"bf16"}


def test_a_part_of_another_fingerprint_is_found_and_embedded_again(
    photos: Path, features: Path, tiny_backbone: Path, command: Callable
) -> None:
    """As a headstart that mixed them would have left it, checksums and all."""
    manifest = manifest_of(features)
    part = manifest["parts"][0]
    path = features / f"{part['name']}.parquet"
    rows = pq.read_table(path)
    own = fingerprint_of(rows)
    assert own is not None
    pq.write_table(with_fingerprint(rows, own.run_in("bf16")), path)
    part["rows_sha256"] = digest(path.read_bytes())
    change_manifest(features, manifest)
    found = verify(features)
    assert found.damaged == {
        part["name"]: f"its embeddings were made by {own.run_in('bf16')}, not by {own}"
    }
    assert command("data", "verify", features, "--repair").code == 1
    extract(photos, tiny_backbone, features)
    assert verify(features).sound
    assert precisions(features) == {"fp32"}


# Files that a stamp does not tell apart


def same_stamp(path: Path, like: Path) -> None:
    """Give a file the size and the time of another one."""
    content = path.read_bytes()
    size = max(len(content), len(like.read_bytes()))
    for each in (path, like):
        each.write_bytes(each.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(10**18, 10**18))
    os.utime(like, ns=(10**18, 10**18))


def test_an_id_that_names_another_file_of_the_same_stamp_is_embedded_again(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    same_stamp(photos / "red" / "00.png", photos / "blue" / "00.png")
    manifest, out = photos / "m.csv", tmp_path / "f"
    manifest.write_text("id,path,label\na,red/00.png,x\nb,red/01.png,x\n")
    extract(manifest, tiny_backbone, out)
    before = rows(out)
    manifest.write_text("id,path,label\na,blue/00.png,x\nb,red/01.png,x\n")
    done = extract(manifest, tiny_backbone, out)
    assert (done.embedded, done.counts.changed, done.counts.kept) == (1, 1, 1)
    after = rows(out)
    assert after["a"]["content"] == digest((photos / "blue" / "00.png").read_bytes())
    assert after["a"]["embedding"] != before["a"]["embedding"]
    assert after["b"] == before["b"]


def test_an_id_that_names_another_file_of_the_same_bytes_is_not(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    shutil.copy2(photos / "red" / "00.png", photos / "red" / "copy.png")
    manifest, out = photos / "m.csv", tmp_path / "f"
    manifest.write_text("id,path,label\na,red/00.png,x\nb,red/01.png,x\n")
    extract(manifest, tiny_backbone, out)
    manifest.write_text("id,path,label\na,red/copy.png,x\nb,red/01.png,x\n")
    done = extract(manifest, tiny_backbone, out)
    assert (done.inferences, done.counts.relabelled) == (0, 1)
    assert rows(out)["a"]["path"] == "red/copy.png"


def test_a_failed_id_that_names_another_file_of_the_same_stamp_is_tried_again(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    (photos / "bad.png").write_bytes(b"not a picture")
    same_stamp(photos / "bad.png", photos / "red" / "00.png")
    manifest, out = photos / "m.csv", tmp_path / "f"
    manifest.write_text("id,path,label\na,bad.png,x\nb,red/01.png,x\n")
    assert extract(manifest, tiny_backbone, out).failed == 1
    manifest.write_text("id,path,label\na,red/00.png,x\nb,red/01.png,x\n")
    done = extract(manifest, tiny_backbone, out)
    assert (done.embedded, done.errors) == (1, {})


def test_rehash_finds_a_file_that_was_replaced_under_its_stamp(
    photos: Path, tiny_backbone: Path, tmp_path: Path, command: Callable, local_ray: None
) -> None:
    one, other, out = photos / "red" / "00.png", photos / "blue" / "00.png", tmp_path / "f"
    same_stamp(one, other)
    extract(photos, tiny_backbone, out)
    one.write_bytes(other.read_bytes())
    os.utime(one, ns=(10**18, 10**18))
    assert extract(photos, tiny_backbone, out).inferences == 0  # what a stamp cannot see
    answer = command("extract", photos, "--backbone", tiny_backbone, "-o", out, "--rehash")
    assert "1 had changed" in answer.out
    assert rows(out)["red/00.png"]["content"] == digest(other.read_bytes())
    again = command("extract", photos, "--backbone", tiny_backbone, "-o", out, "--rehash")
    assert again.out == f"nothing to do: all 60 examples are in {out}\n"
