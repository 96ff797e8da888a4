"""A sweep: several recipes side by side, of which the better half goes on, round by round.

Successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943) by validation loss. Ray Tune's
ASHA does not wait for the end of a round, so that which recipe is stopped depends on which happens
to be faster; here, the same seed gives the same result, bit by bit on CPUs. A sweep that was
stopped goes on from each recipe's last epoch.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headstart.classify.finetune.options import MachineOptions, Recipe
from headstart.classify.finetune.running import task_of_one
from headstart.classify.finetune.training.job import TrainingJob
from headstart.classify.finetune.training.loop import ABOUT
from headstart.data.common import console
from headstart.data.common.errors import ExtractionError, HeadstartError
from headstart.data.workers.tasks import result_of

HALF = 2  # of which one goes on


@dataclass(frozen=True)
class Trial:
    """A recipe that was tried.

    Parameters
    ----------
    values
        What distinguishes it.
    epochs
        After which it ended, or was stopped.
    loss, accuracy
        On the validation examples, after its last epoch.
    """

    values: dict[str, Any]
    epochs: int
    loss: float
    accuracy: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def sweep(
    job: TrainingJob,
    space: Mapping[str, tuple[Any, ...]],
    folder: Path,
    machine: MachineOptions,
) -> tuple[Recipe, tuple[Trial, ...]]:
    """The best recipe, and all that were tried, best first; the session with Ray must be open.

    The test examples are not given to any of them.

    Parameters
    ----------
    space
        The values of each field of the recipe; all combinations are tried.
    folder
        For checkpoints.
    machine
        Each recipe has one CPU, and the GPUs of a worker.

    Raises
    ------
    ExtractionError
        If no recipe could be trained.
    """
    empty = job.examples.test[:0]
    job = replace(job, examples=replace(job.examples, test=empty), threads=1)
    recipes = [
        replace(job.recipe, **dict(zip(space, values, strict=True)))
        for values in itertools.product(*space.values())
    ]
    jobs = [replace(job, recipe=recipe) for recipe in recipes]
    places = [folder / f"recipe-{number:03d}" for number in range(len(jobs))]
    folder.mkdir(parents=True, exist_ok=True)
    going, rungs = list(range(len(jobs))), _rungs(len(jobs), job.recipe.epochs)
    for number, epochs in enumerate(rungs, 1):
        console.note(
            f"round {number} of {len(rungs)}: {console.counted(len(going), 'recipe')} to epoch "
            f"{epochs}"
        )
        wrong = _round([jobs[n] for n in going], [places[n] for n in going], epochs, machine)
        for n, why in zip(list(going), wrong, strict=True):
            if why:
                console.note(f"{_in_words(_values(space, recipes[n]))} is out: {why.message}")
                going.remove(n)
        if not going:
            raise ExtractionError("no recipe could be trained", "Try lower learning rates.")
        going.sort(key=lambda n: (_read(places[n])["validation_loss"], n))
        if number < len(rungs):
            going = going[: max(1, math.ceil(len(going) / HALF))]
    trials = [
        _trial(_values(space, recipe), place)
        for recipe, place in zip(recipes, places, strict=True)
        if (place / ABOUT).exists()
    ]
    # Who was trained longer is better than who was stopped.
    trials.sort(key=lambda trial: (-trial.epochs, trial.loss))
    return recipes[going[0]], tuple(trials)


def _rungs(count: int, epochs: int) -> list[int]:
    """The epochs at which each round ends; the last is the whole training."""
    rounds = min(math.ceil(math.log2(max(count, 1))), math.floor(math.log2(epochs)))
    return [max(1, round(epochs / HALF**left)) for left in range(max(rounds, 0), -1, -1)]


def _round(
    jobs: Sequence[TrainingJob], places: Sequence[Path], epochs: int, machine: MachineOptions
) -> list[HeadstartError | None]:
    """What is wrong with each of the recipes."""
    import ray

    task = task_of_one(1, machine.gpus)
    waiting = {
        task.remote(replace(job, until=epochs), str(place.resolve())): number
        for number, (job, place) in enumerate(zip(jobs, places, strict=True))
    }
    answers: list[HeadstartError | None] = [None] * len(jobs)
    with console.progress("recipes", len(jobs)) as advance:
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            number = waiting.pop(done)
            try:
                result_of(done, "training a recipe", ExtractionError)
            except HeadstartError as error:
                answers[number] = error
            advance(1)
    return answers


def _read(place: Path) -> dict[str, Any]:
    """The last epoch of a recipe."""
    history = json.loads((place / ABOUT).read_text())["history"]
    return dict(history[-1])


def _trial(values: dict[str, Any], place: Path) -> Trial:
    history = json.loads((place / ABOUT).read_text())["history"]
    last = history[-1]
    return Trial(
        values=values,
        epochs=last["epoch"],
        loss=last["validation_loss"],
        accuracy=last["validation_accuracy"],
        seconds=sum(each["seconds"] for each in history),
    )


def _values(space: Mapping[str, tuple[Any, ...]], recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in space}


def _in_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
