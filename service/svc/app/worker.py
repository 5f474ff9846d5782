"""Runs a worker: the supervisor, the connections of its consumers, and the HTTP server."""

from __future__ import annotations

import functools
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from svc.addresses import Address, ManagerAddresses
from svc.app.clients import connect
from svc.app.notify_socket import NotifySocket
from svc.app.process import announce, is_ready, logger, serving
from svc.broker.manager import ManagerBroker
from svc.domain.commands import Hello
from svc.errors import Conflict
from svc.settings import WorkerSettings
from svc.telemetry.loading import load_structlog
from svc.wire import RELEASE
from svc.wire_tls import TlsFiles
from svc.worker.control_group import worker_group
from svc.worker.library_threads import limit_library_threads
from svc.worker.offspring import adopt_orphans
from svc.worker.preloading import modules_to_fork_from
from svc.worker.process import signals_held_back, start_forkserver

if TYPE_CHECKING:
    from svc.broker.base import Broker
    from svc.client.client import BrokerClient
    from svc.envelope import PickleKeys
    from svc.telemetry.http import HttpServer, Route

#: Seconds after which a consumer or supervisor gives up a call, reports that, and repeats it.
DIAL_SECONDS = 5.0
#: Modules that the forkserver imports once for all consumers.
PRELOAD = ("svc.app.preload",)


def run_worker(settings: WorkerSettings) -> int:
    """Run a worker until it is stopped or every consumer has had its pill; return the exit code.

    Raises:
        ConfigurationError: a task module cannot be loaded.
        AuthenticationFailed: the manager refused the authkey.
        Conflict: the HTTP address is in use.
    """
    # All threads inherit that; the supervisor's own one waits for the signals (see `svc.worker.signals`).
    with signals_held_back():
        return _run(settings)


def _run(settings: WorkerSettings) -> int:
    systemd = NotifySocket(os.environ)
    authkey = settings.read_authkey()
    pickle_keys = settings.read_pickle_keys(authkey)
    adopt_orphans()
    # The libraries read that as they are loaded, in the forkserver or in a consumer.
    limit_library_threads(os.environ)
    preload = modules_to_fork_from(PRELOAD, settings.preload)
    # Its start takes as long as the code from here to its first use, and runs in parallel.
    start_forkserver(preload)
    load_structlog()
    from svc.telemetry.logs import LogSettings
    from svc.worker.cpu import CONSUMERS_PER_CPU, cpu_count
    from svc.worker.options import WorkerOptions
    from svc.worker.supervisor import Supervisor

    name = settings.name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    logs = LogSettings(format=settings.log_format, level=settings.log_level, worker=name)
    logs.configure()
    cpu = cpu_count()
    supervisors: list[Supervisor] = []
    with ExitStack() as groups, _worker_http(settings, authkey, supervisors) as http:
        options = WorkerOptions(
            name=name,
            host=socket.gethostname(),
            consumers=settings.consumers or CONSUMERS_PER_CPU * cpu.count,
            tasks=settings.tasks,
            queues=settings.queues,
            accept=settings.accept,
            pickle_keys=pickle_keys,
            preload=preload,
            user_preload=settings.preload,
            idle_limit=settings.idle if settings.until_empty else 0.0,
            time_limit=settings.time_limit or 0.0,
            recycle_jobs=settings.recycle_jobs or 0,
            recycle_age=settings.recycle_age or 0.0,
            recycle_rss=settings.recycle_rss or 0,
            grace=settings.grace,
            import_timeout=settings.import_timeout,
            default_timeout=settings.default_timeout or None,
            cpu=cpu,
            http=str(http) if http else "",
            manager=str(settings.manager),
            release=RELEASE,
            output_bytes=settings.output_bytes,
            submitter=make_child_client,
            shell=settings.shell,
            shell_output=settings.shell_output,
            control_group=groups.enter_context(worker_group()),
        )
        dial = functools.partial(_dial, settings.manager, authkey, settings.tls)
        supervisor = Supervisor(options, dial, logs.configure, systemd.ready)
        supervisors.append(supervisor)
        announce(settings.announce, http=http)
        return supervisor.run()


def make_child_client(
    connect: Callable[[], Broker], keys: PickleKeys | None, under: Callable[[], int]
) -> BrokerClient:
    """Return the client by which tasks submit jobs, in the process of a consumer that needs one."""
    from svc.client.client import BrokerClient

    return BrokerClient(connect, pickle_keys=keys, under=under)


def _dial(
    address: ManagerAddresses, authkey: bytes, tls: TlsFiles | None, hello: Callable[[], Hello]
) -> ManagerBroker:
    """Connect a consumer or a supervisor; after each timeout they repeat the call, as long as it takes."""
    return connect(address, authkey, DIAL_SECONDS, hello, tls=tls)


@contextmanager
def _worker_http(
    settings: WorkerSettings, authkey: bytes, supervisors: list[Any]
) -> Iterator[Address | None]:
    """Serve metrics and health beside the worker's supervisor, once there is one."""
    from svc.telemetry.routes import shared, worker_routes
    from svc.telemetry.worker_metrics import worker_exposition

    if settings.http is None:
        yield None
        return
    routes = worker_routes(
        exposition=lambda: worker_exposition(_snapshot(supervisors)),
        ready=lambda: _worker_is_ready(supervisors, settings, authkey),
    )
    with serving(_http_server(settings.http, shared(routes), settings)) as address:
        yield address


def _http_server(at: Address, routes: Mapping[str, Route], settings: WorkerSettings) -> HttpServer:
    """Return a server that listens at *at*, or at a free port if that one is taken and may be another.

    Raises:
        Conflict: the port is taken, and was asked for.
    """
    from svc.telemetry.http import HttpServer

    server = HttpServer((at.host, at.port), routes, settings.http_hosts)
    try:
        server.start()
    except Conflict:
        if not settings.http_moves:
            raise
        server = HttpServer((at.host, 0), routes, settings.http_hosts)
        server.start()
        log = logger("svc.worker")
        log.info("http_moved", taken=str(at), http=str(Address(*server.address)))
    return server


def _snapshot(supervisors: list[Any]) -> Any:
    """Return the state of the worker as the type of telemetry, which must not import the worker."""
    from svc.telemetry.worker_metrics import WorkerSnapshot

    state = supervisors[0].snapshot()
    options = state.options
    return WorkerSnapshot(
        worker=options.name,
        host=options.host,
        version=options.release,
        start_method=options.start_method,
        consumers=state.consumers,
        busy_seconds=state.busy_seconds,
        restarts=state.restarts,
        cpu_cores=float(options.cpu.count),
        cpu_source=options.cpu.source,
        reconnects=state.reconnects,
        draining=state.draining,
        output_dropped=state.output_dropped,
        round_trip=state.round_trip or None,
    )


def _worker_is_ready(supervisors: list[Any], settings: WorkerSettings, authkey: bytes) -> tuple[bool, str]:
    """Return whether the worker has a consumer that can take jobs, and reaches the manager."""
    if not supervisors:
        return False, "starting"
    seen = supervisors[0].snapshot()
    if not seen.connected:
        return False, f"no connection to the manager at {settings.manager}"
    if not seen.consumers.get("busy", 0) + seen.consumers.get("idle", 0):
        return False, "no consumer is ready"
    return is_ready(settings.manager, authkey, settings.tls)
