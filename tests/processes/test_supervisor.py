"""The supervisor: logs with names, the dead start again, one who cannot live ends all,
and nobody is left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flask_opsjobs.processes.child import Child, describe_exit
from flask_opsjobs.processes.supervisor import Supervisor
from tests.support.processes import Child as Started
from tests.support.processes import Children
from tests.support.waiting import wait_until

# A supervisor in a process of its own, since it must own the main thread and its signals.
_PRELUDE = """
import sys
from flask_opsjobs.processes.supervisor import Supervisor
children = Supervisor(grace={grace})
"""
FOREVER = "import signal\nprint('here', flush=True)\nsignal.pause()"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER
# One that starts a child of its own, in a process group of its own as the child of a job is, and waits.
PARENT = (
    "import os, signal, subprocess, sys\n"
    "subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], process_group=0)\n"
    + FOREVER
)


def supervisor(children: Children, *lines: str, grace: float = 10) -> Started:
    body = "\n".join([_PRELUDE.format(grace=grace), *lines, "sys.exit(children.run())"])
    return children.python("-c", body)


def add(name: str, code: str, more: str = "") -> str:
    return f"children.add({name!r}, [sys.executable, '-c', {code!r}]{more})"


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    """Starts commands; needs neither Postgres nor Redis."""
    found = Children(tmp_path, {})
    yield found
    found.end()


def family(started: Started, count: int) -> list[psutil.Process]:
    wait_until(lambda: len(started.children()) >= count, what=f"{count} children")
    return started.children()


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        for process in processes
        if _exists(process)
    )


def _exists(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.status()
        return True
    return False


def test_each_line_bears_the_name_of_its_child(children: Children) -> None:
    started = supervisor(
        children,
        add("loops", "print('one'); print('two', flush=True); import signal; signal.pause()"),
        add(
            "worker.1",
            "import sys; print('snow \\u2603'); print('to stderr', file=sys.stderr, flush=True);"
            "sys.stdout.write('no end'); sys.stdout.flush(); import signal; signal.pause()",
        ),
    )
    started.wait_for("to stderr")
    started.wait_for("two")
    assert started.terminate() == 0
    lines = started.log.splitlines()
    assert "loops    | one" in lines
    assert "worker.1 | snow \N{SNOWMAN}" in lines
    # The last words of the dead, although they have no end.
    assert "worker.1 | no end" in lines


def test_a_dead_child_is_started_again_and_said_so(children: Children, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        f"import os, pathlib, signal\nmark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists():\n    mark.touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        + FOREVER
    )
    started = supervisor(children, add("worker.1", code))
    started.wait_for("worker.1 ended with SIGKILL")
    started.wait_for("worker.1 starts again in 0.5 s")
    started.wait_for("worker.1 | here")
    assert started.terminate() == 0


def test_one_that_dies_five_times_ends_all_with_an_error(children: Children) -> None:
    started = supervisor(
        children,
        "import flask_opsjobs.processes.supervisor as module",
        "module._FIRST_WAIT = 0.01",
        add("good", FOREVER),
        add("bad", "raise SystemExit('no database')"),
    )
    (good, *_) = family(started, 1)
    assert started.wait() == 1
    assert started.log.count("bad  | no database") == 5
    assert "bad died 5 times within 30 s: giving up" in started.log
    assert are_gone([good])


def test_a_command_that_does_not_exist_is_a_death(children: Children) -> None:
    started = supervisor(
        children,
        "import flask_opsjobs.processes.supervisor as module",
        "module._FIRST_WAIT = 0.01",
        "children.add('typo', ['/no/such/command'])",
    )
    assert started.wait() == 1
    assert "typo cannot be started" in started.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all(children: Children, number: int) -> None:
    started = supervisor(children, add("a", FOREVER), add("b", FOREVER))
    started.wait_for("a | here")
    started.wait_for("b | here")
    processes = family(started, 2)
    started.signal(number)
    assert started.wait() == 0
    assert are_gone(processes)
    assert "starts again" not in started.log


def test_who_does_not_stop_is_killed_after_the_grace(children: Children) -> None:
    started = supervisor(children, add("stubborn", STUBBORN), grace=0.2)
    started.wait_for("here")
    processes = family(started, 1)
    started.signal(signal.SIGINT)
    assert started.wait() == 0
    assert "stubborn does not stop and is killed" in started.log
    assert are_gone(processes)


def test_a_second_ctrl_c_hurries(children: Children) -> None:
    started = supervisor(children, add("stubborn", STUBBORN), add("polite", FOREVER), grace=300)
    started.wait_for("stubborn | here")
    started.wait_for("polite   | here")
    processes = family(started, 2)
    started.signal(signal.SIGINT)
    # The polite one is gone: the first was heard.
    wait_until(lambda: sum(not are_gone([process]) for process in processes) == 1)
    started.signal(signal.SIGINT)
    assert started.wait(10) == 0
    assert are_gone(processes)


def test_what_a_child_started_goes_with_it(children: Children) -> None:
    started = supervisor(children, add("parent", PARENT))
    started.wait_for("here")
    processes = family(started, 2)
    assert started.terminate() == 0
    wait_until(lambda: are_gone(processes))


def test_what_a_dead_child_left_behind_goes_before_its_successor_comes(children: Children) -> None:
    started = supervisor(children, add("parent", PARENT))
    started.wait_for("here")
    parent, child = sorted(family(started, 2), key=lambda process: process.ppid() != started.pid)
    parent.kill()
    started.wait_for("starts again")
    wait_until(lambda: are_gone([child]))


@pytest.mark.chaos
def test_a_killed_supervisor_leaves_nobody(children: Children) -> None:
    started = supervisor(children, add("a", STUBBORN), add("b", FOREVER))
    started.wait_for("a | here")
    started.wait_for("b | here")
    processes = family(started, 2)
    started.kill()
    wait_until(lambda: are_gone(processes))


def test_a_child_without_restart_ends_all_with_its_code(children: Children) -> None:
    started = supervisor(
        children, add("a", FOREVER), add("check", "raise SystemExit(7)", ", restart=False")
    )
    assert started.wait() == 7


def test_one_that_closes_its_output_costs_nothing(children: Children) -> None:
    started = supervisor(
        children, add("a", "import os, signal\nos.close(1)\nos.close(2)\nsignal.pause()")
    )
    (child,) = family(started, 1)
    wait_until(lambda: _outputs_are_closed(child))
    before = sum(psutil.Process(started.pid).cpu_times()[:2])
    rounds = iter(range(30))
    wait_until(lambda: next(rounds, None) is None, every=0.02)
    assert sum(psutil.Process(started.pid).cpu_times()[:2]) - before < 0.3
    assert started.terminate() == 0


def _outputs_are_closed(process: psutil.Process) -> bool:
    return not {"1", "2"} & set(os.listdir(f"/proc/{process.pid}/fd"))


def test_it_is_told_to_stop_by_its_own_program(children: Children) -> None:
    started = supervisor(
        children,
        add("a", FOREVER),
        "import threading",
        "threading.Timer(0.3, children.stop, [5]).start()",
    )
    assert started.wait() == 5


def test_the_environment_is_ours_and_what_is_added(children: Children) -> None:
    code = "import os; print(os.environ['ADDED'], os.environ['PYTHONUNBUFFERED'], 'PATH' in os.environ)"
    started = supervisor(children, add("a", code, ", {'ADDED': 'yes'}, restart=False"))
    assert started.wait() == 0
    assert "a | yes 1 True" in started.log


def test_the_pid_of_a_child_is_known_while_it_runs() -> None:
    supervisor = Supervisor(write=lambda line: None).add("a", ["true"])
    assert supervisor.pid("a") is None


def test_a_line_without_end_is_shown_in_parts() -> None:
    child = Child([sys.executable, "-c", "print('x' * 200_000, end='')"])
    lines: list[str] = []
    wait_until(lambda: lines.extend(child.read_lines()) or child.poll() == 0)
    lines += child.read_rest()
    assert sum(map(len, lines)) == 200_000
    assert len(lines) > 1


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-99, "signal 99")]
)
def test_an_exit_code_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words
