"""Kills a running extraction at random moments, again and again, and looks at what is left.

A round starts an extraction, does one thing to it at a random moment, runs it again, and compares
the store with that of an uninterrupted run. `make chaos` runs 25 rounds; the tests run one of each
kind. Every round is reproducible by its seed, as far as the machine's timing is.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

import conftest

from headstart.data.contracts.backbone import BackboneSpec
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.verification import verify

KINDS = ("worker", "driver", "raylet", "node", "disk", "process", "parent")
WITHOUT_RAY = ("process", "parent")  # of workers without Ray
PHOTOGRAPHS, WORKERS = 400, 2
LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by the machine's outer address, and waits forever
PATIENCE = 180.0  # seconds after which a step counts as hung


@dataclass(frozen=True)
class Round:
    """What happened in a round."""

    seed: int
    kind: str
    moment: float
    exit_code: int
    inferences: int
    seconds: float


def write_slow_backbone(path: Path) -> None:
    """Some convolutions, so that an extraction takes seconds; its file is small."""
    random_ = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    weights = []
    for layer in range(12):
        inside = 3 if layer == 0 else 48
        kernel = random_.normal(size=(48, inside, 3, 3)) / np.sqrt(9 * inside * 100 ** (layer == 0))
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{layer}"))
        nodes.append(
            helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"y{layer}"], pads=[1] * 4)
        )
        nodes.append(helper.make_node("Relu", [f"y{layer}"], [f"x{layer + 1}"]))
    nodes.append(helper.make_node("GlobalAveragePool", ["x12"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["embedding"]))
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 64, 64, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 48])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    spec = BackboneSpec(
        "slow", Preprocessing(64, 64), ("x12",), "avg", 48, "none (random)", "Apache-2.0"
    )
    helper.set_model_props(model, spec.to_metadata())
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class Chaos:
    """A source, a backbone, and what an uninterrupted run makes of them.

    Parameters
    ----------
    folder
        A new folder for everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.photos, self.backbone = folder, folder / "photos", folder / "b.onnx"
        for number in range(PHOTOGRAPHS):
            path = self.photos / "ab"[number % 2] / f"{number:04d}.png"
            conftest.paint(path, (90 + number % 99, 120, 60), number)
        (self.photos / "a" / "0002.png").write_bytes(b"broken")
        write_slow_backbone(self.backbone)
        self.cluster: Any = None
        started = time.monotonic()
        self.finish(self.start(folder / "whole"), 0)
        self.duration = time.monotonic() - started
        self.expected = self.embeddings(folder / "whole")

    def command(self, out: Path) -> list[str]:
        """The extraction, as a user would run it."""
        return [
            *(sys.executable, "-m", "extract", str(self.photos), "--backbone", str(self.backbone)),
            *("-o", str(out), "--workers", str(WORKERS)),
        ]

    def start(self, out: Path, address: str | None = "local") -> subprocess.Popen[str]:
        """Start an extraction as a process of its own."""
        return subprocess.Popen(
            [*self.command(out), *(("--address", address) if address else ())],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], code: int | None = None) -> str:
        """Wait for its end, which must come; what it said."""
        said, _ = process.communicate(timeout=PATIENCE)
        assert code is None or process.returncode == code, said
        assert "Traceback" not in said, said
        return said

    def embeddings(self, out: Path) -> dict[str, np.ndarray]:
        """The embeddings by id."""
        table = FeatureStore.open(out).read(["id", "embedding"])
        return dict(zip(table["id"].to_pylist(), embeddings_of(table), strict=True))

    def round(self, seed: int) -> Round:
        """One thing happens to an extraction at a random moment; then it is run again."""
        chance = random.Random(seed)  # noqa: S311, no secrets here
        kind, out = KINDS[seed % len(KINDS)], self.folder / f"round{seed}"
        started, moment = time.monotonic(), chance.uniform(0, 0.7)
        if kind == "disk":
            process = self._fill_the_disk(out, moment)
        elif kind == "node":
            process = self._lose_a_node(out, moment)
        else:
            process = self._kill(out, kind, moment)
        self.finish(self.start(out, None if kind in WITHOUT_RAY else "local"), 0)
        if kind == "disk":
            self._copy_off_the_disk(out)
        self._check(out, kind)
        inferences = FeatureStore.open(out).manifest.inferences
        took = time.monotonic() - started
        return Round(seed, kind, moment, process.returncode, inferences, took)

    def _kill(self, out: Path, kind: str, moment: float) -> subprocess.Popen[str]:
        process = self.start(out, None if kind in WITHOUT_RAY else "local")
        wait_for(lambda: list(out.glob("_lock*")))
        family = psutil.Process(process.pid)
        names = {"worker": "ray::RayWorker", "raylet": "raylet", "process": "python"}
        victims = [family]
        if kind in names:
            victims = wait_for(lambda: children(family, names[kind]), process)
        time.sleep(moment * self.duration * (0.5 if kind in names else 1.3))
        everyone = family.children(recursive=True)
        for victim in victims[:1]:
            kill(victim)
        said = self.finish(process)
        # A lost worker stops nothing; a job that stops reports why, unless it was killed itself.
        assert kind not in ("worker", "process") or process.returncode == 0, said
        for orphan in everyone:
            kill(orphan)
        return process

    def _lose_a_node(self, out: Path, moment: float) -> subprocess.Popen[str]:
        if self.cluster is None:
            from ray.cluster_utils import Cluster

            head = {"num_cpus": 0, "node_ip_address": LOOPBACK}
            self.cluster = Cluster(initialize_head=True, head_node_args=head)
            self.nodes = [self._add_node() for _ in range(WORKERS)]
            self.cluster.wait_for_nodes()
        process = self.start(out, self.cluster.address)
        wait_for(lambda: list((out / "_records").glob("*.begun-*")) or None, process)
        time.sleep(moment * self.duration * 0.5)
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)
        if moment > 0.35:  # sooner or later a new machine comes
            self.nodes.append(self._add_node())
        said = self.finish(process)
        assert process.returncode == 0, said
        while len(self.nodes) < WORKERS:
            self.nodes.append(self._add_node())
        return process

    def _add_node(self) -> Any:
        return self.cluster.add_node(num_cpus=1, node_ip_address=LOOPBACK)

    def _fill_the_disk(self, out: Path, moment: float) -> subprocess.Popen[str]:
        out.mkdir()
        size = 30_000 + int(moment * 80_000)  # a part is 20 kB
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", out)
        process = self.start(out)
        said = self.finish(process, 1)
        assert "No space left on device" in said, said
        assert "What is done is kept." in said, said
        mount("-o", "remount,size=64m", out)
        return process

    def _copy_off_the_disk(self, out: Path) -> None:
        kept = out.with_name(f"{out.name}-kept")
        subprocess.run(["cp", "-r", str(out), str(kept)], check=True)
        subprocess.run(["umount", str(out)], check=True)
        out.rmdir()
        kept.rename(out)

    def _check(self, out: Path, kind: str) -> None:
        found, state = self.embeddings(out), verify(out)
        assert found.keys() == self.expected.keys()
        for id_, embedding in self.expected.items():
            np.testing.assert_allclose(found[id_], embedding, rtol=1e-5, atol=1e-5)
        assert state.sound, state
        assert (state.rows, state.errors) == (PHOTOGRAPHS - 1, 1)
        files = {path.relative_to(out).parts[0][:5] for path in out.rglob("*")}
        assert files == {"_head", "_erro", "part-"}, files
        in_flight = 64 * (1 if kind in ("worker", "process") else WORKERS)
        inferences = FeatureStore.open(out).manifest.inferences
        assert PHOTOGRAPHS - 1 <= inferences <= PHOTOGRAPHS + in_flight, (kind, inferences)

    def close(self) -> None:
        """End the cluster, if there is one."""
        if self.cluster is not None:
            self.cluster.shutdown()


def children(family: psutil.Process, name: str) -> list[psutil.Process]:
    """The processes below another one whose name begins so."""
    found = []
    for process in family.children(recursive=True):
        try:
            if (process.cmdline() or [process.name()])[0].rpartition("/")[2].startswith(name):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def kill(process: psutil.Process) -> None:
    """End a process at once, if it is still the same one."""
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def wait_for(value: Any, process: subprocess.Popen[str] | None = None) -> Any:
    """Wait until a function returns something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := value()):
        assert time.monotonic() < deadline, "it did not happen"
        if process is not None and process.poll() is not None:
            return []
        time.sleep(0.02)
    return found


def mount(*arguments: object) -> None:
    """Call `mount`; needs the rights of an administrator, as in a container of a CI."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def main() -> None:
    """Run some rounds and print what happened."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--first", type=int, default=0, help="seed of the first round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        chaos = Chaos(Path(folder))
        print(f"{PHOTOGRAPHS} photographs, undisturbed: {chaos.duration:.1f} s", flush=True)
        print("seed  kind    moment  exit  inferences  seconds", flush=True)
        try:
            for seed in range(options.first, options.first + options.rounds):
                r = chaos.round(seed)
                print(
                    f"{r.seed:4}  {r.kind:6}  {r.moment:6.2f}  {r.exit_code:4}  "
                    f"{r.inferences:10}  {r.seconds:7.1f}",
                    flush=True,
                )
        finally:
            chaos.close()
    print(f"{options.rounds} rounds: every store is whole")


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    main()
