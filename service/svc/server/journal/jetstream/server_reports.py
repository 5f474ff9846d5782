"""The reports of NATS servers on themselves, if the account may ask: whether they may lose commits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from svc.server.journal.jetstream.stream_form import old_release

#: The answer of one server to the question for its settings, in the form of NATS' JSON.
Report = Mapping[str, Any]


def risks_of(reports: Iterable[Report]) -> Iterator[str]:
    """Yield a sentence for each fault of a server with which a loss of power may lose messages."""
    for report in reports:
        server, settings = report.get("server") or {}, _settings(report)
        if settings is None:
            continue
        name = str(server.get("name", "?"))
        if not settings.get("sync_always"):
            yield (
                f"the NATS server {name} does not sync each write: set `sync_interval: always` in its "
                "`jetstream`"
            )
        if old := old_release(str(server.get("ver", ""))):
            yield f"the NATS server {name} {old}"


def untold(reports: Iterable[Report], replicas: int) -> str:
    """Return a sentence about servers that have told nothing; empty if all *replicas* have."""
    told = sum(_settings(report) is not None for report in reports)
    if not told:
        return (
            "the NATS servers do not tell whether they sync each write; without `sync_interval: always` a "
            "loss of power may lose accepted jobs. Nor do they tell how much room they have: at their limit "
            "the service stands still"
        )
    if told < replicas:
        return (
            f"{told} of {replicas} NATS servers have told whether they sync each write; see that the others "
            "run, and have `sync_interval: always`"
        )
    return ""


def _settings(report: Report) -> Mapping[str, Any] | None:
    """Return the settings of a server; None if it did not tell them, or keeps no stream."""
    data = report.get("data") or {}
    return None if data.get("disabled") else data.get("config")
