"""The reference of all commands as Markdown, from the command line's own help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

_BREAK = re.compile(r"\s*\n\s*")


def command_tree() -> Any:
    """The front door with all rooms below it."""
    from headstart.cli import app

    return get_command(app)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by the words that a user types after `headstart`."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def pages() -> str:
    """One section for each command: what it does, its arguments and its options."""
    lines = [
        "# Commands",
        "",
        "Made from `--help`. `headstart ROOM ...` and `python -m ROOM ...` are the same.",
    ]
    for name, command in commands(command_tree()):
        lines += ["", f"## headstart {name}", "", _text(command.help), ""]
        lines += _table("argument", [_argument(p) for p in command.params if _is_argument(p)])
        lines += _table("option", [_option(p) for p in command.params if not _is_argument(p)])
    return "\n".join(lines) + "\n"


def _is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def _text(help: str | None) -> str:
    return _BREAK.sub(" ", (help or "").strip())


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|").replace("<", "&lt;")


def _argument(parameter: Any) -> tuple[str, str]:
    return f"`{parameter.metavar or (parameter.name or '').upper()}`", _cell(
        getattr(parameter, "help", None) or ""
    )


def _option(parameter: Any) -> tuple[str, str]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    shown = default not in (None, False, (), [], "") and not callable(default)
    words = _cell(getattr(parameter, "help", None) or "")
    if parameter.required:
        words += " Required."
    elif shown:
        words += f" Default: `{default}`."
    return names, words


def _table(what: str, rows: list[tuple[str, str]]) -> list[str]:
    if not rows:
        return []
    return [f"| {what} | |", "|---|---|", *(f"| {name} | {words} |" for name, words in rows), ""]
