"""No key takes all places or all buffers of the manager: who has another key still gets in (T2, T7)."""

from __future__ import annotations

import resource
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.managers import BaseManager

import pytest
from structlog.testing import capture_logs

from svc.broker.manager import ManagerBroker
from svc.domain.roles import Role
from svc.errors import ManagerUnreachable
from svc.server.connection_limits import Bounds
from svc.server.keys import Key, KeyRing
from svc.wire import HEADER, MESSAGE_BYTES_MAX
from tests.support.manager import RunningManager, running_manager
from tests.support.stranger import Stranger

CONNECTIONS = 40
RESERVED = 4
KEYS = {role: secrets.token_bytes(32) for role in Role}
RING = KeyRing([Key(role, secret) for role, secret in KEYS.items()])
#: The places of one key: its own and those that are nobody's.
SHARE = CONNECTIONS - RESERVED * (len(KEYS) - 1)


@contextmanager
def served(**bounds: int) -> Iterator[RunningManager]:
    limits = {"connections": CONNECTIONS, "reserved": RESERVED, **bounds}
    with running_manager(keys=RING, bounds=Bounds(**limits)) as manager:
        yield manager


def guest(manager: RunningManager, role: Role, stack: ExitStack) -> Stranger:
    stranger = stack.enter_context(Stranger(manager.endpoint))
    stranger.serve(KEYS[role])
    return stranger


def connected(manager: RunningManager, role: Role, timeout: float = 30.0) -> ManagerBroker:
    broker = ManagerBroker(manager.endpoint, KEYS[role], timeout=timeout)
    broker.connect()
    return broker


def fill(manager: RunningManager, role: Role, stack: ExitStack) -> None:
    """Take all the places that there are for a key of *role*."""
    for _ in range(SHARE):
        guest(manager, role, stack)


@pytest.mark.parametrize("greedy", list(Role))
def test_a_key_that_takes_all_the_places_it_can_leaves_each_other_key_its_own(greedy):
    with served() as manager, ExitStack() as stack:
        fill(manager, greedy, stack)
        with pytest.raises(ManagerUnreachable, match="too many connections with this key"):
            connected(manager, greedy, 5.0)
        for role in set(Role) - {greedy}:
            for _ in range(RESERVED):
                stack.enter_context(connected(manager, role))
            with pytest.raises(ManagerUnreachable):
                ManagerBroker(manager.endpoint, KEYS[role], timeout=0.3).connect()
        assert manager.server.ask(lambda: manager.server._connections.limits.open).result(30) <= CONNECTIONS


@pytest.mark.slow
@pytest.mark.parametrize("greedy", [Role.SUBMIT, Role.WORK, Role.READ])
def test_at_a_thousand_connections_an_operator_still_gets_in(greedy):
    """With the places for each key that `svc manager` has by itself, and all of them from one address."""
    places = 1000
    bounds = Bounds(connections=places, address_connections=places)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * places)), hard))
    try:
        with running_manager(keys=RING, bounds=bounds) as manager, ExitStack() as stack:
            for _ in range(places - bounds.reserved * (len(KEYS) - 1)):
                guest(manager, greedy, stack)
            with pytest.raises(ManagerUnreachable, match="too many connections with this key"):
                connected(manager, greedy, 5.0)
            with connected(manager, Role.ADMIN) as operator:
                operator.drain()
                assert operator.stats().drain
                operator.resume()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_two_keys_together_lock_nobody_out():
    with served() as manager, ExitStack() as stack:
        fill(manager, Role.SUBMIT, stack)
        for _ in range(RESERVED):
            guest(manager, Role.WORK, stack)
        for role in (Role.SUBMIT, Role.WORK):
            with pytest.raises(ManagerUnreachable):
                connected(manager, role, 2.0)
        stack.enter_context(connected(manager, Role.READ))
        stack.enter_context(connected(manager, Role.ADMIN))


def test_a_place_that_is_given_up_can_be_taken_again():
    with served() as manager, ExitStack() as stack:
        fill(manager, Role.SUBMIT, stack)
        guests = manager.server._connections.limits
        with ExitStack() as others:
            others.enter_context(connected(manager, Role.WORK))
        manager.until(lambda: guests.open == SHARE)
        with connected(manager, Role.WORK):
            assert guests.open == SHARE + 1


def test_a_stock_client_without_a_place_is_told_so():
    class Stock(BaseManager):
        pass

    with served() as manager, ExitStack() as stack, capture_logs() as logs:
        fill(manager, Role.SUBMIT, stack)
        with pytest.raises(ConnectionRefusedError, match=r"no place for this connection.*with this key"):
            Stock(manager.endpoint, KEYS[Role.SUBMIT]).connect()
    assert "too many connections with this key" in [each.get("reason") for each in logs]


def test_who_is_refused_pushes_nobody_out_of_the_doorway():
    with served(half_open=4, address_half_open=4) as manager, ExitStack() as stack:
        fill(manager, Role.SUBMIT, stack)
        honest = stack.enter_context(Stranger(manager.endpoint))
        for _ in range(20):
            guest(manager, Role.SUBMIT, stack)
        honest.serve(KEYS[Role.ADMIN])


def test_few_places_are_shared_among_the_keys_too():
    with served(connections=10, reserved=32) as manager, ExitStack() as stack:
        for _ in range(6):
            guest(manager, Role.WORK, stack)
        with pytest.raises(ManagerUnreachable):
            connected(manager, Role.WORK, 2.0)
        stack.enter_context(connected(manager, Role.ADMIN))


# --- buffers ----------------------------------------------------------------------------------------

PIECE = 256 * 1024


def announce(stranger: Stranger, size: int, sent: int) -> None:
    """Begin a message of *size* bytes, and send *sent* of them; the manager may hang up meanwhile."""
    with suppress(OSError):
        stranger.send(HEADER.pack(size) + bytes(sent))


def test_a_flood_of_unfinished_messages_is_bounded_within_the_turn_and_spares_other_keys():
    bound = 32 * PIECE
    with served(buffered_bytes=bound) as manager, ExitStack() as stack:
        connection_limits, most = manager.server._connections.limits, 0
        honest = guest(manager, Role.WORK, stack)
        announce(honest, 8 * PIECE, PIECE)
        for _ in range(SHARE):
            announce(guest(manager, Role.SUBMIT, stack), MESSAGE_BYTES_MAX, 4 * PIECE)
            waiting = manager.server.ask(
                lambda: sum(each.buffered for each in connection_limits.connections.values())
            )
            most = max(most, waiting.result(30))
        # The bytes that one read may add, and the room that a message is given to grow.
        assert most <= bound + bound // 8 + 5 * PIECE
        honest.send(bytes(7 * PIECE))
        assert honest.receive()


def test_a_message_of_the_greatest_size_passes_the_default_bound():
    with running_manager() as manager, Stranger(manager.endpoint) as honest:
        honest.serve(manager.authkey)
        honest.socket.settimeout(20)
        honest.send(HEADER.pack(MESSAGE_BYTES_MAX) + bytes(MESSAGE_BYTES_MAX))
        assert honest.receive()


def test_the_keys_that_are_read_again_share_the_places():
    with served() as manager, ExitStack() as stack:
        alone = KeyRing([Key(Role.WORK, KEYS[Role.WORK])])
        manager.server.ask(lambda: manager.server.renew(alone, None)).result(30)
        for _ in range(CONNECTIONS):
            guest(manager, Role.WORK, stack)
