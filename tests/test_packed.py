"""Sources of packed files: CIFAR's archives, IDX files, zip archives; hostile and damaged ones."""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import packed_files
import pytest
from conftest import Outcome
from PIL import Image

from headstart.data.common.errors import SourceError
from headstart.data.examples.opening import Source, open_source
from headstart.data.examples.packed.formats import FormatError, parse
from headstart.data.examples.packed.pickled import PickleError, read_pickled
from headstart.data.examples.reading import Reader, container_of
from headstart.data.modalities.known import MODALITIES

ARCHIVES: dict[str, Callable[[], dict[str, bytes]]] = {
    "cifar-10-binary.tar.gz": packed_files.cifar10_binary,
    "cifar-10-python.tar.gz": packed_files.cifar10_python,
    "cifar-100-binary.tgz": packed_files.cifar100_binary,
    "cifar-100-python.tar": packed_files.cifar100_python,
}


def pictures(source: Source) -> np.ndarray:
    """The pixels of all examples, through their paths."""
    reader = Reader(source.folder)
    files = [reader.read(path) for path in source.examples["path"].to_pylist()]
    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("extracted", [False, True], ids=["archive", "folder"])
def test_cifar_is_a_source(name: str, extracted: bool, tmp_path: Path) -> None:
    files = ARCHIVES[name]()
    files[f"{next(iter(files)).partition('/')[0]}/readme.html"] = b"hello"
    place = packed_files.write_tar(tmp_path / name, files)
    if extracted:
        place = tmp_path / "extracted"
        for file, content in files.items():
            path = place / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    source = open_source(place)
    each = 40 if "100" in name else 60
    batches = 2 if "100" in name else 4
    pixels, labels = packed_files.digits(each * batches)
    rows = source.examples.to_pylist()
    assert sorted(source.classes) == sorted(packed_files.NAMES)
    # Files are read by name: of CIFAR-100, the test pictures come first.
    order = np.roll(np.arange(each * batches), -each) if "100" in name else np.arange(len(pixels))
    assert [row["label"] for row in rows] == [packed_files.NAMES[n] for n in labels[order]]
    assert [row["split"] for row in rows].count("test") == each
    assert rows[-1]["split"] == ("train" if "100" in name else "test")
    assert len({row["id"] for row in rows}) == len(rows)
    assert np.array_equal(pictures(source), pixels[order].transpose(0, 2, 3, 1))
    if "100" in name:
        assert [row["coarse"] for row in rows] == [("even", "odd")[n % 2] for n in labels[order]]
    assert source.stamps(np.arange(2))[0].as_py()
    assert source.left_out == {".html": 1}
    assert container_of(rows[0]["path"]) == (
        name if not extracted else rows[0]["path"].split("#")[0]
    )


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_a_source(zipped: bool, tmp_path: Path) -> None:
    folder = packed_files.mnist(tmp_path / "mnist", zipped=zipped)
    source = open_source(folder)
    pixels, labels = packed_files.digits(80, 28)
    order = np.roll(np.arange(80), 40)  # t10k comes before train
    assert source.examples["label"].to_pylist() == [str(n) for n in labels[order]]
    assert source.examples["split"].to_pylist() == ["test"] * 40 + ["train"] * 40
    assert np.array_equal(pictures(source), pixels[order, 0])
    one = folder / ("train-images-idx3-ubyte" + (".gz" if zipped else ""))
    alone = open_source(one)
    assert alone.path == str(one)
    assert alone.examples["label"].to_pylist() == [str(n) for n in labels[:40]]
    (folder / "readme.html").write_text("hello")
    assert open_source(folder).left_out == {".html": 1}
    for labels_file in folder.glob("train-labels*"):
        labels_file.unlink()
    assert open_source(folder, allow_unlabelled=True).examples["label"].null_count == 40


def test_a_backbone_for_sound_is_refused(tmp_path: Path) -> None:
    folder = packed_files.mnist(tmp_path / "mnist")
    with pytest.raises(SourceError, match="holds photographs, not recordings"):
        open_source(folder, modality=MODALITIES["sound"])


def test_a_folder_with_one_archive_is_that_archive(tmp_path: Path) -> None:
    packed_files.write_tar(tmp_path / "cifar-10-python.tar.gz", packed_files.cifar10_python(8))
    assert len(open_source(tmp_path)) == 32


class _Hostile:
    """What runs a command when its pickle is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return __import__("os").system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_hostile_pickle_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "run"
    batch = pickle.dumps({"data": _Hostile(mark), "labels": [1]}, protocol)
    with pytest.raises(PickleError, match=r"would import posix\.system|has the instruction"):
        read_pickled(batch)
    files = {"c/data_batch_1": batch, "c/batches.meta": packed_files.python2({"label_names": []})}
    archive = packed_files.write_tar(tmp_path / "cifar-10-python.tar.gz", files)
    with pytest.raises(SourceError, match="only data is read from a pickle"):
        open_source(archive)
    assert not mark.exists()
    instructions = {code.name for code, _, _ in pickletools.genops(batch)}
    assert "REDUCE" in instructions  # it is one: it would call what it imports
    assert instructions & {"GLOBAL", "STACK_GLOBAL"}


ARRAY = packed_files.python2({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2]})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged"),
        (b"no pickle at all", "is damaged"),
        (ARRAY[:-200], "is damaged"),
        (b"\x80\x02]q\x01.", "is not a dictionary"),
        (b"\x80\x02cbuiltins\neval\nU\x011\x85R.", "would import builtins.eval"),
        (b"\x80\x02(cnumpy\nload\nU\x011oq.", "would import numpy.load"),
        (b"\x80\x02cnumpy\ndtype\n)R.", "would call numpy.dtype"),
        (b"\x80\x02cnumpy\nndarray\nK\x01\x85R.", "would call numpy.ndarray"),
        (b"\x80\x02}b.", "is damaged"),
        (b"\x80\x02K\x01e.", "is damaged"),
        (b"\x80\x02(]0.", "has the instruction POP"),
        (b"\x80\x02U\x01aQ.", "has the instruction BINPERSID"),
        (b"\x80\x02\x82\x01.", "has the instruction EXT1"),
        (ARRAY.replace(b"M\x00\x0c", b"M\x01\x0c"), "shape does not fit its bytes"),
        (ARRAY.replace(b"u1", b"O8"), "is not of bytes"),
        (b"\x80\x02" + b"]" * 20_000 + b".", "too many instructions"),
        (b"\x80\x02h\x07.", "is damaged"),
        (b"\x80\x02U\x01a}s.", "is damaged"),
    ],
)
def test_pickles_that_are_refused(
    content: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.data.examples.packed.pickled.MOST_STEPS", 10_000)
    with pytest.raises(PickleError, match=words):
        read_pickled(content)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_that_python_3_wrote_again_is_read(protocol: int) -> None:
    pixels = np.arange(6144, dtype=np.uint8).reshape(2, 3072)
    batch = {b"data": pixels, b"labels": [3, 1], b"filenames": [b"a", b"b"]}
    found = parse("cifar-python", pickle.dumps(batch, protocol))
    assert found.labels["label"].tolist() == [3, 1]
    assert np.array_equal(found.pixels, pixels.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1))


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_no_mutation_of_a_pickle_does_anything_but_fail_or_read() -> None:
    random = np.random.default_rng(0)
    names = {opcode.name for opcode, _, _ in pickletools.genops(ARRAY)}
    assert "REDUCE" in names
    head = len(ARRAY) - 2 * 3072
    for _ in range(2_000):
        content = bytearray(ARRAY)
        for place in random.integers(0, head, random.integers(1, 5)):
            content[place] = random.integers(0, 256)
        try:
            parse("cifar-python", bytes(content))
        except FormatError:
            continue


def test_damaged_archives_are_said_in_sentences(tmp_path: Path) -> None:
    whole = packed_files.write_tar(tmp_path / "whole.tar.gz", packed_files.cifar10_binary(20))
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-3_000])
    with pytest.raises(SourceError, match=r"cut\.tar\.gz is damaged or truncated: "):
        open_source(cut)
    other = packed_files.write_tar(tmp_path / "photos.tar.gz", {"a/1.jpg": b"x"})
    with pytest.raises(SourceError, match="is compressed, and is no archive of CIFAR-10 or"):
        open_source(other)
    (tmp_path / "text.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(SourceError, match="is damaged or truncated: "):
        open_source(tmp_path / "text.tar.gz")
    files = packed_files.cifar10_binary(20)
    files["cifar-10-batches-bin/data_batch_2.bin"] += b"more"
    odd = packed_files.write_tar(tmp_path / "odd.tar.gz", files)
    with pytest.raises(SourceError, match=r"data_batch_2\.bin is damaged or truncated: its 61,464"):
        open_source(odd)
    files = packed_files.cifar10_binary(20)
    files["cifar-10-batches-bin/batches.meta.txt"] = b"cat\ndog\n"
    few = packed_files.write_tar(tmp_path / "few.tar.gz", files)
    with pytest.raises(SourceError, match="has the class 9, and names for 2 classes"):
        open_source(few)


def test_damaged_idx_files_are_said_in_sentences(tmp_path: Path) -> None:
    folder = packed_files.mnist(tmp_path / "mnist", zipped=False)
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    whole = images.read_bytes()
    for content, words in (
        (whole[:-5], "it should hold 40 x 28 x 28 bytes, and has 31,355"),
        (b"GIF89a", "is not an IDX file of one to three dimensions"),
        (b"\0\0\x0d\x03" + whole[4:], "holds numbers of the kind 0x0d, not bytes"),
        (whole[:9], "its header is not complete"),
        (packed_files.idx(np.zeros(9, np.uint8)), "does not hold pictures"),
    ):
        images.write_bytes(content)
        with pytest.raises(SourceError, match=words):
            open_source(folder)
    images.write_bytes(whole)
    labels.write_bytes(packed_files.idx(np.zeros(7, np.uint8)))
    with pytest.raises(SourceError, match="has 7 labels for 40 pictures of train-images"):
        open_source(folder)
    images.unlink()
    with pytest.raises(SourceError, match="has no images beside it"):
        open_source(folder)
    images.with_name(f"{images.name}.gz").write_bytes(gzip.compress(whole)[:-40])
    with pytest.raises(SourceError, match=r"ubyte\.gz is damaged or truncated"):
        open_source(folder)


def test_what_changed_behind_the_list_is_an_error_of_the_example(tmp_path: Path) -> None:
    folder = packed_files.mnist(tmp_path / "mnist", zipped=False)
    source = open_source(folder)
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(packed_files.idx(np.zeros((3, 28, 28), np.uint8)))
    reader = Reader(source.folder)
    assert reader.read(f"{images.name}#idx=2")
    with pytest.raises(OSError, match="has 3 examples, and none at 3"):
        reader.read(f"{images.name}#idx=3")
    images.unlink()
    with pytest.raises(OSError, match="No such file"):
        Reader(source.folder).read(f"{images.name}#idx=3")


def write_zip(path: Path, folder: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, f"{prefix}{file.relative_to(folder)}")
    return path


def test_a_zip_archive_is_a_source(photos: Path, tmp_path: Path) -> None:
    both = zipfile.ZipFile(tmp_path / "both.zip", "w")
    with both as archive:
        for split in ("train", "validation"):
            for file in sorted(photos.rglob("*.png")):
                archive.write(file, f"cats/{split}/{file.relative_to(photos)}")
        archive.writestr("cats/vectorize.py", "x = 1")
        archive.writestr("__MACOSX/cats/._1.png", b"x")
    source = open_source(tmp_path / "both.zip")
    assert source.classes == ["blue", "green", "red"]
    assert set(source.examples["split"].to_pylist()) == {"train", "validation"}
    assert source.left_out == {".py": 1, "hidden or system files": 1}
    reader = Reader(source.folder)
    path = source.examples["path"][0].as_py()
    assert path == "both.zip#file=cats/train/blue/00.png"
    assert reader.read(path) == (photos / "blue" / "00.png").read_bytes()
    with pytest.raises(OSError, match=r"none\.png in both\.zip cannot be read"):
        reader.read("both.zip#file=none.png")
    alone = tmp_path / "alone"
    alone.mkdir()
    write_zip(alone / "photos.zip", photos)
    assert len(open_source(alone)) == 60


def test_zip_archives_that_are_refused(photos: Path, tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "a.zip", photos).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"cut\.zip is damaged, or not a zip archive"):
        open_source(tmp_path / "cut.zip")
    write_zip(tmp_path / "out.zip", photos, "../")
    with pytest.raises(SourceError, match="leads outside the archive"):
        open_source(tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("a/readme.md", "nothing")
    with pytest.raises(SourceError, match="holds no photographs"):
        open_source(tmp_path / "empty.zip")
    damaged = bytearray(whole)
    damaged[60:90] = bytes(30)
    (tmp_path / "bad.zip").write_bytes(damaged)
    source = open_source(tmp_path / "bad.zip")
    with pytest.raises(OSError, match=r"00\.png in bad\.zip cannot be read"):
        Reader(source.folder).read(source.examples["path"][0].as_py())


def test_packed_sources_go_through_extract_and_inspect(
    command: Callable[..., Outcome], tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    archive = packed_files.write_tar(
        tmp_path / "cifar-10-binary.tar.gz", packed_files.cifar10_binary(20)
    )
    found = command("data", "inspect", archive)
    assert found.code == 0
    assert "80" in found.out
    assert "32x32" in found.out
    features = tmp_path / "features"
    made = command("extract", archive, "--backbone", tiny_backbone, "-o", features)
    assert made.code == 0, made.err
    assert "80 examples" in made.out
    again = command("extract", archive, "--backbone", tiny_backbone, "-o", features)
    assert "nothing to do" in again.out + again.err or again.code == 0
