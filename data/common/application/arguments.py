"""Options that several commands have, alone or as the fields of a dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_origin, get_type_hints

import typer

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


def _options(kind: Any) -> list[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
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
