"""Every error that flask_opsjobs raises at a host; each message names its subject, its state and the fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .actions.shapes import Receipt


class OpsJobsError(Exception):
    """The parent of every error below."""


class ConfigError(OpsJobsError):
    """A setting, a policy or the host's database is missing or wrong; raised by `init_app`, never later."""


class DeclarationError(OpsJobsError):
    """A task is declared in a way that cannot work; raised where the function is decorated."""


class InvalidArgs(OpsJobsError):
    """A call does not fit its task's signature. Nothing was written.

    `errors` lists all of them as `{"loc": "account_id", "msg": "…", "type": "…"}`, never with the values,
    since values may be secret.
    """

    def __init__(self, task: str, errors: list[dict[str, Any]]) -> None:
        self.task = task
        self.errors = errors
        said = "; ".join(f"{error['loc']}: {error['msg']}" for error in errors)
        super().__init__(f"task {task}: {said}")


class LimitReached(OpsJobsError):
    """A limiter that rejects had no room for a call. Nothing was written but the evidence, which stays.

    `limiter` and `partition` say which bucket; `code` is the reason, as `explain` names it.
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


class SchemaBehind(OpsJobsError):
    """The database has no `opsjobs` schema, or an older one than this code runs on."""


class SchemaAhead(OpsJobsError):
    """The database has a newer `opsjobs` schema than this code knows."""


class UnknownTask(OpsJobsError):
    """A job names a task that this process has not imported."""


class UnknownJob(OpsJobsError, LookupError):
    """There is no job with this id; perhaps there was one."""


class RefusedSession(OpsJobsError):
    """`session=` is bound to another database than the one that holds the jobs."""


class EngineUnavailable(OpsJobsError):
    """Redis or Postgres did not answer in time."""


class TooManyActions(EngineUnavailable):
    """As many operators as this process allows at once are acting already. Nothing was done: try again."""


class AuditUnwritable(OpsJobsError):
    """The audit cannot take another row, so nothing can be decided; nothing was written. Rescues go on."""


class AuditHeadMissing(AuditUnwritable):
    """The row that the audit's chain goes on from is gone."""


class AuditBlocked(AuditUnwritable):
    """The place of the audit's next row is taken by a row that is outside the chain, or cannot be used."""


class ActionRefused(OpsJobsError):
    """An operator's action was refused and changed nothing. `receipt` says more, `code` is a stable word."""

    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt
        self.code = receipt.code
        super().__init__(receipt.says)
