"""`svc manager handover`: have a standby manager take the lead, before work on the leader's host."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from svc.cli.options import Json
from svc.cli.output import write, write_json
from svc.cli.wiring import open_client
from svc.errors import Conflict, ManagerUnreachable, ResultTimeout
from svc.settings import RemoteSettings

if TYPE_CHECKING:
    from svc.client.client import BrokerClient

#: Seconds for the standby to serve.
SERVES_SECONDS = 30.0
#: Seconds between two looks.
LOOK_SECONDS = 0.1


def handover(ctx: typer.Context, settings: RemoteSettings, json: Json = False) -> None:
    """Have a standby manager take the lead.

    The leader finishes its commit and ends; its service manager starts it again as a standby. Running
    jobs go on. Name all managers with --manager. Exit code 6 if no standby is there that has caught up with
    the journal; then nothing has changed. Also 6 if the standby is lost in that moment, and the old leader
    leads again. 124 if none serves within 30 seconds.
    """
    with open_client(ctx, settings, settings.timeout) as client:
        before = client.stats().leader
        client.hand_over()
        began = time.monotonic()
        while (leader := _leader(client, began)) is None:
            if time.monotonic() - began > SERVES_SECONDS:
                raise ResultTimeout(f"no standby serves after {SERVES_SECONDS:g} s; see the managers' logs")
            time.sleep(LOOK_SECONDS)
    if before and leader == before:
        raise Conflict(f"no standby has taken the lead; {leader} leads again: see the log of the other one")
    seconds = time.monotonic() - began
    if json:
        write_json({"seconds": seconds})
    else:
        write(f"a standby leads, after {seconds:.1f} s")


def _leader(client: BrokerClient, began: float) -> str | None:
    """Return the address of the leader, if it has begun to serve since *began* (monotonic)."""
    try:
        totals = client.stats()
    except ManagerUnreachable:  # the old leader has ended, and the standby has not begun
        return None
    return totals.leader if totals.uptime <= time.monotonic() - began else None
