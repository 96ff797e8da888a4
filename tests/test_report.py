"""The report: what it says, and that nothing of the user's is taken for HTML."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tarfile
import time
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from conftest import paint
from PIL import Image
from report_content import WILD, answers, full_content, held_out
from sklearn.metrics import average_precision_score, roc_auc_score

from headstart.classify.diagnosis.learning_curve import LearningCurve
from headstart.classify.report.content import (
    RIGHT,
    TRAINING,
    WRONG,
    About,
    Copies,
    Examples,
    Failed,
    HeldOut,
    ReportContent,
    Sample,
    Summary,
)
from headstart.classify.report.drawing import draw
from headstart.classify.report.page import render
from headstart.classify.report.parts import percent
from headstart.classify.report.sections.confidence import calibration, rejection
from headstart.classify.report.sections.confusion import confusion
from headstart.classify.report.sections.curves import ranking
from headstart.classify.report.sections.embedding_map import embedding_map, project
from headstart.classify.report.sections.failures import failures
from headstart.classify.report.sections.galleries import copies, mistakes
from headstart.classify.report.sections.learning import learning
from headstart.classify.report.sections.scores import per_class
from headstart.classify.report.thumbnails import Thumbnails
from headstart.classify.scores.metrics import ClassScores, Scores, score
from headstart.data.common.intervals import Interval, proportion
from headstart.data.modalities.image.modality import SIDE
from headstart.data.storage.places import folder_at

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """What a page holds: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def ids(self) -> list[str]:
        return [found["id"] or "" for _, found in self.elements if "id" in found]


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report on classes and ids that nobody should have."""
    return render(full_content(tmp_path_factory.mktemp("wild"), WILD, WILD))


# What it says


def test_sections_come_with_their_data(tmp_path: Path) -> None:
    content = full_content(tmp_path, ("cat", "dog", "fox"))
    everything = [
        *("scores", "confusion", "classes", "calibration", "ranking", "rejection", "learning"),
        *("map", "mistakes", "suspects", "copies", "duplicates", "inside", "label-next"),
        *("failed", "tried", "made"),
    ]
    page = Page(render(content))
    assert [found["id"] for tag, found in page.elements if tag == "section"] == everything
    assert "photographs, 1 May 2026: headstart report" in page.texts
    links = [found["href"] for tag, found in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in everything]
    little = replace(
        content,
        learning_curve=None,
        suspects=None,
        near_duplicates=None,
        sample=None,
        trials=(),
        inside=None,
        copies=None,
        label_next=None,
        failed=None,
        summary=replace(content.summary, repeated=None, without_duplicates=None),
    )
    page = Page(render(little))
    left_out = {"learning", "map", "suspects", "duplicates", "tried"}
    left_out |= {"copies", "inside", "label-next", "failed"}
    assert [found["id"] for tag, found in page.elements if tag == "section"] == [
        name for name in everything if name not in left_out
    ]
    assert "mean of 10 splits" not in page.texts


def test_the_same_content_gives_the_same_page(tmp_path: Path) -> None:
    content = full_content(tmp_path, ("cat", "dog"))
    assert render(content) == render(content)


def test_every_drawing_has_a_text_and_a_caption(wild: str) -> None:
    page = Page(wild)
    drawings = [found for tag, found in page.elements if found.get("role") == "img"]
    captions = [tag for tag, _ in page.elements if tag == "figcaption"]
    assert len(drawings) == len(captions) == 6
    labels = [found["aria-label"] or "" for found in drawings]
    assert labels[0].startswith("Reliability diagram: expected calibration error ")
    assert all(len(label) > 40 for label in labels)


def test_the_headline(tmp_path: Path) -> None:
    content = full_content(tmp_path, ("cat", "dog"))
    accuracy = Interval(0.9, 0.8, 1)
    page = render(replace(content, summary=replace(content.summary, accuracy=accuracy)))
    assert (
        "90.0\u00a0% of 80 held-out examples are classified correctly (95\u00a0% interval "
        "80.0\u00a0% to 100.0\u00a0%): 2 classes, head logistic, trained on 1,200 examples."
    ) in page


def test_shares_are_rounded_honestly() -> None:
    shares = [0, 0.0004, 0.5, 0.9994, 0.99951, 1]
    assert [percent(share).replace("\u00a0", " ") for share in shares] == [
        *("0.0 %", "< 0.1 %", "50.0 %", "99.9 %", "> 99.9 %", "100.0 %")
    ]


def test_intervals_of_scores_are_as_wide_as_theory_says() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(800) % 2
    right = random.random(800) < 0.8
    predictions = np.where(right, labels, 1 - labels)
    probabilities = np.where(np.arange(2) == predictions[:, None], 0.9, 0.1)
    scores = score(labels, probabilities, ("a", "b"))
    found = scores.intervals
    assert list(found) == ["balanced_accuracy", "macro_f1", "log_loss"]
    deviations = {
        "balanced_accuracy": (0.8 * 0.2 / 800) ** 0.5,
        "macro_f1": (0.8 * 0.2 / 800) ** 0.5,
        "log_loss": np.log(9) * (0.8 * 0.2 / 800) ** 0.5,
    }
    for name, deviation in deviations.items():
        interval = found[name]
        assert interval.value == getattr(scores, name)
        assert interval.low < interval.value < interval.high
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * deviation, rel=0.12)


def test_classes_without_examples_are_named_and_of_many_the_worst_are_shown() -> None:
    def scores(*support: int) -> Scores:
        found = tuple(
            ClassScores(f"c{row}", 0.5, 0.5, 1 - row / 1000, count)
            for row, count in enumerate(support)
        )
        return Scores(
            examples=sum(support),
            accuracy=0.5,
            balanced_accuracy=0.5,
            macro_f1=0.5,
            log_loss=1.0,
            accuracy_interval=proportion(1, 2),
            calibration_error=0.1,
            per_class=found,
            confusion=(),
        )

    section = per_class(scores(4, 0, 2), held_out(6, 3))
    assert [row[0] for row in section.tables[0].rows] == ["c0", "c2"]
    assert section.text.endswith(
        "1 class without a held-out example could not be scored: \u2068c1\u2069."
    )
    section = per_class(scores(*[2] * 300), held_out(600, 300))
    assert section.text.endswith("Of 300 classes, the 100 with the lowest F1.")
    assert [row[0] for row in section.tables[0].rows[:2]] == ["c299", "c298"]
    assert len(section.tables[0].rows) == 100


def test_confusion_is_a_matrix_or_the_most_confused_pairs() -> None:
    matrix = confusion(held_out(60, 20), tuple(map(str, range(20)))).matrix
    assert matrix is not None
    assert sum(cell.count for row in matrix.rows for cell in row) == 60
    names = tuple(f"c{row}" for row in range(21))
    labels = np.array([0, 0, 0, 0, 5, 6])
    answered = np.array([1, 1, 1, 0, 6, 6])
    ids = list("abcdef")
    section = confusion(HeldOut(Examples(ids, ids), labels, np.eye(21)[answered]), names)
    assert section.matrix is None
    assert section.tables[0].rows == (
        ("c0", "c1", "3", "75.0\u00a0%"),
        ("c5", "c6", "1", "100.0\u00a0%"),
    )
    section = confusion(HeldOut(Examples(ids, ids), labels, np.eye(21)[labels]), names)
    assert section.text == "No held-out example was predicted as another class."


def test_curves_have_the_areas_of_scikit_learn() -> None:
    answered = held_out(90, 3)
    section = ranking(answered, ("a", "b", "c"))
    for plot, area in zip(section.plots, (average_precision_score, roc_auc_score), strict=True):
        assert [(key.text, key.figure) for key in plot.keys] == [
            (name, f"{area(answered.labels == row, answered.probabilities[:, row]):.3f}")
            for row, name in enumerate("abc")
        ]


def test_of_many_classes_the_averages_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(map(str, range(12)))
    answered = held_out(240, 12)
    truth = np.eye(12)[answered.labels]
    section = ranking(answered, names)
    for plot, area in zip(section.plots, (average_precision_score, roc_auc_score), strict=True):
        micro, macro = (area(truth, answered.probabilities, average=a) for a in ("micro", "macro"))
        assert [(key.text, key.figure) for key in plot.keys] == [
            ("micro average", f"{micro:.3f}"),
            ("macro average", f"{macro:.3f}"),
        ]
    monkeypatch.setattr("headstart.classify.report.sections.curves.MOST_VALUES", 1200)
    section = ranking(answered, names)
    assert section.text.endswith("Drawn from a random 100 of the 240 examples.")
    assert len(section.plots[0].keys) == 1
    alone = replace(answered, labels=np.zeros(240, np.int64))
    assert ranking(alone, names).text == (
        "All held-out examples are of one class: there is nothing to rank."
    )


def test_calibration_error_before_and_after() -> None:
    ids = [str(row) for row in range(10)]
    labels = np.array([0] * 8 + [1] * 2)
    honest, boastful = (np.tile([share, 1 - share], (10, 1)) for share in (0.9, 0.99))
    section = calibration(HeldOut(Examples(ids, ids), labels, honest, boastful))
    assert [key.text for key in section.plots[0].keys] == [
        "before calibration",
        "after calibration",
    ]
    assert (
        "expected calibration error 19.0\u00a0% before calibration, 10.0\u00a0% after"
        in section.plots[0].caption
    )


def test_what_the_threshold_does() -> None:
    ids = [str(row) for row in range(4)]
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    answered = HeldOut(Examples(ids, ids), np.array([0, 1, 0, 1]), probabilities)
    none = rejection(answered)
    assert none.text.endswith("No threshold was chosen: every example is answered.")
    assert not none.plots[0].keys
    some = replace(answered, threshold=0.7, threshold_for="a coverage of 75 %")
    assert (
        rejection(some)
        .text.replace("\u00a0", " ")
        .endswith(
            "Below a confidence of 0.700, chosen for a coverage of 75 %, the answer is unknown: "
            "75.0 % of these examples are answered, and 66.7 % of the answers are right (95 % "
            "interval 9.4 % to 99.2 %)."
        )
    )
    nothing = replace(answered, threshold=0.95)
    assert rejection(nothing).text.endswith("this holds for all of these examples.")


def test_figures_that_contradict_each_other_are_explained() -> None:
    ids = [str(row) for row in range(100)]
    labels = np.array([0] * 80 + [1] * 20)
    sure = np.tile([0.9, 0.1], (100, 1))
    answered = HeldOut(
        Examples(ids, ids), labels, sure, None, 0.5, "a precision of 95 %", precision=0.95
    )
    text = rejection(answered).text.replace("\u00a0", " ")
    assert "That is less than the 95.0 % that were asked for: the threshold was chosen on" in text
    near = rejection(replace(answered, precision=0.81)).text.replace("\u00a0", " ")
    assert "less than the 81.0 % that were asked for: the interval includes it, so chance" in near
    assert "asked for" not in rejection(replace(answered, precision=0.8)).text
    assert "asked for" not in rejection(replace(answered, precision=None)).text

    better = np.tile([0.8, 0.2], (100, 1))
    worse = calibration(replace(answered, uncalibrated=better)).text.replace("\u00a0", " ")
    assert "calibration made the error larger (< 0.1 % before, 10.0 % after)" in worse
    assert "larger" not in calibration(replace(answered, uncalibrated=sure)).text

    curve = LearningCurve(
        labels_per_class=np.array([5, 10]),
        accuracy=np.array([0.6, 0.79]),
        low=np.array([0.5, 0.7]),
        high=np.array([0.7, 0.9]),
        advice="More would help.",
    )
    beside = learning(curve, proportion(917, 1000)).text.replace("\u00a0", " ")
    assert "The curve ends at 79.0 %, and the accuracy above is 91.7 %: each point of" in beside
    assert learning(curve, proportion(79, 100)).text == "More would help."


def test_what_is_perfect_is_a_sentence() -> None:
    ids = [str(row) for row in range(20)]
    labels = np.arange(20) % 2
    perfect = HeldOut(Examples(ids, ids), labels, np.where(np.eye(2)[labels] > 0, 0.99, 0.01))
    for section, said in (
        (ranking(perfect, ("a", "b")), "Every class is ranked perfectly: "),
        (rejection(perfect), "All 20 held-out examples are classified correctly: "),
        (calibration(perfect), "All 20 answers are right, with a confidence of 99.0\u00a0% to "),
    ):
        assert said in section.text
        assert not section.plots
    flat = LearningCurve(
        np.array([5, 10]), np.ones(2), np.array([0.9, 0.95]), np.ones(2), advice="Enough."
    )
    section = learning(flat, proportion(20, 20))
    assert section.text.startswith("Enough. With 5 labels for each class already, all answers")
    assert not section.plots


def test_copies_and_failed_files_are_named(tmp_path: Path) -> None:
    content = full_content(tmp_path, ("cat", "dog", "fox"))
    assert content.copies is not None
    thumbnails = Thumbnails(folder_at(tmp_path))
    section = copies(content.copies, thumbnails)
    assert section.text.startswith(
        "2 sets of files with the same bytes. 1 set has more than one label: at most one of the "
        "labels is right."
    )
    assert section.cards[0].facts == (("cat, training", "0.png"), ("dog, training", "1.png"))
    assert [asked.suggestion for asked in section.cards[0].questions] == ["dog", "cat"]
    assert section.tables[0].rows == (("2.png\n3.png\n4.png", "cat", "3 held out"),)
    assert copies(Copies([], 0, 0), thumbnails).text == "No two files have the same bytes."
    failed = failures(Failed([("a.jpg", "truncated", "it ends")], 300))
    assert failed.text == (
        "300 files could not be embedded, and are neither trained on nor tested. The first 1 are "
        "shown; all are in the folder _errors of the features."
    )


# The map


def points(count: int, dim: int = 60) -> np.ndarray:
    centres = np.repeat(np.eye(2, dim, dtype=np.float32) * 20, count // 2, axis=0)
    return centres + np.random.default_rng(0).normal(size=centres.shape).astype(np.float32)


@pytest.mark.parametrize(("count", "method"), [(20, "PCA"), (120, "PCA to 50 and t-SNE")])
def test_the_map_keeps_clusters_apart_and_is_the_same_every_time(count: int, method: str) -> None:
    places, how = project(points(count))
    assert how == method
    first, second = places[: count // 2], places[count // 2 :]
    apart = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert apart > 2 * max(first.std(), second.std())
    assert np.array_equal(places, project(points(count))[0])


def test_the_map_of_nothing_says_so() -> None:
    for sample in (points(2), np.zeros((30, 4), np.float32)):
        labels = np.zeros(len(sample), np.int64)
        section = embedding_map(Sample(sample, labels, [RIGHT] * len(sample)), ("a", "b"))
        assert section.text == "There are too few different embeddings to draw a map of."
    line = np.arange(9, dtype=np.float32)[:, None]
    assert embedding_map(Sample(line, np.arange(9) % 2, [RIGHT] * 9), ("a", "b")).plots


def test_of_many_classes_those_with_mistakes_are_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.arange(15), 2)
    marks = [WRONG if label >= 6 else TRAINING for label in labels]
    names = tuple(f"c{row:02d}" for row in range(15))
    section = embedding_map(Sample(points(30), labels, marks), names)
    keys = section.plots[0].keys
    assert [key.text for key in keys] == [*names[6:], "other classes", "held out and wrong"]
    assert [key.shape for key in keys] == ["circle"] * 5 + ["triangle"] * 4 + ["circle", "ring"]
    monkeypatch.setattr("headstart.classify.report.sections.embedding_map.MOST_POINTS", 10)
    section = embedding_map(Sample(points(30), labels, marks), names)
    assert section.text.startswith("10 embeddings in two dimensions by PCA.")


# Photographs


def opened(uri: str) -> Image.Image:
    head, content = uri.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_thumbnails_keep_proportions(tmp_path: Path) -> None:
    thumbnails = Thumbnails(folder_at(tmp_path))
    sizes = {
        (1000, 500): (224, 112),
        (3, 2000): (1, 224),
        (100, 90): (200, 180),
        (8, 6): (224, 168),
    }
    for number, (size, expected) in enumerate(sizes.items()):
        Image.new("RGB", size, (200, 60, 60)).save(tmp_path / f"{number}.png")
        image = opened(thumbnails.of("id", f"{number}.png").uri)
        assert image.size == expected
        assert np.abs(np.asarray(image).astype(int) - (200, 60, 60)).max() < 6
    assert SIDE == 224


def test_thumbnails_leave_nothing_but_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    image = Image.new("RGB", (200, 100), "blue")
    image.save(tmp_path / "a.jpg", exif=exif)
    small = opened(Thumbnails(folder_at(tmp_path)).of("a", "a.jpg").uri)
    assert small.size == (100, 200)  # upright
    assert not small.getexif()


def test_photographs_are_read_out_of_containers(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", (60, 170, 80), 0)
    content = (tmp_path / "a.png").read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(tmp_path / "a.png", "a.png")
    start = (tmp_path / "a.tar").read_bytes().index(content)
    thumbnails = Thumbnails(folder_at(tmp_path))
    inside = thumbnails.of("a", f"a.tar#bytes={start}+{len(content)}")
    assert inside.uri == thumbnails.of("a", "a.png").uri


def test_a_photograph_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"not a photograph")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    thumbnails = Thumbnails(folder_at(tmp_path))
    reasons = {
        "gone.png": "there is no such file",
        "empty.png": "the file has no bytes",
        "text.png": "no supported image format begins with b'not a ph'",
        "folder.png": "Is a directory",
        "a.tar#bytes=0+9": "there is no such file",
    }
    for path, reason in reasons.items():
        thumbnail = thumbnails.of("id", path)
        assert (thumbnail.uri, thumbnail.reason) == ("", reason)


def test_the_worst_mistakes_come_first(tmp_path: Path) -> None:
    answered, thumbnails = held_out(40, 2), Thumbnails(folder_at(tmp_path))
    labels, probabilities = answered.labels.copy(), answered.probabilities.copy()
    labels[7], probabilities[7] = 0, (0.001, 0.999)
    section = mistakes(
        replace(answered, labels=labels, probabilities=probabilities), ("cat", "dog"), thumbnails
    )
    first = section.cards[0]
    assert first.thumbnails[0].id == "7.png"
    assert first.facts == (
        ("true class", "cat"),
        ("predicted as", "dog"),
        ("confidence", "99.9\u00a0%"),
    )
    wrong = int((probabilities.argmax(axis=1) != labels).sum())
    assert section.text.startswith(f"{wrong} mistakes on held-out examples")
    confidences = [float(card.facts[2][1][:-2]) for card in section.cards]
    assert confidences == sorted(confidences, reverse=True)
    perfect = replace(answered, probabilities=np.eye(2)[answered.labels])
    assert mistakes(perfect, ("cat", "dog"), thumbnails).text == (
        "No held-out example was classified wrongly."
    )


# Nothing of the user's is HTML


def test_labels_and_ids_are_text(wild: str) -> None:
    page = Page(wild)
    assert not page.open
    own, *others = re.findall(r"<script>(.*?)</script>", wild, re.DOTALL)
    assert not others
    assert own == files("headstart.classify.report").joinpath("report.js").read_text("utf-8")
    hashed = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    (policy,) = (found["content"] for _, found in page.elements if "http-equiv" in found)
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashed}'; img-src data:; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    scripts = [found for tag, found in page.elements if tag == "script"]
    assert {found.get("type") for found in scripts} == {None, "application/json"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
    texts = set(page.texts)
    for label in WILD:
        assert label in texts
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert re.match(r"data:|#|$", attributes.get(name) or ""), (tag, attributes)


def test_no_text_of_the_users_is_drawn(wild: str) -> None:
    for svg in re.findall(r"<svg viewBox.*?role=.*?</svg>", wild, re.DOTALL):
        words = re.findall(r"<text[^>]*>(.*?)</text>", svg)
        assert words or "Map of" in svg
        assert not [word for word in words if not re.fullmatch(r"[a-z ,%]+|[\d.,]+", word)]


def test_ids_are_unique_and_lead_somewhere(wild: str) -> None:
    ids = Page(wild).ids()
    assert len(ids) == len(set(ids))
    for target in re.findall(r'href="#(.*?)"|url\(#(.*?)\)', wild):
        assert "".join(target) in ids


def test_drawings_take_their_colours_from_the_page(wild: str) -> None:
    for svg in re.findall(r"<svg viewBox.*?role=.*?</svg>", wild, re.DOTALL):
        assert "var(--" in svg
        assert not re.findall(r"[ :\"]#[0-9a-f]{6}", svg)


def test_a_drawings_text_is_escaped() -> None:
    svg = draw("n", '"<b>', lambda figure: figure.add_subplot() and None)
    assert 'aria-label="&quot;&lt;b&gt;"' in svg


# Size


@pytest.mark.alone
def test_ten_thousand_classes(tmp_path: Path) -> None:
    classes = tuple(f"class {row:05d}" for row in range(10_000))
    labels, probabilities = answers(800, 10_000)
    labels = labels * 12
    predictions = probabilities.argmax(axis=1)
    names = [f"{row}.png" for row in range(800)]
    support = np.bincount(labels, minlength=10_000)
    per = tuple(
        ClassScores(name, 0.5, 0.5, 0.5, int(count))
        for name, count in zip(classes, support, strict=True)
    )
    accuracy = proportion(int((predictions == labels).sum()), 800)
    content = ReportContent(
        about=About(
            classes=classes,
            head="ridge",
            parameters={},
            split="as declared",
            fingerprint="tiny",
            training=90_000,
            held_out=800,
            features="/features",
        ),
        held_out=HeldOut(Examples(names, names), labels, probabilities, threshold=0.5),
        summary=Summary(
            Scores(
                examples=800,
                accuracy=accuracy.value,
                balanced_accuracy=0.5,
                macro_f1=0.5,
                log_loss=1.0,
                accuracy_interval=accuracy,
                calibration_error=0.1,
                per_class=per,
                confusion=(),
            ),
            accuracy,
        ),
        root=folder_at(tmp_path),
        sample=Sample(points(40), labels[:40], [WRONG] * 40),
    )
    start = time.process_time()  # of this process alone: others may be busy
    page = render(content)
    assert time.process_time() - start < 20
    assert len(page.encode()) < 1_000_000
    assert "9,200 classes without a held-out example could not be scored" in page
