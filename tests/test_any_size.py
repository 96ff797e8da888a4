"""Photographs of any size: the graph resizes as Pillow did in training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import paint
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from headstart.data.common.errors import InputError
from headstart.data.contracts.edge import load_edge
from headstart.data.modalities.image.preprocessing import Preprocessing, Unsized, decode
from headstart.export.edge.any_size import accept_any_size, check_any_size
from headstart.export.edge.classifier import export_classifier
from headstart.export.options import EdgeOptions


def resizer(rule: Preprocessing) -> onnxruntime.InferenceSession:
    """The resizing alone, before a graph that does nothing."""
    shape = ["batch", rule.height, rule.width, 3]
    values = [helper.make_tensor_value_info(n, TensorProto.UINT8, shape) for n in ("image", "out")]
    nothing = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["out"])], "nothing", values[:1], values[1:]
    )
    model = helper.make_model(nothing, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    joined = accept_any_size(model, rule)
    onnx.checker.check_model(joined, full_check=True)
    return onnxruntime.InferenceSession(joined.SerializeToString())


RULES = [
    Preprocessing(48, 64, resize, interpolation, *part)
    for resize in ("squash", "crop")
    for interpolation, offset in (("bilinear", "round"), ("bicubic", "floor"))
    for part in ((), (0.83, offset))
]


@pytest.fixture(scope="module")
def sessions() -> dict[Preprocessing, onnxruntime.InferenceSession]:
    return {rule: resizer(rule) for rule in RULES}


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 9))
@example(height=32, width=32, seed=0)  # weights of sevenths: many sums end in one half
@example(height=96, width=64, seed=0)
@example(height=1, width=300, seed=0)
def test_it_resizes_as_pillow_does(sessions: dict, height: int, width: int, seed: int) -> None:
    """Noise, level by level; Pillow 13 begins with the height if that shrinks more."""
    noise = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), np.uint8)
    for rule, session in sessions.items():
        wide = height / rule.height <= width / rule.width and rule.resize == "squash"
        images = noise
        if rule.interpolation == "bicubic" and not wide:
            images = 80 + noise // 3  # else it overshoots, which is clipped between the passes
        (got,) = session.run(None, {"image": images})
        for image, found in zip(images, got, strict=True):
            expected = rule.apply(Image.fromarray(image)).astype(int)
            exact = wide and rule.crop_fraction in (None, 1)  # else the box has fractions
            assert np.abs(found - expected).max() <= (0 if exact else 2), rule


def test_a_photograph_of_twelve_megapixels() -> None:
    rule = Preprocessing(48, 64)
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    (got,) = resizer(rule).run(None, {"image": noise[None]})
    assert np.array_equal(got[0], rule.apply(Image.fromarray(noise)))


def test_lanczos_is_refused_before_any_work(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_any_size(Preprocessing(8, 8, "squash", "lanczos"))
    assert str(caught.value) == (
        "a graph cannot resize with lanczos interpolation\n  Supported are bilinear and bicubic: "
        "export a "
        "backbone with --interpolation bilinear."
    )


def test_a_classifier_of_any_size(
    model: Path, photos: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    out = tmp_path / "edge.onnx"
    answer = command(
        *("export", "classifier", model, "--backbone", tiny_backbone, "-o", out, "--any-size")
    )
    assert answer.code == 0, answer.err
    edge = load_edge(out)
    assert (edge.any_size, type(edge.input_spec)) == (True, Unsized)
    session = onnxruntime.InferenceSession(edge.content)
    (image,) = session.get_inputs()
    assert image.shape == ["batch", "height", "width", 3]
    fixed = tmp_path / "fixed.onnx"
    export_classifier(model, tiny_backbone, fixed, EdgeOptions())
    known = onnxruntime.InferenceSession(fixed.read_bytes())
    for size in (8, 24, 57, 200):
        paint(tmp_path / "a.png", (200, 60, 60), size, size)
        content = (tmp_path / "a.png").read_bytes()
        label, probabilities = session.run(None, {"image": decode(content, None)[None]})
        small = decode(content, Preprocessing(8, 8))
        expected_label, expected = known.run(None, {"image": small[None]})
        assert label == expected_label
        assert np.abs(probabilities - expected).max() < 1e-6
    assert {entry.domain for entry in onnx.load(out).opset_import} == {""}
