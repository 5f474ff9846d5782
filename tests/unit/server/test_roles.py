"""Every role against every command of a frame and every call of a plain client, at a real manager."""

from __future__ import annotations

import pickle
import secrets
import typing
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from svc import wire
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import SHELL, ErrorInfo, NewChunk, Terms
from svc.domain.roles import Role
from svc.errors import BadRequest, Forbidden
from svc.key_files import ROLES
from svc.server.keys import Key, KeyRing
from svc.server.plain import EXPOSED
from svc.server.roles import CALLS, RIGHTS, call_right, free_commands, may_call, may_command
from svc.wire import PROTOCOL_VERSION, with_header
from tests.support.manager import running_manager
from tests.support.stranger import Stranger

ERROR = ErrorInfo("ValueError", "no", "")
SUBMIT = c.Submit("o", [NewChunk(0, Terms("m:f"), [b"x"])])
SHELL_CHUNKS = [NewChunk(1, Terms("m:f"), [b"x"]), NewChunk(2, Terms(SHELL), [b"x"])]
SUBMIT_SHELL = c.Submit("o", SHELL_CHUNKS)
#: At least one command for each row of the table, in an order that harms none that follow.
EXAMPLES: tuple[c.Command, ...] = (
    c.Hello(PROTOCOL_VERSION, "client"),
    c.Hello(PROTOCOL_VERSION, "worker", "w", "w"),
    c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w"),
    c.Ping(),
    c.Wake(),
    c.Leave(),
    SUBMIT,
    SUBMIT_SHELL,
    c.Await(["abcdefghjkmnp-0"]),
    c.Await(["put1-0"]),
    c.Feed("abcdefghjkmnp"),
    c.Feed(),
    c.Feed("put1"),
    c.Get(["o-0"]),
    c.List(),
    c.Stats(),
    c.Members(),
    c.Exposition(),
    c.Lease(),
    c.Ack(1, 0, [b""], [0.0]),
    c.Nack(1, 0, ERROR),
    c.Release(1, 0),
    c.Extend(),
    c.Lost("w-1", ERROR),
    c.Recall("w-1", 1, 0, 1),
    c.Submit("o", [NewChunk(0, Terms("m:f"), [b"x"])], under=1),
    c.Submit("o", SHELL_CHUNKS, under=1),
    c.TellProgress([c.JobProgress(1, 0, 0.5)]),
    c.Checkpoint(1, 0, b"data"),
    c.Yield(1, 0, 0, [b"value"]),
    c.ReadStream("o-0"),
    c.ReadStream("put1-0"),
    c.StorePiece("o", 9, 1, 1, 0, b"x"),
    c.StorePiece("o", 9, 1, 1, 0, b"x", under=1),
    c.StoreResultPiece(1, 0, 1, 0, b"x"),
    c.FetchArgument(1, 0, 1, 0),
    c.FetchResult("o-0", 0),
    c.FetchResult("put1-0", 0),
    c.AskProgress(["o-0"]),
    c.AskProgress(["put1-0"]),
    c.Cancel(["abcdefghjkmnp-0"]),
    c.Cancel(["put1-0"]),
    c.Requeue(),
    c.Purge(["o-9"]),
    c.Output([], 0),
    c.Logs("o-0"),
    c.Logs("put1-0"),
    c.Drain(),
    c.Resume(),
    c.Backup("b.db"),
    c.AcceptClock(),
    c.HandOver(),
)
PAIRS = [(role, command) for role in Role for command in EXAMPLES]
CALL_PAIRS = [(role, right) for role in Role for right in CALLS]
#: The rights that matter most to the threat model, written out so that a slip in the table is seen.
NEVER = {
    Role.SUBMIT: {"submit_shell", "hello_work", "lease", "ack", "nack", "release", "lost", "extend", "recall",
                  "drain", "output", "resume", "cancel_any", "requeue", "purge", "list", "feed_all", "get",
                  "stats", "members", "tell_progress", "checkpoint", "yield", "store_result_piece",
                  "fetch_argument"},
    Role.SHELL: {"hello_work", "lease", "ack", "nack", "release", "lost", "extend", "recall", "drain",
                 "resume", "cancel_any", "requeue", "purge", "list", "feed_all", "get", "stats", "members",
                 "tell_progress", "checkpoint", "yield", "store_result_piece", "fetch_argument"},
    Role.WORK: {"submit", "submit_shell", "await", "feed", "feed_all", "get", "list", "cancel", "cancel_any",
                "requeue", "purge", "drain", "resume", "logs", "ask_progress", "read_stream", "store_piece",
                "fetch_result"},
    Role.READ: {"submit", "submit_shell", "hello_work", "lease", "ack", "nack", "release", "lost", "extend",
                "submit_child", "recall", "cancel", "cancel_any", "requeue", "purge", "drain", "resume",
                "output", "tell_progress", "checkpoint", "yield", "store_piece", "store_piece_child",
                "store_result_piece", "fetch_argument"},
}  # fmt: skip


def _id(each: Role | c.Command | tuple[str, str]) -> str:
    if isinstance(each, c.Command):
        return each.right()
    return each.value if isinstance(each, Role) else ".".join(each)


@pytest.fixture(scope="module")
def keys():
    return {role: secrets.token_bytes(32) for role in Role}


@pytest.fixture(scope="module")
def manager(keys):
    with running_manager(keys=KeyRing(Key(role, secret) for role, secret in keys.items())) as running:
        yield running


def test_the_table_names_every_command_and_every_call():
    verbs = {c.verb_of(kind) for kind in typing.get_args(c.AnyCommand)}
    others = {"hello_work", "feed_all", "submit_shell", "submit_child", "cancel_any", "store_piece_child"}
    assert verbs == RIGHTS.keys() - others
    exposed = {(typeid, method) for typeid, methods in EXPOSED.items() for method in methods}
    assert exposed == CALLS.keys() - {("tasks", "put_pill")} | {("jobs", "call")}
    assert {command.right() for command in EXAMPLES} == RIGHTS.keys()
    assert tuple(Role) == ROLES


@pytest.mark.parametrize("role", NEVER)
def test_the_table_keeps_the_roles_apart(role):
    allowed = {right for right, roles in RIGHTS.items() if role in roles}
    assert not allowed & NEVER[role]


def test_what_is_in_no_row_is_for_the_admin_alone():
    assert not any(may_call(role, ("tasks", "shutdown")) for role in Role if role is not Role.ADMIN)
    assert not any(may_command(role, c.Take()) for role in Role if role is not Role.ADMIN)


@pytest.mark.parametrize("role", Role)
def test_a_command_is_free_for_a_role_if_it_may_be_sent_whatever_its_fields_are(role):
    allowed = {type(command) for command in EXAMPLES if may_command(role, command)}
    denied = {type(command) for command in EXAMPLES if not may_command(role, command)}
    assert free_commands(role) == allowed - denied


@pytest.mark.parametrize(("role", "command"), PAIRS, ids=_id)
def test_a_command_is_served_or_refused_as_the_table_says(manager, keys, role, command):
    broker = ManagerBroker(manager.endpoint, keys[role], timeout=30)
    with capture_logs() as logs:
        broker.connect()
        (reply,) = broker.call([command])
        broker.close()
    refused = isinstance(reply, r.Refused) and reply.code == "forbidden"
    assert refused == (role is not Role.ADMIN and role not in RIGHTS[command.right()])
    said = [(log["role"], log["method"]) for log in logs if log.get("kind") == "forbidden"]
    assert said == ([(str(role), command.right())] if refused else [])


@pytest.mark.parametrize(("role", "right"), CALL_PAIRS, ids=_id)
def test_a_plain_call_is_served_or_refused_as_the_table_says(manager, keys, role, right):
    typeid, method = right
    name, args = _call(method)
    assert call_right(typeid, name, args, {}) == right
    with Stranger(manager.endpoint) as client, capture_logs() as logs:
        client.shake_hands(keys[role])
        client.send(with_header(pickle.dumps((None, "accept_connection", ("c",), {}))))
        client.receive()
        client.send(with_header(pickle.dumps((typeid, name, args, {}))))
        if role is Role.ADMIN or role in CALLS[right]:
            if method == "join":
                return  # it is waited for, or answered: not refused is all that counts
            kind, value = pickle.loads(client.receive())
            assert not isinstance(value, PermissionError)
        else:
            kind, value = pickle.loads(client.receive())
            assert kind == "#ERROR"
            assert isinstance(value, PermissionError)
            assert [(log["role"], log["method"]) for log in logs if log["event"] == "call_refused"] == [
                (str(role), f"{typeid}.{method}")
            ]


def _call(method: str) -> tuple[str, tuple[object, ...]]:
    arguments = {
        "put": (1,), "put_nowait": (1,), "put_pill": (None,), "get": (False,),
        "submit": ("m:f",), "result": ("o-0", 0), "show": ("o-0",),
    }  # fmt: skip
    return method.replace("_pill", ""), arguments.get(method, ())


#: Fields that decide under which row a command falls; in all others anybody may say anything.
DECISIVE = {
    ("submit", "chunks"),
    ("submit", "under"),
    ("hello", "role"),
    ("feed", "origin"),
    ("await", "ids"),
    ("ask_progress", "ids"),
    ("read_stream", "id"),
    ("logs", "id"),
    ("store_piece", "under"),
    ("fetch_result", "id"),
    ("cancel", "ids"),
}


#: Values for any field; those that the field cannot have are left out.
ODD: tuple[object, ...] = (
    *("", "x", "consumer", "worker", "client", "put1", "put1-0", "put", "putter-0", "key.a.b"),
    *("#results", SHELL),
    *([], ["put1-0"], ["x-0", "put12-7"], ["putter-0"], ["#item"], [SHELL], ["pickle"], [b"x"], [0], [0.0]),
    *(None, 0, 1, 0.0, 0.001, False, True, b"", b"put1-0", ERROR),
    *([c.Held(7, "o", 0, 5)], [c.JobProgress(1, 0, 0.5)], SUBMIT.chunks, SHELL_CHUNKS),
)


def _variants(command: c.Command) -> Iterator[tuple[str, c.Command]]:
    """Yield the command with one field changed to each value that the wire takes for it, and the field."""
    for name in command.__struct_fields__:
        for value in ODD:
            if name == "wait" and value == 1:
                continue  # the answer would take a second
            variant = msgspec.structs.replace(command, **{name: value})
            with suppress(BadRequest):
                frame = wire.encode_request(1, [variant])[wire.HEADER.size :]
                yield name, wire.decode_request(wire.request_frame(frame) or b"")[1][0]


def test_only_the_declared_fields_decide_what_a_command_needs():
    decided = {
        (str(command.__struct_config__.tag), name)
        for command in EXAMPLES
        for name, variant in _variants(command)
        if variant.right() != command.right()
    }
    assert decided == DECISIVE


@pytest.mark.parametrize("command", EXAMPLES, ids=_id)
def test_whatever_its_fields_are_a_command_is_served_or_refused_as_the_table_says(manager, keys, command):
    for role in Role:
        broker = ManagerBroker(manager.endpoint, keys[role], timeout=30)
        broker.connect()
        for name, variant in _variants(command):
            (reply,) = broker.call([variant])
            refused = isinstance(reply, r.Refused) and reply.code == "forbidden"
            assert refused == (not may_command(role, variant)), (role, name, variant)
        broker.close()


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "chunks", [SHELL_CHUNKS[1:], SHELL_CHUNKS, SHELL_CHUNKS[::-1]], ids=["alone", "last", "first"]
)
@pytest.mark.parametrize("under", [0, 1, 2**53])
@pytest.mark.parametrize("strict", [False, True])
def test_a_shell_command_takes_a_key_for_it_also_as_the_child_of_a_job(
    manager, keys, role, chunks, under, strict
):
    broker = ManagerBroker(manager.endpoint, keys[role], timeout=30)
    (reply,) = broker.call([c.Submit("o", chunks, strict, under)])
    broker.close()
    refused = isinstance(reply, r.Refused) and reply.code == "forbidden"
    assert refused == (role not in (Role.SHELL, Role.ADMIN))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("command", "right"),
    [
        (c.Hello(PROTOCOL_VERSION, "boss"), "hello_work"),
        (c.Hello(PROTOCOL_VERSION, ""), "hello_work"),
        (c.Feed("put1"), "feed_all"),
        (c.Feed("put007"), "feed_all"),
        (c.Feed("put"), "feed"),
        (c.Feed("putter1"), "feed"),
        (c.Feed("put\u0661"), "feed"),
        (c.Await(["abc-0", "put1-0"]), "get"),
        (c.Await(["put-0"]), "await"),
        (c.Await(["putter-0"]), "await"),
        (c.Await(["key.00.k-0"]), "await"),
        (c.Logs("put1-0"), "get"),
        (c.Logs("putter-0"), "logs"),
    ],
    ids=str,
)
def test_what_can_be_guessed_is_only_for_those_who_may_read_all(manager, keys, role, command, right):
    broker = ManagerBroker(manager.endpoint, keys[role], timeout=30)
    (reply,) = broker.call([command])
    broker.close()
    refused = isinstance(reply, r.Refused) and reply.code == "forbidden"
    assert refused == (role is not Role.ADMIN and role not in RIGHTS[right])


RESERVED = [
    c.Submit("put1", [NewChunk(0, Terms("m:f"), [b"x"])]),
    c.Submit("put99", [NewChunk(0, Terms("m:f"), [b"x"])]),
    c.Submit("put0", [NewChunk(0, Terms("m:f"), [b"x"])]),
    c.Submit("key.00.k", [NewChunk(0, Terms("m:f"), [b"x"])]),
    c.Submit("o", [NewChunk(0, Terms("#item"), [b"x"])]),
    c.Submit("o", [NewChunk(0, Terms("m:f", "#results"), [b"x"])]),
    c.Submit("o", [NewChunk(0, Terms("m:f", codec="item"), [b"x"])]),
    c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", queues=["#results"]),
    c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", queues=["default", "#anything"]),
    c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["#item"]),
    c.Hello(PROTOCOL_VERSION, "worker", "w", "w", queues=["#results"]),
    c.Hello(PROTOCOL_VERSION, "worker", "w", "w", held=[c.Held(7, "o", 0, 5)]),
    c.Hello(PROTOCOL_VERSION, "client", held=[c.Held(7, "o", 0, 5)]),
    c.Hello(PROTOCOL_VERSION, "client", queues=["default"]),
    c.Hello(PROTOCOL_VERSION, "client", accept=["pickle"]),
]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("command", RESERVED, ids=lambda command: f"{command!r:.70}")
def test_what_is_the_managers_own_is_nobodys(manager, keys, role, command):
    broker = ManagerBroker(manager.endpoint, keys[role], timeout=30)
    (reply,) = broker.call([command])
    broker.close()
    if isinstance(reply, r.Accepted):
        assert [note.code for note in reply.notes] == ["bad_request"]
    else:
        assert isinstance(reply, r.Refused)
        assert reply.code in ("bad_request", "forbidden")


def test_a_put_is_accepted_though_others_tried_to_take_its_number(keys):
    submitting = KeyRing([Key(Role.SUBMIT, keys[Role.SUBMIT])])
    with running_manager(keys=submitting) as manager, Stranger(manager.endpoint) as client:
        thief = ManagerBroker(manager.endpoint, keys[Role.SUBMIT], timeout=30)
        for origin in ("put1", "put01", "put2"):
            thief.call([c.Submit(origin, [NewChunk(0, Terms("m:f"), [b"x"] * 1000)])])
        thief.close()
        client.shake_hands(keys[Role.SUBMIT])
        client.send(with_header(pickle.dumps((None, "accept_connection", ("c",), {}))))
        client.receive()
        client.send(with_header(pickle.dumps(("tasks", "put", ("item",), {}))))

        assert pickle.loads(client.receive()) == ("#RETURN", None)
        chunks = manager.server.ask(lambda: list(manager.host.state.ledger.chunks.values())).result(30)
        assert [chunk.terms.task for chunk in chunks] == ["#item"]


def test_the_documented_table_is_the_one_that_is_kept():
    page = (Path(__file__).parents[3] / "docs" / "security.md").read_text()
    for (typeid, method), roles in CALLS.items():
        name = f"{typeid}.{method}"
        shown = "tasks.put(None)" if name == "tasks.put_pill" else name
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{shown}`"))
        cells = [cell.strip() for cell in row.strip("|").split("|")[1:]]
        expected = [role is Role.ADMIN or role in roles for role in Role]
        assert [cell == "yes" for cell in cells] == expected, name


def test_a_frame_with_one_forbidden_command_changes_nothing(manager, keys):
    """Commands of one frame were meant to happen together."""
    chunk = NewChunk(0, Terms("m:f"), [b"x"])
    broker = ManagerBroker(manager.endpoint, keys[Role.SUBMIT], timeout=30)
    replies = broker.call([c.Submit("together", [chunk]), c.Drain()])
    broker.close()
    assert [reply.code for reply in replies if isinstance(reply, r.Refused)] == ["forbidden"] * 2
    admin = ManagerBroker(manager.endpoint, keys[Role.ADMIN], timeout=30)
    assert admin.get(["together-0"]) == []
    admin.close()


def test_a_worker_with_a_key_for_something_else_is_told_so(manager, keys):
    hello = c.Hello(PROTOCOL_VERSION, "worker", "w", "w")
    broker = ManagerBroker(manager.endpoint, keys[Role.SUBMIT], hello=lambda: hello, timeout=30)
    with pytest.raises(Forbidden, match="'submit' may not 'hello_work'"):
        broker.connect()


@pytest.mark.parametrize("role", [Role.SUBMIT, Role.SHELL, Role.ADMIN])
@pytest.mark.parametrize("call", ["put", "submit"])
def test_a_plain_client_submits_no_shell_command_whatever_its_key(manager, keys, role, call):
    typeid, args = {"put": ("tasks", ((SHELL, [["true"]]),)), "submit": ("jobs", (SHELL, ["true"]))}[call]
    with Stranger(manager.endpoint) as client:
        client.shake_hands(keys[role])
        client.send(with_header(pickle.dumps((None, "accept_connection", ("c",), {}))))
        client.receive()
        client.send(with_header(pickle.dumps((typeid, call, args, {}))))
        kind, error = pickle.loads(client.receive())
    assert kind == "#ERROR"
    assert "svc run" in str(error)
