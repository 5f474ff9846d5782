"""The measures of many hosts: links, many clients, many workers, mixed load, and trials with bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from benchmarks import beside, link, many_hosts, mixed, producers, reconnect, taking_back
from benchmarks.figures import Figures


@dataclass(frozen=True)
class Sizes:
    """The amounts of work of each measure."""

    link: link.Sizes = link.FULL
    clients: producers.Sizes = producers.FULL
    workers: many_hosts.Sizes = many_hosts.FULL
    mixed: mixed.Sizes = mixed.FULL
    beside: beside.Sizes = beside.FULL
    taking_back: taking_back.Sizes = taking_back.FULL
    reconnect: reconnect.Sizes = reconnect.FULL

    def without_peers(self) -> Sizes:
        """Return the same for svc alone."""
        alone = {}
        for each in fields(self):
            sizes: Any = getattr(self, each.name)
            alone[each.name] = replace(sizes, peers=()) if hasattr(sizes, "peers") else sizes
        return replace(self, **alone)

    def with_jobs(self, jobs: int) -> Sizes:
        """Return the same with so many jobs of which taking back counts the runs."""
        return replace(self, taking_back=replace(self.taking_back, jobs=jobs))


FULL = Sizes()
QUICK = Sizes(
    link.QUICK,
    producers.QUICK,
    many_hosts.QUICK,
    mixed.QUICK,
    taking_back=taking_back.QUICK,
    reconnect=reconnect.QUICK,
)
SMOKE = Sizes(
    link.SMOKE,
    producers.SMOKE,
    many_hosts.SMOKE,
    mixed.SMOKE,
    beside.SMOKE,
    taking_back.SMOKE,
    reconnect.SMOKE,
).without_peers()

#: The measures by the names that `--only` takes.
MEASURES: dict[str, Callable[[str, Sizes, Figures], None]] = {
    "link": lambda durability, sizes, figures: link.measure(durability, sizes.link, figures),
    "clients": lambda durability, sizes, figures: producers.measure(durability, sizes.clients, figures),
    "workers": lambda durability, sizes, figures: many_hosts.measure(durability, sizes.workers, figures),
    "mixed": lambda durability, sizes, figures: mixed.measure(durability, sizes.mixed, figures),
    "beside": lambda durability, sizes, figures: beside.measure(durability, sizes.beside, figures),
    "taking-back": lambda durability, sizes, figures: taking_back.measure(
        durability, sizes.taking_back, figures
    ),
    "reconnect": lambda durability, sizes, figures: reconnect.measure(durability, sizes.reconnect, figures),
}
