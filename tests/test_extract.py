"""Every example of the source is one row of features or one row of errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
from conftest import paint, write_tiny_backbone
from manifests import manifest_of

from headstart.data.common.errors import ExtractionError, InputError, StoreError
from headstart.data.contracts.backbone import load_backbone
from headstart.data.contracts.records import begin
from headstart.data.contracts.store import FeatureStore, embeddings_of, part_schema, read_part
from headstart.data.modalities.image.preprocessing import decode
from headstart.data.storage.files import digest
from headstart.data.storage.lock import sole_writer
from headstart.data.storage.places import folder_at
from headstart.extract.engines.race import FastestEngine
from headstart.extract.job import extract
from headstart.extract.options import ExtractOptions
from headstart.extract.planning.plan import LARGEST_SHARD, SMALLEST_SHARD, Shard, plan
from headstart.extract.worker import EmbeddingJob, EmbeddingWorker

pytestmark = pytest.mark.usefixtures("two_workers")


def test_embeddings_are_those_of_the_backbone(
    features: Path, photos: Path, tiny_backbone: Path
) -> None:
    backbone = load_backbone(tiny_backbone)
    session = onnxruntime.InferenceSession(backbone.content)
    table = FeatureStore.open(features).read()
    assert table.num_rows == 60
    got = dict(zip(table["id"].to_pylist(), embeddings_of(table), strict=True))
    for id_, content in zip(table["id"].to_pylist(), table["content"].to_pylist(), strict=True):
        file = (photos / id_).read_bytes()
        assert content == digest(file)
        image = decode(file, backbone.spec.preprocessing)[np.newaxis]
        (expected,) = session.run(None, {"image": image})
        assert np.allclose(got[id_], expected[0], rtol=1e-5)


def test_a_store_holds_what_the_contract_says(features: Path, photos: Path) -> None:
    schema = pq.read_schema(next(features.glob("part-*.parquet")))
    assert schema.names == [
        "id",
        "path",
        "content",
        "stamp",
        "label",
        "split",
        "group",
        "embedding",
    ]
    assert str(schema.field("embedding").type) == "fixed_size_list<element: float not null>[12]"
    manifest = manifest_of(features)
    assert manifest["format_version"] == 2
    assert manifest["classes"] == ["blue", "green", "red"]
    assert manifest["root"] == str(photos)
    for part in manifest["parts"]:
        content = (features / f"{part['name']}.parquet").read_bytes()
        assert part["rows_sha256"] == digest(content)
    assert {path.name[:5] for path in features.iterdir()} == {"_head", "part-"}


def break_some(photos: Path) -> dict[str, tuple[str, str]]:
    """Break some photographs in different ways; stage and reason by id."""
    red = photos / "red"
    (red / "00.png").write_bytes(b"")
    (red / "01.png").write_bytes(b"I am a text")
    (red / "02.png").write_bytes((red / "03.png").read_bytes()[:500])
    (red / "pipe.png").unlink(missing_ok=True)
    os.mkfifo(red / "pipe.png")
    (red / "gone.png").symlink_to("nowhere.png")
    return {
        "red/00.png": ("decode", "empty"),
        "red/01.png": ("decode", "not_an_image"),
        "red/02.png": ("decode", "truncated"),
        "red/pipe.png": ("read", "unreadable"),
        "red/gone.png": ("read", "missing"),
    }


def test_broken_photographs_are_rows_of_errors_and_their_neighbours_survive(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None, command: Callable
) -> None:
    expected = break_some(photos)
    out = tmp_path / "features"
    answer = command("extract", photos, "--backbone", tiny_backbone, "-o", out)
    assert answer.code == 3
    assert answer.err.endswith(
        "error: 8.1% of the examples failed, more than --max-bad 5.0%\n"
        f"  Show the reasons with: python -m data errors {out}\n"
    )
    assert "1 failed with decode/empty" in answer.err
    store = FeatureStore.open(out)
    rows, errors = store.read(), store.read_errors()
    assert {e["id"]: (e["stage"], e["reason"]) for e in errors.to_pylist()} == expected
    ids = rows["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 57
    assert not set(ids) & set(expected)
    assert set(expected) | set(ids) == {
        p.relative_to(photos).as_posix() for p in photos.rglob("*.png")
    }
    again = command("extract", photos, "--backbone", tiny_backbone, "-o", out, "--max-bad", "0.1")
    assert again.code == 0
    assert again.out == f"nothing to do: all 62 examples are in {out}\n"


def test_a_network_that_gives_nan_is_an_error_of_the_example(
    photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    class Nan:
        name = "nan"

        def embed(self, images: np.ndarray) -> np.ndarray:
            embeddings = np.ones((len(images), 12), np.float32)
            embeddings[0] = np.nan
            return embeddings

    backbone = load_backbone(tiny_backbone)
    from headstart.data.examples.opening import open_source

    source, store = open_source(photos), folder_at(tmp_path / "f")
    job = EmbeddingJob(
        root=source.folder,
        spec=backbone.spec.preprocessing,
        backbone=backbone.spec,
        store=store,
        fingerprint=backbone.fingerprint,
    )
    worker = EmbeddingWorker(job, backbone.content)
    worker.engine = FastestEngine([Nan()], 16)
    shard = Shard(0, source.examples)
    record = worker.work(shard).record
    assert (record.rows, record.errors) == (56, 4)
    errors = read_part(store, record.errors_file or "")
    assert set(errors["reason"].to_pylist()) == {"not_finite"}


def test_running_again_does_nothing_and_adding_photographs_embeds_only_those(
    photos: Path, features: Path, tiny_backbone: Path
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in features.iterdir()}
    again = extract(photos, tiny_backbone, features)
    assert (again.inferences, again.counts.kept, again.examples) == (0, 60, 60)
    assert {path.name: path.stat().st_mtime_ns for path in features.iterdir()} == before
    for number in range(3):
        paint(photos / "red" / f"new{number}.png", (200, 60, 60), number)
    more = extract(photos, tiny_backbone, features)
    assert (more.inferences, more.counts.kept, more.rows) == (3, 60, 63)
    assert more.all_inferences == FeatureStore.open(features).manifest.inferences == 63
    assert FeatureStore.open(features).read().num_rows == 63


def test_another_source_is_not_mixed_into_a_store(
    photos: Path, features: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    with pytest.raises(StoreError) as caught:
        extract(other, tiny_backbone, features)
    assert str(caught.value) == (
        f"{features} holds features of another source:\n"
        f"  in the store: {photos}\n  asked for:    {other}\n"
        "  Extract into another folder with -o. If the source has moved, add: --moved-from "
        f"{photos}"
    )


def test_a_second_writer_is_refused(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    out = tmp_path / "f"
    with sole_writer(folder_at(out), part_schema(12, [])):
        with pytest.raises(StoreError) as caught:
            extract(photos, tiny_backbone, out)
        assert str(caught.value) == (
            f"another run (process {os.getpid()} on {socket.gethostname()}) is writing to "
            f"{out}\n"
            "  Wait until it has ended, or choose another folder with -o."
        )
    assert extract(photos, tiny_backbone, out).embedded == 60
    assert not list(out.glob("_lock*"))


def test_ctrl_c_keeps_what_is_done_and_reports_it(tmp_path: Path, photos: Path) -> None:
    write_tiny_backbone(tmp_path / "b.onnx", size=256, dim=64)
    for number in range(600):
        paint(photos / "red" / f"more{number}.png", (200, 60, 60), number)
    out = tmp_path / "f"
    arguments = ["-m", "extract", photos, "--backbone", tmp_path / "b.onnx", "-o", out]
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        # Shells let background processes ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("_records/part-*.parquet")):
        assert time.monotonic() < deadline, "no part was recorded"
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.endswith(
        "error: stopped; the parts that are done are kept\n"
        "  Run the same command again to continue.\n"
    )


def test_an_output_below_a_file_is_refused_before_any_work(
    photos: Path, tiny_backbone: Path, command: Callable
) -> None:
    answer = command("extract", photos, "--backbone", tiny_backbone, "-o", tiny_backbone / "f")
    assert (answer.code, answer.err) == (
        2,
        f"error: {tiny_backbone / 'f'} cannot be written: {tiny_backbone} is a file\n"
        "  Choose another place.\n",
    )


def test_examples_that_vanished_are_kept_and_reported(
    photos: Path, features: Path, tiny_backbone: Path, command: Callable
) -> None:
    (photos / "red" / "00.png").rename(photos / "blue" / "moved.png")
    answer = command("extract", photos, "--backbone", tiny_backbone, "-o", features)
    assert answer.out.startswith("before    59 of 60 were done\nembedded  1 example,")
    assert answer.err.endswith(
        f"1 of the examples in {features} are no longer in the source; they are kept: --prune "
        "drops them\n"
    )


def test_a_killed_job_continues_where_it_stopped(tmp_path: Path, photos: Path) -> None:
    """SIGKILL in the middle of the embedding; the driver is a process with a Ray of its own."""
    for number in range(300):
        paint(photos / "red" / f"more{number}.png", (200, 60, 60), number)
    write_tiny_backbone(tmp_path / "b.onnx", size=256, dim=64)
    out = tmp_path / "features"
    arguments = [
        sys.executable,
        "-m",
        "extract",
        photos,
        "--backbone",
        tmp_path / "b.onnx",
        "-o",
        out,
    ]
    process = subprocess.Popen([*map(str, arguments)], start_new_session=True)
    records = out / "_records"
    deadline = time.monotonic() + 120
    while not list(records.glob("part-*.parquet")) and process.poll() is None:
        assert time.monotonic() < deadline, "no part was recorded"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (out / "part-00099-0123456789ab.parquet").write_bytes(b"half of a part")
    (out / "_tmp-1-part-00098-0123456789ab.parquet").write_bytes(b"not even that")
    recorded = len(list(records.glob("part-*.parquet")))
    answer = subprocess.run(
        [*map(str, arguments), "--json"], capture_output=True, text=True, check=True
    )
    summary = json.loads(answer.stdout)
    assert summary["counts"]["kept"] >= SMALLEST_SHARD * min(recorded, 1)
    assert summary["embedded"] + summary["counts"]["kept"] == 360
    ids = FeatureStore.open(out).read()["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 360
    assert sorted(path.name[:5] for path in out.iterdir() if path.name[:5] != "part-") == ["_head"]
    assert len(list(out.glob("part-*"))) == len(FeatureStore.open(out).manifest.parts)


def test_shards_cut_the_work_for_every_worker(
    photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    from headstart.data.examples.opening import open_source

    for number in range(1200):
        (photos / "red" / f"more{number:04d}.png").touch()
    source = open_source(photos)
    todo = plan(source, folder_at(tmp_path / "f"), load_backbone(tiny_backbone).fingerprint)
    for workers, batch in ((1, 16), (2, 16), (64, 16), (2, 5), (2, 24), (1, 3000)):
        shards = todo.shards(workers, batch)
        sizes = [shard.examples.num_rows for shard in shards]
        assert sum(sizes) == len(source)
        assert SMALLEST_SHARD <= max(sizes) <= max(LARGEST_SHARD, batch)
        assert not any(size % batch for size in sizes[:-1])  # full ones
        assert len({shard.number for shard in shards}) == len(shards)
        assert shards == todo.shards(workers, batch)


def test_features_of_another_backbone_are_refused(
    photos: Path, features: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    other = write_tiny_backbone(tmp_path / "other.onnx", seed=1)
    with pytest.raises(StoreError) as caught:
        extract(photos, tmp_path / "other.onnx", features)
    assert str(caught.value) == (
        f"{features} holds features of another backbone:\n"
        f"  in the store: {load_backbone(tiny_backbone).fingerprint}\n"
        f"  asked for:    {other.fingerprint}\n"
        "  Extract into another folder with -o, or use the backbone of the store."
    )


@pytest.mark.parametrize("name", ["notes.txt", "part-00000-0123456789ab.parquet"])
def test_a_folder_in_use_is_left_alone(
    photos: Path, tiny_backbone: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(StoreError) as caught:
        extract(photos, tiny_backbone, out)
    assert str(caught.value) == (
        f"{out} is in use by something else (it holds {name})\n"
        "  Choose an empty or new folder with -o."
    )
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "mine")]


def test_all_mistakes_are_reported_at_once_and_nothing_is_written(
    tmp_path: Path, command: Callable
) -> None:
    answer = command("extract", tmp_path / "no", "--backbone", tmp_path / "b", "-o", "ftp://x/y")
    assert answer.code == 2
    assert answer.err == (
        f"error: 1. {tmp_path / 'b'}: no such backbone file\n"
        "  Export one with: python -m export backbone NAME -o backbone.onnx\n"
        f"2. {tmp_path / 'no'}: no such folder or manifest\n  Check the path.\n"
        "3. ftp://x/y: storage of kind ftp:// is not supported\n"
        "  Use s3://, gs://, file:// or a local path.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_more_workers_than_cpus_are_refused_before_anything_hangs(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    with pytest.raises(InputError) as caught:
        extract(photos, tiny_backbone, tmp_path / "f", ExtractOptions(workers=3))
    assert str(caught.value) == (
        "3 workers need as many CPUs, but the cluster has 2\n  Ask for --workers 2 or fewer."
    )


def test_a_busy_cluster_is_reported_and_not_waited_for(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    import ray

    @ray.remote(num_cpus=2)
    class Blocker:
        def up(self) -> bool:
            return True

    blocker = Blocker.remote()  # type: ignore[attr-defined]
    assert ray.get(blocker.up.remote())
    with pytest.raises(ExtractionError) as caught:
        extract(photos, tiny_backbone, tmp_path / "f")
    assert str(caught.value) == (
        "1 of the cluster's 2 CPUs are needed, but only 0 are free\n"
        "  Wait for the other work to end, or ask for fewer with --workers."
    )
    ray.kill(blocker)
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert extract(photos, tiny_backbone, tmp_path / "f").embedded == 60


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--workers 0 is not possible"):
        ExtractOptions(workers=0)
    with pytest.raises(InputError, match="--batch-size -1 is not possible"):
        ExtractOptions(batch_size=-1)


def test_a_manifest_carries_its_columns_along(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    manifest = photos / "m.csv"
    manifest.write_text(
        "path,label,id,split,group,age\nred/00.png,warm,a,train,g,3\nblue/00.png,cold,b,test,h,\n"
    )
    extract(manifest, tiny_backbone, tmp_path / "f")
    rows = (
        FeatureStore.open(tmp_path / "f")
        .read()
        .drop_columns(["embedding", "content", "stamp"])
        .to_pylist()
    )
    assert rows == [
        {
            "id": "a",
            "path": "red/00.png",
            "label": "warm",
            "split": "train",
            "group": "g",
            "age": 3,
        },
        {
            "id": "b",
            "path": "blue/00.png",
            "label": "cold",
            "split": "test",
            "group": "h",
            "age": None,
        },
    ]


def test_no_cluster_answers(photos: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    """In a process of its own: a running Ray would be used for any address."""
    arguments = [
        photos,
        "--backbone",
        tiny_backbone,
        "-o",
        tmp_path / "f",
        "--address",
        "127.0.0.1:9",
    ]
    answer = subprocess.run(
        [sys.executable, "-m", "extract", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2, answer.stderr
    assert "error: no Ray cluster answers at 127.0.0.1:9" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_shard_that_fails_stops_the_job_with_a_message_and_can_be_resumed(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    """A folder has the name of the part's file: like a full disk, it is not retried forever."""

    out = tmp_path / "f"
    begin(folder_at(out), load_backbone(tiny_backbone).fingerprint, str(photos))
    (out / "_errors").write_text("in the way")
    (photos / "red" / "00.png").write_bytes(b"broken")
    with pytest.raises(ExtractionError) as caught:
        extract(photos, tiny_backbone, out)
    words = str(caught.value)
    part = re.escape(f"{out}/_errors/") + r"part-00002-[0-9a-f]{12}\.parquet"
    assert re.match(rf"{part} cannot be written: File exists\n", words), words
    assert words.endswith("  What is done is kept. Run the same command again to continue.")
    (out / "_errors").unlink()
    again = extract(photos, tiny_backbone, out)
    assert (again.embedded + again.counts.kept, again.rows) == (59, 59)


def test_a_new_user_needs_no_setting_of_ray(
    photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    """With a fresh home and without the tests' variables, a token is created and used."""
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("RAY_")}
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "extract", str(photos), "--backbone", str(tiny_backbone)),
            *("-o", str(tmp_path / "f"), "--address", "local"),
        ],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / ".ray" / "auth_token").exists()
