"""Backbone and head as one file, which answers as training did or does not appear."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import skops.io
from conftest import make_bf16, write_tiny_backbone
from onnx import numpy_helper
from sklearn.linear_model import LogisticRegression

from headstart.data.common.errors import InputError, ManyInputErrors, ModelError, ParityError
from headstart.data.contracts.backbone import Backbone
from headstart.data.contracts.edge import load_edge
from headstart.data.contracts.model import Model
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.export.edge.classifier import export_classifier
from headstart.export.edge.parity import Parity, training_answers
from headstart.export.options import EdgeOptions, GateOptions

EXAMPLE = Path(__file__).parents[1] / "data" / "modalities" / "image" / "code" / "classify_photo.py"


def test_an_edge_model_says_all_about_itself(edge: Path, model: Path) -> None:
    session = onnxruntime.InferenceSession(edge.read_bytes())
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 8, 8, 3])
    assert [(o.name, o.type) for o in session.get_outputs()] == [
        ("label", "tensor(int64)"),
        ("probabilities", "tensor(float)"),
    ]
    about = session.get_modelmeta().custom_metadata_map
    assert about["headstart.kind"] == "classifier"
    assert json.loads(about["headstart.classes"]) == ["blue", "green", "red"]
    assert (
        json.loads(about["headstart.fingerprint"]) == Model.open(model).card.fingerprint.to_json()
    )
    assert about["headstart.threshold"] == ""
    loaded = onnx.load(edge)
    assert loaded.ir_version <= 8
    assert {entry.domain: entry.version for entry in loaded.opset_import} == {"": 18}


def test_it_answers_as_training_on_every_photograph(edge: Path, model: Path, photos: Path) -> None:
    session = onnxruntime.InferenceSession(edge.read_bytes())
    for path in photos.rglob("*.png"):
        image = decode(path.read_bytes(), Preprocessing(8, 8))[np.newaxis]
        (label,), probabilities = session.run(None, {"image": image})
        assert Model.open(model).card.classes[label] == path.parent.name
        assert label == probabilities.argmax()


def test_what_is_compared_is_said(
    model: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    out = tmp_path / "e.onnx"
    answer = command("export", "classifier", model, "--backbone", tiny_backbone, "-o", out)
    assert answer.code == 0, answer.err
    assert "compared    60 examples from their files, 15 of them held out of training" in answer.out
    assert "reference   the trained estimator\n" in answer.out
    assert "0 labels changed" in answer.out
    again = command("export", "classifier", model, "--backbone", tiny_backbone, "-o", out)
    assert again.err.endswith(f"error: {out} exists already\n  Pass --overwrite to replace it.\n")


class Unknown(LogisticRegression):
    """A type that is not loaded from a file."""


def test_an_estimator_that_is_not_loaded_has_a_stand_in(
    model: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    (model / "head.skops").write_bytes(skops.io.dumps(Unknown()))
    out = tmp_path / "e.onnx"
    answer = command("export", "classifier", model, "--backbone", tiny_backbone, "-o", out)
    assert (
        "reference   head.onnx, which training compared with the estimator; that is not loaded\n"
        in answer.out
    )


def test_a_breach_of_parity_means_no_file(model: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    """The head's ONNX form is changed after training: the estimator no longer agrees with it."""
    head = onnx.load(model / "head.onnx")
    gemm = next(node for node in head.graph.node if node.op_type == "Gemm")
    weights = next(found for found in head.graph.initializer if found.name == gemm.input[1])
    array = numpy_helper.to_array(weights).copy()
    array[0, 0] += 3
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    onnx.save(head, model / "head.onnx")
    with pytest.raises(ParityError) as caught:
        export_classifier(model, tiny_backbone, tmp_path / "e.onnx")
    said = str(caught.value)
    assert said.startswith("the edge model differs from training: by up to ")
    (farthest,) = re.findall(r"in a probability, most for (\S+) \(at most 1e-03 is acc", said)
    assert farthest in Model.open(model).examples()["id"].to_pylist()
    assert said.endswith(
        "No file was written. Export the backbone again, or choose another head; --tolerance and "
        "--most-changed accept more."
    )
    assert not list(tmp_path.glob("e.*"))


def test_numbers_that_are_none_are_not_forgotten(
    model: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch is compared with NaN, all later ones agree."""
    compared: list[int] = []

    def answers(backbone: Backbone, model: Model) -> tuple[Callable, str]:
        answer, reference = training_answers(backbone, model)

        def spoilt(images: np.ndarray) -> np.ndarray:
            compared.append(len(images))
            return answer(images) * (np.nan if len(compared) == 1 else 1)

        return spoilt, reference

    monkeypatch.setattr("headstart.export.edge.parity.training_answers", answers)
    with pytest.raises(ParityError, match=r"by up to nan in a probability, most for \S+ \("):
        export_classifier(model, tiny_backbone, tmp_path / "e.onnx")
    assert len(compared) > 1
    assert not list(tmp_path.glob("e.*"))


def test_more_is_let_through_if_that_is_asked(
    model: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    """A head whose classes stand in another order: every label changes."""
    head = onnx.load(model / "head.onnx")
    for name in head.graph.initializer:
        array = numpy_helper.to_array(name)
        if array.dtype == np.float32 and 3 in array.shape:
            rolled = np.roll(array, 1, axis=array.shape.index(3))
            name.CopyFrom(numpy_helper.from_array(rolled, name.name))
    onnx.save(head, model / "head.onnx")
    arguments = ("export", "classifier", model, "--backbone", tiny_backbone, "-o")
    strict = command(*arguments, tmp_path / "e.onnx", "--examples", 40, "--most-changed", 39)
    assert strict.code == 1
    assert "and in 40 of 40 labels (" in strict.err
    loose = ("--examples", 40, "--most-changed", 40, "--tolerance", 0.999999)
    answer = command(*arguments, tmp_path / "e.onnx", *loose)
    assert answer.code == 0, answer.err
    assert "40 labels changed" in answer.out
    assert "accepted although their labels changed: " in answer.err


def test_limits_of_the_gate_that_are_none(model: Path, tmp_path: Path, command: Callable) -> None:
    answer = command(
        *("export", "classifier", model, "--backbone", "b.onnx", "-o", tmp_path / "e.onnx"),
        *("--examples", 0, "--tolerance", 2, "--most-changed", -1),
    )
    assert answer.code == 2
    assert answer.err == (
        "error: 1. --examples 0 would compare nothing\n  Give 1 or more.\n"
        "2. --tolerance 2.0 is not a possible difference of probabilities\n"
        "  Give a number between 0 and 1, such as 0.001.\n"
        "3. --most-changed -1 is negative\n  Give 0 or more.\n"
    )


def test_the_most_probable_classes(model: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.onnx"
    export_classifier(model, tiny_backbone, out, EdgeOptions(top=2))
    session = onnxruntime.InferenceSession(out.read_bytes())
    image = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    names = ["label", "probabilities", "top_labels", "top_probabilities"]
    label, probabilities, top_labels, top = session.run(names, {"image": image})
    order = np.argsort(-probabilities, axis=1)[:, :2]
    assert np.array_equal(top_labels, order)
    assert np.array_equal(top, np.take_along_axis(probabilities, order, axis=1))
    assert np.array_equal(label, top_labels[:, 0])
    with pytest.raises(InputError) as caught:
        export_classifier(model, tiny_backbone, tmp_path / "f.onnx", EdgeOptions(top=4))
    assert str(caught.value) == ("--top 4 is out of range: the model has 3 classes\n  Give 1 to 3.")


def test_labels_stand_beside_it(edge: Path) -> None:
    assert json.loads((edge.parent / "edge.labels.json").read_text()) == {
        "classes": ["blue", "green", "red"],
        "unknown": -1,
        "threshold": None,
        "image": {
            "height": 8,
            "width": 8,
            "resize": "squash",
            "interpolation": "bilinear",
            "any_size": False,
        },
        "backbone": "tiny",
        "weights": "none (random)",
        "licence": "Apache-2.0",
    }


@pytest.mark.parametrize(
    "parity",
    [Parity(64, 64, 2e-3, ()), Parity(64, 64, 0, ("a.jpg",)), Parity(64, 64, float("nan"), ())],
)
def test_the_gate_closes(parity: Parity) -> None:
    with pytest.raises(ParityError):
        parity.check(GateOptions())
    Parity(64, 64, 9e-4, ()).check(GateOptions())


def test_a_backbone_of_other_features_is_refused(
    model: Path, tmp_path: Path, command: Callable
) -> None:
    other = write_tiny_backbone(tmp_path / "other.onnx", seed=1)
    out = tmp_path / "e.onnx"
    answer = command(
        "export", "classifier", model, "--backbone", tmp_path / "other.onnx", "-o", out
    )
    assert answer.code == 2
    assert answer.err.endswith(
        f"error: the backbone {tmp_path / 'other.onnx'} and the model {model} "
        "do not match:\n"
        f"  the backbone {tmp_path / 'other.onnx'}: {other.fingerprint}\n"
        f"  the model was trained on: {Model.open(model).card.fingerprint}\n"
        "  Name the backbone that the features were extracted with, or extract and train again.\n"
    )


def test_photographs_that_were_moved(
    model: Path, photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    moved = photos.rename(tmp_path / "moved")
    with pytest.raises(ModelError) as caught:
        export_classifier(model, tiny_backbone, tmp_path / "e.onnx")
    assert str(caught.value) == (
        "the parity check needs 30 of the model's 60 examples, but only 0 can be "
        f"read in {photos}\n  Name the folder where they are now: --source FOLDER"
    )
    assert (
        export_classifier(
            model, tiny_backbone, tmp_path / "e.onnx", gate=GateOptions(source=moved)
        ).parity.examples
        == 60
    )


def test_what_an_edge_model_is_made_from_is_not_replaced(
    model: Path, tiny_backbone: Path, command: Callable
) -> None:
    for out in (tiny_backbone, model / "head.onnx"):
        kept = out.read_bytes()
        arguments = ("export", "classifier", model, "--backbone", tiny_backbone, "-o", out)
        answer = command(*arguments, "--overwrite")
        assert answer.code == 2
        assert answer.err.endswith(
            f"error: {out} would replace what the edge model is made from\n  Choose another file.\n"
        )
        assert out.read_bytes() == kept


def test_a_damaged_estimator_is_said(model: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    (model / "head.skops").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"head\.skops is damaged: "):
        export_classifier(model, tiny_backbone, tmp_path / "e.onnx")


def test_an_edge_model_is_no_backbone(edge: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ManyInputErrors) as caught:
        export_classifier(tmp_path / "no", edge, edge)
    assert str(caught.value) == (
        f"1. {edge} exists already\n  Pass --overwrite to replace it.\n"
        f"2. {tmp_path / 'no'}: no such model folder\n"
        "  Train one with: python -m classify train FEATURES -o MODEL\n"
        f"3. {edge} is a headstart classifier, not a backbone\n"
        "  Export one with: python -m export backbone NAME -o backbone.onnx"
    )


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with onnxruntime, numpy and Pillow, and nothing else at all.

    Their files are copies of the ones that are installed here, so no package index is needed.
    """
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    for package in ("onnxruntime", "numpy", "pillow"):
        for file in importlib.metadata.files(package) or ():
            if ".." not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(file.locate()), site / file)
    return folder / "bin" / "python"


def test_a_bare_environment_gives_the_same_labels(
    edge: Path, photos: Path, bare_python: Path
) -> None:
    environment = {"PATH": "/usr/bin"}
    listing = subprocess.run(
        [
            bare_python,
            "-I",
            "-c",
            "import importlib.metadata as m; print(*(d.name for d in m.distributions()))",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert set(listing.stdout.lower().split()) == {"onnxruntime", "numpy", "pillow"}
    files = sorted(photos.rglob("*.png"))
    answer = subprocess.run(
        [bare_python, EXAMPLE, edge, *files],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    lines = [line.rsplit("  ", 2) for line in answer.stdout.splitlines()]
    assert [(Path(name), label) for name, label, _ in lines] == [(f, f.parent.name) for f in files]


def test_the_example_reads_photographs_as_training_does(edge: Path, tmp_path: Path) -> None:
    import importlib.util

    from PIL import Image

    spec = importlib.util.spec_from_file_location("classify_photo", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    example = module.EdgeModel(str(edge))
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(noise[..., 0]).save(tmp_path / "b.png")
    Image.fromarray(np.dstack([noise, noise[..., :1]])).save(tmp_path / "c.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 200).save(tmp_path / "d.png")
    Image.fromarray(noise).quantize(16).save(tmp_path / "e.gif")
    for name in ("a.jpg", "b.png", "c.png", "d.png", "e.gif"):
        for crop, fraction in product((False, True), (None, 0.83)):
            example.crop, example.fraction = crop, fraction
            rule = Preprocessing(8, 8, "crop" if crop else "squash", crop_fraction=fraction)
            got = example.read(tmp_path / name)
            assert np.array_equal(got, decode((tmp_path / name).read_bytes(), rule))


def test_the_example_says_how_it_is_used() -> None:
    answer = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.startswith("usage: python classify_photo.py edge.onnx photo.jpg")


def test_the_example_says_what_it_cannot_use(
    edge: Path, tiny_backbone: Path, photos: Path, tmp_path: Path
) -> None:
    def run(*arguments: Path) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, EXAMPLE, *arguments], capture_output=True, text=True, check=False
        )

    no_edge = run(tiny_backbone, photos / "red" / "00.png")
    assert (no_edge.returncode, no_edge.stderr) == (
        1,
        f"{tiny_backbone} cannot be used: {tiny_backbone} is not an edge model: "
        "python -m export classifier writes one\n",
    )
    some = run(edge, tmp_path / "no.png", photos / "red" / "00.png")
    assert some.returncode == 1
    assert some.stderr.startswith(f"{tmp_path / 'no.png'} cannot be read: ")
    assert some.stdout.startswith(f"{photos / 'red' / '00.png'}  red  ")


def test_an_edge_model_that_is_damaged(edge: Path, tmp_path: Path) -> None:
    content = edge.read_bytes()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(content[:50])
    with pytest.raises(ModelError, match=r"broken\.onnx is not a valid ONNX file\n"):
        load_edge(broken)
    model = onnx.load(edge)
    del model.graph.input[0].type.tensor_type.shape.dim[1:]
    onnx.save(model, broken)
    with pytest.raises(ModelError, match=r"broken\.onnx has damaged headstart metadata: IndexErr"):
        load_edge(broken)
    with pytest.raises(ModelError, match="no such edge model\n"):
        load_edge(tmp_path / "none.onnx")


def test_features_in_bf16_leave_with_the_file_in_fp32(
    photos: Path, features: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    make_bf16(features)
    assert command("classify", "train", features, "-o", tmp_path / "m", "--no-report").code == 0
    out = tmp_path / "e.onnx"
    answer = command("export", "classifier", tmp_path / "m", "--backbone", tiny_backbone, "-o", out)
    assert answer.code == 0, answer.err
    assert "0 labels changed" in answer.out
    said = " ".join(answer.err.split())
    assert "the features were computed in bf16, but the edge model computes in fp32" in said
    other = write_tiny_backbone(tmp_path / "other.onnx", seed=1)
    refused = command(
        "export", "classifier", tmp_path / "m", "--backbone", other.path, "-o", tmp_path / "f.onnx"
    )
    assert refused.code == 2
    assert "do not match" in refused.err
