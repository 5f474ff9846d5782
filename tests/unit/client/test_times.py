"""Delays and timeouts that no clock can show are refused by the call that has them."""

from __future__ import annotations

import math

import pytest

from svc import task
from svc.client.executor import BrokerExecutor
from svc.declarations import parse_seconds
from svc.domain.limits import SECONDS_MAX
from svc.errors import BadRequest, ConfigurationError
from svc.testing import local_client

ENDLESS = [
    math.inf,
    -math.inf,
    math.nan,
    -1,
    -0.5,
    1e18,
    1e308,
    99_999_999_999 * 86_400.0,
    SECONDS_MAX * 1.01,
]


@pytest.mark.parametrize("option", ["delay", "timeout", "backoff"])
@pytest.mark.parametrize("seconds", ENDLESS)
class TestSubmits:
    def test_a_client_refuses_it(self, queue, option, seconds):
        client = local_client(queue)
        with pytest.raises(BadRequest, match=option):
            client.options(**{option: seconds})
        assert queue.host.totals().queues == []

    def test_so_does_a_stream_and_goes_on(self, queue, option, seconds):
        client = local_client(queue)
        with pytest.raises(BadRequest, match=option):
            client.options(**{option: seconds}).submit_many("t:f", [(1,)])
        assert client.submit("t:f").id

    def test_so_does_an_executor(self, queue, option, seconds):
        with BrokerExecutor(local_client(queue)) as executor:
            future = executor.options(**{option: seconds}).submit("t:f")
            assert isinstance(future.exception(timeout=30), BadRequest)


def test_a_hundred_years_are_allowed(queue):
    client = local_client(queue).options(delay=SECONDS_MAX, timeout=SECONDS_MAX, backoff=SECONDS_MAX)
    assert client.submit("t:f").id


@pytest.mark.parametrize(
    "text", ["99999999999d", "36501d", "1" + 400 * "0", "876001h", "-1", "inf", "nan", "1e9"]
)
def test_the_command_line_takes_no_such_duration(text):
    with pytest.raises(ConfigurationError):
        parse_seconds(text)
    assert parse_seconds("36500d") == SECONDS_MAX


@pytest.mark.parametrize("option", ["timeout", "backoff"])
@pytest.mark.parametrize("seconds", ENDLESS)
def test_no_task_declares_it(option, seconds):
    with pytest.raises(ConfigurationError, match=option):
        task(**{option: seconds})(lambda: None)


def test_nobody_waits_until_a_time_that_is_no_number(queue):
    client = local_client(queue)
    job = client.submit("t:f")
    with pytest.raises(BadRequest):
        job.result(timeout=math.nan)
    with pytest.raises(BadRequest):
        next(client.map("t:f", [1], timeout=math.nan))
