"""Runs a manager: the journal, the queue on it, the server loop, and the HTTP server."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from svc.addresses import Address
from svc.app.memory import memory_watch
from svc.app.process import READY_SECONDS, announce, is_ready, logger, serving
from svc.errors import BrokerError, JournalError, ManagerBroken, ServiceError
from svc.key_files import read_role_keys
from svc.settings import ManagerSettings
from svc.telemetry.loading import load_structlog
from svc.wire import RELEASE
from svc.wire_tls import ANY_NAME

if TYPE_CHECKING:
    from svc.broker.host import QueueHost
    from svc.broker.journal import Journal
    from svc.domain.commands import Command
    from svc.domain.replies import Reply
    from svc.server.fault_reports import FaultReports
    from svc.server.keys import KeyRing
    from svc.server.manager import Server
    from svc.telemetry.metrics import ManagerMetrics

R = TypeVar("R", bound="Reply")
#: Seconds by which the queue's clock is off from the host's and that is logged at the start.
CLOCK_OFF_SECONDS = 60.0
#: Addresses to listen on are no addresses to connect to.
_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104  # mapped away from


def run_manager(settings: ManagerSettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises:
        Conflict: the journal is locked by another manager, or an address is in use.
        JournalError: the journal cannot be opened, read or, later, written.
        ManagerBroken: the queue's state broke and could not be recovered in place.
    """
    load_structlog()
    from svc.server.connection_limits import Bounds
    from svc.server.heap import Heap
    from svc.server.manager import JobManager, Server, listen
    from svc.server.recovery import Recovery
    from svc.telemetry.logs import LogSettings
    from svc.telemetry.metrics import ManagerMetrics

    LogSettings(format=settings.log_format, level=settings.log_level).configure()
    log = logger()
    keys, tls = _keys(settings), settings.tls.server_context() if settings.tls else None
    journal, sqlite = _open_journal(settings)
    metrics = ManagerMetrics(RELEASE, sqlite)
    try:
        listener = listen(settings.listen.host, settings.listen.port)
        host = _recovered_host(settings, journal, metrics, log)
    except ServiceError:
        journal.close()
        raise
    heap = Heap()
    manager = JobManager(
        Server(
            host,
            listener,
            keys,
            min_free_bytes=settings.limits.min_free_bytes,
            bounds=Bounds(
                connections=settings.max_connections,
                address_connections=settings.max_per_address or settings.max_connections,
                buffered_bytes=settings.max_buffered,
            ),
            strict=settings.strict_auth,
            tls=tls,
            heap=heap,
        )
    )
    server = manager.get_server()
    server.recovery = Recovery(_fault_reports(settings, sqlite))
    server.scarcity.memory = memory_watch(settings.memory_limit, heap.trim)
    address = Address(*server.endpoint)
    try:
        with (
            _manager_http(settings, server, host, metrics) as http,
            _on_signals(server.stop, lambda: _renew(settings, server, log)),
        ):
            if settings.tls is None and not address.is_loopback:
                log.warning("listening_without_tls", listen=str(address))
            announce(settings.announce, listen=address, http=http)
            log.info(
                "manager_started",
                listen=str(address),
                http=str(http or "off"),
                journal=str(settings.journal) if settings.durability != "memory" else "memory",
                durability=settings.durability,
                incarnation=journal.incarnation,
            )
            server.serve_forever()
    except ManagerBroken as error:
        log.error("manager_broken", error=str(error))  # noqa: TRY400  # its text says it all
        raise
    except ServiceError as error:
        log.error("journal_error", error=str(error))  # noqa: TRY400  # as above
        raise
    log.info("manager_stopped")
    return 0


def _recovered_host(
    settings: ManagerSettings, journal: Journal, metrics: ManagerMetrics, log: Any
) -> QueueHost:
    """Return the queue in the state that the journal has."""
    from svc.broker.host import QueueHost
    from svc.server.recovery import collector_paused

    with collector_paused():
        host = QueueHost(
            journal,
            limits=settings.limits,
            observer=metrics,
            exposition=metrics.collect,
            max_clock_jump=settings.max_clock_jump,
        )
    log.info("journal_recovered", jobs=host.recovered_jobs, recovery_s=round(host.recovery_seconds, 3))
    if host.passed_over:
        log.warning("journal_contradicts_itself", passed_over=host.passed_over)
    totals = host.totals()
    if totals.clock_held or abs(totals.clock_offset) >= CLOCK_OFF_SECONDS:
        log.warning("clock_off", offset_s=round(totals.clock_offset, 3), held=totals.clock_held)
    return host


def _keys(settings: ManagerSettings) -> KeyRing:
    """Return all active keys: the authkey, which may do everything, and one or two for each role."""
    from svc.domain.roles import Role
    from svc.server.keys import Key, KeyRing

    keys = [Key(Role.ADMIN, settings.read_authkey())]
    if settings.role_keys is not None:
        keys += [Key(Role(role), secret) for role, secret in read_role_keys(settings.role_keys)]
    return KeyRing(keys)


def _renew(settings: ManagerSettings, server: Server, log: Any) -> None:
    """Read keys and certificates again; if that fails, keep the current ones."""
    try:
        keys, tls = _keys(settings), settings.tls.server_context() if settings.tls else None
    except ServiceError as error:
        log.error("keys_not_read", error=str(error))  # noqa: TRY400  # the sentence says it all
        return
    server.ask(lambda: server.renew(keys, tls))


def _open_journal(settings: ManagerSettings) -> tuple[Journal, str]:
    """Return the journal, and the release of SQLite if there is one."""
    from svc.broker.journal import MemoryJournal

    if settings.durability == "memory":
        # No earlier manager had this incarnation, so leases from before its start stay invalid.
        return MemoryJournal(1 + secrets.randbelow(1 << 20)), ""
    from svc.app.journal_marker import leave_marker, require_journal
    from svc.server.journal import SqliteJournal, sqlite_release

    if settings.journal_marker is not None:
        require_journal(settings.journal_marker, settings.journal)
    journal = SqliteJournal.open(
        settings.journal,
        settings.durability,
        ballast_bytes=settings.ballast_bytes,
        accept_loss=settings.accept_loss,
        backups=settings.backups,
        must_exist=settings.journal_must_exist,
        accept_network=settings.accept_network_filesystem,
    )
    if settings.journal_marker is not None:
        try:
            leave_marker(settings.journal_marker, settings.journal)
        except JournalError:
            journal.close()
            raise
    log = logger()
    if journal.created:
        log.info("journal_created", path=str(settings.journal))
    if journal.kept_copy is not None:
        log.warning("journal_loss_accepted", copy=str(journal.kept_copy))
    return journal, sqlite_release()


def _fault_reports(settings: ManagerSettings, sqlite: str) -> FaultReports | None:
    """Return the store for reports of the manager's own faults, beside the journal; None without one."""
    from svc.server.fault_reports import FaultReports

    if settings.durability == "memory":
        return None
    return FaultReports(Path(f"{settings.journal}.faults").absolute(), sqlite=sqlite)


@contextmanager
def _manager_http(
    settings: ManagerSettings, server: Server, host: QueueHost, metrics: ManagerMetrics
) -> Iterator[Address | None]:
    """Serve metrics, health and discovery beside the manager."""
    from svc.domain.commands import Exposition, Stats
    from svc.domain.replies import Text, Totals
    from svc.telemetry.http import HttpServer
    from svc.telemetry.routes import manager_routes, scale_figures, shared

    if settings.http is None:
        yield None
        return
    host_name, port = server.endpoint
    own = Address(_ANY.get(host_name, host_name), port)
    # The manager connects to itself, by an address that its certificate need not have.
    own_tls = replace(settings.tls, name=ANY_NAME) if settings.tls else None

    def ask(function: Callable[[], Any]) -> Any:
        return server.ask(function).result(READY_SECONDS)

    def answer(command: Command, kind: type[R]) -> R:
        replies: Future[list[Reply]] = Future()
        ask(lambda: host.ask([command], replies.set_result))
        (reply,) = replies.result(READY_SECONDS)
        if isinstance(reply, kind):
            return reply
        raise BrokerError(str(reply))

    def exposition() -> bytes:
        return answer(Exposition(), Text).text.encode()

    def ready() -> tuple[bool, str]:
        # The authkey may have changed since the start.
        return is_ready(own, settings.read_authkey(), own_tls)

    routes = manager_routes(
        exposition=exposition,
        ready=ready,
        workers=lambda: ask(host.roster).workers,
        scale=lambda: scale_figures(answer(Stats(), Totals), metrics.mean_run_seconds()),
    )
    beside = HttpServer((settings.http.host, settings.http.port), shared(routes), settings.http_hosts)
    with serving(beside) as address:
        yield address


@contextmanager
def _on_signals(stop: Callable[[], None], renew: Callable[[], None]) -> Iterator[None]:
    """Call *stop* on SIGTERM and SIGINT, and *renew* on SIGHUP, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        (renew if number == signal.SIGHUP else stop)()

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
