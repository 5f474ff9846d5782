"""The entry point of a consumer process."""

from __future__ import annotations

import faulthandler
import sys
from multiprocessing.connection import Connection

import structlog

from svc.codec import PICKLE
from svc.domain.job import CALL
from svc.errors import ConfigurationError
from svc.worker.consumer import Consumer
from svc.worker.consumer_exit import EXIT_CONFIGURATION
from svc.worker.leftovers import Leftovers
from svc.worker.options import ConfigureLogging, Connect, WorkerOptions
from svc.worker.orders import BROKEN, READY
from svc.worker.process import guard
from svc.worker.registry import Registry
from svc.worker.slot import Slot


def consume(
    options: WorkerOptions,
    name: str,
    slot: Slot,
    pipe: Connection,
    trace: Connection,
    connect: Connect,
    configure_logging: ConfigureLogging,
) -> None:
    """Run a consumer in this process; returns after a stop or a pill.

    Exits with `EXIT_CONFIGURATION` if a task module cannot be loaded, and sends the reason through *pipe*.
    """
    guard(f"svc: consumer {name}")
    # At a fatal signal the Python stack is written there, for the supervisor to read.
    faulthandler.enable(trace.fileno())
    configure_logging()
    # So log lines of tasks and libraries name the consumer too.
    structlog.contextvars.bind_contextvars(worker=options.name, consumer=name)
    try:
        registry = Registry.load(options.tasks)
        _check(registry, options)
    except ConfigurationError as error:
        pipe.send_bytes(BROKEN + str(error).encode(errors="backslashreplace"))
        sys.exit(EXIT_CONFIGURATION)
    pipe.send_bytes(READY + "\n".join(registry.names()).encode())
    leftovers = Leftovers()
    Consumer(options, name, registry, slot, pipe, connect, leftovers).run()
    leftovers.end()


def _check(registry: Registry, options: WorkerOptions) -> None:
    """Refuse modules without any task, unless their jobs bring callables of their own.

    Raises:
        ConfigurationError: a consumer would run nothing.
    """
    if options.tasks and registry.names() == [CALL] and PICKLE not in options.accept:
        modules = ", ".join(options.tasks)
        raise ConfigurationError(
            f"no task is in the modules {modules}: tasks are functions marked with `@task`, and the public "
            "functions that a module itself defines"
        )
