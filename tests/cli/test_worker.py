"""`flask opsjobs worker`: what is wrong on its command line is said before anything starts."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_opsjobs.cli import opsjobs as commands


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--processes", "0"], "0 is not in the range 1<=x<=1000"),
        (["--processes", "99999999999"], "is not in the range 1<=x<=1000"),
        (["--jobs-per-process", "-1"], "-1 is not in the range x>=0"),
        (["--max-memory", "1e3"], "'1e3' is not a valid integer range"),
        (["--log-level", "loud"], "'loud' is not one of 'debug', 'info'"),
        (["default", ""], "the name of a queue is empty"),
    ],
)
def test_a_wrong_option_is_refused(app: Flask, words: list[str], says: str) -> None:
    result = app.test_cli_runner().invoke(commands, ["worker", *words])
    assert result.exit_code == 2
    assert says in result.output
