"""`python -m data`: parse, call, print."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.data.common import console
from headstart.data.common.errors import DamagedStoreError

if TYPE_CHECKING:
    from headstart.data.inspection import Inspection
    from headstart.data.verification import Verification

app = console.new_app("Inspect a source, verify a feature store, or write a sample set.")

MOST_ROWS = 20


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(help="Folder with one folder per class, or a manifest.")],
    text_column: Annotated[
        str | None, typer.Option(help="Column of a table that holds the texts.")
    ] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show what is in SOURCE: counts, classes, splits, sizes, and broken files."""
    from headstart.data.examples.opening import with_column

    if show:
        from headstart.data.contact_sheet import write_contact_sheet

        place = with_column(source, text_column)
        count = write_contact_sheet(place, output, show, seed, overwrite)
        console.say(f"wrote {console.place(output)}, {console.counted(count, 'example')}")
        return
    from headstart.data.inspection import inspect

    found = inspect(with_column(source, text_column))
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
        "duplicates": f"{found.duplicates:,} files repeat the bytes of another"
        if found.duplicates
        else "none",
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
    if found.broken:
        console.out.print()
        console.out.print(f"broken ({len(found.broken):,})")
        console.show(dict(list(found.broken.items())[:MOST_ROWS]))


@app.command()
def sample(
    name: Annotated[
        str, typer.Argument(help="digits, elpv, speakers, cifar10, cifar100, mnist, fashion-mnist.")
    ],
    folder: Annotated[str, typer.Argument(help="New or empty folder.")],
) -> None:
    """Write a ready-made sample set."""
    from headstart.data.samples import SAMPLES, lay_out

    written = lay_out(name, folder)
    console.show(
        {
            "sample": SAMPLES[name].about,
            "licence": SAMPLES[name].licence,
            "wrote": console.place(written),
        }
    )


@app.command()
def verify(
    store: Annotated[str, typer.Argument(help="Feature store.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Set damaged parts aside, so that extract redoes them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
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
            f"set aside: {len(found.damaged)} damaged parts, {len(found.leftovers)} leftovers"
        )
    extract = f"python -m extract {found.source} --backbone BACKBONE -o {store}"
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
