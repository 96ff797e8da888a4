"""`headstart build`, `predict` and `serve`: parse, call, print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headstart.classify.cli import TrainArguments
from headstart.data.common import console
from headstart.data.common.application.arguments import (
    Address,
    AsJson,
    Overwrite,
    Track,
    expanded,
)
from headstart.data.common.errors import Checklist, TooManyBadError
from headstart.data.source_options import SourceOptions
from headstart.export.arguments import EdgeArguments, NetworkArguments, SoundArguments
from headstart.extract.cli import ExtractArguments, MaxBad

if TYPE_CHECKING:
    import pyarrow as pa

Runtime = Annotated[
    str | None,
    typer.Option(help="Unpacked npm package onnxruntime-web; fetched by npm by default."),
]
MOST_LINES = 50  # answers on the terminal if there is a file of them


@expanded
def build(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="PHOTOS", help="Folder with one folder per class, a manifest, .tar or Parquet."
        ),
    ],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder for everything.")],
    reading: SourceOptions,
    networks: NetworkArguments,
    sounds: SoundArguments,
    extraction: ExtractArguments,
    training: TrainArguments,
    edges: EdgeArguments,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A backbone file, or a network as for `export backbone`; default: "
            "efficientnet_lite0."
        ),
    ] = None,
    backbone_precision: Annotated[
        str,
        typer.Option(
            help="Precision of the backbone file: fp32, fp16 or int8 (calibrated on PHOTOS, or on "
            "--calibrate)."
        ),
    ] = "fp32",
    extract_precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of the extraction: fp32, fp16, bf16, int8 or auto; default: that of "
            "the backbone file."
        ),
    ] = None,
    page: Annotated[bool, typer.Option(help="Write the page for a browser as well.")] = True,
    page_examples: Annotated[
        bool,
        typer.Option("--page-examples", help="The page shows six held-out photographs to try."),
    ] = False,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
    runtime: Runtime = None,
    track: Track = None,
    as_json: AsJson = False,
) -> None:
    """Do the whole job on PHOTOS: backbone, features, model with report, edge model, page.

    When run again, it continues where it stopped, and does only what is new or has changed:
    photographs, labels or options.
    """
    from headstart import building
    from headstart.backbones import CHOSEN
    from headstart.data.tracking import check_tracking, track_model
    from headstart.export.options import ExportOptions

    checks = Checklist()
    with checks.item():
        check_tracking(track)
    with checks.item():
        head, splits, run = training.options(overwrite=True)
    with checks.item():
        extract = extraction.options(extract_precision)
    with checks.item():
        named = networks.named(backbone, "--backbone", CHOSEN)
    with checks.item():
        sound = sounds.options()
    with checks.item():
        gate = edges.gate()
    checks.finish()
    lower = networks.lower(backbone_precision)
    options = building.BuildOptions(
        backbone=named,
        export=ExportOptions(networks.network, networks.embedding, lower, sound),
        extraction=extract,
        update=extraction.update,
        max_bad=extraction.max_bad,
        head=head,
        splits=splits,
        training=run,
        edge=edges.edge(),
        gate=gate,
        page=page,
        page_examples=page_examples,
        title=title,
        runtime=runtime,
    )
    built = building.build(reading.address(source), output, options)
    track_model(track, built.model, context.params, built.edge)
    if as_json:
        console.show_json(building.to_json(built))
    else:
        building.show(built)


@expanded
def predict(
    model: Annotated[str, typer.Argument(help="Edge model (.onnx) or model folder.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="Photographs; or a folder, manifest, .tar or Parquet."
        ),
    ],
    reading: SourceOptions,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Also write a .parquet or .csv file.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Backbone file of a model folder; default: found by its fingerprint."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Use Ray, with this many workers; default: if many files.")
    ] = None,
    address: Address = None,
    max_bad: MaxBad = 0.05,
    overwrite: Overwrite = False,
    spreadsheet_safe: Annotated[
        bool,
        typer.Option("--spreadsheet-safe", help="In a CSV, what would be a formula begins with '."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Classify photographs with MODEL, and print the answers."""
    from headstart import predicting
    from headstart.classify.prediction.answers import check_predictions_file, write_answers
    from headstart.classify.prediction.edge import PredictOptions

    checks = Checklist()
    with checks.item():
        edge = predicting.open_classifier(model, backbone)
    with checks.item():
        options = PredictOptions(address=address, workers=workers)
    with checks.item():
        path = None
        if output is not None:
            path = check_predictions_file(output, overwrite, spreadsheet_safe)
    checks.finish()
    table = predicting.answer(edge, [reading.address(each) for each in files], options)
    if path is not None:
        write_answers(path, table, spreadsheet_safe)
    if as_json:
        console.show_json(table.to_pylist())
    else:
        _show_answers(table, output)
    bad = table["error"].length() - table["error"].null_count
    if bad / table.num_rows > max_bad:
        raise TooManyBadError(
            f"{bad:,} of {console.counted(table.num_rows, 'file')} could not be classified, "
            f"more than --max-bad {max_bad:.1%}",
            "The reason is behind the name of each.",
        )


def _show_answers(table: pa.Table, output: str | None) -> None:
    shown = table.slice(0, MOST_LINES) if output else table
    rows = shown.select(["id", "prediction", "confidence", "error"]).to_pylist()
    name = max((len(row["id"]) for row in rows), default=0)
    label = max((len(row["prediction"] or "unknown") for row in rows), default=0)
    for row in rows:
        text = row["error"] and f"not classified: {row['error']}"
        answer = f"{row['prediction'] or 'unknown':<{label}}  {row['confidence'] or 0:.3f}"
        console.say(f"{row['id']:<{name}}  {text or answer}")
    if output:
        more = table.num_rows - len(rows)
        console.say(f"... and {more:,} more" if more else "")
        console.say(f"wrote {console.counted(table.num_rows, 'prediction')} to {output}")


def serve(
    edge: Annotated[str, typer.Argument(help="Edge model, as `export classifier` writes it.")],
    port: Annotated[int, typer.Option(help="On this machine only; default: a free one.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
    runtime: Runtime = None,
    as_json: AsJson = False,
) -> None:
    """Serve EDGE's page on this machine, and open it in the browser; Ctrl-C ends it."""
    import webbrowser

    from headstart.serving import serve

    serve(edge, port, title, runtime, webbrowser.open if browser else None, as_json)
