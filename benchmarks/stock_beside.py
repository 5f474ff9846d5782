"""Stock clients beside processes that keep the cores busy: the rate, and the server's processor time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks import stock
from benchmarks.processes import processor_clock
from benchmarks.systems import Service, StockServer

#: The numbers of busy processes.
BUSY = (0, 1, 2, 4)


@dataclass(frozen=True)
class Beside:
    """One measure of one server.

    Attributes:
        server: its name.
        busy: the processes that were busy beside it.
        rate: items a second from four producers to four consumers.
        server_seconds: processor time of the server for an item.
    """

    server: str
    busy: int
    rate: float
    server_seconds: float


def measure(durabilities: Sequence[str], items: int, busy: Sequence[int] = BUSY) -> Iterator[Beside]:
    """Pass *items* through each server, beside each number of *busy* processes in turn."""
    with ExitStack() as stack:
        server = stack.enter_context(StockServer())  # it forks this process, so it starts first
        services = (stack.enter_context(Service(each, consumers=0)) for each in durabilities)
        servers: tuple[stock.Server, ...] = (server, *services)
        for number in busy:
            with _busy(number):
                for each in servers:
                    spent = processor_clock(each.pid)
                    before = spent()
                    rate = stock.many_clients(each, items)
                    yield Beside(each.name, number, rate, (spent() - before) / items)


@contextmanager
def _busy(number: int) -> Iterator[None]:
    """Keep *number* processes busy meanwhile."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([stock.__name__, __name__])
    children = [context.Process(target=_spin, daemon=True) for _ in range(number)]
    for child in children:
        child.start()
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.join()


def _spin() -> None:
    while True:
        pass
