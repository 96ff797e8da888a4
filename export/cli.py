"""`python -m export`: parse, call, print."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from data import console

app = console.new_app("Write ONNX files: backbones in, classifiers out.")

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there.")]
Output = Annotated[str, typer.Option("-o", "--output", help="ONNX file to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def backbone(
    name: Annotated[
        str, typer.Argument(help="efficientnet_lite0 or a keras.applications network.")
    ],
    output: Output,
    weights: Annotated[str, typer.Option(help="imagenet, none, or a file.")] = "imagenet",
    layer: Annotated[
        list[str] | None, typer.Option(help="Layer to average; repeat for several side by side.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Input height and width in pixels.")] = None,
    resize: Annotated[str, typer.Option(help="squash or crop.")] = "squash",
    interpolation: Annotated[str, typer.Option(help="bilinear, bicubic or lanczos.")] = "bilinear",
    include_top: Annotated[
        bool, typer.Option("--include-top", help="Keep the ImageNet classifier: 1,000 logits.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a pretrained network as a backbone file, preprocessing inside."""
    from export.backbone import export_backbone
    from export.zoo import BackboneOptions

    start = time.monotonic()
    options = BackboneOptions(weights, tuple(layer or ()), size, resize, interpolation, include_top)
    with console.status(f"building, converting and checking {name}"):
        written = export_backbone(output, name, options, overwrite)
    spec = written.spec
    if as_json:
        about = asdict(spec) | {"path": written.path, "sha256": written.fingerprint.sha256}
        console.show_json(about | {"bytes": len(written.content)})
        return
    console.show(
        {
            "backbone": str(written.fingerprint),
            "weights": f"{spec.weights}, licence {spec.licence}",
            "layers": f"{', '.join(spec.layers)} ({spec.pooling} pooling)",
            "embedding": f"float32 [batch, {spec.dim}]",
            "took": f"{time.monotonic() - start:.1f} s",
            "wrote": f"{console.place(written.path)} ({console.human_bytes(len(written.content))})",
        }
    )


@app.command()
def classifier(
    model: Annotated[str, typer.Argument(help="Model folder.")],
    backbone: Annotated[str, typer.Option(help="Backbone file that the features were made with.")],
    output: Output,
    source: Annotated[
        str | None, typer.Option(help="Where the photographs are now, if they were moved.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write backbone and head as one ONNX file that answers as training did."""
    from export.classifier import export_classifier

    start = time.monotonic()
    with console.status("fusing, and comparing with training's path"):
        edge = export_classifier(model, backbone, output, source, overwrite)
    if as_json:
        console.show_json(asdict(edge))
        return
    parity = edge.parity
    console.show(
        {
            "compared": f"{parity.examples} photographs from their files, "
            f"{parity.held_out} of them held out of training",
            "difference": f"at most {parity.largest_difference:.1e} in a probability, "
            f"{len(parity.changed)} labels changed",
            "took": f"{time.monotonic() - start:.1f} s",
            "wrote": f"{console.place(edge.path)} ({console.human_bytes(edge.size)})",
        }
    )
