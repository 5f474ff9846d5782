"""The NATS servers of the tests: faults have their effect, and the cluster recovers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from tests.support.nats_servers import NatsCluster, NatsOptions, nats_server, running_nats
from tests.support.workers import until


def run(cluster: NatsCluster, body: Callable[[JetStreamContext], Awaitable[Any]], server: int = 0) -> Any:
    """Return the result of *body* with a connection to one server."""

    async def connected() -> Any:
        client = await nats.connect(cluster.urls[server], max_reconnect_attempts=1)
        try:
            return await body(client.jetstream(timeout=20))
        finally:
            await client.close()

    return asyncio.run(connected())


def test_without_the_program_a_test_is_skipped_and_with_ci_it_fails(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="make venv"):
        nats_server()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="make venv"):
        nats_server()


def test_a_killed_server_comes_back_with_its_stream_or_empty(tmp_path):
    async def fill(js: JetStreamContext) -> None:
        await js.add_stream(StreamConfig(name="S", subjects=["s"]))
        await js.publish("s", b"1")

    async def names(js: JetStreamContext) -> list[str | None]:
        return [info.config.name for info in await js.streams_info()]

    with running_nats(tmp_path) as cluster:
        run(cluster, fill)
        cluster.kill(0)
        cluster.restart(0)
        assert run(cluster, names) == ["S"]
        cluster.kill(0)
        cluster.restart(0, empty=True)
        assert run(cluster, names) == []


@pytest.mark.long
def test_a_server_that_is_cut_off_loses_the_lead_of_its_stream(tmp_path):
    async def create(js: JetStreamContext) -> None:
        await js.add_stream(StreamConfig(name="S", subjects=["s"], num_replicas=3))

    async def publish(js: JetStreamContext) -> int:
        return (await js.publish("s", b"1")).seq

    with running_nats(tmp_path, 3, NatsOptions(partitions=True)) as cluster:
        run(cluster, create)
        first = cluster.wait_leader("S")
        assert run(cluster, publish, server=first) == 1
        cluster.cut_off(first)
        second = cluster.wait_leader("S", besides=first)
        assert run(cluster, publish, server=second) == 2
        cluster.join(first)
        cluster.wait_ready()
        until(lambda: cluster.nodes[first].monitor("jsz").get("messages") == 2, what="the server catches up")
