"""`python -m extract`: parse, call, print."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.data.common import console
from headstart.data.common.console import counted

if TYPE_CHECKING:
    from headstart.extract.job import Summary

TextColumn = Annotated[str | None, typer.Option(help="Column of a table that holds the texts.")]
app = console.new_app("Turn files into embeddings, once, in parallel on Ray.")


@app.command(context_settings=console.HELP)
def extract(
    source: Annotated[str, typer.Argument(help="Folder with one folder per class, or a manifest.")],
    backbone: Annotated[str, typer.Option(help="Backbone file (ONNX).")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder of the feature store.")],
    text_column: TextColumn = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to run on; default: this machine.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Workers, one CPU each, which share the GPUs; default: all.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Examples per call of the backbone.")] = 16,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, bf16 or int8; auto: measured here; default: the file's own."
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="onnxruntime, openvino, cuda or tensorrt; default: the fastest for CPUs."
        ),
    ] = None,
    max_bad: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of failed examples above which the exit code is 3."),
    ] = 0.05,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry examples that failed.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Drop examples that SOURCE no longer has.")
    ] = False,
    rehash: Annotated[
        bool,
        typer.Option(
            "--rehash", help="Hash every file, also where size and time are as they were."
        ),
    ] = False,
    moved_from: Annotated[
        str | None,
        typer.Option(help="Where SOURCE was before, as the store has it; all files are hashed."),
    ] = None,
    stall_after: Annotated[
        float,
        typer.Option(help="Seconds without a finished example after which a worker is replaced."),
    ] = 300,
    allow_unlabelled: Annotated[
        bool, typer.Option("--allow-unlabelled", help="Keep examples without a label.")
    ] = False,
    corrections: Annotated[
        str | None,
        typer.Option(help="CSV of corrected labels, from the report; later runs keep them."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Update a feature store to match SOURCE; nothing is embedded twice.

    When run again, it continues where it stopped, embeds what is new or has changed, copies new
    labels, or does nothing. SOURCE, backbone and output may be local or in object storage (s3://,
    gs://).
    """
    from headstart.data.examples.opening import with_column
    from headstart.extract import job
    from headstart.extract.planning.plan import Update

    options = job.ExtractOptions(
        address=address,
        workers=workers,
        batch_size=batch_size,
        precision=precision,
        engine=engine,
        stall_after=stall_after,
        allow_unlabelled=allow_unlabelled,
        corrections=corrections,
    )
    update = Update(retry_failed, prune, rehash, moved_from)
    summary = job.extract(with_column(source, text_column), backbone, output, options, update)
    if as_json:
        console.show_json(asdict(summary))
    else:
        _show(summary)
    summary.check(max_bad)


def _show(summary: Summary) -> None:
    place, counts = console.place(summary.store), summary.counts
    updated = {
        f"{counts.changed:,} had changed": counts.changed,
        f"{counts.retried:,} had failed": counts.retried,
        f"{counts.relabelled:,} have new labels or columns": counts.relabelled,
        f"{summary.pruned:,} were dropped": summary.pruned,
    }
    worked = summary.embedded + summary.failed
    if not worked and not any(updated.values()):
        text = f"nothing to do: all {summary.examples:,} examples are in {place}"
        console.say(text)
    else:
        rows = {}
        if counts.kept:
            rows["before"] = f"{counts.kept:,} of {summary.examples:,} were done"
        if any(updated.values()):
            rows["updated"] = ", ".join(text for text, number in updated.items() if number)
        if worked:
            rows["embedded"] = (
                f"{counted(summary.embedded, 'example')}, {summary.rate:,.0f}/s "
                f"with {summary.workers} worker{'s' * (summary.workers != 1)}"
            )
            rows["engine"] = f"{' and '.join(summary.engines)}, {summary.precision}"
        rows["took"] = ", ".join(f"{name} {took:.1f} s" for name, took in summary.seconds.items())
        rows["wrote"] = place
        if summary.failed:
            rows["failed"] = f"{summary.failed:,}"
        console.show(rows)
    for what, number in summary.tally.items():
        console.note(f"  {number:,} {what}")
    if counts.vanished and not summary.pruned:
        console.note(
            f"{counts.vanished:,} of the examples in {place} are no longer in the source; "
            "they are kept: --prune drops them"
        )
    for reason, count in summary.errors.items():
        console.note(f"  {count:,} failed with {reason}")
    if summary.errors:
        console.note("  --retry-failed retries them")
