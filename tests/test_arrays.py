"""Arrow arrays without pandas, and extraction without importing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data.common.arrays import in_memory, numbers, strings
from headstart.data.workers.shards import Shard

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.none() | TEXT))
def test_strings_are_those_that_pyarrow_makes(values: list[str | None]) -> None:
    assert strings(values).equals(pa.array(values, pa.string()))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
@pytest.mark.parametrize("count", [0, 5])
def test_numbers_are_those_that_pyarrow_makes(dtype: type, count: int) -> None:
    values = np.arange(count, dtype=dtype)
    assert numbers(values).equals(pa.array(values))


@pytest.mark.parametrize("content", [b"", b"abc" * 1000])
def test_a_file_in_memory_is_arrows_own(content: bytes) -> None:
    """Of Python's bytes, Arrow's threads would hold a reference."""
    before = sys.getrefcount(content)
    file = in_memory(content)
    assert file.read() == content
    assert sys.getrefcount(content) == before


def test_a_process_that_ends_after_it_has_read_is_not_aborted(model: Path, features: Path) -> None:
    """Where Arrow's threads held Python's bytes, more than half of these processes were."""
    script = """
import sys
from headstart.data.contracts.model import Model
from headstart.data.contracts.store import FeatureStore
FeatureStore.open(sys.argv[2]).errors_by_kind()
Model.open(sys.argv[1]).examples()
"""
    command = [sys.executable, "-c", script, str(model), str(features)]
    assert [subprocess.run(command, check=False).returncode for _ in range(4)] == [0] * 4


def test_a_shard_is_sent_without_the_table_that_it_was_cut_from() -> None:
    table = pa.table({"id": [f"photo {n}" for n in range(10_000)], "label": pa.nulls(10_000)})
    receive, (number, stream) = Shard(3, table.slice(5000, 20)).__reduce__()  # as Ray asks it
    assert len(stream) < 2000
    assert receive(number, stream) == Shard(3, table.slice(5000, 20))


def test_extraction_imports_no_pandas(photos: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    """It takes 0.2 s and 50 MB of every worker."""
    program = f"""
import sys
from headstart.data.contracts.backbone import load_backbone
from headstart.data.storage.places import folder_at
from headstart.data.examples.opening import open_source
from headstart.extract.planning.plan import plan
from headstart.extract.worker import EmbeddingJob, EmbeddingWorker
source, backbone = open_source({str(photos)!r}), load_backbone({str(tiny_backbone)!r})
store = folder_at({str(tmp_path / "f")!r})
spec = backbone.spec
print_ = backbone.fingerprint
job = EmbeddingJob(
    root=source.folder,
    spec=spec.preprocessing,
    backbone=spec,
    fingerprint=print_,
    store=store,
)
worker = EmbeddingWorker(job, backbone.content)
for shard in plan(source, store, backbone.fingerprint).shards(2, 16):
    print(worker.work(shard).record.rows)
assert "pandas" not in sys.modules
"""
    (photos / "red" / "broken.png").write_bytes(b"not a picture")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sum(map(int, done.stdout.split())) == 60
