"""A trial: managers and workers of two releases work together over a link, and no job is lost or runs twice.

    git archive v0.1.0 service | tar -x -C /tmp/other
    python -m benchmarks.releases /tmp/other

The jobs are those of `taking_back`: each run adds its number to a file of marks. In the last case the manager
is killed and started again all the time; then only what is lost is judged, and what ran twice is told.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import taking_back
from benchmarks.proxy import Link
from benchmarks.systems import THIS, Release, Service, end
from svc import Client

#: Seconds from the start of the manager to the next kill.
_KILL_SECONDS = 3.0
_BURST = 500


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        name: of its row.
        manager: its release.
        workers: the release of each, and the number of its consumers.
        killed: whether the manager is killed meanwhile.
    """

    name: str
    manager: Release
    workers: tuple[tuple[Release, int], ...]
    killed: bool = False


@dataclass(frozen=True)
class Seen:
    """A trial's results: jobs a second, kills of the manager, and how often jobs ran."""

    rate: float
    kills: int
    runs: taking_back.Runs


def trials(other: Release) -> tuple[Trial, ...]:
    """Return the ways in which a fleet is upgraded: the manager first, or a worker first."""
    both = ((other, 4), (THIS, 4))
    return (
        Trial("workers of the other release", THIS, ((other, 8),)),
        Trial("workers of both", THIS, both),
        Trial("workers of both at the other's manager", other, both),
        Trial("workers of both, manager killed", THIS, both, killed=True),
    )


def see(trial: Trial, jobs: int, delay: float) -> Seen:
    """Run one trial with so many jobs, over a link of *delay* seconds each way."""
    with taking_back.marks() as folder:
        with ExitStack() as stack:
            service = stack.enter_context(Service("fsync", consumers=0, release=trial.manager))
            link = stack.enter_context(Link([service.address], delay))
            place = link.addresses[0]
            for release, consumers in trial.workers:
                worker = service.start_worker(consumers, manager=place, release=release)
                stack.callback(end, worker)  # while it still reaches its manager
            service.wait_for_consumers(sum(consumers for _, consumers in trial.workers))
            client = stack.enter_context(Client(place, authkey_file=service.keyfile))
            started = time.monotonic()
            kills = stack.enter_context(killing(service)) if trial.killed else []
            taking_back.run_bursts(client, jobs, _BURST)
            seconds = time.monotonic() - started
        return Seen(jobs / seconds, len(kills), taking_back.counted(folder, jobs))


@contextmanager
def killing(service: Service) -> Iterator[list[float]]:
    """Kill the manager again and again, and start it each time; yields the times of the kills."""
    over = threading.Event()
    kills: list[float] = []

    def kill() -> None:
        while not over.wait(_KILL_SECONDS):
            service.manager.kill()
            service.manager.wait()
            kills.append(time.monotonic())
            service.start_manager()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield kills
    finally:
        over.set()
        thread.join()


@contextmanager
def release_in(tree: Path) -> Iterator[Release]:
    """Yield the release whose source *tree* this is, alone in a folder: the tree has other packages too."""
    inside = tree.resolve() / "service"
    package, source = ("svc", inside / "svc") if (inside / "svc").is_dir() else ("service", inside)
    with TemporaryDirectory(prefix="svc-release-") as folder:
        (Path(folder) / package).symlink_to(source)
        yield Release(package, Path(folder))


def main(arguments: list[str]) -> int:
    """Run all trials and print a table; return 1 if a job was lost, or ran twice without a kill."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.releases", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("tree", type=Path, help="the other release's source tree, with its folder `service`")
    parser.add_argument("--delay", type=float, default=0.01, help="of the link, in seconds one way (0.01)")
    parser.add_argument("--jobs", type=int, default=20_000, metavar="N", help="of each trial (20,000)")
    told = parser.parse_args(arguments)
    bad = False
    print("| | jobs/s | kills | ran twice | never ran |\n|---|---:|---:|---:|---:|")
    with release_in(told.tree) as other:
        for trial in trials(other):
            seen = see(trial, told.jobs, told.delay)
            runs = seen.runs
            bad |= bool(runs.never or (runs.twice and not trial.killed))
            print(
                f"| {trial.name} | {seen.rate:,.0f} | {seen.kills} | {runs.twice} | {runs.never} |",
                flush=True,
            )
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
