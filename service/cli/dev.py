"""`svc dev`: a manager and a worker in one terminal."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import tell, tell_lines
from service.settings import DEFAULT_PORT

if TYPE_CHECKING:
    from service.cli.children import Service

_LOOK_SECONDS = 0.1
_DEMO_TASKS = "service.cli.demo_tasks"


def dev(
    tasks: Annotated[
        str,
        typer.Option("--tasks", envvar="SVC_TASKS", metavar="MODULE[,…]", help="Modules with your tasks."),
    ] = "",
    queues: Annotated[
        str,
        typer.Option("--queues", envvar="SVC_QUEUES", metavar="NAME[,…]", help="Queues to take jobs from."),
    ] = "default",
    consumers: Annotated[
        str, typer.Option("--consumers", envvar="SVC_CONSUMERS", metavar="auto|N", help="Consumer processes.")
    ] = "auto",
    accept: Annotated[
        str, typer.Option("--accept", envvar="SVC_ACCEPT", metavar="plain|pickle", help="Codecs of its jobs.")
    ] = "plain,pickle",
) -> int:
    """Run a manager and a worker in this terminal.

    They have a temporary journal and authkey, end with Ctrl-C, and listen on this host alone: on the
    usual ports, or on free ones where these are taken.
    """
    from service.cli.children import ended_by_signals, running_service

    modules = ",".join(name for name in (tasks, _DEMO_TASKS) if name)
    manager_flags = ("--listen", _local(DEFAULT_PORT), "--http", _local(9100))
    terms = ("--queues", queues, "--consumers", consumers, "--accept", accept)
    worker_flags = ("--tasks", modules, *terms, "--http", _local(9101))
    with ended_by_signals():
        try:
            with running_service(manager_flags, worker_flags, quiet=False) as service:
                _welcome(service)
                return _watch(service)
        except KeyboardInterrupt:
            tell_lines("\nstopped")
            return 0


def _watch(service: Service) -> int:
    """Wait until one of the two ends, which neither should; return its exit code, or 1."""
    children = (service.manager, service.worker)
    while all(child.process.poll() is None for child in children):
        time.sleep(_LOOK_SECONDS)
    ended = next(child for child in children if child.process.poll() is not None)
    tell(f"svc: the {ended.verb} has ended with exit code {ended.process.returncode}")
    return ended.process.returncode if ended.verb == "worker" else 1


def _welcome(service: Service) -> None:
    tell_lines(
        f"""
svc is ready: manager {service.listen}, metrics http://{service.manager_http}/metrics
In another terminal:

  export SVC_MANAGER={service.listen}
  export SVC_AUTHKEY_FILE={service.authkey_file}
  export SVC_PICKLE_KEY_FILE={service.pickle_key_file}
  svc submit multiply 6 7 --wait

Ctrl-C here ends both and forgets all jobs.
"""
    )


def _local(port: int) -> str:
    """Return the loopback address with *port*, or with 0 for a free one where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return "127.0.0.1:0"
    return f"127.0.0.1:{port}"
