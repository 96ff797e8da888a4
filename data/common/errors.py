"""The errors of headstart. Each says what is wrong and where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class HeadstartError(Exception):
    """Base of all our errors.

    Parameters
    ----------
    message
        What is wrong, and where.
    fix
        What to do next, as a sentence or a command.
    """

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message, self.fix = message, fix

    def __str__(self) -> str:
        return f"{self.message}\n  {self.fix}" if self.fix else self.message

    def __reduce__(self) -> tuple:
        return type(self), (self.message, self.fix)


class InputError(HeadstartError):
    """What the user gave cannot be used; found before any work was done."""

    exit_code = 2


class SourceError(InputError):
    """A source of examples (folder or manifest) that cannot be read as one."""


class BackboneError(InputError):
    """A backbone, or its weights, that is unknown, damaged or of another kind."""


class StoreError(InputError):
    """A feature store that is missing, unfinished, damaged or made with another backbone."""


class ModelError(InputError):
    """A model folder or an edge model that is missing, damaged or does not match."""


class MissingPackageError(InputError):
    """An optional package that this command needs is not installed."""


class ManyInputErrors(InputError):
    """Several mistakes, reported at once."""

    def __init__(self, errors: list[InputError]) -> None:
        super().__init__("\n".join(f"{number}. {error}" for number, error in enumerate(errors, 1)))
        self.errors = errors

    def __reduce__(self) -> tuple:
        return type(self), (self.errors,)


class StorageError(HeadstartError):
    """Object storage does not answer, or refuses access; what was done is kept."""


class DamagedStoreError(HeadstartError):
    """A feature store does not contain what its manifest says."""


class TooManyBadError(HeadstartError):
    """The work is done, but more examples failed than the user allows."""

    exit_code = 3


class ParityError(HeadstartError):
    """The outputs of an exported file differ from those of the model it was made from."""


class ExtractionError(HeadstartError):
    """Extraction stopped; what is done is kept and the next run continues from there."""


class TrainingError(HeadstartError):
    """Training stopped; no model was written."""


class PredictionError(HeadstartError):
    """Prediction stopped; no file was written."""


class StoppedError(HeadstartError):
    """The user stopped it (Ctrl-C); what was done is kept."""

    exit_code = 130


class TerminatedError(StoppedError):
    """The process was asked to end (`SIGTERM`); what was done is kept."""

    exit_code = 143


def first_line(error: BaseException) -> str:
    """The first line of another library's error; the name of its class if it has no text."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def last_line(error: BaseException) -> str:
    """The last line of another library's error: the cause, if the error contains a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class Checklist:
    """Collects the mistakes of cheap checks, so that all are reported at once.

    >>> checks = Checklist()
    >>> with checks.item():
    ...     raise InputError("one")
    >>> checks.finish()
    Traceback (most recent call last):
    ...
    headstart.data.common.errors.InputError: one
    """

    def __init__(self) -> None:
        self.errors: list[InputError] = []

    @contextmanager
    def item(self) -> Iterator[None]:
        """Run one check; its `InputError` is kept for `finish`."""
        try:
            yield
        except ManyInputErrors as several:
            self.errors.extend(several.errors)
        except InputError as error:
            self.errors.append(error)

    def finish(self) -> None:
        """Raise what was collected, if anything was."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ManyInputErrors(self.errors)
