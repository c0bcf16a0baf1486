"""A clock that is off is found: this machine's, and with `--faketime` that of a real Valkey."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from flask_opsjobs.doctor import postgres
from flask_opsjobs.testing.valkey import Valkey
from tests.conftest import MakeApp
from tests.doctor.conftest import Ask, shows

# How far a clock is ahead, and what the check answers.
STATES = {1.0: "ok", -1.0: "ok", 5.0: "warning", -5.0: "warning", 60.0: "error", -60.0: "error"}


@shows("postgres.clock")
def test_this_machines_clock_is_off(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    for ahead, state in STATES.items():

        class _Shifted(datetime):
            by = timedelta(seconds=ahead)

            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + cls.by

        monkeypatch.setattr(postgres, "datetime", _Shifted)
        assert ask("postgres.clock").state == state, ahead


def _library() -> Path:
    """Debian's library that sets a process's clock off; it is installed when it is missing."""
    places = "lib/*/faketime/libfaketimeMT.so.1"
    if not any(Path("/usr").glob(places)):
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "libfaketime"]
        subprocess.run(install, check=True, capture_output=True)
    return next(Path("/usr").glob(places))


@pytest.mark.faketime
@pytest.mark.processes
@pytest.mark.slow
@shows("postgres.clock")
def test_the_clock_of_a_valkey_is_off(
    make_well: MakeApp, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", f"{_library()}")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    for ahead, state in STATES.items():
        monkeypatch.setenv("FAKETIME", f"{ahead:+.0f}s")
        with Valkey() as server:
            app = make_well(OPSJOBS_REDIS_URL=server.url)
            found = ask("postgres.clock", app)
        print(f"FAKETIME={ahead:+.0f}s: {found.state}: {found.sentence}")
        assert found.state == state, found
        if state != "ok":
            name = f"Redis {server.url.removeprefix('redis://')}"
            how = "ahead of" if ahead > 0 else "behind"
            assert found.sentence.startswith(f"The clock of {name} is ")
            assert found.sentence.endswith(f" s {how} this machine's.")
