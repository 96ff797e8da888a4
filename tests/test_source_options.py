"""Sources as people have them: other columns, other places, other separators."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headstart as hs
from headstart.data.common.errors import InputError, SourceError
from headstart.data.contracts.store import FeatureStore
from headstart.data.examples.opening import open_source
from headstart.data.source_options import SourceOptions, as_arguments, same_examples, split_address
from headstart.data.verification import verify
from headstart.extract.job import extract


def opened(path: Path, **options: object) -> dict[str, list]:
    source = open_source(SourceOptions(**options).address(path))  # type: ignore[arg-type]
    columns = source.examples.to_pydict()
    return columns | {"folder": [str(source.folder)], "source": [source.path]}


def words(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        opened(path, **options)
    return str(caught.value)


def test_an_address_is_read_back() -> None:
    options = SourceOptions(
        path_column="my file", label_column="a&b=c#d", root="/x y", text_column=None
    )
    address = str(options.address("/data/m.csv"))
    assert address == "/data/m.csv?path-column=my+file&label-column=a%26b%3Dc%23d&root=/x+y"
    assert split_address(address) == ("/data/m.csv", options)
    assert as_arguments(address) == (
        "/data/m.csv --path-column 'my file' --label-column 'a&b=c#d' --root '/x y'"
    )
    texts = SourceOptions(text_column="words", label_column="topic")
    assert texts.address("m.csv") == "m.csv?label-column=topic#words"
    assert split_address("m.csv?label-column=topic#words") == ("m.csv", texts)
    assert split_address("what?.csv") == ("what?.csv", SourceOptions())
    assert split_address("m.csv?size=3") == ("m.csv?size=3", SourceOptions())
    assert SourceOptions().address(Path("m.csv")) == Path("m.csv")
    assert same_examples(address, "/data/m.csv?path-column=my+file&root=/x+y")
    assert not same_examples(address, "/data/m.csv?path-column=other&root=/x+y")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_with_other_names(photos: Path, kind: str) -> None:
    path = photos / f"m.{kind}"
    rows = {"file": ["red/00.png", "blue/00.png"], "species": ["007", "NA"], "label": ["x", "y"]}
    if kind == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pq.write_table(pa.table(rows), path)
    found = opened(path, path_column="file", label_column="species")
    assert found["path"] == found["id"] == rows["file"]
    assert (found["label"], found["original_label"]) == (rows["species"], ["x", "y"])
    assert words(path) == (
        f"{path} has no column 'path'; its columns are file, species, label\n"
        "  Say which one names the files: --path-column NAME"
    )
    assert words(path, path_column="file", label_column="spezies") == (
        f"{path} has no column 'spezies'; its columns are file, species, label\n"
        "  Did you mean --label-column species?"
    )


def test_texts_and_pictures_in_tables_with_another_column_of_labels(
    photos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("review;topic;stars\nnice, really;a;1\nbad;b;2\n")
    found = opened(table, text_column="review", label_column="topic")
    assert (found["label"], found["path"][1]) == (["a", "b"], "t.csv#review=1")
    assert opened(table, text_column="review", label_column="stars")["label"] == ["1", "2"]
    pictures = pa.table({"image": [(photos / "red/00.png").read_bytes()] * 2, "kind": ["a", "b"]})
    pq.write_table(pictures, tmp_path / "p.parquet")
    assert opened(tmp_path / "p.parquet", label_column="kind")["label"] == ["a", "b"]


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_separators_and_encodings_are_recognized(
    photos: Path, separator: str, encoding: str
) -> None:
    lines = [
        ["path", "label", "note"],
        ["red/00.png", "a", '"one, two; three"'],
        ["blue/00.png", "b", ""],
    ]
    text = "\r\n".join(separator.join(line) for line in lines)
    for name in ("m.csv", "m.tsv"):
        (photos / name).write_bytes(text.encode(encoding))
        found = opened(photos / name)
        assert (found["label"], found["note"]) == (["a", "b"], ["one, two; three", None])


def test_commas_in_fields_do_not_separate(photos: Path) -> None:
    (photos / "m.csv").write_text("path;label;weight\nred/00.png;nice, big;1,5\nblue/00.png;b;2\n")
    found = opened(photos / "m.csv")
    assert (found["label"], found["weight"]) == (["nice, big", "b"], ["1,5", "2"])
    (photos / "m.csv").write_text("path,label\nred/00.png,a;b\nblue/00.png,c;d\n")
    assert opened(photos / "m.csv")["label"] == ["a;b", "c;d"]


def test_files_elsewhere(photos: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    path = lists / "m.csv"

    def write(*names: object) -> list[str]:
        path.write_text("\n".join(["path,label", *(f"{name},x" for name in names)]))
        return [str(name) for name in names]

    given = write(f"../{photos.name}/red/00.png", photos / "blue" / "00.png")
    said = words(path)
    assert said.startswith(f"{path}: 2 paths lead outside the manifest's folder: '../")
    assert said.endswith("--root FOLDER, or pass --allow-outside to read them wherever they are.")
    found = opened(path, root=str(photos))
    assert (found["id"], found["path"]) == (given, ["red/00.png", "blue/00.png"])
    assert found["folder"] == [str(photos)]
    anywhere = opened(path, allow_outside=True)
    assert anywhere["folder"] == ["/"]
    assert anywhere["path"][1] == str(photos / "blue" / "00.png").lstrip("/")
    assert open_source(anywhere["source"][0]).examples.to_pydict()["path"] == anywhere["path"]
    write("red/00.png")
    assert opened(path, root=str(photos))["path"] == ["red/00.png"]
    write("../secret.png")
    assert words(path, root=str(lists)) == (
        f"{path}: 1 path leads outside --root {lists}: '../secret.png'\n"
        "  Name a folder above them with --root, or pass --allow-outside."
    )
    write("a.png", "s3://bucket/b.png")
    assert "1 path leads outside /: 's3://bucket/b.png'\n  Give a manifest for each place" in words(
        path, allow_outside=True
    )
    assert words(path, root=str(tmp_path / "none")) == (
        f"--root {tmp_path / 'none'}: no such folder\n  Check the path."
    )


def test_options_that_do_not_fit_are_refused(photos: Path, tmp_path: Path) -> None:
    assert words(photos, path_column="file", root="x") == (
        f"{photos} is not a manifest (.csv, .tsv, .parquet), for which --path-column and --root "
        "are\n  Leave them out, or name one."
    )
    assert words(photos, label_column="file").startswith(f"{photos} is not a table (.csv, .tsv,")
    with pytest.raises(InputError, match="--text-column cannot be used with --allow-outside"):
        SourceOptions(text_column="a", allow_outside=True)
    with pytest.raises(InputError, match="are both a"):
        SourceOptions(path_column="a", label_column="a")
    with pytest.raises(SourceError, match="no such folder or manifest"):
        open_source(f"{tmp_path}/none.csv?path-column=a")


def test_a_store_of_a_source_with_options(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None, command: Callable
) -> None:
    """It is opened again as it was; other labels are copied without an inference."""
    manifest = tmp_path / "m.csv"
    manifest.write_text("file;kind;colour\nred/00.png;a;r\nblue/00.png;b;b\ngreen/00.png;a;g\n")
    out = tmp_path / "f"
    job = ("extract", manifest, "--backbone", tiny_backbone, "-o", out, "--root", photos)
    done = command(*job, "--path-column", "file", "--label-column", "kind", "--json")
    assert (done.code, json.loads(done.out)["embedded"]) == (0, 3)
    store = FeatureStore.open(out)
    assert store.manifest.source == f"{manifest}?path-column=file&label-column=kind&root={photos}"
    assert (store.manifest.root, store.manifest.classes) == (str(photos), ("a", "b"))
    assert verify(out).sound
    same = (*job, "--path-column", "file", "--label-column", "kind")
    assert "nothing to do" in command(*same).out
    relabelled = command(*job, "--path-column", "file", "--label-column", "colour", "--json")
    summary = json.loads(relabelled.out)
    assert (summary["inferences"], summary["counts"]["relabelled"]) == (0, 3)
    assert FeatureStore.open(out).manifest.classes == ("b", "g", "r")
    assert verify(out).sound
    assert command(*same, "--text-column", "x").code == 2
    other = command(*job, "--path-column", "colour")
    assert (other.code, "holds features of another source" in other.err) == (2, True)
    source = SourceOptions(path_column="file", root=str(photos)).address(manifest)
    assert extract(source, tiny_backbone, tmp_path / "g").embedded == 3
    with manifest.open("a") as file:
        file.write("red/01.png;c;r\n")
    damaged = command("data", "verify", out)
    assert f"python -m extract {manifest} --path-column file --label-column colour" in damaged.err


def test_a_loose_photograph_is_no_gap_of_a_store(
    photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None, command: Callable
) -> None:
    (photos / "loose.png").write_bytes((photos / "red" / "00.png").read_bytes())
    done = command("extract", photos, "--backbone", tiny_backbone, "-o", tmp_path / "f")
    assert done.code == 0
    assert "left out: 1 file beside the class folders" in done.err
    assert verify(tmp_path / "f").sound


def test_tables_in_python_have_the_same_options(
    photos: Path, tiny_backbone: Path, local_ray: None
) -> None:
    frame = pd.DataFrame({"file": ["red/00.png", "blue/00.png"], "kind": ["a", "b"]})
    found = hs.extract(frame, tiny_backbone, path_column="file", label_column="kind", root=photos)
    assert (found.classes, len(found)) == (("a", "b"), 2)
