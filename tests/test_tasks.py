"""What a single task of Ray fails with is a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from headstart.classify.heads import search
from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.folds import Fold
from headstart.data.common.errors import InputError, TrainingError
from headstart.data.workers.tasks import result_of


def _fails(error: Exception) -> Callable:
    def task(*arguments: object) -> None:
        raise error

    return task


def _dies() -> Callable:
    def task(*arguments: object) -> None:  # inside, so that it is sent by value
        os._exit(3)

    return task


@pytest.mark.parametrize(
    ("task", "kind", "words"),
    [
        (_fails(InputError("no", "Do so.")), InputError, "no\n  Do so."),
        (
            _fails(OSError(28, "No space left on device")),
            TrainingError,
            "it failed in a worker: OSError: [Errno 28] No space left on device\n"
            "  What is wrong is in the line above; the same command would end there again.",
        ),
        (_dies(), TrainingError, "it failed: its process was lost (WorkerCrashedError)\n  If the "),
    ],
    ids=["ours", "foreign", "lost"],
)
def test_a_task_that_fails(local_ray: None, task: Callable, kind: type, words: str) -> None:
    import ray

    with pytest.raises(kind) as caught:
        result_of(ray.remote(max_retries=0)(task).remote(), "it", TrainingError)
    assert str(caught.value).startswith(words)


def test_a_search_whose_worker_fails_ends_in_words(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_timed", _fails(RuntimeError("libfoo.so is missing")))
    half = np.arange(4)
    with pytest.raises(TrainingError) as caught:
        search._try([HeadOptions("ridge")], None, [Fold(half, half)], 0, "trying heads")
    assert str(caught.value).startswith(
        "training the head ridge failed in a worker: RuntimeError: libfoo.so is missing\n"
    )
