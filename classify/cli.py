"""`python -m classify`: parse, call, print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from data import console

if TYPE_CHECKING:
    from classify.metrics import Scores

app = console.new_app("Train heads on embeddings, score them, and predict.")

Features = Annotated[str, typer.Argument(help="Folder of a feature store.")]
ModelFolder = Annotated[str, typer.Argument(help="Model folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there.")]

MOST_CLASSES = 20  # whose confusion matrix still fits a terminal


@app.command()
def train(
    features: Features,
    output: Annotated[str, typer.Option("-o", "--output", help="Model folder to write.")],
    head: Annotated[str, typer.Option(help="Kind of head.")] = "logistic",
    c: Annotated[float, typer.Option("--c", help="Inverse regularization strength.")] = 0.01,
    test_size: Annotated[
        float, typer.Option(help="Share held out, without declared splits.")
    ] = 0.25,
    repeats: Annotated[int, typer.Option(help="Also score this many random splits.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the random splits.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a head on FEATURES and score it on examples that it never saw."""
    from classify.heads import HeadOptions
    from classify.splits import SplitOptions
    from classify.training import train

    trained = train(
        features, output, HeadOptions(head, c), SplitOptions(test_size, seed, repeats), overwrite
    )
    if as_json:
        console.show_json(trained.model.card.metrics)
        return
    split = trained.split
    console.show(
        {
            "trained on": f"{len(split.train):,} examples",
            "tested on": f"{len(split.test):,} examples that training never saw",
            "split": split.how,
        }
        | ({"not tested on": f"{split.copies:,} copies of them"} if split.copies else {})
    )
    untested = [c.name for c in trained.scores.per_class if not c.support]
    if untested:
        console.note(f"no test example is of {', '.join(map(repr, untested))}: not scored")
    _show_scores(trained.scores)
    if trained.repeated:
        console.out.print(f"\nover {trained.repeated.repeats} random splits")
        mean, std = trained.repeated.mean, trained.repeated.std
        console.show({_title(name): f"{mean[name]:.4f} +- {std[name]:.4f}" for name in mean})
    console.out.print(
        f"\nwrote {console.place(trained.model.folder)}", soft_wrap=True, markup=False
    )


@app.command()
def evaluate(model: ModelFolder, features: Features, as_json: AsJson = False) -> None:
    """Score MODEL on the examples of FEATURES that its training never saw."""
    from classify.evaluation import evaluate

    evaluation = evaluate(model, features)
    if as_json:
        console.show_json(evaluation.scores.to_json() | {"left_out": evaluation.left_out})
        return
    console.show(
        {
            "tested on": f"{evaluation.scores.examples:,} examples",
            "left out": f"{evaluation.left_out:,} that training saw or that were kept aside",
        }
    )
    _show_scores(evaluation.scores)


@app.command()
def predict(
    model: ModelFolder,
    features: Features,
    output: Annotated[str, typer.Option("-o", "--output", help="A .parquet or .csv file.")],
    overwrite: Overwrite = False,
) -> None:
    """Write MODEL's answer for every embedding of FEATURES."""
    from classify.prediction import predict

    table = predict(model, features, output, overwrite)
    counts = table.group_by("prediction").aggregate([([], "count_all")]).sort_by("prediction")
    console.show_table(
        ["predicted", "examples"],
        [[row["prediction"] or "unknown", f"{row['count_all']:,}"] for row in counts.to_pylist()],
    )
    console.out.print(
        f"\nwrote {table.num_rows:,} predictions to {output}", soft_wrap=True, markup=False
    )


def _title(name: str) -> str:
    return name.replace("_", " ").replace("f1", "F1")


def _show_scores(scores: Scores) -> None:
    headlines = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
    console.out.print()
    figures = {_title(name): f"{getattr(scores, name):.4f}" for name in headlines}
    low, high = scores.accuracy_interval.low, scores.accuracy_interval.high
    figures["accuracy"] += f"  (95 %: {low:.4f} to {high:.4f})"
    figures["calibration error"] = f"{scores.calibration_error:.4f}"
    console.show(figures)
    console.out.print()
    console.show_table(
        ["class", "precision", "recall", "F1", "examples"],
        [
            [c.name, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", f"{c.support:,}"]
            for c in scores.per_class
        ],
    )
    if len(scores.per_class) <= MOST_CLASSES:
        names = [c.name for c in scores.per_class]
        rows = [[name, *counts] for name, counts in zip(names, scores.confusion, strict=True)]
        console.out.print()
        console.show_table(["true \\ predicted", *names], rows)
