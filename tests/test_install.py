"""What a user has after an installation, in a folder whose modules have the names of our rooms."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbclient
import nbformat
import pytest
import tomllib
from conftest import COLOURS, paint, write_tiny_backbone
from test_cluster import free_port

import headstart
from headstart._run_room import ROOMS
from headstart.data.contracts.store import FeatureStore

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
THEIRS = "OWNER = 'the user'\n"
OWNER = "import data; print(data.OWNER)"


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a command as someone who has no clone of this repository."""
    outside = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=outside | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(*command: object, cwd: Path, **environment: str) -> str:
    """What a command prints that must end well."""
    ended = run(*command, cwd=cwd, **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@dataclass(frozen=True)
class Built:
    """The two files that a release consists of, and the wheel that the sdist gives."""

    wheel: Path
    sdist: Path
    from_sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Made by the build backend at the version that pyproject.toml pins."""
    folder = tmp_path_factory.mktemp("built")
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    backend = folder / "backend"
    succeed(*PIP, "install", "--target", backend, *requires, cwd=folder)
    build = (sys.executable, "-m", "hatchling", "build", "-d", folder)
    succeed(*build, "-t", "sdist", "-t", "wheel", cwd=ROOT, PYTHONPATH=str(backend))
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    again = (*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder / "again", sdist)
    succeed(*again, cwd=folder, PYTHONPATH=str(backend))
    return Built(wheel, sdist, folder / "again" / wheel.name)


@dataclass(frozen=True)
class Installed:
    """A virtual environment with our wheel, and a user's folder."""

    environment: Path
    folder: Path

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    @property
    def packages(self) -> Path:
        (folder,) = self.environment.glob("lib/python*/site-packages")
        return folder

    def succeed(self, *command: object) -> str:
        return succeed(*command, cwd=self.folder)


def install(wheel: Path, environment: Path) -> None:
    """Install the wheel alone: what it depends on is not fetched again."""
    venv.create(environment)
    pip = (*PIP, "--python", environment / "bin" / "python")
    succeed(*pip, "install", "--no-deps", "--no-index", wheel, cwd=environment)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Our wheel, beside the packages of these tests but not their headstart."""
    folder = tmp_path_factory.mktemp("user")
    result = Installed(folder / "environment", folder / "work")
    install(built.wheel, result.environment)
    # Only a path: the .pth files that lie there, such as our own, do not count.
    outer = Path(nbclient.__file__).parents[1]
    (result.packages / "outer.pth").write_text(f"{outer}\n")
    result.folder.mkdir()
    for name in ROOMS:
        (result.folder / f"{name}.py").write_text(THEIRS)
    for name in ("data", "classify"):
        (result.folder / name).mkdir()
        (result.folder / name / "__init__.py").write_text(THEIRS)
    (result.folder / "theirs.py").write_text(OWNER)
    for number, (name, colour) in enumerate(COLOURS.items()):
        for index in range(20):
            paint(folder / "photos" / name / f"{index}.png", colour, 100 * number + index)
    write_tiny_backbone(folder / "tiny.onnx")
    return result


def test_wheel_and_sdist_have_the_rooms_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel, zipfile.ZipFile(built.from_sdist) as other:
        names = wheel.namelist()
        assert sorted(names) == sorted(other.namelist())
    assert {name.split("/")[0] for name in names} == {
        "headstart",
        "headstart.pth",
        f"headstart-{version()}.dist-info",
    }
    sources = {
        f"headstart/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    sources |= {str(path.relative_to(ROOT)) for path in (ROOT / "headstart").glob("*.py")}
    assert {name for name in names if name.startswith("headstart/")} == sources
    with tarfile.open(built.sdist) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert sources <= inside
    assert {name.split("/")[0] for name in inside} <= {
        *("headstart", "headstart.pth", "constraints.txt", "CHANGELOG.md", "pyproject.toml"),
        *("README.md", "LICENSE", "PKG-INFO", ".gitignore"),
    }


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_extract_and_train_beside_modules_of_the_same_names(installed: Installed) -> None:
    extract = (installed.environment / "bin" / "headstart", "extract", "../photos")
    said = installed.succeed(*extract, "--backbone", "../tiny.onnx", "-o", "features")
    assert "embedded  60 examples" in said, said
    train = (installed.python, "-m", "classify", "train", "features", "-o", "model")
    assert "wrote model" in installed.succeed(*train)
    assert (installed.folder / "model" / "report.html").exists()


@pytest.mark.parametrize(
    "options",
    [("-m", "data"), ("-um", "data"), ("-mdata",), ("-X", "dev", "-W", "ignore", "-mdata")],
)
def test_python_m_runs_ours(installed: Installed, options: tuple[str, ...]) -> None:
    said = installed.succeed(installed.python, *options, "--help")
    assert "python -m data" in said


def test_the_command_has_every_room(installed: Installed) -> None:
    said = installed.succeed(installed.environment / "bin" / "headstart", "--help")
    assert all(f" {room} " in said for room in ROOMS)


def test_import_finds_the_users(installed: Installed) -> None:
    assert installed.succeed(installed.python, "-c", OWNER, "-m", "data") == "the user\n"
    assert installed.succeed(installed.python, "theirs.py", "-m", "data") == "the user\n"
    assert installed.succeed(installed.python, "-m", "theirs") == "the user\n"


def test_a_notebook_has_both(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = installed.environment / "share" / "jupyter" / "kernels" / "theirs"
    kernel.mkdir(parents=True)
    launch = f'["{installed.python}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernel / "kernel.json").write_text(f'{{"argv": {launch}, "display_name": "theirs"}}')
    monkeypatch.setenv("JUPYTER_PATH", str(kernel.parents[1]))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    cells = (
        OWNER,
        "import headstart; print(headstart.__file__)",
        "from headstart.data.contracts.store import FeatureStore as it; print(it.__module__)",
        "import classify, headstart.classify; print(classify.OWNER)",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    where = {"metadata": {"path": str(installed.folder)}}
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="theirs", resources=where).execute()
    assert ["".join(output.text for output in cell.outputs) for cell in notebook.cells] == [
        "the user\n",
        f"{installed.packages / 'headstart' / '__init__.py'}\n",
        "headstart.data.contracts.store\n",
        "the user\n",
    ]


@pytest.fixture
def cluster(installed: Installed, tmp_path: Path) -> Iterator[str]:
    """A head node that the user's own Python started; the address of its dashboard."""
    ray = (installed.python, "-m", "ray.scripts.scripts")
    succeed(*ray, "get-auth-token", "--generate", cwd=tmp_path)
    port = free_port()
    arguments = (
        *("start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={free_port()}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--num-cpus=2"),
        *(f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"),
    )
    path = f"{installed.environment / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    environment.pop("PYTHONPATH", None)
    log = tmp_path / "log"
    with log.open("wb") as file:
        head = subprocess.Popen(
            [*map(str, (*ray, *arguments))], env=environment, cwd=tmp_path, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(60)


def test_a_job_on_ray_in_the_users_folder(installed: Installed, cluster: str) -> None:
    store = installed.folder.parent / "by-job"
    photos, backbone = installed.folder.parent / "photos", installed.folder.parent / "tiny.onnx"
    submit = ("-m", "ray.scripts.scripts", "job", "submit", "--address", cluster)
    extract = ("python", "-m", "extract", photos, "--backbone", backbone, "-o", store)
    for entry, expected in (
        (("python", "theirs.py"), "the user\n"),
        (extract, "embedded  60 examples"),
    ):
        said = installed.succeed(installed.python, *submit, "--working-dir", ".", "--", *entry)
        assert expected in said, said
    assert FeatureStore.open(store).read().num_rows == 60


def test_an_uninstallation_leaves_nothing(built: Built, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    install(built.wheel, environment)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    assert {path.name for path in packages.iterdir()} == {
        "headstart",
        "headstart.pth",
        f"headstart-{version()}.dist-info",
    }
    (packages / "theirs.py").write_text(THEIRS)
    shutil.move(packages / "headstart", tmp_path / "aside")  # as if it had stopped half-way
    ended = run(python, "-m", "this", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    shutil.move(tmp_path / "aside", packages / "headstart")
    succeed(*PIP, "--python", python, "uninstall", "--yes", "headstart", cwd=tmp_path)
    assert list(packages.iterdir()) == [packages / "theirs.py"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-m data", "data"),
        ("-mdata", "data"),
        ("-um data -m classify", "data"),
        ("-umdata train", "data"),
        ("-X dev -m data", "data"),
        ("-uX dev -m data", "data"),
        ("-Wmodule -m data", "data"),
        ("-W module -m data", "data"),
        ("-uW m -m data", "data"),
        ("--check-hash-based-pycs always -m data", "data"),
        ("-c pass -m data", "None"),
        ("-cpass -m data", "None"),
        ("-uWm script.py -m data", "None"),
        ("script.py -m data", "None"),
        ("-- script.py -m data", "None"),
        ("- -m data", "None"),
        ("-Wmodule", "None"),
    ],
)
def test_what_stands_behind_m(tmp_path: Path, arguments: str, expected: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "from headstart._run_room import module_of\n"
        "print(module_of(sys.argv, sys.orig_argv), flush=True)\n"
        "os._exit(0)\n"
    )
    paths = os.pathsep.join((str(tmp_path), str(Path(headstart.__file__).parents[1])))
    python = Path(sys.executable).resolve()
    assert succeed(python, *arguments.split(), cwd=tmp_path, PYTHONPATH=paths) == f"{expected}\n"
