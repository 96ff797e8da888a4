"""The names of stretches of recordings: `a.wav#t=START+LENGTH`, in seconds, as path and as id."""

from __future__ import annotations

import re

_STRETCH = re.compile(r"(.+)#t=(\d+(?:\.\d+)?)\+(\d+(?:\.\d+)?)", re.DOTALL)


def stretch_of(name: str) -> tuple[str, float, float] | None:
    """The whole's name, the start and the length of a stretch; none if a name names none."""
    found = _STRETCH.fullmatch(name) if "#t=" in name else None
    return (found[1], float(found[2]), float(found[3])) if found else None


def whole_of(name: str) -> str:
    """The path or id of the whole example that a stretch belongs to; of a whole one, its own."""
    found = stretch_of(name)
    return found[0] if found else name


def named(name: str, stretch: str) -> str:
    """The name of a stretch; an empty one is the whole."""
    return f"{name}#t={stretch}" if stretch else name


def stretch(start: float, length: float) -> str:
    """A stretch as text, to the microsecond."""
    return f"{_short(start)}+{_short(length)}"


def _short(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
