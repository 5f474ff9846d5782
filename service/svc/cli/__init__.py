"""The command line. Its import is cheap, because `svc health` and `svc --help` must answer at once."""

from __future__ import annotations

import sys

#: Exit code after Ctrl-C.
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run `svc` with the process's arguments, and exit."""
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:  # also at an import below, which takes a moment
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _run(words: list[str]) -> int:
    if words[:1] == ["health"]:
        from svc import health

        return health.main(words[1:])
    if words in (["--help"], ["-h"]):
        from svc.cli.quick_help import print_help

        if print_help():
            return 0
    from svc.cli.program import run

    return run(words)
