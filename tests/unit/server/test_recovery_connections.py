"""A recovery in place closes all connections, whatever they are doing, and each peer can come back."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.server.pickle_scan import loads_plain
from svc.wire import PROTOCOL_VERSION, encode_request, with_header
from tests.support import broken_manager
from tests.support.asking import chunk
from tests.support.broken_manager import FAULTS, GRANTS, TICKS
from tests.support.manager import RunningManager
from tests.support.recovering import Told, ask, breakable, send_once, submit, trip
from tests.support.stranger import Stranger


@pytest.fixture(autouse=True)
def _faults(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_manager.replaced(monkeypatch)


def parked(manager: RunningManager) -> int:
    return manager.server.ask(lambda: len(manager.host._waiters.all)).result(60)


@pytest.mark.parametrize("task", FAULTS)
def test_each_client_consumer_and_supervisor_loses_its_connection_and_comes_back(journal, tmp_path, task):
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager, ThreadPoolExecutor(2) as pool:
        ask(manager, c.Submit("o", [chunk(0, 9, task="nobody:knows")]))
        brokers = {
            "sender": manager.broker(),
            "client": manager.broker(),
            "consumer": manager.consumer("w-1"),
            "supervisor": manager.broker(lambda: c.Hello(PROTOCOL_VERSION, "worker", "w", "w")),
            "client that waits": manager.broker(),
            "consumer that waits": manager.consumer("w-2"),
        }
        for name in ("sender", "client", "supervisor", "client that waits"):
            brokers[name].connect()
        awaited = pool.submit(brokers["client that waits"].call, [c.Await(["o-0"], wait=60.0)], wait=60.0)
        leased = pool.submit(brokers["consumer that waits"].call, [c.Lease(wait=60.0)], wait=60.0)
        manager.until(lambda: parked(manager) == 2)

        if task == TICKS:  # If upkeep failed in the same turn, a second try would have it fail again.
            send_once(manager, submit(task, origin="b"))
        else:
            brokers["sender"].call([submit(task, origin="b")])
        if task == GRANTS:
            brokers["consumer"].call([c.Lease()])
        ask(manager, c.Ping())
        manager.until(lambda: bool(told.places))

        for name in ("sender", "client", "consumer", "supervisor"):
            assert brokers[name].call([c.Ping()]) == [r.Done()], name
        manager.until(lambda: parked(manager) == 2)
        ask(manager, c.Cancel(["o-0"]), submit("m:f", origin="a"))
        assert isinstance(awaited.result(60)[0], r.Outcomes)
        assert isinstance(leased.result(60)[0], r.Grant)
        assert {name: each.reconnects for name, each in brokers.items()} == dict.fromkeys(brokers, 1)
        for broker in brokers.values():
            broker._discard()


def call_of(typeid: str, method: str, *args: object) -> bytes:
    return with_header(pickle.dumps((typeid, method, args, {})))


#: What a peer has sent after its handshake: nothing, a call that waits, or part of a message.
SENT = {
    "a stock client": b"",
    "a stock client that waits for a result": call_of("results", "get"),
    "a stock client that waits for all tasks": call_of("tasks", "join"),
    "half a header": b"\0\0",
    "half a call": call_of("tasks", "put", "x" * 99)[:50],
    "half a frame": bytes(encode_request(1, [submit("m:f", 5)]))[:-1],
    "half a large message": with_header(bytes(1 << 20))[: 1 << 19],
}
#: Those of them that wait.
WAITING = 2


def before_its_handshake(stranger: Stranger, key: bytes) -> None:
    stranger.receive()


def in_its_handshake(stranger: Stranger, key: bytes) -> None:
    stranger.send(with_header(stranger.response(key)))
    assert stranger.receive() == b"#WELCOME#"


def before_its_opening_request(stranger: Stranger, key: bytes) -> None:
    stranger.shake_hands(key)


STAGES: dict[str, Callable[[Stranger, bytes], None]] = {
    "before its handshake": before_its_handshake,
    "in its handshake": in_its_handshake,
    "before its opening request": before_its_opening_request,
}


def peers(manager: RunningManager) -> dict[str, Stranger]:
    """Connect a peer of each kind, and wait until the manager has accepted all of them."""
    found = {name: Stranger(manager.endpoint) for name in (*STAGES, *SENT)}
    for name, stage in STAGES.items():
        stage(found[name], manager.authkey)
    for name, sent in SENT.items():
        found[name].serve(manager.authkey)
        found[name].send(sent)
    manager.until(lambda: parked(manager) == WAITING)
    return found


@pytest.mark.parametrize("task", FAULTS)
def test_any_other_peer_is_cut_off_without_an_answer_and_may_come_back(journal, tmp_path, task):
    told = Told()
    with breakable(journal, tmp_path / "faults", told) as manager:
        ask(manager, c.Submit("o", [chunk(0, 3, task="nobody:knows")]))
        before = peers(manager)

        if task == TICKS:
            send_once(manager, submit(task, origin="b"))
        else:
            trip(manager, task)
        manager.until(lambda: bool(told.places))

        assert {name: peer.rest() for name, peer in before.items()} == dict.fromkeys(before, b"")
        again = peers(manager)
        again["a stock client"].send(call_of("results", "put", 7))
        assert loads_plain(again["a stock client"].receive()) == ("#RETURN", None)
        assert loads_plain(again["a stock client that waits for a result"].receive()) == ("#RETURN", 7)
        for peer in (*before.values(), *again.values()):
            peer.socket.close()
