"""`python -m export`: parse, call, print."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.data.common import console
from headstart.data.common.application.arguments import AsJson, Overwrite, expanded
from headstart.data.common.console import counted
from headstart.data.common.errors import InputError
from headstart.export.measure import cli as cli_measure

if TYPE_CHECKING:
    from headstart.export.backbone.build import BackboneExport
    from headstart.export.options import BackboneOptions, FeatureOptions

app = console.new_app("Write ONNX files: backbones and classifiers.")

Output = Annotated[str, typer.Option("-o", "--output", help="ONNX file to write.")]
Size = Annotated[int | None, typer.Option(help="Input height and width in pixels.")]
Weights = Annotated[
    str,
    typer.Option(help="imagenet, none, or a file (.h5, .pth, .safetensors) for a named network."),
]
Scaling = Annotated[
    str | None,
    typer.Option(
        help="How pixels are scaled, if a file does not say: tf, torch, caffe, unit, none ..."
    ),
]
Input = Annotated[str | None, typer.Option(help="Which input of an ONNX file is the image.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run code that a file contains.")]


@dataclass(frozen=True, kw_only=True)
class NetworkArguments:
    """Which network, its input, and which of its layers, as they are typed."""

    weights: Weights = "imagenet"
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer to pool, by its name in `export layers`; repeat to concatenate several. "
            "NAME=avg+max sets the pooling of this layer."
        ),
    ] = None
    pool: Annotated[
        list[str] | None,
        typer.Option(help="avg, max, std, gem, flatten or token; repeat to concatenate several."),
    ] = None
    power: Annotated[bool, typer.Option("--power", help="Signed square root of the embedding.")] = (
        False
    )
    views: Annotated[
        str, typer.Option(help="Mean over copies: none, mirror (2 passes) or flips (4 passes).")
    ] = "none"
    size: Size = None
    resize: Annotated[
        str | None, typer.Option(help="squash or crop; the network's own if not given.")
    ] = None
    interpolation: Annotated[
        str | None,
        typer.Option(help="bilinear, bicubic or lanczos; the network's own if not given."),
    ] = None
    crop_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the resized height and width that is kept (timm's crop_pct); the "
            "network's own if neither this nor --resize is given."
        ),
    ] = None
    include_top: Annotated[
        bool, typer.Option("--include-top", help="Keep the ImageNet classifier: 1,000 logits.")
    ] = False
    scaling: Scaling = None
    input: Input = None
    trust: Trust = False

    def options(self, **others: Any) -> BackboneOptions:
        """The network and its input, with further options."""
        from headstart.export.options import BackboneOptions

        return BackboneOptions(
            weights=self.weights,
            size=self.size,
            resize=self.resize,
            interpolation=self.interpolation,
            crop_fraction=self.crop_fraction,
            include_top=self.include_top,
            scaling=self.scaling,
            input=self.input,
            trust=self.trust,
            **others,
        )

    @property
    def embedding(self) -> FeatureOptions:
        """Which layers, and how they are pooled."""
        from headstart.export.options import FeatureOptions

        layers, pools = tuple(self.layer or ()), tuple(self.pool or ())
        return FeatureOptions(layers, pools, self.power, self.views)


@app.command()
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
    words: Annotated[
        str | None, typer.Option(help="File of word vectors, instead of NAME: GloVe or Word2Vec.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Texts are cut at this many tokens; the encoder's own.")
    ] = None,
    most_words: Annotated[
        int | None, typer.Option(help="Words taken from --words, the first ones; default: 100000.")
    ] = None,
    arguments: NetworkArguments,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    calibrate: Annotated[
        str | None, typer.Option(help="Source of photographs to calibrate int8 on.")
    ] = None,
    sound: Annotated[
        str | None,
        typer.Option(
            help="For recordings: logmel or stft (the network sees a spectrogram), or raw (an ONNX "
            "file that takes samples itself, or openwakeword:FOLDER)."
        ),
    ] = None,
    rate: Annotated[int | None, typer.Option(help="Sound: samples per second; 16000.")] = None,
    window: Annotated[float | None, typer.Option(help="Sound: seconds of a window; 1.")] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="Sound: seconds between windows' starts; default: a window."),
    ] = None,
    short: Annotated[
        str | None,
        typer.Option(help="Sound: recordings shorter than a window: pad (zeros) or repeat."),
    ] = None,
    silence: Annotated[
        float | None,
        typer.Option(help="Sound: decibels below which a window is silent, an error; -80."),
    ] = None,
    frame: Annotated[
        float | None, typer.Option(help="Sound: seconds of a spectrogram's frame; 0.032.")
    ] = None,
    step: Annotated[
        float | None, typer.Option(help="Sound: seconds between frames' starts; 0.01.")
    ] = None,
    bands: Annotated[int | None, typer.Option(help="Sound: mel bands of logmel; 64.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a pretrained network, with its preprocessing, as a backbone file."""
    from headstart.data.common.errors import BackboneError
    from headstart.export.backbone.build import export_backbone
    from headstart.export.options import PrecisionOptions, SoundOptions

    if bool(name) == bool(words):
        raise InputError(
            "give either the NAME of a network or --words FILE", "`export list` has names."
        )
    name = name or f"words:{words}"
    start = time.monotonic()
    options = arguments.options(tokens=tokens, most_words=most_words)
    features, lower = arguments.embedding, PrecisionOptions(precision, calibrate)
    heard: dict[str, Any] = {
        "rate": rate,
        "window": window,
        "hop": hop,
        "short": short,
        "silence": silence,
    }
    heard |= {"frame": frame, "step": step, "bands": bands}
    given = {flag: value for flag, value in heard.items() if value is not None}
    if given and sound is None:
        raise BackboneError(
            f"{' and '.join(f'--{flag}' for flag in given)} can only be used with --sound",
            "Add --sound logmel for recordings.",
        )
    sounds = SoundOptions(sound, **given) if sound is not None else None
    with console.status(f"building, converting and checking {name}"):
        written = export_backbone(output, name, options, features, lower, overwrite, sounds)
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
def classifier(
    model: Annotated[str, typer.Argument(help="Model folder.")],
    backbone: Annotated[str, typer.Option(help="Backbone file that the features were made with.")],
    output: Output,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Take photographs of any size; resize inside.")
    ] = False,
    top: Annotated[int, typer.Option(help="Also give this many classes, best first.")] = 0,
    examples: Annotated[
        int, typer.Option(help="Examples to compare with training's answers.")
    ] = 128,
    tolerance: Annotated[
        float, typer.Option(help="Largest accepted difference in a probability.")
    ] = 1e-3,
    most_changed: Annotated[
        int, typer.Option(help="Largest accepted number of changed labels.")
    ] = 0,
    source: Annotated[
        str | None, typer.Option(help="Where the files are now, if they were moved.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write backbone and head as one ONNX file, checked against training."""
    from headstart.export.edge.classifier import export_classifier
    from headstart.export.options import EdgeOptions, GateOptions

    start = time.monotonic()
    edge = export_classifier(
        model,
        backbone,
        output,
        EdgeOptions(any_size, top, overwrite),
        GateOptions(examples, tolerance, most_changed, source),
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
    """Write code that classifies with EDGE: in Python, and for photographs in Node and C."""
    from headstart.export.edge.ready_code import write_code

    paths = write_code(edge, output, overwrite)
    if as_json:
        console.show_json({"wrote": list(map(str, paths))})
    else:
        console.show({"wrote": ", ".join(console.place(path) for path in paths)})


app.command()(cli_measure.measure)
