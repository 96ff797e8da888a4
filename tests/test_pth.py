"""The reader of PyTorch's legacy files builds tensors and nothing else."""

from __future__ import annotations

import os
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data.common.errors import BackboneError
from headstart.export.networks.torch.pth import MAGIC, PROTOCOL, read_pth


class Global:
    """Pickles as a reference to `module.name`, whether or not that can be imported here."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a `Global`."""

    def __init__(self, function: Global, *arguments: object) -> None:
        self.function, self.arguments = function, arguments


class Storage:
    """Pickles as the persistent id of a storage."""

    def __init__(self, key: str, size: int, kind: str = "FloatStorage") -> None:
        self.key, self.size, self.kind = key, size, kind


def dump(value: object) -> bytes:
    """A pickle of protocol 2 of plain values, `Global`, `Call` and `Storage`."""

    def write(value: object) -> bytes:
        if isinstance(value, Global):
            return f"c{value.module}\n{value.name}\n".encode()
        if isinstance(value, Call):
            return write(value.function) + write(value.arguments) + b"R"
        if isinstance(value, Storage):
            return (
                write(("storage", Global("torch", value.kind), value.key, "cpu", value.size, None))
                + b"Q"
            )
        if isinstance(value, tuple):
            return b"(" + b"".join(map(write, value)) + b"t"
        if isinstance(value, dict):
            return b"}(" + b"".join(write(k) + write(v) for k, v in value.items()) + b"u"
        return pickle.dumps(value, 2)[2:-1]

    return b"\x80\x02" + write(value) + b"."


def tensor(storage: Storage, offset: int, shape: tuple, strides: tuple) -> Call:
    return Call(
        Global("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, strides, False
    )


def pth(state: object, storages: dict[str, np.ndarray], little: bool = True) -> bytes:
    head = dump(MAGIC) + dump(PROTOCOL) + dump({"little_endian": little})
    body = b"".join(a.size.to_bytes(8, "little") + a.tobytes() for a in storages.values())
    return head + dump(state) + dump(list(storages)) + body


SIX = np.arange(6, dtype="<f4")


def read(tmp_path: Path, content: bytes) -> dict[str, np.ndarray]:
    (tmp_path / "w.pth").write_bytes(content)
    return read_pth(tmp_path / "w.pth")


def test_shapes_strides_offsets_and_dtypes(tmp_path: Path) -> None:
    state = {
        "plain": tensor(Storage("0", 6), 0, (2, 3), (3, 1)),
        "transposed": tensor(Storage("0", 6), 0, (3, 2), (1, 3)),
        "part": tensor(Storage("0", 6), 4, (2,), (1,)),
        "count": tensor(Storage("1", 1, "LongStorage"), 0, (), ()),
    }
    got = read(tmp_path, pth(state, {"0": SIX, "1": np.array([7], "<i8")}))
    assert got["plain"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert got["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert got["part"].tolist() == [4, 5]
    assert (got["count"].dtype, int(got["count"])) == (np.int64, 7)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Ran out of input"),
        (dump(1), "it does not begin with PyTorch's magic number"),
        (b"PK\x03\x04", "is not a readable PyTorch state dict of the legacy format"),
        (pth({}, {}), "it does not contain a dictionary of tensors"),
        (pth({"a": 1}, {}), "it contains other objects than tensors"),
        (pth({"a": 1}, {}, little=False), "it was written on a big-endian machine"),
        (pth({"a": tensor(Storage("0", 6), 0, (7,), (1,))}, {"0": SIX}), "beyond the end"),
        (pth({"a": tensor(Storage("0", 6), -1, (2,), (1,))}, {"0": SIX}), "are not counts"),
        (pth({"a": tensor(Storage("0", 6), 0, (10**6,), (0,))}, {"0": SIX}), "beyond the end"),
        (
            pth({"a": tensor(Storage("0", 6), 0, (2,), (1, 1))}, {"0": SIX}),
            "more or fewer strides than dimensions",
        ),
        (
            pth({"a": tensor(Storage("0", 6), 0, (6,), (1,))}, {"0": SIX})[:-3],
            "in the middle of a tensor",
        ),
        (
            pth({"a": tensor(Storage("9", 6), 0, (6,), (1,))}, {}),
            "refers to a storage that is not in the file",
        ),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        read(tmp_path, content)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no such weights file"):
        read_pth(tmp_path / "no.pth")


@pytest.mark.parametrize(
    "evil",
    [
        Call(Global("os", "system"), "touch PWNED"),
        Call(Global("posix", "system"), "touch PWNED"),
        Call(Global("builtins", "eval"), "open('PWNED', 'w')"),
        Call(Global("numpy", "save"), "PWNED", 1),
        Call(Global("torch", "load"), "PWNED"),
        Call(Global("torch._utils", "_rebuild_parameter"), "PWNED"),
    ],
)
def test_nothing_but_tensors_is_built(
    tmp_path: Path, evil: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{evil.function.module}.{evil.function.name}"
    with pytest.raises(BackboneError, match=f"it asks for {name}, which is not a tensor"):
        read(tmp_path, pth({"a": evil}, {}))
    assert os.listdir(tmp_path) == ["w.pth"]


def test_an_object_changed_after_it_was_built_is_still_checked(tmp_path: Path) -> None:
    """A pickle may set attributes by BUILD: here an offset far before the storage."""
    good = dump({"a": tensor(Storage("0", 6), 0, (6,), (1,))})
    build = b"}(X\x06\x00\x00\x00offsetJ\x00\x00\xff\xffub"  # {"offset": -65536}
    position = good.rindex(b"Ru.")
    state = good[: position + 1] + build + good[position + 1 :]
    head = dump(MAGIC) + dump(PROTOCOL) + dump({"little_endian": True})
    body = dump(["0"]) + (6).to_bytes(8, "little") + SIX.tobytes()
    with pytest.raises(BackboneError, match="are not counts"):
        read(tmp_path, head + state + body)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_wild_bytes_are_tensors_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(pth({"a": tensor(Storage("0", 6), 0, (2, 3), (3, 1))}, {"0": SIX}))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "wild.pth"
    path.write_bytes(bytes(BytesIO(content).getvalue()))
    try:
        got = read_pth(path)
    except BackboneError:
        return
    assert all(isinstance(array, np.ndarray) for array in got.values())
