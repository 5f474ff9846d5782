"""`svc status`, `queues`, `workers`, `metrics`, `health`: the state of the service."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from svc.addresses import Address, ManagerAddresses, parse_address
from svc.cli.options import Json, Ndjson
from svc.cli.output import (
    age,
    distance,
    facts,
    show_items,
    size,
    span,
    table,
    tell,
    write,
    write_exact,
    write_json,
)
from svc.cli.wiring import open_client
from svc.domain.lifecycle import JobState
from svc.domain.names import LARGE, TYPED
from svc.errors import ServiceError
from svc.settings import RemoteSettings

#: Seconds by which the queue's clock is off from the host's and that is told.
CLOCK_TOLD_SECONDS = 60.0

if TYPE_CHECKING:
    from collections.abc import Callable

    from svc.cli.output import Column
    from svc.client.client import BrokerClient
    from svc.domain.replies import QueueStats, Totals, WorkerView
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
                ("READ-AHEAD", lambda worker: str(worker.read_ahead)),
                ("ROUND-TRIP", round_trip_text),
                ("RESTARTS", lambda worker: str(worker.restarts)),
                ("QUEUES", lambda worker: ",".join(worker.queues)),
                ("CODE", code_text),
                ("UP", lambda worker: age(worker.connected_at)),
                ("SEEN", lambda worker: distance(worker.seen_at)),
                ("STATE", state_text),
            ],
            "no workers are connected - start one with `svc worker`",
            spare=(
                "HOST",
                "READ-AHEAD",
                "RESTARTS",
                "LEASED",
                "SEEN",
                "UP",
                "ROUND-TRIP",
                "QUEUES",
                "CODE",
                "BUSY",
            ),
        )


def round_trip_text(worker: WorkerView) -> str:
    """Return the round trip of a worker in milliseconds, with two digits; "-" if it is not known."""
    milliseconds = worker.round_trip * 1000
    if not milliseconds:
        return "-"
    return f"{milliseconds:.1f}ms" if milliseconds < 10 else f"{milliseconds:.0f}ms"


def state_text(worker: WorkerView) -> str:
    """Return what a worker does, for people."""
    if worker.silent:
        return "silent"
    if worker.doubled:
        return "name taken twice"
    return "draining" if worker.draining else "taking jobs"


def code_text(worker: WorkerView) -> str:
    """Return the version of the code of a worker's tasks; if there are several, each with its consumers."""
    if len(worker.code) == 1:
        return next(iter(worker.code))
    return ", ".join(f"{version} ({count})" for version, count in sorted(worker.code.items()))


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


def _print_status(manager: ManagerAddresses, totals: Totals) -> None:
    drain = "yes: workers finish their jobs and leave; `svc resume` ends it" if totals.drain else ""
    facts(
        (
            ("manager", f"{manager}, svc {totals.release or '?'}, up {span(totals.uptime)}"),
            ("leader", _leader(totals)),
            ("journal", f"{size(totals.journal_bytes)}, durability {totals.durability or '?'}"),
            ("workers", f"{totals.workers} with {totals.consumers} consumers, {totals.busy} busy"),
            ("draining", drain or ", ".join(totals.drained_workers)),
            ("clock", _clock(totals)),
        )
    )
    if totals.queues:
        write("")
        table(totals.queues, _queue_columns(), "", spare=_SPARE)
    from svc.domain.job import SHELL  # not at the import: the help needs no msgspec

    unknown = {name for queue in totals.queues for name in queue.unknown}
    if named := sorted(unknown - {SHELL}):
        tasks, modules = ("task", "its module") if len(named) == 1 else ("tasks", "their modules")
        names = ", ".join(named)
        tell(f"no connected worker knows the {tasks} {names}; start one with {modules} in --tasks")
    if SHELL in unknown:
        tell("no connected worker runs shell commands; start one with --shell")
    if not unknown and not totals.workers:
        tell("no workers are connected - start one with `svc worker`")
    for codec in sorted({name for queue in totals.queues for name in queue.unaccepted}):
        wanted = "of this release" if codec in {TYPED, LARGE} else f"with --accept {codec}"
        tell(f"no worker accepts {codec}; jobs wait for one {wanted}")


def _leader(totals: Totals) -> str:
    """Return the manager that leads a replicated journal, its term and its standbys; "" on other journals."""
    if not totals.leader:
        return ""
    standbys = "1 standby" if totals.standbys == 1 else f"{totals.standbys or 'no'} standbys"
    return f"{totals.leader}, term {totals.incarnation}, {standbys}"


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
