"""The command line. Its import is cheap, because `svc health` and `svc --help` must answer at once."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `svc` with the process's arguments, and exit."""
    words = sys.argv[1:]
    if words[:1] == ["health"]:
        from svc import health

        sys.exit(health.main(words[1:]))
    if _said_at_once(words):
        return
    from svc.cli.program import run

    sys.exit(run(words))


def _said_at_once(words: list[str]) -> bool:
    """Answer a call that needs no parser; return whether it was one."""
    if words not in (["--help"], ["-h"]):
        return False
    from svc.cli.quick_help import fits, overview

    if not fits():
        return False
    try:
        sys.stdout.write(overview())
        sys.stdout.flush()
    except BrokenPipeError:
        return False  # the program handles a closed pipe
    return True
