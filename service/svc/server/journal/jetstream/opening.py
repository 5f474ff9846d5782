"""Opens the replicated log: connects, checks the servers and the stream, and makes a stream if there is none.

Nothing is written before all checks have passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from svc.errors import ConfigurationError, JournalError, JournalUnreachable
from svc.journal_address import NatsUser, StreamAddress
from svc.server.journal.jetstream.connection import NatsConnection
from svc.server.journal.jetstream.log import Unanswered
from svc.server.journal.jetstream.nats_log import ANSWER_SECONDS, NatsLog, reports_of
from svc.server.journal.jetstream.server_reports import Report, risks_of, untold
from svc.server.journal.jetstream.stream_form import (
    NO_PEERS,
    NO_STREAM,
    PEERS_SECONDS,
    check_server,
    check_stream,
    new_stream,
    refusal_of,
)
from svc.wire_tls import TlsFiles

#: The wait for the servers before a start gives up, in seconds: an election takes up to 9.
OPEN_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 0.25


async def open_log(
    address: StreamAddress,
    *,
    user: NatsUser | None = None,
    tls: TlsFiles | None = None,
    replicas: int = 3,
    create: bool = True,
    synced: bool = True,
    seconds: float = OPEN_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> NatsLog:
    """Return the log in the stream of *address*; it is made if it does not exist.

    Args:
        address: the servers and the name.
        user: the user, if the servers want one.
        tls: this side's certificate and the CA, if the servers want TLS.
        replicas: the servers that must keep each message. One alone survives no loss of its disk.
        create: whether a stream may be made.
        synced: whether a server is refused that tells a fault with which it may lose writes; else it is a
            warning.
        seconds: the wait for the servers.
        answer_seconds: the wait for each later answer.

    Raises:
        JournalUnreachable: no server answers, or no leader is elected in time.
        AuthenticationFailed: the user is refused.
        Forbidden: the user lacks a permission.
        ConfigurationError: the servers or the stream have a setting with which messages may be lost.
        Conflict: the stream is not ours.
        JournalError: a newer release has made the stream, or it does not exist and must.
    """
    connection = NatsConnection(address, user, tls)
    try:
        await connection.open(seconds)
        async with asyncio.timeout(seconds):
            check_server(connection.release, connection.max_payload, jetstream=connection.has_jetstream)
            reports = await reports_of(connection)
            risks = list(risks_of(reports))
            _check_synced(risks, synced=synced)
            kept = await _find_stream(connection, address.name, replicas, answer_seconds, create=create)
    except TimeoutError:
        await connection.close()
        raise JournalUnreachable(
            f"the NATS servers of {address} have not elected a leader within {seconds:g} s; more than half "
            "of them must run and reach each other"
        ) from None
    except BaseException:
        await connection.close()
        raise
    return NatsLog(
        connection, address.name, answer_seconds, list(_warnings(kept, reports, risks)), kept, tuple(risks)
    )


async def _find_stream(
    connection: NatsConnection, name: str, replicas: int, seconds: float, *, create: bool
) -> int:
    """Check the stream, or make it, and return its replicas.

    It is repeated until there is an answer, and enough servers have come.
    """
    loop = asyncio.get_running_loop()
    patience = loop.time() + PEERS_SECONDS
    while True:
        try:
            found = await connection.ask(f"STREAM.INFO.{name}", None, seconds)
            error = found.get("error")
            if error is None:
                check_stream(found["config"], name, replicas)
                return int(found["config"].get("num_replicas", 1))
            if error.get("err_code") != NO_STREAM:
                raise refusal_of(error, name, replicas)
            if not create:
                raise JournalError(
                    f"there is no stream {name}; see that the name is right and the servers have their "
                    "disks, or restore a backup"
                )
            made = await connection.ask(f"STREAM.CREATE.{name}", new_stream(name, replicas), seconds)
            refusal = made.get("error")
            # Without one, another manager may have made it at the same time: the next round checks it.
            if refusal and (refusal.get("err_code") != NO_PEERS or loop.time() > patience):
                raise refusal_of(refusal, name, replicas)
            if refusal:
                await asyncio.sleep(_AGAIN_SECONDS)
        except Unanswered:
            await asyncio.sleep(_AGAIN_SECONDS)


def _check_synced(risks: list[str], *, synced: bool) -> None:
    if synced and risks:
        raise ConfigurationError("; ".join(risks))


def _warnings(kept: int, reports: list[Report], risks: list[str]) -> Iterator[str]:
    if kept == 1:
        yield "one server alone keeps the journal: a loss of its disk loses all jobs"
    yield from risks
    if silence := untold(reports, kept):
        yield silence
