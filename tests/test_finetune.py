"""Fine-tuning from the command on: cache, training, kills, workers in step, sweeps, messages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from conftest import Outcome, exit_code_of, once
from elsewhere import WEB
from safetensors.numpy import load_file

from headstart.classify.finetune import finetuning, planning
from headstart.classify.finetune.activations import SHARD, Activations
from headstart.classify.finetune.examples import find_examples
from headstart.classify.finetune.options import Recipe, ScopeOptions
from headstart.classify.finetune.training.augmentation import VIEWS, changed, view
from headstart.classify.finetune.training.inputs import drawn_views
from headstart.classify.finetune.training.loop import HEAD
from headstart.data.common.errors import StoppedError
from headstart.data.contracts.calibration import softmax
from headstart.data.contracts.model import Model
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.data.contracts.tuned import Tuned
from headstart.data.storage.local import LocalFolder
from headstart.data.storage.lock import sole_writer
from headstart.export.networks.trainable.opening import open_trainable
from headstart.export.networks.trainable.trainable import Trainable
from headstart.export.options import BackboneOptions

NETWORK = ("--network", "timm:test_efficientnet", "--weights", "none")
STATE = "checkpoints/run/state.json"
QUICK = ("--max-epochs", 3, "--train-blocks", 2, "--augment", "turns", "--batch", 16)


def strokes(folder: Path) -> None:
    """Pictures of three classes that a random network tells apart, but not all of them."""
    from PIL import Image, ImageDraw

    random = np.random.default_rng(0)
    for label in ("cross", "disk", "ring"):
        (folder / label).mkdir(parents=True)
        for number in range(40):
            picture = Image.fromarray(random.integers(60, 120, (40, 40, 3), np.uint8))
            draw = ImageDraw.Draw(picture)
            x, y, r = (int(n) for n in (*random.integers(12, 28, 2), random.integers(5, 11)))
            colour = tuple(random.integers(150, 256, 3).tolist())
            if label == "cross":
                draw.line((x - r, y, x + r, y), colour, 3)
                draw.line((x, y - r, x, y + r), colour, 3)
            else:
                fill = colour if label == "disk" else None
                draw.ellipse((x - r, y - r, x + r, y + r), fill, colour, 3)
            picture.save(folder / label / f"{number:02d}.png")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """Photographs, a backbone of a small random network, features, a model, a tuned network."""

    def make(folder: Path) -> None:
        strokes(folder / "photos")
        for arguments in (
            (
                *("export", "backbone", "timm:test_efficientnet", "--weights", "none"),
                *("--size", 40, "-o", folder / "b.onnx"),
            ),
            ("extract", folder / "photos", "--backbone", folder / "b.onnx", "-o", folder / "f"),
            ("classify", "train", folder / "f", "-o", folder / "m", "--no-report"),
            tuning(folder, folder / "tuned", "--cache", "yes"),
        ):
            assert exit_code_of(arguments) == 0, arguments

    return once(tmp_path_factory, "finetune", make)


def tuning(work: Path, output: Path, *more: object) -> tuple[object, ...]:
    start = ("classify", "finetune", work / "photos", "--backbone", work / "b.onnx")
    return (*start, "--model", work / "m", "-o", output, *NETWORK, *QUICK, *more)


def kept(work: Path) -> tuple[object, ...]:
    """The cache of the tuned network is found again, and not made."""
    return ("--cache", "yes", "--cache-folder", work / "tuned" / "cache")


def opened() -> Trainable:
    """The network of the tests, as it is before training."""
    return open_trainable("timm:test_efficientnet", BackboneOptions(weights="none", size=40))


def weights_of(tuned: Path) -> dict[str, np.ndarray]:
    return dict(load_file(Tuned.open(tuned).weights))


def test_exactly_the_trained_blocks_have_moved(work: Path) -> None:
    network = opened()
    before = {name: t.numpy() for name, t in network.network.module.state_dict().items()}  # type: ignore[attr-defined]
    after = weights_of(work / "tuned")
    trained = {
        name
        for name, parameter in network.network.module.named_parameters()  # type: ignore[attr-defined]
        if any(parameter is p for block in network.blocks[-2:] for p in block.parameters)
    }
    card = Tuned.open(work / "tuned").card
    assert card.blocks == tuple(block.name for block in network.blocks[-2:])
    assert trained
    assert set(before) == set(after)
    for name, tensor in before.items():
        moved = not np.array_equal(tensor, after[name])
        assert moved == (name in trained), name


def test_the_comparison_is_on_the_models_test_examples(work: Path) -> None:
    frozen, tuned = Model.open(work / "m").examples(), Tuned.open(work / "tuned")
    table = tuned.examples()
    assert table["split"].equals(frozen["split"])
    test = [row for row in table.to_pylist() if row["split"] == "test"]
    right = np.mean([row["prediction"] == row["label"] for row in test])
    metrics = tuned.card.metrics
    assert metrics["test"]["accuracy"] == pytest.approx(right)
    assert metrics["comparison"]["accuracy_b"]["value"] == pytest.approx(right)
    assert metrics["comparison"]["examples"] == len(test)
    assert [each["epoch"] for each in tuned.card.history] == [1, 2, 3]
    page = (work / "tuned" / "report.html").read_text()
    assert list((work / "tuned" / "events").glob("events.out.tfevents.*"))
    assert "Was fine-tuning worth it?" in page
    assert 'id="curve-loss' in page


def test_test_examples_are_not_even_opened_before_the_end(work: Path, tmp_path: Path) -> None:
    """Garbage in their place is noticed only when all epochs are done."""
    shutil.copytree(work / "photos", tmp_path / "photos")
    for row in Model.open(work / "m").examples().to_pylist():
        if row["split"] == "test":
            (tmp_path / "photos" / row["path"]).write_bytes(b"not a photograph")
    start = ("classify", "finetune", tmp_path / "photos", "--backbone", work / "b.onnx")
    more = ("--model", work / "m", "-o", tmp_path / "t", *NETWORK, *QUICK, "--cache", "no")
    code = exit_code_of((*start, *more))
    assert code == 1  # at the end: they cannot be read
    assert json.loads((tmp_path / "t" / STATE).read_text())["epoch"] == 3


def test_the_cache_holds_what_the_photographs_give(work: Path) -> None:
    import torch

    (folder,) = (work / "tuned" / "cache").iterdir()
    network = opened()
    cut = len(network.blocks) - 2
    examples = find_examples(work / "photos", Model.open(work / "m"), 0.1, None, 0)
    parts = Activations(str(folder), len(examples.paths), 8, ()).open()
    assert [len(part) for part in parts] == [SHARD, len(examples.paths) - SHARD]
    for row in (0, 70, 119):
        content = (work / "photos" / examples.paths[row]).read_bytes()
        picture = network.preprocessing.decode(content)[None]
        for number in range(8):
            pixels = network.scaling.apply(view(picture, number, "turns")).transpose(0, 3, 1, 2)
            with torch.no_grad():
                own = network.front(torch.from_numpy(np.ascontiguousarray(pixels)), cut).numpy()
            kept = parts[row // SHARD][row % SHARD, number].astype(np.float32)
            assert np.abs(kept - own[0]).max() <= 2e-3 * max(1.0, np.abs(own).max())


def test_views_are_all_different_and_keep_the_picture() -> None:
    picture = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    for name, count in VIEWS.items():
        views = {view(picture, number, name).tobytes() for number in range(count)}
        assert len(views) == count, name
        assert view(picture, 0, name).tobytes() == picture.tobytes()
    drawn = [drawn_views(Recipe(augmentation="turns"), epoch, np.arange(500)) for epoch in (0, 1)]
    assert set(drawn[0]) == set(range(8))
    assert (drawn[0] != drawn[1]).any()
    # The same whoever asks: a worker has only some of the rows.
    assert drawn_views(Recipe(augmentation="turns"), 0, np.array([77])) == drawn[0][77]


def test_changes_of_photographs_are_small_and_by_the_seed() -> None:
    import torch

    from headstart.export.networks.torch.stack import import_torch

    import_torch("torchvision")
    picture = torch.full((3, 32, 32), 100, dtype=torch.uint8)
    picture[:, 8:24, 8:24] = 200
    once_, again = (changed(picture, np.random.default_rng(1), 1.0) for _ in range(2))
    assert torch.equal(once_, again)
    assert not torch.equal(once_, changed(picture, np.random.default_rng(2), 1.0))
    assert torch.equal(changed(picture, np.random.default_rng(1), 0.0), picture)


def test_the_same_seed_gives_the_same_weights(
    work: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    answer = command(*tuning(work, tmp_path / "t", *kept(work)))
    assert answer.code == 0, answer.err
    assert "training 2 of " in answer.err
    assert "epoch 3 of 3: loss " in answer.err
    assert "worth it: " in answer.out
    for name, tensor in weights_of(work / "tuned").items():
        assert np.array_equal(tensor, weights_of(tmp_path / "t")[name]), name


def test_a_tuned_network_is_exported_like_any_other(
    work: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    answer = command("export", "backbone", work / "tuned", "-o", tmp_path / "t.onnx")
    assert answer.code == 0, answer.err
    assert "weights    fine-tuned (sha256 " in answer.out
    names = (work / "tuned", "--size", 40), ("timm:test_efficientnet", "--size", 40)
    listed = [command("export", "layers", *name) for name in names]
    assert [each.code for each in listed] == [0, 0], [each.err for each in listed]
    assert listed[0].out == listed[1].out
    refused = command(
        "export", "backbone", work / "tuned", "-o", tmp_path / "x", "--weights", "none"
    )
    assert refused.err.endswith(
        f"error: --weights none cannot be used with {work / 'tuned'}, which has its own\n"
        "  Leave out --weights.\n"
    )
    features = tmp_path / "f"
    assert (
        command("extract", work / "photos", "--backbone", tmp_path / "t.onnx", "-o", features).code
        == 0
    )
    split = ("--split-of", work / "tuned", "--no-report")
    answer = command("classify", "train", features, "-o", tmp_path / "m", *split)
    assert answer.code == 0, answer.err
    assert f"as in {work / 'tuned'}" in answer.out
    ours, theirs = (Model.open(place).examples() for place in (tmp_path / "m", work / "m"))
    splits = [{row["content"]: row["split"] for row in t.to_pylist()} for t in (ours, theirs)]
    assert splits[0] == splits[1]


def test_from_photographs_to_an_edge_model_at_once(
    work: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    """As float32, and from the files that it leaves also for any size, as int8 and as a page."""
    tuned, photos = tmp_path / "t", work / "photos"
    answer = command(*tuning(work, tuned, *kept(work), "--then-export"))
    assert answer.code == 0, answer.err
    assert "): it is there, 3 epochs of " in answer.err
    assert not any((tuned / "cache").glob("*/part-*"))
    edge = ("export", "classifier", tuned / "model", "--backbone", tuned / "backbone.onnx")
    assert command(*edge, "-o", tmp_path / "any.onnx", "--any-size").code == 0
    shown = command(
        "export", "demo", tuned / "edge.onnx", "-o", tmp_path / "page", "--runtime", WEB
    )
    assert shown.code == 0, shown.err
    int8 = ("--precision", "int8", "--calibrate", photos)
    for arguments in (
        ("export", "backbone", tuned, "-o", tmp_path / "8.onnx", *int8),
        ("extract", photos, "--backbone", tmp_path / "8.onnx", "-o", tmp_path / "f8"),
        (
            *("classify", "train", tmp_path / "f8", "-o", tmp_path / "m8"),
            *("--split-of", tuned, "--no-report"),
        ),
        (
            *("export", "classifier", tmp_path / "m8", "--backbone", tmp_path / "8.onnx"),
            *("-o", tmp_path / "8-edge.onnx"),
        ),
    ):
        answer = command(*arguments)
        assert answer.code == 0, (arguments, answer.err)


SWEEP = ("--sweep", "learning_rate=1e-4,1e-2,1e-1", "--sweep", "dropout=0.1,0.3")


def test_a_sweep_ranks(work: Path, tmp_path: Path, command: Callable[..., Outcome]) -> None:
    answer = command(*tuning(work, tmp_path / "t", *SWEEP, *kept(work)))
    assert answer.code == 0, answer.err
    card = Tuned.open(tmp_path / "t").card
    trials = card.metrics["sweep"]
    assert len(trials) == 6
    assert [trial["epochs"] for trial in trials] == [3, 3, 3, 2, 2, 2]
    longest = [trial["loss"] for trial in trials if trial["epochs"] == 3]
    assert longest == sorted(longest)
    assert "round 1 of 2: 6 recipes to epoch 2" in answer.err
    assert card.recipe["learning_rate"] == trials[0]["values"]["learning_rate"]


def test_a_killed_sweep_goes_on_and_is_reproducible(work: Path, tmp_path: Path) -> None:
    """From each recipe's last epoch, to what another sweep with that seed gives, bit by bit."""
    output = tmp_path / "t"
    more = (*SWEEP, "--max-epochs", 8, *kept(work))
    command = [sys.executable, "-m", "headstart", *map(str, tuning(work, output, *more))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(list(output.glob("sweep/*/state.json"))) >= 3, 120)
        process.send_signal(signal.SIGKILL)
    before = {
        each.parent.name: each.stat().st_mtime_ns for each in output.glob("sweep/*/state.json")
    }
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    trials = Tuned.open(output).card.metrics["sweep"]
    assert sorted(trial["epochs"] for trial in trials) == [1, 1, 1, 2, 4, 8]
    assert before
    whole = tmp_path / "whole"
    assert exit_code_of(tuning(work, whole, *more)) == 0
    unbroken = Tuned.open(whole).card.metrics["sweep"]
    assert [trial | {"seconds": 0} for trial in trials] == [
        trial | {"seconds": 0} for trial in unbroken
    ]


def test_a_keras_network_is_trained_on_pytorch_and_exported(work: Path, tmp_path: Path) -> None:
    """In processes of its own: Keras chooses what it runs on when it is imported."""
    script = """
import os, sys
os.environ["KERAS_BACKEND"] = "torch"
import keras
from keras import layers
keras.utils.set_random_seed(0)
image = x = keras.Input((32, 32, 3))
x = layers.Rescaling(1 / 255)(x)
for number, width in enumerate((8, 16, 16)):
    x = layers.Conv2D(width, 3, strides=2, padding="same", name=f"block{number}_conv")(x)
    x = layers.BatchNormalization(name=f"block{number}_bn")(x)
    x = layers.ReLU(name=f"block{number}_relu")(x)
y = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
keras.Model(image, y).save(sys.argv[1])
"""
    network = tmp_path / "own.keras"
    subprocess.run([sys.executable, "-c", script, str(network)], check=True)

    def run(*arguments: object) -> str:
        words = [sys.executable, "-m", "headstart", *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    backbone, features, model = (tmp_path / name for name in ("b.onnx", "f", "m"))
    run("export", "backbone", network, "-o", backbone)
    extracted = ("extract", work / "photos", "--backbone", backbone, "-o", features)
    assert exit_code_of(extracted) == 0
    assert exit_code_of(("classify", "train", features, "-o", model, "--no-report")) == 0
    start = ("classify", "finetune", work / "photos", "--backbone", backbone, "--model", model)
    quick = ("--max-epochs", 2, "--train-blocks", 1, "--cache", "yes", "-o", tmp_path / "t")
    run(*start, "--network", network, *quick)
    card = Tuned.open(tmp_path / "t").card
    assert (card.weights, card.blocks) == ("network.keras", ("block2_conv",))
    out = run("export", "backbone", tmp_path / "t", "-o", tmp_path / "t.onnx")
    assert "fine-tuned (sha256 " in out


def wait_for(done: Callable[[], Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def said(answer: Outcome) -> str:
    """The error of a command in one line."""
    assert answer.code != 0
    return " ".join(answer.err[answer.err.index("error:") :].split())


def test_what_is_refused_before_any_work(
    work: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    start = ("classify", "finetune", work / "photos", "--model", work / "m", "-o", tmp_path / "t")
    backbone = ("--backbone", work / "b.onnx")
    assert said(command(*start, *backbone)) == (
        f"error: {work / 'b.onnx'} is a graph for inference and cannot be trained by itself Name "
        "the network that it was exported from, and its weights: --network NAME --weights FILE. "
        "Networks that can be trained: EfficientNet-Lite (efficientnet_lite0, efficientnet_lite1, "
        "efficientnet_lite2), timm:NAME, torchvision:NAME, hf:FOLDER, the networks of "
        "keras.applications (`python -m export list`), .keras files, and small_cnn, which has no "
        "weights yet."
    )
    named = (*start, *backbone, *NETWORK)
    assert said(command(*named, "--train-blocks", 99)).startswith(
        "error: --train-blocks 99: test_efficientnet has "
    )
    assert said(command(*named, "--gpus-per-worker", 1)) == (
        "error: 1 x 1 GPUs are asked for, but the cluster has 0 Leave --gpus-per-worker out to "
        "train on CPUs, or start Ray where there are GPUs."
    )
    wrong = ("--max-epochs", 0, "--dropout", 2, "--precision", "fp16", "--cache", "maybe")
    assert said(command(*named, *wrong)) == (
        "error: 1. --max-epochs 0 is not possible Give 1 to 10000. 2. --dropout 2 is "
        "not possible Give 0 to 0.95. 3. unknown --precision 'fp16' Choose from auto, fp32, bf16. "
        "4. unknown --cache 'maybe' Choose from auto, yes, no."
    )
    assert said(command(*named, "--sweep", "learnin_rate=1")) == (
        "error: --sweep learnin_rate=1: 'learnin_rate' cannot be swept Did you mean learning_rate?"
    )
    assert said(command(*named, "--cache", "yes", "--augment", "photo")) == (
        "error: --augment photo changes pictures anew in every epoch, which --cache yes would not "
        "see Give --cache no, or one of none, mirror, flips, turns."
    )


def test_photographs_that_are_gone_or_of_a_new_class(
    work: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(work / "photos", photos)
    start = ("classify", "finetune", photos, "--model", work / "m", "-o", tmp_path / "t")
    start = (*start, "--backbone", work / "b.onnx", *NETWORK)
    (photos / "disk" / "00.png").unlink()
    assert said(command(*start)) == (
        f"error: {photos} no longer has 1 example that the model was trained or tested on: "
        "disk/00.png Put them back, or extract again with --prune and train the model again."
    )
    shutil.copy(work / "photos" / "disk" / "00.png", photos / "disk" / "00.png")
    (photos / "star").mkdir()
    shutil.copy(work / "photos" / "disk" / "00.png", photos / "star" / "00.png")
    assert said(command(*start)) == (
        "error: the source has classes that the model lacks: 'star' Extract the source and train a "
        "model on it again; fine-tuning starts from its head."
    )


def test_many_recordings_beside_the_photographs(model: Path, photos: Path) -> None:
    before = find_examples(photos, Model.open(model), 0.1, None, 0)
    for number in range(80):
        (photos / "red" / f"{number}.wav").write_bytes(b"")
    after = find_examples(photos, Model.open(model), 0.1, None, 0)
    assert after.paths == before.paths


def test_a_loss_that_is_not_a_number_stops_at_its_step(
    work: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    rates = ("--learning-rate", 10, "--head-rate", 10, "--weight-decay", 10)
    words = said(command(*tuning(work, tmp_path / "t", *rates)))
    assert words.startswith("error: the loss is not a number at step ")
    assert (
        "Lower the rates (--learning-rate, --head-rate) and start anew with --overwrite." in words
    )


def test_another_recipe_is_not_mixed_into_a_run(
    work: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    shutil.copytree(work / "tuned", tmp_path / "t")
    assert said(command(*tuning(work, tmp_path / "t"))) == (
        f"error: {tmp_path / 't'} holds a tuned network already Pass --overwrite to replace it."
    )
    (tmp_path / "t" / "tuned.json").unlink()  # as if it had been stopped before the end
    words = said(command(*tuning(work, tmp_path / "t", "--cache", "yes", "--dropout", 0.4)))
    assert words == (
        f"error: {tmp_path / 't'} holds checkpoints of another fine-tuning: dropout was 0.2, is "
        "0.4 Run it with the same options to go on, or pass --overwrite to start anew."
    )


def test_what_was_chosen_by_measuring_goes_for_the_run_that_goes_on(
    work: Path, tmp_path: Path, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busier computer would choose fewer blocks, whose weights are not those of a checkpoint."""

    def stop(*_: object) -> None:
        raise StoppedError("stopped here", "")

    start = tuning(work, tmp_path / "t", "--train-blocks", "auto", "--max-epochs", 1)
    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "run_training", stop)
        patched.setattr(planning, "seconds_of_step", lambda *given: 1e-3 if given[-1] else 1.6e-3)
        patched.setattr(planning, "cpu_has_bf16", lambda: True)
        stopped = command(*start)
    assert "stopped here" in stopped.err
    assert "in bf16 (mixed precision), 1.6 times as fast here as in fp32" in stopped.err
    monkeypatch.setattr(planning, "seconds_of_step", lambda *_: 1e3)
    answer = command(*start)
    assert answer.code == 0, answer.err
    card, network = Tuned.open(tmp_path / "t").card, opened()
    assert card.blocks == tuple(block.name for block in network.blocks)
    assert card.recipe["precision"] == "bf16"


@pytest.mark.parametrize(
    ("seconds", "able", "chosen"),
    [
        ((1.6, 1.0), True, "bf16"),
        ((1.4, 1.0), True, "fp32"),  # too close: another time it could be the other way round
        ((1.0, 2.0), True, "fp32"),
        ((1.6, 1.0), False, "fp32"),
    ],
)
def test_mixed_precision_is_chosen_where_it_is_much_faster(
    seconds: tuple[float, float], able: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "seconds_of_step", lambda *given: seconds[given[-1]])
    monkeypatch.setattr(planning, "cpu_has_bf16", lambda: able)
    work = planning.Work(100, 80, 1, lambda first: b"", lambda content: 100)
    for asked, found in (("auto", chosen), ("fp32", "fp32"), ("bf16", "bf16")):
        scope, recipe = ScopeOptions(blocks="2", cache="no"), Recipe(precision=asked)
        plan = planning.make_plan(opened(), scope, recipe, work)
        assert plan.precision == found
        assert plan.seconds == 12 * 80 * seconds[found == "bf16"]
        assert ("in bf16" in plan.words[-1]) == (asked == "auto" and found == "bf16")
        on_gpu = planning.make_plan(opened(), scope, recipe, replace(work, gpu=True))
        assert on_gpu.precision == asked  # the worker on the GPU decides
        assert on_gpu.words[-1].startswith("these times are of the CPUs here: GPUs are faster")


def test_in_bf16_weights_and_answers_stay_float32(work: Path, tmp_path: Path) -> None:
    """The answers are those of the network as it is exported."""
    bf16 = (*kept(work), "--precision", "bf16", "--max-epochs", 1)
    assert exit_code_of(tuning(work, tmp_path / "t", *bf16)) == 0
    tuned = Tuned.open(tmp_path / "t")
    assert tuned.card.recipe["precision"] == "bf16"
    assert {tensor.dtype for tensor in weights_of(tmp_path / "t").values()} <= {
        np.dtype(np.float32),
        np.dtype(np.int64),  # counters of normalization
    }
    assert exit_code_of(("export", "backbone", tmp_path / "t", "-o", tmp_path / "b.onnx")) == 0
    features = tmp_path / "f"
    extracted = ("extract", work / "photos", "--backbone", tmp_path / "b.onnx", "-o", features)
    assert exit_code_of(extracted) == 0
    head = load_file(tmp_path / "t" / HEAD)
    table = FeatureStore.open(features).read()
    scores = embeddings_of(table) @ head["weight"].T + head["bias"]
    best = softmax(scores / tuned.card.metrics["temperature"]).max(1)
    exported = dict(zip(table["id"].to_pylist(), best, strict=True))
    for row in tuned.examples().to_pylist():
        if row["split"] == "test":
            # The cache is in float16; answers in bf16 would be off by ten times as much.
            assert row["confidence"] == pytest.approx(exported[row["id"]], abs=1e-3)


def test_two_runs_do_not_share_a_folder(
    work: Path, tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    folder = LocalFolder.at(tmp_path / "t")
    folder.write("settings.json", b"{}")
    with sole_writer(folder):
        words = said(command(*tuning(work, tmp_path / "t")))
    assert words.startswith("error: another run (process ")
    assert "Wait until it has ended, or choose another folder with -o." in words


def test_no_disk_for_the_cache(
    work: Path, tmp_path: Path, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    words = said(command(*tuning(work, tmp_path / "t", "--cache", "yes")))
    assert words.startswith("error: the cache of the frozen blocks takes ")
    assert words.endswith("train fewer blocks, or choose another disk with -o.")


def test_the_tuned_folder_is_a_contract(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "tuned", tmp_path / "t")
    place = tmp_path / "t" / "tuned.json"
    value = json.loads(place.read_text())
    assert value["format_version"] == 1
    place.write_text(json.dumps(value | {"weights": "../../secret"}))
    answer = exit_code_of(("export", "backbone", tmp_path / "t", "-o", tmp_path / "x.onnx"))
    assert answer != 0
    place.write_text(json.dumps(value | {"unknown": 1}))
    assert Tuned.open(tmp_path / "t").card.classes == ("cross", "disk", "ring")
    assert pq.read_table(tmp_path / "t" / "examples.parquet").num_rows == 120


def test_two_workers_are_in_step(work: Path, tmp_path: Path, two_workers: None) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert exit_code_of(tuning(work, tmp_path / "t", "--workers", 2)) == 0
    assert signal.getsignal(signal.SIGINT) is before  # Ray Train's would swallow Ctrl-C
    hashes = Tuned.open(tmp_path / "t").card.metrics["weights_of_workers"]
    assert len(hashes) == 2
    assert hashes[0] == hashes[1]


def test_a_killed_worker_and_then_the_driver_change_nothing(
    work: Path, tmp_path: Path, two_workers: None
) -> None:
    """The worker is replaced; the same command goes on from the last checkpoint."""
    output, whole = tmp_path / "t", tmp_path / "whole"
    more = ("--max-epochs", 30, *kept(work))
    command = [sys.executable, "-m", "headstart", *map(str, tuning(work, output, *more))]

    def epoch() -> int:
        return int(json.loads((output / STATE).read_text())["epoch"])

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for((output / STATE).exists, 120)
        (worker,) = [
            each
            for each in psutil.Process(process.pid).children(recursive=True)
            if "_work_alone" in " ".join(each.cmdline())
        ]
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        at = epoch()
        wait_for(lambda: epoch() > at, 120)
        process.send_signal(signal.SIGKILL)
    assert 0 < at < epoch() < 30
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert "going on from the last checkpoint" in again.stderr
    assert "epoch 1 of 30" not in again.stderr
    card = Tuned.open(output).card
    assert [each["epoch"] for each in card.history] == list(range(1, 31))
    assert exit_code_of(tuning(work, whole, *more)) == 0
    for name, tensor in weights_of(whole).items():
        assert np.array_equal(tensor, weights_of(output)[name]), name
