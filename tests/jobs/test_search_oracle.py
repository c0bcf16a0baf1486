"""Generated searches find exactly the jobs that an oracle in Python finds, on the same rows.

`--searches 300` makes 300 searches on 20,000 jobs; the default is fewer of both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from itertools import groupby
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.search import attempt_queries, further_queries, group_queries, hit_queries
from flask_opsjobs.jobs.search.conditions import Terms
from flask_opsjobs.jobs.search.filter import JobFilter
from flask_opsjobs.jobs.search.hit_queries import find_hits
from flask_opsjobs.jobs.search.terms import BadFilter
from flask_opsjobs.web.app.host import reading
from tests.support.database import Databases
from tests.support.plans import app_on

# The day after clocks in Berlin jumped from 02:00 to 03:00, which was at 01:00 UTC.
NOW = datetime(2026, 3, 30, 12, tzinfo=UTC)
ZONE = "zone:Europe/Berlin"
TASKS = ("send_invoice", "send_mail", "sendXmail", "fetch_orders", "a*b", "ab", "100%")
QUEUES = ("mail", "default", "mail-low")
ERRORS = ("GatewayTimeout: timed out", "ValueError: 100% of a_b", "KeyError: 'axb'", "Timeout: OR")
# By INSERT: the writers would take minutes. Only reads are asked of these rows.
_FILL = (
    """INSERT INTO opsjobs.jobs (task, queue, lane, state, priority, args, tags, attempt, max_attempts,
        origin, rq_id, created_at, due_at, dispatched_at, started_at, ended_at, ended_by, error, workflow_id,
        batch_id, worker_id, reserved_by)
    SELECT (CAST(:tasks AS text[]))[1 + n * 7 % 11 % 7],
        (CAST(:queues AS text[]))[1 + n * 5 % 13 % 3], 'lane', state,
        n % 10, jsonb_build_object('account_id', n % 50, 'name', 'n' || n % 7),
        CASE n % 6 WHEN 0 THEN ARRAY['eu'] WHEN 1 THEN ARRAY['eu', 'customer/' || n % 9] ELSE '{}' END,
        n % 4, 5, CASE WHEN is_rq THEN 'rq' ELSE 'opsjobs' END, CASE WHEN is_rq THEN 'rq-' || n END,
        created_at, created_at + n % 5 * interval '20 min',
        CASE WHEN state = 'queued' THEN created_at END, started_at,
        CASE WHEN is_final THEN started_at + n % 97 * interval '0.7 s' END,
        CASE WHEN is_final THEN CASE state WHEN 'finished' THEN 'returned' WHEN 'failed' THEN 'exhausted'
            WHEN 'canceled' THEN 'canceled' END END,
        CASE WHEN state IN ('failed', 'retryable') THEN (CAST(:errors AS text[]))[1 + n % 4] END,
        CASE WHEN n % 20 = 3 THEN 1 + n % 5 END, CASE WHEN n % 20 = 4 THEN 1 + n % 4 END,
        CASE WHEN state = 'started' THEN 1 + n % 2 END, CASE WHEN state = 'queued' THEN 1 + n % 2 END
    FROM (
        SELECT n, s.state, n % 101 = 0 AND s.state IN ('finished', 'scheduled') AS is_rq,
            s.state IN ('finished', 'failed', 'canceled') AS is_final, c.created_at,
            CASE WHEN s.state IN ('finished', 'failed', 'canceled', 'started', 'retryable')
                THEN c.created_at + n % 5 * interval '20 min' + n % 61 * interval '3 s' END AS started_at
        FROM generate_series(1, :many) AS n,
            LATERAL (SELECT (ARRAY['finished', 'finished', 'finished', 'finished', 'failed', 'canceled',
                'scheduled', 'available', 'queued', 'started', 'retryable', 'deferred'])
                [1 + n * 17 % 29 % 12] AS state) AS s,
            LATERAL (SELECT :now - (:many - n) * interval '5 days' / :many AS created_at) AS c
    ) AS made""",
    """INSERT INTO opsjobs.workflows (id, name, state, context, shape, steps, created_at)
       SELECT n, CASE WHEN n < 4 THEN 'import' ELSE 'flow_' || n END, 'running', '{}', '', 2, :now
       FROM generate_series(1, 5) AS n""",
    """INSERT INTO opsjobs.batches (id, name, state, enqueued, created_at, closed_at, meta)
       SELECT n, 'batch_' || n % 2, 'running', 9, :now, :now, '{}' FROM generate_series(1, 4) AS n""",
    """INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending)
       SELECT id, workflow_id, 'step ' || id, id, 'job', 0 FROM opsjobs.jobs WHERE workflow_id IS NOT NULL""",
    """INSERT INTO opsjobs.workers (id, name, kind, host, pid, queues, state, started_at, heartbeat_at)
       OVERRIDING SYSTEM VALUE
       SELECT n, 'web-' || n, 'pool', 'h', n, '{}', 'alive', :now, :now FROM generate_series(1, 2) AS n""",
    """INSERT INTO opsjobs.incidents (id, class, fingerprint, subject, severity, state, first_at, opened_at,
           seen_at, affected, facts) OVERRIDING SYSTEM VALUE
       VALUES (1, 'poison', 'f', 's', 'warning', 'open', :now, :now, :now, 3, '{"jobs": [5, 60, 99]}')""",
    """INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, ended_at, outcome,
           failure_key, death, is_counted, deploy_id, max_rss_kb)
       SELECT id, a, a, 'w', started_at, started_at, 'raised',
           decode(lpad(((id + a) % 3)::text, 32, '0'), 'hex'), CASE WHEN id % 5 = a THEN 'signal' END, true,
           1 + (id + a) % 2, id % 1000 * 1000
       FROM opsjobs.jobs, generate_series(1, 2) AS a WHERE started_at IS NOT NULL AND id % 3 = 0""",
    """INSERT INTO opsjobs.failures (id, key, task, title, sample_job_id, sample_dispatch_no, created_at,
           number, first_at, last_at) OVERRIDING SYSTEM VALUE
       SELECT 1 + n, decode(lpad(n::text, 32, '0'), 'hex'), 't', 'KeyError', n, 1, :now, 1, :now, :now
       FROM generate_series(0, 1) AS n""",
    """INSERT INTO opsjobs.deploys (id, version, at, source) OVERRIDING SYSTEM VALUE
       SELECT n, 'v' || n, :now, 'command' FROM generate_series(1, 2) AS n""",
    "ANALYZE opsjobs.jobs",
)

# --- the oracle

Row = dict[str, Any]
Meets = Callable[[Row], bool]


@dataclass(frozen=True)
class Atom:
    """A term as it is typed, and whether a row meets it; of an attempt, whether that meets it."""

    text: str
    meets: Meets
    is_of_attempt: bool = False

    def is_met(self, row: Row) -> bool:
        return any(map(self.meets, row["attempts"])) if self.is_of_attempt else self.meets(row)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-{text}+00:00")


# As they are typed, and what they mean: from, to before.
_RANGES: list[tuple[str, datetime | None, datetime | None]] = [
    ("2026-03-29", _at("28T23:00"), _at("29T22:00")),
    ("2026-03-29T02:30..", _at("29T01:00"), None),
    ("..2026-03-29T02:30", None, _at("29T01:00")),
    ("-2d..now", NOW - timedelta(days=2), NOW),
    ("-90m..+1h", NOW - timedelta(minutes=90), NOW + timedelta(hours=1)),
    ("today", _at("29T22:00"), _at("30T22:00")),
    ("yesterday..", _at("28T23:00"), None),
    ("2026-03-28T10:00..2026-03-28T12:30", _at("28T09:00"), _at("28T11:31")),
    (">=2026-03-28", _at("27T23:00"), None),
    (">2026-03-28", _at("28T23:00"), None),
    ("<2026-03-28", None, _at("27T23:00")),
    ("<=2026-03-28", None, _at("28T23:00")),
    ('"2026-03-28 10:00:00Z.."', _at("28T10:00"), None),
    ("2026-03-28T10:00+05:00..today", _at("28T05:00"), _at("30T22:00")),
]


def _in(name: str, since: datetime | None, until: datetime | None, row: Row) -> bool:
    at = row[name]
    return at is not None and (since is None or at >= since) and (until is None or at < until)


def _duration(row: Row) -> timedelta | None:
    if row["state"] == "started":
        return NOW - row["started_at"]
    return (
        row["ended_at"] - row["started_at"]
        if row["ended_by"] in ("returned", "exhausted")
        else None
    )


def _wait(row: Row) -> timedelta | None:
    if row["state"] == "deferred":
        return None
    end = row["ended_at"] or NOW
    if row["state"] == "started" or row["ended_by"] in ("returned", "exhausted"):
        end = max(row["started_at"], row["due_at"])
    return end - row["due_at"] if end >= row["due_at"] else None


def _compare(measure: Callable[[Row], Any], low: Any, high: Any, row: Row) -> bool:
    """Above `low` and up to `high`."""
    value = measure(row)
    return value is not None and (low is None or value > low) and (high is None or value <= high)


def _has_text(text: str, row: Row) -> bool:
    return text.lower() in (row["error"] or "").lower()


def _name(name: str, pattern: str, row: Row) -> bool:
    value = row[name]
    return value is not None and fnmatchcase(value, pattern.replace("[", "[[]"))


def _is(name: str, value: Any, row: Row) -> bool:
    return bool(row[name] == value)


def _list_atoms(many: int) -> list[Atom]:
    """Every kind of term."""
    atoms = [
        Atom(f"state:{one}", partial(_is, "state", one)) for one in ("failed", "finished", "queued")
    ]
    atoms += [Atom(f"task:{one}", partial(_is, "task", one)) for one in TASKS if "*" not in one]
    atoms += [Atom('task:"a*b"', partial(_is, "task", "a*b"))]
    patterns = ("send_*", "*mail", "a*b", "*%", "nobody*")
    atoms += [Atom(f"task:{one}", partial(_name, "task", one)) for one in patterns]
    atoms += [Atom(f"queue:{one}", partial(_is, "queue", one)) for one in QUEUES]
    atoms += [Atom("queue:mail*", partial(_name, "queue", "mail*"))]
    atoms += [Atom(f"origin:{one}", partial(_is, "origin", one)) for one in ("rq", "opsjobs")]
    atoms += [
        Atom(f"tag:{one}", lambda row, one=one: one in row["tags"])
        for one in ("eu", "customer/7", "no")
    ]
    of_customers = lambda row: any(tag.startswith("customer/") for tag in row["tags"])  # noqa: E731
    atoms += [Atom("tag:customer/*", of_customers)]
    texts = {
        "timeout": "timeout",
        '"timed out"': "timed out",
        "error:a_b": "a_b",
        "error:%": "%",
        '"OR"': "OR",
    }
    atoms += [Atom(typed, partial(_has_text, found)) for typed, found in texts.items()]
    for name in ("created", "due", "started", "ended"):
        for typed, since, until in random.Random(name).sample(_RANGES, 6):
            atoms.append(Atom(f"{name}:{typed}", partial(_in, f"{name}_at", since, until)))
        past = NOW if name == "due" else NOW + timedelta(days=9)
        for typed, low, high in (
            ("<5h", timedelta(hours=5), None),
            (">3d", None, timedelta(days=3)),
        ):
            age = partial(_age, f"{name}_at", low, high, past)
            atoms.append(Atom(f"{name}:{typed}", age))
    second = timedelta(seconds=1)
    for typed, low, high in (
        (">5s", 5 * second, None),
        ("<=30s", None, 30 * second),
        (">1m", 60 * second, None),
        (">24h", timedelta(days=1), None),
    ):
        atoms.append(Atom(f"duration:{typed}", partial(_compare, _duration, low, high)))
        atoms.append(Atom(f"wait:{typed}", partial(_compare, _wait, low, high)))
    atoms += [
        Atom(
            "duration:1s..1m",
            lambda row: _duration(row) is not None and second <= _duration(row) <= 60 * second,
        ),
        Atom("attempts:>=3", lambda row: row["attempt"] >= 3),
        Atom("attempts:1..2", lambda row: 1 <= row["attempt"] <= 2),
        Atom("priority:0", partial(_is, "priority", 0)),
        Atom("priority:<3", lambda row: row["priority"] < 3),
        Atom("memory:>500MB", lambda one: one["max_rss_kb"] * 1024 > 500_000_000, True),
        Atom("memory:..1.5MB", lambda one: one["max_rss_kb"] * 1024 <= 1_500_000, True),
        Atom("args.account_id:7", lambda row: row["args"]["account_id"] == 7),
        Atom("args.name:n3", lambda row: row["args"]["name"] == "n3"),
        Atom("id:7,90,700", lambda row: row["id"] in (7, 90, 700)),
        Atom(f"id:{many // 2}", partial(_is, "id", many // 2)),
        Atom("workflow:2", partial(_is, "workflow_id", 2)),
        Atom("workflow:import", lambda row: row["workflow_id"] in (1, 2, 3)),
        Atom("workflow:flow*", lambda row: row["workflow_id"] in (4, 5)),
        Atom("batch:3", partial(_is, "batch_id", 3)),
        Atom("batch:batch_0", lambda row: row["batch_id"] in (2, 4)),
        Atom('step:"step 23"', lambda row: row["id"] == 23 and row["workflow_id"] is not None),
        Atom("failure:1", lambda one: one["key"] == 0, True),
        Atom("failure:2", lambda one: one["key"] == 1, True),
        Atom("death:signal", lambda one: one["death"] == "signal", True),
        Atom("deploy:v1", lambda one: one["deploy_id"] == 1, True),
        Atom(
            "worker:web-1",
            lambda row: 1 in (row["worker_id"], row["reserved_by"]) and row["origin"] == "opsjobs",
        ),
        Atom("incident:1", lambda row: row["id"] in (5, 60, 99)),
    ]
    return atoms


def _age(
    name: str, low: timedelta | None, high: timedelta | None, past: datetime, row: Row
) -> bool:
    at = row[name]
    if at is None:
        return False
    return NOW - low < at <= past if low is not None else at <= NOW - (high or timedelta(0))


# What is looked for in one attempt, when several are asked for.
_OF_ONE_ATTEMPT = ("failure:", "death:", "deploy:")


@dataclass(frozen=True)
class Search:
    """Clauses of atoms, each negated or not."""

    clauses: list[list[tuple[Atom, bool]]]

    @property
    def text(self) -> str:
        joined = (
            " OR ".join("-" * is_not + atom.text for atom, is_not in clause)
            for clause in self.clauses
        )
        return " ".join((*joined, ZONE))

    def find(self, rows: list[Row]) -> list[int]:
        """The ids of the rows that fit, the newest first."""
        alone = [clause[0][0] for clause in self.clauses if len(clause) == 1 and not clause[0][1]]
        of_one = [atom for atom in alone if atom.text.startswith(_OF_ONE_ATTEMPT)]
        found = [
            row["id"]
            for row in rows
            if all(any(atom.is_met(row) != no for atom, no in clause) for clause in self.clauses)
            and (not of_one or any(all(a.meets(one) for a in of_one) for one in row["attempts"]))
        ]
        return sorted(found, reverse=True)


class SaidTwice(Exception):
    """Two plain terms contradict one another, so the search is refused."""


def read_filter(search: Search) -> JobFilter:
    """The filter of a search. Raises `SaidTwice`."""
    try:
        return JobFilter.from_query([("q", search.text)])
    except BadFilter as error:
        if "say it once" in str(error) or "needs the workflow" in str(error):
            raise SaidTwice from error
        raise


def _make_searches(seed: int, many: int, jobs: int) -> Iterator[Search]:
    chance, atoms, made = random.Random(seed), _list_atoms(jobs), 0
    while made < many:
        clauses = [
            [
                (chance.choice(atoms), chance.random() < 0.25)
                for _ in range(chance.choice((1, 1, 1, 2, 3)))
            ]
            for _ in range(chance.choice((1, 1, 2, 2, 3, 4)))
        ]
        search = Search(clauses)
        with suppress(SaidTwice):
            read_filter(search)
            made += 1
            yield search


# --- the test


@pytest.fixture(scope="module")
def app_of_oracle(databases: Databases, pytestconfig: pytest.Config) -> Iterator[tuple[Flask, int]]:
    many = 20_000 if pytestconfig.getoption("searches") >= 300 else 1_500

    def fill(session: Session) -> None:
        lists = {"tasks": list(TASKS), "queues": list(QUEUES), "errors": list(ERRORS)}
        for number, statement in enumerate(_FILL):
            values = {"now": NOW, **({"many": many, **lists} if number == 0 else {})}
            session.execute(text(statement), values if ":now" in statement else {})

    with app_on(databases, fill) as app:
        yield app, many


def _read_rows(session: Session) -> list[Row]:
    rows = [dict(row) for row in session.execute(text("SELECT * FROM opsjobs.jobs")).mappings()]
    statement = (
        "SELECT job_id, death, deploy_id, max_rss_kb, get_byte(failure_key, 15) AS key"
        " FROM opsjobs.attempts ORDER BY job_id"
    )
    listed = session.execute(text(statement)).mappings()
    attempts = {id: list(some) for id, some in groupby(listed, key=lambda one: one["job_id"])}
    return [row | {"attempts": attempts.get(row["id"], [])} for row in rows]


@pytest.mark.slow
def test_searches_find_what_an_oracle_finds(
    app_of_oracle: tuple[Flask, int],
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, many = app_of_oracle
    number = pytestconfig.getoption("searches")
    seed = pytestconfig.getoption("seed") or random.randrange(2**32)
    for module, limit in (
        (hit_queries, "MOST_HITS"),
        (group_queries, "MOST_JOBS"),
        (attempt_queries, "MOST_ATTEMPTS"),
        (further_queries, "MOST_NEWEST"),
    ):
        monkeypatch.setattr(module, limit, 40_000)

    def is_shown(error: str, text: str) -> bool:
        return text.lower() in error.lower()

    empty = 0
    with app.test_request_context(), reading() as read:
        session = read.session
        rows = _read_rows(session)
        assert len(rows) == many
        for search in _make_searches(seed, number, many):
            says = f"--seed {seed}: {search.text}"
            expected = search.find(rows)
            empty += not expected
            wanted = read_filter(search)
            # With 0, no index of a tag or an argument is read.
            for most in (hit_queries.MANY_JOBS, 0):
                with monkeypatch.context() as patched:
                    patched.setattr(hit_queries, "MANY_JOBS", most)
                    found = find_hits(session, wanted, NOW, is_shown)
                assert list(found.ids) == expected, says
                assert found.searched.is_all, says
            # As an operation freezes them.
            texts = {
                one: [row["id"] for row in rows if _has_text(one, row)] for one in wanted.texts
            }
            frozen = select(Job.id).where(*Terms(wanted, NOW, texts).list_all())
            ids = session.scalars(frozen.order_by(Job.id.desc()))
            assert list(ids) == expected, says
            assert JobFilter.from_query(wanted.to_query().items()) == wanted, says
    assert empty < number * 0.7
    print(f"{number} searches on {many:,} jobs agree with the oracle, {empty} of them find nothing")
