"""The entry point of a consumer process."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from multiprocessing.connection import Connection
from typing import NoReturn

import structlog

from svc.codec import PICKLE
from svc.domain.job import CALL
from svc.errors import ConfigurationError
from svc.received_files import remove_lost
from svc.worker import control_group
from svc.worker.capture import Capture, CapturePipes, PipeCapture
from svc.worker.code_version import code_version
from svc.worker.consumer import Consumer
from svc.worker.consumer_exit import EXIT_CLOSED, EXIT_CONFIGURATION, EXIT_NO_DESCRIPTORS
from svc.worker.hooks import Hooks
from svc.worker.interruption import Interruption
from svc.worker.leftovers import Leftovers
from svc.worker.options import ConfigureLogging, Connect, WorkerOptions
from svc.worker.orders import BROKEN, ENDING, READY
from svc.worker.process import guard
from svc.worker.registry import Registry, Task
from svc.worker.slot import Slot
from svc.worker.stacks import write_stacks_to

_STDERR = 2


def consume(
    options: WorkerOptions,
    name: str,
    slot: Slot,
    pipe: Connection,
    trace: Connection,
    connect: Connect,
    configure_logging: ConfigureLogging,
    pipes: CapturePipes | None = None,
) -> None:
    """Run a consumer in this process; returns after a stop or a pill.

    With *pipes*, the output of tasks goes there, and only the log to the worker's stderr.
    Exits with `EXIT_CONFIGURATION` if a task module cannot be loaded or a hook of the start fails, and sends
    the reason through *pipe*.
    """
    guard(f"svc: consumer {name}")
    control_group.join(options.control_group)
    write_stacks_to(trace)
    capture = _captured(pipes, slot, configure_logging)
    # So log lines of tasks and libraries name the consumer too.
    structlog.contextvars.bind_contextvars(worker=options.name, consumer=name)
    try:
        registry = Registry.load(options.tasks, _own_tasks(options, capture))
        code = code_version(options.tasks)
        _check(registry, options)
        hooks = Hooks.load(options.tasks)
        hooks.start()
    except ConfigurationError as error:
        pipe.send_bytes(BROKEN + str(error).encode(errors="backslashreplace"))
        sys.exit(EXIT_CONFIGURATION)
    pipe.send_bytes(READY + "\n".join((code, *registry.names())).encode())
    remove_lost()
    interruption = Interruption(slot)
    interruption.install()
    leftovers = Leftovers()
    consumer = Consumer(options, name, registry, slot, pipe, connect, leftovers, interruption)
    consumer.capture, consumer.connection.code = capture, code
    _run(consumer)
    if hooks.has_stop:
        with contextlib.suppress(OSError):
            pipe.send_bytes(ENDING)
        hooks.stop()
    leftovers.end()


def _run(consumer: Consumer) -> None:
    """Run a consumer; if a task has closed its descriptors or left none free, exit with a code for that."""
    try:
        consumer.run()
    except OSError as error:
        if error.errno == errno.EMFILE:
            _end_without_descriptors(error)
        if error.errno != errno.EBADF:
            raise
        sys.stdout = sys.stderr = None  # to flush them would fail, with another code
        sys.exit(EXIT_CLOSED)


def _end_without_descriptors(error: OSError) -> NoReturn:
    """Exit at once: a thread that a task has left, and that opens descriptors, may never end."""
    structlog.get_logger().error("descriptors_exhausted", error=str(error))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(EXIT_NO_DESCRIPTORS)


def _own_tasks(options: WorkerOptions, capture: Capture) -> list[Task]:
    """Return the tasks of svc's own that the worker was given with its options."""
    if not options.shell:
        return []
    # Imported here, because most workers run none.
    from svc.worker.shell import Shell

    return [Shell(options.shell_output, capture).task()]


def _captured(pipes: CapturePipes | None, slot: Slot, configure_logging: ConfigureLogging) -> Capture:
    """Set logging up, and capture what else this process writes if there are *pipes*."""
    if pipes is None:
        configure_logging(_STDERR)
        return Capture()
    capture = PipeCapture(pipes, slot)
    configure_logging(capture.log_descriptor)
    capture.join_logging()
    return capture


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
