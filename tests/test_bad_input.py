"""Odd photographs are decoded correctly, broken ones get a reason, and no run crashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import paint, tiny_model, write_tiny_backbone
from encoders import PICTURE, encode
from odd_files import broken, cuts, whole
from onnx import TensorProto, helper
from PIL import Image, ImageCms

from headstart.data.common.errors import SourceError
from headstart.data.contracts.backbone import BackboneSpec, load_backbone
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.data.examples.opening import open_found, open_source
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.data.modalities.modality import DecodeError
from headstart.extract.engines.runtimes import OnnxRuntimeEngine

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # as decoding does

WHOLE, BROKEN, CUTS = whole(), broken(), cuts()
SMALL = Preprocessing(8, 8)


def reason_of(content: bytes) -> str | None:
    """The reason code of what cannot be decoded; None for what can."""
    try:
        decode(content, SMALL)
    except DecodeError as error:
        return error.reason
    return None


@pytest.mark.parametrize("name", WHOLE)
def test_an_odd_photograph_shows_the_right_picture(name: str) -> None:
    case = WHOLE[name]
    height, width = case.picture.shape[:2]
    got = decode(case.content, Preprocessing(height, width))
    assert (got.shape, got.dtype) == (case.picture.shape, np.uint8)
    assert np.abs(got.astype(int) - case.picture).max() <= case.tolerance


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_photograph_has_its_reason(name: str) -> None:
    content, reason = BROKEN[name]
    assert reason_of(content) == reason


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zero.jpg", "the file has no bytes"),
        ("document.jpg", "no supported image format begins with b'%PDF-1.7'"),
        ("zeroed.jpg", "the file ends in its header"),
        ("12-bit.jpg", "the header is damaged, or of a kind that is not supported"),
        ("rotten.png", "the pixels do not match their checksum"),
        ("long.png", "a side of 200,000 pixels; at most 100,000 are decoded"),
        ("bomb.png", "more than 200,000,000 pixels, the most that are decoded"),
        (
            "float-0-to-255.tif",
            "floating-point pixels from 0 to 255; only 0 (black) to 1 (white) is defined",
        ),
        (
            "signed-16.tif",
            "pixels of 32 bits or with a sign have no defined black and white; convert to 16 bits",
        ),
    ],
)
def test_the_messages_for_what_is_broken(name: str, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(BROKEN[name][0], SMALL)
    assert str(caught.value) == message


def test_a_profile_of_srgb_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for picture in (PICTURE, PICTURE[..., 0]):
        tagged = encode(picture, "PNG", icc_profile=srgb)
        assert np.array_equal(decode(tagged, SMALL), decode(encode(picture, "PNG"), SMALL))


def test_short_memory_is_not_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load_prepare", refuse)
    with pytest.raises(DecodeError, match=r"^there is not enough memory to decode it$") as caught:
        decode(encode(PICTURE, "PNG"), SMALL)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("name", CUTS)
def test_a_photograph_cut_at_a_structure_has_its_reason(name: str) -> None:
    content, reason = CUTS[name]
    assert reason_of(content) == reason


@pytest.mark.parametrize("name", WHOLE)
def test_a_cut_photograph_is_never_half_a_picture(name: str) -> None:
    content = WHOLE[name].content
    picture = decode(content, SMALL)
    places = {*np.linspace(0, len(content), 60, dtype=int), *range(len(content))[-20:]}
    for place in sorted(places):
        try:
            got = decode(content[:place], SMALL)
        except DecodeError as error:
            detected = name not in (
                "arithmetic.jpg",
                "tiled-deflate.tif",
            )  # others by their decoder
            known = {"truncated"} if detected else {"truncated", "damaged"}
            assert error.reason in known or place < 18  # fewer bytes do not identify a format
        else:
            assert np.array_equal(got, picture)


def test_one_wrong_bit_in_a_png_is_never_a_wrong_picture() -> None:
    content = encode(PICTURE, "PNG")
    height, width = PICTURE.shape[:2]
    damaged = 0
    for position in range(len(content)):
        for bit in range(8):
            rotten = bytearray(content)
            rotten[position] ^= 1 << bit
            try:
                got = decode(bytes(rotten), Preprocessing(height, width))
            except DecodeError:
                damaged += 1
            else:
                assert np.array_equal(got, PICTURE)
    assert damaged > 1000


@pytest.mark.parametrize("name", [name for name in BROKEN if name.startswith("bomb")])
def test_a_bomb_is_refused_by_its_header(name: str) -> None:
    content, _ = BROKEN[name]
    assert len(content) < 20_000
    with pytest.raises(
        DecodeError, match=r"^more than 200,000,000 pixels, the most that are decod"
    ):
        decode(content, SMALL)


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["animated.webp", "clear.png", "cmyk.jpg", "float.tif"])
def test_memory_stays_below_the_limit_that_is_stated(kind: str, tmp_path: Path) -> None:
    """20 bytes a pixel and what does not grow: the formats that need the most."""
    size = (4000, 3000)
    if kind == "animated.webp":
        first, second = (Image.new("RGBA", size, (shade, 9, 9, 99)) for shade in (9, 99))
        content = encode(
            first, "WEBP", lossless=True, method=0, save_all=True, append_images=[second]
        )
    elif kind == "clear.png":
        content = encode(Image.new("RGBA", size, (9, 9, 9, 99)), "PNG", compress_level=1)
    elif kind == "cmyk.jpg":
        content = encode(Image.new("CMYK", size, (9, 9, 9, 9)), "JPEG", progressive=True)
    else:
        content = encode(np.zeros(size[::-1], np.float32), "TIFF", compression="tiff_lzw")
    (tmp_path / kind).write_bytes(content)
    answer = python(Path(__file__).with_name("memory.py"), tmp_path / kind)
    assert 0 < int(answer.stdout) < 20 * size[0] * size[1] + 10e6


def python(*arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run Python on some arguments, in a process of its own."""
    command = [*prefix, sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


# --- Whole runs


def write_nan_backbone(path: Path) -> OnnxRuntimeEngine:
    """A tiny backbone that returns NaN for a black photograph."""
    model = tiny_model()
    del model.graph.output[:]
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.extend(
        [
            helper.make_node("ReduceSum", ["flat", "axis"], ["sum"], keepdims=1),
            helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
            helper.make_node("Div", ["nothing", "sum"], ["nothing or NaN"]),
            helper.make_node("Add", ["plain", "nothing or NaN"], ["embedding"]),
        ]
    )
    model.graph.initializer.extend(
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("zero", TensorProto.FLOAT, [1], [0]),
        ]
    )
    model.graph.output.append(
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 12])
    )
    onnx.checker.check_model(model)
    write_tiny_backbone(path)
    spec: BackboneSpec = replace(load_backbone(path).spec, name="nan")
    helper.set_model_props(model, spec.to_metadata())
    path.write_bytes(model.SerializeToString())
    backbone = load_backbone(path)
    return OnnxRuntimeEngine(backbone.content, backbone.spec)


def fill(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All odd files with good neighbours: the pictures of the good ones, the others' reasons."""
    folder.mkdir(parents=True)
    pictures = {name: case.picture for name, case in WHOLE.items()}
    for name, case in WHOLE.items():
        (folder / name).write_bytes(case.content)
    errors = {}
    for name, (content, reason) in (BROKEN | CUTS).items():
        (folder / name).write_bytes(content)
        if reason:
            errors[name] = f"decode/{reason}"
        else:
            pictures[name] = PICTURE
    good = encode(PICTURE, "PNG")
    names = [
        "two words.png",
        "two\nlines.png",
        "\N{FOX FACE}.png",
        "quo'te\".png",
        "n" * 251 + ".png",
    ]
    for name in [*names, *(f"{letter}-good.png" for letter in "abcdefghijklmnopqrstuvwxyz")]:
        (folder / name).write_bytes(good)
        pictures[name] = PICTURE
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop-2.jpg")
    (folder / "loop-2.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "vanishing.jpg").write_bytes(good)
    errors |= {
        "pipe.jpg": "read/unreadable",
        "loop.jpg": "read/unreadable",
        "loop-2.jpg": "read/unreadable",
        "dangling.jpg": "read/missing",
        "vanishing.jpg": "read/missing",
    }
    return pictures, errors


@pytest.fixture
def vanishing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file `vanishing.jpg` is there when the source is listed, and gone when it is read."""

    def losing(opened: Callable) -> Callable:
        def open_and_lose(path: str | Path, *arguments: object, **options: object) -> object:
            source = opened(path, *arguments, **options)
            for file in Path(path).rglob("vanishing.jpg"):
                file.unlink()
            return source

        return open_and_lose

    monkeypatch.setattr("headstart.extract.job.open_found", losing(open_found))
    monkeypatch.setattr("headstart.data.inspection.open_source", losing(open_source))


def test_a_folder_of_all_that_is_odd_is_extracted(
    tmp_path: Path, local_ray: None, command: Callable, vanishing: None
) -> None:
    photos, out, backbone = tmp_path / "photos", tmp_path / "features", tmp_path / "nan.onnx"
    engine = write_nan_backbone(backbone)
    pictures, errors = fill(photos / "odd")
    (photos / "odd" / "black.png").write_bytes(encode(np.zeros((30, 40, 3), np.uint8), "PNG"))
    errors["black.png"] = "embed/not_finite"
    assert len(pictures) > 100
    assert len(errors) > 100

    answer = command("extract", photos, "--backbone", backbone, "-o", out)

    assert answer.code == 3
    share = len(errors) / (len(errors) + len(pictures))
    assert f"error: {share:.1%} of the examples failed, more than --max-bad 5.0%" in answer.err
    store = FeatureStore.open(out)
    found = {
        row["id"]: f"{row['stage']}/{row['reason']}" for row in store.read_errors().to_pylist()
    }
    assert found == {f"odd/{name}": reason for name, reason in errors.items()}
    assert all(store.read_errors()["message"].to_pylist())
    table = store.read()
    assert sorted(table["id"].to_pylist()) == sorted(f"odd/{name}" for name in pictures)
    tolerances = {f"odd/{name}": case.tolerance for name, case in WHOLE.items()}
    for id_, embedding in zip(table["id"].to_pylist(), embeddings_of(table), strict=True):
        picture = SMALL.apply(Image.fromarray(pictures[id_.removeprefix("odd/")]), fast=True)
        (expected,) = engine.embed(picture[np.newaxis])
        assert np.abs(embedding - expected).max() <= 1e-3 + tolerances.get(id_, 0), id_

    again = command("extract", photos, "--backbone", backbone, "-o", out, "--max-bad", "0.9")
    assert again.code == 0
    assert again.out.startswith("nothing to do")


def test_a_folder_of_all_that_is_odd_is_inspected(
    tmp_path: Path, command: Callable, vanishing: None
) -> None:
    pictures, errors = fill(tmp_path / "photos" / "odd")

    inside = command("data", "inspect", tmp_path / "photos", "--json")
    outside = python("-m", "data", "inspect", tmp_path / "photos", "--json")

    assert (inside.code, outside.returncode) == (0, 0)
    assert outside.stderr == ""  # nothing from Pillow or the libraries below it
    for answer, lost in ((inside.out, True), (outside.stdout, False)):
        found = json.loads(answer)
        broken = {id_: problem.split(":")[0] for id_, problem in found["broken"].items()}
        expected = {f"odd/{n}": r for n, r in errors.items() if lost or n != "vanishing.jpg"}
        assert broken == expected
        assert sum(found["sizes"].values()) == len(pictures)
    assert python("-m", "data", "inspect", tmp_path / "photos").returncode == 0


def test_max_bad_decides_the_exit_code(
    tmp_path: Path, tiny_backbone: Path, local_ray: None, command: Callable
) -> None:
    for number in range(20):
        paint(tmp_path / "photos" / "red" / f"{number:02d}.png", (200, 60, 60), number)
    (tmp_path / "photos" / "red" / "07.png").write_bytes(b"")
    arguments = ["extract", tmp_path / "photos", "--backbone", tiny_backbone]
    arguments += ["-o", tmp_path / "features"]
    answer = command(*arguments)
    assert answer.code == 0  # one of twenty does not exceed 5 %
    assert answer.err.endswith(
        "  1 failed with decode/empty, such as red/07.png: the file has no bytes\n"
        "  --retry-failed retries them\n"
    )
    assert FeatureStore.open(tmp_path / "features").read().num_rows == 19
    for limit, code in (("0.049", 3), ("0.05", 0), ("0", 3), ("1", 0)):
        again = command(*arguments, "--max-bad", limit)
        assert again.code == code
        assert ("5.0% of the examples failed, more than --max-bad" in again.err) == (code == 3)


def test_a_file_without_permission_is_a_row_of_errors(tmp_path: Path, tiny_backbone: Path) -> None:
    """Through the real commands; where the tests are root, without root's power to read all."""
    photos, out = tmp_path / "photos", tmp_path / "features"
    for number in range(20):
        paint(photos / "red" / f"{number:02d}.png", (200, 60, 60), number)
    (photos / "red" / "00.png").chmod(0)
    drop = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    prefix = drop if os.geteuid() == 0 else ()

    inspected = python("-m", "data", "inspect", photos, "--json", prefix=prefix)
    extracted = python(
        *("-m", "extract", photos, "--backbone", tiny_backbone, "-o", out, "--workers", 1),
        prefix=prefix,
    )

    assert json.loads(inspected.stdout)["broken"] == {
        "red/00.png": "read/unreadable: Permission denied"
    }
    assert extracted.returncode == 0, extracted.stderr
    (error,) = FeatureStore.open(out).read_errors().drop_columns(["stamp"]).to_pylist()
    assert error == {
        "id": "red/00.png",
        "stage": "read",
        "reason": "unreadable",
        "message": "Permission denied",
        "path": "red/00.png",
    }
    assert FeatureStore.open(out).read().num_rows == 19


@pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "/etc/secret.png"])
def test_a_path_outside_the_source_is_refused_before_any_work(
    path: str, tmp_path: Path, tiny_backbone: Path, command: Callable
) -> None:
    paint(tmp_path / "secret.png", (9, 9, 9), 0)
    paint(tmp_path / "photos" / "fine.png", (9, 9, 9), 0)
    manifest = tmp_path / "photos" / "manifest.csv"
    manifest.write_text(f"path,label\nfine.png,a\n{path},b\n")
    with pytest.raises(SourceError, match="leads outside the manifest's folder"):
        open_source(manifest)
    out = tmp_path / "features"
    answer = command("extract", manifest, "--backbone", tiny_backbone, "-o", out)
    assert answer.code == 2
    assert f"1 path leads outside the manifest's folder: {path!r}" in answer.err
    assert command("data", "inspect", manifest).code == 2
    assert not out.exists()
