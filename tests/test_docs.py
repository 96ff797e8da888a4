"""The pages: built without a warning, no dead link, and no command that does not exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
from command_reference import command_tree, commands, pages  # noqa: E402

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    if "_build" not in path.parts
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
OURS = re.compile(
    r"^(?:\$ )?(?:headstart|python -m (?:headstart )?) ?(?=data |extract |classify |"
    r"export |cluster |build |predict |serve )"
)
ROOMS = ("data", "extract", "classify", "export", "cluster")


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    found = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[|\]\([^)]*\)", "", each).lower() for each in found]
    return {re.sub(r"[^\w\- ]", "", each).strip().replace(" ", "-") for each in plain}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    dead = []
    for target in LINK.findall(re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)):
        name, _, anchor = target.partition("#")
        if "://" in target or name == "reference/commands.md":  # made when pages are built
            continue
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert not dead


def typed(path: Path) -> Iterator[list[str]]:
    """The commands of ours in a page's code, as words."""
    text = path.read_text()
    blocks = [block for _, block in FENCE.findall(text)]
    blocks += [span.replace("\n", " ") for span in SPAN.findall(FENCE.sub("", text))]
    for block in blocks:
        for line in re.sub(r"\\\n\s*", " ", block).split("\n"):
            if OURS.match(line.strip()):
                words = shlex.split(OURS.sub("", line.strip()), comments=True)
                yield [word for word in words if word != "..."]


def problem(words: list[str]) -> str | None:
    """What is wrong with a command, if anything."""
    command: Any = command_tree()
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            return f"no such command: {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    if "--" in rest:
        place = rest.index("--")
        inner = rest[place + 1 :]
        rest = rest[:place]
        if inner[:1] and inner[0] in ROOMS and (wrong := problem(inner)):
            return wrong
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    known |= {"-h", "--help"}
    unknown = [w for w in rest if w.startswith("-") and w.split("=")[0] not in known]
    return f"{' '.join(words)}: {', '.join(unknown)}" if unknown else None


def test_every_command_in_the_pages_exists_with_its_options() -> None:
    found = [(path, words) for path in PAGES for words in typed(path)]
    assert len(found) > 50
    wrong = [f"{path.name}: {what}" for path, words in found if (what := problem(words))]
    assert not wrong


def test_a_command_that_does_not_exist_is_found() -> None:
    assert problem(["classify", "teach"]) == "no such command: classify teach"
    assert problem(["extract", "photos", "--fast"]) == "extract photos --fast: --fast"
    assert problem(["cluster", "submit", "--", "extract", "photos", "--fast"]) is not None


def test_every_command_and_option_is_explained() -> None:
    reference = pages()
    for name, command in commands(command_tree()):
        assert f"## headstart {name}\n" in reference
        assert command.help, name
        silent = [p.name for p in command.params if not getattr(p, "help", None)]
        assert not silent, name


def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "d"]
    ended = subprocess.run(
        [*command, ROOT / "docs", tmp_path / "html"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "headstart export classifier" in (tmp_path / "html/reference/commands.html").read_text()
    python = (tmp_path / "html/reference/python.html").read_text()
    import headstart

    missing = [name for name in headstart.__all__ if f">{name}<" not in python]
    assert not missing
