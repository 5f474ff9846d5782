"""Runs a manager: the journal, the queue on it, the server loop, and the HTTP server."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from svc.addresses import Address
from svc.app.descriptors import room_for
from svc.app.journals import fault_reports, open_journal, output_store
from svc.app.leading import Lead, await_lead
from svc.app.manager_http import ManagerHttp, serving_answers
from svc.app.memory import memory_watch
from svc.app.notify_socket import NotifySocket
from svc.app.process import announce, logger
from svc.app.stop_signals import StopSignals
from svc.errors import ManagerBroken, ServiceError
from svc.journal_address import StreamAddress
from svc.key_files import read_role_keys
from svc.settings import ManagerSettings
from svc.telemetry.loading import load_structlog
from svc.wire import RELEASE

if TYPE_CHECKING:
    import socket
    import ssl

    from svc.broker.host import QueueHost
    from svc.broker.journal import Journal
    from svc.domain.limits import Limits
    from svc.server.connection_limits import Bounds
    from svc.server.keys import KeyRing
    from svc.server.manager import Server
    from svc.telemetry.metrics import ManagerMetrics

#: Bytes of all large values with --durability memory.
MEMORY_VALUES_BYTES = 256 * 1024 * 1024
#: Seconds by which the queue's clock is off from the host's and that is logged at the start.
CLOCK_OFF_SECONDS = 60.0


class Access(NamedTuple):
    """The keys that a manager accepts, and the TLS context of its connections."""

    keys: KeyRing
    tls: ssl.SSLContext | None


def run_manager(settings: ManagerSettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises:
        Conflict: the journal is locked by another manager, or an address is in use.
        JournalError: the journal cannot be opened, read or, later, written.
        ManagerBroken: the queue's state broke and could not be recovered in place.
    """
    load_structlog()
    from svc.server.collector import forget_survivors
    from svc.server.manager import listen
    from svc.telemetry.logs import LogSettings
    from svc.telemetry.metrics import ManagerMetrics

    LogSettings(format=settings.log_format, level=settings.log_level).configure()
    log = logger()
    access = _access(settings)
    with closing(StopSignals()) as signals, closing(ManagerHttp(settings)) as http:
        if isinstance(settings.journal, StreamAddress) and settings.durability != "memory":
            again, port = True, settings.listen.port
            while again:
                with closing(listen(settings.listen.host, port)) as listener:
                    port = listener.getsockname()[1]
                    again = _lead(settings, settings.journal, listener, access, signals, http)
                if again:
                    forget_survivors()
        else:
            journal, sqlite = open_journal(settings)
            try:
                listener = listen(settings.listen.host, settings.listen.port)
            except ServiceError:
                journal.close()
                raise
            _serve(settings, listener, access, journal, ManagerMetrics(RELEASE, sqlite), signals, http)
    log.info("manager_stopped")
    return 0


def _lead(
    settings: ManagerSettings,
    stream: StreamAddress,
    listener: socket.socket,
    access: Access,
    signals: StopSignals,
    http: ManagerHttp,
) -> bool:
    """Stand by for the lead of a stream, then serve, and hand over at the end.

    Return whether to begin anew: nobody has taken the lead that an operator had handed over.
    """
    from svc.telemetry.metrics import ManagerMetrics

    metrics = ManagerMetrics(RELEASE)
    led = await_lead(settings, stream, listener, signals, metrics, http)
    if led is None:
        return False
    lead, journal = led
    try:
        # A standby lives long: its keys and certificates may be others by now.
        access = _access_again(settings, logger()) or access
        _serve(settings, listener, access, journal, metrics, signals, http, lead)
    finally:
        again = lead.leave(lambda: signals.stop_asked)
    return again


def _serve(
    settings: ManagerSettings,
    listener: socket.socket,
    access: Access,
    journal: Journal,
    metrics: ManagerMetrics,
    signals: StopSignals,
    http: ManagerHttp,
    lead: Lead | None = None,
) -> None:
    """Serve the queue of *journal* until a signal."""
    from svc.broker.host import QueueHost
    from svc.broker.leading import LeadingHost
    from svc.server.heap import Heap
    from svc.server.manager import JobManager, Server
    from svc.server.recovery import Recovery

    log = logger()
    stopped: list[Callable[[], None]] = []
    kind: Callable[..., QueueHost] = QueueHost
    if lead is not None:
        kind = partial(
            LeadingHost,
            leads=lambda: lead.valid,
            leave=lambda: lead.begin_leave(stopped[0]),
            facts=lead.facts,
        )
    try:
        host = _recovered_host(settings, journal, metrics, log, kind)
    except ServiceError:
        journal.close()
        raise
    heap = Heap()
    manager = JobManager(
        Server(
            host,
            listener,
            access.keys,
            min_free_bytes=settings.limits.min_free_bytes,
            bounds=_bounds(settings, log),
            strict=settings.strict_auth,
            tls=access.tls,
            heap=heap,
        )
    )
    server = manager.get_server()
    server.recovery = Recovery(fault_reports(settings, metrics.sqlite))
    server.scarcity.memory = memory_watch(settings.memory_limit, heap.trim)
    address = Address(*server.endpoint)
    stopped.append(server.stop)
    try:
        with (
            http.showing(serving_answers(settings, server, host, metrics)) as shown_at,
            signals.passed_to(server.stop, lambda: _renew(settings, server, log)),
        ):
            _tell_start(settings, address, shown_at, journal, log)
            if lead is not None:
                lead.begin_service(journal.incarnation, server.stop)
            server.serve_forever()
        if lead is not None:
            lead.require_kept()
    except ManagerBroken as error:
        log.error("manager_broken", error=str(error))  # noqa: TRY400  # its text says it all
        raise
    except ServiceError as error:
        raise _told(error, lead, log) from None


def _told(error: ServiceError, lead: Lead | None, log: Any) -> ServiceError:
    """Tell the log why the journal cannot be written any more; return the error that says so."""
    clearer = error if lead is None else lead.explained(error)
    log.error("journal_error", error=str(clearer))
    return clearer


def _tell_start(
    settings: ManagerSettings, address: Address, http: Address | None, journal: Journal, log: Any
) -> None:
    """Tell the log, the file of `--announce` and systemd that the manager serves."""
    if settings.tls is None and not address.is_loopback:
        log.warning("listening_without_tls", listen=str(address))
    announce(settings.announce, listen=address, http=http)
    log.info(
        "manager_started",
        listen=str(address),
        http=str(http or "off"),
        journal=str(settings.journal) if settings.durability != "memory" else "memory",
        durability=journal.durability,
        incarnation=journal.incarnation,
    )
    NotifySocket(os.environ).ready()


def _bounds(settings: ManagerSettings, log: Any) -> Bounds:
    """Return the bounds of connections, for which there are file descriptors."""
    from svc.server.connection_limits import Bounds

    places, limit, needed = room_for(settings.max_connections, Bounds().half_open)
    if places < settings.max_connections:
        log.warning("descriptors_short", limit=limit, needed=needed, connections=places)
    return Bounds(
        connections=places,
        address_connections=settings.max_per_address or settings.max_connections,
        buffered_bytes=settings.max_buffered,
    )


def _recovered_host(
    settings: ManagerSettings,
    journal: Journal,
    metrics: ManagerMetrics,
    log: Any,
    kind: Callable[..., QueueHost],
) -> QueueHost:
    """Return the queue, a host of *kind*, in the state that the journal has."""
    from svc.server.collector import collector_paused, freeze_survivors

    freeze_survivors()
    with collector_paused():
        host = kind(
            journal,
            limits=_limits(settings),
            observer=metrics,
            exposition=metrics.collect,
            max_clock_jump=settings.max_clock_jump,
            outputs=output_store(settings),
        )
    log.info("journal_recovered", jobs=host.recovered_jobs, recovery_s=round(host.recovery_seconds, 3))
    if host.passed_over:
        log.warning("journal_contradicts_itself", passed_over=host.passed_over)
    totals = host.totals()
    if totals.clock_held or abs(totals.clock_offset) >= CLOCK_OFF_SECONDS:
        log.warning("clock_off", offset_s=round(totals.clock_offset, 3), held=totals.clock_held)
    return host


def _limits(settings: ManagerSettings) -> Limits:
    """Return the limits of the queue; in memory, there is less room for large values."""
    limits = settings.limits
    if settings.durability != "memory":
        return limits
    return replace(limits, all_values_bytes=min(limits.all_values_bytes, MEMORY_VALUES_BYTES))


def _keys(settings: ManagerSettings) -> KeyRing:
    """Return all active keys: the authkey, which may do everything, and one or two for each role."""
    from svc.domain.roles import Role
    from svc.server.keys import Key, KeyRing

    keys = [Key(Role.ADMIN, settings.read_authkey())]
    if settings.role_keys is not None:
        keys += [Key(Role(role), secret) for role, secret in read_role_keys(settings.role_keys)]
    return KeyRing(keys)


def _access(settings: ManagerSettings) -> Access:
    """Read the keys and certificates.

    Raises:
        ServiceError: one of them cannot be used.
    """
    return Access(_keys(settings), settings.tls.server_context() if settings.tls else None)


def _access_again(settings: ManagerSettings, log: Any) -> Access | None:
    """Read them again; return None if that fails, which the log tells."""
    try:
        return _access(settings)
    except ServiceError as error:
        log.error("keys_not_read", error=str(error))  # noqa: TRY400  # the sentence says it all
        return None


def _renew(settings: ManagerSettings, server: Server, log: Any) -> None:
    """Read keys and certificates again; if that fails, keep the current ones."""
    if (access := _access_again(settings, log)) is not None:
        server.ask(lambda: server.renew(access.keys, access.tls))
