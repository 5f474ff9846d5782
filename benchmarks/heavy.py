"""Measures that take long, or gigabytes of disk: each on a service of its own, and only on request."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks import (
    commands,
    dead,
    depth,
    floors,
    hostile,
    hosts,
    keyed,
    lanes,
    large,
    large_values,
    lists,
    output,
    pauses,
    recovery,
    recycling,
    replicated,
    reports,
    restart,
    stock_beside,
    stopping,
    waits,
    width,
)
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
    backlog: int = 10_000
    restarts: int = 20
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
    dozes: int = 10_000
    commands: int = 3_000
    coroutines: int = 1_000
    listed: int = 20_000
    with_peers: bool = True
    stops: int = 5
    lines: int = 100
    flood_bytes: int = 10**9
    flood_jobs: int = 200
    items: int = 2_000
    reporting: int = 1_000
    report_seconds: float = 20.0
    value_bytes: int = 1024 * _MEBIBYTE
    hosts: hosts.Sizes = hosts.FULL
    replicated: replicated.Sizes = replicated.FULL


SMOKE = Extent(
    large_jobs=4,
    large_bytes=_MEBIBYTE,
    consumers=40,
    jobs=400,
    handed=2_000,
    idle_seconds=0.2,
    waiting=2_000,
    shallow=1_000,
    taken=500,
    busy=400,
    kept=100,
    trips=20,
    priorities=200,
    queues=50,
    large_frame=_MEBIBYTE // 2,
    small_frame=16 * 1024,
    peers=24,
    attacks=6,
    settle_seconds=0.1,
    lanes=1_000,
    dead=40,
    dozes=200,
    commands=20,
    coroutines=50,
    listed=200,
    with_peers=False,
    stops=1,
    lines=5,
    flood_bytes=4 * 10**6,
    flood_jobs=4,
    items=40,
    reporting=20,
    report_seconds=1.0,
    value_bytes=24 * _MEBIBYTE,
    backlog=100,
    restarts=1,
    hosts=hosts.SMOKE,
    replicated=replicated.SMOKE,
)
#: Less work, for the measures that know it.
QUICK = replace(Extent(), hosts=hosts.QUICK, replicated=replicated.QUICK)


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


def restarted(durability: str, extent: Extent, figures: Figures) -> None:
    """Stop and start a manager with a backlog and busy consumers."""
    for seen in restart.measure(durability, extent.backlog, extent.restarts):
        figures.note("from ready to the first job, median", "s", seen.name, seen.median)
        figures.note("from ready to the first job, longest", "s", seen.name, seen.longest)


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
        figures.note("attack: CPU of that turn at usual speed", "ms", bounded, seen.turn / seen.slow * 1e3)
        figures.note("attack: CPU between two answers", "ms", bounded, seen.cpu * 1e3)
        figures.note("attack: longest wait of an operator", "ms", seen.name, seen.gap * 1e3)
        figures.note("attack: peak RSS of manager", "MiB", seen.name, seen.peak / _MEBIBYTE)
        figures.note("attack: all within the bounds", "", seen.name, seen.within)


def of_lanes(durability: str, extent: Extent, figures: Figures) -> None:
    """Hand out jobs one by one, with many waiting lanes and with few."""
    for seen in lanes.measure(extent.lanes):
        measure = f"CPU of manager, a grant beside many {seen.kind}"
        figures.note(measure, "us", f"{seen.lanes:,} lanes", seen.seconds * 1e6)


def recycled(durability: str, extent: Extent, figures: Figures) -> None:
    """Run short sleeps on a worker that replaces its consumers all the time, and on one that does not."""
    for seen in recycling.measure(durability, extent.dozes):
        figures.note("sleeps of 20 ms", "jobs/s", seen.name, seen.rate)
        figures.note("fewest consumers at any look", "", seen.name, seen.fewest)


def stopped(durability: str, extent: Extent, figures: Figures) -> None:
    """End tasks that would run for ever, by their timeout and by a cancel."""
    for seen in stopping.measure(durability, extent.stops):
        figures.note(f"end beyond a timeout of {stopping.LIMIT:g} s", "s", seen.name, seen.beyond_timeout)
        figures.note(f"end after a cancel, grace {stopping.LIMIT:g} s", "s", seen.name, seen.after_cancel)


def waiting_jobs(durability: str, extent: Extent, figures: Figures) -> None:
    """Run coroutines that wait for a second, all at once in one consumer."""
    seen = waits.measure(durability, extent.coroutines)
    name = f"{extent.coroutines:,} coroutines that wait 1 s, 1 consumer, {durability}"
    figures.note("jobs that wait at once", "s", name, seen.seconds)
    for part, seconds in seen.cpu.items():
        figures.note(f"CPU of {part}, 1,000 jobs that wait", "ms", name, seconds / extent.coroutines * 1e6)


def listed_jobs(durability: str, extent: Extent, figures: Figures) -> None:
    """Run jobs that do nothing, in lists of up to 100, in lists of one, and without lists."""
    rates: dict[str, float] = {}
    for seen in lists.measure(durability, extent.listed):
        name = f"{seen.name}, {durability}"
        rates[seen.name] = seen.rate
        figures.note("no-op jobs by the size of lists", "jobs/s", name, seen.rate)
        for part, seconds in seen.cpu.items():
            figures.note(f"CPU of {part}, 1,000 jobs in lists", "ms", name, seconds * 1e6)
    ratio = rates["batch=100"] / rates["batch=1"]
    figures.note("no-op jobs, batch=100 beside batch=1", "times", durability, ratio)


def shell_commands(durability: str, extent: Extent, figures: Figures) -> None:
    """Run a command for each line, between HyperQueue in one way and in the other, if it can be installed."""
    name = f"{extent.commands:,} x true"
    before, after = commands.WAYS
    peers: dict[str, float] = {}
    if extent.with_peers:
        peers[before] = commands.hyperqueue_rate(extent.commands, before)
    own = commands.service_rate(durability, extent.commands)
    figures.note("shell commands", "jobs/s", f"{name}, svc run, {durability}", own)
    if extent.with_peers:
        peers[after] = commands.hyperqueue_rate(extent.commands, after)
    for way, rate in peers.items():
        figures.note("shell commands", "jobs/s", f"{name}, HyperQueue {commands.WAYS[way]}", rate)
        figures.note("svc run to HyperQueue", "times", f"{name}, HyperQueue {commands.WAYS[way]}", own / rate)


def of_output(durability: str, extent: Extent, figures: Figures) -> None:
    """Capture the output of jobs: of many that write nothing, of one that writes lines, and of floods."""
    turns = list(output.capture_rates(durability, extent.jobs))
    for turn in turns:
        figures.note("no-op jobs with output", "jobs/s", turn.name, turn.rate)
        figures.note("CPU of worker, 1,000 jobs with output", "ms", turn.name, turn.cpu * 1e6)
    for pair in zip(turns[::2], turns[1::2], strict=True):
        on, off = sorted(pair, key=lambda turn: turn.name)
        figures.note("no-op jobs, captured to not captured", "ratio", "rate", on.rate / off.rate)
        figures.note("no-op jobs, captured to not captured", "ratio", "CPU of worker", on.cpu / off.cpu)
    delays = output.line_delays(durability, extent.lines)
    figures.note("print to `svc logs --follow`", "s", "median", statistics.median(delays))
    figures.note("print to `svc logs --follow`", "s", "longest", max(delays))
    alone = output.pipe_rate(extent.flood_bytes)
    for seen in output.floods(durability, extent.flood_bytes, extent.flood_jobs):
        figures.note("flood of output", "MB/s", seen.name, seen.rate / 1e6)
        figures.note("flood of output", "MB/s", "a pipe that is only read", alone / 1e6)
        figures.note("files of output", "MiB", seen.name, seen.disk / _MEBIBYTE)
        figures.note("files of output", "MiB", f"{seen.name}, the bound", seen.bound / _MEBIBYTE)
        figures.note("growth of manager in a flood", "MiB", seen.name, seen.grown / _MEBIBYTE)
        figures.note("CPU of manager in a flood", "s", seen.name, seen.cpu)


def reporting_jobs(durability: str, extent: Extent, figures: Figures) -> None:
    """Run very many jobs at once that tell their progress and leave checkpoints, beside silent ones."""
    for seen in reports.measure(durability, extent.reporting, extent.report_seconds):
        name = f"{extent.reporting:,} jobs, {seen.name}"
        figures.note("CPU of manager, jobs that report", "% of a core", name, 100 * seen.share)
        figures.note("CPU of worker, jobs that report", "% of a core", name, 100 * seen.consumers)
        for which, rate in (("mean", statistics.fmean(seen.rates)), ("least", min(seen.rates))):
            figures.note("reports of a job that arrived", "reports/s", f"{name}, {which}", rate)


def large_values_moved(durability: str, extent: Extent, figures: Figures) -> None:
    """Move bytes and files in pieces, and see how much memory each process takes for it."""
    size = f"{extent.value_bytes // _MEBIBYTE:,} MiB"
    for seen in large_values.measure(durability, extent.value_bytes):
        name = f"{size}, {seen.name}"
        figures.note("large value, submit to result", "s", name, seen.seconds)
        figures.note("memory of manager, large value", "MiB more", name, seen.manager / _MEBIBYTE)
        figures.note("memory of client beside the value", "MiB more", name, seen.client / _MEBIBYTE)
        figures.note("memory of consumer beside the value", "MiB more", name, seen.consumer / _MEBIBYTE)


def stock_clients_beside(durability: str, extent: Extent, figures: Figures) -> None:
    """Pass items of four stock producers to four consumers while other processes use the cores."""
    for seen in stock_beside.measure((durability,), extent.items):
        beside = f"{seen.busy} busy processes"
        figures.note(f"stock, 4+4 clients beside {beside}", "items/s", seen.server, seen.rate)
        figures.note(
            f"stock, server's processor time beside {beside}", "ms", seen.server, seen.server_seconds * 1e3
        )


def of_stream(durability: str, extent: Extent, figures: Figures) -> None:
    """Compare the journal on three NATS servers with the one in a file, and with a bare queue there."""
    replicated.measure(extent.replicated, figures)


def of_hosts(name: str, durability: str, extent: Extent, figures: Figures) -> None:
    """Do the measure of many hosts that has this name."""
    sizes = extent.hosts if extent.with_peers else extent.hosts.without_peers()
    hosts.MEASURES[name](durability, sizes, figures)


#: The long measures, by the names that `--only` takes.
HEAVY: dict[str, Callable[[str, Extent, Figures], None]] = {
    "large": large_jobs,
    "width": wide,
    "depth": deep,
    "pauses": paused,
    "recovery": recovered,
    "restart": restarted,
    "keyed": with_keys,
    "dead": dead_jobs,
    "floors": below,
    "hostile": attacked,
    "lanes": of_lanes,
    "recycling": recycled,
    "waiting": waiting_jobs,
    "lists": listed_jobs,
    "commands": shell_commands,
    "stopping": stopped,
    "output": of_output,
    "reports": reporting_jobs,
    "stock-beside": stock_clients_beside,
    "large-values": large_values_moved,
    "replicated": of_stream,
    **{name: partial(of_hosts, name) for name in hosts.MEASURES},
}
