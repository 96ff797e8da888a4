"""How accuracy changes with the input size, the layer or the width: a line for each source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from headstart.classify.pareto.candidates import Candidate
from headstart.classify.pareto.compare import REPEATS, open_store, plot_path, score_stores
from headstart.classify.splits.splitting import SplitOptions
from headstart.data.common.console import first_few
from headstart.data.common.errors import Checklist, InputError
from headstart.data.contracts.backbone import Backbone, load_backbone
from headstart.data.contracts.store import FeatureStore
from headstart.data.storage.files import write_whole

OVER = {"size": "input size, pixels", "layer": "layer", "width": "numbers in an embedding"}
MARKS = "osD^v"


@dataclass(frozen=True)
class Point:
    """A store on the plot.

    Parameters
    ----------
    line
        Source and network, of which a line is drawn.
    at
        Its place on the axis: a number, or the name of a layer.
    accuracy, std
        Mean and sample standard deviation over the splits.
    """

    line: str
    at: int | str
    accuracy: float
    std: float
    dim: int
    store: str


@dataclass(frozen=True)
class Trend:
    """Points in the order of the stores."""

    over: str
    points: tuple[Point, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"over": self.over, "points": [asdict(each) for each in self.points]}

    @property
    def places(self) -> list[int | str]:
        """The places on the axis: numbers sorted, layers in the order of the stores."""
        found = list(dict.fromkeys(point.at for point in self.points))
        return found if self.over == "layer" else sorted(found)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of a table to print: a row for each place, a column for each line."""
        lines = list(dict.fromkeys(point.line for point in self.points))
        cells = {(p.line, p.at): f"{p.accuracy:.4f} +- {p.std:.4f}" for p in self.points}
        rows = [[str(at), *(cells.get((line, at), "") for line in lines)] for at in self.places]
        return [self.over, *lines], rows

    def in_words(self) -> str:
        """What was measured, in a sentence."""
        return (
            f"Logistic head: mean and standard deviation of the accuracy over {REPEATS} stratified "
            "75%/25% splits."
        )


def trend(
    stores: Sequence[str | Path],
    over: str = "size",
    backbones: Sequence[str | Path] = (),
    seed: int = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Trend:
    """Score the default head on each store, as `pareto` does, for stores of any sources.

    Parameters
    ----------
    over
        `size`, `layer` or `width`.
    backbones
        The backbone files of the stores, in any order: they say the layers.
    output
        A plot to write: `.png`, `.svg` or `.html`.

    Raises
    ------
    InputError
        If a store cannot be used, a layer is not known, or the plot cannot be written.
    """
    checks = Checklist()
    with checks.item():
        if over not in OVER:
            raise InputError(f"unknown --over {over!r}", f"Choose from {', '.join(OVER)}.")
    with checks.item():
        path = None if output is None else plot_path(output, overwrite)
    opened: list[FeatureStore] = []
    files: list[Backbone] = []
    for place in stores:
        with checks.item():
            opened.append(open_store(place))
    for place in backbones:
        with checks.item():
            files.append(load_backbone(place))
    checks.finish()
    layers = {name: file for file in files for name in file.makes}
    places = [_place(store, over, layers) for store in opened]
    by_source: dict[str, list[int]] = {}
    for number, store in enumerate(opened):
        by_source.setdefault(store.manifest.source, []).append(number)
    scored: dict[int, Candidate] = {}
    options = SplitOptions(seed=seed, repeats=REPEATS)
    for rows in by_source.values():
        found, _, _ = score_stores([stores[n] for n in rows], [opened[n] for n in rows], options)
        scored |= dict(zip(rows, found, strict=True))
    lines = _lines([(store.manifest.source, store.fingerprint.backbone) for store in opened])
    points = tuple(
        Point(line, at, c.accuracy, c.std, c.fingerprint.dim, c.store)
        for line, at, (_, c) in zip(lines, places, sorted(scored.items()), strict=True)
    )
    _check_distinct(points, over)
    result = Trend(over, points)
    if path is not None:
        _write(result, path)
    return result


def _place(store: FeatureStore, over: str, layers: dict[Any, Backbone]) -> int | str:
    if over == "width":
        return store.fingerprint.dim
    if over == "size":
        size = store.fingerprint.preprocessing.partition("x")[0]
        if not size.isdecimal():
            raise InputError(
                f"{store.folder} has no input size: {store.fingerprint}", "Choose --over width."
            )
        return int(size)
    if store.fingerprint not in layers:
        raise InputError(
            f"the layer of {store.folder} is not known: {store.fingerprint}",
            "Name its backbone file: --backbone FILE",
        )
    return " ".join(layers[store.fingerprint].spec.layers)


def _lines(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names of lines: source and network, without what is the same in all of them."""
    sources, networks = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    names = []
    for source, network in pairs:
        parts = [PurePosixPath(source).name] if len(sources) > 1 else []
        parts += [network] if len(networks) > 1 or not parts else []
        names.append(" ".join(parts))
    return names


def _check_distinct(points: Sequence[Point], over: str) -> None:
    seen: dict[tuple[str, int | str], str] = {}
    twice = []
    for point in points:
        other = seen.setdefault((point.line, point.at), point.store)
        twice += [] if other == point.store else [f"{other} and {point.store}"]
    if twice:
        raise InputError(
            f"stores are at the same {over} of one line: {first_few(twice)}",
            f"Leave out one, or choose another --over: {', '.join(OVER)}.",
        )


def _write(found: Trend, path: Path) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from headstart.classify.report.drawing import PALETTE, STYLE

    kind, places = path.suffix.lower(), found.places
    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white", "font.size": 10}):
        figure = Figure(figsize=(8.0, 5.0), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for number, line in enumerate(dict.fromkeys(point.line for point in found.points)):
            own = sorted(
                (p for p in found.points if p.line == line), key=lambda p: places.index(p.at)
            )
            x = [places.index(p.at) if found.over == "layer" else p.at for p in own]
            y, spread = [100 * p.accuracy for p in own], [100 * p.std for p in own]
            colour, round_ = PALETTE[number % len(PALETTE)], number // len(PALETTE)
            axes.errorbar(
                *(x, y, spread),
                color=colour,
                marker=MARKS[number % len(MARKS)],
                linestyle=("-", "--", ":")[round_ % 3],
                capsize=3,
                label=line,
            )
        axes.set(xlabel=OVER[found.over], ylabel="accuracy, %")
        ticks = range(len(places)) if found.over == "layer" else places
        axes.set_xticks(list(ticks), [str(place) for place in places])
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        buffer = BytesIO()
        if kind == ".png":
            figure.savefig(buffer, format="png")
        else:
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    content = buffer.getvalue()
    if kind == ".html":
        from headstart.classify.pareto.plot import page

        columns, rows = found.table()
        content = page(content.decode(), "How accuracy changes", found.in_words(), columns, rows)
    write_whole(path, content)
