"""Starts the processes of a small job ahead: they import what they need while it is planned.

Imports little itself.
"""

from __future__ import annotations

import os

from headstart.data.workers.process import Ahead

MODULES = ("headstart.extract.worker",)


def started(size: int) -> Ahead:
    """So many processes, in which a worker of an extraction can be created."""
    return Ahead(size, MODULES)


def started_for(output: str, size: int) -> Ahead:
    """The same if a job will need them for certain: there is no store yet."""
    return started(0 if "://" in output or os.path.exists(output) else size)
