"""Folders and manifests as examples, and the messages for invalid sources."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headstart.data.common.errors import ManyInputErrors, SourceError
from headstart.data.examples.opening import open_source
from headstart.data.examples.source import describe_left_out


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def labels(folder: Path, **options: bool) -> dict[str, tuple[str | None, str | None]]:
    rows = open_source(folder, **options).examples.to_pylist()
    return {row["id"]: (row["label"], row["split"]) for row in rows}


def message(path: Path) -> str:
    with pytest.raises((SourceError, ManyInputErrors)) as caught:
        open_source(path)
    return str(caught.value)


def test_one_folder_per_class_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg", "cat/deep/er/b.PNG", "dog/c.webp", "cat/.hidden.jpg", "x.txt")
    source = open_source(tmp_path)
    assert labels(tmp_path) == {
        "cat/a.jpg": ("cat", None),
        "cat/deep/er/b.PNG": ("cat", None),
        "dog/c.webp": ("dog", None),
    }
    assert source.classes == ["cat", "dog"]
    assert source.left_out == {".txt": 1, "hidden or system files": 1}


def test_top_level_folders_named_for_splits_are_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.jpg", "val/cat/b.jpg", "test/dog/c.jpg")
    assert labels(tmp_path) == {
        "test/dog/c.jpg": ("dog", "test"),
        "train/cat/a.jpg": ("cat", "train"),
        "val/cat/b.jpg": ("cat", "validation"),
    }


def test_splits_beside_classes_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "test/a.jpg", "cat/b.jpg", "dog/c.jpg")
    assert message(tmp_path) == (
        f"{tmp_path} mixes folders of splits (test) with folders of classes (cat, dog)\n"
        "  Put the class folders into the split folders, or describe the files in a manifest."
    )


def test_photographs_without_a_class_have_no_label(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    assert labels(tmp_path) == {"a.jpg": (None, None), "b.jpg": (None, None)}


def test_a_photograph_beside_the_class_folders_is_left_out_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "cat/b.jpg")
    source = open_source(tmp_path)
    assert source.examples["id"].to_pylist() == ["cat/b.jpg"]
    assert len(source.stamps(np.array([0]))) == 1
    assert source.left_out == {"files beside the class folders": 1}
    assert describe_left_out(source.left_out) == "1 file beside the class folders"
    assert labels(tmp_path, allow_unlabelled=True)["a.jpg"] == (None, None)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "a.jpg")
    root = touch(tmp_path / "root", "cat/b.jpg")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "loop").symlink_to(root)
    assert set(labels(root)) == {"cat/b.jpg", "dog/a.jpg"}


@pytest.mark.parametrize(
    "name", ["spaced name.jpg", "new\nline.jpg", "émoji🙂.jpg", "a" * 251 + ".jpg"]
)
def test_odd_names_are_ids(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "cat", name)
    assert list(labels(tmp_path)) == [f"cat/{name}"]


def test_a_name_that_is_not_utf8_is_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/\xff.jpg")).touch()
    assert message(tmp_path).startswith(
        f"{tmp_path} holds no photographs; left out: 1 name that is not UTF-8\n"
    )
    touch(tmp_path, "cat/a.jpg")
    assert open_source(tmp_path).left_out == {"names that are not UTF-8": 1}


def test_no_such_folder_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert message(tmp_path / "fotos") == (
        f"{tmp_path / 'fotos'}: no such folder or manifest\n  Did you mean {tmp_path / 'photos'}?"
    )


def test_an_empty_folder(tmp_path: Path) -> None:
    assert message(tmp_path).startswith(f"{tmp_path} holds no photographs; it is empty\n")


def test_a_folder_of_other_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.log", "a/y.md")
    assert message(tmp_path).startswith(
        f"{tmp_path} holds no photographs; it has .log, .md files\n  Known extensions are .avif"
    )


def test_a_file_that_is_not_a_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "a.docx")
    assert "is neither a folder nor a manifest (.csv, .tsv, .parquet)" in message(
        tmp_path / "a.docx"
    )


def manifest(folder: Path, text: str, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_manifest_with_everything(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "path,label,id,split,group,age\n007/a.jpg,NA,001,Train,m1,3\nb.jpg,null,002,val,m2,4\n",
    )
    source = open_source(path)
    assert source.examples.to_pylist() == [
        {
            "id": "001",
            "path": "007/a.jpg",
            "label": "NA",
            "split": "train",
            "group": "m1",
            "age": 3,
        },
        {
            "id": "002",
            "path": "b.jpg",
            "label": "null",
            "split": "validation",
            "group": "m2",
            "age": 4,
        },
    ]
    assert str(source.folder) == str(tmp_path)


def test_a_parquet_and_a_tsv_manifest_are_equivalent(tmp_path: Path) -> None:
    tsv = manifest(tmp_path, "path\tlabel\na.jpg\tx\n", "m.tsv")
    pq.write_table(pa.table({"path": ["a.jpg"], "label": ["x"]}), tmp_path / "m.parquet")
    assert open_source(tsv).examples.equals(open_source(tmp_path / "m.parquet").examples)


def test_every_mistake_of_a_manifest_at_once(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "path,label,id,split\n../a.jpg,x,1,train\n/etc/b.jpg,x,1,later\n,x,2,test\nok..jpg,x,,\n",
    )
    assert message(path) == (
        f"1. {path}: 1 row without 'id', the first is row 4 (not counting the header)\n"
        "  Fill in the column, or remove the rows.\n"
        f"2. {path}: 1 row without 'path', the first is row 3 (not counting the header)\n"
        "  Fill in the column, or remove the rows.\n"
        f"3. {path}: 1 id is used for more than one example: '1'\n"
        "  Ids must be unique: give them in a column 'id', or remove the repeated rows.\n"
        f"4. {path}: unknown splits 'later'\n"
        "  Choose from train, validation, test; leave the cell empty for none.\n"
        f"5. {path}: 2 paths lead outside the manifest's folder: '../a.jpg', '/etc/b.jpg'\n"
        "  Say which folder they are in with --root FOLDER, or pass --allow-outside to read them "
        "wherever they are."
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read: Empty CSV file"),
        ("path,label\n", "lists no examples"),
        ("path, label\na.jpg,x\n", "has column names with spaces around them: ' label'"),
        ("path,embedding\na.jpg,x\n", "uses reserved column names: 'embedding'\n  Rename them."),
        ("path,label,label\na.jpg,x,y\n", "names columns twice: 'label'"),
        ("path,label\na\0.jpg,x\n", "1 path leads outside the manifest's folder: 'a\\x00.jpg'"),
        (
            "path,label\ns3://b/a.jpg,x\n",
            "1 path leads outside the manifest's folder: 's3://b/a.jpg'",
        ),
        ("file,label\na.jpg,x\n", "has no column 'path'; its columns are file, label"),
        ("paths,label\na.jpg,x\n", "names the files: --path-column paths"),
        ("path,label\na.jpg\nb.jpg,x\n", "cannot be read: CSV parse error"),
        ("path,label\na.jpg,x\nb.jpg,\n", "1 example of 2 has no label: 'b.jpg'"),
        ("path,label\na.jpg,x\na.jpg,y\n", "1 id is used for more than one example: 'a.jpg'"),
    ],
)
def test_broken_manifests(tmp_path: Path, text: str, words: str) -> None:
    assert words in message(manifest(tmp_path, text))


@settings(max_examples=100, deadline=None)
@example(rows=[("://", "0"), ("s3://b/a.jpg", "1")])
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
        ),
        min_size=1,
        unique_by=lambda row: row[0],
    )
)
def test_any_text_survives_a_manifest(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("wild") / "m.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("path", "label"), *((f"f/{name}", label) for name, label in rows)])
    try:
        got = open_source(path).examples
    except (SourceError, ManyInputErrors) as error:
        assert ".." in "".join(name for name, _ in rows), error
    else:
        assert got["label"].to_pylist() == [label for _, label in rows]
        assert got["id"].to_pylist() == [f"f/{name}" for name, _ in rows]


def test_inspect_counts_sizes_and_broken_files(photos: Path, command: Callable) -> None:
    (photos / "red" / "cut.png").write_bytes((photos / "red" / "00.png").read_bytes()[:60])
    (photos / "red" / "copy.png").write_bytes((photos / "red" / "00.png").read_bytes())
    (photos / "blue" / "same.png").write_bytes((photos / "green" / "01.png").read_bytes())
    (photos / "notes.txt").touch()
    answer = command("data", "inspect", photos)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("examples    63 (")
    assert lines[1] == "sizes       24x24 (62)"
    assert lines[2] == (
        "duplicates  2 files repeat the bytes of another; 1 group with different labels"
    )
    assert lines[3] == "left out    1 .txt"
    assert [line.split() for line in lines[5:9]] == [
        ["class", "examples"],
        ["blue", "21"],
        ["green", "20"],
        ["red", "22"],
    ]
    assert answer.out.index("with different labels (1)") < answer.out.index("\nidentical files (1)")
    assert "different labels (1)\n  blue/same.png (blue), green/01.png (gre" in answer.out
    assert "identical files (1)\n  red/00.png, red/copy.png\n" in answer.out
    found = json.loads(command("data", "inspect", photos, "--json").out)["duplicates"]
    assert found[0] == {"ids": ["blue/same.png", "green/01.png"], "labels": ["blue", "green"]}
    assert "red/cut.png  decode/truncated" in answer.out
