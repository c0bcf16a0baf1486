"""The child of a call: whatever the policy does there, the call ends well, and nothing of it is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from flask_opsjobs.escalations.facts import make_test_facts
from flask_opsjobs.host import Host
from flask_opsjobs.loops.policy_process import Answer, PolicyProcess
from tests.support.escalating import SECRET, Acting
from tests.support.processes import is_alive
from tests.support.waiting import wait_until

pytestmark = pytest.mark.processes


class Caller:
    """Calls the policy of a host, and waits for the answer."""

    def __init__(self, host: Host, limit_seconds: float) -> None:
        self.host = host
        self.process = PolicyProcess(host, limit_seconds)
        self.process.start()

    def __call__(self, **facts: Any) -> Answer:
        self.begin(**facts)
        answer = wait_until(lambda: self.process.poll(0.01), 20)
        assert answer is not None
        return answer

    def begin(self, **facts: Any) -> None:
        example = make_test_facts(self.host.settings, datetime.now(UTC))
        self.process.call({**example, **facts})


@pytest.fixture
def call(host: Host) -> Iterator[Caller]:
    """Calls with a limit that no call of these tests reaches."""
    caller = Caller(host, 20)
    yield caller
    caller.process.close()


# What a policy does, and how the call ends then.
ENDS: dict[str, Answer] = {
    "": Answer("returned", reference="TICKET-None"),
    "returns_nothing": Answer("returned"),
    "returns_a_secret": Answer("returned", reference="ticket [hidden]"),
    "returns_a_number": Answer(
        "returned", note="escalate returned an object of type int, not a text"
    ),
    "returns_10_kb": Answer(
        "returned", "x" * 199 + "…", note="escalate returned 10,000 characters; 200 are kept"
    ),
    "raises": Answer("raised", error="RuntimeError: the pager says [hidden]"),
    "raises_10_mb": Answer("raised", error="RuntimeError: " + "y" * 485 + "…"),
    "raises_what_has_no_text": Answer("raised", error="_Wordless"),
    "leaves": Answer("raised", error="SystemExit: leaving"),
    "ends_its_process": Answer(
        "died", error="its process ended with exit code 3 and gave no answer"
    ),
    "kills_itself": Answer("died", error="its process was killed by signal 9"),
    "prints_10_mb": Answer("returned", reference="printed"),
    "forks": Answer("returned", reference="forked"),
    "leaves_a_daemon": Answer("returned", reference="left one"),
}


@pytest.mark.parametrize("act", ENDS)
def test_each_end_of_a_call(call: Caller, policy: Acting, act: str) -> None:
    policy.act(act)
    answer = call()
    assert replace(answer, place=None) == ENDS[act]
    assert ("escalating.py:" in (answer.place or "")) == (answer.kind == "raised")
    policy.act("")
    assert call().reference == "TICKET-None", "the next call goes on"
    (helper,) = _helpers(call)
    assert helper.children(recursive=True) == [], "nothing of the calls is left"


def test_a_reference_is_stored_as_text_of_one_line(call: Caller, policy: Acting) -> None:
    policy.act("returns_controls")
    reference = call().reference
    assert reference is not None
    assert reference.isprintable()
    assert reference == "a\ufffdb\\x1b[31m\\nc\ufffd"


def test_a_process_that_left_the_group_is_killed(
    call: Caller, policy: Acting, tmp_path: Path
) -> None:
    policy.act("leaves_a_daemon")
    call()
    left = int((tmp_path / "daemon").read_text())
    assert not psutil.pid_exists(left)


def test_a_call_that_hangs_is_given_up(host: Host, policy: Acting, tmp_path: Path) -> None:
    policy.act("hangs")
    call, hangs = Caller(host, 0.3), tmp_path / "hangs"

    def did_hang() -> bool:
        """Whether the policy had begun when its time was over."""
        assert call() == Answer("timed_out", error="it took longer than 0.3 s")
        return hangs.exists() and hangs.read_text() != ""

    wait_until(did_hang)
    assert not psutil.pid_exists(int(hangs.read_text()))
    call.process.close()


def test_a_call_is_broken_off(call: Caller, policy: Acting, tmp_path: Path) -> None:
    policy.act("hangs")
    call.begin()
    wait_until(lambda: (tmp_path / "hangs").exists() and (tmp_path / "hangs").read_text())
    call.process.stop_call()
    answer = wait_until(lambda: call.process.poll(0.01))
    assert answer == Answer("stopped", error="somebody canceled its job")
    policy.act("")
    assert call().kind == "returned"


def test_a_policy_that_kills_the_process_around_it(call: Caller, policy: Acting) -> None:
    policy.act("kills_its_parent")
    assert call() == Answer("died", error="the process that calls the policy ended")
    policy.act("")
    assert call().reference == "TICKET-None", "it was started again"


def test_one_that_was_killed_between_two_calls_is_started_again(
    call: Caller, policy: Acting
) -> None:
    (helper,) = _helpers(call)
    helper.kill()
    wait_until(lambda: not is_alive(helper))
    assert call().reference == "TICKET-None"


def test_it_ends_with_the_process_that_asks(call: Caller, policy: Acting, tmp_path: Path) -> None:
    policy.act("hangs")
    call.begin()
    hangs = tmp_path / "hangs"
    wait_until(lambda: hangs.exists() and hangs.read_text())
    hanging = psutil.Process(int(hangs.read_text()))
    (helper,) = _helpers(call)
    call.process.close()
    wait_until(lambda: not (psutil.pid_exists(helper.pid) and is_alive(helper)))
    wait_until(lambda: not (psutil.pid_exists(hanging.pid) and is_alive(hanging)))


def test_it_holds_through_a_stop_of_its_group(call: Caller) -> None:
    (helper,) = _helpers(call)
    os.kill(helper.pid, signal.SIGINT)
    os.kill(helper.pid, signal.SIGTERM)
    assert call().kind == "returned"


def test_facts_pass_the_display_policy(call: Caller, policy: Acting) -> None:
    details = {"error": f"of {SECRET}", "password": "swordfish", "list": [{"a": SECRET}], "n": 7}
    call(
        subject=f"queue/{SECRET}",
        title=SECRET,
        why=f"because {SECRET}",
        next_step=SECRET,
        environment=SECRET,
        repaired_by=SECRET,
        details=details,
    )
    (facts,) = policy.told()
    assert SECRET not in policy.calls.read_text()
    assert facts["details"]["error"] == "of [hidden]"
    assert "swordfish" not in policy.calls.read_text()
    assert facts["details"]["n"] == 7
    assert facts["is_test"] is True


@pytest.mark.slow
def test_40_canaries_do_not_leak(call: Caller, policy: Acting) -> None:
    """Wherever the secret stands in the facts, and in what the policy raises or returns."""
    texts = ("subject", "title", "why", "next_step", "affects", "environment", "repaired_by")
    shapes = (SECRET, f"a {SECRET} b", "x" * 1_995 + SECRET, f"{SECRET}," * 40)
    placed: list[dict[str, Any]] = [{name: shape} for name in texts for shape in shapes]
    placed += [{"details": {"a": shape, SECRET: 1}} for shape in shapes]
    placed += [{"details": {"a": [{"b": [shape]}]}} for shape in shapes]
    placed += [
        {"details": {"password_1": "s3cr3t"}},
        {"details": {"a": {"password": [1, "s3cr3t"]}}},
    ]
    answers = [call(**facts) for facts in placed]
    for act in ("raises", "returns_a_secret"):
        policy.act(act)
        answers.append(call())
    assert len(answers) == 40
    seen = policy.calls.read_text() + repr(answers)
    leaked = [part for part in (SECRET, "s3cr3t", "canary") if part in seen]
    assert leaked == []


def _helpers(call: Caller) -> list[psutil.Process]:
    """The process that forks the calls."""
    return [psutil.Process(call.process._pid)]
