"""TensorFlow SavedModels as backbones; good ones and bad ones."""

from __future__ import annotations

import errno
import gc
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_export_files import IMAGES, RAW, SIZE, embed, fails

from headstart.data.common.errors import BackboneError
from headstart.export.backbone.build import export_backbone
from headstart.export.networks.keras.saved_model import _convert, _load
from headstart.export.networks.keras.stack import import_keras
from headstart.export.options import BackboneOptions


@pytest.fixture(scope="module")
def keras() -> Any:
    return import_keras()


@pytest.fixture
def saved(tmp_path: Path, keras: Any) -> Path:
    pixels = keras.Input((SIZE, SIZE, 3))
    keras.Model(pixels, keras.layers.Conv2D(8, 3)(pixels)).export(tmp_path / "s", verbose=False)
    return tmp_path / "s"


def test_a_saved_model_and_constants_that_it_captured(tmp_path: Path, keras: Any) -> None:
    normal = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])
    pixels = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu")(normal(pixels))
    answer = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(pixels, answer)
    model.export(tmp_path / "saved", verbose=False)
    out = tmp_path / "b.onnx"
    export = export_backbone(out, str(tmp_path / "saved"), RAW)
    assert (export.backbone.spec.dim, export.backbone.spec.name) == (6, "saved")
    pooled = keras.Model(model.inputs, model.layers[-2].output)
    expected = np.asarray(pooled(IMAGES.astype(np.float32)))
    assert np.allclose(embed(out, IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_a_saved_model_with_compiled_convolutions_and_gelu(tmp_path: Path, keras: Any) -> None:
    """Both hide in a SavedModel: grouped convolutions in functions for XLA, gelu in `Erfc`."""
    keras.utils.set_random_seed(3)
    pixels = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(8, 3)(pixels)
    x = keras.layers.Conv2D(8, 3, groups=4, activation="gelu")(x)
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    model.export(tmp_path / "saved", verbose=False)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    unit = BackboneOptions(scaling="unit")
    spec = export_backbone(tmp_path / "b.onnx", str(tmp_path / "saved"), unit).backbone.spec
    assert spec.dim == 8
    expected = np.asarray(model(IMAGES.astype(np.float32) / 255))
    assert np.allclose(embed(tmp_path / "b.onnx", IMAGES), expected, rtol=1e-4, atol=1e-6)
    assert before.items() <= {f: f.read_bytes() for f in before}.items()


def test_what_is_missing_is_said_before_the_conversion(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.export.networks.keras.saved_model._convert", pytest.fail)
    assert fails(saved, BackboneOptions()).startswith(
        "s does not say how its pixels are scaled\n  Give the scaling that it was trained with, "
        "--scaling RULE: none"
    )


def test_an_operator_that_onnx_lacks(tmp_path: Path, keras: Any) -> None:
    import tensorflow as tf

    class Strange(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, name="x")])
        def serve(self, x: Any) -> dict[str, Any]:
            return {"out": tf.math.igamma(tf.abs(x) + 1.0, tf.abs(x))}

    module = Strange()
    tf.saved_model.save(module, str(tmp_path / "s"), {"serving_default": module.serve})
    assert fails(tmp_path / "s") == (
        "s has operators that are not valid ONNX: Igamma (No Op registered for Igamma with "
        "domain_version of 18)\n  Build the network without them, or choose another one."
    )


def test_weights_that_are_missing_or_damaged(saved: Path) -> None:
    index = saved / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:50])
    assert fails(saved) == (
        f"{saved} cannot be loaded: not an sstable (bad magic number)\n  Save it again."
    )
    shutil.rmtree(index.parent)
    assert fails(saved).startswith(f"{saved} cannot be loaded: Unsuccessful TensorSliceReader")


def test_a_file_that_cannot_be_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert fails(saved) == (
        f"{saved}/saved_model.pb cannot be read: Permission denied\n  Check its permissions."
    )


def test_why_a_conversion_breaks_is_said(saved: Path) -> None:
    """A signature whose variables are gone is the one thing that breaks it and can be made."""
    signature = _load(saved, saved).signatures["serving_default"]
    gc.collect()
    with pytest.raises(BackboneError) as caught:
        _convert(signature, saved)
    assert caught.value.message.startswith(
        f"{saved} cannot be converted to ONNX: Called a function referencing variables which have "
    )


def test_a_saved_model_that_reads_files_needs_trust(tmp_path: Path, keras: Any) -> None:
    import tensorflow as tf

    class Reads(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            return {"y": x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), x.dtype)}

    module = Reads()
    tf.saved_model.save(module, str(tmp_path / "s"), {"serving_default": module.serve})
    assert fails(tmp_path / "s") == (
        f"{tmp_path / 's'} has operators that may access files, code or the network: ReadFile, "
        "StringLength\n  Pass --trust if you trust its author."
    )


def test_a_saved_model_that_writes_files_needs_trust(tmp_path: Path, keras: Any) -> None:
    """With the operators that save variables in every SavedModel, where they are called."""
    import tensorflow as tf

    written = tmp_path / "written"

    class Writes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            tf.raw_ops.SaveV2(
                prefix=str(written), tensor_names=["x"], shape_and_slices=[""], tensors=[x]
            )
            return {"y": x + 1.0}

    module = Writes()
    tf.saved_model.save(module, str(tmp_path / "s"), {"serving_default": module.serve})
    assert fails(tmp_path / "s") == (
        f"{tmp_path / 's'} has operators that may access files, code or the network: SaveV2\n"
        "  Pass --trust if you trust its author."
    )
    assert not list(tmp_path.glob("written*"))


def test_a_saved_model_that_never_answers_is_ended(
    tmp_path: Path, keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    class Endless(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            (x,) = tf.while_loop(lambda x: tf.reduce_sum(x) < 1e30, lambda x: (x * 0.0,), (x,))
            return {"y": x}

    module = Endless()
    tf.saved_model.save(module, str(tmp_path / "s"), {"serving_default": module.serve})
    monkeypatch.setattr("headstart.export.networks.keras.saved_model.LIMIT", 10)
    assert fails(tmp_path / "s") == (
        f"{tmp_path / 's'} has loops, and did not answer within 10 seconds for one image\n"
        "  Save it without the loop, or choose another network."
    )


def test_another_signature_if_it_is_the_only_one(tmp_path: Path, keras: Any) -> None:
    import tensorflow as tf

    class Named(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32, name="x")])
        def classify(self, x: Any) -> Any:
            return {"y": tf.reduce_mean(x, (1, 2))}

    module = Named()
    tf.saved_model.save(module, str(tmp_path / "s"), {"classify": module.classify})
    export_backbone(tmp_path / "b.onnx", str(tmp_path / "s"), RAW)
    expected = IMAGES.astype(np.float64).mean(axis=(1, 2))
    assert np.allclose(embed(tmp_path / "b.onnx", IMAGES), expected, rtol=1e-4)


def test_folders_that_are_no_saved_model(tmp_path: Path) -> None:
    assert fails(tmp_path).startswith(f"{tmp_path} is a folder without saved_model.pb\n  Give")
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
    assert fails(tmp_path).startswith(f"{tmp_path}/saved_model.pb is damaged\n  Save the model")
