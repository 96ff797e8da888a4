"""Sources, stores and backbones in object storage; the network fails in the middle."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from conftest import paint
from servers import Wire, gcs_server, make_bucket, s3_server, wait_until

import headstart.data.storage.lock
import headstart.data.storage.remote
from headstart.data.common.errors import ExtractionError, InputError, StorageError, StoreError
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import begin, begin_part, finish, sweep
from headstart.data.contracts.store import FeatureStore, StoreManifest
from headstart.data.storage.local import LocalFolder
from headstart.data.storage.lock import sole_writer
from headstart.data.storage.places import folder_at
from headstart.data.storage.remote import RemoteFolder
from headstart.data.verification import verify
from headstart.extract.job import extract
from headstart.extract.options import ExtractOptions
from headstart.extract.planning.plan import Update


@pytest.fixture(scope="module")
def s3_port() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture
def wire(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """S3 with an empty bucket, behind a connection that can be cut."""
    make_bucket(s3_port)
    wire = Wire(s3_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{wire.port}")
    yield wire
    wire.close()


@pytest.fixture
def bucket(wire: Wire, photos: Path, tiny_backbone: Path) -> str:
    """A bucket with photographs and a backbone."""
    folder = folder_at("s3://bucket")
    for path in photos.rglob("*.png"):
        folder.write(f"photos/{path.relative_to(photos).as_posix()}", path.read_bytes())
    folder.write("tiny.onnx", tiny_backbone.read_bytes())
    return "s3://bucket"


NOTHING = StoreManifest(
    fingerprint=Fingerprint("tiny", "0", "8x8", "fp32", 12),
    source="s",
    root="r",
    classes=(),
    parts=(),
)


def ids(store: str | Path) -> list[str]:
    return sorted(FeatureStore.open(store).read(["id"])["id"].to_pylist())


def test_everything_in_object_storage(
    bucket: str,
    photos: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    local_ray: None,
    command: Callable,
) -> None:
    arguments = ("extract", f"{bucket}/photos", "--backbone", f"{bucket}/tiny.onnx")
    # Only the same engine gives embeddings that are equal bit by bit.
    arguments += ("-o", f"{bucket}/deep/store", "--engine", "onnxruntime")
    answer = command(*arguments)
    assert answer.code == 0, answer.err
    assert f"wrote     {bucket}/deep/store\n" in answer.out
    one_engine = ExtractOptions(engine="onnxruntime")
    here = extract(photos, tiny_backbone, tmp_path / "here", one_engine)
    assert here.rows == 60
    there = FeatureStore.open(f"{bucket}/deep/store").read().drop_columns(["stamp"])
    local = FeatureStore.open(tmp_path / "here").read().drop_columns(["stamp"])
    assert there.sort_by("id").equals(local.sort_by("id"))
    names = folder_at(f"{bucket}/deep").names()
    assert {name[:10] for name in names} == {"store/_hea", "store/part"}
    assert command(*arguments).out == (
        f"nothing to do: all 60 examples are in {bucket}/deep/store\n"
    )
    assert command("data", "verify", f"{bucket}/deep/store").code == 0
    assert "examples    60" in command("data", "inspect", f"{bucket}/photos").out
    training = ("classify", "train", f"{bucket}/deep/store", "--no-report")
    trained = command(*training, "-o", tmp_path / "model")
    assert trained.code == 0, trained.err
    edge = ("export", "classifier", tmp_path / "model", "--backbone", f"{bucket}/tiny.onnx")
    exported = command(*edge, "-o", tmp_path / "edge.onnx")
    assert exported.code == 0, exported.err


def test_a_store_in_object_storage_follows_its_source(bucket: str, local_ray: None) -> None:
    folder = folder_at(f"{bucket}/photos")
    source, backbone, out = f"{bucket}/photos", f"{bucket}/tiny.onnx", f"{bucket}/f"
    extract(source, backbone, out)
    folder.write("red/00.png", folder.read("blue/00.png") + b"\0")
    folder.write("red/new.png", folder.read("red/01.png"))
    folder.remove("green/07.png")
    done = extract(source, backbone, out, update=Update(prune=True))
    assert (done.inferences, done.counts.changed, done.pruned) == (2, 1, 1)
    assert ids(out) == sorted(folder.names())
    assert verify(out).sound
    store = FeatureStore.open(out)
    begin(store.folder, store.fingerprint, source)  # a run that died at once
    begin_part(store.folder, "part-00090-0123456789ab", 16)
    assert {name.partition("/")[0] for name in store.folder.names() if name[0] == "_"} == {
        *("_headstart.parquet", "_records", "_replaced")
    }
    options = {"aws_endpoint_url": os.environ["AWS_ENDPOINT_URL_S3"], "aws_allow_http": "true"}
    read = pl.read_parquet(f"{out}/", storage_options=options)
    assert sorted(read["id"]) == ids(out)


def test_a_manifest_in_object_storage(bucket: str, local_ray: None) -> None:
    folder = folder_at(bucket)
    text = "path,label\nphotos/red/00.png,a\nphotos/no.png,a\nphotos/red/01.png,b\n"
    folder.write("m.csv", text.encode())
    done = extract(f"{bucket}/m.csv", f"{bucket}/tiny.onnx", f"{bucket}/f")
    assert (done.embedded, done.errors) == (2, {"read/missing": 1})
    folder.write("photos/red/00.png", folder.read("photos/blue/00.png") + b"\0")
    assert extract(f"{bucket}/m.csv", f"{bucket}/tiny.onnx", f"{bucket}/f").inferences == 1


def many(bucket: str, photos: Path) -> int:
    folder = folder_at(f"{bucket}/photos")
    content = (photos / "red" / "00.png").read_bytes()
    for number in range(120):
        folder.write(f"red/more{number}.png", content)
    return 180


def test_a_temporary_network_failure_costs_only_time(
    wire: Wire, bucket: str, photos: Path, local_ray: None
) -> None:
    total = many(bucket, photos)
    before, cuts = wire.requests, []

    def cut_three_times() -> None:
        for number in range(3):
            wait_until(lambda number=number: wire.requests > before + 75 * (number + 1))
            wire.cut()
            cuts.append(wire.requests)
            threading.Event().wait(1.0)
            wire.restore()

    cutter = threading.Thread(target=cut_three_times)
    cutter.start()
    done = extract(f"{bucket}/photos", f"{bucket}/tiny.onnx", f"{bucket}/f")
    cutter.join()
    assert len(cuts) == 3
    assert (done.rows, done.errors, done.inferences) == (total, {}, total)
    assert verify(f"{bucket}/f").sound


def test_a_lasting_network_failure_is_reported_and_nothing_is_lost(
    wire: Wire, bucket: str, photos: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = many(bucket, photos)
    monkeypatch.setattr("headstart.data.storage.remote.PATIENCE", 1.0)
    before = wire.requests

    def cut() -> None:
        wait_until(lambda: wire.requests > before + 150)
        wire.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises((ExtractionError, StorageError)) as caught:
        extract(f"{bucket}/photos", f"{bucket}/tiny.onnx", f"{bucket}/f")
    cutter.join()
    assert "s3://bucket/" in str(caught.value)
    assert "cannot be reached: When " in str(caught.value)
    assert "AWS Error NETWORK_CONNECTION" in str(caught.value)
    assert "same command again" in str(caught.value)
    wire.restore()
    monkeypatch.setattr(
        "headstart.data.storage.lock.SILENCE", 0.1
    )  # the lock that the dead run left
    done = extract(f"{bucket}/photos", f"{bucket}/tiny.onnx", f"{bucket}/f")
    assert (done.rows, done.errors) == (total, {})
    assert total <= done.all_inferences <= total + 2 * 64
    assert verify(f"{bucket}/f").sound


def test_unreachable_storage_is_reported_before_any_work(
    wire: Wire, tiny_backbone: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.data.storage.remote.PATIENCE", 0.5)
    wire.cut()
    answer = command("extract", "s3://bucket/x", "--backbone", tiny_backbone, "-o", "s3://bucket/f")
    assert answer.code == 1
    assert "error: s3://bucket cannot be reached: When " in answer.err
    assert answer.err.endswith(
        "  Check network, address and credentials, then run the same command again: "
        "it continues where it stopped.\n"
    )


def test_a_second_writer_is_refused_and_a_dead_lock_is_taken_over(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headstart.data.storage.lock, "HEARTBEAT", 0.1)
    monkeypatch.setattr(headstart.data.storage.lock, "SILENCE", 0.8)
    folder = folder_at(f"{bucket}/f")
    with sole_writer(folder):
        with pytest.raises(StoreError) as caught, sole_writer(folder):
            pass
        assert str(caught.value) == (
            f"another run (process {os.getpid()} on {socket.gethostname()}) is writing to "
            f"{bucket}/f\n  Wait until it has ended, or choose another folder with -o."
        )
    assert folder.names() == []
    folder.write("_lock", json.dumps({"pid": 1, "host": "gone", "token": "x", "count": 3}).encode())
    with sole_writer(folder):
        assert folder.names() == ["_lock"]
    assert folder.names() == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (
            "ftp://host/x",
            "ftp://host/x: storage of kind ftp:// is not supported\n"
            "  Use s3://, gs://, file:// or a local path.",
        ),
        ("s3:///x", "s3:///x has no bucket\n  Write s3://BUCKET/FOLDER."),
        (
            "s3://key:secret@bucket/x",
            "s3://...@bucket: an address must not contain credentials, since it is written into "
            "the feature store\n  Set the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "instead.",
        ),
    ],
)
def test_invalid_addresses(address: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        folder_at(address)
    assert str(caught.value) == words


def test_a_file_address_is_a_local_path(tmp_path: Path) -> None:
    folder = folder_at(f"file://{tmp_path}/a%20b/")
    assert folder == LocalFolder(str(tmp_path / "a b"))


def test_a_forbidden_object_is_not_a_network_failure() -> None:
    def refuse() -> None:
        raise OSError("When reading key 'x': AWS Error ACCESS_DENIED during HeadObject operation")

    folder = RemoteFolder("s3://bucket/x")
    with pytest.raises(PermissionError):
        folder.attempt(refuse)


@pytest.mark.parametrize("kind", ["local", "s3", "gs"])
def test_the_methods_of_a_folder(
    kind: str, tmp_path: Path, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gcs_server() as gcs_port:
        make_bucket(s3_port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_port}")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{gcs_port}")
        place = tmp_path / "deep" if kind == "local" else f"{kind}://bucket/deep"
        folder = folder_at(place)
        assert (folder.exists(), folder.names(), folder.stamps(["x"])) == (False, [], [None])
        folder.write("a b/ü#1?.txt", b"hello")
        folder.write("c.txt", b"x")
        folder.write(".hidden/d.txt", b"x")
        folder.write("empty", b"")
        assert folder.names() == ["a b/ü#1?.txt", "c.txt", "empty"]
        assert folder.names("a b") == ["a b/ü#1?.txt"]
        assert [folder.exists(name) for name in ("", "a b", "c.txt", "no")] == [True] * 3 + [False]
        assert [folder.is_file(name) for name in ("a b", "c.txt", "no")] == [False, True, False]
        content, stamp = folder.read_stamped("a b/ü#1?.txt")
        assert (content, [stamp]) == (b"hello", folder.stamps(["a b/ü#1?.txt"]))
        assert dict(folder.files())["a b/ü#1?.txt"] == stamp
        assert folder.read("empty") == b""
        if kind != "gs":  # the tests' server cannot send a part of an object
            with folder.open("a b/ü#1?.txt") as file:
                assert file.read_at(3, 1) == b"ell"
        with pytest.raises(FileNotFoundError):
            folder.read("no")
        folder.write("c.txt", b"other")
        assert folder.read("c.txt") == b"other"
        folder.remove("c.txt")
        folder.remove("c.txt")
        folder.remove_all("a b")
        folder.remove_all("a b")
        assert (folder.names(), folder.exists("a b")) == (["empty"], False)


def test_a_photograph_that_grows_on_a_local_disk_has_another_stamp(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", (1, 2, 3), 0)
    folder = folder_at(tmp_path)
    (before,) = folder.stamps(["a.png"])
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes() + b"\0")
    assert folder.stamps(["a.png"]) != [before]


def test_silence_is_longer_than_the_patience_of_a_living_writer() -> None:
    lock, remote = headstart.data.storage.lock, headstart.data.storage.remote
    assert lock.SILENCE > remote.PATIENCE + 2 * lock.HEARTBEAT


def test_a_writer_whose_lock_is_taken_over_writes_no_more(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat does not take the lock back, and it neither finishes nor sweeps."""
    lock = headstart.data.storage.lock
    monkeypatch.setattr(lock, "HEARTBEAT", 0.1)
    monkeypatch.setattr(lock, "SETTLE", 0.1)
    folder = folder_at(f"{bucket}/f")
    part = "part-00001-0123456789ab.parquet"
    other = json.dumps({"token": "x", "pid": 1, "host": "other", "count": 1}).encode()
    with sole_writer(folder) as held:
        held()
        folder.write(part, b"of the other one")
        for _ in range(5):  # a beat under way may come after it: who takes over looks again
            folder.write("_lock", other)
            time.sleep(0.5)
            if folder.read("_lock") == other:
                break
        time.sleep(0.5)
        assert folder.read("_lock") == other
        for work in (lambda: sweep(folder, (), held), lambda: finish(folder, NOTHING, held)):
            with pytest.raises(StoreError) as caught:
                work()
            assert str(caught.value) == (
                f"{bucket}/f/_lock was removed or replaced (process 1 on other) while this "
                "extraction ran\n  What is done is kept. Run the same command again when no other "
                "extraction writes there."
            )
    assert folder.names() == ["_lock", part]


def test_a_lock_that_is_removed_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_at(tmp_path / "f")
    with sole_writer(folder) as held:
        folder.remove("_lock")
        with pytest.raises(StoreError, match="is writing to"), sole_writer(folder):
            pass
        held()  # the folder is still locked
        (tmp_path / "f").rename(tmp_path / "g")
        with pytest.raises(StoreError, match="was removed or replaced while"):
            held()
    monkeypatch.setattr(headstart.data.storage.lock, "_lock_folder", lambda place, stack: None)
    (tmp_path / "f").mkdir()
    with sole_writer(folder) as held:  # such as on NFS
        held()
        folder.remove("_lock")
        with sole_writer(folder) as other:
            other()
            with pytest.raises(StoreError, match="was removed or replaced while"):
                held()
        assert not (tmp_path / "f" / "_lock").exists()
