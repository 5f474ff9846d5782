"""`svc status`, `queues`, `workers`, `metrics`, `health`: the state of the service."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from svc.addresses import Address, parse_address
from svc.cli.options import Json, Ndjson
from svc.cli.output import ago, facts, show_items, size, span, table, tell, write, write_exact, write_json
from svc.cli.wiring import open_client
from svc.domain.lifecycle import JobState
from svc.errors import ServiceError
from svc.settings import RemoteSettings

#: Seconds by which the queue's clock is off from the host's and that is told.
CLOCK_TOLD_SECONDS = 60.0

if TYPE_CHECKING:
    from collections.abc import Callable

    from svc.cli.output import Column
    from svc.client.client import BrokerClient
    from svc.domain.replies import QueueStats, Totals
    from svc.telemetry.http import Response


#: Columns of a table of queues that a narrow terminal does without, in this order.
_SPARE = ("CANCELLED", "SUCCEEDED", "RUNNING", "SCHEDULED", "OLDEST")


def status(
    ctx: typer.Context,
    settings: RemoteSettings,
    json: Json = False,
) -> None:
    """Show the whole service at a glance."""
    from svc.cli.documents import status_document

    with open_client(ctx, settings, settings.timeout) as client:
        totals = client.stats()
    if json:
        write_json(status_document(totals))
    else:
        _print_status(settings.manager, totals)


def queues(
    ctx: typer.Context,
    settings: RemoteSettings,
    json: Json = False,
    ndjson: Ndjson = False,
) -> None:
    """List queues, their counts and their ages."""
    from svc.cli.documents import queue_document

    with open_client(ctx, settings, settings.timeout) as client:
        found = client.stats().queues
    if not show_items(found, queue_document, json=json, ndjson=ndjson):
        table(found, _queue_columns(), "no queues yet", spare=_SPARE)


def workers(
    ctx: typer.Context,
    settings: RemoteSettings,
    json: Json = False,
    ndjson: Ndjson = False,
) -> None:
    """List the connected workers."""
    from svc.cli.documents import worker_document

    with open_client(ctx, settings, settings.timeout) as client:
        found = client.workers()
    if not show_items(found, worker_document, json=json, ndjson=ndjson):
        table(
            found,
            [
                ("WORKER", lambda worker: worker.name),
                ("HOST", lambda worker: worker.host),
                ("CONSUMERS", lambda worker: str(worker.consumers)),
                ("BUSY", lambda worker: str(worker.busy)),
                ("LEASED", lambda worker: str(worker.leased)),
                ("RESTARTS", lambda worker: str(worker.restarts)),
                ("QUEUES", lambda worker: ",".join(worker.queues)),
                ("UP", lambda worker: ago(worker.connected_at)),
                ("SEEN", lambda worker: f"{ago(worker.seen_at)} ago"),
                ("STATE", lambda worker: "draining" if worker.draining else "taking jobs"),
            ],
            "no workers are connected - start one with `svc worker`",
            spare=("HOST", "RESTARTS", "LEASED", "SEEN", "UP", "QUEUES", "BUSY"),
        )


def metrics(
    ctx: typer.Context,
    settings: RemoteSettings,
    http: Annotated[
        str, typer.Option("--http", metavar="HOST:PORT", help="Serve them at /metrics there, until stopped.")
    ] = "",
) -> None:
    """Print or serve the manager's metrics.

    They are in Prometheus' text format.
    """
    address = parse_address(http) if http else None
    with open_client(ctx, settings, settings.timeout) as client:
        if address:
            _serve(address, client)
        else:
            write_exact(client.metrics().rstrip("\n"))


def health(ctx: typer.Context) -> int:
    """Ask whether a manager or worker is ready.

    As `svc health --help` tells; asked on its host, over HTTP.
    """
    from svc import health as probe

    return probe.main(ctx.args)


def _print_status(manager: Address, totals: Totals) -> None:
    drain = "yes: consumers get a pill; `svc resume` ends it" if totals.drain else ""
    facts(
        (
            ("manager", f"{manager}, svc {totals.release or '?'}, up {span(totals.uptime)}"),
            ("journal", f"{size(totals.journal_bytes)}, durability {totals.durability or '?'}"),
            ("workers", f"{totals.workers} with {totals.consumers} consumers, {totals.busy} busy"),
            ("draining", drain or ", ".join(totals.drained_workers)),
            ("clock", _clock(totals)),
        )
    )
    if totals.queues:
        write("")
        table(totals.queues, _queue_columns(), "", spare=_SPARE)
    unknown = sorted({name for queue in totals.queues for name in queue.unknown})
    if unknown:
        tell(f"no connected worker knows the task {', '.join(unknown)}; start one with its module in --tasks")
    elif not totals.workers:
        tell("no workers are connected - start one with `svc worker`")
    for codec in sorted({name for queue in totals.queues for name in queue.unaccepted}):
        tell(f"no worker accepts {codec}; jobs wait for one with --accept {codec}")


def _clock(totals: Totals) -> str:
    """Return how far the queue's clock is from the time of day of the manager's host, if that is far."""
    offset = totals.clock_offset
    if abs(offset) < CLOCK_TOLD_SECONDS:
        return ""
    side = "behind" if offset > 0 else "ahead of"
    found = f"{span(offset)} {side} the host's time of day"
    if totals.clock_held:
        found += ": delays and retention are held; if the host is right, `svc journal accept-clock`"
    return found


def _queue_columns() -> list[Column[QueueStats]]:
    return [
        ("QUEUE", lambda queue: queue.name),
        *((state.name, partial(_count, state.word)) for state in JobState),
        ("OLDEST", lambda queue: span(queue.oldest) if queue.ready else ""),
        ("RUNNING", lambda queue: span(queue.oldest_running) if queue.leased else ""),
    ]


def _count(state: str, queue: QueueStats) -> str:
    return str(getattr(queue, state))


def _serve(address: Address, client: BrokerClient) -> None:
    """Serve /metrics until interrupted."""
    from svc.telemetry.http import HttpServer

    server = HttpServer((address.host, address.port), {"/metrics": _route(client)})
    server.start()
    tell(f"serving http://{Address(*server.address)}/metrics")
    try:
        threading.Event().wait()
    finally:
        server.stop()


def _route(client: BrokerClient) -> Callable[[], Response]:
    """Return a function that answers with the manager's metrics, one request after the other."""
    from svc.telemetry.exposition import CONTENT_TYPE
    from svc.telemetry.http import Response, text

    turn = threading.Lock()

    def answer() -> Response:
        try:
            with turn:
                return Response(200, CONTENT_TYPE, client.metrics().encode())
        except ServiceError as error:
            return text(503, error.message.partition("\n")[0])

    return answer
