"""The bucket of keys of the managers of one journal, in NATS: a key-value bucket with a TTL.

It has a connection of its own, so that no renewal waits behind a large frame. It is kept in memory: its
content matters for seconds only, and a renewal must not wait for a slow disk.
"""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from typing import Any, Final

from svc.errors import Forbidden, JournalError, JournalUnreachable
from svc.journal_address import NatsUser, StreamAddress
from svc.server.journal.jetstream.candidacy import BucketRemoved, Changed, Entry
from svc.server.journal.jetstream.connection import NatsConnection
from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.log import Unanswered
from svc.server.journal.jetstream.stream_form import BUCKET_SUFFIX, NO_PEERS, NO_STREAM, PEERS_SECONDS
from svc.wire_tls import TlsFiles

#: Error codes of nats-server: the last sequence is another one, no such message, the stream exists otherwise.
_WRONG_LAST: Final = (10071, 10164)
_NO_MESSAGE: Final = 10037
_EXISTS: Final = 10058
_BILLION: Final = 1_000_000_000
_AGAIN_SECONDS: Final = 0.25
#: A leader must have found another server before its key vanishes.
_DIAL_SECONDS: Final = 1


async def open_bucket(
    address: StreamAddress,
    timing: Timing,
    *,
    user: NatsUser | None = None,
    tls: TlsFiles | None = None,
    replicas: int = 3,
    seconds: float = 30.0,
) -> NatsKeyBucket:
    """Return the bucket of the journal at *address*; it is made if it does not exist.

    Args:
        address: the servers and the name of the journal.
        timing: the times of the rules of the lead.
        user: the user, if the servers want one.
        tls: this side's certificate and the CA, if the servers want TLS.
        replicas: the servers that keep it.
        seconds: the wait for the servers.

    Raises:
        JournalUnreachable: no server answers, or no leader is elected in time.
        JournalError: there is one of this name that is configured otherwise, or it cannot be made.
        AuthenticationFailed: the user is refused.
        Forbidden: the user may not make it.
        ConfigurationError: the TLS files cannot be used.
    """
    connection = NatsConnection(address, user, tls, dial_seconds=_DIAL_SECONDS)
    await connection.open(seconds)
    try:
        async with asyncio.timeout(seconds):
            await _make(connection, address.name + BUCKET_SUFFIX, timing, replicas)
    except TimeoutError:
        await connection.close()
        raise JournalUnreachable(
            f"the NATS servers do not make the bucket {address.name}{BUCKET_SUFFIX} within {seconds:g} s; "
            "see that most of them run, and that they know each other"
        ) from None
    except BaseException:
        await connection.close()
        raise
    return NatsKeyBucket(connection, address.name + BUCKET_SUFFIX, timing, replicas)


class NatsKeyBucket:
    """A `KeyBucket` in NATS; `open_bucket` makes it. If somebody removes it, it makes it again."""

    def __init__(self, connection: NatsConnection, name: str, timing: Timing, replicas: int) -> None:
        """Use the bucket *name*, which exists."""
        self._connection = connection
        self._stream = f"KV_{name}"
        self._form = _form(name, timing, replicas)
        self._prefix = f"$KV.{name}."
        self._seconds = timing.answer_within

    async def get(self, key: str) -> Entry | None:
        """See `KeyBucket.get`. The stream's leader answers, and no replica that may be behind."""
        found = await self._ask("STREAM.MSG.GET", {"last_by_subj": self._prefix + key})
        if found.get("error", {}).get("err_code") == _NO_MESSAGE:
            return None
        message = self._without_error(found)["message"]
        return Entry(base64.b64decode(message.get("data", "")), int(message["seq"]))

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        """See `KeyBucket.put`."""
        headers = {"Nats-Expected-Stream": self._stream}
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        answer = await self._connection.request(self._prefix + key, value, self._seconds, headers)
        found: dict[str, Any] = json.loads(answer.data)
        if found.get("error", {}).get("err_code") in _WRONG_LAST:
            raise Changed
        return int(self._without_error(found)["seq"])

    async def names(self, prefix: str) -> list[str]:
        """See `KeyBucket.names`."""
        found = await self._ask("STREAM.INFO", {"subjects_filter": f"{self._prefix}{prefix}>"})
        subjects = self._without_error(found)["state"].get("subjects") or {}
        return [subject.removeprefix(self._prefix) for subject in subjects]

    async def leave_server(self) -> None:
        """See `KeyBucket.leave_server`."""
        await self._connection.leave_server()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _ask(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        found = await self._connection.ask(f"{verb}.{self._stream}", body, self._seconds)
        if found.get("error", {}).get("err_code") == NO_STREAM:
            await self._make_again()
        return found

    def _without_error(self, found: dict[str, Any]) -> dict[str, Any]:
        if "error" in found:
            raise Unanswered(f"{self._stream}: {found['error'].get('description')}")
        return found

    async def _make_again(self) -> None:
        """Make a bucket that was removed: the key is gone, as if it had vanished; the leader writes it again.

        Raises:
            BucketRemoved: always.
        """
        with suppress(Forbidden):
            await self._connection.ask(f"STREAM.CREATE.{self._stream}", self._form, self._seconds)
        raise BucketRemoved(f"{self._stream} was removed; it is made again")


def _form(name: str, timing: Timing, replicas: int) -> dict[str, Any]:
    """Return the settings of a bucket, in the form that NATS' own tools give it."""
    return {
        "name": f"KV_{name}",
        "description": "svc: the leader among the managers of one journal",
        "subjects": [f"$KV.{name}.>"],
        "max_msgs_per_subject": 1,
        "max_age": int(timing.ttl * _BILLION),
        "duplicate_window": int(timing.ttl * _BILLION),
        "storage": "memory",
        "num_replicas": replicas,
        "discard": "new",
        "deny_delete": True,
        "allow_rollup_hdrs": True,
    }


async def _make(connection: NatsConnection, name: str, timing: Timing, replicas: int) -> None:
    """Make the bucket if it is missing, once enough servers have come."""
    form = _form(name, timing, replicas)
    loop = asyncio.get_running_loop()
    patience = loop.time() + PEERS_SECONDS
    while True:
        try:
            found = await connection.ask(f"STREAM.CREATE.KV_{name}", form, timing.ttl)
        except Unanswered:
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        error = found.get("error")
        if error is None:
            return
        if error.get("err_code") == NO_PEERS and loop.time() < patience:
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        if error.get("err_code") == _EXISTS:
            raise JournalError(
                f"the NATS bucket {name} is not as svc makes it: keys in memory with a TTL of "
                f"{timing.ttl:g} s and {replicas} replicas; remove it "
                f"(`nats kv del {name}`) while no manager runs, or take another name for the journal"
            )
        raise JournalError(f"the NATS bucket {name} cannot be made: {error.get('description')}")
