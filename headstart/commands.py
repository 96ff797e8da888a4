"""`headstart build`, `predict` and `serve`: parse, call, print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headstart.classify.cli import HEAD_HELP
from headstart.data.common import console
from headstart.data.common.errors import Checklist, TooManyBadError
from headstart.extract.cli import TextColumn

if TYPE_CHECKING:
    import pyarrow as pa

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to run on; default: this machine.")]
Workers = Annotated[int | None, typer.Option(help="Workers, one CPU each; default: all.")]
Runtime = Annotated[
    str | None,
    typer.Option(help="Unpacked npm package onnxruntime-web; fetched by npm by default."),
]
MaxBad = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of failed examples above which the exit code is 3."),
]
MOST_LINES = 50  # answers on the terminal if there is a file of them


def build(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PHOTOS", help="Folder with one folder per class, a manifest, .tar or Parquet."
        ),
    ],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder for everything.")],
    backbone: Annotated[
        str, typer.Option(help="A backbone file, or a network as for `export backbone`.")
    ] = "efficientnet_lite0",
    weights: Annotated[
        str, typer.Option(help="imagenet, none, or a file, for a network by name.")
    ] = "imagenet",
    size: Annotated[int | None, typer.Option(help="Input height and width in pixels.")] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Layer of the network to pool; repeat for several.")
    ] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="avg, max, std, gem, flatten or token; repeatable.")
    ] = None,
    text_column: TextColumn = None,
    workers: Workers = None,
    address: Address = None,
    batch_size: Annotated[int, typer.Option(help="Examples per call of the backbone.")] = 16,
    engine: Annotated[
        str | None, typer.Option(help="onnxruntime, openvino, cuda or tensorrt.")
    ] = None,
    max_bad: MaxBad = 0.05,
    allow_unlabelled: Annotated[
        bool, typer.Option("--allow-unlabelled", help="Keep examples without a label.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry examples that failed.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Drop examples that PHOTOS no longer has.")
    ] = False,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Hash every file, whatever its size and time.")
    ] = False,
    moved_from: Annotated[
        str | None, typer.Option(help="Where PHOTOS was before, as the features have it.")
    ] = None,
    head: Annotated[str, typer.Option(help=HEAD_HELP)] = "logistic",
    param: Annotated[
        list[str] | None,
        typer.Option(help="A parameter of the head, as NAME=VALUE; may be repeated."),
    ] = None,
    class_weight: Annotated[
        str, typer.Option(help="balanced: rare classes count as much as frequent ones.")
    ] = "",
    calibration: Annotated[
        str, typer.Option(help="temperature, isotonic (for many examples) or none.")
    ] = "temperature",
    precision: Annotated[
        float | None,
        typer.Option(help="Answer unknown when unsure: this share of the answers is right."),
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Answer this share; unknown for the least sure.")
    ] = None,
    test_size: Annotated[
        float, typer.Option(help="Share held out, without declared splits.")
    ] = 0.25,
    repeats: Annotated[int, typer.Option(help="Also score this many random splits.")] = 0,
    samples_per_class: Annotated[
        int | None, typer.Option(help="Train on this many examples of each class.")
    ] = None,
    group: Annotated[
        str, typer.Option(help="Column of groups; a split never divides a group.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    report: Annotated[bool, typer.Option(help="Write report.html as well.")] = True,
    memory: Annotated[
        float | None, typer.Option(help="Gigabytes that embeddings may take.")
    ] = None,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="The edge model takes any size; resizes inside.")
    ] = False,
    top: Annotated[int, typer.Option(help="It also gives this many classes, best first.")] = 0,
    page: Annotated[bool, typer.Option(help="Write the page for a browser as well.")] = True,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
    runtime: Runtime = None,
    as_json: AsJson = False,
) -> None:
    """Do the whole job on PHOTOS: backbone, features, model with report, edge model, page.

    When run again, it continues where it stopped, and does only what is new or has changed:
    photographs, labels or options.
    """
    from headstart import building
    from headstart.classify.heads.calibration import AnswerOptions
    from headstart.classify.heads.estimators import HeadOptions, parse_parameters
    from headstart.classify.heads.fitting import FitOptions
    from headstart.classify.splits.splitting import SplitOptions
    from headstart.classify.training import RunOptions
    from headstart.data.examples.opening import with_column
    from headstart.export.options import BackboneOptions, EdgeOptions, FeatureOptions
    from headstart.extract.job import ExtractOptions
    from headstart.extract.planning.plan import Update

    checks = Checklist()
    with checks.item():
        heads = HeadOptions(head, parse_parameters(param or []), class_weight or None)
    with checks.item():
        answers = AnswerOptions(calibration, precision, coverage)
    with checks.item():
        splits = SplitOptions(test_size, seed, repeats, samples_per_class, group)
    with checks.item():
        training = RunOptions(True, report, None if memory is None else int(memory * 1e9))
    with checks.item():
        extraction = ExtractOptions(
            address=address,
            workers=workers,
            batch_size=batch_size,
            engine=engine,
            allow_unlabelled=allow_unlabelled,
        )
    checks.finish()
    options = building.BuildOptions(
        backbone=backbone,
        network=BackboneOptions(weights=weights, size=size),
        embedding=FeatureOptions(tuple(layer or ()), tuple(pool or ())),
        extraction=extraction,
        update=Update(retry_failed, prune, rehash, moved_from),
        max_bad=max_bad,
        head=FitOptions(heads, answers, seed),
        splits=splits,
        training=training,
        edge=EdgeOptions(any_size, top),
        page=page,
        title=title,
        runtime=runtime,
    )
    built = building.build(with_column(source, text_column), output, options)
    if as_json:
        console.show_json(building.to_json(built))
    else:
        building.show(built)


def predict(
    model: Annotated[str, typer.Argument(help="Edge model (.onnx) or model folder.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="Photographs; or a folder, manifest, .tar or Parquet."
        ),
    ],
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
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to run on; default: this machine.")
    ] = None,
    max_bad: MaxBad = 0.05,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.")
    ] = False,
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
    table = predicting.answer(edge, files, options)
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
) -> None:
    """Serve EDGE's page on this machine, and open it in the browser; Ctrl-C ends it."""
    import webbrowser

    from headstart.serving import serve

    serve(edge, port, title, runtime, webbrowser.open if browser else None)
