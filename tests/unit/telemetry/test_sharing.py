"""Answers shared by all who ask within a second."""

from __future__ import annotations

import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from svc.telemetry.http import HttpServer, NoAnswerNow, Response, text
from svc.telemetry.routes import SHARED_SECONDS, Shared, shared


class Counted:
    """A route that answers with how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Response:
        self.asked += 1
        return text(200, str(self.asked))


def test_an_answer_is_given_again_for_a_second_and_no_longer():
    route, now = Counted(), 100.0
    answer = Shared(route, clock=lambda: now)
    assert [answer().body, answer().body] == [b"1\n", b"1\n"]
    now += SHARED_SECONDS
    assert answer().body == b"2\n"


def test_all_who_ask_while_an_answer_is_made_get_that_one():
    route, asked, go_on = Counted(), threading.Event(), threading.Event()

    def slow() -> Response:
        asked.set()
        go_on.wait(30)
        return route()

    answer = Shared(slow, clock=lambda: 0.0)
    with ThreadPoolExecutor(16) as scrapers:
        first = scrapers.submit(answer)
        asked.wait(30)
        others = [scrapers.submit(answer) for _ in range(15)]
        go_on.set()
        assert {each.result(30).body for each in (first, *others)} == {b"1\n"}
    assert route.asked == 1


def test_what_a_route_raises_is_not_given_again():
    failures = [TimeoutError("the loop is busy")]

    def route() -> Response:
        if failures:
            raise failures.pop()
        return text(200, "ok")

    answer = Shared(route, clock=lambda: 0.0)
    with pytest.raises(TimeoutError):
        answer()
    assert answer().status == 200


def test_each_path_has_its_own_answer():
    routes = shared({"/a": lambda: text(200, "a"), "/b": lambda: text(503, "b")})
    assert [routes[path]().status for path in ("/a", "/b", "/a")] == [200, 503, 200]


def test_a_route_without_an_answer_for_a_known_reason_tells_it_and_when_to_ask_again():
    def not_now() -> Response:
        raise NoAnswerNow("in doubt")

    server = HttpServer(("127.0.0.1", 0), shared({"/not-now": not_now}))
    server.start()
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    with closing(connection), capture_logs() as logs:
        connection.request("GET", "/not-now")
        answer = connection.getresponse()
        told = answer.status, answer.getheader("Retry-After"), answer.read()
    server.stop()
    assert (told, logs) == ((503, "1", b"in doubt\n"), [])
