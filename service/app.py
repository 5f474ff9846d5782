"""The composition root: the only place that puts concrete parts together.

Each function takes plain settings, builds what it needs, runs it and returns; nothing outlives it.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from service.broker.manager import ManagerBroker
from service.client import client, executor
from service.client.session import PATIENCE_SECONDS
from service.codec import PLAIN
from service.domain.commands import Hello
from service.errors import ServiceError
from service.settings import Address, ManagerSettings, WorkerSettings, parse_address, read_authkey
from service.wire import RELEASE

if TYPE_CHECKING:
    from service.broker.host import QueueHost
    from service.broker.journal import Journal
    from service.server.loop import Server
    from service.telemetry.http import HttpServer
    from service.telemetry.metrics import ManagerMetrics

#: Seconds that a readiness check may take, and one that asks the manager's own loop.
READY_SECONDS = 2.0
#: Seconds after which a consumer or supervisor gives a call up, says so, and makes it again.
DIAL_SECONDS = 5.0
#: Addresses to listen on are no addresses to connect to.
_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104  # mapped away from


class Client(client.Client):
    """A client of the manager at an address; see `service.client.client.Client` for its verbs."""

    def __init__(
        self,
        manager: str | None = None,
        *,
        authkey_file: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
        accept: Collection[str] = (PLAIN,),
    ) -> None:
        """Connect, when first used, to *manager* (`HOST:PORT`; else `SVC_MANAGER`, else this host).

        Args:
            manager: where the manager is.
            authkey_file: the file with the shared secret; else `SVC_AUTHKEY_FILE`, else the container secret.
            timeout: seconds that one call may take beyond what it waits for.
            accept: codecs of the results that are read; `pickle` runs what a worker sends.

        Raises:
            ConfigurationError: *manager* is not an address.
            AuthenticationFailed: there is no authkey, or not a safe one.
        """
        super().__init__(_source(manager, authkey_file, timeout), patience=timeout, accept=accept)


class Executor(executor.Executor):
    """The contract of `concurrent.futures` over a manager; see `service.client.executor.Executor`."""

    def __init__(
        self,
        manager: str | client.Client | None = None,
        *,
        authkey_file: str | os.PathLike[str] | None = None,
        codec: str = PLAIN,
        timeout: float = 10.0,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Connect, when first used, to *manager* (`HOST:PORT`, else `SVC_MANAGER`, else this host).

        Args:
            manager: where the manager is, or a client of it, whose address and authkey are used.
            authkey_file: the file with the shared secret; else `SVC_AUTHKEY_FILE`, else the container secret.
            codec: `plain` for names of tasks and data; `pickle` for any callable and any value.
            timeout: seconds that one call may take beyond what it waits for.
            patience: seconds for which the manager may be away before waiting futures fail.

        Raises:
            ConfigurationError: *manager* is not an address, or there is no such codec.
            AuthenticationFailed: there is no authkey, or not a safe one.
        """
        source = manager if isinstance(manager, client.Client) else _source(manager, authkey_file, timeout)
        super().__init__(source, codec=codec, patience=patience)


def _source(
    manager: str | None, authkey_file: str | os.PathLike[str] | None, timeout: float
) -> Callable[[], ManagerBroker]:
    """Return what connects to the manager that these settings name."""
    address = parse_address(manager or os.environ.get("SVC_MANAGER") or "127.0.0.1")
    return functools.partial(connect, address, read_authkey(authkey_file), timeout)


def connect(
    address: Address,
    authkey: bytes,
    timeout: float | None = 10.0,
    hello: Callable[[], Hello] | None = None,
) -> ManagerBroker:
    """Return a broker of the manager at *address*; it connects when it is first used."""
    return ManagerBroker((address.host, address.port), authkey, hello=hello, timeout=timeout)


def run_manager(settings: ManagerSettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises:
        Conflict: the journal is locked by another manager, or an address is in use.
        JournalError: the journal cannot be opened, read or, later, written.
    """
    from service.broker.host import QueueHost
    from service.server.manager import JobManager, listen
    from service.telemetry.logs import LogSettings
    from service.telemetry.metrics import Build, ManagerMetrics

    LogSettings(format=_log_format(settings.log_format), level=settings.log_level).configure()
    log = _logger()
    journal, sqlite = _open_journal(settings)
    metrics = ManagerMetrics(Build(RELEASE, sqlite))
    try:
        listener = listen(settings.listen.host, settings.listen.port)
        with _collector_paused():
            host = QueueHost(
                journal,
                limits=settings.limits,
                observer=metrics,
                exposition=lambda totals: metrics.exposition(totals).decode(),
            )
    except ServiceError:
        journal.close()
        raise
    log.info("journal_recovered", jobs=host.recovered_jobs, recovery_s=round(host.recovery_seconds, 3))
    manager = JobManager(
        host,
        listener,
        settings.authkey,
        min_free_bytes=settings.limits.min_free_bytes,
        connections_max=settings.max_connections,
    )
    server = manager.get_server()
    address = Address(*server.endpoint)
    try:
        with _manager_http(settings, server, host, metrics) as http, _stop_on_signals(server.stop):
            _announce(settings.announce, listen=address, http=http)
            log.info(
                "manager_started",
                listen=str(address),
                http=str(http or "off"),
                journal=str(settings.journal) if settings.durability != "memory" else "memory",
                durability=settings.durability,
                incarnation=journal.incarnation,
            )
            server.serve_forever()
    except ServiceError as error:
        log.error("journal_error", error=str(error))  # noqa: TRY400  # one clear line; the sentence says it all
        raise
    log.info("manager_stopped")
    return 0


def run_worker(settings: WorkerSettings) -> int:
    """Work until told to stop, or until every consumer has had its pill; return the exit code.

    Raises:
        ConfigurationError: a task module cannot be loaded.
        AuthenticationFailed: the manager refused the authkey.
        Conflict: the HTTP address is in use.
    """
    from service.telemetry.logs import LogSettings
    from service.worker.cpu import cpu_count
    from service.worker.options import WorkerOptions
    from service.worker.supervisor import Supervisor

    name = settings.name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    logs = LogSettings(format=_log_format(settings.log_format), level=settings.log_level, worker=name)
    logs.configure()
    cpu = cpu_count()
    supervisors: list[Supervisor] = []
    with _worker_http(settings, supervisors) as http:
        options = WorkerOptions(
            name=name,
            host=socket.gethostname(),
            consumers=settings.consumers or 2 * cpu.count,
            tasks=settings.tasks,
            queues=settings.queues,
            accept=settings.accept,
            preload=("service.worker.consumer", "service.app", "service.telemetry.logs"),
            grace=settings.grace,
            cpu=cpu,
            http=str(http) if http else "",
            release=RELEASE,
        )
        dial = functools.partial(_dial, settings.manager, settings.authkey)
        supervisor = Supervisor(options, dial, logs.configure)
        supervisors.append(supervisor)
        _announce(settings.announce, http=http)
        return supervisor.run()


def _dial(address: Address, authkey: bytes, hello: Callable[[], Hello]) -> ManagerBroker:
    """Connect a consumer or a supervisor; they call again, as long as it takes, after each timeout."""
    return connect(address, authkey, DIAL_SECONDS, hello)


def _open_journal(settings: ManagerSettings) -> tuple[Journal, str]:
    """Return the journal, and the release of SQLite where there is one."""
    from service.broker.journal import MemoryJournal

    if settings.durability == "memory":
        # No earlier manager had this incarnation, so that leases from before its start stay old.
        return MemoryJournal(1 + secrets.randbelow(1 << 20)), ""
    from service.server.journal import SqliteJournal, sqlite_release

    journal = SqliteJournal.open(
        settings.journal,
        settings.durability,
        ballast_bytes=settings.ballast_bytes,
        accept_loss=settings.accept_loss,
        backups=settings.backups,
    )
    if journal.kept_copy is not None:
        import structlog

        log = structlog.get_logger("svc.manager")
        log.warning("journal_loss_accepted", copy=str(journal.kept_copy))
    return journal, sqlite_release()


@contextmanager
def _manager_http(
    settings: ManagerSettings, server: Server, host: QueueHost, metrics: ManagerMetrics
) -> Iterator[Address | None]:
    """Serve metrics, health and discovery beside the manager."""
    from service.telemetry.http import HttpServer
    from service.telemetry.routes import manager_routes, scale_figures

    if settings.http is None:
        yield None
        return
    host_name, port = server.endpoint
    own = Address(_ANY.get(host_name, host_name), port)

    def ask(function: Callable[[], Any]) -> Any:
        return server.ask(function).result(READY_SECONDS)

    routes = manager_routes(
        exposition=lambda: metrics.exposition(ask(host.totals)),
        ready=lambda: _is_ready(own, settings.authkey),
        workers=lambda: ask(host.roster).workers,
        scale=lambda: scale_figures(ask(host.totals), metrics.mean_run_seconds),
    )
    with _serving(HttpServer((settings.http.host, settings.http.port), routes)) as address:
        yield address


@contextmanager
def _worker_http(settings: WorkerSettings, supervisors: list[Any]) -> Iterator[Address | None]:
    """Serve metrics and health beside the worker's supervisor, once there is one."""
    from service.telemetry.http import HttpServer
    from service.telemetry.routes import worker_routes
    from service.telemetry.worker_metrics import worker_exposition

    if settings.http is None:
        yield None
        return
    routes = worker_routes(
        exposition=lambda: worker_exposition(_snapshot(supervisors)),
        ready=lambda: _worker_is_ready(supervisors, settings),
    )
    with _serving(HttpServer((settings.http.host, settings.http.port), routes)) as address:
        yield address


@contextmanager
def _serving(server: HttpServer) -> Iterator[Address]:
    server.start()
    try:
        yield Address(*server.address)
    finally:
        server.stop()


def _snapshot(supervisors: list[Any]) -> Any:
    """Return what the supervisor knows, in the words of telemetry, which does not know the worker."""
    from service.telemetry.worker_metrics import WorkerSnapshot

    seen = supervisors[0].snapshot()
    return WorkerSnapshot(
        worker=seen.name,
        host=seen.host,
        version=RELEASE,
        start_method=seen.start_method,
        consumers=seen.consumers,
        busy_seconds=seen.busy_seconds,
        restarts=seen.restarts,
        cpu_cores=float(seen.cpu.count),
        cpu_source=seen.cpu.source,
        reconnects=seen.reconnects,
        draining=seen.draining,
    )


def _worker_is_ready(supervisors: list[Any], settings: WorkerSettings) -> tuple[bool, str]:
    """Return whether the worker has a consumer that can take jobs, and reaches the manager."""
    if not supervisors:
        return False, "starting"
    seen = supervisors[0].snapshot()
    if not seen.connected:
        return False, f"no connection to the manager at {settings.manager}"
    if not seen.consumers.get("busy", 0) + seen.consumers.get("idle", 0):
        return False, "no consumer is ready"
    return _is_ready(settings.manager, settings.authkey)


def _is_ready(address: Address, authkey: bytes) -> tuple[bool, str]:
    """Complete a handshake and a call, as a client does: a port that accepts proves nothing."""
    try:
        with connect(address, authkey, READY_SECONDS) as broker:
            broker.connect()
    except ServiceError as error:
        return False, str(error)
    return True, "ok"


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking, again and again, over the million objects of a recovery."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call *stop* on SIGTERM and SIGINT, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(path: Path | None, **addresses: Address | None) -> None:
    """Write the bound addresses to *path* as one JSON object, all or nothing."""
    if path is None:
        return
    content = json.dumps({name: str(address) for name, address in addresses.items() if address})
    draft = path.with_suffix(f"{path.suffix}.draft")
    draft.write_text(content, encoding="utf-8")
    draft.replace(path)


def _logger() -> Any:
    # Commands that only ask the manager something never log, and structlog takes long to import.
    import structlog

    return structlog.get_logger("svc.manager")


def _log_format(name: str) -> Any:
    return name if name in ("json", "console") else "auto"
