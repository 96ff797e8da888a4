"""The scores with their intervals: overall, for each class, and of the heads tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.classify.heads.search import Trial
from headstart.classify.report.content import About, HeldOut, ReportContent
from headstart.classify.report.parts import INTERVAL, Section, Table, count, percent
from headstart.classify.scores.metrics import Scores
from headstart.data.common.console import first_few
from headstart.data.common.intervals import Interval, share

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy (mean recall of the classes)",
    "macro_f1": "macro F1 (mean F1 of the classes)",
    "log_loss": "log loss (0 is perfect)",
}
MOST_CLASSES, MOST_TRIALS = 100, 100


def headlines(content: ReportContent) -> Section:
    """Scores with 95 % intervals, over this split and over repeated ones."""
    summary = content.summary
    intervals = {"accuracy": summary.accuracy} | summary.scores.intervals
    rows = [(TITLES[name], *_figures(name, found)) for name, found in intervals.items()]
    if summary.without_duplicates is not None:
        left_out = f"accuracy without {count(summary.duplicates, 'near-duplicate')} of training"
        rows.append((left_out, *_figures("accuracy", summary.without_duplicates)))
    if whole := summary.scores.wholes:
        what = f"accuracy of {count(whole.examples, 'recording')} (mean over their windows)"
        rows.append((what, *_figures("accuracy", whole.accuracy)))
    columns = ("score", "value", INTERVAL)
    text = (
        f"Measured on {count(summary.scores.examples, 'example')} that were held out. The "
        "interval shows how far a score may be from its value on many more such examples: if the "
        "intervals of two heads overlap widely, these scores do not show which is better."
    )
    tables = [Table(columns, tuple(rows))]
    if summary.repeated is not None:
        splits = summary.repeated.splits
        text += f" The second table has the means over {splits:,} repeated splits."
        repeated = (
            (TITLES.get(name, name), *_figures(name, found))
            for name, found in summary.repeated.scores.items()
        )
        tables.append(Table((f"mean of {splits:,} splits", *columns[1:]), tuple(repeated)))
    return Section(name="scores", title="Scores", text=text, tables=tuple(tables))


def _figures(name: str, found: Interval) -> tuple[str, str]:
    if name == "log_loss":
        return f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}"
    return percent(found.value), f"{percent(found.low)} to {percent(found.high)}"


def per_class(scores: Scores, held_out: HeldOut) -> Section:
    """Precision, recall and F1 of every class, or of the worst if there are many."""
    tested = [found for found in scores.per_class if found.support]
    untested = [found.name for found in scores.per_class if not found.support]
    text = (
        "Precision: the share of the predictions of a class that is right. Recall: the share of "
        "its examples that is found. F1 is the harmonic mean of both."
    )
    if len(tested) > MOST_CLASSES:
        text += f" Of {len(tested):,} classes, the {MOST_CLASSES} with the lowest F1."
        tested = sorted(tested, key=lambda found: found.f1)[:MOST_CLASSES]
    if untested:
        text += (
            f" {count(len(untested), 'class', 'classes')} without a held-out "
            f"example could not be scored: {_some(untested)}."
        )
    index = {found.name: row for row, found in enumerate(scores.per_class)}
    predictions = held_out.probabilities.argmax(axis=1)
    rows = []
    for found in tested:
        own = held_out.labels == index[found.name]
        groups = None if held_out.groups is None else held_out.groups[own]
        recall = share(predictions[own] == index[found.name], groups)
        rows.append(
            (
                found.name,
                percent(found.precision),
                percent(found.recall),
                f"{percent(recall.low)} to {percent(recall.high)}",
                percent(found.f1),
                f"{found.support:,}",
            )
        )
    columns = ("class", "precision", "recall", f"{INTERVAL} of recall", "F1", "examples")
    return Section(
        name="classes", title="Every class", text=text, tables=(Table(columns, tuple(rows)),)
    )


def _some(names: Sequence[str], most: int = 5) -> str:
    # Isolated (Unicode UAX 9), so that a right-to-left name does not reorder its neighbours.
    return first_few(names, most, show=lambda name: f"\u2068{name}\u2069")


def tried(trials: Sequence[Trial]) -> Section:
    """The heads that the search tried, the best first."""
    best = sorted(trials, key=lambda trial: -trial.mean)
    text = (
        f"{count(len(trials), 'head')}, each scored by cross-validation on the training examples "
        "only; a difference smaller than the spread between folds means little."
    )
    if len(best) > MOST_TRIALS:
        text += f" The best {MOST_TRIALS} are shown."
    rows = []
    for trial in best[:MOST_TRIALS]:
        rows.append(
            (
                f"{trial.head} (chosen)" if trial.chosen else trial.head,
                in_words(trial.parameters),
                f"{percent(trial.mean)} ± {100 * trial.std:.1f}",
                f"{trial.seconds:.1f}",
            )
        )
    columns = ("head", "parameters", "accuracy (mean ± sd)", "seconds")
    return Section(
        name="tried",
        title="Heads that were tried",
        text=text,
        tables=(Table(columns, tuple(rows), 2),),
    )


def in_words(parameters: Mapping[str, Any]) -> str:
    """Parameters such as `c = 0.01, gamma = scale`."""
    return ", ".join(
        f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in parameters.items()
    )


def made_with(about: About) -> Section:
    """What is needed to train the same head again."""
    rows = [
        ("head", about.head),
        ("parameters", in_words(about.parameters) or "none"),
        ("classes", f"{len(about.classes):,}: {_some(about.classes, 20)}"),
        ("training examples", f"{about.training:,}"),
        ("held-out examples", f"{about.held_out:,}"),
        ("split", about.split),
        ("backbone", about.fingerprint),
        ("feature store", about.features),
        ("made with", ", ".join(f"{name} {found}" for name, found in about.versions.items())),
    ]
    return Section(
        name="made",
        title="How this was made",
        text="What is needed to train the same head again.",
        tables=(Table(("", ""), tuple(rows), 2),),
    )
