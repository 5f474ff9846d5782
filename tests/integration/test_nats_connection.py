"""The connection to NATS leaves a server that is silent, though its connection stands."""

from __future__ import annotations

import asyncio
import gc
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from svc.cli.certificates import make_authority
from svc.server.journal.jetstream.connection import NatsConnection
from svc.server.journal.jetstream.log import Unanswered
from svc.wire_tls import TlsFiles
from tests.support.certificates import NAMES, files
from tests.support.nats_logs import address_of
from tests.support.nats_servers import NatsCluster, NatsOptions, running_nats


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[NatsCluster]:
    folder = tmp_path_factory.mktemp("nats")
    make_authority(folder, NAMES)
    options = NatsOptions(tls=files(folder, "manager"), jetstream=False)
    with running_nats(folder / "servers", 2, options) as running:
        yield running


def test_a_frozen_server_is_left_at_once_also_with_tls_and_unsent_bytes(cluster, tmp_path):
    tls = cluster.options.tls

    async def story() -> float:
        connection = NatsConnection(address_of(cluster), None, tls)
        await connection.open(30)
        client = connection.client
        server = client.connected_url
        assert server is not None
        (node,) = [each for each in cluster.nodes if each.client_port == server.port]
        node.signal(signal.SIGSTOP)
        try:
            for _ in range(16):  # more than the kernel's buffers take
                await client.publish("subject", bytes(1_000_000))
            await asyncio.sleep(0.1)
            began = time.monotonic()
            async with asyncio.timeout(60):
                await connection.leave_server()
                while not client.is_connected:  # noqa: ASYNC110 - nats-py has no event for it
                    await asyncio.sleep(0.01)
            seconds = time.monotonic() - began
            assert client.connected_url != server
            return seconds
        finally:
            node.signal(signal.SIGCONT)
            await connection.close()

    # A close of TLS that waits for the other side takes 30 s; this one takes no time.
    assert asyncio.run(asyncio.wait_for(story(), 100)) < 15


def test_the_end_of_a_connection_with_tls_is_no_warning_of_asyncio(cluster, caplog):
    async def story() -> None:
        connection = NatsConnection(address_of(cluster), None, cluster.options.tls)
        await connection.open(30)
        client = connection.client
        left = client.connected_url
        (node,) = [each for each in cluster.nodes if left is not None and each.client_port == left.port]
        await asyncio.to_thread(cluster.stop, node.number)  # it closes the connection
        while not client.is_connected or client.connected_url == left:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        cluster.restart(node.number, wait=False)  # a server dies with the thread that started it
        await asyncio.to_thread(cluster.wait_ready)
        await connection.close()

    asyncio.run(asyncio.wait_for(story(), 100))
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_a_lost_connection_leaves_nothing_that_only_the_garbage_collector_frees(cluster, tmp_path):
    """It would stay for ever, since what outlives a full collection is frozen."""

    async def garbage_of(servers: NatsCluster) -> list[str]:
        connection = NatsConnection(address_of(servers), None, servers.options.tls)
        await connection.open(30)
        await reconnected(connection, 3)
        gc.collect()
        gc.disable()
        try:
            await reconnected(connection, 10)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            # A dial that fails leaves other things; they are too short-lived to be frozen.
            return [type(each).__name__ for each in gc.garbage if isinstance(each, asyncio.BaseTransport)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            await connection.close()

    with running_nats(tmp_path, options=NatsOptions(jetstream=False)) as plain:
        assert [asyncio.run(garbage_of(each)) for each in (plain, cluster)] == [[], []]


async def reconnected(connection: NatsConnection, times: int) -> None:
    for _ in range(times):
        await connection.leave_server()
        await until_connected(connection)


async def until_connected(connection: NatsConnection) -> None:
    async with asyncio.timeout(45):
        while True:
            with suppress(Unanswered):
                return await connection.client.flush(1)
            await asyncio.sleep(0.01)


def test_a_connection_is_made_anew_with_the_certificates_that_are_there_then(cluster, tmp_path):
    good = cluster.options.tls
    assert good is not None
    make_authority(tmp_path / "others", NAMES)
    strange = files(tmp_path / "others", "manager")
    used = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem", good.ca)

    def put(source: TlsFiles) -> None:
        for name in ("cert", "key"):
            shutil.copy(getattr(source, name), getattr(used, name))

    async def story() -> None:
        connection = NatsConnection(address_of(cluster), None, used)
        put(good)
        await connection.open(30)
        put(strange)
        await connection.leave_server()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await until_connected(connection)
        put(good)
        await until_connected(connection)
        await connection.close()

    asyncio.run(story())


def test_a_host_that_vanishes_without_a_word_is_left_within_two_seconds(cluster):
    """The kernel tells: 1.9 s if a firewall drops all that goes to the server, by pings alone 4.0 s."""

    async def story() -> int:
        connection = NatsConnection(address_of(cluster), None, cluster.options.tls)
        await connection.open(30)
        transport: Any = connection.client._transport
        sock = transport._io_writer.get_extra_info("socket")
        milliseconds: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        await connection.close()
        return milliseconds

    # A leader writes to the bucket twice a second.
    assert asyncio.run(story()) <= 2000 - 500
