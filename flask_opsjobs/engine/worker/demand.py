"""Decides when a worker asks Postgres and Redis for jobs, and for how many."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from ...core.steady_clock import steady_seconds
from .reserved import MOST_BYTES, MOST_HELD, ReserveBudget
from .rq_link import RQLink
from .taker import Taker

# Without Redis, Postgres is asked so often while a child is idle.
WITHOUT_REDIS_SECONDS = 0.25
# Without Postgres, Redis is asked so often for a plain RQ job while a child is idle.
WITHOUT_POSTGRES_SECONDS = 0.25
# While plain RQ jobs run, Postgres is asked so often.
_ASK_AGAIN_SECONDS = 0.1
# What waits here for a busy child has been due for so long: an idle child of another worker had its chance.
_WAITED = timedelta(milliseconds=10)
# What waits in Redis, such as an urgent job, is asked for so often by a busy worker that has a backlog.
_REDIS_AGAIN_SECONDS = 0.05


@dataclass(frozen=True)
class WorkerJobs:
    """The jobs that a worker has.

    `sent` jobs have a child, `waiting` ones have none, and `free` children could get one now; `held` are
    all jobs whose end is not written, and `bytes` the arguments of those that wait. `mean` is how long a job
    runs. `left` is how many jobs the worker may still begin. `is_stuck`: every child runs its job for long.
    """

    sent: int
    waiting: int
    free: int
    held: int
    bytes: int
    mean: float | None
    left: int | None = None
    is_stuck: bool = False


class Demand:
    """What was asked of Postgres and Redis. For the main thread only.

    `_has_none_due`: Postgres had nothing due, so Redis tells of the next job. `_has_asked_redis`: whether it
    was asked to.
    """

    def __init__(
        self,
        taker: Taker,
        link: RQLink,
        budget: ReserveBudget,
        *,
        has_limits: bool,
        may_block: bool,
    ) -> None:
        """`may_block`: whether Redis may wait for the next job."""
        self._taker, self._link, self._budget = taker, link, budget
        self._has_limits, self._may_block = has_limits, may_block
        self._is_asking = self._has_none_due = self._has_asked_redis = False
        # Whether the worker takes fewer jobs until outcomes are written.
        self.is_full = False
        self._answered_at = 0.0
        # Whether Redis is asked beside Postgres when there is room for one job.
        self._is_turn_of_redis = False
        self._redis_asked_at = 0.0
        self._plain_asked_at = 0.0
        self._empty_pops: int | None = None

    def ask_for_plain(self) -> None:
        """Ask Redis for a plain RQ job, at once after one has ended and else now and then.

        It takes the place of what was asked of Redis before, which is asked again next time.
        """
        now = steady_seconds()
        if now - self._plain_asked_at >= WITHOUT_POSTGRES_SECONDS:
            self._plain_asked_at = now
            self._has_asked_redis = False
            self._link.want_plain()

    @property
    def waits_for_answer(self) -> bool:
        """Return whether the answer of Postgres is on its way."""
        return self._is_asking and not self._has_none_due

    def ask(self, jobs: WorkerJobs | None) -> None:
        """Ask for what the worker has room for; for nothing with None."""
        self.is_full = False
        room, ahead = (0, 0) if jobs is None else self._room(jobs)
        if not room and self._link.is_wanted:
            self._has_asked_redis = False
            self._link.call_off()
        if jobs is None or not (room or ahead):
            return
        if self._is_due():
            self._is_asking, self._has_asked_redis = True, False
            most_bytes = MOST_BYTES - jobs.bytes
            if room:
                self._ask_both(room, most_bytes)
            else:
                self._taker.want(ahead, most_bytes, waited=_WAITED)
                if steady_seconds() - self._redis_asked_at >= _REDIS_AGAIN_SECONDS:
                    self._ask_redis(min(ahead, self._budget.children))
        elif (
            room
            and jobs.free
            and self._has_none_due
            and not self._has_asked_redis
            and not self._taker.has_popped
        ):
            self._has_asked_redis, self._empty_pops = True, self._link.empty_pops
            self._link.want(min(room, jobs.free), may_block=self._may_block)

    def _ask_both(self, room: int, most_bytes: int) -> None:
        """Ask Postgres and Redis for jobs that begin now, so that neither starves the other.

        Redis holds no more than the prefetch. With room for one job it is asked every second time only: a
        job from each would let one of them wait here.
        """
        from_redis = min(room, 2 * self._budget.children)
        # Limited jobs come through Redis, and past it only while it is away.
        limited = from_redis if self._link.is_away and self._has_limits else 0
        self._taker.want(max(1, room - from_redis), most_bytes, limited)
        self._is_turn_of_redis = not self._is_turn_of_redis
        if room > 1 or self._is_turn_of_redis:
            self._ask_redis(from_redis)

    def _ask_redis(self, number: int) -> None:
        """Ask Redis for what it has now."""
        self._redis_asked_at = steady_seconds()
        self._link.want(number, may_block=False)

    def _room(self, jobs: WorkerJobs) -> tuple[int, int]:
        """Return how many jobs to take now, and how many that will wait here for a child."""
        free = jobs.free - jobs.waiting
        if jobs.is_stuck or jobs.bytes >= MOST_BYTES:
            room = free
        else:
            number = jobs.sent + jobs.waiting
            room = self._budget.missing(number, jobs.waiting, jobs.free, jobs.mean)
        if jobs.left is not None:
            room = min(room, jobs.left - jobs.waiting)
        left = MOST_HELD - jobs.held
        self.is_full = room > left
        # When outcomes are written, there is room for many at once.
        ahead = 0 if room > 2 * left else max(0, min(room, left))
        return min(ahead, max(free, self._budget.runs_soon(jobs.mean))), ahead

    def _is_due(self) -> bool:
        """Return whether to ask Postgres now."""
        if self._is_asking:
            return False
        is_again = (
            self._link.is_away and steady_seconds() - self._answered_at >= WITHOUT_REDIS_SECONDS
        )
        return not self._has_none_due or is_again

    def note_answer(self, *, is_empty: bool) -> None:
        """Note that Postgres has answered."""
        self._is_asking, self._has_none_due = False, is_empty
        self._answered_at = steady_seconds()

    def note_pop(self) -> None:
        """Note that Redis has answered."""
        self._has_asked_redis = False

    def renew(self, *, is_of_rq: bool = False) -> None:
        """Note that a job has ended: another may be due.

        After a plain RQ job Postgres is asked only now and then, since Redis tells of what has come.
        """
        is_recent = steady_seconds() - self._answered_at < _ASK_AGAIN_SECONDS
        self._has_none_due = self._has_none_due and is_of_rq and is_recent
        self._plain_asked_at = 0.0
        self._has_asked_redis = False
        self._empty_pops = None

    def found_nothing(self) -> bool:
        """Return whether nothing is due in Postgres and in Redis."""
        if not self._has_none_due or self._empty_pops is None:
            return False
        return self._link.empty_pops > self._empty_pops or self._link.is_away
