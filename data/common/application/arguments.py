"""Options that several commands have, alone or as the fields of a dataclass."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from headstart.data.common.errors import Checklist

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result, or the error, as a JSON object.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Track = Annotated[
    str | None,
    typer.Option(help="mlflow: log parameters, scores and files, at MLFLOW_TRACKING_URI."),
]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to run on; default: this machine.")]
ClassWeight = Annotated[
    str, typer.Option(help="balanced: rare classes count as much as frequent ones.")
]
SamplesPerClass = Annotated[
    int | None, typer.Option(help="Train on this many examples of each class.")
]


def expanded(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that has an option for each field of its parameters that are dataclasses.

    The fields are annotated as Typer's parameters are; one without annotation keeps its default.
    What the dataclasses refuse is raised all at once.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters = []
    for each in signature(command).parameters.values():
        kind = hints[each.name]
        if is_dataclass(kind):
            groups[each.name] = kind
            parameters += _options(kind)
        else:
            parameters.append(each.replace(kind=Parameter.KEYWORD_ONLY, annotation=kind))

    @wraps(command)
    def run(**given: Any) -> Any:
        checks = Checklist()
        for name, kind in groups.items():
            values = {each.name: given.pop(each.name) for each in _options(kind)}
            with checks.item():
                given[name] = kind(**values)
        checks.finish()
        return command(**given)

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


class GroupedCommand(TyperCommand):
    """A command whose help has a section for each dataclass that says its `heading`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, the command's own options, and then the groups."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for each in self.get_params(ctx):
            usual = "Arguments" if each.param_type_name == "argument" else "Options"
            heading = getattr(each, "rich_help_panel", None) or usual
            if record := each.get_help_record(ctx):
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _options(kind: Any) -> list[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    if heading := getattr(kind, "heading", None):
        hints = {name: _under(heading, hint) for name, hint in hints.items()}
    return [
        Parameter(
            each.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(kind)
        if get_origin(hints[each.name]) is Annotated
    ]


def _under(heading: str, hint: Any) -> Any:
    """An annotated option, under a heading of the help."""
    if get_origin(hint) is not Annotated:
        return hint
    option = copy(hint.__metadata__[0])  # others may have the same one under another heading
    option.rich_help_panel = heading
    return Annotated[hint.__origin__, option]
