"""The command line. Its import is cheap, because `svc health` and `svc --help` must answer at once."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `svc` with the process's arguments, and exit."""
    words = sys.argv[1:]
    if words[:1] == ["health"]:
        from svc import health

        sys.exit(health.main(words[1:]))
    if words in (["--help"], ["-h"]):
        from svc.cli.quick_help import print_help

        if print_help():
            return
    from svc.cli.program import run

    sys.exit(run(words))
