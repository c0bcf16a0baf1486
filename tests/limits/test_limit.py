"""The declaration of a limit: every fault with its fix, what a call may not change,
and what a deploy changes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from flask_opsjobs import InvalidArgs, Limit, OpsJobs
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.errors import DeclarationError
from flask_opsjobs.host import Host
from flask_opsjobs.limits.limit import BadLimit, JobLimit, bucket_of, lane_of
from tests.conftest import MakeApp
from tests.limits.conftest import Limited
from tests.support.engine import Bench, forget_tasks, race, tasks_of
from tests.support.policies import ShowAll

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({}, "it limits nothing"),
    ({"rate": 10}, "rate and per go together"),
    ({"per": 60, "concurrency": 1}, "rate and per go together"),
    ({"rate": 0, "per": 1}, "rate must be a number above 0"),
    ({"rate": float("nan"), "per": 1}, "rate must be a number above 0"),
    ({"rate": True, "per": 1}, "rate must be a number above 0"),
    ({"rate": 2**31, "per": 1}, "at most 2,147,483,647"),
    ({"rate": 1, "per": 1e-300}, "at least a microsecond"),
    ({"rate": 1, "per": 10**400}, "at most a year"),
    ({"rate": 1e-10, "per": 60}, "more than a century to fill"),
    ({"rate": 5e-324, "per": 60}, "more than a century to fill"),
    ({"rate": 1, "per": -1}, "per must be seconds or a timedelta"),
    ({"rate": 1, "per": "60"}, "per must be seconds or a timedelta"),
    ({"rate": 1, "per": timedelta(days=4000)}, "at most a year"),
    ({"rate": 1, "per": 1, "burst": 0}, "burst must be a whole number from 1 to 2,147,483,647"),
    ({"concurrency": 1, "burst": 3}, "burst bounds a rate"),
    ({"concurrency": 1.5}, "concurrency must be a whole number from 1 to 2,147,483,647"),
    ({"concurrency": 1, "partition": 7}, "partition must be the name of an argument"),
    ({"concurrency": 1, "weight": 0}, "weight must be a whole number from 1 to 2,147,483,647"),
    ({"concurrency": 1, "when_full": "drop"}, 'when_full must be "hold" or "reject"'),
    ({"concurrency": 2, "weight": 3}, "a weight of 3 can never start, since its concurrency is 2"),
    ({"rate": 9, "per": 1, "burst": 2, "weight": 3}, "since its burst is 2"),
]


@pytest.mark.parametrize(("given", "said"), FAULTS)
def test_a_fault_is_named_with_its_fix(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match="Limit 'api'") as caught:
        Limit("api", **given)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["", "a|b", "a b", "..", "x" * 201, 7])
def test_a_name_has_no_bar(name: Any) -> None:
    with pytest.raises(DeclarationError, match="its name must be"):
        Limit(name, concurrency=1)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(DeclarationError) as caught:
        Limit("a|b", rate=-1, per=0, when_full="x")
    assert str(caught.value).count(";") == 3


@pytest.mark.parametrize(
    ("given", "about"),
    [
        ({"rate": 1}, ["per"]),
        ({"per": 1, "concurrency": 0}, ["rate", "concurrency"]),
        ({"concurrency": 1, "burst": 2}, ["burst"]),
        ({"concurrency": 1, "weight": 2}, ["weight"]),
        ({}, [""]),
    ],
)
def test_each_fault_says_which_option_it_is_about(given: dict[str, Any], about: list[str]) -> None:
    with pytest.raises(BadLimit) as caught:
        Limit("api", **given)
    assert [what for what, _ in caught.value.faults] == about


def test_the_burst_is_the_rate_unless_it_is_given() -> None:
    assert Limit("api", rate=10, per=60).shape.burst == 10
    assert Limit("api", rate=0.5, per=1).shape.burst == 1
    assert Limit("api", rate=10, per=timedelta(minutes=1), burst=3).shape.per_seconds == 60.0


@pytest.mark.parametrize("what", ["partition", "weight"])
def test_a_redacted_argument_is_refused(opsjobs: OpsJobs, what: str) -> None:
    def pay(account: int, secret: int = 1) -> None: ...

    limit = Limit("api", concurrency=5, **{what: "secret"})  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match=rf"{what}='secret' is redacted"):
        opsjobs.task(redact={"secret"}, limit=limit)(pay)
    limit = Limit("api", concurrency=5, **{what: "acount"})  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="is not an argument of it; there are account"):
        opsjobs.task(redact={"secret"}, limit=limit)(pay)


@pytest.mark.parametrize("what", ["partition", "weight"])
def test_an_argument_that_every_call_would_be_refused_for_is_refused(
    opsjobs: OpsJobs, what: str
) -> None:
    def pay(account: int, price: float = 1.0) -> None: ...

    limit = Limit("api", concurrency=5, **{what: "price"})  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match=rf"{what}='price' is annotated float"):
        opsjobs.task(limit=limit)(pay)
    opsjobs.task(limit=Limit("api", concurrency=5, **{what: "account"}))(pay)  # type: ignore[arg-type]


def test_a_function_never_sees_a_redacted_argument(opsjobs: OpsJobs, db: object) -> None:
    seen: dict[str, Any] = {}

    def choose(arguments: dict[str, Any]) -> str:
        seen.update(arguments)
        return "one"

    @opsjobs.task(redact={"secret"}, limit=Limit("api", concurrency=5, partition=choose))
    def pay(account: int = 3, secret: int = 1) -> None: ...

    pay.enqueue(secret=9)
    assert seen == {"account": 3}


@pytest.mark.parametrize("fails", [False, True])
def test_a_partition_that_the_display_policy_hides_is_stored_as_a_hash(
    make_app: MakeApp, fails: bool
) -> None:
    class Hides(ShowAll):
        def is_hidden_key(self, key: str) -> bool:
            if fails:
                raise RuntimeError("no")
            return key == "email"

    opsjobs = OpsJobs()
    app = make_app(opsjobs=opsjobs, display=Hides())

    @opsjobs.task(limit=Limit("api", concurrency=1, partition="email"))
    def mail(email: str) -> None: ...

    with app.app_context():
        mail.enqueue(email="anna@example.org")
        mail.enqueue_many([{"email": "anna@example.org"}, {"email": "bert@example.org"}])
        session = app.extensions["sqlalchemy"].session
        session.commit()
        bench = Bench(app.extensions["opsjobs"])
        rows = bench.rows("SELECT lane, partition FROM opsjobs.jobs ORDER BY id")
        bench.close()
    assert rows[0] == rows[1] != rows[2]
    assert rows[0]["partition"].startswith("#")
    assert "anna" not in str(rows)


def test_a_call_may_not_leave_its_limit(limited: Limited) -> None:
    with pytest.raises(TypeError, match="there is no option limit"):
        limited(concurrency=1).options(limit=None)  # type: ignore[call-arg]


def test_one_name_declared_twice_differently_names_both_workers(limited: Limited) -> None:
    limited("one", rate=1, per=60)
    with pytest.raises(DeclarationError, match="between task one and task two") as caught:
        limited("two", rate=2, per=60)
    assert "the same rate, per, burst" in str(caught.value)
    with pytest.raises(DeclarationError, match="a partition or none"):
        limited("two", rate=1, per=60, partition=None)


def test_one_name_declared_twice_alike_is_shared(limited: Limited) -> None:
    limited("one", rate=1, per=60)
    limited("two", rate=1, per=timedelta(minutes=1), partition="size")


@pytest.mark.parametrize(
    ("value", "partition"),
    [
        ("eu|west", "eu|west"),
        (42, "42"),
        (None, ""),
        ("", ""),
        (date(2026, 1, 31), "2026-01-31"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_what_a_partition_may_be(value: Any, partition: str) -> None:
    job_limit = Limit("api", concurrency=1, partition=lambda arguments: value).of_job({})
    assert job_limit == JobLimit("api", partition, 1)
    assert bucket_of(lane_of("mail", job_limit)) == ("api", partition)
    assert bucket_of(lane_of("mail", None)) is None


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {"a": 1},
        1.5,
        "x" * 201,
        "a\0b",
        "\ud800",
        pytest.param(10**200, id="201 digits"),
        # Python writes it as no text, also not for the name of a test.
        pytest.param(-(10**5000), id="5001 digits"),
    ],
)
def test_what_a_partition_may_not_be(
    limited: Limited, bench: Bench, db: object, value: Any
) -> None:
    task = limited(concurrency=1, partition=lambda arguments: value)
    with pytest.raises(InvalidArgs, match="partition: ") as caught:
        task.enqueue()
    assert caught.value.errors[0]["type"] == "limit"
    assert bench.rows("SELECT 1 FROM opsjobs.jobs") == []


def test_a_function_that_raises_is_told_without_its_text(limited: Limited, db: object) -> None:
    def choose(arguments: dict[str, Any]) -> str:
        raise ValueError(f"secret {arguments}")

    with pytest.raises(InvalidArgs) as caught:
        limited(concurrency=1, partition=choose).enqueue()
    assert "its function raised ValueError" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("size", "said"),
    [(6, "can never start"), (0, "from 1 to 2,147,483,647"), (-1, "from 1 to 2,147,483,647")],
)
def test_a_weight_that_can_never_start_is_refused_at_enqueue(
    limited: Limited, db: object, size: int, said: str
) -> None:
    task = limited(rate=100, per=1, burst=5, weight="size")
    for call in (lambda: task.enqueue(size=size), lambda: task.enqueue_many([{"size": size}])):
        with pytest.raises(InvalidArgs, match=said):
            call()


class TestDeploy:
    def test_a_start_records_and_an_import_does_not(
        self, host: Host, bench: Bench, opsjobs: OpsJobs
    ) -> None:
        opsjobs.task(limit=Limit("api", rate=6, per=60, partition="account"))(_call)
        assert bench.rows("SELECT 1 FROM opsjobs.limiters") == []
        declare_limiters(host, "loops-1")
        row = bench.row("SELECT * FROM opsjobs.limiters")
        assert (row["rate"], row["burst"], row["partition_by"]) == (6.0, 6, "account")
        assert (row["declared_by"], row["changed_at"], row["previous"]) == ("loops-1", None, None)

    def test_the_same_again_writes_nothing(
        self, host: Host, bench: Bench, limited: Limited
    ) -> None:
        limited(rate=6, per=60)
        before = bench.row("SELECT xmin, * FROM opsjobs.limiters")
        declare_limiters(host, "another")
        assert bench.row("SELECT xmin, * FROM opsjobs.limiters") == before
        assert bench.rows("SELECT 1 FROM opsjobs.audit_events") == []

    def test_a_change_is_a_fact_with_before_and_after(
        self, host: Host, bench: Bench, limited: Limited
    ) -> None:
        limited(rate=6, per=60)
        forget_tasks(host)
        limited(rate=9, per=60, concurrency=2)
        row = bench.row("SELECT * FROM opsjobs.limiters")
        assert (row["rate"], row["concurrency"], row["previous"]["rate"]) == (9.0, 2, 6.0)
        assert row["changed_at"] is not None
        event = bench.row("SELECT * FROM opsjobs.audit_events")
        assert (event["action"], event["via"], event["subject"]) == (
            "limiter.declare",
            "system",
            "limiter/api",
        )
        assert event["before"]["limiter/api"]["concurrency"] is None
        assert event["after"]["limiter/api"]["concurrency"] == 2

    def test_two_processes_that_start_together_record_one_change(
        self, host: Host, bench: Bench, limited: Limited
    ) -> None:
        limited(rate=6, per=60)
        forget_tasks(host)
        opsjobs = OpsJobs()
        opsjobs.tasks = tasks_of(host)
        opsjobs.task(limit=Limit("api", rate=9, per=60, partition="account"))(_call)
        starts: list[Callable[[], None]] = [
            lambda name=f"worker-{number}": declare_limiters(host, name) for number in range(4)
        ]
        assert race(*starts) == [None] * 4
        assert len(bench.rows("SELECT 1 FROM opsjobs.audit_events")) == 1


def _call(account: int = 0) -> None: ...
