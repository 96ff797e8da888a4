"""`export demo`: what is written, where the runtime comes from, and the words for mistakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
from elsewhere import WEB

from headstart.data.common.errors import HeadstartError, InputError, MissingPackageError, ModelError
from headstart.data.contracts.edge import load_edge
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.data.storage.files import digest
from headstart.export.demo.runtime import SCRIPT, SUMS, VERSION, WASM, find_runtime
from headstart.export.demo.site import check_web, with_resizing, write_demo
from headstart.export.edge.classifier import export_classifier

ANSWER = """#!/bin/sh
case "$1 $2 $3" in "pack onnxruntime-web@{version} --pack-destination") cp {archive} "$4";; esac
{more}
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put an npm on the path that packs what is given, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def make(files: dict[str, bytes], more: str = "") -> None:
        package = tmp_path / "packed" / "package"
        shutil.rmtree(package.parent, ignore_errors=True)
        for name, content in files.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_bytes(content)
        archive = tmp_path / "onnxruntime-web.tgz"
        package.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "czf", archive, "-C", package.parent, "package"], check=True)
        command = tmp_path / "bin" / "npm"
        command.parent.mkdir(exist_ok=True)
        command.write_text(ANSWER.format(version=VERSION, archive=archive, more=more))
        command.chmod(0o755)

    return make


def test_what_is_written(edge: Path, tmp_path: Path, command: Callable) -> None:
    site = tmp_path / "site"
    answer = command("export", "demo", edge, "-o", site, "--runtime", WEB, "--title", "Colours")
    assert answer.code == 0, answer.err
    assert f"python -m http.server --bind 127.0.0.1 --directory {site} 8000" in answer.out.replace(
        "\n", ""
    )
    files = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert files == {
        *("index.html", "style.css", "page.js", "shared.js", "worker.js", "icon.svg"),
        *("site.json", "edge.onnx", "ort/ort.js", "ort/ort.wasm"),
    }
    about = json.loads((site / "site.json").read_text())
    assert (about["title"], about["classes"]) == ("Colours", ["blue", "green", "red"])
    assert about["model"] == {"path": "edge.onnx", "bytes": (site / "edge.onnx").stat().st_size}
    assert about["runtime"]["version"] == VERSION
    assert about["image"]["any_size"] is True
    again = command("export", "demo", edge, "-o", site, "--runtime", WEB)
    assert again.err.endswith(
        f"error: {site} already contains a page\n  Pass --overwrite to replace it.\n"
    )
    assert command("export", "demo", edge, "-o", site, "--runtime", WEB, "--overwrite").code == 0


def test_the_resizing_is_put_before_a_model_that_has_none(edge: Path, photos: Path) -> None:
    wide = with_resizing(load_edge(edge))
    assert wide.any_size
    assert wide.classes == load_edge(edge).classes
    one, other = (onnxruntime.InferenceSession(m.content) for m in (load_edge(edge), wide))
    for photo in list(photos.rglob("*.png"))[:9]:
        small = decode(photo.read_bytes(), Preprocessing(8, 8))[None]
        whole = decode(photo.read_bytes(), None)[None]
        expected, got = one.run(None, {"image": small}), other.run(None, {"image": whole})
        assert expected[0] == got[0]
        assert abs(expected[1] - got[1]).max() < 1e-6


def test_what_is_no_page_and_no_edge_model(
    edge: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    answer = command("export", "demo", tiny_backbone, "-o", tmp_path / "mine")
    assert answer.code == 2
    assert answer.err.endswith(
        f"error: 1. {tiny_backbone} is a headstart backbone, not an edge model\n"
        "  Write one with: python -m export classifier MODEL --backbone backbone.onnx "
        "-o edge.onnx\n"
        f"2. {tmp_path / 'mine'} contains other files, such as letter.txt\n"
        "  Choose an empty or new folder with -o.\n"
    )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    with pytest.raises(InputError) as caught:
        write_demo(edge, tmp_path / "mine" / "letter.txt", runtime=WEB)
    assert str(caught.value) == f"{tmp_path / 'mine' / 'letter.txt'} is a file\n  Name a folder."
    with pytest.raises(ModelError) as missing:
        write_demo(tmp_path / "no.onnx", tmp_path / "site")
    assert str(missing.value).startswith(f"{tmp_path / 'no.onnx'}: no such edge model\n")


def test_operators_that_the_web_lacks_are_said_at_export(edge: Path) -> None:
    model = onnx.load(edge)
    model.graph.node.append(onnx.helper.make_node("Wavelet", ["image"], ["w"], domain="my.signal"))
    with pytest.raises(ModelError) as caught:
        check_web(replace(load_edge(edge), content=model.SerializeToString()))
    assert str(caught.value) == (
        f"{edge} has operators that onnxruntime-web lacks: my.signal.Wavelet\n"
        "  Train another head, or export another backbone, without them."
    )


def test_a_rule_without_a_graph_is_said(model: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    edge = tmp_path / "edge.onnx"
    export_classifier(model, tiny_backbone, edge)
    proto = onnx.load(edge)
    for entry in proto.metadata_props:
        if entry.key == "headstart.interpolation":
            entry.value = "lanczos"
    onnx.save(proto, edge)
    with pytest.raises(InputError, match="a graph cannot resize with lanczos"):
        write_demo(edge, tmp_path / "site", runtime=WEB)


def test_the_runtime_comes_by_npm_once(npm: Callable, tmp_path: Path) -> None:
    whole = {name: (WEB / name).read_bytes() for name in SUMS}
    npm(whole)
    first = find_runtime(None)
    assert (first.version, first.script, first.wasm) == (VERSION, whole[SCRIPT], whole[WASM])
    (tmp_path / "bin" / "npm").unlink()
    assert find_runtime(None) == first  # from the cache
    cached = tmp_path / "cache" / "headstart" / f"onnxruntime-web-{VERSION}"
    (cached / SCRIPT).write_bytes(b"alert(1)")
    with pytest.raises(HeadstartError) as caught:
        find_runtime(None)
    assert str(caught.value) == (
        f"{SCRIPT} of onnxruntime-web {VERSION} is not the file that was tested (sha256 "
        f"{digest(b'alert(1)')[:12]}, not 11e64bd8ffe1)\n  Delete {cached} and try again."
    )


def test_an_npm_that_brings_something_else(npm: Callable, tmp_path: Path) -> None:
    instead = f"or pass --runtime FOLDER, an unpacked npm package onnxruntime-web {VERSION}"
    for files, more, said in (
        (
            dict.fromkeys(SUMS, b"x"),
            "",
            f"{SCRIPT} of onnxruntime-web {VERSION} is not the file that was tested (sha256 "
            f"2d711642b726, not 11e64bd8ffe1)\n  Try again, {instead}.",
        ),
        (
            {"package.json": b"{}"},
            "",
            f"npm's package onnxruntime-web {VERSION} is incomplete: \"filename "
            f"'package/{SCRIPT}' not "
            f'found"\n  Try again, {instead}.',
        ),
        (
            {},
            "echo 'npm error network' >&2; exit 1",
            f"npm could not download onnxruntime-web {VERSION}: npm error network\n"
            f"  Try again where npm reaches its registry, {instead}.",
        ),
    ):
        npm(files, more)
        with pytest.raises(HeadstartError) as caught:
            find_runtime(None)
        assert str(caught.value) == said
    assert not list((tmp_path / "cache").rglob("*.wasm"))


def test_no_npm(npm: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(MissingPackageError) as caught:
        find_runtime(None)
    assert str(caught.value) == (
        "the page needs onnxruntime-web, which npm downloads, but npm is not installed\n"
        "  Install npm, or pass --runtime FOLDER, an unpacked npm package onnxruntime-web "
        f"{VERSION}."
    )


def test_a_runtime_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_runtime(tmp_path / "no")
    assert str(caught.value).startswith(
        f"--runtime {tmp_path / 'no'} is not the package onnxruntime-web: "
    )
    (tmp_path / "package.json").write_text('{"name": "left-pad"}')
    with pytest.raises(InputError) as other:
        find_runtime(tmp_path)
    assert str(other.value) == (
        f"--runtime {tmp_path} is the package 'left-pad', not onnxruntime-web\n"
        "  Name the folder node_modules/onnxruntime-web."
    )
