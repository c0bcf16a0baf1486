"""Lets RQ and rq-dashboard read from Redis only: their housekeeping is answered with 0, and is not sent."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from ..engine.redis.connections import ReadOnlyPipeline, ReadOnlyRedis, command_name

# Reading workers and registries, RQ also removes what has expired. It works on when nothing was removed.
HOUSEKEEPING = frozenset(("SREM", "ZREM", "ZREMRANGEBYSCORE"))


class BridgeRedis(ReadOnlyRedis):
    """A client that only reads. It answers 0 to housekeeping, and raises `WriteRefused` for other writes."""

    @override
    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a read."""
        if command_name(args) in HOUSEKEEPING:
            return 0
        return super().execute_command(*args, **options)

    @override
    def pipeline(self, transaction: bool = False, shard_hint: Any = None) -> BridgePipeline:
        """Return a pipeline that only reads, and that answers 0 to housekeeping."""
        return BridgePipeline(self.connection_pool, self.response_callbacks, False, shard_hint)


class BridgePipeline(ReadOnlyPipeline):
    """Several reads in one round trip. Housekeeping among them keeps its place in the answers."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._unsent: list[int] = []

    @override
    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Add a read to the pipeline, or the place of an answer 0."""
        if command_name(args) in HOUSEKEEPING:
            self._unsent.append(len(self.command_stack) + len(self._unsent))
            return self
        return super().execute_command(*args, **options)

    @override
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the reads and return the answers."""
        unsent, self._unsent = self._unsent, []
        answers = super().execute(raise_on_error)
        for place in unsent:
            answers.insert(place, 0)
        return answers

    @override
    def reset(self) -> None:  # type: ignore[override]
        """Forget what was added."""
        super().reset()
        self._unsent = []
