"""What tests share: an isolated home, one Ray, small backbones and photographs made by code."""

from __future__ import annotations

import atexit
import fcntl
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

# Before anything imports Ray: its token must not be the user's, and its mode must be on.
os.environ["HOME"] = tempfile.mkdtemp(prefix="headstart-home-")
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.pop("RAY_ADDRESS", None)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Threads that spin as they wait would slow down the other processes of the tests.
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}
# Hundreds of processes start, Ray's workers among them: they share what was compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# For the S3 server of the tests; set before Ray starts, so that its workers have them as well.
os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
os.environ |= {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

import numpy as np
import onnx
import pytest
from browser import chromium
from hypothesis import settings
from manifests import change_manifest, manifest_of
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from selenium import webdriver

from headstart.cli import app
from headstart.data.common.application.running import run
from headstart.data.common.ray_session import _small_and_local
from headstart.data.contracts.backbone import Backbone, BackboneSpec, load_backbone
from headstart.data.contracts.store import MANIFEST
from headstart.data.modalities.image.preprocessing import Preprocessing

atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
# A slow machine, or one that does something else as well, is no error.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")

# Two processes share the files (`make test`): those that take longest come first.
LONGEST = ("test_finetune", "test_export_zoo", "test_recipes", "test_cluster")
LONGEST += ("test_export_backbone", "test_corrections", "test_elsewhere", "test_update")
LONGEST += ("test_storage", "test_export_torch", "test_export_texts", "test_install")
LONGEST += ("test_texts", "test_extract", "test_pipelines", "test_trainable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that the processes end together."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one of the processes fills, and all read."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with open(f"{folder}.done", "a+") as done:
        fcntl.flock(done, fcntl.LOCK_EX)
        if not done.seek(0, os.SEEK_END):
            folder.mkdir(exist_ok=True)
            make(folder)
            done.write("done")
    return folder


def start_ray(cpus: int) -> None:
    """Start a local Ray in this process; what was there before is ended."""
    import ray

    ray.shutdown()
    with _small_and_local():
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
        )


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A local Ray of one CPU for all tests; `extract` uses a Ray that is running.

    Two processes share the tests, and each worker takes a second to start.
    """
    import ray

    start_ray(1)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def two_workers(local_ray: None) -> Iterator[None]:
    """Two CPUs instead, from the first test of a file that asks for it until its end."""
    start_ray(2)
    yield
    start_ray(1)


def as_if_no_ray_were_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small jobs run in processes of this machine, as they do where no Ray is running."""
    for module in ("data.workers.small", "extract.working"):
        monkeypatch.setattr(f"headstart.{module}.is_running", lambda: False)


class Outcome:
    """The result of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def exit_code_of(arguments: tuple[object, ...]) -> int:
    """Run `headstart ARGUMENTS...` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["headstart", *map(str, arguments)])
        try:
            run(app, "headstart")
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1
    return 0


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `headstart ARGUMENTS...` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = exit_code_of(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def tiny_model(size: int = 8, dim: int = 12, seed: int = 0) -> onnx.ModelProto:
    """A backbone's graph without its metadata: random projections of the pixels, then ReLU."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(size * size * 3, dim)).astype(np.float32) / 50
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["projected"]),
        helper.make_node("Relu", ["projected"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def write_tiny_backbone(path: Path, size: int = 8, dim: int = 12, seed: int = 0) -> Backbone:
    """A backbone file that needs no TensorFlow and runs fast."""
    model = tiny_model(size, dim, seed)
    spec = BackboneSpec(
        name="tiny",
        preprocessing=Preprocessing(size, size),
        layers=("flat",),
        pooling="none",
        dim=dim,
        weights="none (random)",
        licence="Apache-2.0",
    )
    helper.set_model_props(model, spec.to_metadata())
    path.write_bytes(model.SerializeToString())
    return load_backbone(path)


@pytest.fixture
def tiny_backbone(tmp_path: Path) -> Path:
    """Path of a tiny backbone file."""
    path = tmp_path / "tiny.onnx"
    write_tiny_backbone(path)
    return path


def paint(path: Path, colour: tuple[int, int, int], seed: int, size: int = 24) -> None:
    """A noisy photograph of mostly one colour."""
    noise = np.random.default_rng(seed).integers(-40, 40, (size, size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)


COLOURS = {"blue": (60, 80, 190), "green": (60, 170, 80), "red": (200, 60, 60)}


# Photographs, store, model and edge model are made once in each process. A test gets copies, with
# the stamps of the originals and the paths that they had if they had been made in its folder.


def copy(original: Path, folder: Path) -> Path:
    """Copy one of the originals into a test's folder."""
    copied = folder / original.name
    if original.is_file():
        return Path(shutil.copy2(original, copied))
    shutil.copytree(original, copied)
    for file in (*copied.glob("*.json"), *copied.glob("*.html")):
        file.write_text(file.read_text().replace(str(original.parent), str(folder)))
    if (copied / MANIFEST).exists():
        manifest = json.dumps(manifest_of(copied))
        change_manifest(copied, json.loads(manifest.replace(str(original.parent), str(folder))))
    return copied


@pytest.fixture(scope="session")
def original_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `photos` is a copy of."""
    folder = tmp_path_factory.mktemp("originals") / "photos"
    for number, (name, colour) in enumerate(COLOURS.items()):
        for index in range(20):
            paint(folder / name / f"{index:02d}.png", colour, 100 * number + index)
    return folder


@pytest.fixture(scope="session")
def original_features(original_photos: Path, local_ray: None) -> Path:
    """What `features` is a copy of."""
    from headstart.extract.job import extract

    folder = original_photos.parent
    write_tiny_backbone(folder / "tiny.onnx")
    extract(original_photos, folder / "tiny.onnx", folder / "features")
    return folder / "features"


@pytest.fixture(scope="session")
def original_model(original_features: Path) -> Path:
    """What `model` is a copy of."""
    from headstart.classify.training import train

    train(original_features, original_features.parent / "model")
    return original_features.parent / "model"


@pytest.fixture(scope="session")
def original_edge(original_model: Path) -> Path:
    """What `edge` is a copy of; its labels stand beside it."""
    from headstart.export.edge.classifier import export_classifier

    folder = original_model.parent
    export_classifier(original_model, folder / "tiny.onnx", folder / "edge.onnx")
    return folder / "edge.onnx"


@pytest.fixture
def photos(original_photos: Path, tmp_path: Path) -> Path:
    """One folder per class: 20 noisy photographs of each of three colours."""
    return copy(original_photos, tmp_path)


@pytest.fixture
def features(original_features: Path, photos: Path, tiny_backbone: Path, tmp_path: Path) -> Path:
    """The feature store of `photos` by the tiny backbone."""
    return copy(original_features, tmp_path)


@pytest.fixture
def model(original_model: Path, features: Path, tmp_path: Path) -> Path:
    """A model folder trained on `features`."""
    return copy(original_model, tmp_path)


@pytest.fixture
def edge(original_edge: Path, model: Path, tmp_path: Path) -> Path:
    """The edge model of `model` and the tiny backbone."""
    copy(original_edge.with_suffix(".labels.json"), tmp_path)
    return copy(original_edge, tmp_path)


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """One Chromium for all tests of pages."""
    with chromium() as driver:
        yield driver


def make_bf16(features: Path) -> None:
    """Turn a store into what a CPU that computes in bf16 would have made."""
    manifest = manifest_of(features)
    assert manifest["fingerprint"]["precision"] == "fp32"
    manifest["fingerprint"]["precision"] = "bf16"
    change_manifest(features, manifest)


def told(*arguments: object) -> None:
    """Run `headstart ARGUMENTS...`, which says what it wrote."""
    said = io.StringIO()
    with redirect_stdout(said):
        assert exit_code_of(arguments) == 0
    assert "wrote" in said.getvalue()


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with its ImageNet weights, by its command."""

    def make(folder: Path) -> None:
        told("export", "backbone", "efficientnet_lite0", "-o", folder / "backbone.onnx")

    return once(tmp_path_factory, "lite0", make) / "backbone.onnx"


@pytest.fixture(scope="session")
def digits_job(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """A folder with `digits`, `backbone.onnx`, `features` and `model`: the main job up to the
    model, by its commands; 112 pixels are enough for scans of 8."""

    def make(folder: Path) -> None:
        digits, backbone = folder / "digits", folder / "backbone.onnx"
        features, model = folder / "features", folder / "model"
        told("data", "sample", "digits", digits)
        told("export", "backbone", "efficientnet_lite0", "--size", 112, "-o", backbone)
        told("extract", digits, "--backbone", backbone, "-o", features)
        told("classify", "train", features, "-o", model, "--no-report")

    return once(tmp_path_factory, "job", make)
