"""The command line, called as the installed script calls it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from transferkit import cli

Run = Callable[..., "Answer"]


class Answer(NamedTuple):
    """What a command ended with and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call the command line in this process; standard input is UTF-8, and bytes need not be."""

    def call(*arguments: object, stdin: str | bytes = "") -> Answer:
        monkeypatch.setattr(sys, "argv", ["transferkit", *map(str, arguments)])
        content = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="\n"))
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call
