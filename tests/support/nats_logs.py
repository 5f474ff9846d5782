"""New logs on real NATS servers, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, TypeVar

import nats

from svc.addresses import parse_address
from svc.journal_address import StreamAddress
from svc.server.journal.jetstream.nats_log import NatsLog
from svc.server.journal.jetstream.opening import open_log
from tests.support.nats_servers import NatsCluster

_NUMBERS = count(1)
#: Less than a test may take: a story that hangs ends with its traceback.
_STORY_SECONDS = 240.0
Result = TypeVar("Result")


def address_of(cluster: NatsCluster, name: str = "") -> StreamAddress:
    """Return the address of a stream in *cluster*, by default of one that no test has used."""
    servers = tuple(map(parse_address, cluster.addresses))
    return StreamAddress(servers, name or f"journal{next(_NUMBERS)}", tls=cluster.options.tls is not None)


def run_on(cluster: NatsCluster, story: Callable[[NatsLog], Awaitable[Result]], **options: Any) -> Result:
    """Return the result of *story* on a log, opened with *options*; `name` is that of the stream."""

    async def opened() -> Result:
        settings = {"replicas": min(3, len(cluster.nodes)), "seconds": 60.0, **options}
        log = await open_log(address_of(cluster, settings.pop("name", "")), **settings)
        try:
            return await story(log)
        finally:
            await log.close()

    return asyncio.run(asyncio.wait_for(opened(), _STORY_SECONDS))


def asked(cluster: NatsCluster, subject: str, body: dict[str, Any], **user: str) -> dict[str, Any]:
    """Return the answer of JetStream's API to *user*, with the options of `nats.connect`."""

    async def request() -> dict[str, Any]:
        client = await nats.connect(cluster.urls, **user)
        try:
            answer = await client.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=30)
            found: dict[str, Any] = json.loads(answer.data)
            return found
        finally:
            await client.close()

    return asyncio.run(request())
