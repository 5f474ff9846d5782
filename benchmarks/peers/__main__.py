"""Measure svc beside Celery, RQ, Dramatiq, Huey, TaskIQ, Dask, Ray and HyperQueue, in one run here.

Each peer is installed from its lock into an environment of its own under `.bench/`. Every round starts each
peer, does all measures with it, and stops it, so that no idle peer disturbs another. svc and the standard
library's pools are measured in the same round. Only ratios within one run are meaningful.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.commands import service_rate
from benchmarks.drawing import draw
from benchmarks.peers.environments import FOLDER, interpreter
from benchmarks.peers.redis_server import RedisServer
from benchmarks.peers.remote import Remote
from benchmarks.peers.report import Rounds, document, note, panels, table
from benchmarks.peers.table import PEERS, Peer
from benchmarks.peers.timing import SEED_JOBS, measure
from benchmarks.systems import Executor, Pool, Service

_OWN_JOBS = 20_000
_TRIPS = 1_000
_SECONDS = 3.0
_PROGRAMS = 2_000
_OWN_FACTS = {
    "svc, fsync": {
        "durable": "yes, fsynced",
        "settings": "client.map; results in the journal, fsynced; log level info",
    },
    "svc, memory": {"durable": "no", "settings": "client.map, --durability memory; log level info"},
    Pool.name: {"durable": "no, one host", "settings": "imap_unordered, chunksize=1"},
    Executor.name: {"durable": "no, one host", "settings": "submit, one call at a time"},
}


def main(arguments: list[str]) -> int:
    """Run the benchmark that *arguments* ask for; return the exit code: 1 if a peer failed."""
    options = _parser().parse_args(arguments)
    peers = [each for each in PEERS if each.name in options.only]
    FOLDER.mkdir(exist_ok=True)
    try:
        pythons, failed = _installed(peers)
        rounds = _rounds(pythons, options.rounds, failed)
    except FileNotFoundError as missing:
        print(f"make bench-peers: {missing}", file=sys.stderr)
        return 1
    figures = document(rounds, _facts(peers))
    print(table(figures))
    options.output.write_text(json.dumps(figures, indent=1) + "\n")
    draw(panels(figures), note(figures), options.plot)
    for title, reason in failed.items():
        print(f"make bench-peers: {title} is missing or incomplete: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _installed(peers: list[Peer]) -> tuple[dict[Peer, Path], dict[str, str]]:
    """Return each peer's interpreter, and the reason for each peer without one."""
    pythons: dict[Peer, Path] = {}
    failed: dict[str, str] = {}
    for peer in peers:
        try:
            pythons[peer] = interpreter(peer.lock)
        except subprocess.CalledProcessError as error:
            failed[peer.title] = f"it could not be installed here (pip gave {error.returncode})"
    return pythons, failed


def _rounds(pythons: dict[Peer, Path], count: int, failed: dict[str, str]) -> Rounds:
    """Return the figures of each system in each round; add the reason to *failed* if a peer has none."""
    rounds: Rounds = {}
    with ExitStack() as stack:
        # The pools fork this process, so they start before any connections are open.
        own: list[Pool | Executor | Service] = [stack.enter_context(Pool()), stack.enter_context(Executor())]
        redis = stack.enter_context(RedisServer()) if any(each.redis for each in pythons) else None
        own += [stack.enter_context(Service(durability)) for durability in ("fsync", "memory")]
        programs = any(each.programs for each in pythons)
        for number in range(count):
            print(f"round {number + 1} of {count}", file=sys.stderr)
            for system in own:
                rounds.setdefault(system.name, []).append(_own(system, programs))
            for peer, python in pythons.items():
                try:
                    rounds.setdefault(peer.title, []).append(_peer(peer, python, redis))
                except RuntimeError as error:
                    failed[peer.title] = str(error)
    return rounds


def _own(system: Pool | Executor | Service, programs: bool) -> dict[str, float]:
    figures = measure(system, _OWN_JOBS, _TRIPS)
    if programs and isinstance(system, Service):
        figures["true/s"] = service_rate(system.durability, _PROGRAMS)
    if isinstance(system, Pool):
        del figures["submits/s"]  # a thread of the pool submits after the call has returned
    return figures


def _peer(peer: Peer, python: Path, redis: RedisServer | None) -> dict[str, float]:
    if redis is not None:
        redis.clear()
    with Remote(peer.module, python, FOLDER / f"{peer.name}.log", redis if peer.redis else None) as remote:
        figures = remote.measure(_SECONDS, _TRIPS, SEED_JOBS)
        if peer.programs:
            figures["true/s"] = remote.ask({"programs": _PROGRAMS})["rate"]
        return figures


def _facts(peers: list[Peer]) -> dict[str, dict[str, str]]:
    own = {name: {"version": "(this tree)" if name.startswith("svc") else "(stdlib)"} | facts
           for name, facts in _OWN_FACTS.items()}  # fmt: skip
    theirs = {
        each.title: {"version": each.version, "durable": each.durable, "settings": each.settings}
        for each in peers
    }
    return own | theirs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0]
    )
    names = [each.name for each in PEERS]
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often everything is done (3)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="measure these peers alone")
    parser.add_argument("--output", type=Path, default=FOLDER / "peers.json", metavar="FILE", help="figures")
    parser.add_argument("--plot", type=Path, default=FOLDER / "peers.png", metavar="FILE", help="bars")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
