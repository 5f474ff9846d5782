"""Follows a stream by a consumer of its own, which the servers forget when nobody asks it for anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from svc.errors import ServiceError
from svc.server.journal.jetstream.connection import SILENCE, NatsConnection
from svc.server.journal.jetstream.log import LogMessage, Unanswered

if TYPE_CHECKING:
    from nats.aio.msg import Msg

#: Messages that are asked for ahead, and their bytes in one request, of which two may be open. The bytes
#: bound the memory for messages that were not taken yet. Each half of the messages costs a round trip and
#: a pause of the server: a busy host read 20,000 small ones in 48 s with 64 ahead and in 6 s with 1,024,
#: and a quiet one in 3.0 s with 1,024 and in 1.1 s with 8,192.
AHEAD: Final = 8192
AHEAD_BYTES: Final = 4 << 20
#: Messages that are yielded in one go, if so many have arrived, before other work of the loop gets its turn.
TOGETHER: Final = 64
#: A request for messages ends after so many seconds, and another one follows.
_EXPIRES_SECONDS: Final = 30
#: A consumer that has nothing to send says so once a second; after this silence its server is gone.
_HEARTBEAT_SECONDS: Final = 1
_SILENT_SECONDS: Final = 2.5
#: A consumer that nobody asks for messages is deleted by the servers after this time.
_UNUSED_SECONDS: Final = 30
_NANO: Final = 1_000_000_000
#: A status that only says that the consumer is alive, those of a request that is over, and a text of one.
_ALIVE, _OVER, _OVER_BYTES = "100", ("404", "408"), "exceeds maxbytes"


async def consume(
    connection: NatsConnection, stream: str, start: int, seconds: float
) -> AsyncGenerator[LogMessage]:
    """Yield the messages of *stream* from number *start* on, in order, until the consumer breaks.

    Of up to `TOGETHER` messages that have arrived, all but the last one say that there are more. A larger
    number comes first if the messages before it are gone. *seconds* bounds the wait for an answer.

    Raises:
        Unanswered: the connection or the consumer's server is gone, or a message was lost on the way.
    """
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    client = connection.client
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=arrived.put, pending_msgs_limit=0, pending_bytes_limit=0)
    name = f"svc-{token_hex(8)}"
    try:
        await _create(connection, stream, name, start, seconds)
        pull = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        progress = _Progress(name)
        while True:
            if progress.wanted <= AHEAD // 2:
                # Not `client`, which may have lost its server: then `connection.client` raises Unanswered.
                await connection.client.publish(pull, _request(AHEAD - progress.wanted), reply=inbox)
                progress.wanted = AHEAD
            found = progress.take(await _next(connection, arrived))
            for count, (sequence, data) in enumerate(found, 1):
                yield LogMessage(sequence, data, more=count < len(found))
    finally:
        with suppress(Unanswered, ServiceError, *SILENCE):
            await subscription.unsubscribe()
            await connection.ask(f"CONSUMER.DELETE.{stream}.{name}", None, seconds)


@dataclass
class _Progress:
    """How far a consumer is.

    Attributes:
        name: its name.
        wanted: how many messages it may still send.
        taken: how many it has sent.
    """

    name: str
    wanted: int = 0
    taken: int = 0

    def take(self, answers: list[Msg]) -> list[tuple[int, bytes]]:
        """Return the messages of the stream among *answers*, each with its number.

        Raises:
            Unanswered: the consumer has ended, or a message was lost on the way.
        """
        found = []
        for answer in answers:
            headers = answer.headers or {}
            status = headers.get("Status")
            if status is None:
                place = answer.metadata.sequence
                if place.consumer != self.taken + 1:
                    raise Unanswered(f"message {self.taken + 1} of the consumer {self.name} was lost")
                self.taken, self.wanted = place.consumer, self.wanted - 1
                found.append((place.stream, answer.data))
            elif status in _OVER or _OVER_BYTES in headers.get("Description", "").lower():
                self.wanted -= int(headers.get("Nats-Pending-Messages", self.wanted))
            elif status != _ALIVE:
                raise Unanswered(f"the consumer {self.name} has ended: {headers}")
        return found


async def _next(connection: NatsConnection, arrived: asyncio.Queue[Msg]) -> list[Msg]:
    """Return the messages that have arrived, up to `TOGETHER`; wait for one if there is none."""
    if not arrived.qsize():
        return [await connection.answer(arrived.get, _SILENT_SECONDS)]
    return [arrived.get_nowait() for _ in range(min(arrived.qsize(), TOGETHER))]


async def _create(connection: NatsConnection, stream: str, name: str, start: int, seconds: float) -> None:
    config = {
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": max(1, start),
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _UNUSED_SECONDS * _NANO,
    }
    body: dict[str, Any] = {"stream_name": stream, "config": config}
    answer = await connection.ask(f"CONSUMER.CREATE.{stream}.{name}", body, seconds)
    if "error" in answer:
        raise Unanswered(f"no consumer of {stream}: {answer['error'].get('description')}")


def _request(count: int) -> bytes:
    wishes = {
        "batch": count,
        "max_bytes": AHEAD_BYTES,
        "expires": _EXPIRES_SECONDS * _NANO,
        "idle_heartbeat": _HEARTBEAT_SECONDS * _NANO,
    }
    return json.dumps(wishes).encode()
