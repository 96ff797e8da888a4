"""`python -m extract`: parse, call, print."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from headstart.data.common import console
from headstart.data.common.application.arguments import Address, AsJson, GroupedCommand, expanded
from headstart.data.common.console import counted
from headstart.data.common.ray_session import GPU_ENGINE
from headstart.data.source_options import SourceOptions

if TYPE_CHECKING:
    from headstart.extract.job import Summary
    from headstart.extract.options import ExtractOptions
    from headstart.extract.planning.plan import Update

app = console.new_app("Turn files into embeddings, once, in parallel.")

MaxBad = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of failed examples above which the exit code is 3."),
]


@dataclass(frozen=True, kw_only=True)
class ExtractArguments:
    """The options of an extraction, as they are typed."""

    heading: ClassVar[str] = "Extraction"

    address: Address = None
    workers: Annotated[
        int | None, typer.Option(help="Workers, one CPU each, which share the GPUs; default: all.")
    ] = None
    batch_size: Annotated[int, typer.Option(help="Examples per call of the backbone.")] = 16
    engine: Annotated[
        str | None,
        typer.Option(help="onnxruntime, openvino or cuda; default: the fastest for CPUs."),
    ] = None
    max_bad: MaxBad = 0.05
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry examples that failed.")
    ] = False
    prune: Annotated[
        bool, typer.Option("--prune", help="Drop examples that the source no longer has.")
    ] = False
    rehash: Annotated[
        bool,
        typer.Option(
            "--rehash", help="Hash every file, also where size and time are as they were."
        ),
    ] = False
    moved_from: Annotated[
        str | None,
        typer.Option(help="Where the source was before, as the store has it; all are hashed."),
    ] = None
    stall_after: Annotated[
        float,
        typer.Option(help="Seconds without a finished example after which a worker is replaced."),
    ] = 300
    allow_unlabelled: Annotated[
        bool, typer.Option("--allow-unlabelled", help="Keep examples without a label.")
    ] = False

    def options(self, precision: str | None = None) -> ExtractOptions:
        """For `job.extract`; raises `InputError` with all that is wrong with them."""
        from headstart.extract.options import ExtractOptions

        return ExtractOptions(
            address=self.address,
            workers=self.workers,
            batch_size=self.batch_size,
            precision=precision,
            engine=self.engine,
            stall_after=self.stall_after,
            allow_unlabelled=self.allow_unlabelled,
        )

    @property
    def update(self) -> Update:
        """What to do with examples that are already in the store."""
        from headstart.extract.planning.plan import Update

        return Update(self.retry_failed, self.prune, self.rehash, self.moved_from)


@app.command(cls=GroupedCommand, context_settings=console.HELP)
@expanded
def extract(
    source: Annotated[str, typer.Argument(help="Folder with one folder per class, or a manifest.")],
    backbone: Annotated[str, typer.Option(help="Backbone file (ONNX).")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder of the feature store.")],
    reading: SourceOptions,
    arguments: ExtractArguments,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, bf16 or int8; auto: measured here; default: the file's own."
        ),
    ] = None,
    corrections: Annotated[
        str | None,
        typer.Option(help="CSV of corrected labels, from the report; later runs keep them."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Update a feature store to match SOURCE; nothing is embedded twice.

    When run again, it continues where it stopped, embeds what is new or has changed, copies new
    labels, or does nothing. SOURCE, backbone and output may be local or in object storage (s3://,
    gs://).
    """
    from headstart.data.workers.small import without_ray
    from headstart.extract.ahead import started_for

    size = without_ray(arguments.address, arguments.workers, arguments.engine == GPU_ENGINE)
    with started_for(output, size) as ahead:
        from headstart.extract import job  # takes as long as those processes need to start

        options = replace(arguments.options(precision), corrections=corrections)
        place = reading.address(source)
        summary = job.extract(place, backbone, output, options, arguments.update, ahead)
    if as_json:
        console.show_json(asdict(summary))
    else:
        _show(summary)
    summary.check(arguments.max_bad)


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
                f"with {counted(summary.workers, 'worker')}"
            )
            before = ", the fastest in an earlier run" * summary.remembered
            rows["engine"] = f"{' and '.join(summary.engines)}, {summary.precision}{before}"
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
    for line in summary.failures:
        console.note(f"  {line}")
    if summary.errors:
        console.note("  --retry-failed retries them")
