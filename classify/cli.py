"""`python -m classify`: parse, call, print."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from headstart.classify.finetune import cli as cli_finetune
from headstart.data.common import console
from headstart.data.common.application.arguments import (
    Address,
    AsJson,
    ClassWeight,
    GroupedCommand,
    Overwrite,
    SamplesPerClass,
    Seed,
    Track,
    expanded,
)
from headstart.data.common.console import counted
from headstart.data.common.errors import Checklist, InputError, TooManyBadError
from headstart.data.source_options import SourceOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from headstart.classify.diagnosis.diagnose import Diagnosis
    from headstart.classify.heads.fitting import FitOptions
    from headstart.classify.heads.search import Trial
    from headstart.classify.scores.metrics import Answered, RepeatedScores, Scores
    from headstart.classify.splits.splitting import SplitOptions
    from headstart.classify.training import RunOptions
    from headstart.data.common.intervals import Interval

app = console.new_app("Train heads on embeddings, score them, and predict.")

Features = Annotated[str, typer.Argument(help="Folder of a feature store.")]
ModelFolder = Annotated[str, typer.Argument(help="Model folder.")]

MOST_CHANGES, MOST_LISTED = 20, 100  # lines and classes that still fit a terminal
HEAD_HELP = (
    "Kind of head: logistic, linear-svm, rbf-svm, knn, ridge, lda, boosting, keras; auto tries "
    "all; or package.module:factory."
)


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """The options of a training, as they are typed."""

    heading: ClassVar[str] = "Training"

    head: Annotated[str, typer.Option(help=HEAD_HELP)] = "logistic"
    param: Annotated[
        list[str] | None,
        typer.Option(help="A parameter of the head, as NAME=VALUE; may be repeated."),
    ] = None
    class_weight: ClassWeight = ""
    calibration: Annotated[
        str, typer.Option(help="temperature, isotonic (for many examples) or none.")
    ] = "temperature"
    precision: Annotated[
        float | None,
        typer.Option(
            help="Answer unknown when unsure, so that this share of the answers is right."
        ),
    ] = None
    coverage: Annotated[
        float | None,
        typer.Option(help="Answer this share of the examples; unknown for the least sure."),
    ] = None
    test_size: Annotated[float, typer.Option(help="Share held out, without declared splits.")] = (
        0.25
    )
    repeats: Annotated[int, typer.Option(help="Also score this many random splits.")] = 0
    samples_per_class: SamplesPerClass = None
    group: Annotated[str, typer.Option(help="Column of groups; a split never divides a group.")] = (
        ""
    )
    split_of: Annotated[
        str, typer.Option(help="Train and test on the same examples as this model.")
    ] = ""
    seed: Seed = 0
    report: Annotated[bool, typer.Option(help="Write report.html as well.")] = True
    memory: Annotated[
        float | None,
        typer.Option(help="Gigabytes that embeddings may take; a larger store is streamed."),
    ] = None
    corrections: Annotated[
        str | None,
        typer.Option(help="CSV of corrected labels, as the report or suspects.csv gives it."),
    ] = None

    def options(self, overwrite: bool) -> tuple[FitOptions, SplitOptions, RunOptions]:
        """For `training.train`; raises `InputError` with all that is wrong with them."""
        from headstart.classify.heads.calibration import AnswerOptions
        from headstart.classify.heads.estimators import HeadOptions, parse_parameters
        from headstart.classify.heads.fitting import FitOptions
        from headstart.classify.splits.splitting import SplitOptions
        from headstart.classify.training import RunOptions

        checks = Checklist()
        with checks.item():
            heads = HeadOptions(
                self.head, parse_parameters(self.param or []), self.class_weight or None
            )
        with checks.item():
            answers = AnswerOptions(self.calibration, self.precision, self.coverage)
        with checks.item():
            splits = SplitOptions(
                self.test_size,
                self.seed,
                self.repeats,
                self.samples_per_class,
                self.group,
                self.split_of,
            )
        with checks.item():
            memory = None if self.memory is None else int(self.memory * 1e9)
            run = RunOptions(overwrite, self.report, memory, self.corrections)
        checks.finish()
        return FitOptions(heads, answers, self.seed), splits, run


@app.command(cls=GroupedCommand)
@expanded
def train(
    context: typer.Context,
    features: Features,
    output: Annotated[str, typer.Option("-o", "--output", help="Model folder to write.")],
    arguments: TrainArguments,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The backbone file of FEATURES: the report then shows where the head looked."
        ),
    ] = None,
    track: Track = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a head on FEATURES and score it on held-out examples."""
    from headstart.classify.training import train
    from headstart.data.contracts.model import EXAMPLES
    from headstart.data.tracking import check_tracking, track_model

    checks = Checklist()
    with checks.item():
        check_tracking(track)
    with checks.item():
        fit, splits, run = arguments.options(overwrite)
    checks.finish()
    trained = train(features, output, fit, splits, replace(run, backbone=backbone))
    track_model(track, str(trained.model.folder), context.params)
    if as_json:
        console.show_json(trained.model.card.metrics)
        return
    split, fitted = trained.split, trained.fitted
    if fitted.trials:
        _show_trials(fitted.trials)
    console.show(
        {
            "trained on": counted(len(split.train), "example"),
            "tested on": counted(len(split.test), "held-out example"),
            "split": split.how,
            "head": " ".join([fitted.head.name, *_in_words(fitted.head.all_parameters)]),
        }
        | ({"left out": _copies(split.copies)} if split.copies else {})
    )
    untested = [c.name for c in trained.scores.per_class if not c.support]
    if untested:
        names = console.first_few(untested, show=repr)
        console.note(f"classes without test examples, which are not scored: {names}")
    _show_scores(trained.scores)
    if fitted.threshold:
        wanted = fitted.threshold
        console.out.print(f"\nthreshold {wanted.value:.4f}, chosen for {wanted.chosen_for}")
    if trained.repeated:
        console.out.print(f"\nover {trained.repeated.repeats} random splits")
        console.show(_over_splits(trained.repeated))
    if trained.diagnosis:
        _show_diagnosis(trained.diagnosis)
    if trained.unlabelled:
        console.note(
            f"{trained.unlabelled:,} examples without a label were predicted: "
            f"{console.place(trained.model.folder)}/{EXAMPLES}"
        )
    _show_line(f"wrote {console.place(trained.model.folder)}")


@app.command()
def evaluate(model: ModelFolder, features: Features, as_json: AsJson = False) -> None:
    """Score MODEL on the examples of FEATURES that were not used to train it."""
    from headstart.classify.scores.evaluation import evaluate

    evaluation = evaluate(model, features)
    if as_json:
        counts = {"left_out": evaluation.left_out, "unknown": evaluation.unknown}
        console.show_json(evaluation.scores.to_json() | counts)
        return
    unknown = evaluation.unknown
    console.show(
        {
            "tested on": counted(evaluation.scores.examples, "example"),
            "left out": f"{evaluation.left_out:,} used in training or reserved for validation",
        }
        | (
            {
                "not scored": f"{sum(unknown.values()):,} of classes that the model does not have: "
                + ", ".join(f"{name!r} ({count:,})" for name, count in list(unknown.items())[:5])
                + (", ..." if len(unknown) > 5 else "")
            }
            if unknown
            else {}
        )
    )
    _show_scores(evaluation.scores)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="Model folder.")],
    b: Annotated[str, typer.Argument(help="Another model folder.")],
    as_json: AsJson = False,
) -> None:
    """Compare models A and B on the test examples that they share."""
    from headstart.classify.scores.comparison import compare

    found = compare(a, b)
    if as_json:
        console.show_json(found.to_json())
        return
    console.show(
        {
            "tested on": counted(found.examples, "example"),
            "left out": f"{found.left_out:,}; the other model trained on {found.seen:,} of them",
            "accuracy of A": _with_interval(found.accuracy_a),
            "accuracy of B": _with_interval(found.accuracy_b),
            "log loss": f"A {found.log_loss_a:.4f}, B {found.log_loss_b:.4f}",
            "correct": f"both {found.both_right:,}, only A {found.only_a:,}, "
            f"only B {found.only_b:,}, neither {found.none_right:,}",
        }
    )
    if found.changes:
        shown = found.changes[:MOST_CHANGES]
        console.out.print(f"\n{len(found.changes):,} predictions differ; the first {len(shown)}:")
        console.show_table(
            ["example", "true", "A", "B"],
            [[c.id, c.label, c.a or "unknown", c.b or "unknown"] for c in shown],
        )
    _show_line(found.verdict)


@app.command()
@expanded
def predict(
    model: Annotated[str, typer.Argument(help="Model folder, or edge model (.onnx).")],
    source: Annotated[
        str,
        typer.Argument(
            help="A feature store for a model folder; files (a folder, manifest, .tar or Parquet "
            "file) for an edge model."
        ),
    ],
    output: Annotated[str, typer.Option("-o", "--output", help="A .parquet or .csv file.")],
    reading: SourceOptions,
    address: Address = None,
    workers: Annotated[
        int | None, typer.Option(help="Edge model: workers, one CPU each; default: all.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Edge model: examples at once; default: 16.")
    ] = None,
    max_bad: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Edge model: share of unreadable files above which to exit 3; default: 0.05.",
        ),
    ] = None,
    spreadsheet_safe: Annotated[
        bool,
        typer.Option(
            help="A CSV's cells that a spreadsheet would run as formulas (= + - @) begin with '."
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write MODEL's prediction for every embedding or file of SOURCE."""
    from headstart.classify.prediction.features import is_edge_model, predict

    run: dict[str, Any] = {"address": address, "workers": workers, "batch": batch}
    given = {name: value for name, value in run.items() if value is not None}
    if is_edge_model(model):
        from headstart.classify.prediction.edge import PredictOptions, predict_examples

        source = str(reading.address(source))
        options = PredictOptions(**given, spreadsheet_safe=spreadsheet_safe)
        table = predict_examples(model, source, output, overwrite, options)
        _show_predictions(table.filter(table["error"].is_null()), output, as_json)
        _show_failures(table, output, 0.05 if max_bad is None else max_bad)
        return
    useless = [f"--{name}" for name in given] + reading.of_manifest + reading.of_table
    if useless := useless + ["--max-bad"] * (max_bad is not None):
        raise InputError(
            f"{' and '.join(useless)} cannot be used with a model folder and features",
            "Leave out what is for an edge model and photographs only.",
        )
    table = predict(model, source, output, overwrite, spreadsheet_safe)
    _show_predictions(table, output, as_json)


@app.command()
def pareto(
    stores: Annotated[
        list[str],
        typer.Argument(metavar="FEATURES...", help="Feature stores of the same examples."),
    ],
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Backbone file of a store, for its size and speed; one for each."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Plot: a .png, .svg or .html file.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare feature stores: the accuracy of a light head, and what the embeddings cost."""
    from headstart.classify.pareto.candidates import in_words, table
    from headstart.classify.pareto.compare import pareto

    found = pareto(stores, backbone or [], seed, output, overwrite)
    if as_json:
        console.show_json(found.to_json())
        return
    console.show_table(*table(found))
    console.note(in_words(found))
    if output is not None:
        _show_line(f"wrote {console.place(output)}")


@app.command()
def trend(
    stores: Annotated[
        list[str],
        typer.Argument(metavar="FEATURES...", help="Feature stores, in the order of the plot."),
    ],
    over: Annotated[
        str, typer.Option(help="size (of the input), layer or width (of the embedding).")
    ] = "size",
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Backbone file of a store, which says its layer; one for each."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Plot: a .png, .svg or .html file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show how the accuracy of a light head changes with input size or layer, a line a source."""
    from headstart.classify.pareto.trend import trend

    found = trend(stores, over, backbone or [], seed, output, overwrite)
    if as_json:
        console.show_json(found.to_json())
        return
    console.show_table(*found.table())
    console.note(found.in_words())
    if output is not None:
        _show_line(f"wrote {console.place(output)}")


def _show_line(text: str) -> None:
    console.say(f"\n{text}")


def _show_predictions(table: pa.Table, output: str, as_json: bool) -> None:
    found = table.group_by("prediction").aggregate([([], "count_all")]).sort_by("prediction")
    counts = {row["prediction"] or "unknown": row["count_all"] for row in found.to_pylist()}
    if as_json:
        console.show_json({"wrote": output, "predictions": table.num_rows, "classes": counts})
        return
    console.show_table(
        ["predicted", "examples"], [[name, f"{count:,}"] for name, count in counts.items()]
    )
    _show_line(f"wrote {counted(table.num_rows, 'prediction')} to {output}")


def _show_failures(table: pa.Table, output: str, max_bad: float) -> None:
    errors = table["error"].drop_null()
    if not len(errors):
        return
    where = f"The column error of {output} says why."
    reasons = Counter(error.partition(":")[0] for error in errors.to_pylist())
    console.note(f"{len(errors):,} of {counted(len(table), 'file')} could not be read. {where}")
    for reason, count in sorted(reasons.items()):
        console.note(f"  {count:,} failed with {reason}")
    if (share := len(errors) / len(table)) > max_bad:
        raise TooManyBadError(
            f"{share:.1%} of the files could not be read, more than --max-bad {max_bad:.1%}",
            where,
        )


def _show_diagnosis(diagnosis: Diagnosis) -> None:
    lines = {}
    leaks = diagnosis.leaks
    if leaks and len(leaks.test_rows):
        few = len(leaks.test_rows)
        like = "1 test example is like a training one"
        lines["near-duplicates"] = (
            like if few == 1 else f"{few:,} test examples are like training ones"
        )
        if leaks.accuracy:
            lines["without them"] = f"accuracy {_with_interval(leaks.accuracy)}"
        if count := int(leaks.two_labels.sum()):
            lines["two labels"] = f"{count:,} of these pairs, such as {leaks.example}"
    if errors := int(diagnosis.suspects.is_error.sum()):
        lines["labels"] = (
            "1 is probably wrong; the report shows it"
            if errors == 1
            else f"{errors:,} are probably wrong; the report shows them"
        )
    if diagnosis.curve:
        lines["more labels"] = diagnosis.curve.advice
    if lines:
        console.out.print()
        console.show(lines)


def _copies(count: int) -> str:
    return (
        "1 copy of a training example" if count == 1 else f"{count:,} copies of training examples"
    )


def _in_words(parameters: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in parameters.items()]


def _show_trials(trials: tuple[Trial, ...]) -> None:
    console.show_table(
        ["head", "accuracy in folds", "seconds"],
        [
            [
                " ".join([trial.head, *_in_words(dict(trial.parameters))]),
                f"{trial.mean:.4f} +- {trial.std:.4f}",
                f"{trial.seconds:.1f}",
            ]
            for trial in trials
        ],
    )
    console.out.print()


def _over_splits(repeated: RepeatedScores) -> dict[str, str]:
    return {
        _title(name): f"{mean:.4f} +- {repeated.std[name]:.4f}"
        f"  (95 % of the mean: {repeated.intervals[name].low:.4f} to "
        f"{repeated.intervals[name].high:.4f})"
        for name, mean in repeated.mean.items()
    }


def _title(name: str) -> str:
    return name.replace("_", " ").replace("f1", "F1")


def _show_scores(scores: Scores) -> None:
    headlines = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
    console.out.print()
    figures = {_title(name): f"{getattr(scores, name):.4f}" for name in headlines}
    figures["accuracy"] = _with_interval(scores.accuracy_interval)
    figures["calibration error"] = f"{scores.calibration_error:.4f}"
    if scores.uncalibrated_error is not None:
        figures["calibration error"] += f"  (before calibration: {scores.uncalibrated_error:.4f})"
    if scores.answered:
        figures |= _answered(scores.answered)
    if whole := scores.wholes:
        figures["whole recordings"] = (
            f"{_with_interval(whole.accuracy)} of {whole.examples:,}: the mean of the "
            "probabilities of their windows"
        )
    console.show(figures)
    console.out.print()
    listed = scores.per_class
    if len(listed) > MOST_LISTED:
        tested = [found for found in listed if found.support]
        listed = tuple(sorted(tested, key=lambda found: found.f1)[:MOST_LISTED])
        console.out.print(f"the {MOST_LISTED} classes with the lowest F1")
    console.show_table(
        ["class", "precision", "recall", "F1", "examples"],
        [
            [c.name, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", f"{c.support:,}"]
            for c in listed
        ],
    )
    from headstart.classify.scores.confusion import confusion_table

    names = [c.name for c in scores.per_class]
    columns, rows = confusion_table(names, scores.confusion, console.width())
    if rows:
        console.out.print()
        console.show_table(columns, rows)


def _answered(answered: Answered) -> dict[str, str]:
    figures = {"answered": _with_interval(answered.coverage)}
    if answered.precision:
        figures["precision of answers"] = _with_interval(answered.precision)
    return figures


def _with_interval(found: Interval) -> str:
    return f"{found.value:.4f}  (95 %: {found.low:.4f} to {found.high:.4f})"


app.command()(cli_finetune.finetune)
