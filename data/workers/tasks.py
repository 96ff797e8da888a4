"""The result of a single Ray task, or its own error in words."""

from __future__ import annotations

from typing import Any

from headstart.data.common.errors import HeadstartError, first_line


def result_of(answer: Any, what: str, kind: type[HeadstartError]) -> Any:
    """What a task returned.

    Parameters
    ----------
    answer
        The task's `ObjectRef`.
    what
        What it does, for a sentence: "training a head".

    Raises
    ------
    HeadstartError
        The task's own; or one of class `kind` that quotes another error, or says that the process
        was lost.
    """
    import ray

    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, HeadstartError):
            raise cause from None
        raise kind(
            f"{what} failed in a worker: {type(cause).__name__}: {first_line(cause)}",
            "What is wrong is in the line above; the same command would end there again.",
        ) from error
    except ray.exceptions.RayError as error:
        raise kind(
            f"{what} failed: its process was lost ({type(error).__name__})",
            "If the machine was short of memory, use fewer CPUs or a larger machine.",
        ) from error
