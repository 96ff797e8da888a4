"""The content of reports, made by code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from conftest import paint

from headstart.classify.diagnosis.learning_curve import LearningCurve
from headstart.classify.diagnosis.occlusion import Look
from headstart.classify.heads.search import Trial
from headstart.classify.report.content import (
    RIGHT,
    TRAINING,
    WRONG,
    About,
    Copies,
    Copy,
    Examples,
    Failed,
    HeldOut,
    LabelNext,
    NearDuplicates,
    Repeated,
    ReportContent,
    Sample,
    Similar,
    Summary,
    Suspects,
)
from headstart.classify.scores.metrics import score
from headstart.data.common.intervals import Interval, proportion
from headstart.data.storage.places import folder_at

WILD = (
    "<script>window.ran = 1</script>",
    '<img src=x onerror="window.ran=1">',
    "\"&'",
    "$\\frac{1}{2}$ and $broken",
    "{{ 7 * 7 }}{% raw %}",
    "\u202e\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",  # Hebrew
    "🦊 fox",
    "w" * 200,
    "words " * 33 + "e",
    "plain",
)


def answers(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that are mostly right."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    logits = random.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 2.5
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def held_out(count: int, classes: int, threshold: float | None = None) -> HeldOut:
    """Answers for examples whose files are nowhere."""
    names = [f"{row}.png" for row in range(count)]
    labels, probabilities = answers(count, classes)
    return HeldOut(Examples(names, names), labels, probabilities, threshold=threshold)


def full_content(folder: Path, classes: tuple[str, ...], ids: Sequence[str] = ()) -> ReportContent:
    """A report with every section; its photographs are written, but for one that is missing."""
    count = 40 * len(classes)
    names = [f"{row}.png" for row in range(count)]
    for name in names[:60]:
        paint(folder / name, (60, 80, 190), seed=int(name.split(".")[0]))
    ids = [*ids, *names[len(ids) :]]
    examples = Examples(ids, [names[row % 60] for row in range(count)])
    labels, probabilities = answers(count, len(classes))
    unsure = np.sqrt(probabilities)
    right = probabilities.argmax(axis=1) == labels
    some = Examples(ids[:4], names[:4])
    random = np.random.default_rng(1)
    marks = [TRAINING] * 20 + [RIGHT if hit else WRONG for hit in right[20:40]]
    accuracy = proportion(int(right.sum()), count)
    return ReportContent(
        about=About(
            classes=classes,
            head="logistic",
            parameters={"c": 0.01, "solver": classes[0]},
            split="stratified 75%/25%, seed 0",
            fingerprint="tiny 0123456789ab (8x8 squash bilinear, fp32)",
            training=1200,
            held_out=count,
            features="/features",
            versions={"headstart": "0.1.0"},
            data="photographs",
            date="1 May 2026",
        ),
        held_out=HeldOut(
            examples,
            labels,
            probabilities,
            unsure / unsure.sum(axis=1, keepdims=True),
            0.8,
            "a precision of 95 %",
        ),
        summary=Summary(
            score(labels, probabilities, classes),
            accuracy,
            Repeated(10, {"accuracy": accuracy, "log_loss": Interval(0.5, 0.4, 0.6)}),
            accuracy,
            3,
        ),
        root=folder_at(folder),
        trials=(
            Trial("logistic", {"c": 1.0}, 0.81, 0.02, 1.5),
            Trial("logistic", {"c": 0.01}, 0.84, 0.02, 1.5, chosen=True),
        ),
        learning_curve=LearningCurve(
            labels_per_class=np.array([5, 10, 20]),
            accuracy=np.array([0.6, 0.7, 0.75]),
            low=np.array([0.5, 0.65, 0.7]),
            high=np.array([0.7, 0.75, 0.8]),
            advice="100 more labels for each class would add about 3 points.",
        ),
        suspects=Suspects(
            some, labels[:4], labels[1:5], np.array([0.01, 0.02, 0.1, 0.2]), "By their way."
        ),
        near_duplicates=NearDuplicates(
            some, Examples(ids[4:8], ["gone.png", *names[5:8]]), np.full(4, 0.999), "By theirs."
        ),
        sample=Sample(
            (random.normal(size=(40, 12)) + labels[:40, None]).astype(np.float32),
            labels[:40],
            marks,
            Examples(ids[:40], [*names[:39], "gone.png"]),
            np.where(np.arange(40) < 20, -1, probabilities[:40].argmax(axis=1)),
            np.arange(40) < 3,
        ),
        inside=NearDuplicates(
            some,
            Examples(ids[2:6], names[2:6]),
            np.full(4, 0.99),
            "By theirs.",
            [(classes[0], classes[1]), *[(classes[0], classes[0])] * 3],
        ),
        copies=Copies(
            [
                [Copy(ids[at], names[at], classes[at], "training") for at in (0, 1)],
                [Copy(ids[at], names[at], classes[0], "held out") for at in (2, 3, 4)],
            ],
            2,
            1,
        ),
        similar={
            int(row): [
                Similar(ids[at], names[at], classes[at % len(classes)], 0.9) for at in range(3)
            ]
            for row in np.flatnonzero(~right)[:20]
        },
        looks={name: Look(np.full((64, 64, 3), 90, np.uint8), 0.4) for name in names[:30]},
        label_next=LabelNext(some, labels[:4], labels[1:5], np.full(4, 0.01), 300),
        failed=Failed([(ids[0], "truncated", "the file ends after 12 bytes")], 1),
    )
