"""How an extraction is to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.data.common.errors import Checklist, InputError
from headstart.data.common.ray_session import chosen_address
from headstart.extract.engines.precision import AUTO, PRECISIONS
from headstart.extract.engines.runtimes import ENGINES


@dataclass(frozen=True)
class ExtractOptions:
    """How an extraction is to run.

    Parameters
    ----------
    address
        Of a Ray cluster, or `local`: one is started on this machine. By default that is done for
        large jobs; small ones run in processes of this machine, without Ray.
    workers
        Number of workers, one CPU each; by default, one for every free CPU. For an engine on GPUs,
        only CPUs of machines with a GPU count; the workers share the GPUs.
    batch_size
        Examples that go through the backbone at once.
    precision
        One of `PRECISIONS`; by default, that of the store, or else of the backbone file.
    engine
        One of `ENGINES`; by default, each worker takes the fastest on its machine.
    stall_after
        Seconds without a finished example after which a worker is replaced.
    allow_unlabelled
        See `open_source`.
    corrections
        A CSV file of corrected labels, see `headstart.data.contracts.corrections`; by default those
        that the store was made with before. A file without rows ends them.
    """

    address: str | None = None
    workers: int | None = None
    batch_size: int = 16
    precision: str | None = None
    engine: str | None = None
    stall_after: float = 300.0
    allow_unlabelled: bool = False
    corrections: str | Path | None = None

    def __post_init__(self) -> None:
        checks = Checklist()
        for name, most in (("workers", 100_000), ("batch_size", 1024), ("stall_after", 86_400)):
            value = getattr(self, name)
            with checks.item():
                if value is not None and not 1 <= value <= most:
                    flag = "--" + name.replace("_", "-")
                    raise InputError(f"{flag} {value} is not possible", f"Give 1 to {most:,}.")
        for name, known in (("precision", PRECISIONS), ("engine", tuple(ENGINES))):
            value = getattr(self, name)
            with checks.item():
                if value is not None and value not in known:
                    raise InputError(
                        f"--{name} {value} is not known", f"Choose from {', '.join(known)}."
                    )
        checks.finish()

    @property
    def auto(self) -> bool:
        """Whether the precision of a new store is measured."""
        return self.precision == AUTO

    @property
    def any_precision(self) -> bool:
        """Whether a store may have another precision than the backbone file."""
        return self.precision in (None, AUTO)

    @property
    def local(self) -> bool:
        """Whether the work runs on this machine, so that its engines can be checked here."""
        return chosen_address(self.address) is None
