"""Reads all that a Redis holds, to compare it with what it holds later."""

from __future__ import annotations

from typing import Any

from redis import Redis


def read_all(redis: Redis) -> dict[bytes, Any]:
    """What each key holds, and the moment at which it expires.

    Not by DUMP: it writes the fields of a hash in the order of its table, which a read may move on.
    """
    read: dict[bytes, Any] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"set": redis.smembers,
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        b"stream": redis.xrange,
    }
    return {key: (read[redis.type(key)](key), redis.pexpiretime(key)) for key in redis.scan_iter()}
