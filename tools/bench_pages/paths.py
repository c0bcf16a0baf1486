"""Lists every GET of ours as requests to measure, from the table of URLs, so that a new page is measured too.

A rule that names something unknown here raises, so that nothing is left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from flask_opsjobs.forensics.registry import KINDS
from flask_opsjobs.jobs.lifecycle import STATES
from flask_opsjobs.jobs.search.filter import JobFilter
from flask_opsjobs.web.app.references import make_cursor, make_reference
from flask_opsjobs.web.app.urls import URLS, Url
from tools.bench_pages import composition
from tools.bench_pages.control import ENTRIES, INCIDENTS, LIMITERS, OPERATIONS

PREFIX = "/ops/jobs"
# With this the bench reads the metrics, as Prometheus does.
METRICS_TOKEN = "only-for-the-bench"
# The page of this task has a form that enqueues a job.
TASK_WITH_FORM = "sync_customer"
# What they answer when it is not 200.
ANSWERS = {"jump": 303, "missing": 404}
AIM_MS, SEARCH_AIM_MS, BUNDLE_AIM_MS, DOCTOR_AIM_MS = 50, 100, 80, 500
# Words in errors have no index.
TEXT_AIM_MS = 250
# Other pages fetch it once they are there.
WAITING_AIM_MS = 250
_PART = re.compile(r"<(?:\w+:)?(\w+)>")


@dataclass(frozen=True)
class Known:
    """What the database holds, for the n-th request: ids of jobs by state, and of the rest."""

    secrets: Sequence[bytes]
    rows: int
    ids: Mapping[str, Sequence[int]]
    queues: Sequence[str]
    tasks: Sequence[str]
    previews: Sequence[int]
    failures: Sequence[int]
    events: int
    accounts: int

    def job(self, n: int, state: str | None = None) -> int:
        """A job in `state`, or any."""
        if state is None:
            return (n * 7_919_317 + 11) % self.rows + 1
        return self.ids[state][n % len(self.ids[state])]


@dataclass(frozen=True)
class Ask:
    """One line of the table: what is asked, the path of the n-th request,
    what p95 may be; None for a file.
    """

    name: str
    path: Callable[[int], str]
    answer: int
    is_export: bool
    aim_ms: int | None


# Queries by endpoint. `{account}`, `{number}` and `{id}` differ from request to request.
_SEARCHES = (
    "args.account_id:{account}",
    "args.invoice_id:{number}",
    "args.account_id:no-such",
    "args.pages:40",
    "args.account_id:{account} state:failed task:process_invoice",
    "args.pages:40 state:failed",
)
_JOBS = (
    "",
    *(f"state:{state}" for state in ("available", "started", "scheduled", "finished", "failed")),
    "queue:mail",
    "task:rebuild_search",
    "state:failed task:rebuild_search",
    "state:canceled queue:mail task:send_reminder",
    "state:started task:rebuild_search",
    "tag:eu",
    "tag:customer:{account}",
    "tag:no-such",
    "tag:eu state:failed",
    "tag:eu queue:crm",
    "tag:eu created:<2h",
    "tag:eu memory:>500MB",
    "tag:customer:{account} state:failed",
    'error:"account {account}"',
    "error:no-such-words",
    "state:failed queue:billing created:<7d error:answer",
    "created:<2h",
    "created:>3d",
    "created:<7d state:failed",
    "created:>20d state:canceled queue:crm",
    "origin:rq",
    "id:{id}",
    "workflow:{run}",
    "workflow:{run} step:step_3",
    "batch:1",
    "batch:1 state:failed",
    "failure:{failure}",
    "failure:{failure} state:failed",
    "death:signal",
    "deploy:2026.10.17",
    "refused OR timeout -queue:mail",
    "-queue:mail",
    "task:send_* -state:finished",
    "state:failed OR state:canceled",
    "tag:customer:{account} OR tag:eu -queue:crm",
    "ended:-2h..-1h state:failed",
    "state:started duration:>5m",
    "wait:>1h queue:mail",
    "memory:>500MB",
    "failure:{failure} OR death:signal",
    "id:{id},1,2",
)
# By a column, within what an index holds or what is few enough.
_SORTED = (
    ("", "due"),
    ("state:available", "due"),
    ("state:started", "-run"),
    ("state:finished", "-run"),
    ("queue:mail state:available", "-wait"),
    ("state:retryable", "-attempts"),
    ("tag:customer:{account}", "-run"),
)
_WAITING = ("queue:mail", "task:rebuild_search", "state:scheduled", "tag:eu", "priority:>0")
_AUDIT: tuple[dict[str, str], ...] = (
    {},
    {"actor": "ops-demo"},
    {"actor": "nobody"},
    {"action": "queue.pause"},
    {"outcome": "refused"},
    {"q": "job/{id}"},
    {"q": "customer {account}"},
    {"actor": "ops-demo", "action": "job.retry", "outcome": "refused"},
)

# By endpoint, also of its live fragment. `of` chooses one run or batch instead of any.
_GROUPS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "workflows": ({}, {"state": "failed"}, {"state": "running"}, {"name": "flow_7"}),
    "workflow": ({}, {"of": "open"}, {"of": "large"}),
    "signals": ({}, {"outcome": "taken"}, {"outcome": "ambiguous"}),
    "batches": ({}, {"state": "failed"}),
    "batch": ({}, {"of": "large"}, {"of": "large", "state": "failed"}),
    "failures": ({}, {"state": "ignored"}, {"task": "process_invoice"}),
    "tasks": ({}, {"against": "week", "sort": "-p95"}, {"find": "invoice"}),
    "task": ({}, {"window": "hour"}, {"window": "month"}),
    "queues": ({}, {"sort": "-oldest"}, {"find": "mail"}),
    "forensics_subject": tuple({"of": kind} for kind in KINDS),
    "forensics_export": tuple({"of": kind, "format": "json"} for kind in ("job", "queue")),
}


def asks(known: Known) -> Iterator[Ask]:
    """All that is measured, in the order of the table of URLs, and last the metrics."""
    for url in URLS:
        if url.kind not in ("action", "asset"):
            yield from _asks(url, known)
    yield Ask("metrics", lambda _: f"{PREFIX}/metrics", 200, False, AIM_MS)


def _asks(url: Url, known: Known) -> Iterator[Ask]:
    for state in STATES if "<job_id>" in url.rule else (None,):
        if state is not None and not known.ids[state]:
            continue
        for query in _queries(url, known):
            name = " ".join(filter(None, (url.endpoint, state, _name(query))))
            yield Ask(
                name,
                _path(url, state, query, known),
                ANSWERS.get(url.endpoint, 200),
                is_export := url.kind == "file",
                None if is_export else _aim(url, query),
            )


def _aim(url: Url, query: Mapping[str, str]) -> int:
    if url.endpoint.startswith("forensics_subject"):
        return BUNDLE_AIM_MS
    if url.endpoint == "doctor":
        return DOCTOR_AIM_MS
    if url.endpoint.startswith("jobs_why"):
        return WAITING_AIM_MS
    searched = query.get("q", "")
    if "error:" in searched or " OR timeout" in searched:
        return TEXT_AIM_MS
    return SEARCH_AIM_MS if searched.startswith("args.") else AIM_MS


def _queries(url: Url, known: Known) -> Sequence[Mapping[str, str]]:
    endpoint = url.endpoint
    if endpoint == "jump":
        return [{"to": "{id}"}]
    if endpoint == "jobs":
        texts = ({"q": text} if text else {} for text in (*_JOBS, *_SEARCHES))
        ordered = ({"q": text, "sort": sort} for text, sort in _SORTED)
        return [*texts, *ordered, {"limit": "100"}, *_deep(known)]
    if endpoint == "jobs_live":
        return [{}, {"q": "state:failed"}, {"q": _SEARCHES[0]}, *_deep(known)]
    if endpoint.startswith("jobs") and url.kind == "file":
        return [{}, {"q": "state:failed"}, {"q": _SEARCHES[0]}]
    if endpoint.startswith("jobs_why"):
        return [{}, *({"q": text} for text in _WAITING)]
    if endpoint == "jobs_suggest":
        return [{"q": text} for text in ("tas", "task:pro", "queue:m", "args.", "tag:eu")]
    if endpoint == "limiter_simulate":
        return [{}, {"partition": "{account}", "live": "yes", "rate": "20"}]
    if endpoint == "audit":
        return _AUDIT
    return _GROUPS.get(endpoint.removesuffix("_live"), [{}])


def _deep(known: Known) -> Iterator[Mapping[str, str]]:
    """Pages in the middle of the table, on either side."""
    for query in ({}, {"q": "state:finished"}):
        conditions = JobFilter.from_query(query.items()).conditions
        for side in ("before", "after"):
            purpose = f"jobs {side} {conditions}"
            yield {**query, side: make_cursor(known.secrets, purpose, known.rows // 2)}


def _name(query: Mapping[str, str]) -> str:
    return " ".join(_word(name, value) for name, value in query.items())


def _word(name: str, value: str) -> str:
    if name in ("before", "after"):
        return f"in the middle, {name}"
    return value if name == "q" else f"{name}={value}"


def _path(
    url: Url, state: str | None, query: Mapping[str, str], known: Known
) -> Callable[[int], str]:
    large, first_open = composition.large_run(known.rows), composition.runs_of(known.rows) + 1
    # The pages of one run or batch, instead of those of any.
    chosen: Mapping[tuple[str, str], Callable[[int], object]] = {
        ("workflow_id", "open"): lambda n: first_open + n * 7 % composition.OPEN_RUNS,
        ("workflow_id", "large"): lambda _: large,
        ("batch_id", "large"): lambda _: composition.LARGE_BATCH,
    }
    query = dict(query)
    of = query.pop("of", "")
    chosen = {**chosen, **_subjects(known)}
    names = _names(url, known)
    parts: Mapping[str, Callable[[int], object]] = {
        "job_id": lambda n: known.job(n, state),
        "workflow_id": lambda n: n * 7_919 % composition.runs_of(known.rows) + 1,
        "batch_id": lambda n: n % composition.BATCHES + 1,
        "name": lambda n: names[n % len(names)],
        "limiter": lambda n: LIMITERS[n % len(LIMITERS)],
        "preview_id": lambda n: known.previews[n % len(known.previews)],
        "incident_id": lambda n: n % INCIDENTS + 1,
        "failure_id": lambda n: known.failures[n % len(known.failures)],
        "sequence": lambda n: n * 37 % known.events + 1,
        "operation_id": lambda n: n % OPERATIONS + 1,
        "kind": lambda _: of or "job",
        "key": lambda n: known.job(n),
        "rest": lambda _: "nothing/here",
    }
    if unknown := set(_PART.findall(url.rule)) - parts.keys():
        raise LookupError(
            f"{url.rule}: the bench of pages knows no {', '.join(unknown)} to ask for"
        )

    def path(n: int) -> str:
        words = {
            "account": str(n * 131 % known.accounts),
            "number": str(known.job(n)),
            "id": str(known.job(n)),
            "failure": str(known.failures[n % len(known.failures)]),
            "run": str(n * 7_919 % composition.runs_of(known.rows) + 1),
        }
        said = {name: value.format(**words) for name, value in query.items()}
        if "partition" in said:
            limiter = str(parts["limiter"](n))
            said["partition"] = make_reference(known.secrets[0], limiter, said["partition"])
        rule = _PART.sub(
            lambda found: str(chosen.get((found[1], of), parts[found[1]])(n)), url.rule
        )
        return f"{PREFIX}{rule}" + (f"?{urlencode(said)}" if said else "")

    return path


def _names(url: Url, known: Known) -> Sequence[str]:
    """What may stand for the name in a rule: of entries of cron, of tasks or of queues."""
    if url.endpoint.startswith("cron"):
        return ENTRIES
    if url.endpoint == "task_form":
        return [TASK_WITH_FORM]
    return known.tasks if url.endpoint.startswith("task") else known.queues


def _subjects(known: Known) -> Mapping[tuple[str, str], Callable[[int], object]]:
    """Whom the bundles of each kind are about. Raises `LookupError` for a kind that this does not know."""
    runs = composition.runs_of(known.rows)
    keys: Mapping[str, Callable[[int], object]] = {
        "job": lambda n: known.job(n),
        "attempt": lambda n: f"{known.job(n, 'failed')}-1",
        "task": lambda n: known.tasks[n % len(known.tasks)],
        "queue": lambda n: known.queues[n % len(known.queues)],
        "worker": lambda n: f"web-{n % 3}-{2_000 + n % 3}-c0ffee",
        "cron": lambda n: ENTRIES[n % len(ENTRIES)],
        "limiter": lambda n: LIMITERS[n % len(LIMITERS)],
        "incident": lambda n: n % INCIDENTS + 1,
        "failure": lambda n: known.failures[n % len(known.failures)],
        "deploy": lambda n: n % 30 + 1,
        "operation": lambda n: n % OPERATIONS + 1,
        "actor": lambda n: "ops-demo" if n % 2 else f"person-{n % 40}",
        "workflow": lambda n: n * 7_919 % runs + 1,
        # The jobs of the first runs are their steps.
        "step": lambda n: n * 7_919 % (runs * composition.STEPS_OF_RUN) + 1,
        "batch": lambda n: n % composition.BATCHES + 1,
    }
    if unknown := KINDS.keys() - keys.keys():
        raise LookupError(f"the bench of pages knows no {', '.join(sorted(unknown))} to tell of")
    return {("key", kind): key for kind, key in keys.items()}
