"""Measures that take long, or gigabytes of disk: each on a service of its own, and only on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import dead, depth, floors, hostile, keyed, lanes, large, pauses, recovery, width
from benchmarks.figures import Figures

#: The systems with which the other rows of the same measure are compared.
FEW, SHALLOW, DISK = "4 consumers", "10,000 waiting", "the disk, synced"
FEW_LANES = f"{lanes.COUNTS[0]} lanes"
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Extent:
    """The amounts of work of all measures."""

    large_jobs: int = 200
    large_bytes: int = 16 * _MEBIBYTE
    consumers: int = 2_000
    jobs: int = 20_000
    handed: int = 100_000
    idle_seconds: float = 10.0
    waiting: int = 1_000_000
    shallow: int = 10_000
    taken: int = 100_000
    busy: int = 1_000_000
    kept: int = 50_000
    trips: int = 1_000
    priorities: int = 100_000
    queues: int = 10_000
    large_frame: int = 57_000_000
    small_frame: int = _MEBIBYTE
    peers: int = 1_024
    attacks: int = 1_000
    settle_seconds: float = 2.0
    lanes: int = 100_000
    dead: int = 100_000


SMOKE = Extent(
    4,
    _MEBIBYTE,
    40,
    400,
    2_000,
    0.2,
    2_000,
    1_000,
    500,
    400,
    100,
    20,
    200,
    50,
    _MEBIBYTE // 2,
    16 * 1024,
    24,
    6,
    0.1,
    1_000,
    40,
)


def large_jobs(durability: str, extent: Extent, figures: Figures) -> None:
    """Move large arguments and results through a manager."""
    name = f"{extent.large_jobs} jobs of {extent.large_bytes // _MEBIBYTE} MiB, {durability}"
    seen = large.measure(durability, extent.large_jobs, extent.large_bytes)
    figures.note("large arguments and results", "MB/s", name, seen.rate / 1e6)
    figures.note("large arguments and results", "MB/s", DISK, seen.disk_rate / 1e6)
    figures.note("CPU of manager, 1 MiB of large jobs", "ms", name, seen.manager_seconds * 1e3)
    figures.note("peak RSS of manager, large jobs", "MiB", name, seen.peak / _MEBIBYTE)


def wide(durability: str, extent: Extent, figures: Figures) -> None:
    """Compare many connected consumers with four."""
    for seen in width.measure(durability, extent.consumers, extent.handed, extent.idle_seconds):
        name = FEW if seen.consumers == 4 else f"{seen.consumers:,} consumers"
        figures.note("CPU of manager, consumers idle", "% of a core", name, seen.idle_percent)
        figures.note("RSS of manager, consumers idle", "MiB", name, seen.resident / _MEBIBYTE)
        figures.note("messages to consumers for one job", "", name, seen.messages)
        figures.note("no-op jobs, submit to last report", "jobs/s", name, seen.rate)
        figures.note("CPU of manager, 1,000 such jobs", "ms", name, seen.manager_seconds * 1e6)


def deep(durability: str, extent: Extent, figures: Figures) -> None:
    """Compare many waiting jobs with few."""
    for waiting in (extent.shallow, extent.waiting):
        name = SHALLOW if waiting == extent.shallow else f"{waiting:,} waiting"
        seen = depth.measure(durability, waiting, extent.taken)
        figures.note("jobs taken from a backlog", "jobs/s", name, seen.rate)
        figures.note("CPU of manager, 1,000 jobs of it", "ms", name, seen.manager_seconds * 1e6)
        figures.note("submit of the backlog", "jobs/s", name, seen.submit_rate)
        figures.note("peak RSS of manager, backlog", "MiB", name, seen.peak / _MEBIBYTE)
        figures.note("longest turn of the manager's loop", "ms", name, seen.longest_turn * 1e3)
        figures.note("killed manager, start to ready", "s", name, seen.recovery)
        figures.note("RSS of manager, recovered", "MiB", name, seen.recovered / _MEBIBYTE)


def paused(durability: str, extent: Extent, figures: Figures) -> None:
    """Run jobs at full load, together with everything else that could delay the loop."""
    name = f"{extent.busy:,} jobs, {extent.kept:,} kept, {durability}"
    seen = pauses.measure(durability, extent.busy, extent.kept)
    figures.note("longest turn, or sync of a page", "ms", name, seen.longest_turn * 1e3)
    figures.note("longest turn, or sync of a page", "ms", DISK, seen.longest_sync * 1e3)
    figures.note("jobs beside checkpoints and retention", "jobs/s", name, seen.rate)
    figures.note("jobs forgotten meanwhile", "", name, seen.forgotten)


def recovered(durability: str, extent: Extent, figures: Figures) -> None:
    """Kill a manager with many waiting jobs, with journals of several shapes."""
    for seen in recovery.measure(durability, extent.waiting):
        name = f"{extent.waiting:,} jobs {seen.shape}"
        figures.note("killed manager, start to first answer", "s", name, seen.seconds)
        figures.note("RSS of manager, started again", "MiB", name, seen.resident / _MEBIBYTE)


def with_keys(durability: str, extent: Extent, figures: Figures) -> None:
    """Let jobs wait that each have a key, or a due time of their own; then kill the manager."""
    for seen in keyed.measure(durability, extent.waiting):
        name = f"{extent.waiting:,} jobs {seen.shape}"
        figures.note("memory of manager for each waiting job", "bytes", name, seen.each)
        figures.note("the same once it was started again", "bytes", name, seen.recovered)
        figures.note("killed manager, start to first answer", "s", name, seen.recovery)


def dead_jobs(durability: str, extent: Extent, figures: Figures) -> None:
    """Let jobs fail until they are dead, with long tracebacks; then kill the manager."""
    for seen in dead.measure(durability, extent.dead):
        name = f"{extent.dead:,} dead jobs, {dead.ATTEMPTS} attempts each, {seen.shape}"
        figures.note("failures recorded", "1/s", name, seen.failures)
        figures.note("peak RSS of manager, dead jobs", "MiB", name, seen.total / _MEBIBYTE)
        figures.note("peak RSS of manager, started again", "MiB", name, seen.again / _MEBIBYTE)
        figures.note("journal of dead jobs", "MiB", name, seen.journal / _MEBIBYTE)
        figures.note("killed manager, start to first answer", "s", name, seen.recovery)
        figures.note("the same, of the processor", "s", name, seen.spent)
        figures.note("histories that were complete, in percent", "", name, 100 * seen.complete)
        figures.note("journal verify, dead jobs", "s", name, seen.verified)


def below(durability: str, extent: Extent, figures: Figures) -> None:
    """Measure only the work that the service cannot avoid."""
    hops, sync = "4 messages, 3 processes", "one page, synced"
    figures.note("floor of a round trip", "ms", hops, floors.hops_seconds(extent.trips) * 1e3)
    figures.note("floor of a round trip", "ms", sync, floors.sync_seconds(extent.trips) * 1e3)
    kib, mib = ("1 KiB", 1024, extent.jobs), ("16 MiB", 16 * _MEBIBYTE, extent.large_jobs // 4)
    for name, size, jobs in (kib, mib):
        alone, rate = f"SQLite alone, {name}", floors.journal_rate(jobs, size)
        figures.note("floor of arguments and results", "MB/s", alone, 2 * size * rate / 1e6)
        figures.note("floor of jobs with them", "jobs/s", alone, rate)
    for name, size in (("1 KiB", 1024), ("3 bytes", 3)):
        spent = floors.carry_seconds(10 * extent.jobs, size)
        figures.note("floor of CPU, 1,000 jobs carried", "ms", name, spent * 1e6)
    items = floors.thread_rate(extent.jobs)
    figures.note("floor of stock clients, 4+4", "items/s", "one thread alone", items)


def attacked(durability: str, extent: Extent, figures: Figures) -> None:
    """Attack a manager with many queues, priorities and jobs, in all ways that keys of low roles allow."""
    sizes = hostile.Sizes(
        waiting=extent.waiting,
        priorities=extent.priorities,
        queues=extent.queues,
        large=extent.large_frame,
        small=extent.small_frame,
        peers=extent.peers,
        attacks=extent.attacks,
        settle=extent.settle_seconds,
    )
    for seen in hostile.measure(durability, sizes):
        bounded = f"{seen.name} (at most {seen.bound * 1e3:.0f})"
        figures.note("attack: CPU of the longest turn", "ms", bounded, seen.turn * 1e3)
        figures.note("attack: CPU between two answers", "ms", bounded, seen.cpu * 1e3)
        figures.note("attack: longest wait of an operator", "ms", seen.name, seen.gap * 1e3)
        figures.note("attack: peak RSS of manager", "MiB", seen.name, seen.peak / _MEBIBYTE)
        figures.note("attack: the operator was served", "", seen.name, seen.served)


def of_lanes(durability: str, extent: Extent, figures: Figures) -> None:
    """Hand out jobs one by one, with many waiting lanes and with few."""
    for seen in lanes.measure(extent.lanes):
        measure = f"CPU of manager, a grant beside many {seen.kind}"
        figures.note(measure, "us", f"{seen.lanes:,} lanes", seen.seconds * 1e6)


#: The long measures, by the names that `--only` takes.
HEAVY: dict[str, Callable[[str, Extent, Figures], None]] = {
    "large": large_jobs,
    "width": wide,
    "depth": deep,
    "pauses": paused,
    "recovery": recovered,
    "keyed": with_keys,
    "dead": dead_jobs,
    "floors": below,
    "hostile": attacked,
    "lanes": of_lanes,
}
