"""Joins the package to a Flask app.

Start reading at `OpsJobs.init_app`: it names every part of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

from flask import Flask, current_app

from . import policy, settings
from .batches.batch import Batch, BatchDeclaration
from .bridge.status import find_status
from .cli import opsjobs as cli_group
from .core import log
from .core.db import SpareConnections, is_id
from .core.words import show_value
from .cron.declaration import CatchUp, EntryDeclaration, make_entry
from .engine.dispatch.after_commit import AfterCommitDispatch
from .engine.explain_with_redis import explain_apart, explain_search_apart
from .engine.redis.broker import Broker
from .engine.redis.connections import RedisConnections
from .errors import ConfigError, DeclarationError, InvalidBatch
from .explain.reason_kinds import AnyExplanation, BatchExplanation, Explanation, WorkflowExplanation
from .explain.waiting import WaitingExplanation
from .forensics.bundle import Bundle
from .forensics.declaration import Check, RunbookDeclaration, make_runbook
from .forensics.find import find_bundle_apart
from .forensics.registry import KINDS
from .host import ChildHooks, Host
from .install.database import find_database
from .jobs.record.enqueue import AnySession
from .jobs.record.task import Call, ChainLink, Task
from .jobs.search.filter import JobFilter
from .lifeline.detectors import DETECTORS
from .operations.operator import BulkOperator
from .telemetry.metrics import require_prometheus
from .telemetry.watching import HostTelemetry
from .web import make_blueprint, make_bridge_blueprint
from .workflows.build import Workflow, make_chain
from .workflows.declaration import MAP_TASK
from .workflows.expand_map import make_map_task
from .workflows.send_signal import Signal, Signaled, send_signal

if TYPE_CHECKING:
    # It imports what only the extra installs.
    from .telemetry.prometheus import PrometheusCollector

NAME = "opsjobs"


class OpsJobs:
    """Background jobs that are recorded in the host's Postgres, run by RQ, and operated at `/ops/jobs`.

    Write `OpsJobs(app, access=…, display=…)`, or `OpsJobs(access=…, display=…)` and later `init_app(app)`.
    With `escalation=…`, the host is told of incidents too.
    The extension object keeps no app: the state of an app is a `Host` in `app.extensions["opsjobs"]`.

    A worker calls `child_started`, `after_each_job` and `child_leaving` in each of its child processes,
    without arguments and outside of an app context.

    >>> shop = Flask("shop")
    >>> shop.config.update(SECRET_KEY="a long secret", SQLALCHEMY_DATABASE_URI=DATABASE_URL)
    >>> db = SQLAlchemy(shop)
    >>> opsjobs = OpsJobs(shop, access=HostAccess(), display=HostDisplay())
    >>> "opsjobs" in shop.extensions
    True
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        access: policy.AccessPolicy | None = None,
        display: policy.DisplayPolicy | None = None,
        escalation: policy.EscalationPolicy | None = None,
        child_started: Callable[[], object] | None = None,
        after_each_job: Callable[[], object] | None = None,
        child_leaving: Callable[[], object] | None = None,
    ) -> None:
        self._child_hooks = ChildHooks(
            _hook(child_started, "child_started"),
            _hook(after_each_job, "after_each_job"),
            _hook(child_leaving, "child_leaving"),
        )
        self.tasks: dict[str, Task] = {}
        self.cron_entries: dict[str, EntryDeclaration] = {}
        self.runbooks: dict[str, RunbookDeclaration] = {}
        self._access = access
        self._display = display
        self._escalation = escalation
        if app is not None:
            self.init_app(app)

    def init_app(
        self,
        app: Flask,
        *,
        access: policy.AccessPolicy | None = None,
        display: policy.DisplayPolicy | None = None,
        escalation: policy.EscalationPolicy | None = None,
    ) -> None:
        """Join the app. Connects to no server. Raises `ConfigError` with the key, the value and the fix.

        >>> opsjobs = OpsJobs(access=HostAccess(), display=HostDisplay())
        >>> shop = Flask("shop")
        >>> shop.config.update(SQLALCHEMY_DATABASE_URI=DATABASE_URL)
        >>> db = SQLAlchemy(shop)
        >>> opsjobs.init_app(shop)
        Traceback (most recent call last):
        flask_opsjobs.errors.ConfigError: SECRET_KEY is not set: ...
        >>> shop.config.update(SECRET_KEY="a long secret")
        >>> opsjobs.init_app(shop)
        """
        if NAME in app.extensions:
            raise ConfigError("OpsJobs is already initialised on this app: call init_app once")
        log.keep_on_one_line()
        chosen = settings.read_settings(app.config)
        database, engine = find_database(app, chosen.bind)
        host = Host(
            settings=chosen,
            engine=engine,
            database=database,
            secrets=_secrets(app),
            tasks=self.tasks,
            cron_entries=self.cron_entries,
            runbooks=self.runbooks,
            access=_policy(access or self._access, policy.AccessPolicy, "access"),
            display=_policy(display or self._display, policy.DisplayPolicy, "display"),
            escalation=_optional_policy(
                escalation or self._escalation, policy.EscalationPolicy, "escalation"
            ),
            spare=SpareConnections(engine),
            bridge=find_status(chosen.bridge),
            child_hooks=self._child_hooks,
            app_context=app.app_context,
            broker=Broker(RedisConnections(app, chosen.redis_url, chosen.rq_redis_urls)),
            telemetry=(telemetry := HostTelemetry(chosen.sentry)),
        )
        telemetry.join(host)
        host.built_in = {MAP_TASK: make_map_task(host)}
        if chosen.dispatch and not app.testing:
            host.dispatcher = AfterCommitDispatch(host)
        app.extensions[NAME] = host
        app.register_blueprint(make_blueprint(), url_prefix=chosen.url_prefix)
        if host.bridge.is_mounted:
            app.register_blueprint(make_bridge_blueprint(), url_prefix=f"{chosen.url_prefix}/rq")
        if chosen.metrics_token is not None:
            _serve_metrics(app, host, chosen.metrics_token)
        app.cli.add_command(cli_group)

    @property
    def host(self) -> Host:
        """The state of the current app. Raises `RuntimeError` outside an app context, or without OpsJobs.

        >>> opsjobs.host.settings.url_prefix
        '/ops/jobs'
        """
        try:
            found: Host = current_app.extensions[NAME]
        except KeyError:
            raise RuntimeError(
                "OpsJobs is not initialised on the current app: call opsjobs.init_app(app)"
            ) from None
        return found

    @property
    def operator(self) -> BulkOperator:
        """The operator's actions on the current app, on single targets and on all jobs of a filter.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> opsjobs.operator.cancel(job.id, actor="anna", reason="sent by hand").outcome
        'done'
        """
        return BulkOperator(self.host)

    @overload
    def explain(self, job: int, /) -> Explanation: ...
    @overload
    def explain(self, subject: str, /) -> WorkflowExplanation | BatchExplanation: ...
    def explain(self, subject: int | str, /) -> AnyExplanation:
        """Explain why a job of the current app is not running, the deciding reason first. Writes nothing.

        For a workflow, such as `"workflow/7"`, explain the steps that all its other steps wait for; for a
        batch, such as `"batch/7"`, what keeps it from its end. Raises `UnknownJob`, `UnknownWorkflow` or
        `UnknownBatch`, and what SQLAlchemy raises when Postgres does not answer. Texts that an application
        or a person wrote are returned as stored: pass them through your display policy before you show them.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> reason = opsjobs.explain(job.id).reasons[0]
        >>> reason.code, reason.says
        ('scheduled', 'It is due later.')
        """
        return explain_apart(self.host, subject)

    def explain_search(self, jobs: JobFilter, /) -> WaitingExplanation:
        """Explain why the jobs of a search wait, up to 10,000 of them: grouped by the first reason of each.

        Writes nothing. Raises what SQLAlchemy raises when Postgres does not answer. Texts that an application
        or a person wrote are returned as stored: pass them through your display policy before you show them.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> (group,) = opsjobs.explain_search(JobFilter(task="send_invoice")).groups
        >>> group.number, group.code, group.says
        (1, 'scheduled', 'they are due later')
        """
        return explain_search_apart(self.host, jobs)

    def forensics(self, subject: str, /) -> Bundle:
        """Tell what is known of a subject, such as `"job/42"` or `"queue/mail"`, and what is not.

        Writes nothing. A subject of which nothing is stored has a bundle too: its `completeness` is
        `history unavailable` when it is removed, and `unknown` when nothing tells that it ever was. Raises
        `UnknownSubject` for a text that can name none, and what SQLAlchemy raises when Postgres does not
        answer. Texts that an application or a person wrote are returned as stored: pass them through your
        display policy before you show them.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> found = opsjobs.forensics(f"job/{job.id}")
        >>> found.state, found.diagnosis, found.completeness
        ('scheduled', 'It is due later.', 'complete')
        >>> [event.text for event in found.timeline.events]
        ['Enqueued']
        """
        return find_bundle_apart(self.host, subject)

    def prometheus_collector(self) -> PrometheusCollector:
        """A collector of the current app's metrics, for a registry of `prometheus_client`.

        It reads Postgres when the registry is collected, also outside an app context. Raises `ConfigError`
        without the extra `flask-opsjobs[prometheus]`.

        >>> from prometheus_client import CollectorRegistry
        >>> registry = CollectorRegistry()
        >>> registry.register(opsjobs.prometheus_collector())
        >>> registry.get_sample_value("opsjobs_up")
        1.0
        """
        require_prometheus("prometheus_collector")
        from .telemetry.prometheus import PrometheusCollector

        return PrometheusCollector(self.host)

    def signal(
        self,
        name: str,
        *,
        key: str = "",
        payload: Any = None,
        dedupe: str | None = None,
        run: int | None = None,
        session: AnySession | None = None,
    ) -> Signaled:
        """Send a signal to the wait of a workflow, in the transaction of the host's session.

        The host commits. The signal ends the open wait with this name and key, and its payload is the result
        of the wait. It may come before the wait opens, or before the workflow starts: it is kept, and the
        first such wait takes it. When several waits are open for it, none takes it, and an operator chooses;
        or name the workflow with `run`. With `dedupe`, a text such as the id of a webhook event, a signal
        that is sent again is only counted. Raises `InvalidSignal` with every fault, also when `run` does not
        exist; nothing was written then.

        >>> sent = opsjobs.signal("payment", key="order-42", payload={"amount": 990}, dedupe="evt_1")
        >>> db.session.commit()
        >>> opsjobs.signal("payment", key="order-42", dedupe="evt_1").conflict
        True
        """
        return send_signal(self.host, Signal(name, key, payload, dedupe, run), session)

    @overload
    def task(self, function: Callable[..., Any], /) -> Task: ...
    @overload
    def task(self, /, **options: Any) -> Callable[[Callable[..., Any]], Task]: ...
    def task(
        self, function: Callable[..., Any] | None = None, /, **options: Any
    ) -> Task | Callable[[Callable[..., Any]], Task]:
        """Declare a task: `@opsjobs.task` or `@opsjobs.task(queue="mail", …)`. `Task` lists the options.

        >>> @opsjobs.task(queue="mail", max_attempts=3)
        ... def welcome(user_id: int) -> None:
        ...     print(f"welcome, user {user_id}")
        >>> welcome.enqueue(user_id=7).state
        'available'
        """

        def declare(function: Callable[..., Any]) -> Task:
            task = Task(function, host=lambda: self.host, **options)
            task.register(self.tasks)
            return task

        return declare if function is None else declare(function)

    def workflow(
        self,
        name: str,
        /,
        *,
        context: Mapping[str, Any] | None = None,
        on_end: Task | Call | None = None,
    ) -> Workflow:
        """Build a workflow: jobs that belong together, and which of them wait for which.

        `context` is a dict that each of its jobs can read as `current_job().workflow.context`. `on_end` is a
        task that is enqueued when the run has ended. It must accept `workflow_id`, and gets those of `name`,
        `state`, `end_no` and `context` that it accepts too.

        >>> @opsjobs.task
        ... def report(workflow_id: int, state: str) -> None:
        ...     print(f"workflow {workflow_id} is {state}")
        >>> flow = opsjobs.workflow("invoices", context={"month": "2026-03"}, on_end=report)
        >>> first = flow.step("first", send_invoice, invoice_id=9001)
        >>> second = flow.step("second", send_invoice, invoice_id=9002, after=first)
        >>> run = flow.start()
        >>> db.session.commit()
        """
        return Workflow(name, host=lambda: self.host, context=context, on_end=on_end)

    def chain(
        self,
        name: str,
        /,
        *links: ChainLink | Task | Call,
        context: Mapping[str, Any] | None = None,
        on_end: Task | Call | None = None,
    ) -> Workflow:
        """Build a workflow of jobs that run one after another. `previous` is the result of the job before.

        The steps are named after their tasks: `fetch`, and `fetch-2` for the second with this task.

        >>> @opsjobs.task(record_output=True)
        ... def fetch(day: int) -> dict[str, int]:
        ...     return {"rows": 3}
        >>> @opsjobs.task
        ... def store(rows: int) -> None:
        ...     print(f"storing {rows} rows")
        >>> opsjobs.chain("nightly", fetch.s(day=1), store.s(rows=previous["rows"])).start().steps
        2
        """
        return make_chain(self.workflow(name, context=context, on_end=on_end), links)

    @overload
    def batch(
        self,
        name: str,
        /,
        *,
        on_end: Task | Call | None = None,
        on_failure: Task | Call | None = None,
        meta: Mapping[str, Any] | None = None,
        session: AnySession | None = None,
    ) -> Batch: ...
    @overload
    def batch(self, /, *, id: int, session: AnySession | None = None) -> Batch: ...
    def batch(
        self,
        name: str | None = None,
        /,
        *,
        id: int | None = None,
        on_end: Task | Call | None = None,
        on_failure: Task | Call | None = None,
        meta: Mapping[str, Any] | None = None,
        session: AnySession | None = None,
    ) -> Batch:
        """Make a batch: many jobs with one outcome. `opsjobs.batch(id=7)` takes an open one again.

        A `with` block opens it in the transaction of the host's session, and closes it at its end. The batch
        ends when it is closed and all its members have ended.

        `on_end` is a task that is enqueued then, and `on_failure` one that is enqueued once, when the first
        member has failed or was lost. Each must accept `batch_id`, and gets those of `name`, `state`,
        `end_no`, `counts` and `meta` that it accepts too. `counts` is a dict with the numbers `enqueued`,
        `finished`, `failed`, `canceled` and `lost`. `meta` is a dict that each member can read as
        `current_job().batch.meta`.

        >>> @opsjobs.task
        ... def report(batch_id: int, state: str, counts: dict[str, int]) -> None:
        ...     print(f"batch {batch_id} is {state}: {counts['finished']} finished")
        >>> with opsjobs.batch("invoices", on_end=report, meta={"month": "2026-03"}) as batch:
        ...     added = batch.enqueue_many(send_invoice, [{"invoice_id": 9001}, {"invoice_id": 9002}])
        >>> db.session.commit()
        >>> done = perform_due()
        batch 1 is finished: 2 finished
        """
        given = {"on_end": on_end, "on_failure": on_failure, "meta": meta}
        if id is None:
            if name is None:
                raise TypeError("batch takes a name, or the id of an open batch: batch(id=7)")
            declared = BatchDeclaration(name, on_end, on_failure, meta)
            return Batch(lambda: self.host, declared, session=session)
        if extra := [word for word, value in {"name": name, **given}.items() if value is not None]:
            raise TypeError(f"batch {id} was opened with its {extra[0]}: give only its id")
        if not is_id(id):
            raise InvalidBatch(f"id must be the id of a batch, such as 7, got {show_value(id)}")
        return Batch(lambda: self.host, None, id=id, session=session)

    def cron(
        self,
        expression: str,
        *,
        zone: str = "UTC",
        overlap: str = "skip",
        catch_up: CatchUp = "none",
        args: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Callable[[Task], Task]:
        """Run a task by the clock: `@opsjobs.cron("30 3 * * *", zone="Europe/Paris")` above `@opsjobs.task`.

        `expression` has five fields, or is a name such as `@daily`. `overlap` decides about a slot that comes
        while a job of the entry has not ended: `skip`, `allow`, `queue_one` or `cancel_previous`. `catch_up`
        decides which slots run afterwards when the cron loop did not run: `none`, the `latest`, or a number:
        the last so many. Raises `DeclarationError` with every fault. The loops of `flask opsjobs run` copy
        the declared entries into the database when they start.

        >>> @opsjobs.cron("30 3 * * *", zone="Europe/Paris", catch_up="latest")
        ... @opsjobs.task
        ... def nightly_sync() -> None:
        ...     print("syncing")
        >>> list(opsjobs.cron_entries)
        ['nightly_sync']
        """

        def declare(task: Task) -> Task:
            if not isinstance(task, Task):
                raise DeclarationError(
                    f"cron takes a task, got {show_value(task)}: write @opsjobs.cron(…) above @opsjobs.task"
                )
            entry = make_entry(
                task,
                expression,
                zone=zone,
                overlap=overlap,
                catch_up=catch_up,
                args=args,
                name=name,
            )
            other = self.cron_entries.get(entry.name)
            if other is not None and other != entry:
                raise DeclarationError(
                    f"cron entry {entry.name} is declared twice, for {other.task} and for {entry.task}: "
                    "give one of them another name="
                )
            self.cron_entries[entry.name] = entry
            return task

        return declare

    def runbook(
        self,
        about: str,
        *,
        title: str,
        url: str | None = None,
        prerequisites: Mapping[str, Check | None] = {},
        cautions: Sequence[str] = (),
    ) -> None:
        """Declare what a person should read before a repair. Forensics shows it, and runs nothing of it.

        `about` is a class of incidents (`poison`), a kind of subject (`cron`) or one subject
        (`cron/nightly_sync`). `prerequisites` are names, each with a function that gets the subject and
        answers whether it is met: True, False, or None when it cannot tell; None in place of a function when
        only a person can answer. The functions run whenever the page is read, all at once, for at most a
        second, in an app context whose session cannot write. Raises `DeclarationError` with every fault.

        >>> def is_vendor_up(subject):
        ...     return True
        >>> opsjobs.runbook(
        ...     "cron/nightly_sync",
        ...     title="Pause the nightly sync",
        ...     url="https://wiki.example/nightly-sync",
        ...     prerequisites={"the vendor answers": is_vendor_up, "the ledger is closed": None},
        ...     cautions=["Invoices of today are not sent while it is paused."],
        ... )
        """
        known = {*DETECTORS, *KINDS}
        made = make_runbook(about, title, url, prerequisites, cautions, known)
        if self.runbooks.get(about, made) != made:
            raise DeclarationError(
                f"runbook {about} is declared twice: write one, or name a subject"
            )
        self.runbooks[about] = made


def _policy(given: Any, protocol: type, name: str) -> Any:
    if given is None:
        raise ConfigError(
            f"OpsJobs has no {name} policy: pass {name}=…, an object with the methods of "
            f"{protocol.__name__}. To start from one that is written for you, take OpsJobs out of the app "
            "again, run `flask opsjobs install`, and add to the app the lines that it prints"
        )
    return _optional_policy(given, protocol, name)


def _optional_policy(given: Any, protocol: type, name: str) -> Any:
    if given is not None and (fault := policy.find_policy_fault(given, protocol)):
        kind = given if isinstance(given, type) else type(given)
        raise ConfigError(f"the {name} policy {kind.__name__} {fault}")
    return given


def _serve_metrics(app: Flask, host: Host, token: str) -> None:
    require_prometheus("OPSJOBS_METRICS_TOKEN")
    from .telemetry.prometheus_route import make_metrics_blueprint

    app.register_blueprint(make_metrics_blueprint(host, token), url_prefix=host.settings.url_prefix)


def _hook(given: Any, name: str) -> Callable[[], object] | None:
    if given is not None and not callable(given):
        raise ConfigError(f"{name} is of type {type(given).__name__}: it must be a function")
    return cast("Callable[[], object] | None", given)


def _secrets(app: Flask) -> tuple[bytes, ...]:
    if not app.secret_key:
        raise ConfigError(
            "SECRET_KEY is not set: unique locks and page cursors are signed with it. "
            "Make one: python -c 'import secrets; print(secrets.token_hex())'"
        )
    fallbacks = app.config.get("SECRET_KEY_FALLBACKS") or []
    if not isinstance(fallbacks, list | tuple):
        raise ConfigError(
            f"SECRET_KEY_FALLBACKS is of type {type(fallbacks).__name__}: it must be a list of keys"
        )
    older = [_key(each, "a key of SECRET_KEY_FALLBACKS") for each in fallbacks]
    return (_key(app.secret_key, "SECRET_KEY"), *older)


def _key(value: Any, name: str) -> bytes:
    if not isinstance(value, str | bytes) or not value:
        # Not the value: it may be the secret in another type.
        raise ConfigError(
            f"{name} is of type {type(value).__name__}: it must be text or bytes, and not empty"
        )
    return value.encode() if isinstance(value, str) else value
