"""The largest floods of one key, sent at a manager of its own process with default settings (threat T7).

The other attacks are made by `benchmarks --only hostile`, on a manager with a million jobs.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.attack_target import MEBIBYTE, TASK, put, repeated
from benchmarks.hostile import PEAK_BYTES_MAX, bound, most_processor_seconds
from benchmarks.line import Line, frame
from benchmarks.processes import peak_bytes, resident_bytes, slowness
from benchmarks.systems import Service
from svc import wire
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms
from svc.domain.roles import Role

#: Bytes of a frame of commands, and of a job: the default limit of a job is a little more.
FRAME_BYTES, MAPS = 57_000_000, 16_000_000
NAMES = 57
#: Bytes that 57 refused names may leave behind: one of them at a time is read, and looked at in a few copies.
GROWTH_MAX = 16 * MEBIBYTE
#: Longer than any line of an exposition, and much shorter than a name that was sent.
LINE_MAX = 2000
#: Another try is for a machine that is busy with other work.
TRIES = 4


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for role in Role:
        path = folder / f"{role}.key"
        path.write_text(secrets.token_hex(32))
        path.chmod(0o600)
    return folder


@dataclass(frozen=True)
class Scene:
    """A new manager, and an operator who must be answered all the time."""

    service: Service
    keys: Path
    operator: Line

    def line(self, role: Role) -> Line:
        return Line(self.service.endpoint, (self.keys / f"{role}.key").read_bytes())

    def send(self, line: Line, message: bytes) -> None:
        """Send a message with its header, or as much as is taken; the operator asks after each MiB."""
        with line.socket() as raw:
            for place in range(0, len(message), MEBIBYTE):
                raw.sendall(message[place : place + MEBIBYTE])
                self.operator.ping()

    def answer(self, line: Line, body: bytes) -> bytes:
        self.send(line, wire.with_header(body))
        return line.receive()


def check_borne(keys: Path, size: int, story: Callable[[Scene], None]) -> None:
    """Let new managers bear *story* until no turn of one was too long for messages of *size* bytes."""
    found: list[float] = []
    while len(found) < TRIES and not (found and found[-1] <= bound(size)):
        slow = slowness()
        with Service("memory", "--role-keys", str(keys), consumers=0) as service:
            operator = Line(service.endpoint, (keys / "admin.key").read_bytes())
            story(Scene(service, keys, operator))
            operator.ping()
            operator.close()
            turn = most_processor_seconds(service, (keys / "admin.key").read_bytes())
            assert peak_bytes(service.pid) <= PEAK_BYTES_MAX
            assert service.manager.poll() is None
        found.append(turn / max(slow, slowness()))
    assert min(found) <= bound(size)


def is_refused(answer: bytes) -> bool:
    kind, value = pickle.loads(answer)
    if kind == "#ERROR":
        return isinstance(value, ValueError | AttributeError)
    _, (reply,) = wire.decode_response(value)
    return isinstance(reply, r.Refused) or (isinstance(reply, r.Accepted) and bool(reply.notes))


def check_refused(keys: Path, message: bytes) -> None:
    """Check that new managers refuse *message* of a key for submits, and bear it."""

    def story(scene: Scene) -> None:
        sender = scene.line(Role.SUBMIT)
        assert is_refused(scene.answer(sender, message))
        sender.close()

    check_borne(keys, len(message), story)


@pytest.mark.parametrize(
    "command",
    [c.Ping(), c.Wake(), c.Stats(), c.Feed("o"), c.Cancel([])],
    ids=lambda each: c.verb_of(type(each)),
)
def test_a_frame_of_57_mb_of_commands_is_refused_and_others_are_answered(keys, command):
    check_refused(keys, repeated(command, FRAME_BYTES, FRAME_BYTES))


def named(name: str = "o", *, task: str = TASK, queue: str = "default") -> bytes:
    return frame([c.Submit(name, [NewChunk(0, Terms(task, queue), [b""])])])


PLACES: dict[str, Callable[[str], bytes]] = {
    "a queue": lambda name: named(queue=name),
    "a task": lambda name: named(task=name),
    "an origin": named,
    "the queue of a put": lambda name: put({"task": TASK, "queue": name}),
    "the task of a put": lambda name: put({"task": name}),
    "the method of a call": lambda name: pickle.dumps(("tasks", name, (), {}), protocol=4),
}


@pytest.mark.parametrize("place", PLACES)
def test_57_names_of_a_mebibyte_are_refused_and_nothing_of_them_stays(keys, place):
    def story(scene: Scene) -> None:
        sender = scene.line(Role.SUBMIT)
        before = resident_bytes(scene.service.pid)
        for number in range(NAMES):
            assert is_refused(scene.answer(sender, PLACES[place](chr(ord("A") + number) * (MEBIBYTE - 200))))
        sender.close()
        assert resident_bytes(scene.service.pid) <= before + GROWTH_MAX
        (told,) = scene.operator.ask([c.Exposition()])
        assert max(map(len, told.text.splitlines())) <= LINE_MAX

    check_borne(keys, MEBIBYTE, story)


@pytest.mark.parametrize("size", [FRAME_BYTES, 60_000_000, 64_000_000, wire.MESSAGE_BYTES_MAX])
def test_a_long_header_ends_the_connection_though_its_whole_body_comes(keys, size):
    message = wire.HEADER.pack(-1) + wire.LONG_HEADER.pack(size) + bytes(size)

    def story(scene: Scene) -> None:
        sender = scene.line(Role.SUBMIT)
        with suppress(ConnectionError):
            scene.send(sender, message)
        with pytest.raises((EOFError, ConnectionError)):
            sender.receive()
        sender.close()

    check_borne(keys, size, story)


CONTAINERS = {
    "empty maps": b"(" + b"}" * MAPS + b"l",
    "empty maps, one by one": b"]" + b"}a" * (MAPS // 2),
    "empty lists": b"(" + b"]" * MAPS + b"l",
    "empty sets": b"(" + b"\x8f" * MAPS + b"t",
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_put_of_16_million_containers_is_refused_and_others_are_answered(keys, kind):
    check_refused(keys, b"\x80\x04(\x8c\x05tasks\x8c\x03put" + CONTAINERS[kind] + b"\x85}t.")


@pytest.mark.parametrize("place", ["task", "queue", "item", "key"])
def test_16_mb_of_lone_surrogates_are_refused_undecoded_and_others_are_answered(keys, place):
    text = "\ud800" * (16_000_000 // 3)
    job = text if place == "item" else {"task": TASK, "queue": "q", "key": "k"} | {place: text}
    check_refused(keys, pickle.dumps(("tasks", "put", (job,), {}), protocol=4))


@pytest.mark.parametrize(
    "one", [b"\x80", b"\x90", b"\x81\xc0\xc0", b"\xa0"], ids=["empty maps", "empty lists", "maps", "texts"]
)
def test_a_job_of_16_mb_of_containers_is_got_undecoded_and_others_are_answered(keys, one):
    count = MAPS // len(one)
    body = b"\x92\xdd" + count.to_bytes(4) + one * count + b"\x80"
    message = frame([c.Submit("o", [NewChunk(0, Terms(TASK), [body])])])
    got = pickle.dumps(("tasks", "get", (True, 60.0), {}), protocol=4)

    def story(scene: Scene) -> None:
        sender, consumer = scene.line(Role.SUBMIT), scene.line(Role.WORK)
        assert not is_refused(scene.answer(sender, message))
        _, job = pickle.loads(scene.answer(consumer, got))
        assert (job["id"], job["body"]) == ("o-0", body)
        sender.close()
        consumer.close()

    check_borne(keys, len(message), story)
