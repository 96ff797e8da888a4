"""`data verify` finds what is wrong with a store; after --repair only that is embedded again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import paint
from manifests import change_manifest, manifest_of

from headstart.data.common.errors import StoreError
from headstart.data.contracts.store import FeatureStore
from headstart.data.storage.files import digest
from headstart.data.verification import verify
from headstart.extract.job import extract
from headstart.extract.options import ExtractOptions

ONE_ENGINE = ExtractOptions(engine="onnxruntime")  # embeddings that are equal bit by bit


@pytest.fixture
def store(photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None) -> Path:
    """A store of several parts with some errors."""
    for number in range(140):
        paint(photos / "red" / f"more{number:03d}.png", (200, 60, 60), number)
    (photos / "red" / "more139.png").write_bytes(b"broken")
    extract(photos, tiny_backbone, tmp_path / "store", ONE_ENGINE)
    return tmp_path / "store"


def first_part(store: Path) -> Path:
    return sorted(store.glob("part-*.parquet"))[0]


def test_a_sound_store(store: Path, photos: Path, command: Callable) -> None:
    parts = manifest_of(store)["parts"]
    assert len(parts) > 1
    answer = command("data", "verify", store)
    assert (answer.code, answer.out) == (
        0,
        f"parts     {len(parts)}, 0 damaged\n"
        "examples  199 with features, 1 with errors\n"
        f"source    {photos}: 0 missing, 0 vanished\n"
        "store     sound\n",
    )
    assert json.loads(command("data", "verify", store, "--json").out)["sound"] is True


def rewrite(part: Path, table: pa.Table, record: bool = True) -> None:
    """Replace a part's table; its record is updated if `record`."""
    pq.write_table(table, part)
    manifest = manifest_of(part.parent)
    for entry in manifest["parts"]:
        if record and entry["name"] == part.stem:
            entry["rows_sha256"] = digest(part.read_bytes())
            entry["rows"] = table.num_rows
    change_manifest(part.parent, manifest)


def damage(store: Path, how: str) -> str:
    """Damage the first part; returns what `verify` must report."""
    part = first_part(store)
    table = pq.read_table(part)
    if how == "missing":
        part.unlink()
        return f"{part.name} is missing"
    if how == "truncated":
        part.write_bytes(part.read_bytes()[:100])
        return f"{part.name} has changed since it was written (100 bytes)"
    if how == "one bit":
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
        return f"{part.name} has changed since it was written ({len(content):,} bytes)"
    if how == "NaN":
        flat = table["embedding"].combine_chunks().flatten().to_numpy().copy()
        flat[5] = np.nan
        array = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=table["embedding"].type)
        rewrite(part, table.set_column(7, table.schema.field("embedding"), array))
        return "its embeddings have NaN or infinite numbers"
    if how == "repeated":
        rewrite(part, pa.concat_tables([table, table.slice(0, 1)]))
        return "it has an example twice"
    if how == "other width":
        narrow = pa.array(np.zeros((len(table), 3), "f4").tolist(), pa.list_(pa.float32(), 3))
        rewrite(part, table.set_column(7, "embedding", narrow))
        return "its embeddings are 3 wide instead of 12"
    assert how == "columns"
    rewrite(part, table.drop_columns(["label"]))
    return "it lacks the columns label"


@pytest.mark.parametrize(
    "how", ["missing", "truncated", "one bit", "NaN", "repeated", "other width", "columns"]
)
def test_damage_is_named_and_only_the_damaged_part_is_embedded_again(
    store: Path, photos: Path, tiny_backbone: Path, command: Callable, how: str
) -> None:
    whole = FeatureStore.open(store).read().drop_columns(["stamp"]).sort_by("id")
    part = first_part(store)
    examples = pq.read_table(part, columns=["id"]).num_rows
    said = damage(store, how)
    answer = command("data", "verify", store)
    assert answer.code == 1
    assert answer.err == (
        f"  {part.stem}: {said}\n"
        f"error: {store} is not sound\n"
        f"  Set aside what is damaged with: python -m data verify {store} --repair\n"
    )
    assert f"source    {photos}: {examples} missing, 0 vanished\n" in answer.out
    answer = command("data", "verify", store, "--repair")
    fix = f"python -m extract {photos} --backbone BACKBONE -o {store}\n"
    assert answer.code == 1
    assert answer.err.endswith(
        "set aside: 1 damaged part, 0 leftovers\n"
        f"error: {store} is not sound\n  Embed what is missing, and only that, with: {fix}"
    )
    with pytest.raises(StoreError, match="whose extraction has not finished"):
        FeatureStore.open(store)
    done = extract(photos, tiny_backbone, store, ONE_ENGINE)
    assert (done.inferences, done.rows) == (examples, 199)
    assert done.all_inferences == 199 + examples
    assert FeatureStore.open(store).read().drop_columns(["stamp"]).sort_by("id").equals(whole)
    assert verify(store).sound
    kept = [path.name for path in (store / "_damaged").glob("*")]
    assert kept == ([] if how == "missing" else [part.name])


def test_an_example_in_two_parts(store: Path, command: Callable) -> None:
    one, two, *_ = sorted(store.glob("part-*.parquet"))
    rewrite(two, pa.concat_tables([pq.read_table(two), pq.read_table(one).slice(0, 3)]))
    assert verify(store).damaged == {two.stem: "3 of its examples are also in another part"}


def test_leftovers_are_named_and_swept(store: Path, command: Callable) -> None:
    (store / "part-00099-0123456789ab.parquet").write_bytes(b"half")
    (store / "_tmp-7-part-00098-0123456789ab.parquet").write_bytes(b"less")
    found = verify(store)
    assert not found.sound
    assert len(found.leftovers) == 2
    answer = command("data", "verify", store, "--repair")
    assert (answer.code, answer.err) == (0, "set aside: 0 damaged parts, 2 leftovers\n")
    assert verify(store).sound


def test_a_source_that_has_changed(
    store: Path, photos: Path, command: Callable, tmp_path: Path
) -> None:
    paint(photos / "red" / "new.png", (1, 2, 3), 0)
    (photos / "blue" / "00.png").unlink()
    answer = command("data", "verify", store)
    assert f"source    {photos}: 1 missing, 1 vanished\n" in answer.out
    assert answer.err.endswith(
        f"error: {store} is not sound\n  Embed what is missing, and only that, with: "
        f"python -m extract {photos} --backbone BACKBONE -o {store}\n"
    )
    shutil.move(photos, tmp_path / "elsewhere")
    answer = command("data", "verify", store)
    assert answer.code == 0
    assert f"not compared: {photos}: no such folder or manifest" in answer.out


def test_no_store(tmp_path: Path, command: Callable) -> None:
    answer = command("data", "verify", tmp_path)
    assert (answer.code, answer.err) == (
        2,
        f"error: {tmp_path} is not a feature store (it has no _headstart.parquet)\n"
        "  Make one with: python -m extract SOURCE --backbone backbone.onnx -o FEATURES\n",
    )
