"""`build` and the Python API have every option of their parts, by its name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import click
import pytest
import typer

import headstart as hs
from headstart.cli import app

# What has another name in the whole, or is not there, and why.
BUILD = {
    ("extract", "precision"): "extract_precision",  # of answers, in `classify train`
    ("export backbone", "precision"): "backbone_precision",
    ("export backbone", "name"): "backbone",
    ("export demo", "examples"): "page_examples",  # a number, in `export classifier`
}
OVER_AGAIN = "it goes on where it stopped, and replaces what was made from something else"
OWN = "the source and the parts in the work folder are known"
NOT_IN_BUILD = {
    "overwrite": OVER_AGAIN,
    "features": OWN,
    "model": OWN,
    "edge": OWN,
    "source": OWN,  # of `export classifier`: where the photographs are now
}
EXTRACT = {
    ("export backbone", "precision"): "backbone_precision",
    ("export backbone", "name"): "backbone",
}
NOT_IN_PYTHON = {
    "as_json": "an object is returned",
    "track": "a run of MLflow is of commands: `headstart.data.tracking` has it",
}
KEPT = "what is named in the cache is known by its options"
PARTS = ("extract", "export backbone", "classify train", "export classifier", "export demo")


def options(name: str) -> dict[str, click.Parameter]:
    """The parameters of a command, by name."""
    found: Any = typer.main.get_command(app)
    for word in name.split():
        found = found.commands[word]
    return {each.name: each for each in found.params if each.name != "help"}


def test_build_has_every_option_of_its_parts() -> None:
    whole = options("build")
    for part in PARTS:
        for name, option in options(part).items():
            if name in NOT_IN_BUILD and name not in whole:
                continue
            same = whole.get(BUILD.get((part, name), name))
            assert same is not None, f"`build` lacks {option.opts} of `{part}`"
            if (part, name) not in BUILD and same.name not in ("output", "backbone", "source"):
                assert same.opts == option.opts
                assert same.default == option.default, (part, name)


@pytest.mark.parametrize(
    ("function", "parts", "lacks"),
    [
        (hs.extract, ("extract", "export backbone"), {"overwrite": KEPT}),
        (hs.train, ("classify train",), {}),
        (hs.Model.export, ("export classifier",), {"model": "it is its own"}),
        (
            hs.Model.predict,
            ("predict",),
            {
                **dict.fromkeys(("output", "overwrite", "spreadsheet_safe"), "a table is returned"),
                "max_bad": "the table has the errors",
                "model": "it is its own",
                "files": "`source`",
            },
        ),
    ],
    ids=["extract", "train", "export", "predict"],
)
def test_the_python_api_has_every_option_of_its_commands(
    function: Callable, parts: tuple[str, ...], lacks: dict[str, str]
) -> None:
    whole = set(inspect.signature(function).parameters)
    if "reading" in whole:  # any of a source
        from dataclasses import fields

        from headstart.data.source_options import SourceOptions

        whole |= {each.name for each in fields(SourceOptions)}
    for part in parts:
        names = {EXTRACT.get((part, name), name) for name in options(part)}
        assert names - whole - lacks.keys() - NOT_IN_PYTHON.keys() == set(), part


def test_the_help_of_many_options_has_sections(command: Callable) -> None:
    said = command("build", "--help").out
    parts = re.split(r"^(\S.*):$", said, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(sections) == [
        *("Arguments", "Options", "Source", "Network", "Recordings", "Extraction", "Training"),
        "Edge model",
    ]
    for name, option in (("Options", "--backbone"), ("Network", "--layer"), ("Training", "--head")):
        assert f"  {option} " in sections[name]
    assert said.count("--seed") == 1
