"""Ctrl-C is answered at once, also while the main thread is in another library's code."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from types import TracebackType

ANSWER, GIVE_UP = 0.5, 10.0  # seconds after Ctrl-C: a sign of life, and the end in any case
_SETTLED = b"\0"  # no signal has this number
_watching: list[Interrupts] = []


class Interrupts:
    """A thread that sees every Ctrl-C, while the block runs.

    The first one is Python's: it raises `KeyboardInterrupt` in the main thread. If that has not
    ended the block soon, the thread says that it came; a second one, or ten seconds, end the
    process. What is written is whole at every moment.

    Parameters
    ----------
    say
        Prints a remark.
    give_up
        Ends the process.
    """

    def __init__(self, say: Callable[[str], None], give_up: Callable[[], None]) -> None:
        self.say, self.give_up = say, give_up
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        self.main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interrupts:
        if self.main:
            # Set again where it is Python's own: a library in C may have replaced it unnoticed.
            if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self.before = signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, daemon=True).start()
            _watching.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.main:
            _watching.remove(self)
            signal.set_wakeup_fd(self.before)
        self.writer.close()

    def _watch(self) -> None:
        while self._next(None) is not None:
            if self._next(ANSWER) is not False:
                continue  # it was answered, or the block has ended
            self.say("stopping ... (Ctrl-C again ends it at once)")
            came = self._next(GIVE_UP)
            if came is None or came == _SETTLED:
                continue
            self.give_up()

    def _next(self, seconds: float | None) -> bytes | bool | None:
        """The next Ctrl-C or `_SETTLED`; False if there is none in time, None at the end."""
        self.reader.settimeout(seconds)
        try:
            while came := self.reader.recv(1):
                if came == _SETTLED and seconds is None:
                    continue  # nothing is waiting for an answer
                if came in (_SETTLED, bytes([signal.SIGINT])):
                    return came
        except TimeoutError:
            return False
        return None


def settle() -> None:
    """Say that the last Ctrl-C has been answered, and the command goes on: a person is asked."""
    for each in _watching:
        each.writer.send(_SETTLED)
