"""`python -m extract`: parse, call, print."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from data import console
from data.errors import TooManyBadError

if TYPE_CHECKING:
    from extract.job import Summary

app = console.new_app("Turn photographs into embeddings, once, in parallel on Ray.")


@app.command()
def extract(
    source: Annotated[str, typer.Argument(help="Folder with a folder a class, or a manifest.")],
    backbone: Annotated[str, typer.Option(help="Backbone file (ONNX).")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder of the feature store.")],
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to run on; default: this machine.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Workers, one CPU each; default: all.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Photographs per call of the backbone.")] = 16,
    max_bad: Annotated[
        float, typer.Option(min=0, max=1, help="Share of failed examples above which to exit 3.")
    ] = 0.05,
    allow_unlabelled: Annotated[
        bool, typer.Option("--allow-unlabelled", help="Carry examples without a label along.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Embed every photograph of SOURCE that is not in the feature store yet.

    Run again, it goes on where it stopped, or does nothing on a finished store.
    """
    from extract import job

    options = job.ExtractOptions(address, workers, batch_size, allow_unlabelled)
    summary = job.extract(source, backbone, output, options)
    if as_json:
        console.show_json(asdict(summary))
    else:
        _show(summary)
    if summary.bad_share > max_bad:
        raise TooManyBadError(
            f"{summary.bad_share:.1%} of the examples failed, more than --max-bad {max_bad:.1%}",
            f"The reasons are in {console.place(summary.store)}/_errors "
            "(Parquet: id, stage, reason, message).",
        )


def _show(summary: Summary) -> None:
    place = console.place(summary.store)
    if summary.before == summary.examples:
        console.out.print(
            f"nothing to do: all {summary.examples:,} examples are in {place}",
            soft_wrap=True,
            markup=False,
        )
    else:
        done = summary.embedded + summary.failed
        took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary.seconds.items())
        rows = {
            "embedded": f"{summary.embedded:,} photographs, {summary.rate:,.0f}/s "
            f"with {summary.workers} worker{'s' * (summary.workers != 1)}",
            "took": took,
            "wrote": place,
        }
        if summary.before:
            rows = {"before": f"{summary.before:,} of {summary.examples:,} were done"} | rows
        if done != summary.embedded:
            rows["failed"] = f"{summary.failed:,}"
        console.show(rows)
    if summary.vanished:
        console.note(
            f"{summary.vanished:,} of the examples in {place} are not in the source any more; "
            "they are kept: extract into a new folder to leave them out"
        )
    for reason, count in summary.errors.items():
        console.note(f"  {count:,} failed with {reason}")
