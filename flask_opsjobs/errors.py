"""Declares the errors that flask_opsjobs raises. Each message names the thing, its state and the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .actions.shapes import Receipt


class OpsJobsError(Exception):
    """The base class of all errors of flask_opsjobs."""


class ConfigError(OpsJobsError, RuntimeError):
    """A setting, a policy, the host's database or its migrations are missing or wrong.

    Raised by `init_app`, by `flask opsjobs install` and by `flask db upgrade`, never later. Flask-Migrate
    prints a `RuntimeError` as a sentence, without a traceback.
    """


class DeclarationError(OpsJobsError):
    """A task, limit or cron entry is declared in a way that cannot work. Raised where it is declared."""


class InvalidArgs(OpsJobsError):
    """The arguments of a call do not fit its task's signature. Nothing was written.

    `errors` lists every error as `{"loc": "account_id", "msg": "…", "type": "…"}`. It never holds values,
    since these may be secret.
    """

    def __init__(self, task: str, errors: list[dict[str, Any]]) -> None:
        self.task = task
        self.errors = errors
        sentences = "; ".join(f"{error['loc']}: {error['msg']}" for error in errors)
        super().__init__(f"task {task}: {sentences}")


# The message of `InvalidWorkflow` has at most this many errors.
_SHOWN_ERRORS = 20


class InvalidWorkflow(OpsJobsError):
    """A workflow cannot be started as it was built. Nothing was written.

    `errors` lists every error as `{"step": "billing", "loc": "customer", "msg": "…", "type": "…"}`: the step
    and its argument, each empty when the error is of the whole. It never holds values of arguments.
    """

    def __init__(self, workflow: str, errors: list[dict[str, str]]) -> None:
        self.workflow = workflow
        self.errors = errors
        sentences = [_of_step(error) for error in errors[:_SHOWN_ERRORS]]
        if len(errors) > _SHOWN_ERRORS:
            sentences.append(f"and {len(errors) - _SHOWN_ERRORS:,} more errors")
        super().__init__(f"workflow {workflow}: " + "; ".join(sentences))


def _of_step(error: dict[str, str]) -> str:
    where = [f"step {error['step']}"] if error["step"] else []
    return ": ".join([*where, *([error["loc"]] if error["loc"] else []), error["msg"]])


class LimitReached(OpsJobsError):
    """A limiter with `when_full="reject"` was full. No job was enqueued; only the rejection was recorded.

    `limiter` and `partition` name the bucket. `code` is the code of the reason, as in `explain`.
    """

    def __init__(self, task: str, limiter: str, partition: str, code: str) -> None:
        self.task = task
        self.limiter = limiter
        self.partition = partition
        self.code = code
        of = f" for {partition!r}" if partition else ""
        super().__init__(
            f"task {task}: limiter {limiter} has no room{of} now ({code}): "
            'call again later, or declare when_full="hold"'
        )


class InvalidSignal(OpsJobsError):
    """A signal has a bad name, key or payload. Nothing was written."""


class InvalidBatch(OpsJobsError):
    """A batch cannot be opened as it was given. Nothing was written."""


class BatchClosed(OpsJobsError):
    """A member was to be added to a batch that is closed. Nothing was written."""


class UnknownBatch(OpsJobsError, LookupError):
    """There is no batch with this id: it was deleted, or never existed."""


class SchemaBehind(OpsJobsError, RuntimeError):
    """The database has no `opsjobs` schema, or one that is too old for this code; or a revision calls a step
    that only a newer release has.
    """


class SchemaAhead(OpsJobsError):
    """The database has an `opsjobs` schema that is newer than this code."""


class MigrationBlocked(OpsJobsError, RuntimeError):
    """A migration gave up: another transaction keeps one of our tables locked, or processes of this version
    run, and need the schema that a downgrade would take back.

    Nothing was changed.
    """


class UnknownJob(OpsJobsError, LookupError):
    """There is no job with this id: it was deleted, or never existed."""


class InvalidDeploy(OpsJobsError):
    """A deploy cannot be marked with this version or note. Nothing was written."""


class UnknownWorkflow(OpsJobsError, LookupError):
    """There is no workflow with this id: it was removed, or never existed."""


class UnknownSubject(OpsJobsError, LookupError):
    """A text names no subject of forensics, such as `job/42` or `queue/mail`."""


class WrongSession(OpsJobsError):
    """The given `session=` is bound to a database other than that of the jobs."""


class EngineUnavailable(OpsJobsError):
    """Redis or Postgres did not answer in time."""


class EmbeddedServerError(OpsJobsError):
    """An embedded PostgreSQL or Valkey cannot run: its package is missing, or its data do not fit."""


class TooManyActions(EngineUnavailable):
    """This process is already running as many operators' actions as it allows.

    Nothing was done: try again.
    """


class AuditUnwritable(OpsJobsError):
    """The audit cannot record a decision, so the action was not executed and nothing was written.

    Rescues go on.
    """


class AuditHeadMissing(AuditUnwritable):
    """The table `audit_head` has lost its row, which names the last decision of the chain."""


class AuditBlocked(AuditUnwritable):
    """A row outside the chain has the sequence of the audit's next row, or the head was changed."""


class ActionRefused(OpsJobsError):
    """An operator's action was refused and changed nothing.

    `code` is a stable word, `receipt` has the details.
    """

    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt
        self.code = receipt.code
        super().__init__(receipt.says)
