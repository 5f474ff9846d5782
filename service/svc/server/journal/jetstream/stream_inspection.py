"""Describes and verifies a journal in a stream, without writing to it; a manager may serve it meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing

import msgspec

from svc.errors import JournalError
from svc.server.journal.copying import contents_of
from svc.server.journal.inspection import Check, jobs_found
from svc.server.journal.jetstream.log import LogFacts
from svc.server.journal.jetstream.open_stream import CountingReplica, OpenStream
from svc.server.journal.jetstream.replica import answered


class StreamInfo(msgspec.Struct, frozen=True):
    """What a stream holds. Sizes are in bytes; -1 is no row.

    Attributes:
        place: its address.
        incarnation: the term of the last manager.
        first: the number of the first row; `newest` is that of the last one.
        newest: as above.
        rows: the number of rows.
        events: the rows by kind.
        frames: the frames that are there, by kind.
        messages: the messages that are there; `first_message` and `last_message` are their numbers.
        first_message: as above.
        last_message: as above.
        bytes: the bytes that they take on one server.
        live_bytes: the bytes of the rows among them.
        leader: the server that leads the stream; empty during an election, or if there is one server alone.
        replicas: the servers that keep it; `current` of them have all messages, `offline` are not heard.
        current: as above.
        offline: as above.
        release: the release of the server that answered.
        served_by: the manager that serves it now; empty if none does.
        moved_to: the place to which it was moved; empty if it was not.
        copy_of: the journal of which it is a copy that is not complete; empty if it is none.
        warnings: facts at which an operator should look.
    """

    place: str
    incarnation: int
    first: int
    newest: int
    rows: int
    events: dict[str, int]
    frames: dict[str, int]
    messages: int
    first_message: int
    last_message: int
    bytes: int
    live_bytes: int
    leader: str
    replicas: int
    current: int
    offline: int
    release: str
    served_by: str
    moved_to: str
    copy_of: str
    warnings: tuple[str, ...]


def stream_info(stream: OpenStream) -> StreamInfo:
    """Describe the journal in *stream*.

    Raises:
        JournalError: it cannot be read.
    """
    with closing(CountingReplica(stream.log)) as replica:
        stream.fill(replica)
        facts = stream.ask(answered(stream.log.facts))
        kinds, first, newest = Counter[str](), -1, -1
        for newest, event in replica.mirror.replay():
            kinds[str(event.__struct_config__.tag)] += 1
            first = newest if first < 0 else first
        return StreamInfo(
            place=stream.place,
            incarnation=replica.served_term,
            first=first,
            newest=newest,
            rows=kinds.total(),
            events=dict(kinds),
            frames={kind.name.lower(): count for kind, count in sorted(replica.frames.items())},
            messages=facts.messages,
            first_message=facts.first,
            last_message=facts.last,
            bytes=facts.bytes,
            live_bytes=round(replica.table.live_bytes),
            leader=facts.leader,
            replicas=facts.replicas,
            current=facts.current,
            offline=facts.offline,
            release=facts.release,
            served_by=stream.ask(answered(stream.log.serving)),
            moved_to=replica.moved_to,
            copy_of=replica.copied_place(),
            warnings=facts.warnings,
        )


def verify_stream(stream: OpenStream) -> list[Check]:
    """Check the journal in *stream*: servers, frames, digests, rows, a replay of them, and its end."""
    facts = stream.ask(answered(stream.log.facts))
    found = [Check("servers", not facts.offline, _servers(facts))]
    with closing(CountingReplica(stream.log)) as replica:
        try:
            stream.fill(replica)
        except JournalError as error:
            return [*found, Check("frames", False, str(error))]
        frames = f"{replica.frames.total()} frames, {replica.ignored} messages of unfinished ones"
        found.append(Check("frames", True, frames))
        digests = f"{replica.compared} digests of the leaders compared, {replica.differing} differ"
        found.append(Check("digests", not replica.differing, digests))
        found += [_checked(name, look, replica) for name, look in _CHECKS.items()]
    return found


def _checked(name: str, look: Callable[[CountingReplica], str], replica: CountingReplica) -> Check:
    try:
        return Check(name, True, look(replica))
    except (JournalError, LookupError, ValueError, TypeError) as error:
        return Check(name, False, str(error))


def _servers(facts: LogFacts) -> str:
    told = f"{facts.replicas} replicas, {facts.current} current, {facts.offline} offline"
    return "; ".join((told, *facts.warnings))


def _rows(replica: CountingReplica) -> str:
    count = sum(1 for _ in replica.mirror.replay())
    if count != replica.table.rows:
        raise ValueError(f"{count} rows, and the frames have {replica.table.rows}")
    return f"{count} rows"


def _replay(replica: CountingReplica) -> str:
    return jobs_found(contents_of(replica.mirror.replay()))


def _end(replica: CountingReplica) -> str:
    if replica.moved_to:
        return f"the journal was moved to {replica.moved_to}"
    replica.require_served()
    return f"message {replica.position}, of term {replica.term}"


_CHECKS: dict[str, Callable[[CountingReplica], str]] = {"rows": _rows, "replay": _replay, "end": _end}
