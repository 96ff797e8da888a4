"""`python -m data`: parse, call, print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.data.common import console
from headstart.data.common.application.arguments import AsJson, expanded
from headstart.data.common.console import counted
from headstart.data.common.errors import DamagedStoreError
from headstart.data.source_options import SourceOptions, as_arguments

if TYPE_CHECKING:
    from headstart.data.inspection import Copies, Inspection
    from headstart.data.verification import Verification

app = console.new_app("Inspect a source, verify a feature store, or write a sample set.")

MOST_ROWS = 20


@app.command()
@expanded
def inspect(
    source: Annotated[str, typer.Argument(help="Folder with one folder per class, or a manifest.")],
    reading: SourceOptions,
    show: Annotated[
        int, typer.Option(help="Write a contact sheet of this many examples instead.")
    ] = 0,
    output: Annotated[
        str, typer.Option("-o", "--output", help="The contact sheet: a .png or .html file.")
    ] = "contact_sheet.png",
    seed: Annotated[int, typer.Option(help="Which examples are shown.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the contact sheet if it is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is in SOURCE: counts, classes, splits, sizes, and broken files."""
    if show:
        from headstart.data.contact_sheet import write_contact_sheet

        place = reading.address(source)
        count = write_contact_sheet(place, output, show, seed, overwrite)
        console.say(f"wrote {console.place(output)}, {counted(count, 'example')}")
        return
    from headstart.data.inspection import inspect

    found = inspect(reading.address(source))
    if as_json:
        console.show_json(asdict(found))
    else:
        _show(found)


def _show(found: Inspection) -> None:
    sizes = [f"{size} ({count:,})" for size, count in list(found.sizes.items())[:3]]
    more = len(found.sizes) - len(sizes)
    from headstart.data.examples.source import describe_left_out  # it imports Arrow

    rows = {
        "examples": f"{found.examples:,} ({console.human_bytes(found.bytes)})",
        "sizes": ", ".join(sizes) + (f" and {more:,} others" if more else ""),
        "duplicates": _in_words(found.duplicates),
    }
    if found.left_out:
        rows["left out"] = describe_left_out(found.left_out)
    console.show(rows)
    splits = sorted({split for counts in found.classes.values() for split in counts})
    table = [
        [label or "(no label)", *(f"{counts.get(split, 0):,}" for split in splits)]
        for label, counts in list(found.classes.items())[:MOST_ROWS]
    ]
    console.out.print()
    console.show_table(["class", *(split or "examples" for split in splits)], table)
    if len(found.classes) > MOST_ROWS:
        console.note(
            f"... and {len(found.classes) - MOST_ROWS:,} more classes; --json has them all"
        )
    _show_copies("identical files with different labels", found.duplicates, True)
    _show_copies("identical files", found.duplicates, False)
    if found.broken:
        console.out.print()
        console.out.print(f"broken ({len(found.broken):,})")
        console.show(dict(list(found.broken.items())[:MOST_ROWS]))


def _in_words(duplicates: Sequence[Copies]) -> str:
    repeated = sum(len(each.ids) - 1 for each in duplicates)
    if not repeated:
        return "none"
    verb = "repeats" if repeated == 1 else "repeat"
    text = f"{counted(repeated, 'file')} {verb} the bytes of another"
    differ = sum(each.disagree for each in duplicates)
    return f"{text}; {counted(differ, 'group')} with different labels" if differ else text


def _show_copies(title: str, duplicates: Sequence[Copies], disagree: bool) -> None:
    groups = [each for each in duplicates if each.disagree == disagree]
    if not groups:
        return
    console.say(f"\n{title} ({len(groups):,})")
    for each in groups[:MOST_ROWS]:
        named = zip(each.ids, each.labels, strict=True)
        shown = [f"{id} ({label or 'no label'})" if disagree else id for id, label in named]
        console.say(f"  {console.first_few(shown)}")
    if len(groups) > MOST_ROWS:
        console.note(f"  ... and {len(groups) - MOST_ROWS:,} more; --json has them all")


@app.command()
def sample(
    name: Annotated[
        str, typer.Argument(help="digits, elpv, speakers, cifar10, cifar100, mnist, fashion-mnist.")
    ],
    folder: Annotated[str, typer.Argument(help="New or empty folder.")],
    as_json: AsJson = False,
) -> None:
    """Write a ready-made sample set."""
    from headstart.data.samples import SAMPLES, lay_out

    written = lay_out(name, folder)
    about = {"sample": SAMPLES[name].about, "licence": SAMPLES[name].licence}
    if as_json:
        console.show_json(about | {"wrote": str(written)})
    else:
        console.show(about | {"wrote": console.place(written)})


@app.command()
def verify(
    store: Annotated[str, typer.Argument(help="Feature store.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Set damaged parts aside, so that extract redoes them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a whole feature store: parts, checksums, numbers, ids, and missing examples."""
    from headstart.data import verification

    found = verification.verify(store)
    if as_json:
        console.show_json(asdict(found) | {"sound": found.sound})
    else:
        _show_verification(found)
    if found.sound:
        return
    if repair:
        verification.repair(store, found)
        console.note(
            f"set aside: {counted(len(found.damaged), 'damaged part')}, "
            f"{counted(len(found.leftovers), 'leftover')}"
        )
    extract = f"python -m extract {as_arguments(found.source)} --backbone BACKBONE -o {store}"
    if repair and not found.damaged and not found.missing and found.finished:
        return
    if repair or not (found.damaged or found.leftovers):
        fix = f"Embed what is missing, and only that, with: {extract}"
    else:
        fix = f"Set aside what is damaged with: python -m data verify {store} --repair"
    raise DamagedStoreError(f"{console.place(found.store)} is not sound", fix)


def _show_verification(found: Verification) -> None:
    rows = {
        "parts": f"{found.parts:,}, {len(found.damaged):,} damaged",
        "examples": f"{found.rows:,} with features, {found.errors:,} with errors",
        "source": f"{found.source}: "
        + (
            f"not compared: {found.source_problem}"
            if found.source_problem
            else f"{found.missing:,} missing, {found.vanished:,} vanished"
        ),
        "store": "sound" if found.sound else "not sound",
    }
    if not found.finished:
        rows["run"] = "has not finished"
    if found.leftovers:
        rows["leftovers"] = console.first_few(found.leftovers, 3)
    console.show(rows)
    for part, problem in list(found.damaged.items())[:MOST_ROWS]:
        console.note(f"  {part}: {problem}")
    if len(found.damaged) > MOST_ROWS:
        console.note(f"  ... and {len(found.damaged) - MOST_ROWS:,} more; --json has them all")


@app.command()
def errors(
    store: Annotated[str, typer.Argument(help="Feature store.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write a .csv or .parquet file instead.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show which examples of a feature store failed, and why."""
    from headstart.data.failures import read_failures, write_failures

    found = read_failures(store)
    if output is not None:
        console.note(f"wrote {console.place(write_failures(found, output, overwrite))}")
    elif as_json:
        console.show_json(found.to_pylist())
    else:
        rows = found.slice(0, MOST_ROWS).to_pylist()
        header = ["id", "reason", "message"]
        table = [[r["id"], f"{r['stage']}/{r['reason']}", r["message"]] for r in rows]
        console.show_table(header, table)
        if found.num_rows > MOST_ROWS:
            console.note(f"... and {found.num_rows - MOST_ROWS:,} more; --json has them all")
