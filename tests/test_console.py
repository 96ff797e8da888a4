"""What a command prints when it is stopped or fails."""

from __future__ import annotations

import pytest

from headstart.data.common import console
from headstart.data.common.application.running import run
from headstart.data.common.console import first_few
from headstart.data.common.errors import InputError


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped; what was written whole is kept\n"),
        (InputError("x is not a y", "Give a y."), 2, "error: x is not a y\n  Give a y.\n"),
    ],
)
def test_what_ends_a_command_is_printed_once(
    raised: BaseException,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = console.new_app("Two commands, as a room has them.")

    @app.command()
    def work() -> None:
        raise raised

    @app.command()
    def rest() -> None:
        pass

    monkeypatch.setattr("sys.argv", ["room", "work"])
    with pytest.raises(SystemExit) as stop:
        run(app, "room")
    assert stop.value.code == code
    assert capsys.readouterr().err == said
    monkeypatch.setattr("sys.argv", ["room", "rest"])
    with pytest.raises(SystemExit) as fine:
        run(app, "room")
    assert (fine.value.code, capsys.readouterr().err) == (0, "")


def test_lists_are_shortened() -> None:
    assert first_few(["a", "b"]) == "a, b"
    assert first_few(list("abcdef")) == "a, b, c, d, e and 1 more"
    assert first_few(list("abcd"), 2, repr, "; ") == "'a'; 'b'; and 2 more"
