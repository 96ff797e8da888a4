"""`python -m classify pareto`: parse, call, print."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.data.common import console


def pareto(
    stores: Annotated[
        list[str],
        typer.Argument(metavar="FEATURES...", help="Feature stores of the same photographs."),
    ],
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Backbone file of a store, for its size and speed; one for each."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Plot: a .png, .svg or .html file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the plot if it is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare feature stores: the accuracy of a light head, and what the embeddings cost."""
    from headstart.classify.pareto.compare import pareto

    found = pareto(stores, backbone or [], seed, output, overwrite)
    if as_json:
        console.show_json(found.to_json())
        return
    from headstart.classify.pareto.table import in_words, table

    console.show_table(*table(found))
    console.note(in_words(found))
    if output is not None:
        console.out.print(f"\nwrote {console.place(output)}", soft_wrap=True, markup=False)
