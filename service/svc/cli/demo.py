"""`svc demo`: runs the textbook example, two programs with queues, on a manager and a worker of this host."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from svc.cli.output import tell, write
from svc.errors import ServiceError

if TYPE_CHECKING:
    from svc.cli.children import Service
    from svc.client.client import BrokerClient

#: The module that the worker imports; it is part of svc.
DEMO_TASKS = "svc.cli.demo_tasks"
#: The numbers of the textbook program: the example of multiprocessing queues that `examples/textbook.py` has.
FANCY_OBJECTS = 3
TASKS = 40
#: Seconds that each part may take.
PART_SECONDS = 60.0
LOOK_SECONDS = 0.05


def demo(ctx: typer.Context) -> None:
    """Run the textbook program on svc, end to end.

    It starts a manager and a worker on free ports of this host, submits 3 objects and then 40 tasks of
    0.1 s each, prints each result as it comes, and drains: each consumer gets one pill, the order to stop. It
    leaves nothing behind.
    """
    from svc.cli.children import ended_by_signals, running_service

    free_ports = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    worker_flags = ("--name", "worker", "--http", "127.0.0.1:0", "--accept", "pickle", "--tasks", DEMO_TASKS)
    with ended_by_signals(), running_service(lambda: free_ports, worker_flags, quiet=True) as service:
        from svc.cli.wiring import open_client

        keys = service.pickle_key_file
        with open_client(ctx, service.connection, 10.0, pickle_key_file=keys) as client:
            _tell_consumers(client)
            _fancy_objects(client)
            _tasks(client)
            _drain(client, service)


def _tell_consumers(client: BrokerClient) -> None:
    end = time.monotonic() + PART_SECONDS
    while not (totals := client.stats()).consumers and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    consumers = "1 consumer" if totals.consumers == 1 else f"{totals.consumers} consumers"
    tell(f"svc {totals.release}: a manager and a worker are up, {consumers} so far")


def _fancy_objects(client: BrokerClient) -> None:
    """Send objects to consumers, which print their actions."""
    from svc.cli.demo_tasks import MyFancyClass

    objects = [MyFancyClass(f"Fancy Dan {number}") for number in range(FANCY_OBJECTS)]
    jobs = [client.submit(each.do_something) for each in objects]
    client.results(jobs, timeout=PART_SECONDS)


def _tasks(client: BrokerClient) -> None:
    """Print each product when its task ends."""
    from svc.cli.demo_tasks import Multiplication
    from svc.client.session import value_of
    from svc.client.specs import JobSpec

    jobs = client.submit_many("", [JobSpec(Multiplication(number, number)) for number in range(TASKS)])
    with _progress(len(jobs)) as advance:
        for outcome in client.follow(jobs, timeout=PART_SECONDS):
            write(f"Result: {value_of(outcome)}")
            advance()


def _drain(client: BrokerClient, service: Service) -> None:
    """Hand every consumer its pill, and wait for the end of the worker."""
    consumers = client.stats().consumers
    client.drain()
    code = service.worker.wait_ended(PART_SECONDS)
    if code != 0:
        raise ServiceError(f"the worker ended with exit code {code} instead of 0")
    tell(
        f"drained with {consumers} pills (the order to stop), one for each consumer; metrics were served at "
        f"http://{service.manager.addresses['http']}/metrics and http://{service.worker.addresses['http']}/metrics"
    )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, elsewhere nothing; the value counts one more finished task."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    # Lines of stdout go through the bar's console only if both are the same terminal.
    shared: Any = sys.stdout.isatty()
    columns = (TextColumn("tasks"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, redirect_stdout=shared, transient=True) as bar:
        task = bar.add_task("tasks", total=total)
        yield lambda: bar.advance(task)
