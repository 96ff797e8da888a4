"""How a source is read whose columns or files are not where headstart expects them.

A source and its options are written as one text, its **address**, so that whatever opens a source
again (`data verify`, the next extraction) reads it in the same way:
`PATH?path-column=NAME&root=FOLDER#TEXT_COLUMN`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import parse_qsl, urlencode

import typer

from headstart.data.common.errors import InputError

YES = "yes"


@dataclass(frozen=True)
class SourceOptions:
    """Where a source has its files and columns, if they have other names and places than usual.

    Commands have these as options (`data.common.application.arguments`).

    Parameters
    ----------
    text_column
        Column of a table that holds the texts.
    path_column
        Column of a manifest that names the files, instead of `path`.
    label_column
        Column of a table that holds the labels, instead of `label`.
    root
        Folder of the files that a manifest names, instead of the manifest's own. A path that is
        absolute or contains `..` has to lead into it.
    allow_outside
        Read the files of a manifest wherever they are.

    Raises
    ------
    InputError
        If options contradict each other.
    """

    heading: ClassVar[str] = "Source"

    text_column: Annotated[
        str | None, typer.Option(help="Column of a table that holds the texts.")
    ] = None
    path_column: Annotated[
        str | None, typer.Option(help="Column of a manifest that names the files; default: path.")
    ] = None
    label_column: Annotated[
        str | None, typer.Option(help="Column of a table that holds the labels; default: label.")
    ] = None
    root: Annotated[
        str | None, typer.Option(help="Folder of a manifest's files; default: the manifest's own.")
    ] = None
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="A manifest's files may be anywhere.")
    ] = False

    def __post_init__(self) -> None:
        if self.text_column is not None and self.of_manifest:
            raise InputError(
                f"--text-column cannot be used with {' and '.join(self.of_manifest)}",
                "A table either holds texts or names files. Leave one of them out.",
            )
        if self.path_column is not None and self.path_column == self.label_column:
            raise InputError(
                f"--path-column and --label-column are both {self.path_column}",
                "Name two columns.",
            )

    @property
    def of_manifest(self) -> list[str]:
        """The options given that are of use for a manifest only, as they are typed."""
        names = ("path_column", "root", "allow_outside")
        return [flag_of(name) for name in names if getattr(self, name)]

    @property
    def of_table(self) -> list[str]:
        """The options given that are of use for any table, as they are typed."""
        names = ("text_column", "label_column")
        return [flag_of(name) for name in names if getattr(self, name) is not None]

    def address(self, source: str | Path) -> str | Path:
        """A source with these options, as `open_source` takes it; without any, as it is."""
        given = {
            each.name.replace("_", "-"): YES if value is True else value
            for each in fields(self)
            if each.name != "text_column" and (value := getattr(self, each.name))
        }
        if not given and self.text_column is None:
            return source
        query = f"?{urlencode(given, safe='/:')}" if given else ""
        text = "" if self.text_column is None else f"#{self.text_column}"
        return f"{source}{query}{text}"


def split_address(address: str | Path) -> tuple[str, SourceOptions]:
    """The source and its options; an unknown option is part of the source's name."""
    rest, mark, column = str(address).rpartition("#")
    if not (mark and rest and column):
        rest, column = str(address), ""
    place, mark, query = rest.rpartition("?")
    known = {each.name: each for each in fields(SourceOptions)}
    given = {name.replace("-", "_"): value for name, value in parse_qsl(query)}
    if not mark or not place or not given or not given.keys() <= known.keys():
        place, given = rest, {}
    outside = given.pop("allow_outside", "") == YES
    return place, SourceOptions(text_column=column or None, allow_outside=outside, **given)


def same_examples(one: str, two: str) -> bool:
    """Whether two addresses name the same examples, with whatever labels."""
    return without_labels(one) == without_labels(two)


def without_labels(address: str) -> str:
    """An address without the name of the column of labels."""
    place, options = split_address(address)
    return str(replace(options, label_column=None).address(place))


def as_arguments(address: str) -> str:
    """A source with its options as they are typed in a command."""
    place, options = split_address(address)
    words = [place]
    for each in fields(options):
        value = getattr(options, each.name)
        if value:
            words += [flag_of(each.name)] if value is True else [flag_of(each.name), value]
    return shlex.join(words)


def flag_of(name: str) -> str:
    """The option of a command for a field."""
    return "--" + name.replace("_", "-")
