"""`python -m export`: parse, call, print."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.data.common import console
from headstart.data.common.application.arguments import AsJson, GroupedCommand, Overwrite, expanded
from headstart.data.common.console import counted
from headstart.export.arguments import (
    EdgeArguments,
    Input,
    NetworkArguments,
    Scaling,
    Size,
    SoundArguments,
    Trust,
    Weights,
)
from headstart.export.measure import cli as cli_measure

if TYPE_CHECKING:
    from headstart.export.backbone.build import BackboneExport

app = console.new_app("Write ONNX files: backbones and classifiers.")

Output = Annotated[str, typer.Option("-o", "--output", help="ONNX file to write.")]


@app.command(cls=GroupedCommand)
@expanded
def backbone(
    name: Annotated[
        str,
        typer.Argument(
            help="A name of `export list`, timm:NAME, torchvision:NAME, hf:FOLDER (pictures or "
            "texts), a .keras, .h5 or .onnx file, or a SavedModel's folder.",
            show_default=False,
        ),
    ] = "",
    *,
    output: Output,
    arguments: NetworkArguments,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    sounds: SoundArguments,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a pretrained network, with its preprocessing, as a backbone file."""
    from headstart.export.backbone.build import export_backbone

    name = arguments.named(name, "the NAME of a network")
    start = time.monotonic()
    lower, sound = arguments.lower(precision), sounds.options()
    with console.status(f"building, converting and checking {name}"):
        written = export_backbone(
            output, name, arguments.network, arguments.embedding, lower, overwrite, sound
        )
    _show_backbone(written, time.monotonic() - start, as_json)


def _show_backbone(written: BackboneExport, took: float, as_json: bool) -> None:
    file, spec, lower = written.backbone, written.backbone.spec, written.quantized
    if as_json:
        about = {name: getattr(spec, name) for name in spec.__dataclass_fields__}
        about |= {
            "preprocessing": spec.preprocessing.to_json(),
            "path": file.path,
            "sha256": file.fingerprint.sha256,
        }
        about |= {"bytes": len(file.content), "parity": written.parity}
        about |= {"warnings": written.warnings}
        if lower:
            about["quantized"] = lower.to_json() | {"warnings": lower.warnings(spec)}
        console.show_json(about)
        return
    made = f"{', '.join(spec.layers)} ({spec.pooling} pooling)"
    if spec.views != "none":
        made += f", mean over views ({spec.views})"
    rows = {
        "backbone": str(file.fingerprint),
        "weights": f"{spec.weights}, licence {spec.licence}",
        "layers": made + (", signed square root" if spec.power else ""),
        "embedding": f"float32 [batch, {spec.dim}]",
        "parity": f"at most {written.parity:.0e} relative difference from the original",
    }
    if lower:
        size, whole = console.human_bytes(len(lower.content)), console.human_bytes(lower.fp32_bytes)
        ragged, of = spec.preprocessing.ragged, spec.modality.plural
        noise = "random texts" if ragged else "random noise"
        what = ("random images" if of == "photographs" else noise) if lower.random else of
        unit = "texts" if ragged else "img"
        rows["size"] = f"{size}, fp32 {whole}"
        rows["speed"] = (
            f"{lower.speed:.0f} {unit}/s, fp32 {lower.fp32_speed:.0f}: {lower.ratio:.2f} times as "
            "fast (this machine, one thread)"
        )
        rows["cosine"] = (
            f"to fp32: mean {lower.cosine_mean:.4f}, worst {lower.cosine_worst:.4f} "
            f"({lower.photographs} {what})"
        )
    rows["took"] = f"{took:.1f} s"
    rows["wrote"] = f"{console.place(file.path)} ({console.human_bytes(len(file.content))})"
    console.show(rows)
    for warning in written.warnings:
        console.note(f"warning: {warning}")


@app.command()
def layers(
    name: Annotated[str, typer.Argument(help="A network, as for `export backbone`.")],
    weights: Weights = "none",
    size: Size = None,
    scaling: Scaling = "none",
    input: Input = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """List a network's layers, with their shapes and the cost up to each."""
    from headstart.export.networks.layers import list_layers
    from headstart.export.options import BackboneOptions

    options = BackboneOptions(weights=weights, size=size, scaling=scaling, input=input, trust=trust)
    with console.status(f"building and measuring {name}"):
        found = list_layers(name, options)
    if as_json:
        console.show_json([asdict(layer) for layer in found])
        return
    rows = [
        [
            layer.name,
            layer.kind,
            "x".join(map(str, layer.shape)),
            f"{layer.multiply_adds / 1e6:,.1f}",
            f"{layer.parameters * 4 / 1e6:,.1f}",
        ]
        for layer in found
    ]
    console.show_table(["layer", "kind", "shape", "million mult-adds", "MB"], rows)


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or timm:PATTERN.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the networks by name, and whether their weights are on this machine."""
    from headstart.export.networks.catalogue import list_known

    rows = list_known(pattern)
    if as_json:
        console.show_json(rows)
        return
    columns = [
        "name",
        "size",
        "embedding",
        "Mparams",
        "top-1",
        "licence",
        "weights",
    ]
    table = [
        [
            *(row["name"], row["size"], row["dim"] or "", row["parameters"] or ""),
            *(f"{row['top1']:.1f} %" if row["top1"] else "", row["licence"]),
            "here" if row["weights_here"] else "",
        ]
        for row in rows
    ]
    console.show_table(columns, table)
    console.note(
        "Also: timm:NAME (`export list timm:PATTERN`), torchvision:NAME, hf:FOLDER, and your own "
        ".keras, .h5 and .onnx files and SavedModels. If the weights are not on this machine: "
        "--weights FILE."
    )


@app.command()
@expanded
def classifier(
    model: Annotated[str, typer.Argument(help="Model folder.")],
    backbone: Annotated[str, typer.Option(help="Backbone file that the features were made with.")],
    output: Output,
    arguments: EdgeArguments,
    source: Annotated[
        str | None, typer.Option(help="Where the files are now, if they were moved.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write backbone and head as one ONNX file, checked against training."""
    from headstart.export.edge.classifier import export_classifier

    start = time.monotonic()
    edge = export_classifier(
        model,
        backbone,
        output,
        arguments.edge(overwrite),
        arguments.gate(source),
    )
    if as_json:
        console.show_json(asdict(edge))
        return
    parity = edge.parity
    console.show(
        {
            "compared": f"{counted(parity.examples, 'example')} from their files, "
            f"{parity.held_out:,} of them held out of training",
            "reference": parity.reference,
            "difference": f"at most {parity.largest_difference:.1e} in a probability, "
            f"{counted(len(parity.changed), 'label')} changed",
            "took": f"{time.monotonic() - start:.1f} s",
            "wrote": f"{console.place(edge.path)} ({console.human_bytes(edge.size)}), "
            f"{console.place(edge.labels)}",
        }
    )
    if edge.trained_in:
        console.note(
            f"the features were computed in {edge.trained_in}, but the edge model computes in "
            f"fp32; measure the effect: python -m export measure {console.place(edge.path)} "
            f"--model {model}"
        )
    if parity.changed:
        console.note(f"accepted although their labels changed: {', '.join(parity.changed[:20])}")


@app.command()
def demo(
    edge: Annotated[str, typer.Argument(help="Edge model, as `export classifier` writes it.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder to write.")],
    title: Annotated[
        str, typer.Option(help="Heading of the page; default: it asks for the classes.")
    ] = "",
    runtime: Annotated[
        str | None,
        typer.Option(help="Unpacked npm package onnxruntime-web; fetched by npm by default."),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(help="Model folder: the page shows six of its held-out photographs to try."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a static page that classifies in the browser."""
    from headstart.export.demo.site import write_demo

    with console.status("writing the page"):
        written = write_demo(edge, output, title, runtime, overwrite, examples)
    if as_json:
        about = {"wrote": str(written.folder), "bytes": written.size, "runtime": written.runtime}
        console.show_json(about)
        return
    place = console.place(written.folder)
    console.show(
        {
            "runs on": f"onnxruntime-web {written.runtime}, one thread, no network",
            "wrote": f"{place} ({console.human_bytes(written.size)})",
            "open": f"python -m http.server --bind 127.0.0.1 --directory {place} 8000, "
            "then open http://127.0.0.1:8000",
        }
    )


@app.command()
def code(
    edge: Annotated[str, typer.Argument(help="Edge model, as `export classifier` writes it.")],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Folder; by default that of the edge model."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write code that classifies with EDGE: in Python and Node, and except for texts in C."""
    from headstart.export.edge.ready_code import write_code

    paths = write_code(edge, output, overwrite)
    if as_json:
        console.show_json({"wrote": list(map(str, paths))})
    else:
        console.show({"wrote": ", ".join(console.place(path) for path in paths)})


app.command()(cli_measure.measure)
