"""The oracle of runs on small graphs, and on random ones that a simulation plays with late advances."""

from __future__ import annotations

import pytest

from tests.workflows.oracle import (
    CANCELED,
    DEPENDENCY,
    EXHAUSTED,
    RESULT_MISSING,
    RETURNED,
    SIGNALED,
    SKIPPED,
    TIMED_OUT,
    CancelRun,
    CancelStep,
    Contradiction,
    Ended,
    EndOfRun,
    Event,
    Expanded,
    Expected,
    Model,
    Retry,
    RunSpec,
    Sent,
    Skip,
    StepSpec,
    random_run,
)
from tests.workflows.simulation import Row, Simulation, play

FINISHED = EndOfRun("finished", "finished", None)
WAS_CANCELED = EndOfRun("canceled", "canceled", None)
PAYMENT = Sent("payment", "order-1")


def failed_by(step: str) -> EndOfRun:
    return EndOfRun("failed", "step", step)


def run(*steps: StepSpec) -> Model:
    return Model(RunSpec(0, steps))


def step(name: str, *after: str, on_failure: str = "cancel", may_fail: bool = False) -> StepSpec:
    return StepSpec(name, "job", after, on_failure, may_fail)


def wait(name: str, *after: str, signals: tuple[str, ...] = ("payment",)) -> StepSpec:
    return StepSpec(name, "wait", after, signals=signals, key="order-1")


def a_map(name: str, over: str) -> StepSpec:
    return StepSpec(name, "map", (over,), over=over)


def ok(*names: str) -> list[Event]:
    return [Ended(name, RETURNED) for name in names]


def bad(*names: str) -> list[Event]:
    return [Ended(name, EXHAUSTED) for name in names]


def steps(expected: Expected, end: object) -> set[str]:
    return {name for name, found in expected.steps.items() if found == end}


# --- ends


def test_a_run_finishes_when_all_its_steps_have() -> None:
    model = run(step("a"), step("b", "a"), step("c", "a", "b")).tell(*ok("a", "b"))
    assert model.finish().state == "running"
    assert model.finish().end is None
    expected = model.tell(*ok("c")).finish()
    assert (expected.end, expected.callbacks) == (FINISHED, 1)


def test_a_run_without_a_callback_calls_nobody() -> None:
    expected = Model(RunSpec(0, (step("a"),), has_callback=False)).tell(*ok("a")).finish()
    assert (len(expected.ends), expected.callbacks) == (1, 0)


def test_a_failure_cancels_what_depends_on_it_and_nothing_else() -> None:
    """Cases 11 and 12: a child fails, and nobody waits for ever; what does not depend on it goes on."""
    model = run(
        step("a"),
        step("b", "a"),
        step("behind", "b"),
        step("sibling", "a"),
        step("anyway", "b", on_failure="continue"),
    )
    expected = model.tell(*ok("a"), *bad("b"), *ok("sibling", "anyway")).finish()
    assert steps(expected, DEPENDENCY) == {"behind"}
    assert (expected.end, expected.callbacks) == (failed_by("b"), 1)


@pytest.mark.parametrize("end", [EXHAUSTED, TIMED_OUT, ("failed", "unknown_task"), CANCELED])
def test_every_end_that_is_no_success_is_passed_on(end: tuple[str, str]) -> None:
    """Case 11: whatever its cause."""
    expected = run(step("a"), step("b", "a")).tell(Ended("a", end)).finish()
    assert expected.steps["b"] == DEPENDENCY
    assert expected.end == failed_by("a")


def test_the_run_goes_on_while_a_sibling_of_a_failed_step_runs() -> None:
    """Case 12: a failure does not end the run."""
    model = run(step("a"), step("sibling")).tell(*bad("a"))
    assert (model.finish().state, model.finish().callbacks) == ("running", 0)


def test_what_may_fail_lets_the_run_finish() -> None:
    expected = run(step("a", may_fail=True), step("b", "a")).tell(*bad("a"), *ok("b")).finish()
    assert expected.end == FINISHED


def test_the_first_failed_step_is_the_culprit() -> None:
    model = run(step("a"), step("b"), step("c", "a")).tell(*bad("b", "a"))
    assert model.finish().end == failed_by("b")
    assert model.finish(times={"a": 7, "b": 8}).end == failed_by("a")
    assert model.finish(times={"a": 7, "b": 7}).end == failed_by("a")


def test_a_long_cascade_reaches_its_end() -> None:
    """Case 19: also over 5,000 levels, and over edges that cancel and edges that continue in turn."""
    chain = [step("0")] + [step(str(n), str(n - 1)) for n in range(1, 5_000)]
    expected = run(*chain).tell(*bad("0")).finish()
    assert len(steps(expected, DEPENDENCY)) == 4_999
    turns = [step("0")]
    for n in range(1, 100):
        on_failure = "continue" if n % 2 == 0 else "cancel"
        turns.append(step(str(n), str(n - 1), on_failure=on_failure))
    # Each second step goes on, and fails; the one behind it is canceled.
    expected = run(*turns).tell(*bad(*(str(n) for n in range(0, 100, 2)))).finish()
    assert len(steps(expected, DEPENDENCY)) == 50
    assert expected.end == failed_by("0")


def test_a_result_that_was_not_kept_fails_the_step_that_takes_it() -> None:
    model = run(step("a"), StepSpec("b", after=("a",), takes=("a",)))
    expected = model.tell(Ended("a", RETURNED, has_result=False)).finish()
    assert (expected.steps["b"], expected.end) == (RESULT_MISSING, failed_by("b"))
    skipped = model.tell(Skip("b")).finish()
    assert skipped.end == FINISHED


# --- maps


@pytest.mark.parametrize("elements", [0, 1, 3])
def test_what_waits_for_a_map_waits_for_all_its_members(elements: int) -> None:
    """Cases 8 and 9: an empty map settles at once, and a map of one is a map."""
    model = run(step("a"), a_map("map", "a"), step("b", "map"))
    model.tell(*ok("a"), Expanded("map", elements), *ok("map"))
    for element in range(elements):
        with pytest.raises(Contradiction, match="b ended"):
            model.tell(*ok("b"))
        model.tell(*ok(f"map[{element}]"))
    expected = model.tell(*ok("b")).finish()
    assert (expected.end, len(expected.steps)) == (FINISHED, 3 + elements)


def test_a_failed_member_cancels_what_waits_for_its_map() -> None:
    model = run(step("a"), a_map("map", "a"), step("b", "map"))
    expected = model.tell(
        *ok("a"), Expanded("map", 2), *ok("map", "map[0]"), *bad("map[1]")
    ).finish()
    assert (expected.steps["b"], expected.end) == (DEPENDENCY, failed_by("map[1]"))
    # Retry of one element leaves the others as they are.
    expected = model.tell(Retry(("map[1]",)), *ok("map[1]", "b")).finish()
    assert (expected.end, len(expected.ends)) == (FINISHED, 2)


def test_a_map_adds_its_members_once() -> None:
    model = run(step("a"), a_map("map", "a")).tell(*ok("a"), Expanded("map", 1))
    with pytest.raises(Contradiction, match="twice"):
        model.tell(Expanded("map", 1))


# --- decisions


def failed_run() -> Model:
    """`a` failed; `b`, `c` and `d` are canceled behind it, `d` behind `other` too, which failed as well."""
    model = run(step("a"), step("b", "a"), step("c", "b"), step("other"), step("d", "c", "other"))
    return model.tell(*bad("a", "other"))


def test_retry_reopens_exactly_what_a_step_canceled() -> None:
    """Case 14: success after a retry leaves no descendant canceled, and clears no other."""
    model = failed_run().tell(Retry(("a",)))
    assert steps(model.finish(), DEPENDENCY) == {"d"}
    expected = model.tell(*ok("a", "b", "c")).finish()
    assert steps(expected, DEPENDENCY) == {"d"}
    assert expected.end == failed_by("other")
    assert expected.ends == (failed_by("a"), failed_by("other"))
    expected = model.tell(Retry(), *ok("other", "d")).finish()
    assert (expected.end, expected.callbacks) == (FINISHED, 3)


def test_skip_reopens_exactly_what_a_step_canceled() -> None:
    """Case 14, with a result instead of another attempt."""
    expected = failed_run().tell(Skip("a"), *ok("b", "c")).finish()
    assert expected.steps["a"] == SKIPPED
    assert steps(expected, DEPENDENCY) == {"d"}


def test_a_canceled_step_can_be_skipped_while_the_one_before_it_stays_failed() -> None:
    expected = failed_run().tell(Skip("b"), *ok("c")).finish()
    assert expected.steps["b"] == SKIPPED
    assert expected.end == failed_by("a")


@pytest.mark.parametrize("name", ["b", "c"])
def test_what_is_behind_another_step_cannot_be_retried(name: str) -> None:
    with pytest.raises(Contradiction, match="was retried"):
        failed_run().tell(Retry((name,)))


def test_no_decision_changes_a_finished_step() -> None:
    """Case 14: cancel rewrites nothing that has ended."""
    model = run(step("a"), step("b")).tell(*ok("a"))
    for decision in (Retry(("a",)), Skip("a"), CancelStep("a")):
        with pytest.raises(Contradiction):
            model.tell(decision)


def test_a_retry_before_the_end_was_passed_on_ends_the_run_once() -> None:
    """Case 15: its end event is read later, and names a step that is not final."""
    early = run(step("a"), step("b", "a")).tell(*bad("a"), Retry(("a",), run_had_ended=False))
    assert early.tell(*ok("a", "b")).finish().ends == (FINISHED,)
    late = run(step("a"), step("b", "a")).tell(*bad("a"), Retry(("a",), run_had_ended=True))
    assert late.tell(*ok("a", "b")).finish().callbacks == 2


def test_a_run_cannot_have_ended_while_a_step_runs() -> None:
    model = run(step("a"), step("b")).tell(*bad("a"))
    with pytest.raises(Contradiction, match=r"\['b'\] had not"):
        model.tell(Retry(("a",), run_had_ended=True))


def test_cancel_ends_what_waits_and_lets_started_steps_end() -> None:
    """Case 13: it reaches all steps."""
    model = run(step("a"), step("b"), step("c", "a"), step("d", "c"), wait("paid"))
    expected = model.tell(CancelRun(), *ok("b")).finish()
    assert steps(expected, CANCELED) == {"a", "c", "d", "paid"}
    assert (expected.steps["b"], expected.end) == (RETURNED, WAS_CANCELED)


def test_cancel_that_stops_no_step_leaves_the_end_as_it_is() -> None:
    assert run(step("a")).tell(CancelRun(), *ok("a")).finish().end == FINISHED
    assert run(step("a")).tell(CancelRun(), *bad("a")).finish().end == failed_by("a")


def test_a_canceling_run_releases_nothing() -> None:
    model = run(step("a"), step("b", "a")).tell(CancelRun(), *ok("a"))
    with pytest.raises(Contradiction, match="b ended"):
        model.tell(*ok("b"))


def test_a_passed_deadline_cancels_and_the_run_failed() -> None:
    expected = run(step("a"), step("b", "a")).tell(CancelRun(by_deadline=True)).finish()
    assert expected.end == EndOfRun("failed", "deadline", None)


def test_a_canceled_run_is_retried() -> None:
    model = run(step("a"), step("b", "a")).tell(CancelRun(), Ended("a", CANCELED))
    expected = model.tell(Retry(), *ok("a", "b")).finish()
    assert expected.ends == (WAS_CANCELED, FINISHED)


def test_a_step_that_is_retried_behind_a_canceled_one_is_canceled_again() -> None:
    model = run(step("a"), step("b", "a")).tell(CancelRun(), Retry(("b",)))
    assert model.finish().steps == {"a": CANCELED, "b": DEPENDENCY}
    assert model.finish().ends == (WAS_CANCELED, failed_by("a"))


def test_cancel_may_come_before_or_after_a_step_is_canceled_behind_another() -> None:
    model = run(step("a"), step("b", "a")).tell(*bad("a"), CancelRun())
    assert model.finish({"b": DEPENDENCY}).end == failed_by("a")
    model = run(step("a"), step("b", "a")).tell(*bad("a"), CancelRun())
    expected = model.finish({"b": CANCELED})
    assert (expected.steps["b"], expected.end) == (CANCELED, WAS_CANCELED)


def test_an_observed_end_that_no_rule_allows_is_not_taken() -> None:
    model = run(step("a"), step("b", "a")).tell(*bad("a"), CancelRun())
    assert model.finish({"a": CANCELED, "b": RETURNED}).steps == {"a": EXHAUSTED, "b": DEPENDENCY}


def test_cancel_of_a_step_is_passed_on_as_a_failure() -> None:
    expected = (
        run(step("a"), step("b", "a"), step("c", "b")).tell(CancelStep("b"), *ok("a")).finish()
    )
    assert (expected.steps["b"], expected.steps["c"]) == (CANCELED, DEPENDENCY)
    assert expected.end == failed_by("b")


def test_a_started_step_that_was_asked_to_stop_may_still_finish() -> None:
    expected = (
        run(step("a"), step("b", "a"))
        .tell(CancelStep("a", was_started=True), *ok("a", "b"))
        .finish()
    )
    assert expected.end == FINISHED


# --- signals


def test_a_signal_ends_the_open_wait() -> None:
    expected = run(wait("paid"), step("b", "paid")).tell(PAYMENT, *ok("b")).finish()
    assert (expected.steps["paid"], expected.signals) == (SIGNALED, ("taken",))


def test_an_early_signal_is_kept_and_the_oldest_is_taken_first() -> None:
    model = run(step("a"), wait("first", "a"), wait("second", "first"))
    expected = model.tell(PAYMENT, PAYMENT, PAYMENT).finish()
    assert expected.signals == ("early", "early", "early")
    assert model.tell(*ok("a")).finish().signals == ("taken", "taken", "early")


def test_a_wait_ends_with_the_first_of_its_signals() -> None:
    """Case 23: no losing wait keeps the run open."""
    model = run(wait("paid", signals=("payment", "refusal")), step("b", "paid"))
    model.tell(Sent("refusal", "order-1"), PAYMENT, *ok("b"))
    assert (model.finish().end, model.finish().signals) == (FINISHED, ("taken", "late"))


def test_a_signal_for_two_open_waits_changes_nothing_until_one_is_named() -> None:
    model = run(wait("one"), wait("two")).tell(PAYMENT)
    assert (model.finish().signals, model.finish().state) == (("ambiguous",), "running")
    expected = model.tell(Sent("payment", "order-1", wait="two")).finish()
    assert (steps(expected, SIGNALED), expected.signals) == ({"two"}, ("ambiguous", "taken"))


def test_a_wait_that_timed_out_fails_and_a_signal_after_it_is_late() -> None:
    expected = run(wait("paid"), step("b", "paid")).tell(Ended("paid", TIMED_OUT), PAYMENT).finish()
    assert (expected.steps["b"], expected.signals) == (DEPENDENCY, ("late",))


def test_a_retried_wait_opens_again_and_takes_the_late_signal() -> None:
    model = run(wait("paid")).tell(Ended("paid", TIMED_OUT), PAYMENT, Retry(("paid",)))
    assert (model.finish().end, model.finish().signals) == (FINISHED, ("taken",))


def test_a_late_signal_is_kept_for_a_reopened_wait_that_is_not_open_yet() -> None:
    model = run(step("a"), wait("paid", "a")).tell(*bad("a"), PAYMENT)
    assert model.finish().signals == ("late",)
    model.tell(Retry(("a",)))
    assert (model.finish().state, model.finish().signals) == ("running", ("early",))
    assert model.tell(*ok("a")).finish().end == FINISHED


def test_a_skipped_wait_takes_no_late_signal() -> None:
    model = run(wait("paid")).tell(Ended("paid", TIMED_OUT), PAYMENT, Skip("paid"))
    assert model.finish().signals == ("late",)


def test_a_signal_of_another_key_is_for_another_run() -> None:
    model = run(wait("paid")).tell(Sent("payment", "order-2"), Sent("refusal", "order-1"))
    assert (model.finish().state, model.finish().signals) == ("running", ("early", "early"))


def test_cancel_may_come_before_or_after_a_signal_is_taken() -> None:
    model = run(wait("paid")).tell(PAYMENT, CancelRun())
    assert model.finish({"paid": SIGNALED}).end == FINISHED
    model = run(wait("paid")).tell(PAYMENT, CancelRun())
    assert model.finish({"paid": CANCELED}).end == WAS_CANCELED


# --- what cannot be


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (ok("b"), r"b ended .* behind \['a'\]"),
        (ok("a", "a"), "had ended"),
        (ok("z"), "no step z"),
        ([CancelRun(), CancelRun()], "twice"),
    ],
)
def test_what_the_rules_do_not_allow_is_a_contradiction(events: list[Event], words: str) -> None:
    with pytest.raises(Contradiction, match=words):
        run(step("a"), step("b", "a")).tell(*events)


def test_a_definition_is_in_order() -> None:
    with pytest.raises(ValueError, match="later or not at all"):
        run(step("b", "a"), step("a"))


# --- random runs


def test_random_runs_have_all_that_a_run_can_have() -> None:
    specs = [random_run(seed) for seed in range(200)]
    sizes = {len(spec.steps) for spec in specs}
    assert (min(sizes), max(sizes)) == (5, 60)
    assert random_run(7) == random_run(7)
    found = [step for spec in specs for step in spec.steps]
    assert {step.kind for step in found} == {"job", "map", "wait"}
    assert {step.on_failure for step in found} == {"cancel", "continue"}
    assert {step.may_fail for step in found} == {True, False}
    assert {step.elements for step in found if step.kind == "map"} == {0, 1, 2, 5}
    assert any(step.takes for step in found)
    assert any(len(step.signals) == 2 for step in found)
    assert random_run(1, 0).fails == frozenset()
    assert random_run(1, 100).fails_at(random_run(1).steps[0].name, 1)


def disagrees(seed: int) -> bool:
    """Whether the oracle finds a fault in a simulated run, or the run never rests."""
    try:
        spec, events, found = play(seed)
        expected = Model(spec).tell(*events).finish(found.steps, found.times)
    except AssertionError:
        return True
    told = (found.steps, found.state, tuple(found.ends))
    return (dict(expected.steps), expected.state, expected.ends) != told


@pytest.mark.parametrize("part", range(10))
def test_the_oracle_agrees_with_a_simulation(part: int) -> None:
    seeds = range(part * 30, part * 30 + 30)
    assert [seed for seed in seeds if disagrees(seed)] == []


def release_anyway(simulation: Simulation) -> None:
    """As if the step had nothing before it."""
    for row in simulation.rows.values():
        if row.state == "deferred" and row.spec.kind != "wait":
            row.state, row.is_released, row.pending = "available", True, 0


def cancel_only_the_next(simulation: Simulation, unfinished: list[str]) -> None:
    """As if a cascade stopped after one level."""
    for name in unfinished:
        for to in simulation.behind(name):
            if simulation.rows[to].state == "deferred":
                simulation.end(to, DEPENDENCY)
                simulation.events.remove(to)
                simulation.rows[to].settled = "canceled"


def behind_every_edge(simulation: Simulation, name: str) -> list[str]:
    """As if no edge said `continue`."""
    return [to for (source, to) in simulation.edges if source == name]


def finish_always(simulation: Simulation) -> EndOfRun:
    """As if no failure counted."""
    return FINISHED


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("release", release_anyway),
        ("cancel_behind", cancel_only_the_next),
        ("behind", behind_every_edge),
        ("end_of_run", finish_always),
    ],
)
def test_the_oracle_finds_faults(
    monkeypatch: pytest.MonkeyPatch, method: str, fault: object
) -> None:
    monkeypatch.setattr(Simulation, method, fault)
    assert any(disagrees(seed) for seed in range(20))


def test_the_oracle_finds_a_step_that_was_reopened_with_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 14: as if a retry reopened all that was canceled."""
    reopen = Simulation.reopen

    def reopen_all(simulation: Simulation, names: list[str]) -> None:
        def is_behind(row: Row) -> bool:
            return row.end == DEPENDENCY

        reopen(simulation, names + [n for n, row in simulation.rows.items() if is_behind(row)])

    monkeypatch.setattr(Simulation, "count_pending", lambda *_: 0)
    monkeypatch.setattr(Simulation, "reopen", reopen_all)
    assert any(disagrees(seed) for seed in range(40))
