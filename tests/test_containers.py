"""Tar archives as WebDataset writes them, and Parquet files with photographs in a column."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.data.common.errors import HeadstartError
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.data.examples.opening import open_source
from headstart.data.examples.reading import Reader, container_of
from headstart.data.storage.places import folder_at
from headstart.extract.job import extract
from headstart.extract.planning.plan import Update


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_parquet(path: Path, photos: Path, shape: str = "struct", **columns: list) -> Path:
    """All photographs in one file, labels as numbers with names, as Hugging Face writes them."""
    files = sorted(photos.rglob("*.png"))
    classes = sorted({file.parent.name for file in files})
    contents: list = [file.read_bytes() for file in files]
    if shape == "struct":
        contents = [{"bytes": c, "path": f.name} for c, f in zip(contents, files, strict=True)]
    labels = [classes.index(file.parent.name) for file in files]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": classes}}
    table = pa.table({"image": contents, "label": labels} | columns)
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(about), path, row_group_size=25)
    return path


def by_content(store: Path) -> dict[str, tuple[str, bytes]]:
    table = FeatureStore.open(store).read()
    embeddings = (row.tobytes() for row in embeddings_of(table))
    labels = table["label"].to_pylist()
    contents = table["content"].to_pylist()
    return dict(zip(contents, zip(labels, embeddings, strict=True), strict=True))


@pytest.fixture
def plain(features: Path) -> dict[str, tuple[str, bytes]]:
    """Labels and embeddings of the photographs in their files."""
    return by_content(features)


def test_tar_archives_give_the_same_features_as_files(
    photos: Path, tiny_backbone: Path, tmp_path: Path, plain: dict, command: Callable
) -> None:
    files = sorted(photos.rglob("*.png"))
    for number, shard in enumerate((files[:25], files[25:])):
        members: dict[str, bytes] = {}
        for index, file in enumerate(shard):
            key = f"{number:03d}{index:03d}"
            members[f"{key}.png"] = file.read_bytes()
            if index % 2:
                members[f"{key}.cls"] = f"{file.parent.name}\n".encode()
            else:
                members[f"{key}.json"] = json.dumps({"label": file.parent.name}).encode()
        write_tar(tmp_path / "shards" / f"train-{number:05d}.tar", members)
    out = tmp_path / "from_tar"
    done = extract(tmp_path / "shards", tiny_backbone, out)
    assert (done.rows, done.errors) == (60, {})
    assert by_content(out) == plain
    table = FeatureStore.open(out).read(["id", "split"])
    assert table["id"][0].as_py() == "train-00000.tar/000000.png"
    assert set(table["split"].to_pylist()) == {"train"}
    assert extract(tmp_path / "shards", tiny_backbone, out).inferences == 0
    assert "examples    60" in command("data", "inspect", tmp_path / "shards").out
    assert command("data", "verify", out).code == 0


def test_an_archive_that_grew_costs_only_what_is_new(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    files = {f.relative_to(photos).as_posix(): f.read_bytes() for f in photos.rglob("*.png")}
    tar = write_tar(tmp_path / "a.tar", files)
    out = tmp_path / "f"
    assert extract(tar, tiny_backbone, out).inferences == 60
    labels = FeatureStore.open(out).manifest.classes
    assert labels == ("blue", "green", "red")  # of the folders in the archive
    new = {"red/new.png": files["blue/00.png"]}
    write_tar(tar, new | files | {"red/00.png": files["green/00.png"]})
    done = extract(tar, tiny_backbone, out)
    assert (done.inferences, done.counts.changed) == (2, 1)
    write_tar(tar, new)
    done = extract(tar, tiny_backbone, out, update=Update(prune=True))
    assert (done.inferences, done.rows, done.pruned) == (0, 1, 60)


@pytest.mark.parametrize("shape", ["struct", "bytes"])
def test_parquet_files_give_the_same_features_as_files(
    photos: Path, tiny_backbone: Path, tmp_path: Path, plain: dict, shape: str, command: Callable
) -> None:
    ages = list(range(60))
    file = write_parquet(tmp_path / "d" / "test-00000-of-1.parquet", photos, shape, age=ages)
    for source, name in ((file, "one"), (file.parent, "many")):
        out = tmp_path / name
        done = extract(source, tiny_backbone, out)
        assert (done.rows, done.errors) == (60, {})
        assert by_content(out) == plain
        table = FeatureStore.open(out).read(["id", "split", "age"]).sort_by("age")
        assert table["age"].to_pylist() == ages
        assert table["id"][7].as_py() == "test-00000-of-1.parquet#7"
        assert set(table["split"].to_pylist()) == {"test"}
        assert extract(source, tiny_backbone, out).inferences == 0
    assert "examples    60" in command("data", "inspect", file).out


def test_rows_without_bytes_and_archives_that_end_early_are_errors_of_their_examples(
    photos: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    local_ray: None,
    capsys: pytest.CaptureFixture,
) -> None:
    content = (photos / "red" / "00.png").read_bytes()
    pq.write_table(
        pa.table({"image": [content, None, b"", content], "id": ["a", "b", "c", "d"]}),
        tmp_path / "p.parquet",
    )
    extract(tmp_path / "p.parquet", tiny_backbone, tmp_path / "f")
    errors = FeatureStore.open(tmp_path / "f").read_errors()
    found = dict(zip(errors["id"].to_pylist(), errors["reason"].to_pylist(), strict=True))
    assert found == {"b": "unreadable", "c": "empty"}
    assert errors["message"][0].as_py() == "row 1 of p.parquet has no bytes in 'image'"
    padded = -(-len(content) // 512) * 512
    tar = write_tar(tmp_path / "a.tar", {"x/1.png": content, "y/2.png": content})
    tar.write_bytes(tar.read_bytes()[: 512 + 2048 + 512 + 600])
    extract(tar, tiny_backbone, tmp_path / "g")
    assert f"{tar} is damaged or truncated after 2 files: unexpected end" in capsys.readouterr().err
    store = FeatureStore.open(tmp_path / "g")
    assert store.read(["id"])["id"].to_pylist() == ["a.tar/x/1.png"]
    (error,) = store.read_errors().to_pylist()
    assert (error["id"], error["reason"]) == ("a.tar/y/2.png", "unreadable")
    assert error["message"] == f"a.tar ends before byte {512 + padded + 512 + len(content):,}"


def fails(path: Path) -> str:
    with pytest.raises(HeadstartError) as caught:
        open_source(path)
    return str(caught.value)


def test_invalid_archives(photos: Path, tmp_path: Path) -> None:
    content = (photos / "red" / "00.png").read_bytes()
    outside = write_tar(tmp_path / "a" / "a.tar", {"../x.png": content})
    write_tar(tmp_path / "a" / "b.tar", {"/etc/x.png": content})
    (tmp_path / "a" / "c.tar").write_bytes(b"not an archive" * 100)
    trust = "\n  Do not trust it; create an archive of relative paths without '..'."
    assert (
        fails(outside) == f"{outside} has a path that leads outside the archive: '../x.png'{trust}"
    )
    assert fails(tmp_path / "a").startswith(
        f"1. {outside} has a path that leads outside the archive: '../x.png'{trust}\n"
        f"2. {tmp_path}/a/b.tar has a path that leads outside the archive: '/etc/x.png'{trust}\n"
        f"3. {tmp_path}/a/c.tar is not a valid tar archive: "
    )
    with tarfile.open(tmp_path / "z.tar", "w:gz"):
        pass
    assert "a compressed archive must be unpacked to plain .tar" in fails(tmp_path / "z.tar")
    assert fails(write_tar(tmp_path / "n.tar", {"a.dat": b""})).startswith(
        f"{tmp_path}/n.tar holds no examples\n"
    )


def test_parquet_files_that_do_not_fit(photos: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.parquet"
    pq.write_table(pa.table({"left": [b""], "right": [b""]}), both)
    assert fails(both) == (
        f"{both} has several columns of bytes (left, right); its columns are left, right\n"
        "  Name the column of encoded photographs (JPEG, PNG, ... as bytes) 'image', that of "
        "recordings 'audio'."
    )
    folder = tmp_path / "mixed"
    write_parquet(folder / "a.parquet", photos)
    pq.write_table(pa.table({"image": [b""], "label": [[1]]}), folder / "b.parquet")
    assert fails(folder).startswith(
        f"{folder}/b.parquet: column 'label' cannot be read as text (list<"
    )
    pq.write_table(pa.table({"image": [b""], "age": [[1]]}), folder / "b.parquet")
    pq.write_table(pa.table({"image": [b""], "age": ["x"]}), folder / "a.parquet")
    assert fails(folder).startswith(
        f"the Parquet files in {folder} do not have the same columns: Unable to merge: "
    )
    pq.write_table(pa.table({"image": [b"", b""], "id": ["x", "x"]}), both)
    assert "1 id is used for more than one example: 'x'" in fails(both)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    assert f"{tmp_path}/t.parquet cannot be read: " in fails(tmp_path / "t.parquet")


def test_a_reader_reads_back_and_forth_in_a_parquet_file(photos: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", photos)
    files = [file.read_bytes() for file in sorted(photos.rglob("*.png"))]
    reader = Reader(folder_at(tmp_path))
    for row in (*range(10), 40, 59, 3, *np.random.default_rng(0).permutation(60).tolist()):
        assert reader.read(f"a.parquet#image={row}") == files[row]
    with pytest.raises(OSError, match=r"a\.parquet is damaged at row 60: it has 60 rows"):
        reader.read("a.parquet#image=60")
    assert reader.read("a.parquet#image=1") == files[1]


def test_a_number_sign_in_a_file_name_does_not_point_into_a_container(tmp_path: Path) -> None:
    for name in ("a#1.jpg", "b.tar#x.jpg", "c.parquet#row.jpg"):
        (tmp_path / name).write_bytes(name.encode())
        assert container_of(name) == name
        assert Reader(folder_at(tmp_path)).read(name) == name.encode()
