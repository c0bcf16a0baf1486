"""Plans and executes every operator's action.

Pages, commands and Python all call this class to make changes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, NotRequired, TypedDict, Unpack

import psycopg
from sqlalchemy.exc import DBAPIError

from ..core.db import Connection, is_away
from ..core.reading import read_clock
from ..core.redis_facts import DeliveryPlace, QueueInRedis
from ..deliveries import actions as delivery_actions
from ..engine.dispatch.after_commit import run_effects
from ..engine.reconcile.recall import find_places
from ..engine.reconcile.remove_deliveries import find_places_of_deliveries
from ..engine.reconcile.resync import compare_queue
from ..engine.redis.broker import broker_of
from ..errors import ActionRefused, EngineUnavailable, TooManyActions
from ..host import Host
from ..queues.transitions import list_known_queues
from ..workers import transitions as worker_transitions
from ..workers.actions import kinds_for
from . import execution, planning
from .domain import Request, Who, name_in
from .registry import ACTIONS
from .shapes import Plan, Preview, Receipt

_log = logging.getLogger("flask_opsjobs")
# How long an action waits until another one ends. It is short, since a page blocks a thread of the host.
_WAIT_FOR_ROOM_SECONDS = 2.0


class Why(TypedDict):
    """Who acts and why. `authorize=False`: the access policy is not asked."""

    actor: str
    reason: str
    authorize: NotRequired[bool]


class Operator:
    """Changes one app for an operator: plan, preview, execute.

    `run` and the named actions (`retry`, `pause`, …) plan and execute in one call. Every call uses its own
    connection and transaction, never the host's session. The host's access policy is asked for each target,
    except with `authorize=False`. `now` defaults to the clock of Postgres. Raises `SchemaBehind` when the
    schema is older than this code needs. Raises `EngineUnavailable` when Postgres does not answer, a row
    stays locked for too long, or too many actions of this process run at once.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def plan(
        self,
        action: str,
        targets: Iterable[str],
        *,
        actor: str,
        params: Mapping[str, Any] | None = None,
        authorize: bool = True,
        now: datetime | None = None,
    ) -> Plan:
        """Plan what the action would do now with targets such as `job/42`. Writes nothing.

        Raises `ActionRefused` for a request that is invalid in any state: an unknown action, too many
        targets.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> plan = operator.plan("job.cancel", [f"job/{job.id}"], actor="anna")
        >>> len(plan.items), plan.skipped
        (1, ())
        """
        who = _who(actor, "python", authorize=authorize)
        request = planning.make_request(self._host, action, targets, params, **who)
        with self._connected(now) as (connection, now):
            return planning.make_plan(connection, self._look(connection, request, now))

    def preview(
        self,
        action: str,
        targets: Iterable[str],
        *,
        actor: str,
        via: str,
        params: Mapping[str, Any] | None = None,
        authorize: bool = True,
        now: datetime | None = None,
    ) -> Preview:
        """Make a plan that this actor may execute once within 15 minutes. Raises as `plan` does.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> preview = operator.preview("job.cancel", [f"job/{job.id}"], actor="anna", via="page")
        >>> preview.plan.action
        'job.cancel'
        """
        who = _who(actor, via, authorize=authorize)
        request = planning.make_request(self._host, action, targets, params, **who)
        with self._connected(now) as (connection, now):
            return planning.make_preview(connection, self._look(connection, request, now))

    def execute(
        self,
        preview_id: int,
        token: str,
        *,
        actor: str,
        reason: str,
        request_id: str | None = None,
        via: str = "page",
        authorize: bool = True,
        now: datetime | None = None,
    ) -> Receipt:
        """Execute a preview if its plan is still the same. If not, the receipt says why.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> preview = operator.preview("job.cancel", [f"job/{job.id}"], actor="anna", via="page")
        >>> operator.execute(preview.id, preview.token, **why).outcome
        'done'
        """
        if too_long := execution.find_long_reason(reason):
            return too_long.receipt("")
        who = _who(actor, via, reason, request_id, authorize=authorize)
        with self._connected(now) as (connection, now):
            action, targets = planning.find_targets(connection, preview_id) or ("", ())
            in_redis = self._ask_redis(connection, action, targets, now)
            receipt = execution.execute_preview(
                connection, self._host, preview_id, token, who, now, in_redis
            )
            return self._run_effects(connection, receipt, now, preview_id)

    def run(
        self,
        action: str,
        targets: Iterable[str],
        *,
        actor: str,
        reason: str,
        via: str = "python",
        params: Mapping[str, Any] | None = None,
        authorize: bool = True,
        request_id: str | None = None,
        now: datetime | None = None,
    ) -> Receipt:
        """Plan and execute in one transaction, so that nothing changes in between. Raises as `plan` does.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> receipt = operator.run("job.cancel", [f"job/{job.id}"], **why)
        >>> receipt.outcome, receipt.code
        ('done', None)
        """
        who = _who(actor, via, reason, request_id, authorize=authorize)
        request = planning.make_request(self._host, action, targets, params, **who)
        if too_long := execution.find_long_reason(reason, request.action.asks):
            return too_long.receipt(action)
        with self._connected(now) as (connection, now):
            receipt = execution.execute_request(connection, self._look(connection, request, now))
            return self._run_effects(connection, receipt, now)

    # --- the actions for Python: each takes one or several targets, and raises ActionRefused when it is
    # refused

    def retry(self, jobs: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Run failed, canceled or retryable jobs once more.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> operator.cancel(job.id, **why).outcome
        'done'
        >>> operator.retry(job.id, **why).outcome
        'done'
        """
        return self._run_or_raise("job.retry", jobs, why)

    def cancel(self, jobs: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """End waiting jobs as canceled, and stop running jobs.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> operator.cancel(job.id, **why).outcome
        'done'
        """
        return self._run_or_raise("job.cancel", jobs, why)

    def rescue(self, jobs: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Take jobs from workers that are missing, have stopped or are unknown, as the watch loop does.

        >>> job = send_invoice.enqueue(9001)
        >>> db.session.commit()
        >>> operator.rescue(job.id, **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: cannot rescue job 1: it is available
        """
        return self._run_or_raise("job.rescue", jobs, why)

    def skip(self, jobs: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """End steps of workflows that wait, failed or were canceled as finished, with the result null.

        >>> flow = opsjobs.workflow("invoices")
        >>> first = flow.step("first", send_invoice, invoice_id=9001)
        >>> second = flow.step("second", send_invoice, invoice_id=9002, after=first)
        >>> run = flow.start()
        >>> db.session.commit()
        >>> operator.skip(2, **why).outcome
        'done'
        """
        return self._run_or_raise("job.skip", jobs, why)

    def recall(self, jobs: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Make queued jobs due again whose deliveries are nowhere in Redis, as the recall loop does.

        >>> job = send_invoice.enqueue(9001)
        >>> db.session.commit()
        >>> operator.recall(job.id, **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: cannot recall job 1: it is available
        """
        return self._run_or_raise("job.recall", jobs, why)

    def discard(self, jobs: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """End waiting jobs as failed.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> operator.discard([job.id], **why).outcome
        'done'
        """
        return self._run_or_raise("job.discard", jobs, why)

    def reschedule(
        self, jobs: int | Iterable[int], due_at: datetime | None, **why: Unpack[Why]
    ) -> Receipt:
        """Give waiting jobs another due time, a `datetime` with a time zone. None: they are due now.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> receipt = operator.reschedule(job.id, None, **why)
        >>> [(change.what, change.after) for change in receipt.done[0].changes]
        [('due', 'now'), ('state', 'available')]
        """
        return self._run_or_raise("job.reschedule", jobs, why, {"due_at": due_at})

    def edit_job(
        self,
        jobs: int | Iterable[int],
        *,
        queue: str | None = None,
        priority: int | None = None,
        args: Mapping[str, Any] | None = None,
        **why: Unpack[Why],
    ) -> Receipt:
        """Change the queue, the priority or arguments of waiting jobs; what is None stays as it is.

        `args` has only the arguments that change, of one job. They are checked as an enqueue checks them.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> receipt = operator.edit_job(job.id, priority=1, args={"invoice_id": 9002}, **why)
        >>> [(change.what, change.before, change.after) for change in receipt.done[0].changes]
        [('priority', '5', '1'), ('args', '{"invoice_id": 9001}', '{"invoice_id": 9002}')]
        """
        params = {"queue": queue, "priority": priority, "args": args}
        return self._run_or_raise("job.edit", jobs, why, params)

    def run_again(self, jobs: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Enqueue a new job with the same call for each of these final jobs.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> operator.cancel(job.id, **why).outcome
        'done'
        >>> operator.run_again(job.id, **why).outcome
        'done'
        >>> [job.state for job in testing.jobs()]
        ['canceled', 'available']
        """
        return self._run_or_raise("job.run_again", jobs, why)

    def delete(self, jobs: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Delete final jobs.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> operator.cancel(job.id, **why).outcome
        'done'
        >>> operator.delete(job.id, **why).outcome
        'done'
        >>> testing.jobs()
        []
        """
        return self._run_or_raise("job.delete", jobs, why)

    def pause(self, queues: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Dispatch nothing from these queues, and recall their deliveries from Redis.

        >>> operator.pause("mail", **why).outcome
        'done'
        >>> operator.pause("mail", **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: ...
        """
        return self._run_or_raise("queue.pause", queues, why)

    def drain(self, queues: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Dispatch nothing more from these queues. Jobs that are in Redis already still run.

        >>> operator.drain(["mail", "reports"], **why).outcome
        'done'
        """
        return self._run_or_raise("queue.drain", queues, why)

    def resume(self, queues: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Dispatch from these queues again.

        >>> operator.pause("mail", **why).outcome
        'done'
        >>> operator.resume("mail", **why).outcome
        'done'
        """
        return self._run_or_raise("queue.resume", queues, why)

    def set_prefetch(
        self, queues: str | Iterable[str], prefetch: int | None, **why: Unpack[Why]
    ) -> Receipt:
        """Set how many jobs of each queue may be in Redis. None: computed from the live workers.

        >>> operator.set_prefetch("mail", 20, **why).outcome
        'done'
        """
        return self._run_or_raise("queue.set_prefetch", queues, why, {"prefetch": prefetch})

    def resync(self, queues: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Compare queues with Redis and repair them at once, as the recall and dispatch loops do.

        >>> operator.resync("default", **why).outcome
        'done'
        """
        return self._run_or_raise("queue.resync", queues, why)

    def pause_task(self, tasks: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Dispatch no jobs of these tasks, given by name, and recall their deliveries from Redis.

        Other tasks of their queues go on, and so does what runs.

        >>> operator.pause_task("send_invoice", **why).outcome
        'done'
        """
        return self._run_or_raise("task.pause", tasks, why)

    def resume_task(self, tasks: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Dispatch jobs of these tasks again.

        >>> operator.pause_task("send_invoice", **why).outcome
        'done'
        >>> operator.resume_task("send_invoice", **why).outcome
        'done'
        """
        return self._run_or_raise("task.resume", tasks, why)

    def enqueue_task(
        self, task: str, args: Mapping[str, Any] | None = None, **why: Unpack[Why]
    ) -> Receipt:
        """Enqueue a job of a task that is declared with `enqueue_from_page=True`, and audit who did.

        `args` are its arguments by name. Your own code calls `task.enqueue(…)` instead, in its own
        transaction.

        >>> receipt = operator.enqueue_task("send_invoice", {"invoice_id": 9001}, **why)
        >>> [(change.what, change.after) for change in receipt.done[0].changes]
        [('new job', 'job/1')]
        """
        return self._run_or_raise("task.enqueue", task, why, {"args": dict(args or {})})

    def drain_worker(
        self,
        workers: str | Iterable[str] = (),
        *,
        queue: str | None = None,
        host: str | None = None,
        **why: Unpack[Why],
    ) -> Receipt:
        """Ask these workers, given by name, to leave: they take nothing new and end what they run.

        With a `queue`, a `host` or both: all workers of ours that listen to the queue, on that machine.

        >>> operator.drain_worker("web-1-7-c0ffee", **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: there is no worker web-1-7-c0ffee: see `flask opsjobs workers`
        >>> operator.drain_worker(queue="mail", **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: no worker that can be drained listens to mail: see ...
        """
        names = self._name_workers("worker.drain", workers, queue, host, None)
        return self._run_or_raise("worker.drain", names, why)

    def stop_worker(
        self,
        workers: str | Iterable[str] = (),
        *,
        grace: int | None = None,
        queue: str | None = None,
        host: str | None = None,
        **why: Unpack[Why],
    ) -> Receipt:
        """Stop these workers. What still runs after `grace` seconds is killed, and runs again elsewhere.

        Without a grace they end what they run. Plain RQ workers take no grace. `queue` and `host` choose
        workers as in `drain_worker`.

        >>> operator.stop_worker("web-1-7-c0ffee", grace=60, **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: there is no worker web-1-7-c0ffee: see `flask opsjobs workers`
        """
        names = self._name_workers("worker.stop", workers, queue, host, grace)
        return self._run_or_raise("worker.stop", names, why, {"grace": grace})

    def find_workers(
        self,
        action: str,
        *,
        queue: str | None = None,
        host: str | None = None,
        grace: int | str | None = None,
    ) -> list[str]:
        """The names of the workers of a queue, of a machine or of both that the action is for.

        With a grace none of them is a plain RQ worker. Raises `ActionRefused` when there is none.

        >>> operator.find_workers("worker.stop", host="web-1")
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: no worker that can be stopped runs on web-1: see ...
        """
        kinds = kinds_for(action, grace)
        with self._connected(None) as (connection, _):
            found = worker_transitions.find_names(connection, kinds, queue, host)
        if found:
            return found
        places = [f"listens to {queue}"] * bool(queue) + [f"runs on {host}"] * bool(host)
        done = "drained" if action == "worker.drain" else "stopped"
        ended = " with a grace" if done == "stopped" and "plain" not in kinds else ""
        place = " and ".join(places)
        says = f"no worker that can be {done}{ended} {place}: see `flask opsjobs workers`"
        raise ActionRefused(Receipt("refused", action, "unknown_target", says, None))

    def _name_workers(
        self,
        action: str,
        workers: str | Iterable[str],
        queue: str | None,
        host: str | None,
        grace: int | None,
    ) -> list[str]:
        names = [workers] if isinstance(workers, str) else list(workers)
        if queue or host:
            names += self.find_workers(action, queue=queue, host=host, grace=grace)
        return names

    def forget_worker(self, workers: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Show these workers, which are missing or have stopped, on no page any more.

        >>> operator.forget_worker("web-1-7-c0ffee", **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: there is no worker web-1-7-c0ffee: see `flask opsjobs workers`
        """
        return self._run_or_raise("worker.forget", workers, why)

    def retry_batch(self, batches: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Retry the failed members of these batches, at most 10,000 of each. A batch that has ended reopens.

        Of a canceled batch, the members that the cancel ended are retried too.

        >>> with opsjobs.batch("invoices") as batch:
        ...     job = batch.enqueue(send_invoice, 9001)
        >>> db.session.commit()
        >>> operator.cancel_batch(batch.id, **why).outcome
        'done'
        >>> done = perform_due()
        >>> operator.retry_batch(batch.id, **why).outcome
        'done'
        """
        return self._run_or_raise("batch.retry", batches, why)

    def close_batch(self, batches: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Close these open batches: no member can be added any more.

        >>> batch = opsjobs.batch("invoices").open()
        >>> db.session.commit()
        >>> operator.close_batch(batch.id, **why).outcome
        'done'
        """
        return self._run_or_raise("batch.close", batches, why)

    def cancel_batch(self, batches: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Cancel these batches: members that wait end, members that run are stopped.

        >>> with opsjobs.batch("invoices") as batch:
        ...     job = batch.enqueue(send_invoice, 9001)
        >>> db.session.commit()
        >>> operator.cancel_batch(batch.id, **why).outcome
        'done'
        """
        return self._run_or_raise("batch.cancel", batches, why)

    def pause_cron(self, entries: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Pause these cron entries: their next slots do not run, and are recorded as paused.

        >>> values = {"task": "send_invoice", "expression": "0 3 * * *", "zone": "Europe/Paris",
        ...           "overlap": None, "catch_up": None, "args": {"invoice_id": 9001}}
        >>> operator.create_cron("nightly", values, **why).outcome
        'done'
        >>> operator.pause_cron("nightly", **why).outcome
        'done'
        """
        return self._run_or_raise("cron.pause", entries, why)

    def resume_cron(self, entries: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Resume these cron entries: their next slots run again.

        >>> values = {"task": "send_invoice", "expression": "0 3 * * *", "zone": "Europe/Paris",
        ...           "overlap": None, "catch_up": None, "args": {"invoice_id": 9001}}
        >>> operator.create_cron("nightly", values, **why).outcome
        'done'
        >>> operator.pause_cron("nightly", **why).outcome
        'done'
        >>> operator.resume_cron("nightly", **why).outcome
        'done'
        """
        return self._run_or_raise("cron.resume", entries, why)

    def run_cron_now(self, entries: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Enqueue a job of each of these cron entries, due now.

        >>> values = {"task": "send_invoice", "expression": "0 3 * * *", "zone": "Europe/Paris",
        ...           "overlap": None, "catch_up": None, "args": {"invoice_id": 9001}}
        >>> operator.create_cron("nightly", values, **why).outcome
        'done'
        >>> operator.run_cron_now("nightly", **why).outcome
        'done'
        >>> [job.state for job in testing.jobs()]
        ['available']
        """
        return self._run_or_raise("cron.run_now", entries, why)

    def catch_up_cron(
        self, entries: str | Iterable[str], count: int, **why: Unpack[Why]
    ) -> Receipt:
        """Enqueue a job for each of the last `count` missed slots of these cron entries.

        >>> values = {"task": "send_invoice", "expression": "0 3 * * *", "zone": "Europe/Paris",
        ...           "overlap": None, "catch_up": None, "args": {"invoice_id": 9001}}
        >>> operator.create_cron("nightly", values, **why).outcome
        'done'
        >>> operator.catch_up_cron("nightly", 3, **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: ...
        """
        return self._run_or_raise("cron.catch_up", entries, why, {"count": count})

    def create_cron(self, entry: str, values: Mapping[str, Any], **why: Unpack[Why]) -> Receipt:
        """Create a cron entry that code does not declare.

        `values` holds its `task`, `expression`, `zone`, `overlap`, `catch_up` and `args`. The last four may
        be None.

        >>> values = {"task": "send_invoice", "expression": "0 3 * * *", "zone": "Europe/Paris",
        ...           "overlap": None, "catch_up": None, "args": {"invoice_id": 9001}}
        >>> operator.create_cron("nightly", values, **why).outcome
        'done'
        """
        return self._run_or_raise("cron.create", entry, why, values)

    def edit_cron(self, entry: str, values: Mapping[str, Any], **why: Unpack[Why]) -> Receipt:
        """Change a cron entry that was made at runtime, from now on. `values` is as for `create_cron`.

        >>> values = {"task": "send_invoice", "expression": "0 3 * * *", "zone": "Europe/Paris",
        ...           "overlap": None, "catch_up": None, "args": {"invoice_id": 9001}}
        >>> operator.create_cron("nightly", values, **why).outcome
        'done'
        >>> operator.edit_cron("nightly", {**values, "expression": "30 3 * * *"}, **why).outcome
        'done'
        """
        return self._run_or_raise("cron.edit", entry, why, values)

    def delete_cron(self, entries: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Delete cron entries that were made at runtime.

        >>> values = {"task": "send_invoice", "expression": "0 3 * * *", "zone": "Europe/Paris",
        ...           "overlap": None, "catch_up": None, "args": {"invoice_id": 9001}}
        >>> operator.create_cron("nightly", values, **why).outcome
        'done'
        >>> operator.delete_cron("nightly", **why).outcome
        'done'
        """
        return self._run_or_raise("cron.delete", entries, why)

    def cooldown(self, limiters: str | Iterable[str], minutes: int, **why: Unpack[Why]) -> Receipt:
        """Stop all starts of these limiters for `minutes` minutes.

        Write a limiter as `api`, one of its partitions as `api/42`.

        >>> operator.cooldown("crm", minutes=30, **why).outcome
        'done'
        """
        return self._run_or_raise("limiter.cooldown", limiters, why, {"minutes": minutes})

    def clear_cooldown(self, limiters: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """End the cooldown of limiters, or of partitions as `api/42`.

        >>> operator.cooldown("crm", minutes=30, **why).outcome
        'done'
        >>> operator.clear_cooldown("crm", **why).outcome
        'done'
        """
        return self._run_or_raise("limiter.clear", limiters, why)

    def release_lease(self, leases: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Give back places in limiters whose attempts do not run, such as `42-3`: job and dispatch number.

        >>> operator.release_lease("42-3", **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: there is no lease 42-3: its place is free
        """
        return self._run_or_raise("lease.release", leases, why)

    def remove_delivery(self, deliveries: str | Iterable[str], **why: Unpack[Why]) -> Receipt:
        """Remove orphan deliveries from Redis, such as `opsjobs-42-3`, as the recall loop does.

        >>> operator.remove_delivery("opsjobs-42-3", **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: no Redis has the delivery opsjobs-42-3: nothing is left to remove
        """
        return self._run_or_raise("delivery.remove", deliveries, why)

    def acknowledge_incident(
        self, incidents: int | Iterable[int], until: str | datetime, **why: Unpack[Why]
    ) -> Receipt:
        """Acknowledge these incidents until a time, or for a span such as `2h`: at most 30 days.

        An acknowledgement ends sooner when the incident gets more severe, or affects twice as many.

        >>> operator.acknowledge_incident(incident, "2h", **why).outcome
        'done'
        """
        return self._run_or_raise("incident.acknowledge", incidents, why, {"until": until})

    def unacknowledge_incident(self, incidents: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Take the acknowledgement of these incidents back.

        >>> operator.acknowledge_incident(incident, "2h", **why).outcome
        'done'
        >>> operator.unacknowledge_incident(incident, **why).outcome
        'done'
        """
        return self._run_or_raise("incident.unacknowledge", incidents, why)

    def resolve_incident(self, incidents: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Resolve these incidents. Refused while they are still true: acknowledge them instead.

        >>> operator.resolve_incident(incident, **why)
        Traceback (most recent call last):
        ...
        flask_opsjobs.errors.ActionRefused: ...it is still true...
        """
        return self._run_or_raise("incident.resolve", incidents, why)

    def resolve_failure(
        self, failures: int | Iterable[int], deploy: str = "next", **why: Unpack[Why]
    ) -> Receipt:
        """Resolve these failures in the `next` deploy, in `this` one, or in the newest of a version.

        >>> operator.resolve_failure(failure, "this", **why).outcome
        'done'
        """
        return self._run_or_raise("failure.resolve", failures, why, {"deploy": deploy})

    def ignore_failure(
        self,
        failures: int | Iterable[int],
        *,
        until: str | datetime | None = None,
        more: int | None = None,
        rate: int | None = None,
        **why: Unpack[Why],
    ) -> Receipt:
        """Ignore these failures: until a time, until so many more, or until more than `rate` an hour.

        `until` is a time, or a span such as `2h`.

        >>> operator.ignore_failure(failure, more=100, **why).outcome
        'done'
        """
        params = {"until": until, "more": more, "rate": rate}
        return self._run_or_raise("failure.ignore", failures, why, params)

    def cancel_workflow(self, workflows: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Cancel these workflows: steps that wait end as canceled, steps that run are stopped.

        >>> flow = opsjobs.workflow("invoices")
        >>> first = flow.step("first", send_invoice, invoice_id=9001)
        >>> run = flow.start()
        >>> db.session.commit()
        >>> operator.cancel_workflow(run.id, **why).outcome
        'done'
        >>> [job.state for job in testing.jobs()]
        ['canceled']
        """
        return self._run_or_raise("workflow.cancel", workflows, why)

    def retry_workflow(self, workflows: int | Iterable[int], **why: Unpack[Why]) -> Receipt:
        """Retry each step of these workflows that failed or was canceled.

        What was canceled because of these steps waits for them again.

        >>> flow = opsjobs.workflow("invoices")
        >>> first = flow.step("first", send_invoice, invoice_id=9001)
        >>> run = flow.start()
        >>> db.session.commit()
        >>> operator.cancel_workflow(run.id, **why).outcome
        'done'
        >>> operator.retry_workflow(run.id, **why).outcome
        'done'
        >>> perform_due().counts
        {'finished': 1}
        """
        return self._run_or_raise("workflow.retry", workflows, why)

    def skip_step(
        self, workflow: int, step: str, result: Any = None, **why: Unpack[Why]
    ) -> Receipt:
        """End a step that waits, failed or was canceled as finished, with this result. What follows goes on.

        >>> flow = opsjobs.workflow("invoices")
        >>> first = flow.step("first", send_invoice, invoice_id=9001)
        >>> second = flow.step("second", send_invoice, invoice_id=9002, after=first)
        >>> run = flow.start()
        >>> db.session.commit()
        >>> receipt = operator.skip_step(run.id, "second", "sent by hand", **why)
        >>> [(change.what, change.after) for change in receipt.done[0].changes]
        [('step second', 'finished'), ('its result', '"sent by hand"')]
        """
        params = {"step": step, "result": _as_param(result)}
        return self._run_or_raise("workflow.skip", workflow, why, params)

    def send_signal(
        self, workflow: int, wait: str, payload: Any = None, **why: Unpack[Why]
    ) -> Receipt:
        """Send a signal to a wait of this workflow. The payload is the result of the wait.

        >>> flow = opsjobs.workflow("order")
        >>> paid = flow.wait("paid", signal="payment", key="order-42")
        >>> run = flow.start()
        >>> db.session.commit()
        >>> operator.send_signal(run.id, "paid", {"amount": 990}, **why).outcome
        'done'
        >>> [job.state for job in testing.jobs()]
        ['finished']
        """
        params = {"wait": wait, "payload": _as_param(payload)}
        return self._run_or_raise("workflow.signal", workflow, why, params)

    def give_signal(self, workflow: int, wait: str, signal: int, **why: Unpack[Why]) -> Receipt:
        """Give a signal that no wait has taken to an open wait of this workflow, which it is for too.

        Several open waits leave a signal ambiguous: this says which of them it is for.

        >>> flow = opsjobs.workflow("order")
        >>> paid = flow.wait("paid", signal="payment", key="order-42")
        >>> first, second = flow.start(), flow.start()
        >>> db.session.commit()
        >>> opened = testing.perform_due()
        >>> sent = opsjobs.signal("payment", key="order-42", payload={"amount": 990})
        >>> db.session.commit()
        >>> operator.give_signal(second.id, "paid", sent.id, **why).outcome
        'done'
        """
        params = {"wait": wait, "signal": signal}
        return self._run_or_raise("workflow.give_signal", workflow, why, params)

    def note(self, subject: str, text: str, *, actor: str, authorize: bool = True) -> Receipt:
        """Add a note to a job, workflow, incident, failure or worker, given as `job/42`. It stays for ever.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> operator.note(f"job/{job.id}", "the vendor confirms it tomorrow", actor="anna").outcome
        'done'
        """
        receipt = self.run("note.add", [subject], actor=actor, reason=text, authorize=authorize)
        if not receipt.is_done:
            raise ActionRefused(receipt)
        return receipt

    def _run_or_raise(
        self,
        action: str,
        names: str | int | Iterable[str] | Iterable[int],
        why: Why,
        params: Mapping[str, Any] | None = None,
    ) -> Receipt:
        several: Iterable[object] = [names]
        if isinstance(names, Iterable) and not isinstance(names, str):
            several = names
        domain = action.partition(".")[0]
        targets = [f"{domain}/{name}" for name in several]
        receipt = self.run(action, targets, params=params, **why)
        if not receipt.is_done:
            raise ActionRefused(receipt)
        return receipt

    # --- what Redis says, before anything is locked

    def _look(self, connection: Connection, request: Request, now: datetime) -> Request:
        """The request at `now`, with what Redis says of its targets if its action needs to know that."""
        name, targets = request.action.name, request.targets
        return replace(request, now=now, in_redis=self._ask_redis(connection, name, targets, now))

    def _ask_redis(
        self, connection: Connection, action: str, targets: Sequence[str], now: datetime
    ) -> Mapping[str, DeliveryPlace | QueueInRedis]:
        if action not in ACTIONS or not ACTIONS[action].asks_redis:
            return {}
        host, domain = self._host, ACTIONS[action].domain
        if domain == "queue":
            return {
                target: compare_queue(host, connection, name_in(target), now) for target in targets
            }
        if domain == "delivery":
            keys = {delivery_actions.key_of(target): target for target in targets}
            queues = list_known_queues(host, connection)
            found = find_places_of_deliveries(broker_of(host), keys, queues, now)
            return {keys[key]: place for key, place in found.items()}
        ids = [int(name_in(target)) for target in targets]
        places = find_places(connection, broker_of(host), ids, now)
        return {f"job/{id}": place for id, place in places.items()}

    # --- connections, and what follows a commit

    @contextmanager
    def _connected(self, now: datetime | None) -> Iterator[tuple[Connection, datetime]]:
        """A connection of its own, and the time of the action. Waits while too many actions run."""
        limit = self._host.action_limit
        if not limit.enter(_WAIT_FOR_ROOM_SECONDS):
            raise TooManyActions(
                f"this process already runs {limit.most} operators' actions, and it allows no more at once: "
                "nothing was done, try again"
            )
        try:
            yield from self._connect(now)
        finally:
            limit.leave()

    def _connect(self, now: datetime | None) -> Iterator[tuple[Connection, datetime]]:
        """Yield a connection once. An error of Postgres becomes an `EngineUnavailable`."""
        may_try_again = True
        while True:
            try:
                self._host.require_schema()
                with self._host.spare.one() as connection:
                    clock = read_clock(connection)
                    may_try_again = False
                    yield connection, now or clock
                    return
            except psycopg.errors.LockNotAvailable as error:
                raise EngineUnavailable(
                    "another transaction has locked a row that this action needs: try again"
                ) from error
            except (psycopg.Error, DBAPIError) as error:
                if not (is_away(error) or isinstance(error, psycopg.OperationalError | DBAPIError)):
                    raise
                if not may_try_again:
                    message = f"Postgres did not answer ({type(error).__name__})"
                    raise EngineUnavailable(message) from error
                # The idle connection died, as after a restart of Postgres. Try once more with a new one.
                self._host.spare.close()
                may_try_again = False

    def _run_effects(
        self, connection: Connection, receipt: Receipt, now: datetime, preview_id: int | None = None
    ) -> Receipt:
        """Run the effects after the commit. A failure does not fail the action: the receipt says it."""
        if not (news := run_effects(self._host, connection, receipt.effects)):
            return receipt
        receipt = replace(receipt, says="; ".join([receipt.says, *news]))
        try:
            if preview_id is not None:
                planning.spend_preview(connection, preview_id, receipt, now)
        except psycopg.Error:
            _log.exception(
                "what effects did could not be added to a stored receipt; the action itself is done"
            )
        return receipt


def _as_param(value: Any) -> Any:
    """The value as an action reads it: a text as JSON, since a form or command sends JSON as a text."""
    return json.dumps(value) if isinstance(value, str) else value


def _who(
    actor: str, via: str, reason: str = "", request_id: str | None = None, *, authorize: bool
) -> Who:
    return {
        "actor": _text(actor),
        "via": via,
        "reason": _text(reason).strip(),
        "request_id": None if request_id is None else _text(request_id)[:200],
        "is_trusted": not authorize,
    }


def _text(given: str) -> str:
    """The text that Postgres can store.

    Replaces lone surrogates (from a command line), and removes NUL (from a form).
    """
    if not isinstance(given, str):
        return ""
    return given.encode("utf-8", "replace").decode().replace("\0", "")
