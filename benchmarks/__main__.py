"""Measure svc beside the standard library, in one run, on this machine.

Starts a manager and a worker with four consumers for each durability, and also a Pool, a ProcessPoolExecutor
and a stdlib manager. Every round does each measure once for each system, so that changes of the machine's
speed affect all systems alike. The table has medians. Only ratios within one run are meaningful.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import heavy
from benchmarks.drawing import draw
from benchmarks.figures import Figures
from benchmarks.measures import FULL, MEASURES, QUICK, SMOKE, USUAL, Field, Sizes, one_round
from benchmarks.report import document, note, panels, table
from benchmarks.systems import Executor, Pool, Service, StockServer

#: Former names of measures, which `--only` still takes.
OLD_NAMES = {"siege": "flood", "seed": "textbook"}


def main(arguments: list[str]) -> int:
    """Run the benchmark that *arguments* ask for; return the exit code."""
    options = command_line().parse_args(arguments)
    sizes, rounds = _extent(options)
    figures = Figures()
    usual = [name for name in options.only if name in MEASURES]
    with ExitStack() as stack:
        who = _field(stack, options.durability) if usual else None
        for number in range(rounds if who else 0):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            if who is not None:
                one_round(who, sizes, figures, usual)
    _heavy_ones(options, figures)
    print(table(figures))
    if options.output is not None:
        options.output.write_text(json.dumps(document(figures, sizes, rounds), indent=1) + "\n")
    if options.plot is not None and (shown := panels(figures)):
        draw(shown, note(options.durability), options.plot)
    return 0


def _heavy_ones(options: argparse.Namespace, figures: Figures) -> None:
    """Do the chosen long measures, which only run on request, with the first durability; once by default."""
    extent = heavy.SMOKE if options.smoke else heavy.QUICK if options.quick else heavy.Extent()
    if options.jobs:
        extent = replace(extent, waiting=options.jobs, hosts=extent.hosts.with_jobs(options.jobs))
    if options.no_peers:
        extent = replace(extent, with_peers=False)
    chosen = [name for name in options.only if name in heavy.HEAVY]
    for number in range(options.rounds or 1):
        for name in chosen:
            print(f"{name}, round {number + 1}: this takes minutes", file=sys.stderr)
            heavy.HEAVY[name](options.durability[0], extent, figures)


def _field(stack: ExitStack, durabilities: list[str]) -> Field:
    # The pools fork this process, so they start before any connections are open.
    pool, executor = stack.enter_context(Pool()), stack.enter_context(Executor())
    server = stack.enter_context(StockServer())
    services = tuple(stack.enter_context(Service(each)) for each in durabilities)
    quiet = stack.enter_context(Service(durabilities[0], logs=False))
    return Field(services, quiet, pool, executor, server)


def _extent(options: argparse.Namespace) -> tuple[Sizes, int]:
    if options.smoke:
        return SMOKE, options.rounds or 1
    if options.quick:
        return QUICK, options.rounds or 3
    return FULL, options.rounds or 3


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in about half the time")
    parser.add_argument(
        "--smoke", action="store_true", help="only see that it works; the figures mean nothing"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="how often all is done (3; what takes minutes once)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything there as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw bars (with matplotlib in .bench)")
    parser.add_argument(
        "--only",
        nargs="+",
        type=lambda name: OLD_NAMES.get(name, name),
        choices=(*MEASURES, *heavy.HEAVY),
        default=USUAL,
        help="do these measures alone; flood and what takes minutes are done only so",
    )
    parser.add_argument("--no-peers", action="store_true", help="svc alone, where a measure has peers")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="jobs of depth (1,000,000), of taking-back (100,000)"
    )
    parser.add_argument(
        "--durability",
        nargs="+",
        choices=("fsync", "os", "memory"),
        default=["fsync", "memory"],
        help="how the service runs; each has a manager and a worker of its own",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
