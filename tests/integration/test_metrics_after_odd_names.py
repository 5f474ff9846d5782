"""After names that are no text the metrics are readable, and the manager goes on."""

from __future__ import annotations

import http.client
import pickle
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest

from svc.addresses import parse_address
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.wire import decode_response, encode_request, response_frame, with_header
from tests.support.exposition import read
from tests.support.stranger import Stranger
from tests.support.svc import Host, end, until

MEGABYTE = 1 << 20
NAMES = {
    "a high surrogate": "\ud800",
    "a low surrogate": "\udfff",
    "a pair in reverse": "\udfff\ud800",
    "one in a name": "images\ud800",
    "a megabyte": "\ud800" * (MEGABYTE // 3),
    "a megabyte in reverse": "\udfff\ud800" * (MEGABYTE // 6),
}
FIELDS = ("queue", "task", "key", "priority", "retries", "delay")
#: The bytes of a name in a frame.
NO_TEXT = {
    "a high surrogate": b"\xed\xa0\x80",
    "a low surrogate": b"\xed\xbf\xbf",
    "cut short": b"a\xe2\x82",
    "no UTF-8": b"\xff\xfe\xfd",
}
#: A name whose bytes are replaced by them, as no encoder writes them.
MARK = "\ue000"


def calls_with(name: str) -> Iterator[tuple[Any, ...]]:
    """Yield calls of a stock client that are refused: object, method, arguments and keyword arguments."""
    for field in FIELDS:
        yield "tasks", "put", ({"task": "m:f", field: name},), {}
    yield "jobs", "submit", (name,), {}
    yield "jobs", "show", (name,), {}
    yield "tasks", name, (1,), {}
    yield name, "put", (1,), {}
    yield "tasks", "put", (1,), {name: 1}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    running = Host(tmp_path_factory.mktemp("odd"))
    manager = running.start_manager("127.0.0.1:0", "--durability", "memory")
    yield running
    assert manager.poll() is None, "the manager has ended"
    end(manager)
    running.log.close()


@pytest.fixture
def broker(host: Host) -> Iterator[ManagerBroker]:
    with ManagerBroker(endpoint(host), key_of(host), timeout=30.0) as broker:
        yield broker


@pytest.fixture
def stranger(host: Host) -> Iterator[Stranger]:
    """A stock client, whose pickles we write."""
    with Stranger(endpoint(host)) as stranger:
        stranger.serve(key_of(host))
        yield stranger


def endpoint(host: Host) -> tuple[str, int]:
    address = parse_address(host.env["SVC_MANAGER"])
    return address.host, address.port


def key_of(host: Host) -> bytes:
    return (host.folder / "authkey").read_bytes().strip()


def scrape(host: Host) -> bytes:
    connection = http.client.HTTPConnection(host.env["MANAGER_HTTP"], timeout=30)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == HTTPStatus.OK
    body = answer.read()
    connection.close()
    return body


def calls_in(exposition: bytes) -> float:
    """Return how many calls of plain clients are counted."""
    plain = {("method", "plain")}
    return sum(
        count
        for (name, labels), count in read(exposition).items()
        if name == "svc_manager_calls_total" and plain <= labels
    )


def refused_frames_in(exposition: bytes) -> float:
    """Return how many frames are counted that could not be read."""
    told = read(exposition).items()
    return sum(count for (name, labels), count in told if ("kind", "malformed") in labels)


def check_labels(exposition: bytes) -> None:
    """Fail if a label has an odd name in it, or the sign that stands for a character that is none."""
    for _, labels in read(exposition):
        for _, value in labels:
            assert value.isprintable()
            assert "?" not in value
            assert "\ufffd" not in value
            assert len(value) < 100


def check_metrics(host: Host, broker: ManagerBroker, exposition: bytes) -> None:
    """Fail unless the metrics are readable, over HTTP and by the command line, and the manager goes on."""
    check_labels(exposition)
    told = host.svc("metrics")
    assert (told.returncode, told.stderr) == (0, "")
    check_labels(told.stdout.encode())
    assert broker.call([c.Ping()]) == [r.Done(0)]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_metrics_are_readable_after_calls_with_a_name_that_is_no_text(host, broker, stranger, name):
    calls = list(calls_with(name))
    before = calls_in(scrape(host))

    for refuse in (False, True):
        broker.call([c.Drain(refuse=True) if refuse else c.Resume()])
        for call in calls:
            stranger.send(with_header(pickle.dumps(call)))
            assert pickle.loads(stranger.receive())[0] == "#ERROR", f"{call!a:.200}"

    broker.call([c.Resume()])
    # The text is made anew once a second.
    text = until(
        lambda: calls_in(seen := scrape(host)) >= before + 2 * len(calls) and seen, "all are counted"
    )
    check_metrics(host, broker, text)


@pytest.mark.parametrize("name", NO_TEXT.values(), ids=NO_TEXT)
def test_metrics_are_readable_after_a_worker_whose_name_is_no_text(host, broker, stranger, name):
    before = refused_frames_in(scrape(host))
    hellos = [
        c.Hello(1, "worker", "w-0", MARK),
        c.Hello(1, "worker", MARK, "w"),
        c.Hello(1, "consumer", "w-1", "w", queues=[MARK]),
        c.Hello(1, "consumer", "w-1", "w", tasks=[MARK]),
    ]

    for hello in hellos:
        stranger.send(encode_request(1, [hello]).replace(MARK.encode(), name))
        frame = response_frame(stranger.receive())
        assert frame is not None
        (reply,) = decode_response(frame)[1]
        assert isinstance(reply, r.Refused)

    text = until(
        lambda: refused_frames_in(seen := scrape(host)) >= before + len(hellos) and seen, "all are counted"
    )
    check_metrics(host, broker, text)
