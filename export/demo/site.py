"""A static page that classifies in the browser, with onnxruntime-web and no server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from headstart.data.common.errors import Checklist, InputError, ModelError
from headstart.data.common.onnx_graphs import STANDARD_DOMAINS
from headstart.data.contracts.backbone import parse_onnx
from headstart.data.contracts.edge import Edge, load_edge, read_edge
from headstart.data.storage.files import check_parent, check_writable, local_path, write_whole
from headstart.export.demo.held_out import held_out
from headstart.export.demo.runtime import Runtime, find_packages, find_runtime
from headstart.export.edge.any_size import accept_any_size, check_any_size

PAGE = ("index.html", "style.css", "page.js", "shared.js", "worker.js", "icon.svg")
SITE, MODEL, SCRIPT, WASM = "site.json", "edge.onnx", "ort/ort.js", "ort/ort.wasm"
DOMAINS = {*STANDARD_DOMAINS, "com.microsoft"}  # of the operators that onnxruntime-web has
MOST_ASKED, LONGEST = 4, 60  # classes and characters of a heading that asks for them
MOST_BYTES = 2_000_000_000  # a browser's memory limit for a graph


@dataclass(frozen=True)
class Demo:
    """A page that was written."""

    folder: str
    size: int
    runtime: str


def write_demo(
    edge: str | Path,
    output: str | Path,
    title: str = "",
    runtime: str | Path | None = None,
    overwrite: bool = False,
    examples: str | Path | None = None,
) -> Demo:
    """Write the page to a folder; any web server can serve it.

    For photographs, its graph takes any size: if the edge model does not, resizing is added before
    it. Other modalities bring a page of their own.

    Parameters
    ----------
    title
        Its heading; by default, it asks for the classes.
    runtime
        An unpacked npm package onnxruntime-web; by default the tested version is downloaded.
    examples
        A model folder: up to six of its held-out photographs become part of the page, to try it.

    Raises
    ------
    InputError
        If there is no such edge model, it cannot run in a browser, or the folder is in use.
    HeadstartError
        If onnxruntime-web cannot be downloaded.
    """
    checks = Checklist()
    with checks.item():
        model = load_edge(edge)
        check_web(model)
        own = model.spec.modality.page_code()
        if not own and not model.any_size:
            check_any_size(model.spec.preprocessing)
    with checks.item():
        folder = local_path(output)
        _check_folder(folder, overwrite)
        check_writable(folder)
    checks.finish()
    shown = held_out(examples, model) if examples is not None else []
    found = find_runtime(runtime)
    more = find_packages(model.spec.modality.page_packages, runtime)
    model = model if own or model.any_size else with_resizing(model)
    (folder / SITE).unlink(missing_ok=True)  # an old page is invalid from here on
    written = {
        name: files("headstart.export.demo").joinpath("page", name).read_bytes() for name in PAGE
    }
    written |= own | more
    written |= {
        str(Path(MODEL).with_suffix(end)): data
        for end, data in model.spec.preprocessing.files().items()
    }
    written |= {MODEL: model.content, SCRIPT: found.script, WASM: found.wasm}
    pictures = {f"examples/{number}.jpg": each for number, each in enumerate(shown, 1)}
    written |= {name: each.content for name, each in pictures.items()}
    offered = [{"path": name, "label": each.label} for name, each in pictures.items()]
    # Last: it marks the page as complete.
    written[SITE] = _site(model, title or question(model.classes), found, offered)
    for name, data in written.items():
        write_whole(folder / name, data)
    return Demo(str(folder), sum(map(len, written.values())), found.version)


def with_resizing(edge: Edge) -> Edge:
    """The edge model with resizing added before it."""
    import onnx

    proto = parse_onnx(edge.path, edge.content)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    joined = accept_any_size(proto, edge.spec.preprocessing)
    del joined.metadata_props[:]
    onnx.helper.set_model_props(joined, metadata)
    return read_edge(edge.path, joined.SerializeToString())


def check_web(edge: Edge) -> None:
    """Raise `ModelError` if onnxruntime-web cannot run the graph."""
    proto = parse_onnx(edge.path, edge.content)
    foreign = sorted(
        {f"{n.domain}.{n.op_type}" for n in proto.graph.node if n.domain not in DOMAINS}
    )
    if foreign:
        raise ModelError(
            f"{edge.path} has operators that onnxruntime-web lacks: {', '.join(foreign)}",
            "Train another head, or export another backbone, without them.",
        )
    if len(edge.content) > MOST_BYTES:
        raise ModelError(
            f"{edge.path} has {len(edge.content) / 1e9:.1f} GB, too much for a browser",
            "Choose a smaller backbone.",
        )


def _check_folder(folder: Path, overwrite: bool) -> None:
    check_parent(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file", "Name a folder.")
    if (folder / SITE).exists():
        if not overwrite:
            raise InputError(f"{folder} already contains a page", "Pass --overwrite to replace it.")
    elif names := sorted(path.name for path in folder.iterdir()):
        raise InputError(
            f"{folder} contains other files, such as {names[0]}",
            "Choose an empty or new folder with -o.",
        )


def question(classes: tuple[str, ...]) -> str:
    """A heading that says what the page answers, such as `cat, dog or fox?`."""
    asked = f"{', '.join(classes[:-1])} or {classes[-1]}?"
    if len(classes) <= MOST_ASKED and len(asked) <= LONGEST:
        return asked
    return f"Which of {len(classes):,} classes is it?"


def _site(edge: Edge, title: str, runtime: Runtime, examples: Sequence[Mapping[str, str]]) -> bytes:
    about = json.loads(edge.labels()) | {
        "title": title,
        "model": {"path": MODEL, "bytes": len(edge.content)},
        **({"examples": examples} if examples else {}),
        **({"scripts": scripts} if (scripts := edge.spec.modality.page_scripts) else {}),
        "runtime": {"path": WASM, "bytes": len(runtime.wasm), "version": runtime.version},
    }
    return json.dumps(about, ensure_ascii=False, indent=1).encode()
