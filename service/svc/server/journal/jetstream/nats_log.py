"""The replicated log in a stream of NATS JetStream."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final

from svc.errors import JournalError
from svc.server.journal.jetstream.connection import NatsConnection
from svc.server.journal.jetstream.following import consume
from svc.server.journal.jetstream.log import (
    Fenced,
    LogFacts,
    LogLost,
    LogMessage,
    PrefixPurged,
    Tail,
    Unanswered,
)
from svc.server.journal.jetstream.room import room_of
from svc.server.journal.jetstream.server_reports import Report, risks_of
from svc.server.journal.jetstream.serving import serving_manager
from svc.server.journal.jetstream.stream_form import (
    ALL_SECONDS,
    ENVELOPE_BYTES,
    NO_STREAM,
    SETTINGS_OF_ALL,
    old_release,
    subject_of,
)

#: The wait for an answer in seconds. A healthy cluster takes milliseconds.
ANSWER_SECONDS: Final = 2.0
#: The same for an append, and for the question about the stream's end that resolves it. If the leader of the
#: stream steps down, it drops the appends that it was about to write, and says nothing (`StepDown` in the
#: raft.go of nats-server). Its successor leads some 25 ms later. All commits wait for one that was dropped,
#: so this wait is the pause if a server is stopped in order. It is ten times the 99th percentile of large
#: messages, 45 ms on two busy cores. On a slower disk there is a second try, which the stream refuses.
COMMIT_SECONDS: Final = 0.5
#: The pause before a broken consumer is made anew, in seconds.
_AGAIN_SECONDS: Final = 0.1
_WRONG_LAST: Final = (10071, 10164)
#: The stream is gone, is another one, or takes no message of that size: no repetition helps.
_HOPELESS: Final = (10054, NO_STREAM, 10060, 10109)
_NO_MESSAGE: Final = 10037


class NatsLog:
    """Messages of one stream; see `Log`. `opening.open_log` makes it."""

    def __init__(
        self,
        connection: NatsConnection,
        name: str,
        answer_seconds: float,
        warnings: Sequence[str] = (),
        replicas: int = 1,
        risks: tuple[str, ...] = (),
    ) -> None:
        """Use a stream that is checked, and that so many servers keep, with these *warnings* and *risks*."""
        #: What the servers told last with which they may lose writes, one sentence each.
        self.risks = risks
        self._replicas = replicas
        self._connection = connection
        self._name = name
        self._subject = subject_of(name)
        self._seconds = answer_seconds
        self._prompt = min(COMMIT_SECONDS, answer_seconds)
        self._warnings = tuple(warnings)

    async def append(self, message: bytes, *, expected: int, message_id: str) -> int:
        """Append *message* after message *expected*; see `Log.append`.

        Raises:
            JournalError: the stream is gone, or refuses messages of this size.
        """
        try:
            number = await self._append(message, expected, message_id)
        except Unanswered:
            await self._connection.note_not_taken()
            raise
        self._connection.note_taken()
        return number

    async def _append(self, message: bytes, expected: int, message_id: str) -> int:
        headers = {
            "Nats-Expected-Stream": self._name,
            "Nats-Expected-Last-Sequence": str(expected),
            "Nats-Msg-Id": message_id,
        }
        answer = await self._connection.request(self._subject, message, self._prompt, headers)
        found: dict[str, Any] = json.loads(answer.data)
        error = found.get("error")
        if not error:
            return int(found["seq"])
        code, text = error.get("err_code"), str(error.get("description"))
        if code in _WRONG_LAST:
            last = re.search(r"(\d+)\s*$", text)
            raise Fenced(int(last[1]) if last else None)
        if code in _HOPELESS:
            raise JournalError(f"the stream {self._name} takes no message ({text}); see to the NATS servers")
        raise Unanswered(f"append: {text}")

    async def tail(self) -> Tail:
        """Return the end of the log; see `Log.tail`."""
        found = await self._stored({"last_by_subj": self._subject}, self._prompt)
        return found or Tail((await self._state())["state"]["last_seq"], None)

    async def follow(self, start: int) -> AsyncGenerator[LogMessage]:
        """Yield the messages from number *start* on; see `Log.follow`."""
        following = max(1, start)
        while True:
            try:
                await self._check_purged(following)
                async with aclosing(
                    consume(self._connection, self._name, following, self._seconds)
                ) as arriving:
                    async for message in arriving:
                        if message.sequence > following:
                            await self._check_missing(following)
                            break  # it was lost on the way
                        yield message
                        following = message.sequence + 1
            except Unanswered:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def purge(self, below: int) -> None:
        """Delete all messages below *below*; see `Log.purge`."""
        # Beyond its end, JetStream would move the end: numbers would be skipped.
        last = int((await self._state())["state"]["last_seq"])
        answer = await self._connection.ask(
            f"STREAM.PURGE.{self._name}", {"seq": min(below, last + 1)}, self._seconds
        )
        if "error" in answer:
            raise Unanswered(f"purge: {answer['error'].get('description')}")

    async def facts(self) -> LogFacts:
        """Return the state of the log; see `Log.facts`."""
        found = await self._state()
        state, cluster = found["state"], found.get("cluster") or {}
        others = cluster.get("replicas") or []
        replicas = int(found["config"].get("num_replicas", 1))
        return LogFacts(
            first=state["first_seq"] or 1,
            last=state["last_seq"],
            messages=state["messages"],
            bytes=state["bytes"],
            leader=cluster.get("leader", ""),
            replicas=replicas,
            current=1 + sum(bool(other.get("current")) for other in others),
            offline=sum(bool(other.get("offline")) for other in others),
            message_max=self._connection.max_payload - ENVELOPE_BYTES,
            release=self._connection.release,
            warnings=self._warnings,
            followers=int(state.get("consumer_count", 0)),
        )

    async def room(self) -> int | None:
        """Return the bytes that the stream can still take; None if the servers do not tell. Set `risks`.

        Raises:
            Unanswered: there is no answer now.
        """
        account = await self._connection.ask("INFO", None, self._seconds)
        reports = await reports_of(self._connection)
        self.risks = (*risks_of(reports), *self._risks_of_own_server())
        return room_of(account, [report.get("data") or {} for report in reports], self._replicas)

    def _risks_of_own_server(self) -> Iterator[str]:
        """Yield the faults of the server of this connection, which may have another release by now."""
        if old := old_release(self._connection.release):
            yield f"the NATS server that this manager is connected to {old}"

    async def serving(self) -> str:
        """Return the addresses of the manager that serves the journal now; see `serving_manager`."""
        return await serving_manager(self._connection, self._name, self._seconds)

    async def close(self) -> None:
        """Close the connection; may be called twice."""
        await self._connection.close()

    async def _stored(self, which: dict[str, Any], seconds: float) -> Tail | None:
        """Return a message with its number from the leader of the stream, or None if there is none."""
        answer = await self._connection.ask(f"STREAM.MSG.GET.{self._name}", which, seconds)
        error = answer.get("error")
        if error is None:
            message = answer["message"]
            return Tail(int(message["seq"]), base64.b64decode(message.get("data", "")))
        if error.get("err_code") == _NO_MESSAGE:
            return None
        raise self._gone(error)

    async def _state(self) -> dict[str, Any]:
        answer = await self._connection.ask(f"STREAM.INFO.{self._name}", None, self._seconds)
        if "error" in answer:
            raise self._gone(answer["error"])
        return answer

    async def _check_purged(self, following: int) -> None:
        first = (await self._state())["state"]["first_seq"]
        if first > following:
            raise PrefixPurged(first)

    async def _check_missing(self, sequence: int) -> None:
        """Raise the reason if the stream does not have a message that it had."""
        await self._check_purged(sequence)
        if await self._stored({"seq": sequence}, self._seconds) is None:
            raise JournalError(
                f"message {sequence} of the stream {self._name} was deleted, and others before it are there; "
                "restore a backup of the stream"
            )

    def _gone(self, error: dict[str, Any]) -> Exception:
        text = error.get("description")
        if error.get("err_code") == NO_STREAM:
            return LogLost(f"the stream {self._name} is gone ({text}); restore a backup of it")
        return Unanswered(f"the stream {self._name}: {text}")


async def reports_of(connection: NatsConnection) -> list[Report]:
    """Return the reports of the servers on themselves; empty if they answer no user of this account."""
    answers = connection.ask_all(SETTINGS_OF_ALL, b'{"config":true}', ALL_SECONDS)
    return [json.loads(answer) async for answer in answers]
