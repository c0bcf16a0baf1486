"""Shows RQ's queues, workers, the jobs of a registry, and one job: as pages, and as rq-dashboard's JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import wraps
from typing import Any, NoReturn

from flask import Response

from ...bridge import reader
from ...bridge.allowed import REGISTRIES, VIEWS
from ...bridge.instances import Instance, list_instances
from ...bridge.repairs import MOST_A_PAGE, RqJobFacts
from ...engine.redis.broker import parse_rq_id
from ...jobs.adopted.queries import find_jobs_in_rq
from ..app import access, links, pages, problems
from ..app.display import PageDisplay
from ..app.host import host, reading
from ..app.problems import Problem
from .fields import show_fields

_VIEWS = {view.name: view for view in VIEWS}
# More pages than any Redis has; a larger number is no index for Redis.
_LAST_PAGE = 10**9
_MOST_DIGITS = 20
_ORDERS = ("asc", "dsc")
# To find the rows of a list may not hold up RQ's view, which is read when Postgres is away too.
_MOST_SECONDS = 0.5


def _on_redis(view: Callable[..., Response]) -> Callable[..., Response]:
    """The view of one Redis, by its number. Says when there is nothing to show."""

    @wraps(view)
    def shown(number: int = 0, **values: Any) -> Response:
        instance = _choose(number)
        try:
            return view(instance, **values)
        except reader.RedisSilent:
            if links.is_rq_json():
                raise problems.no_answer_of_redis(instance.label) from None
            return _document(instance, "queues", "RQ", status=503, rows=None, failed=0)
        except reader.NotInRq:
            raise problems.no_such_rq_job(values["rq_id"], instance.label) from None
        except reader.UnreadableInRq:
            raise problems.unreadable_in_rq(values.get("rq_id")) from None

    return shown


@_on_redis
def queues(instance: Instance) -> Response:
    """The document with RQ's queues, and how many jobs each of their registries has."""
    found = _ask(instance, "queues", _display())["queues"]
    rows = [(queue, {name: _count(queue, name) for name in REGISTRIES}) for queue in found]
    failed = sum(counts["failed"] for _, counts in rows)
    return _document(instance, "queues", "RQ", rows=rows, failed=failed)


def _count(queue: Mapping[str, Any], registry: str) -> int:
    return int(queue["count" if registry == "queued" else f"{registry}_job_registry_count"])


@_on_redis
def workers(instance: Instance) -> Response:
    """The document with RQ's workers, and the job that each runs."""
    found = _ask(instance, "workers", _display())["workers"]
    current = [one["current_job"] for one in found if isinstance(one["current_job"], dict)]
    own = _find_own(instance, [job["job_id"] for job in current])
    return _document(instance, "workers", "RQ workers", workers=found, own=own)


@_on_redis
def jobs(
    instance: Instance,
    queue: str = "default",
    registry: str = "queued",
    per_page: int = 25,
    order: str = "asc",
    page: int = 1,
) -> Response:
    """The document with one page of a registry."""
    values = _read_place(queue, registry, per_page, order, page)
    found = _ask(instance, "jobs", _display(), **values)
    counts = reader.count_by_registry(instance, queue)
    place = {"queue": queue, "registry": registry, "per_page": values["per_page"], "order": order}
    return _document(
        instance,
        "jobs",
        f"RQ jobs of {queue}",
        jobs=found["jobs"],
        own=_find_own(instance, [job["id"] for job in found["jobs"]]),
        counts=counts,
        total=counts[registry],
        place=place,
        number=int(values["page"]),
        last=max(1, found["pagination"]["num_pages"]),
    )


@_on_redis
def job(instance: Instance, rq_id: str) -> Response:
    """The document of one job."""
    own = _find_own(instance, [rq_id])
    display = _display(*[f"job/{id}" for id in own.values()])
    found, more = _read_job(instance, rq_id, display)
    result = None if found["result"] is None else json.dumps(found["result"])
    context: dict[str, Any] = {"job": found, "more": more, "result": result, "id": own.get(rq_id)}
    return _document(instance, "job", f"RQ job {rq_id}", display=display, **context)


@_on_redis
def queues_json(instance: Instance) -> Response:
    """RQ's queues, as rq-dashboard writes them."""
    return _list_json(instance, "queues")


@_on_redis
def workers_json(instance: Instance) -> Response:
    """RQ's workers, as rq-dashboard writes them."""
    return _list_json(instance, "workers")


@_on_redis
def jobs_json(
    instance: Instance, queue: str, registry: str, per_page: str, order: str, page: str
) -> Response:
    """One page of a registry, as rq-dashboard writes it."""
    if not all(number.isdecimal() and len(number) < _MOST_DIGITS for number in (per_page, page)):
        raise problems.no_such_page()
    values = _read_place(queue, registry, int(per_page), order, int(page))
    return _list_json(instance, "jobs", **values)


def _list_json(instance: Instance, name: str, **values: str) -> Response:
    display = _display()
    return _json(name, _ask(instance, name, display, **values), display)


@_on_redis
def job_json(instance: Instance, rq_id: str) -> Response:
    """One job, as rq-dashboard writes it, with its dependencies."""
    display = _display(*[f"job/{id}" for id in _find_own(instance, [rq_id]).values()])
    return _json("job", _read_job(instance, rq_id, display)[0], display)


def _json(name: str, found: Mapping[str, Any], display: PageDisplay) -> Response:
    shown = show_fields(found, _VIEWS[name].fields, display)
    return Response(json.dumps(shown), mimetype="application/json")


def _read_job(
    instance: Instance, rq_id: str, display: PageDisplay
) -> tuple[dict[str, Any], RqJobFacts]:
    """What rq-dashboard answers about a job, with its dependencies, and what else RQ has of it."""
    found = _ask(instance, "job", display, job_id=rq_id)
    more = reader.find_more(instance, rq_id, display.hides)
    if more.depends_on:
        words = ["active" if is_there else "expired" for is_there in more.depends_on.values()]
        found |= {"depends_on": list(more.depends_on), "depends_on_status": words}
    return found, more


def refused(**_parts: str) -> NoReturn:
    """Raise the problem for an address at which rq-dashboard changes something."""
    raise problems.bridge_only_reads()


def _choose(number: int) -> Instance:
    found = list_instances(host())
    if number >= len(found):
        raise problems.no_such_redis(number)
    return found[number]


def _read_place(queue: str, registry: str, per_page: int, order: str, page: int) -> dict[str, Any]:
    """The values of rq-dashboard's address for a page of a registry, within bounds."""
    if registry not in REGISTRIES:
        raise problems.no_such_registry(registry, REGISTRIES)
    if order not in _ORDERS:
        raise problems.no_such_page()
    return {
        "queue_name": queue,
        "registry_name": registry,
        "per_page": str(min(max(per_page, 1), MOST_A_PAGE)),
        "order": order,
        "page": str(min(max(page, 1), _LAST_PAGE)),
    }


def _ask(instance: Instance, name: str, display: PageDisplay, **values: str) -> dict[str, Any]:
    return reader.ask(instance, _VIEWS[name].asks, values, links.to_endpoint("rq"), display.hides)


def _display(*targets: str) -> PageDisplay:
    """The host's display policy, for who may see payload in general, and of these targets."""
    may_see = access.may(access.PAYLOAD) and all(access.may(access.PAYLOAD, one) for one in targets)
    return PageDisplay(host().display, may_see=may_see)


def _find_own(instance: Instance, rq_ids: Iterable[str]) -> dict[str, int]:
    """The ids of the rows of these jobs, by RQ id: of managed and of adopted jobs. None without Postgres."""
    # Postgres stores no NUL, so no row has one in its RQ id.
    ids = [rq_id for rq_id in rq_ids if "\0" not in rq_id]
    deliveries = {rq_id: found[0] for rq_id in ids if (found := parse_rq_id(rq_id))}
    try:
        with reading(_MOST_SECONDS) as read:
            return find_jobs_in_rq(read.session, instance.label, ids, deliveries)
    except Problem:
        return {}


def _document(
    instance: Instance, name: str, title: str, *, status: int = 200, **context: Any
) -> Response:
    return pages.document(
        f"rq/{name}.html",
        "rq",
        title,
        datetime.now(UTC),
        status=status,
        instance=instance,
        instances=list_instances(host()),
        registries=REGISTRIES,
        read_iso=_read_iso,
        read_http=_read_http,
        last_line=_last_line,
        **context,
    )


def _read_iso(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _read_http(text: str | None) -> datetime | None:
    """A time as Flask writes it into JSON."""
    return None if text is None else parsedate_to_datetime(text)


def _last_line(text: str | None) -> str | None:
    lines = (text or "").strip().splitlines()
    return lines[-1] if lines else None
