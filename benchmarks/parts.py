"""Processor time of each part for a no-op job, of this checkout beside another one.

    python -m benchmarks.parts --against ../other-checkout --rounds 10

Each round measures this checkout, the other one, and this one again, so that the spread between two measures
of the same code stands beside the difference. Every measure starts a manager and a worker of its own. Each
checkout runs in its own environment (`.venv`). Logs have the level `warning`, as they had in all older ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.systems import Service

ROOT = Path(__file__).parents[1]
PARTS = ("client", "manager", "consumers", "all")
JOBS = 100_000
_WARM_JOBS = 20_000


def measure(durability: str, jobs: int) -> dict[str, float]:
    """Return the microseconds of processor time that each part takes for one of *jobs* no-op jobs."""
    from benchmarks import tasks

    with _quiet(durability) as service:
        parts = {
            "manager": [service.manager.pid],
            "consumers": below(service.worker.pid if service.worker else 0),
        }
        for _ in service.all(tasks.same, range(_WARM_JOBS)):
            pass
        before = {part: seconds_of(pids) for part, pids in parts.items()}
        own = time.process_time()
        for _ in service.all(tasks.same, range(jobs)):
            pass
        spent = {"client": time.process_time() - own}
        spent |= {part: seconds_of(pids) - before[part] for part, pids in parts.items()}
    spent["all"] = sum(spent.values())
    return {part: seconds / jobs * 1e6 for part, seconds in spent.items()}


def _quiet(durability: str) -> Service:
    """Return a service with the log level `warning`, which an older checkout has always."""
    from benchmarks.systems import Service

    try:
        return Service(durability, logs=False)
    except TypeError:
        return Service(durability)


def seconds_of(pids: Sequence[int]) -> float:
    """Return the processor time of processes so far, from the scheduler's own count in nanoseconds."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*"):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def below(pid: int) -> list[int]:
    """Return *pid* and its living descendants, by the parent that /proc names for each process."""
    # `benchmarks.processes` has the same function, but this file also runs with an older checkout's packages.
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for parent in found:
        found += [child for child, known in parents.items() if known == parent]
    return found


def compare(other: Path, durability: str, rounds: int, jobs: int) -> dict[str, list[dict[str, float]]]:
    """Return the measures of this checkout, of *other*, and of this one again, a list of rounds each."""
    found: dict[str, list[dict[str, float]]] = {"this": [], "other": [], "again": []}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for name, place in (("this", ROOT), ("other", other), ("again", ROOT)):
            found[name].append(_measured(place, durability, jobs))
    return found


def _measured(place: Path, durability: str, jobs: int) -> dict[str, float]:
    python = place / ".venv/bin/python"
    command = [
        str(python if python.exists() else sys.executable),
        str(Path(__file__).resolve()),
        "--measure",
        durability,
    ]
    done = subprocess.run(
        [*command, "--jobs", str(jobs)],
        cwd=place,
        env={"PYTHONPATH": f"{place / 'service'}:{place}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the medians in µs, and as ratios with the range of the rounds."""
    lines = [
        f"{'part':<11}{'other µs':>10}{'this µs':>10}{'ratio':>8}   {'rounds':<15}{'this against itself':<20}"
    ]
    for part in PARTS:
        this, other, again = ([each[part] for each in found[name]] for name in ("this", "other", "again"))
        ratios = sorted(one / two for one, two in zip(this, other, strict=True))
        same = sorted(one / two for one, two in zip(this, again, strict=True))
        lines.append(
            f"{part:<11}{statistics.median(other):>10.2f}{statistics.median(this):>10.2f}"
            f"{statistics.median(ratios):>8.3f}   {ratios[0]:.2f} to {ratios[-1]:.2f}   "
            f"{statistics.median(same):.3f}, {same[0]:.2f} to {same[-1]:.2f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="the other checkout")
    parser.add_argument("--durability", default="fsync", choices=("fsync", "os", "memory"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--measure", metavar="DURABILITY", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.jobs)))
        return 0
    print(table(compare(asked.against.resolve(), asked.durability, asked.rounds, asked.jobs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
