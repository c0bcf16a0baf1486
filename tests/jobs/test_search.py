"""What the search box finds: by arguments, tags, errors, origin and id, on rows that were really recorded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.round_trips import start_reading
from flask_opsjobs.failures.models import Deploy, Failure
from flask_opsjobs.jobs.models import Attempt
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.jobs.rows import Count
from flask_opsjobs.jobs.search import attempt_queries, further_queries, group_queries, hit_queries
from flask_opsjobs.jobs.search.filter import JobFilter
from flask_opsjobs.jobs.search.hit_queries import Searched, find_hits
from flask_opsjobs.jobs.search.queries import JobList, list_jobs
from flask_opsjobs.jobs.search.waiting_queries import find_waiting


@pytest.fixture
def work(opsjobs: OpsJobs) -> Task:
    """A task that takes anything."""

    def work(value: Any = None, other: Any = None) -> None:
        """Takes two things."""

    return opsjobs.task(work)


@pytest.fixture
def search(db: SQLAlchemy) -> Callable[..., JobList]:
    """Searches as the page does: `search("tag:eu", before=7)`."""

    def search(box: str, **where: Any) -> JobList:
        pairs = [("q", box), *((name, where.pop(name)) for name in ("limit",) if name in where)]
        wanted = JobFilter.from_query(pairs)
        where.setdefault("is_shown", lambda error, text: text.lower() in error.lower())
        return list_jobs(db.session(), wanted, datetime.now(UTC), **where)

    return search


def _values(found: JobList, db: SQLAlchemy) -> list[Any]:
    """The argument `value` of the jobs found, the newest first."""
    ids = [row.id for row in found.page.rows]
    sql = text("SELECT id, args -> 'value' FROM opsjobs.jobs")
    by_id: dict[int, Any] = dict(iter(db.session.execute(sql).all()))
    return [by_id[job_id] for job_id in ids]


@pytest.mark.parametrize(
    ("box", "values"),
    [
        ("args.value:42", ["42", 42]),
        ('args.value:"42"', ["42"]),
        ("args.value:42.0", [42]),  # the same number, and no such text
        ("args.value:4.2e1", [42]),
        ("args.value:true", ["true", True]),
        ('args.value:"true"', ["true"]),
        ("args.value:null", ["null", None]),
        ("args.value:two", ["two"]),
        ('args.value:"two words"', ["two words"]),
        ('args.value:""', [""]),
        ("args.value:{}", ["{}"]),
        ("args.value:%", ["%"]),
        ("args.value.a.b:1", [{"a": {"b": 1, "c": 2}}]),
        ("args.value.a:1", []),
        ("args.value:1e999999999", []),
        ("args.value:" + "9" * 150, []),
        ("args.value:42 args.other:7", [42]),
        ("args.nothing:42", []),
    ],
)
def test_arguments_are_found_as_the_json_they_look_like_and_as_text(
    box: str, values: list[Any], work: Task, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    work.enqueue(value=42, other=7)
    for value in ("42", True, "true", None, "null", "two", "two words", "", "{}", "%", "other"):
        work.enqueue(value=value)
    work.enqueue(value={"a": {"b": 1, "c": 2}})
    db.session.commit()
    found = _values(search(box), db)
    assert sorted(map(repr, found)) == sorted(map(repr, values))


def test_tags_are_found_and_combine_with_everything(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    work.options(tags=["eu", "gold"], queue="mail").enqueue(value=1)
    work.options(tags=["eu"]).enqueue(value=1)
    work.options(tags=["euro"]).enqueue(value=1)
    work.options(tags=["a b"], delay=60).enqueue(value=2)
    work.enqueue(value=1)
    db.session.commit()
    assert len(search("tag:eu").page.rows) == 2
    assert len(search('tag:"a b" state:scheduled').page.rows) == 1
    assert len(search("tag:eu queue:mail args.value:1 task:work created:<1h").page.rows) == 1
    assert len(search("tag:eu created:>1h").page.rows) == 0
    found = search("tag:eu state:failed")
    assert (found.counts["available"].number, found.counts["failed"].number) == (2, 0)


def test_pages_of_a_search_follow_one_another_both_ways(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    work.options(tags=["all"]).enqueue_many({"value": n} for n in range(60))
    db.session.commit()
    first = search("tag:all")
    assert _values(first, db) == list(range(59, 34, -1))
    assert (first.page.has_newer, first.page.has_older) == (False, True)
    second = search("tag:all", before=first.page.rows[-1].id)
    last = search("tag:all", before=second.page.rows[-1].id)
    assert _values(last, db) == list(range(9, -1, -1))
    assert (last.page.has_newer, last.page.has_older) == (True, False)
    back = search("tag:all", after=last.page.rows[0].id)
    assert back.page == second.page
    assert search("tag:all", after=back.page.rows[0].id).page == first.page
    assert search("tag:all").counts["available"].number == 60


def test_a_search_stops_at_its_hits_and_says_so(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 10)
    work.options(tags=["all"]).enqueue_many({"value": n} for n in range(11))
    work.options(tags=["all"], delay=60).enqueue(value=11)
    db.session.commit()
    found = search("tag:all")
    assert found.searched.stopped_at_hits
    assert len(found.page.rows) == 10
    assert found.counts["available"].kind == "at_least"
    # What is common is searched again for the one state that is asked for.
    one = search("tag:all state:scheduled")
    assert not one.searched.stopped_at_hits
    assert (one.counts["scheduled"].number, one.counts["scheduled"].kind) == (1, "exact")
    assert one.counts["available"].kind == "at_least"
    assert search("tag:all args.value:3").searched.is_all


def test_of_a_common_value_the_newest_hits_are_shown(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index finds the oldest first, and stops before it comes to what an operator looks for."""
    monkeypatch.setattr(hit_queries, "MOST_HITS", 10)
    monkeypatch.setattr(hit_queries, "NEWEST_JOBS", 5)
    work.options(tags=["all"]).enqueue_many({"value": n} for n in range(60))
    db.session.commit()
    found = search("tag:all")
    assert _values(found, db)[:5] == list(range(59, 54, -1))
    assert len(found.page.rows) == 10
    assert found.searched.stopped_at_hits
    older = search("tag:all", before=found.page.rows[4].id)
    assert [row.id for row in older.page.rows] == [row.id for row in found.page.rows[5:]]


# More than are estimated one by one.
MANY_TAGS = " OR ".join(["tag:all", *(f"tag:none_{n}" for n in range(11))])


def test_of_a_value_that_many_have_the_newest_jobs_are_read(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 10)
    monkeypatch.setattr(hit_queries, "MANY_JOBS", 50)
    monkeypatch.setattr(hit_queries, "MOST_READ", 20)
    work.options(tags=["all"]).enqueue_many({"value": n} for n in range(60))
    db.session.commit()
    db.session.execute(text("ANALYZE opsjobs.jobs"))
    db.session.commit()
    for box in ("tag:all", "tag:all OR tag:none", MANY_TAGS):
        for listed, number in ((1_000, 10), (4, 4)):
            monkeypatch.setattr(hit_queries, "MOST_LISTED", listed)
            found = search(box)
            assert _values(found, db) == list(range(59, 59 - number, -1)), box
            assert found.searched == Searched(stopped_at_newest_hits=True), box
            assert found.counts["available"] == Count(number, "at_least"), box
    monkeypatch.setattr(hit_queries, "MOST_LISTED", 1_000)
    assert search("tag:all args.value:3").searched.is_all
    # After a burst of others the index finds what the newest jobs do not have.
    work.enqueue_many({"value": n} for n in range(60, 75))
    db.session.commit()
    found = search("tag:all")
    assert len(_values(found, db)) == 10
    assert found.searched == Searched(stopped_at_hits=True)


@pytest.mark.parametrize(
    ("box", "values"),
    [
        ("tag:all queue:mail", [58, 56, 54, 52, 50, 48]),
        ("tag:all queue:mail args.value:50", [50]),
        ("tag:all queue:mail state:available", [58, 56, 54, 52, 50, 48]),
        ("tag:all error:gateway", [59, 57, 55, 53, 51, 49]),
        ("tag:all gateway state:failed", [59, 57, 55, 53, 51, 49]),
        ("tag:all -args.value:59 -args.value:58", [57, 56, 55, 54]),
        ("tag:all OR tag:none created:<1h", [59, 58, 57, 56, 55, 54]),
        (f"{MANY_TAGS} created:<1h", [59, 58, 57, 56, 55, 54]),
    ],
)
def test_beside_other_conditions_a_value_that_many_have_is_examined(
    box: str,
    values: list[int],
    work: Task,
    db: SQLAlchemy,
    search: Callable[..., JobList],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The index would read all jobs of the value. Where an argument is rare too, it reads those of both."""
    for queue in ("mail", "default"):
        part = work.options(tags=["all"], queue=queue)
        part.enqueue_many({"value": n} for n in range(60) if n % 2 == (queue == "default"))
    db.session.commit()
    rows = db.session.execute(text("SELECT id, args ->> 'value', queue FROM opsjobs.jobs")).all()
    # In the order of their values.
    db.session.execute(text("UPDATE opsjobs.jobs SET id = -1 - (args ->> 'value')::int"))
    db.session.execute(text("UPDATE opsjobs.jobs SET id = 900 - id"))
    _fail(
        db.session(), {901 + int(value): "gateway" for _, value, queue in rows if queue != "mail"}
    )
    db.session.execute(text("ANALYZE opsjobs.jobs"))
    db.session.commit()
    everything = search(box)
    assert everything.searched.is_all
    assert _values(everything, db)[: len(values)] == values
    monkeypatch.setattr(hit_queries, "MANY_JOBS", 50)
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 5)  # one more is read
    found = search(box)
    assert _values(found, db) == values
    if "args.value:50" in box:  # few have it
        assert found.searched.is_all
    elif "gateway" in box:
        assert found.searched == Searched(stopped_at_newest_errors=True)
    else:
        assert found.searched == Searched(stopped_at_newest=True)


def test_a_tag_is_common_however_few_jobs_have_tags(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of tags asks whether a job has any: for Postgres, a fifth of the jobs that have the tag."""
    work.enqueue_many({"value": n} for n in range(80))
    work.options(tags=["eu"]).enqueue_many({"value": n} for n in range(80, 100))
    db.session.commit()
    db.session.execute(text("ANALYZE opsjobs.jobs"))
    db.session.commit()
    monkeypatch.setattr(hit_queries, "MANY_JOBS", 15)
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 5)
    assert search("tag:eu queue:default").searched == Searched(stopped_at_newest=True)
    monkeypatch.setattr(hit_queries, "MANY_JOBS", 25)
    assert search("tag:eu queue:default").searched.is_all


def test_of_many_jobs_one_in_a_hundred_is_common_for_a_tag_and_not_for_an_argument(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    work.enqueue_many({"value": n} for n in range(1_980))
    work.options(tags=["eu"]).enqueue_many({"value": 3_000} for n in range(20))
    db.session.commit()
    db.session.execute(text("ANALYZE opsjobs.jobs"))
    db.session.commit()
    monkeypatch.setattr(hit_queries, "MANY_JOBS", 5)
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 5)
    assert search("tag:eu queue:default").searched == Searched(stopped_at_newest=True)
    assert search("args.value:3000 queue:default").searched.is_all


def test_what_few_jobs_have_is_found_whatever_postgres_assumes(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without statistics it assumes that one job in 50 has an argument; of unknown tags, one in 200."""
    work.enqueue_many({"value": n} for n in range(2_000))
    tags = "ARRAY[CASE WHEN id % 2 = 0 THEN 'even' ELSE 'odd' END, 'order:' || (args ->> 'value')]"
    db.session.execute(text(f"UPDATE opsjobs.jobs SET tags = {tags}"))
    db.session.commit()
    monkeypatch.setattr(hit_queries, "MANY_JOBS", 5)
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 50)
    for statement in ("SELECT 1", "ANALYZE opsjobs.jobs"):
        db.session.execute(text(statement))
        db.session.commit()
        for box in (
            "tag:order:7 queue:default",
            "args.value:7 queue:default",
            "tag:order:7 -attempts:>5",
            "args.value:7 OR args.value:5000",
            "args.value:7 OR args.value:5000 queue:default",
        ):
            found = search(box)
            assert _values(found, db) == [7], (statement, box)
            assert found.searched.is_all, (statement, box)
    assert search("tag:odd queue:default").searched == Searched(stopped_at_newest=True)


def test_the_tab_of_a_state_shows_what_all_states_have_found_there(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search in all states reads the newest 15 jobs, the one in the state the newest 6 of it."""
    work.options(tags=["all"]).enqueue_many({"value": n} for n in range(60))
    work.enqueue_many({"value": n} for n in range(60, 70))
    db.session.commit()
    ids = db.session.scalars(text("SELECT id FROM opsjobs.jobs ORDER BY id")).all()
    _fail(db.session(), dict.fromkeys(ids[57:], "gateway"))
    db.session.execute(text("ANALYZE opsjobs.jobs"))
    db.session.commit()
    for module, name, most in (
        (hit_queries, "MOST_HITS", 10),
        (hit_queries, "NEWEST_JOBS", 15),
        (hit_queries, "MANY_JOBS", 50),
        (further_queries, "MOST_NEWEST", 5),
    ):
        monkeypatch.setattr(module, name, most)
    assert search("tag:all").counts["failed"] == Count(3, "at_least")
    found = search("tag:all state:failed")
    assert _values(found, db) == [59, 58, 57]
    assert found.counts["failed"] == Count(3, "at_least")


@pytest.mark.parametrize(
    "box", ["-queue:none", "state:available -queue:none", "gateway OR refused"]
)
def test_of_more_than_are_examined_a_list_shows_enough_of_the_newest(
    box: str,
    work: Task,
    db: SQLAlchemy,
    search: Callable[..., JobList],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def enqueue(number: int, queue: str = "default") -> None:
        calls = ({"value": n} for n in range(number))
        work.options(queue=queue).enqueue_many(calls)
        error = "error = CASE queue WHEN 'none' THEN 'other' ELSE 'gateway' END"
        db.session.execute(text(f"UPDATE opsjobs.jobs SET {error}"))
        db.session.commit()

    monkeypatch.setattr(hit_queries, "MOST_LISTED", 3)
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 10)
    enqueue(10)
    found = search(box)
    assert len(found.page.rows) == 10
    assert found.searched.is_all
    enqueue(10)
    found = search(box)
    assert _values(found, db) == [9, 8, 7]
    assert found.searched == Searched(stopped_at_newest_hits=True)
    assert found.counts["available"] == Count(3, "at_least")
    # When few of the newest fit, all that may be examined are.
    enqueue(6, queue="none")
    found = search(box)
    assert _values(found, db) == [9, 8, 7, 6, 5]
    is_of_errors = "gateway" in box
    stopped = Searched(stopped_at_newest=not is_of_errors, stopped_at_newest_errors=is_of_errors)
    assert found.searched == stopped
    # As an export.
    wanted = JobFilter.from_query([("q", box)])
    hits = find_hits(db.session(), wanted, datetime.now(UTC), lambda *_: True)
    assert len(hits.jobs) == 5
    assert hits.searched == stopped


# How many jobs each of three values has, and how many of each are read to examine 12: one more of each
# that has more than its part.
SHARED = [
    ((9, 2, 0), (9, 2, 0)),
    ((12, 0, 0), (12, 0, 0)),
    ((6, 5, 1), (6, 5, 1)),
    ((20, 1, 1), (11, 1, 1)),
    ((9, 9, 1), (6, 6, 1)),
    ((20, 20, 20), (5, 5, 5)),
]


@pytest.mark.parametrize("box", ["queue:a OR queue:b OR queue:c -tag:x", "queue:* -tag:x"])
@pytest.mark.parametrize(("there", "read"), SHARED)
def test_what_some_queues_leave_of_their_part_the_others_have(
    box: str,
    there: tuple[int, ...],
    read: tuple[int, ...],
    work: Task,
    db: SQLAlchemy,
    search: Callable[..., JobList],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 12)
    for queue, number in zip("abc", there, strict=True):
        work.options(queue=queue).enqueue_many([{"value": queue}] * number)
    db.session.commit()
    found = search(box, limit="100")
    values = _values(found, db)
    assert tuple(values.count(queue) for queue in "abc") == read
    assert found.searched == Searched(stopped_at_newest=read != there)


@pytest.mark.parametrize(("there", "read"), SHARED)
def test_what_some_final_states_leave_of_their_part_the_others_have(
    there: tuple[int, ...],
    read: tuple[int, ...],
    work: Task,
    db: SQLAlchemy,
    search: Callable[..., JobList],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 12)
    states = dict(zip(("finished", "failed", "canceled"), there, strict=True))
    for state, number in states.items():
        work.enqueue_many([{"value": state}] * number)
        _end(db.session(), state)
    found = search("ended:today..tomorrow", limit="100")
    values = _values(found, db)
    assert tuple(values.count(state) for state in states) == read
    assert found.searched == Searched(stopped_at_last_ended=read != there)
    for state, has, was_read in zip(states, there, read, strict=True):
        kind = "exact" if has == was_read else "at_least"
        assert found.counts[state] == Count(was_read, kind)
        of_state = search(f"ended:today..tomorrow state:{state}", limit="100")
        # All that there are: a state alone has the whole limit.
        assert len(of_state.page.rows) == of_state.counts[state].number == min(has, 13)
        assert of_state.searched.is_all == (has <= 12)


@pytest.mark.parametrize(
    ("box", "found", "stop"),
    [
        ("ended:<1h", [3, 2, 1, 0], "stopped_at_last_ended"),
        ("state:finished ended:<1h", [3, 2, 1, 0], "stopped_at_last_ended"),
        ("queue:default ended:<1h", [5, 4, 3, 2], "stopped_at_newest"),
        ("task:work ended:<1h", [5, 4, 3, 2], "stopped_at_newest"),
        ("state:finished task:wor* ended:<1h", [5, 4, 3, 2], "stopped_at_newest"),
        ("-ended:>1h", [5, 4, 3, 2], "stopped_at_newest"),
    ],
)
def test_a_search_for_an_end_says_whether_the_newest_were_examined_or_those_that_ended_last(
    box: str,
    found: list[int],
    stop: str,
    work: Task,
    db: SQLAlchemy,
    search: Callable[..., JobList],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of six jobs the oldest one ended last."""
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 3)
    work.enqueue_many({"value": "finished", "other": number} for number in range(6))
    _end(db.session(), "finished")
    earlier = "interval '1 s' * (args ->> 'other')::int"
    db.session.execute(text(f"UPDATE opsjobs.jobs SET ended_at = ended_at - {earlier}"))
    db.session.commit()
    (first,) = db.session.scalars(text("SELECT min(id) FROM opsjobs.jobs"))
    listed = search(box)
    assert [row.id - first for row in listed.page.rows] == found
    assert listed.searched == Searched(**{stop: True})


def test_no_job_of_a_whole_state_is_left_out(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a state that has more than its part, one more job is read: one of all is too many."""
    monkeypatch.setattr(further_queries, "MOST_NEWEST", 7)
    monkeypatch.setattr(hit_queries, "MOST_HITS", 7)
    for state, number in (("failed", 3), ("finished", 8)):
        work.enqueue_many([{"value": state}] * number)
        _end(db.session(), state)
    found = search("ended:today..tomorrow")
    assert (found.counts["failed"], found.counts["finished"]) == (Count(3), Count(4, "at_least"))
    failed = search("ended:today..tomorrow state:failed")
    assert (len(failed.page.rows), failed.counts["failed"]) == (3, Count(3))


def test_no_more_errors_are_cleaned_than_are_found(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than are found tells that there are more. What does not fit as it is shown does not count."""
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    failed = [work.enqueue(value=number).id for number in range(9)]
    db.session.commit()
    _fail(db.session(), {job_id: f"KeyError: '{job_id}'" for job_id in failed})
    hidden, cleaned = f"KeyError: '{failed[-1]}'", []

    def is_shown(error: str, text: str) -> bool:
        cleaned.append(error)
        return error != hidden

    found = search("error:keyerror", is_shown=is_shown)
    assert [row.id for row in found.page.rows] == failed[-2:-5:-1]
    assert found.searched == Searched(stopped_at_hits=True)
    assert len(cleaned) == 1 + 3 + 1


def test_a_day_is_one_of_the_clock_of_postgres(work: Task, db: SQLAlchemy) -> None:
    work.enqueue(1)
    db.session.commit()
    yesterday = start_reading(db.session(), lambda _: datetime.now(UTC) - timedelta(days=1))
    wanted = JobFilter.from_query([("q", "created:tomorrow")])
    found = list_jobs(db.session(), wanted, yesterday, is_shown=lambda *_: True)
    assert len(found.page.rows) == 1


def _end(session: Session, state: str) -> None:
    """Ends the jobs with this argument, in one statement, as the recorder's is not what is tried here."""
    by = {"finished": "returned", "failed": "exhausted", "canceled": "canceled"}
    sql = (
        "UPDATE opsjobs.jobs SET state = :state, ended_at = now(), ended_by = :by,"
        " started_at = now() WHERE args ->> 'value' = :state"
    )
    session.execute(text(sql), {"state": state, "by": by[state]})
    session.commit()


def _fail(session: Session, errors: dict[int, str]) -> None:
    """Ends jobs as failed with an error, in one statement, as the recorder's is not what is tried here."""
    sql = (
        "UPDATE opsjobs.jobs SET state = 'failed', ended_at = now(), ended_by = 'exhausted',"
        " started_at = now(), error = :error WHERE id = :id"
    )
    session.execute(text(sql), [{"id": job_id, "error": error} for job_id, error in errors.items()])
    session.commit()


ERRORS = {
    0: "GatewayTimeout: customer-api timed out",
    1: "ValueError: 100% of it",
    2: "ValueError: a_b",
    3: "ValueError: axb",
    4: r"ValueError: C:\temp",
    5: "ValueError: it's <b>bold</b>",
}


@pytest.mark.parametrize(
    ("box", "values"),
    [
        ('error:"timed out"', [0]),
        ("error:TIMED", [0]),
        ("error:%", [1]),
        ("error:a_b", [2]),
        (r"error:C:\temp", [4]),
        ("error:\\", [4]),
        ("error:it's", [5]),
        ("error:<b>", [5]),
        ("error:ValueError queue:mail", [5]),
        ("error:ValueError args.value:3", [3]),
        ("error:ValueError tag:eu", [4]),
        ("error:nothing tag:eu", []),
        ("error:nothing", []),
        ("error:ValueError state:finished", []),
    ],
)
def test_errors_are_found_by_any_part_of_them(
    box: str, values: list[int], work: Task, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    options: dict[int, dict[str, Any]] = {5: {"queue": "mail"}, 4: {"tags": ["eu"]}}
    ids = {n: work.options(**options.get(n, {})).enqueue(value=n).id for n in ERRORS}
    work.enqueue(value=9)
    db.session.commit()
    _fail(db.session(), {ids[n]: error for n, error in ERRORS.items()})
    assert _values(search(box), db) == values


def test_an_error_is_looked_for_among_the_newest_and_that_is_said(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "NEWEST_ERRORS", 5)
    ids = [work.enqueue(value=n).id for n in range(7)]
    db.session.commit()
    _fail(db.session(), dict.fromkeys(ids[:5], "KeyError: 'x'"))
    assert search("error:keyerror").searched.is_all
    _fail(db.session(), {ids[5]: "other"})
    found = search("error:keyerror")
    assert found.searched.stopped_at_errors
    assert _values(found, db) == [4, 3, 2, 1]
    assert found.counts["failed"].kind == "at_least"


def test_of_more_errors_than_are_found_the_tab_of_a_state_shows_its_own(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are among the same newest errors, so nothing more is read for them."""
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    ids = [work.enqueue(value=number).id for number in range(10)]
    db.session.commit()
    _fail(db.session(), dict.fromkeys(ids, "KeyError: 'x'"))
    retried = "UPDATE opsjobs.jobs SET state = 'retryable', ended_at = NULL, ended_by = NULL"
    db.session.execute(text(f"{retried} WHERE id = ANY(:ids)"), {"ids": ids[:4]})
    db.session.execute(text(f"{retried}, queue = 'mail' WHERE id = :id"), {"id": ids[4]})
    db.session.commit()
    everything = search("error:keyerror")
    assert _values(everything, db) == [9, 8, 7]
    assert everything.counts["retryable"] == Count(0, "at_least")
    found = search("error:keyerror state:retryable")
    assert _values(found, db) == [4, 3, 2]
    assert found.counts["retryable"] == Count(3, "at_least")
    assert found.searched == Searched(stopped_at_hits=True)
    found = search("error:keyerror state:retryable queue:mail")
    assert (_values(found, db), found.searched.is_all) == ([4], True)


def test_what_would_not_be_shown_to_fit_is_not_found(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    ids = [work.enqueue(value=n).id for n in range(2)]
    db.session.commit()
    _fail(db.session(), {ids[0]: "password=hunter2", ids[1]: "a hunter"})
    found = search("error:hunter", is_shown=lambda error, text: "password" not in error)
    assert _values(found, db) == [1]
    assert found.counts["failed"].number == 1


def test_an_id_and_an_origin_are_conditions_as_others_are(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    ids = [work.enqueue(value=n).id for n in range(3)]
    db.session.commit()
    adopted = "origin = 'rq', state = 'scheduled'"
    db.session.execute(text(f"UPDATE opsjobs.jobs SET {adopted} WHERE id = {ids[1]}"))
    db.session.commit()
    assert _values(search(f"id:{ids[2]}"), db) == [2]
    assert _values(search(f"id:opsjobs-{ids[2]}-9"), db) == [2]
    assert _values(search(f"id:{ids[2]} queue:mail"), db) == []
    assert _values(search("origin:rq"), db) == [1]
    assert _values(search("origin:opsjobs"), db) == [2, 0]
    assert _values(search("origin:opsjobs task:work queue:default state:available"), db) == [2, 0]
    assert search("origin:rq").counts["scheduled"].number == 1
    assert search("origin:opsjobs").counts["available"].number == 2


def test_an_adopted_job_is_older_than_its_id_says(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    ids = [work.enqueue(value=number).id for number in range(6)]
    db.session.commit()
    of_rq = "origin = 'rq', state = 'scheduled', rq_id = id, created_at = created_at - interval '9 days'"
    for number in (1, 3, 4):
        db.session.execute(text(f"UPDATE opsjobs.jobs SET {of_rq} WHERE id = {ids[number]}"))
    old = "UPDATE opsjobs.jobs SET created_at = created_at - interval '8 days' WHERE id = "
    db.session.execute(text(f"{old}{ids[0]}"))
    db.session.commit()
    assert _values(search("created:>7d"), db) == [4, 3, 1, 0]
    assert _values(search("created:<7d"), db) == [5, 2]


def test_steps_and_members_are_found_by_workflow_and_batch(
    work: Task, opsjobs: OpsJobs, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    work.enqueue(value="alone")
    runs = []
    for number in range(2):
        flow = opsjobs.workflow("order")
        first = flow.step("reserve", work.options(queue="stock"), value=f"reserve {number}")
        flow.step("pay", work, value=f"pay {number}", after=first)
        runs.append(flow.start().id)
    with opsjobs.batch("march") as batch:
        batch.enqueue(work, value="in march")
    db.session.commit()
    by_name = ["pay 1", "reserve 1", "pay 0", "reserve 0"]
    for box, values in {
        f"workflow:{runs[0]}": ["pay 0", "reserve 0"],
        f"workflow:workflow/{runs[1]} state:available": ["reserve 1"],
        "workflow:order": by_name,
        "workflow:order queue:stock": ["reserve 1", "reserve 0"],
        "workflow:order step:pay": ["pay 1", "pay 0"],
        f"workflow:{runs[1]} step:pay": ["pay 1"],
        'workflow:order args.value:"pay 1"': ["pay 1"],
        "workflow:order step:pay state:available": [],
        "workflow:order created:>1h": [],
        "workflow:nobody": [],
        f"workflow:{runs[0]} step:nobody": [],
        "batch:march": ["in march"],
        f"batch:{batch.id} task:work": ["in march"],
        "batch:march workflow:order": [],
        "batch:9999": [],
    }.items():
        found = search(box)
        assert _values(found, db) == values, box
        assert found.searched.is_all, box
    assert search("workflow:order").counts["deferred"].number == 2


def test_jobs_of_a_worker_and_of_an_incident_are_found(
    work: Task, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    for value in ("runs", "taken", "waits", "named", "of another"):
        work.options(queue="mail" if value == "taken" else "default").enqueue(value=value)
    db.session.flush()
    for statement in (
        """INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at)
           SELECT name, 'pool', 'h', 1, '{}', 'alive', now(), now()
           FROM unnest(ARRAY['one', 'two']) AS name""",
        """UPDATE opsjobs.jobs SET state = 'started', started_at = now(),
               worker_id = CASE id WHEN 1 THEN 1 ELSE 2 END
           WHERE id IN (1, 5)""",
        """UPDATE opsjobs.jobs SET state = 'queued', dispatched_at = now(), reserved_by = 1
           WHERE id = 2""",
        """INSERT INTO opsjobs.incidents (class, fingerprint, subject, severity, state, first_at, opened_at,
               seen_at, affected, facts)
           SELECT 'poison', 'f' || n, 's', 'warning', 'open', now(), now(), now(), 2,
               CASE n WHEN 1 THEN '{"jobs": [4, 1, 99]}' ELSE '{}' END::jsonb
           FROM generate_series(1, 2) AS n""",
    ):
        db.session.execute(text(statement))
    db.session.commit()
    for box, values in {
        "worker:one": ["taken", "runs"],
        "worker:one state:queued": ["taken"],
        "worker:one queue:mail": ["taken"],
        "worker:one args.value:runs": ["runs"],
        "worker:nobody": [],
        "incident:1": ["named", "runs"],
        "incident:incident/1 worker:one": ["runs"],
        "incident:1 workflow:7": [],
        "incident:1 id:4": ["named"],
        "incident:2": [],
        "incident:9": [],
    }.items():
        found = search(box)
        assert _values(found, db) == values, box
        assert found.searched.is_all, box
    assert search("worker:one").counts["started"].number == 1


def test_a_search_for_many_workflows_or_members_stops_and_says_so(
    work: Task,
    opsjobs: OpsJobs,
    db: SQLAlchemy,
    search: Callable[..., JobList],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_queries, "MOST_GROUPS", 2)
    monkeypatch.setattr(group_queries, "MOST_JOBS", 3)
    for number in range(3):
        flow = opsjobs.workflow("order")
        flow.step("pay", work, value=number)
        flow.start()
    with opsjobs.batch("march") as batch:
        batch.enqueue_many(work, ({"value": number} for number in range(4)))
        batch.enqueue(work.options(delay=60), value="later")
    db.session.commit()
    for box in ("workflow:order", "workflow:order step:pay", "workflow:order args.value:2"):
        assert search(box).searched.stopped_at_groups, box
    assert _values(search("workflow:order"), db) == [2, 1]
    assert search("batch:march").searched.stopped_at_groups
    # No job is in a batch that does not exist, or has a worker that does not.
    for box in ("workflow:order batch:nobody", "workflow:order worker:nobody", "batch:nobody"):
        found = search(box)
        assert (_values(found, db), found.searched.is_all) == ([], True), box
    # A state, an argument and an id narrow the search.
    assert search("batch:march state:scheduled").searched.is_all
    assert _values(search("batch:march args.value:0"), db) == [0]


def test_the_jobs_of_a_batch_are_looked_at_once_unless_more_is_asked_of_them(
    work: Task,
    opsjobs: OpsJobs,
    db: SQLAlchemy,
    search: Callable[..., JobList],
    count: Callable[[str], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both ways find the same jobs, and the same ones are too many."""
    monkeypatch.setattr(group_queries, "MOST_JOBS", 3)
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    with opsjobs.batch("march") as batch:
        batch.enqueue_many(work, ({"value": number} for number in range(3)))
        batch.enqueue(work.options(delay=60), value="later")
    with opsjobs.batch("april") as batch:
        batch.enqueue_many(work, ({"value": number} for number in range(3)))
    db.session.commit()
    assert count("batch:april") < count("batch:april queue:default")
    for box, values, is_all in (
        ("batch:april", [2, 1, 0], True),
        ("batch:march", ["later", 2, 1], False),
        ("batch:march state:available", [2, 1, 0], True),
        ("batch:march -state:scheduled", [2, 1], False),
        ("batch:march state:scheduled", ["later"], True),
    ):
        for other in ("", " queue:default"):
            found = search(box + other)
            assert (_values(found, db), found.searched.is_all) == (values, is_all), box + other


def test_a_batch_with_more_jobs_in_a_state_than_are_looked_at_is_not_whole(
    work: Task,
    opsjobs: OpsJobs,
    db: SQLAlchemy,
    search: Callable[..., JobList],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_queries, "MOST_JOBS", 3)
    with opsjobs.batch("march") as batch:
        batch.enqueue(work.options(queue="mail"), value="oldest")
        batch.enqueue_many(work, ({"value": number} for number in range(4)))
    db.session.commit()
    for box, values in (("queue:mail", []), ("queue:default", [3, 2, 1, 0])):
        found = search(f"batch:march {box}")
        assert _values(found, db) == values
        assert found.searched.stopped_at_groups


@pytest.fixture
def died(work: Task, db: SQLAlchemy) -> list[int]:
    """Jobs 0 to 5: 0 to 2 and 4 failed with one error, 3 with another; in two deploys of a version, and one.

    Job 4 failed with it in one deploy, and died in another. By ORM, as only the reads are asked here.
    """
    jobs = [work.enqueue(value=number, other="x" if number else None) for number in range(6)]
    db.session.commit()
    same, other = bytes(15) + b"a", bytes(15) + b"b"
    now = datetime.now(UTC)
    for version in ("v1", "v2", "v1"):
        db.session.add(Deploy(version=version, at=now, source="command"))
    db.session.flush()
    attempts = [
        (0, same, 1, None),
        (1, same, 2, "signal"),
        (2, same, 3, None),
        (3, other, 3, "signal"),
        (4, same, 1, None),
        (4, other, 2, "out_of_memory"),
    ]
    for number, (at, key, deploy, death) in enumerate(attempts):
        attempt = Attempt(
            job_id=jobs[at].id,
            dispatch_no=number + 1,
            attempt=1,
            worker="w",
            started_at=now,
            ended_at=now + timedelta(seconds=number),
            outcome="raised",
            failure_key=key,
            deploy_id=deploy,
            death=death,
        )
        db.session.add(attempt)
    for key, title in ((same, "one"), (other, "another")):
        failure = Failure(
            key=key,
            task="work",
            title=title,
            sample_job_id=1,
            sample_dispatch_no=1,
            created_at=now,
            number=1,
            first_at=now,
            last_at=now,
        )
        db.session.add(failure)
        db.session.flush()
    db.session.commit()
    return [job.id for job in jobs]


@pytest.mark.parametrize(
    ("box", "values"),
    [
        ("failure:1", [4, 2, 1, 0]),
        ("failure:2", [4, 3]),
        ("failure:failure/1 args.other:x", [4, 2, 1]),
        ("failure:9", []),
        ("death:signal", [3, 1]),
        ("death:out_of_memory", [4]),
        ("death:vanished", []),
        ("deploy:v1", [4, 3, 2, 0]),
        ("deploy:v2", [4, 1]),
        ("deploy:v3", []),
        # One attempt matches all.
        ("failure:1 deploy:v2", [1]),
        ("failure:1 death:signal", [1]),
        ("death:out_of_memory deploy:v1", []),
        ("failure:2 deploy:v2 death:out_of_memory", [4]),
        ("failure:1 state:available", [4, 2, 1, 0]),
        ("failure:1 state:failed", []),
        ("failure:1 task:work queue:default", [4, 2, 1, 0]),
        ("failure:1 task:other", []),
        ("failure:1 tag:eu", []),
        ("failure:1 error:no", []),
        ("failure:1 created:>1h", []),
        ("failure:1 created:<1h", [4, 2, 1, 0]),
        ("failure:1 workflow:none", []),
        ("failure:1 batch:7", []),
    ],
)
def test_jobs_are_found_by_what_became_of_their_attempts(
    box: str, values: list[int], died: list[int], db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    found = search(box)
    assert _values(found, db) == values
    assert found.searched.is_all
    assert sum(count.number for count in found.counts.values()) >= len(values)
    if values:
        assert _values(search(f"{box} id:{died[values[0]]}"), db) == values[:1]
        assert _values(search(box, limit="25", before=died[values[0]]), db) == values[1:]


def test_a_search_for_many_attempts_stops_and_says_so(
    died: list[int],
    db: SQLAlchemy,
    search: Callable[..., JobList],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt_queries, "MOST_ATTEMPTS", 2)
    for box, values in (
        ("failure:1", [4, 2]),
        ("deploy:v1", [3, 2]),
        ("failure:1 deploy:v2", []),
    ):
        found = search(box)
        assert found.searched.stopped_at_attempts, box
        assert not found.searched.is_all
        assert _values(found, db) == values, box
    assert search("death:signal").searched.is_all
    monkeypatch.setattr(hit_queries, "MOST_LISTED", 1)
    for box, values in (
        ("failure:1", [4]),
        ("deploy:v1", [3]),
        ("failure:1 args.value:2", [2]),
        ("failure:1 state:available", [4]),
    ):
        found = search(box)
        assert _values(found, db) == values, box
        assert found.searched == Searched(stopped_at_newest_hits=True), box
    assert search("failure:1 deploy:v2").searched == Searched(stopped_at_attempts=True)
    assert len(search("death:signal").page.rows) == 2


@pytest.fixture
def count(db: SQLAlchemy, search: Callable[..., JobList]) -> Callable[[str], int]:
    """How many statements a search sends."""
    statements: list[object] = []
    event.listen(db.engine, "before_cursor_execute", lambda *about: statements.append(about))

    def count(box: str) -> int:
        statements.clear()
        assert search(box).page
        return len(statements)

    return count


# Conditions of each kind, in which `7654321` is the value: as a text, a name, a pattern or a number.
TYPED = (
    "error:v7654321",
    "v7654321 OR w7654321",
    "-v7654321",
    "tag:v7654321",
    "tag:v7654321*",
    "tag:v7654321 OR tag:w7654321 queue:v7654321",
    "-tag:v7654321 state:failed",
    "args.value:v7654321",
    "args.value:7654321",
    "args.v7654321:3",
    "args.value:v7654321 OR args.value:w7654321 queue:v7654321",
    "task:v7654321 queue:w7654321",
    "task:v7654321* OR queue:w7654321*",
    "-task:v7654321",
    "id:7654321",
    "id:7654321,17654321 -queue:v7654321",
    "workflow:v7654321",
    "workflow:7654321 step:w7654321",
    "workflow:v7654321* OR batch:w7654321",
    "batch:v7654321 tag:v7654321",
    "batch:7654321 state:failed",
    "worker:v7654321",
    "incident:7654321",
    "failure:7654321",
    "deploy:v7654321 death:signal",
    "attempts:>7654321",
    "memory:>7654321kB",
    "duration:>7654321s",
    "wait:7654321s..",
)


@pytest.mark.parametrize("box", TYPED)
def test_nothing_that_is_typed_stands_in_a_statement(
    box: str, work: Task, db: SQLAlchemy, search: Callable[..., JobList]
) -> None:
    """Each value is a parameter: so no search can change what a statement does."""
    work.options(tags=["v7654321"]).enqueue(value="v7654321")
    db.session.commit()
    sent: list[str] = []

    @event.listens_for(db.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        sent.append(statement)

    assert search(box).page
    wanted = JobFilter.from_query([("q", box)])
    find_waiting(db.session(), wanted, datetime.now(UTC), lambda *_: True)
    assert len(sent) > 1
    assert [statement for statement in sent if "7654321" in statement] == []


def test_errors_are_searched_once_whatever_the_state(
    work: Task, db: SQLAlchemy, count: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_queries, "MOST_HITS", 3)
    failed = [work.enqueue(value=number).id for number in range(4)]
    db.session.commit()
    _fail(db.session(), dict.fromkeys(failed, "KeyError: 'x'"))
    anywhere = count("error:keyerror")
    assert count("error:keyerror state:failed") == anywhere
    # Of an empty page no rows are read.
    assert count("error:keyerror state:available") == anywhere - 1
