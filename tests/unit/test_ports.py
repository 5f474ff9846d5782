"""The ports of tests: each process of a suite has its own, and a taken one is not given."""

from __future__ import annotations

import socket
from itertools import islice

from tests.support.ports import END, FIRST, lasting_port, lasting_ports, own_ports


def test_two_processes_of_a_suite_have_no_port_in_common_and_none_comes_twice():
    size = (END - FIRST) // 2
    one, other = (list(islice(own_ports(worker, 2), size)) for worker in ("gw0", "gw1"))

    assert len({*one, *other}) == 2 * size
    assert all(FIRST <= port < END for port in (*one, *other))


def test_a_port_that_somebody_has_is_not_given(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        free = lasting_port()
        monkeypatch.setattr("tests.support.ports._OWN", iter([taken, free]))
        assert lasting_ports(1) == [free]
