"""Sources as other people and programs make them: nothing of them gets lost or another label."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import paint
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data.common.errors import HeadstartError, ManyInputErrors, SourceError
from headstart.data.contracts.store import FeatureStore
from headstart.data.examples.foreign import as_utf8, storable
from headstart.data.examples.layout import labels_and_splits
from headstart.data.examples.opening import open_source
from headstart.data.examples.reading import Reader
from headstart.data.modalities.image.decoding import MOST_COMMENTS, MOST_SCANS, open_image
from headstart.data.modalities.modality import DecodeError
from headstart.data.storage.places import folder_at
from headstart.extract.job import extract
from headstart.extract.planning.plan import Update


def labels(path: Path) -> dict[str, tuple[str | None, str | None]]:
    """Label and split by the last part of the id."""
    rows = open_source(path, allow_unlabelled=True).examples.to_pylist()
    return {row["id"].rpartition("/")[2]: (row["label"], row["split"]) for row in rows}


def words(path: Path) -> str:
    with pytest.raises(HeadstartError) as caught:
        open_source(path)
    return str(caught.value)


def write_tar(path: Path, members: dict[str, bytes | tuple[bytes, str]], **options: object) -> Path:
    """An archive; a pair is a link: its kind, and what it leads to."""
    with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


# Splits, and folders around them


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("training", "testing"), ("train", "test")),
        (("train", "valid", "test"), ("train", "validation", "test")),
        (("Train", "dev"), ("train", "validation")),
    ],
)
def test_usual_names_of_splits(
    tmp_path: Path, folders: Sequence[str], expected: Sequence[str]
) -> None:
    for folder in folders:
        paint(tmp_path / folder / "cat" / f"{folder}.png", (1, 2, 3), 0)
    assert labels(tmp_path) == {
        f"{folder}.png": ("cat", split) for folder, split in zip(folders, expected, strict=True)
    }


def test_classes_that_are_called_as_splits_may_be(tmp_path: Path) -> None:
    """Valid and invalid coins are classes; a folder test beside classes is asked about."""
    for name in ("valid", "invalid"):
        paint(tmp_path / "coins" / name / f"{name}.png", (1, 2, 3), 0)
        paint(tmp_path / "mixed" / name / f"{name}.png", (1, 2, 3), 0)
    assert labels(tmp_path / "coins") == {
        "valid.png": ("valid", None),
        "invalid.png": ("invalid", None),
    }
    paint(tmp_path / "mixed" / "test" / "a.png", (1, 2, 3), 0)
    assert "mixes folders of splits (test, valid) with folders of classes (invalid)" in words(
        tmp_path / "mixed"
    )


@pytest.mark.parametrize("split", ["", "train/"])
def test_the_same_photographs_have_the_same_labels_however_they_come(
    tmp_path: Path, split: str
) -> None:
    """As a folder, one level deeper, and in archives that tar makes of them."""
    folder = tmp_path / "photos"
    for name in ("cat", "dog"):
        paint(folder / split / name / f"{name}.png", (1, 2, 3), 0)
    if split:
        paint(folder / "test" / "cat" / "other.png", (1, 2, 3), 1)
    expected = labels(folder)
    assert expected["cat.png"] == ("cat", "train" if split else None)
    deeper = tmp_path / "deeper" / "set"
    shutil.copytree(folder, deeper / "photos")
    for archive, root in (("dot.tar", "."), ("top.tar", "photos"), ("bare.tar", "")):
        with tarfile.open(tmp_path / archive, "w") as tar:
            for path in [folder] if root else sorted(folder.iterdir()):
                tar.add(path, root or path.name)
        assert labels(tmp_path / archive) == expected, archive
    assert labels(deeper) == labels(tmp_path / "deeper") == expected


NAMES = st.lists(
    st.lists(st.sampled_from(["a", "b", "train", "test", "valid"]), max_size=4).map("/".join),
    min_size=1,
    max_size=8,
)


@given(NAMES)
def test_a_folder_around_everything_changes_no_label(folders: list[str]) -> None:
    """If there are several folders in it; any layout has an answer or a sentence."""
    names = [f"{folder}/{row}.png".lstrip("/") for row, folder in enumerate(folders)]
    try:
        found = labels_and_splits("photos", names)
    except SourceError as error:
        assert "mixes folders of splits" in str(error)
        return
    assert all(len(each) == len(names) for each in found)
    first = {name.split("/")[0] for name in names if "/" in name}
    if len(first) > 1 and all("/" in name for name in names):
        assert labels_and_splits("photos", [f"around/{name}" for name in names]) == found


# Archives


def test_links_in_an_archive_stand_for_what_they_lead_to(photos: Path, tmp_path: Path) -> None:
    content = (photos / "red" / "00.png").read_bytes()
    tar = write_tar(
        tmp_path / "a.tar",
        {
            "cat/a.png": content,
            "dog/hard.png": (tarfile.LNKTYPE, "cat/a.png"),
            "dog/soft.png": (tarfile.SYMTYPE, "../cat/a.png"),
            "dog/twice.png": (tarfile.SYMTYPE, "soft.png"),
            "dog/gone.png": (tarfile.SYMTYPE, "nowhere.png"),
            "dog/round.png": (tarfile.SYMTYPE, "round.png"),
            "dog/out.png": (tarfile.SYMTYPE, "../../etc/out.png"),
            "dog/pipe.png": (tarfile.FIFOTYPE, ""),
        },
    )
    source = open_source(tar)
    names = ["a.png", "hard.png", "soft.png", "twice.png"]
    assert sorted(labels(tar)) == names
    reader = Reader(source.folder)
    assert all(reader.read(path) == content for path in source.examples["path"].to_pylist())
    assert source.left_out == {
        "links to nothing in the archive": 3,
        "devices, pipes and sparse files": 1,
    }


def test_names_and_labels_that_are_not_utf8_in_an_archive(photos: Path, tmp_path: Path) -> None:
    content = (photos / "red" / "00.png").read_bytes()
    options = {"encoding": "latin-1", "format": tarfile.GNU_FORMAT}
    named = write_tar(
        tmp_path / "n.tar", {"L\u00f6we/0.png": content, "cat/1.png": content}, **options
    )
    assert list(labels(named)) == ["1.png"]
    assert open_source(named).left_out == {"names that are not UTF-8": 1}
    labelled = write_tar(
        tmp_path / "l.tar", {"0.png": content, "0.cls": "L\u00f6we".encode("latin-1")}
    )
    assert words(labelled) == (
        f"{labelled}: the label of '0.png' is not UTF-8 text: b'L\\xf6we'\n"
        "  Write the .cls files in UTF-8."
    )


def test_dots_in_names_do_not_lose_labels(photos: Path, tmp_path: Path) -> None:
    content = (photos / "red" / "00.png").read_bytes()
    members: dict[str, bytes | tuple[bytes, str]] = {}
    for row in range(4):
        members[f"IMG_2024.05.{row:02}.png"] = content
        members[f"IMG_2024.05.{row:02}.cls"] = str(row % 2).encode()
    tar = write_tar(tmp_path / "a.tar", members)
    assert [label for label, _ in labels(tar).values()] == ["0", "1", "0", "1"]


def test_pictures_that_belong_to_an_example_are_not_examples(photos: Path, tmp_path: Path) -> None:
    content = (photos / "red" / "00.png").read_bytes()
    tar = write_tar(
        tmp_path / "a.tar",
        {"0.jpg": content, "0.seg.png": content, "0.cls": b"x"}
        | {"1.jpg": content, "1.left.png": content, "1.json": b'{"label": 7}'}
        | {"cat/2.jpg": content, "cat/2.mask.png": content}
        | {"cat/3.jpg": content, "cat/3.copy.jpg": content}
        | {"4.jpg": content, "4.b.jpg": content, "4.cls": b"y", "4.b.cls": b"z"},
    )
    assert {name: label for name, (label, _) in labels(tar).items()} == {
        "0.jpg": "x",
        "1.jpg": "7",
        "2.jpg": "cat",
        "3.jpg": "cat",
        "3.copy.jpg": "cat",
        "4.jpg": "y",
        "4.b.jpg": "z",
    }
    source = open_source(tar)
    assert source.left_out == {"pictures of another example": 3}
    assert len(source) + sum(source.left_out.values()) == 10  # every picture is accounted for


# What is left out is said


HEIC = (
    "HEIC needs pillow-heif (pip install 'headstart[heic]') to be read, or convert it to JPEG or "
    "PNG"
)


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("a.HEIC", b"\0\0\0\x18ftypheic", HEIC),
        ("a.heif", b"\0\0\0\x18ftypmif1", HEIC),
        ("a.HIF", b"\0\0\0\x18ftypheix", HEIC),
        (
            "a.avif",
            b"\0\0\0\x1cftypavif",
            "AVIF needs Pillow 11.3 or later, with AVIF",
        ),
        (
            "a.jxl",
            b"\xff\x0a\0\0",
            "JPEG XL needs pillow-jxl-plugin (pip",
        ),
        ("a.jxl", b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a", "JPEG XL needs pillow-jxl-plugin"),
        ("a.jp2", b"\0\0\0\x0cjP  \x0d\x0a", "JPEG 2000 is not read: convert it to JPEG or PNG"),
    ],
)
def test_photographs_that_are_not_read_are_rows_that_say_so(
    photos: Path,
    tmp_path: Path,
    name: str,
    start: bytes,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However they come: in a folder, an archive, a manifest."""
    monkeypatch.setattr("headstart.data.modalities.image.formats._registered", lambda _: False)
    file = photos / "red" / name
    file.write_bytes(start + bytes(40))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(photos / "red", "red")
    (photos / "list.csv").write_text(f"path,label\nred/{name},red\n")
    for source in (photos, tmp_path / "a.tar", photos / "list.csv"):
        found = open_source(source).examples.to_pylist()
        assert [row["label"] for row in found if row["id"].endswith(name)] == ["red"]
    with pytest.raises(DecodeError) as caught:
        open_image(file.read_bytes())
    assert caught.value.reason == "unsupported"
    assert caught.value.message.startswith(said)


def test_every_file_of_a_folder_is_accounted_for(
    tmp_path: Path, tiny_backbone: Path, command: Callable, local_ray: None
) -> None:
    folder = tmp_path / "photos"
    for name in ("cat/a.png", "dog/b.png", "dog/.c.png", ".git/d.png", "__MACOSX/dog/e.png"):
        paint(folder / name, (1, 2, 3), 0)
    for name in ("dog/IMG_1.HEIC", "dog/notes.txt", "dog/Thumbs.db"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    source = open_source(folder)
    assert source.left_out == {"hidden or system files": 3, ".txt": 1, ".db": 1}
    answer = command(
        "extract", folder, "--backbone", tiny_backbone, "-o", tmp_path / "f", "--max-bad", 1
    )
    assert "left out: 1 .db, 1 .txt, 3 hidden or system files\n" in answer.err
    (error,) = FeatureStore.open(tmp_path / "f").read_errors().to_pylist()
    assert (error["id"], error["reason"], error["message"]) == (
        "dog/IMG_1.HEIC",
        "damaged",
        "the header is damaged, or of a kind that is not supported",
    )
    assert "1 failed with decode/damaged, such as dog/IMG_1.HEIC: the header is" in answer.err
    inspected = command("data", "inspect", folder)
    assert "left out    1 .db, 1 .txt, 3 hidden or system files\n" in inspected.out


def test_a_source_without_labels_is_said_to_be(
    photos: Path, tmp_path: Path, tiny_backbone: Path, command: Callable, local_ray: None
) -> None:
    answer = command("extract", photos / "red", "--backbone", tiny_backbone, "-o", tmp_path / "f")
    assert "none of the 20 examples has a label\n" in answer.err


def test_photographs_beside_containers_are_asked_about(photos: Path, tmp_path: Path) -> None:
    content = (photos / "red" / "00.png").read_bytes()
    folder = tmp_path / "set"
    paint(folder / "assets" / "banner.png", (1, 2, 3), 0)
    (folder / "data").mkdir()
    pq.write_table(pa.table({"image": [content] * 3}), folder / "data" / "train-0.parquet")
    assert words(folder) == (
        f"{folder} holds 1 photograph as files, and photographs in 1 archive or Parquet file, such "
        f"as data/train-0.parquet\n  Name what is meant, such as {folder}/data, or move the others "
        "elsewhere."
    )
    assert len(open_source(folder / "data")) == 3
    (folder / "data" / "train-0.parquet").unlink()
    pq.write_table(pa.table({"path": ["assets/banner.png"]}), folder / "m.parquet")  # a manifest
    assert open_source(folder).left_out == {".parquet": 1}


def test_feature_stores_in_a_source_are_not_taken_for_photographs(
    photos: Path, tiny_backbone: Path, local_ray: None
) -> None:
    before = open_source(photos).examples["id"].to_pylist()
    extract(photos, tiny_backbone, photos / "features")
    source = open_source(photos)
    assert source.examples["id"].to_pylist() == before
    assert list(source.left_out) == ["files of feature stores"]
    assert words(photos / "features") == (
        f"{photos / 'features'} is a feature store, not a source of examples\n"
        "  Name the folder or file that it was extracted from."
    )


# Tables of other programs


def test_a_column_of_bytes_beside_paths_is_not_taken_for_photographs(
    photos: Path, tmp_path: Path
) -> None:
    paths = [f"red/{row:02d}.png" for row in range(4)]
    hashes = [bytes([row]) * 16 for row in range(4)]
    pq.write_table(pa.table({"path": paths, "md5": hashes}), photos / "m.parquet")
    assert open_source(photos / "m.parquet").examples["path"].to_pylist() == paths
    as_bytes = {"path": [p.encode() for p in paths], "label": [b"red"] * 4}
    pq.write_table(pa.table(as_bytes), photos / "b.parquet")
    source = open_source(photos / "b.parquet")
    assert source.examples["path"].to_pylist() == paths
    assert source.classes == ["red"]
    contents = [(photos / path).read_bytes() for path in paths]
    both = pa.table({"path": paths, "md5": hashes, "scan": contents})
    pq.write_table(both, photos / "c.parquet")
    assert open_source(photos / "c.parquet").examples["path"][0].as_py() == "c.parquet#scan=0"


def test_a_missing_number_is_not_a_class(photos: Path) -> None:
    table = {"path": ["red/00.png", "red/01.png"], "label": [float("nan"), 1.0]}
    pq.write_table(pa.table(table), photos / "m.parquet")
    source = open_source(photos / "m.parquet", allow_unlabelled=True)
    assert source.examples["label"].to_pylist() == [None, "1"]


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8", "utf-16-le", "utf-16-be"]
)
def test_a_manifest_in_any_unicode_encoding(photos: Path, encoding: str) -> None:
    text = "path,label,Gr\u00f6\u00dfe\nred/00.png,L\u00f6we,3\n"
    (photos / "m.csv").write_bytes(text.encode(encoding))
    source = open_source(photos / "m.csv")
    assert source.examples["label"].to_pylist() == ["L\u00f6we"]
    assert source.examples["Gr\u00f6\u00dfe"].to_pylist() == [3]


def test_a_manifest_in_another_encoding_is_refused_in_words(photos: Path) -> None:
    path = photos / "m.csv"
    path.write_bytes("path,label\nred/00.png,L\u00f6we\n".encode("cp1252"))
    assert words(path) == (
        f"{path} is not UTF-8 text: byte 0xf6 in line 2\n"
        "  Its encoding may be Windows-1252, as spreadsheets save it. Save it as UTF-8."
    )
    path.write_bytes("path,Gr\u00f6\u00dfe\nred/00.png,1\n".encode("cp1252"))
    assert words(path).startswith(f"{path} is not UTF-8 text: byte 0xf6 in line 1\n")


@given(st.binary(max_size=60))
def test_any_bytes_are_utf8_or_refused(content: bytes) -> None:
    try:
        as_utf8("m.csv", content).decode()
    except SourceError as error:
        assert "UTF" in str(error)


SECONDS = np.array(["2024-03-01T10:00:00"] * 2, "datetime64[s]")
COLUMNS = {
    "seconds": pa.array(SECONDS),
    "time": pa.array([1, 2], pa.time32("s")),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "large": pa.array(["a", None], pa.large_string()),
    "view": pa.array(["a", "b"], pa.string_view()),
    "list": pa.array([[1], None]),
    "struct": pa.array([{"a": 1.5}, {"a": None}]),
    "decimal": pa.array([1, 2], pa.decimal128(5, 2)),
    "null": pa.nulls(2),
    "half": pa.array(np.array([1, 2], np.float16)),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * 2, pa.binary(16))),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_is_compared_as_it_is_stored(
    name: str, photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    table = pa.table({"path": ["red/00.png", "red/01.png"], name: COLUMNS[name]})
    pq.write_table(table, photos / "m.parquet")
    assert extract(photos / "m.parquet", tiny_backbone, tmp_path / "f").embedded == 2
    again = extract(photos / "m.parquet", tiny_backbone, tmp_path / "f")
    assert (again.inferences, again.counts.relabelled, again.counts.kept) == (0, 0, 2)
    assert "update" not in again.seconds


def test_columns_that_cannot_be_stored_are_named_all_at_once() -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    months = pa.array([pa.MonthDayNano([1, 2, 3])])
    with pytest.raises(ManyInputErrors) as caught:
        storable("m", pa.table({"a": bad, "b": months, "c": ["x"]}))
    text = str(caught.value)
    assert "1. m: column 'a' (string) cannot be stored: " in text
    assert "2. m: column 'b' (month_day_nano_interval) cannot be stored: " in text


def test_paths_written_on_windows_are_read(photos: Path, capsys: pytest.CaptureFixture) -> None:
    (photos / "m.csv").write_text("path,label\nred\\00.png,x\nblue\\00.png,y\n")
    source = open_source(photos / "m.csv")
    assert source.examples["path"].to_pylist() == ["red/00.png", "blue/00.png"]
    assert "backslashes in paths are read as folders" in capsys.readouterr().err
    (photos / "odd\\name.png").write_bytes(b"")
    (photos / "m.csv").write_text("path\nodd\\name.png\n")
    assert open_source(photos / "m.csv").examples["path"].to_pylist() == ["odd\\name.png"]


# A source that moved


def test_a_source_that_moved_is_followed_without_an_inference(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    out, moved = tmp_path / "f", tmp_path / "moved"
    extract(photos, tiny_backbone, out)
    photos.rename(moved)
    with pytest.raises(HeadstartError) as caught:
        extract(moved, tiny_backbone, out)
    assert str(caught.value).endswith(f"If the source has moved, add: --moved-from {photos}")
    paint(moved / "red" / "03.png", (9, 9, 9), 7)
    done = extract(moved, tiny_backbone, out, update=Update(moved_from=str(photos)))
    assert (done.inferences, done.counts.changed, done.counts.kept) == (1, 1, 59)
    assert FeatureStore.open(out).manifest.source == str(moved)
    assert extract(moved, tiny_backbone, out).inferences == 0


# What never answers


def test_a_pipe_where_a_container_was_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    os.mkfifo(tmp_path / "a.parquet")
    reader = Reader(folder_at(tmp_path))
    for path in ("a.tar#bytes=0+10", "a.parquet#image=0", "a.tar"):
        with pytest.raises(OSError, match="is not a regular file"):
            reader.read(path)


@pytest.mark.parametrize("place", [f"bytes={10**6}+10", f"bytes=0+{10**15}", "bytes=5+10"])
def test_a_place_beyond_an_archive_is_an_error_of_its_row(tmp_path: Path, place: str) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(10))
    with pytest.raises(OSError, match=r"a\.tar ends before byte"):
        Reader(folder_at(tmp_path)).read(f"a.tar#{place}")


def test_photographs_that_would_take_minutes_are_refused(photos: Path) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(photos / "red" / "00.png").save(buffer, "JPEG", progressive=True)
    assert open_image(buffer.getvalue()).size == (24, 24)
    scans = buffer.getvalue() + b"\xff\xda" * MOST_SCANS
    with pytest.raises(DecodeError, match=rf"scans; at most {MOST_SCANS} are decoded"):
        open_image(scans)
    few = b"P5\n# made by hand\n2 2\n255\n" + bytes(4)
    assert open_image(few).size == (2, 2)
    with pytest.raises(DecodeError, match="of comments"):
        open_image(b"P5\n#" + b"x" * MOST_COMMENTS + b"x\n2 2\n255\n" + bytes(4))


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(12)))
def test_rows_of_parquet_are_right_in_any_order(order: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        table = pa.table({"image": [bytes([row]) for row in range(12)]})
        pq.write_table(table, f"{place}/a.parquet", row_group_size=5)
        reader = Reader(folder_at(place))
        for row in order:
            assert reader.read(f"a.parquet#image={row}") == bytes([row])
            reader.start()
