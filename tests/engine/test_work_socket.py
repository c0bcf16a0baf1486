"""Orders on their way to a child: each is received, or taken back, and never both."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from flask_opsjobs.engine.worker.frames import Order
from flask_opsjobs.engine.worker.work_socket import LARGE_BYTES, WorkSocket


@pytest.fixture
def orders() -> Iterator[WorkSocket]:
    with closing(WorkSocket()) as orders:
        yield orders


def keys_received_by_a_child(orders: WorkSocket) -> tuple[int, int]:
    """Fork a child that receives all it can: its pid, and the descriptor that it writes the keys to."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            orders.leave_to_parent()
            while (order := orders.receive()) is not None:
                os.write(writing, b"%d " % order[1][0])
        finally:
            os._exit(0)
    os.close(writing)
    return pid, reading


@pytest.mark.processes
def test_an_order_is_received_or_taken_back(orders: WorkSocket) -> None:
    pid, reading = keys_received_by_a_child(orders)
    sent: list[int] = []
    back: list[int] = []
    # The pipe takes the keys of some 15,000 orders before the child would wait.
    while len(sent) < 10_000:
        if orders.send(Order.JOB, (len(sent), 1), b"x" * 100):
            sent.append(len(sent))
        if len(sent) % 37 == 0:
            back += [key for key, _ in orders.take_back()]
    orders.end()
    os.waitpid(pid, 0)
    with open(reading, "rb") as file:
        received = [int(key) for key in file.read().split()]
    assert sorted([*received, *back]) == sent
    assert received == sorted(received), "in their order"
    assert received
    assert back


def test_a_large_order_is_passed_as_a_file(orders: WorkSocket) -> None:
    before = os.listdir("/proc/self/fd")
    for size in (LARGE_BYTES, LARGE_BYTES + 1, 3_000_000):
        body = os.urandom(size)
        assert orders.send(Order.JOB, (7, size), body)
        assert orders.receive() == (Order.JOB, (7, size), body)
    assert orders.send(Order.JOB, (7, 1), body)
    assert list(orders.take_back()) == [(7, 1)]
    assert os.listdir("/proc/self/fd") == before, "no file stays open"


def test_a_small_socket_takes_what_it_can(orders: WorkSocket) -> None:
    orders._to_child.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    body = b"x" * 20_000
    assert orders.send(Order.JOB, (1, 1), body), "as a file"
    number = 1
    while orders.send(Order.JOB, (number + 1, 1), b"y" * 1000):
        number += 1
    assert 1 < number < 20, "it is full"
    assert orders.receive() == (Order.JOB, (1, 1), body)
    assert [key for key, _ in orders.take_back()] == list(range(2, number + 1))
    assert orders.send(Order.JOB, (9, 9)), "it has room again"


def test_the_parent_ends_it(orders: WorkSocket) -> None:
    orders.send(Order.JOB, (1, 1), b"first")
    orders.end()
    assert orders.receive() == (Order.JOB, (1, 1), b"first")
    assert orders.receive() is None
    assert list(orders.take_back()) == []
    assert not orders.send(Order.JOB, (2, 1))
