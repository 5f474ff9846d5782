"""The HTTP server of a manager: its answers change with its place, its address does not."""

from __future__ import annotations

import urllib.request

import pytest

from svc.addresses import Address
from svc.app.manager_http import ManagerHttp
from svc.settings import ManagerSettings
from svc.telemetry.http import Response, Route, text


def says(word: str) -> dict[str, Route]:
    def answer() -> Response:
        return text(200, word)

    return {"/place": answer}


def said_at(address: Address | None) -> str:
    with urllib.request.urlopen(f"http://{address}/place", timeout=30) as answer:
        return str(answer.read(), "utf-8").strip()


def prepared() -> ManagerHttp:
    return ManagerHttp(ManagerSettings(http=Address("127.0.0.1", 0)))


def test_a_leader_answers_in_the_place_of_the_standby_at_the_same_address_and_the_standby_again_after_it():
    http = prepared()
    first = http.show(says("standby"))
    with http.showing(says("leader")) as address:
        assert address == first
        assert said_at(address) == "leader"
    assert said_at(first) == "standby"
    http.close()


def test_a_manager_that_stands_by_for_nobody_serves_http_only_while_it_serves():
    http = prepared()
    with http.showing(says("leader")) as address:
        assert said_at(address) == "leader"
    with pytest.raises(OSError, match="refused"):
        said_at(address)
    http.close()


def test_without_http_there_is_no_address():
    http = ManagerHttp(ManagerSettings(http=None))
    assert http.show(says("standby")) is None
    with http.showing(says("leader")) as address:
        assert address is None
    http.close()
