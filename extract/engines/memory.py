"""Which engine and precision were the fastest, as measured on this machine before.

A file in the cache for each backbone, batch and machine: what it was made from stands in it, and is
its name, so that it no longer counts when an engine, the CPU or headstart is another one.
"""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.storage.cache import cache_folder, recall, remember
from headstart.data.storage.files import digest
from headstart.extract.engines.precision import Measured
from headstart.extract.engines.runtimes import ENGINES

PACKAGES = ("headstart", "onnxruntime", "openvino")
CPUINFO = Path("/proc/cpuinfo")
OF_CPU = ("model name", "CPU implementer", "CPU part", "flags", "Features")  # x86 and ARM


@dataclass(frozen=True)
class Remembered:
    """What earlier runs found.

    Parameters
    ----------
    made_from
        What it depends on.
    fastest
        The fastest engine by precision.
    measured
        What `--precision auto` chose from; empty if that was never asked for.
    """

    made_from: dict[str, str]
    fastest: dict[str, str] = field(default_factory=dict)
    measured: tuple[Measured, ...] = ()

    def __post_init__(self) -> None:
        pairs = [*self.fastest.items()]
        pairs += [(each.config.precision, each.config.engine or "") for each in self.measured]
        for precision, engine in pairs:
            if precision not in ENGINES.get(engine, ()):
                raise ValueError(f"{engine!r} does not run in {precision!r}")


class Memory:
    """The file of a backbone on this machine.

    Parameters
    ----------
    fingerprint
        Of the backbone file; its precision does not matter.
    batch
        Examples that go through it at once.
    """

    def __init__(self, fingerprint: Fingerprint, batch: int) -> None:
        made_from = {"backbone": fingerprint.sha256, "batch": str(batch), "cpu": _cpu()}
        made_from |= {name: _version(name) for name in PACKAGES}
        key = digest(json.dumps(made_from, sort_keys=True).encode())
        self.path = cache_folder("engines", f"{key[:24]}.json")
        found = recall(self.path, Remembered)
        same = found is not None and found.made_from == made_from
        self.found = found if found and same else Remembered(made_from)

    def add(self, **found: object) -> None:
        """Remember fields of `Remembered`; nothing is written if it has them already."""
        new = replace(self.found, **found)  # type: ignore[arg-type]
        if new != self.found:
            self.found = new
            remember(self.path, new)


def _version(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return ""


def _cpu() -> str:
    """The model of the CPU, and a hash of what it can do."""
    try:
        first = CPUINFO.read_text().partition("\n\n")[0]
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    pairs = [line.partition(":")[::2] for line in first.splitlines()]
    about = {name.strip(): value.strip() for name, value in pairs if name.strip() in OF_CPU}
    name = about.get("model name", platform.machine())
    return f"{name} {digest(json.dumps(about, sort_keys=True).encode())[:12]}"
