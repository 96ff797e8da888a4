"""Several nodes on one machine: they share the work, leave and join, or see another disk."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_tiny_backbone
from test_pool import many

from headstart.classify.prediction.edge import answer_source
from headstart.data.common.ray_session import _small_and_local
from headstart.data.contracts.backbone import load_backbone
from headstart.data.contracts.edge import load_edge
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.data.examples.opening import open_source
from headstart.data.storage.places import folder_at
from headstart.data.workers.pool import MACHINE_LOST, MACHINE_SILENT
from headstart.data.workers.shards import Shard
from headstart.extract.engines.runtimes import EngineConfig
from headstart.extract.worker import EmbeddingJob, EmbeddingWorker

pytestmark = [pytest.mark.alone]
# In a folder with modules of the user's own; workers go on from their first shard once `go` exists.
PROGRAM = """
import sys
import time
from pathlib import Path

from headstart.data.workers import pool
from headstart.extract import job, working
from headstart.extract.options import ExtractOptions
from headstart.extract.worker import EmbeddingJob, EmbeddingWorker

photos, backbone, out, address, folder = sys.argv[1:6]
engine = sys.argv[6] if len(sys.argv) > 6 else "onnxruntime"
pool.GROW_SECONDS = 0.5

def note(what):
    import ray
    with open(folder + "/log", "a") as log:
        log.write(what + " " + ray.get_runtime_context().get_node_id() + "\\n")

class Waiting(EmbeddingWorker):
    def work(self, *task):
        done = super().work(*task)
        note("done")
        while not Path(folder, "go").exists():
            time.sleep(0.1)
        return done

class OurJob(EmbeddingJob):
    def worker(self, content):
        note("start")
        super().worker(content)
        return Waiting(self, content)

working.EmbeddingJob = OurJob
done = job.extract(photos, backbone, out, ExtractOptions(address=address, engine=engine))
print(done.embedded, done.inferences, done.workers, done.all_inferences)
"""

# The same for predictions by an edge model.
PREDICT = """
import sys
import time
from pathlib import Path

from headstart.classify.prediction import edge
from headstart.classify.prediction.edge_worker import EdgeJob, EdgeSession, EdgeWorker
from headstart.data.workers import pool

photos, model, out, address, folder = sys.argv[1:]
pool.GROW_SECONDS, edge.SMALLEST_SHARD = 0.5, 8

class Waiting(EdgeWorker):
    def work(self, *task):
        import ray
        done = super().work(*task)
        with open(folder + "/log", "a") as log:
            log.write("done " + ray.get_runtime_context().get_node_id() + "\\n")
        while not Path(folder, "go").exists():
            time.sleep(0.1)
        return done

class OurJob(EdgeJob):
    def worker(self, content):
        return Waiting(self, EdgeSession(self.path, content, self.spec))

edge.EdgeJob = OurJob
edge.predict_examples(model, photos, out, options=edge.PredictOptions(address=address))
"""
# Prints for each node how often it got the backbone, by the bytes that its object store was given.
COPIES = """
import sys

import ray
from ray._private.internal_api import node_stats
from headstart.extract import job, working
from headstart.extract.options import ExtractOptions

photos, backbone, out, address, _ = sys.argv[1:]

def stored():
    nodes = [each for each in ray.nodes() if each["Alive"]]
    return {
        each["NodeID"]: node_stats(
            each["NodeManagerAddress"], each["NodeManagerPort"], False
        ).store_stats.cumulative_created_bytes
        for each in nodes
    }

class Counting(working.WorkerPool):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.before = stored()  # ray.put has been called, on the first node

    def run(self, *arguments):
        yield from super().run(*arguments)
        size = job.load_backbone(backbone).content
        for node, after in stored().items():
            print(node, round((after - self.before[node]) / len(size), 2))

working.WorkerPool = Counting
print(job.extract(photos, backbone, out, ExtractOptions(address=address)).workers)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head node and another one, of one CPU each."""
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray.cluster_utils import Cluster

    ensure_token_if_auth_enabled()  # as ray.init does; all nodes and tests of this process share it
    with pytest.MonkeyPatch.context() as patch, _small_and_local():
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # as docs/security.md says
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **OWN})
        try:
            found.add_node(num_cpus=1, **OWN)
            yield found
        finally:
            found.shutdown()


OWN = {"node_ip_address": "127.0.0.1", "include_dashboard": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory whose modules are named like ours."""
    place = tmp_path_factory.mktemp("work")
    for name, text in (("program", PROGRAM), ("predict", PREDICT), ("copies", COPIES)):
        (place / f"{name}.py").write_text(text)
    for name in ("data", "extract", "classify", "cluster"):
        (place / f"{name}.py").write_text("raise SystemExit('this is not what was meant')\n")
    return place


def run(
    cluster: Any, folder: Path, *arguments: object, program: str = "program"
) -> subprocess.Popen:
    for name in ("go", "log"):
        (folder / name).unlink(missing_ok=True)
    photos, backbone, out, *more = arguments
    words = [photos, backbone, out, cluster.address, folder, *more]
    return subprocess.Popen(
        [sys.executable, f"{program}.py", *map(str, words)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=(folder / "err").open("w"),
        text=True,
    )


def said(folder: Path, process: subprocess.Popen) -> tuple[str, str]:
    """What a process wrote to its two outputs until its end."""
    out, _ = process.communicate()
    return out, (folder / "err").read_text()


def log_of(folder: Path, what: str) -> Counter[str]:
    """How often each node noted something."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(line.split()[1] for line in lines if line.startswith(what))


def wait_for(done: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError((process.args, process.communicate()))
        time.sleep(0.1)


def content(store: Path) -> tuple[list[dict], np.ndarray]:
    table = FeatureStore.open(store).read().sort_by("id")
    return table.drop_columns(["embedding"]).to_pylist(), embeddings_of(table)


def test_nodes_share_join_and_leave(
    cluster: Any, folder: Path, photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    many(photos)
    process = run(cluster, folder, photos, tiny_backbone, tmp_path / "four")
    wait_for(lambda: len(log_of(folder, "done")) == 2, process)
    joined = [cluster.add_node(num_cpus=1, **OWN).node_id for _ in range(2)]
    wait_for(lambda: set(joined) <= set(log_of(folder, "done")), process)
    (second,) = (each for each in cluster.worker_nodes if each.node_id not in joined)
    cluster.remove_node(second, allow_graceful=False)
    wait_for(lambda: "it is replaced" in (folder / "err").read_text(), process)
    (folder / "go").touch()
    out, err = said(folder, process)
    assert process.returncode == 0, err
    embedded, inferences, _, all_inferences = map(int, out.splitlines()[-1].split())
    assert embedded == 300 < inferences == all_inferences
    lost = f"({MACHINE_LOST}|{MACHINE_SILENT})"
    assert re.search(f"died near '.*': {lost}; it is replaced", err), err
    rows, four = content(tmp_path / "four")

    backbone, source = load_backbone(tiny_backbone), open_source(photos)
    job = EmbeddingJob(
        root=source.folder,
        spec=backbone.spec.preprocessing,
        backbone=backbone.spec,
        fingerprint=backbone.fingerprint,
        store=folder_at(tmp_path / "one"),
        config=EngineConfig("fp32", "onnxruntime"),
    )
    EmbeddingWorker(job, backbone.content).work(Shard(0, source.examples))
    (part,) = (tmp_path / "one").glob("part-*.parquet")
    one = pq.read_table(part).sort_by("id")
    assert one.drop_columns(["embedding"]).to_pylist() == rows
    np.testing.assert_allclose(embeddings_of(one), four, atol=1e-6)


def test_predictions_use_nodes_that_join_and_need_one_source(
    cluster: Any, folder: Path, photos: Path, edge: Path, tmp_path: Path
) -> None:
    many(photos)
    out = tmp_path / "answers.parquet"
    process = run(cluster, folder, photos, edge, out, program="predict")
    before = len(cluster.list_all_nodes())
    wait_for(lambda: len(log_of(folder, "done")) == before, process)
    joined = cluster.add_node(num_cpus=1, **OWN)
    wait_for(lambda: joined.node_id in log_of(folder, "done"), process)
    (folder / "go").touch()
    _, err = said(folder, process)
    assert process.returncode == 0, err
    found = pq.read_table(out)
    assert found.num_rows == 300
    alone = answer_source(load_edge(edge), open_source(photos), here=True)
    assert found["prediction"].equals(alone["prediction"])

    (folder / "photos").unlink(missing_ok=True)
    (folder / "photos").symlink_to(photos)
    process = run(
        cluster, folder, "/proc/self/cwd/photos", edge, tmp_path / "b.csv", program="predict"
    )
    _, err = said(folder, process)
    assert not log_of(folder, "done")
    nodes = len(cluster.list_all_nodes())
    assert err.endswith(
        f"/proc/self/cwd/photos/blue/00.png does not exist on {nodes} nodes of the cluster "
        f"({', '.join(['127.0.0.1'] * nodes)})\n"
        "  Put the source on a disk that all nodes share, or into object storage.\n"
    )
    cluster.remove_node(joined)


def test_a_node_gets_the_backbone_once_whatever_its_workers(
    cluster: Any, folder: Path, photos: Path, tmp_path: Path
) -> None:
    many(photos)
    write_tiny_backbone(tmp_path / "large.onnx", size=32, dim=128)  # 1.6 MB
    node = cluster.add_node(num_cpus=3, **OWN)
    process = run(
        cluster, folder, photos, tmp_path / "large.onnx", tmp_path / "f", program="copies"
    )
    out, err = said(folder, process)
    assert process.returncode == 0, err
    *nodes, workers = out.splitlines()
    copies = {name: float(count) for name, count in map(str.split, nodes)}
    assert int(workers) == len(copies) + 2
    assert copies[node.node_id] == pytest.approx(1, abs=0.2)  # for three workers
    assert copies[cluster.head_node.node_id] == pytest.approx(0, abs=0.2)  # it was put there
    assert all(count < 1.2 for count in copies.values())
    cluster.remove_node(node)


def test_an_engine_for_gpus_runs_where_one_is_and_says_what_is_missing(
    cluster: Any, folder: Path, photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1, num_gpus=1, **OWN)
    process = run(cluster, folder, photos, tiny_backbone, tmp_path / "f", "cuda")
    _, err = said(folder, process)
    cluster.remove_node(node)
    assert err.endswith(
        "the installed ONNX Runtime has no CUDAExecutionProvider\n"
        "  Replace onnxruntime by onnxruntime-gpu where the workers run, or choose another "
        "--engine.\n"
        "  What is done is kept. Run the same command again to continue.\n"
    )
    assert set(log_of(folder, "start")) == {node.node_id}
    assert not list((tmp_path / "f").glob("*.parquet"))


def test_a_disk_that_nodes_do_not_share_is_refused_before_the_start(
    cluster: Any, folder: Path, photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    """`/proc/self/cwd` is the folder in which a process runs: that of the nodes is another one."""
    process = run(cluster, folder, photos, tiny_backbone, "/proc/self/cwd/features")
    _, err = said(folder, process)
    nodes = len(cluster.list_all_nodes())
    assert err.endswith(
        f"the output /proc/self/cwd/features is on a disk that {nodes} nodes of the cluster "
        f"({', '.join(['127.0.0.1'] * nodes)}) do not share with this process\n"
        "  Choose a folder on a disk that all nodes share, or an address in object storage, "
        "with -o.\n"
    )
    assert not (folder / "features" / "_records").exists()
    (folder / "photos").unlink(missing_ok=True)
    (folder / "photos").symlink_to(photos)
    process = run(cluster, folder, "/proc/self/cwd/photos", tiny_backbone, tmp_path / "f")
    _, err = said(folder, process)
    assert err.endswith(
        f"/proc/self/cwd/photos/blue/00.png does not exist on {nodes} nodes of the cluster "
        f"({', '.join(['127.0.0.1'] * nodes)})\n"
        "  Put the source on a disk that all nodes share, or into object storage.\n"
    )
    assert not log_of(folder, "start")
